//! [`Settings`]: how circuits behave, where their records live, and who is told.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use circuitry_store::{Clock, MemoryStore, Store, SystemClock};

use crate::context::{Context, default_name};
use crate::error::SettingsError;
use crate::event::StateChange;
use crate::outcome::{ErrorMatcher, Outcome, WorkError, default_error_matcher};
use crate::runtime::{Limits, MEMORY_MAX_BYTES, Source};
use crate::state::Counts;

/// Says under which name the circuit of a breaker is shared.
pub(crate) type NameFn = Arc<dyn Fn(&str, &Context) -> String + Send + Sync>;
/// A trip rule of the user's own.
pub(crate) type Hook = Arc<dyn Fn(&TripInformation) -> bool + Send + Sync>;
/// Is told of each change of state.
pub(crate) type StateChangeFn = Arc<dyn Fn(&StateChange<'_>) + Send + Sync>;

/// What a trip function is asked about: a failure that was just counted on a closed circuit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TripInformation {
    /// The circuit's name.
    pub circuit: String,
    /// The setting `failure_count_threshold`.
    pub failure_count_threshold: u64,
    /// The circuit's generation.
    pub generation: u64,
    /// The counts, with the failure in them.
    pub counts: Counts,
}

/// What becomes of starts and outcomes while the store is down.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StoreFailure {
    /// Go on with the same rules on a record of this process, begun from the entry last seen. The default.
    #[default]
    Local,
    /// Admit every start and count nothing.
    Admit,
    /// Refuse every start.
    Refuse,
}

/// When a closed circuit trips.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum TripRule {
    ConsecutiveFailures,
    Custom { name: String, version: u32 },
}

/// What the component is told: the settings of `wit/types.wit`. It checks them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rules {
    pub(crate) failure_count_threshold: u64,
    pub(crate) close_threshold: u32,
    pub(crate) allow_after_ms: u64,
    pub(crate) cyclic_clear_after_ms: Option<u64>,
    pub(crate) probe_timeout_ms: u64,
    pub(crate) idle_retention_ms: u64,
    pub(crate) trip_rule: TripRule,
}

/// Settings of a [`Factory`](crate::Factory); made by [`Settings::builder`].
#[derive(Clone)]
pub struct Settings {
    pub(crate) rules: Rules,
    pub(crate) hook: Option<Hook>,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) name_fn: NameFn,
    pub(crate) fallback_error_matcher: ErrorMatcher,
    pub(crate) circuit_error_matchers: BTreeMap<String, ErrorMatcher>,
    pub(crate) state_change_callback: Option<StateChangeFn>,
    pub(crate) store_failure: StoreFailure,
    pub(crate) store_timeout: Duration,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) source: Source,
    pub(crate) limits: Limits,
    pub(crate) max_circuits: usize,
}

impl Settings {
    /// Begins settings; what is not set has the default that its method names.
    ///
    /// # Example
    /// ```
    /// use std::time::Duration;
    /// use circuitry::Settings;
    ///
    /// let settings = Settings::builder()
    ///     .failure_count_threshold(15) // trips on the 16th failure in a row
    ///     .close_threshold(5)
    ///     .allow_after(Duration::from_secs(30 * 60))
    ///     .cyclic_clear_after(Duration::from_secs(12 * 3600))
    ///     .build()?;
    /// # let _ = settings;
    /// // A setting given twice is refused by name.
    /// let twice = Settings::builder().close_threshold(5).close_threshold(6).build();
    /// assert!(twice.unwrap_err().to_string().contains("close_threshold"));
    /// # Ok::<(), circuitry::SettingsError>(())
    /// ```
    pub fn builder() -> SettingsBuilder {
        SettingsBuilder {
            settings: Self {
                rules: Rules {
                    failure_count_threshold: 5,
                    close_threshold: 1,
                    allow_after_ms: 60_000,
                    cyclic_clear_after_ms: None,
                    probe_timeout_ms: 30_000,
                    idle_retention_ms: 24 * 3_600_000,
                    trip_rule: TripRule::ConsecutiveFailures,
                },
                hook: None,
                store: Arc::new(MemoryStore::new()),
                name_fn: Arc::new(default_name),
                fallback_error_matcher: Arc::new(default_error_matcher),
                circuit_error_matchers: BTreeMap::new(),
                state_change_callback: None,
                store_failure: StoreFailure::default(),
                store_timeout: Duration::from_millis(500),
                clock: Arc::new(SystemClock::new()),
                source: Source::default(),
                limits: Limits {
                    max_instances: 256,
                    cpu_budget: Duration::from_millis(100),
                    memory_bytes: 4 << 20,
                },
                max_circuits: 100_000,
            },
            given: BTreeSet::new(),
            twice: None,
        }
    }
}

impl fmt::Debug for Settings {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Settings")
            .field("rules", &self.rules)
            .field("store_failure", &self.store_failure)
            .field("store_timeout", &self.store_timeout)
            .field("limits", &self.limits)
            .field("max_circuits", &self.max_circuits)
            .finish_non_exhaustive()
    }
}

/// Builds [`Settings`]; each setting may be given once.
#[derive(Clone, Debug)]
#[must_use]
pub struct SettingsBuilder {
    settings: Settings,
    given: BTreeSet<String>,
    /// The first setting that was given twice.
    twice: Option<String>,
}

impl SettingsBuilder {
    fn set(mut self, setting: impl Into<String>, change: impl FnOnce(&mut Settings)) -> Self {
        let setting = setting.into();
        if self.given.contains(&setting) {
            self.twice.get_or_insert(setting);
        } else {
            change(&mut self.settings);
            self.given.insert(setting);
        }
        self
    }

    /// Where records live. Default: [`MemoryStore`], shared inside this factory only.
    pub fn store(self, store: impl Store) -> Self {
        self.set("store", |settings| settings.store = Arc::new(store))
    }

    /// Under which name a breaker's circuit is shared. Default: [`default_name`]. Two breakers with one name share one
    /// circuit, so the function must not map two tenants to one name.
    pub fn name_fn(self, name_fn: impl Fn(&str, &Context) -> String + Send + Sync + 'static) -> Self {
        self.set("name_fn", |settings| settings.name_fn = Arc::new(name_fn))
    }

    /// How many consecutive failures a closed circuit bears; one more trips it. Default 5 (as sony/gobreaker).
    pub fn failure_count_threshold(self, failures: u64) -> Self {
        self.set("failure_count_threshold", |settings| settings.rules.failure_count_threshold = failures)
    }

    /// How many consecutive successful probes close the circuit, and how many may be out at once: 1 to 64. Default 1.
    pub fn close_threshold(self, probes: u32) -> Self {
        self.set("close_threshold", |settings| settings.rules.close_threshold = probes)
    }

    /// How long an open circuit refuses before it lets probes through; at least 1 ms. Default 60 s.
    pub fn allow_after(self, open_for: Duration) -> Self {
        self.set("allow_after", |settings| settings.rules.allow_after_ms = whole_ms(open_for))
    }

    /// How long the counts of a closed circuit live from their first write on; at least 1 ms. Default: until it trips.
    pub fn cyclic_clear_after(self, counted_for: Duration) -> Self {
        self.set("cyclic_clear_after", |settings| {
            settings.rules.cyclic_clear_after_ms = Some(whole_ms(counted_for));
        })
    }

    /// How long the lease of a probe lasts; it is renewed while the work runs, so this is how long a killed worker
    /// holds its place. Work that hangs holds it for ten times as long. At least 1 ms. Default 30 s.
    pub fn probe_timeout(self, lease: Duration) -> Self {
        self.set("probe_timeout", |settings| settings.rules.probe_timeout_ms = whole_ms(lease))
    }

    /// How long a record is kept after the last thing in it that matters; at least 1 ms. Default 24 h.
    pub fn idle_retention(self, kept_for: Duration) -> Self {
        self.set("idle_retention", |settings| settings.rules.idle_retention_ms = whole_ms(kept_for))
    }

    /// A trip rule of your own, asked after each failure of a closed circuit. It must be pure and the same in every
    /// process; `name` and `version` stand for it, so raise the version when you change it.
    ///
    /// Default: [`SettingsBuilder::default_trip_fn`].
    pub fn trip_fn(
        self,
        name: impl Into<String>,
        version: u32,
        trips: impl Fn(&TripInformation) -> bool + Send + Sync + 'static,
    ) -> Self {
        self.set("trip_fn", |settings| {
            settings.rules.trip_rule = TripRule::Custom { name: name.into(), version };
            settings.hook = Some(Arc::new(trips));
        })
    }

    /// Trips when the consecutive failures are over the threshold. This is the default.
    pub fn default_trip_fn(self) -> Self {
        self.set("trip_fn", |settings| settings.rules.trip_rule = TripRule::ConsecutiveFailures)
    }

    /// What an error of the work means, for circuits without a matcher of their own.
    /// Default: [`default_error_matcher`].
    pub fn fallback_error_matcher(
        self,
        matcher: impl Fn(WorkError<'_>) -> Outcome + Send + Sync + 'static,
    ) -> Self {
        self.set("fallback_error_matcher", |settings| settings.fallback_error_matcher = Arc::new(matcher))
    }

    /// Sets the default for errors by name: [`default_error_matcher`].
    pub fn default_fallback_error_matcher(self) -> Self {
        self.fallback_error_matcher(default_error_matcher)
    }

    /// What an error means for the breakers of one name (the one given to
    /// [`breaker_for`](crate::Factory::breaker_for), whatever the name function makes of it).
    pub fn circuit_specific_error_matcher(
        self,
        circuit: impl Into<String>,
        matcher: impl Fn(WorkError<'_>) -> Outcome + Send + Sync + 'static,
    ) -> Self {
        let circuit = circuit.into();
        self.set(format!("circuit_specific_error_matcher for `{circuit}`"), |settings| {
            settings.circuit_error_matchers.insert(circuit, Arc::new(matcher));
        })
    }

    /// Is told of each change of state that this process made: once for each in the whole fleet. A change of the
    /// process's own record, while the store is down, is told here as `local`. Must not block; a panic in it is caught
    /// and logged.
    pub fn state_change_callback(self, callback: impl Fn(&StateChange<'_>) + Send + Sync + 'static) -> Self {
        self.set("state_change_callback", |settings| {
            settings.state_change_callback = Some(Arc::new(callback))
        })
    }

    /// What becomes of calls while the store is down. Default: [`StoreFailure::Local`].
    pub fn store_failure(self, policy: StoreFailure) -> Self {
        self.set("store_failure", |settings| settings.store_failure = policy)
    }

    /// How long one call may wait for the store, tries included; at least 1 ms. Default 500 ms.
    pub fn store_timeout(self, timeout: Duration) -> Self {
        self.set("store_timeout", |settings| settings.store_timeout = timeout)
    }

    /// Where time comes from until the store tells its own. Default: the system's clock.
    pub fn clock(self, clock: impl Clock) -> Self {
        self.set("clock", |settings| settings.clock = Arc::new(clock))
    }

    /// Runs the component in this file instead of the built-in one. It is checked against the world when the factory
    /// is made.
    pub fn component_path(self, path: impl Into<PathBuf>) -> Self {
        self.set("component_path", |settings| settings.source = Source::Path(path.into()))
    }

    /// How many looks, overrides and renewals of leases may be under way at once; each has an instance of the component
    /// while it asks the store. Starts and ends hold none. 8 to 900. Default 256.
    pub fn max_instances(self, instances: usize) -> Self {
        self.set("max_instances", |settings| settings.limits.max_instances = instances)
    }

    /// How much processor time one call of the component may use, waits for the store not counted; at least 1 ms.
    /// Default 100 ms; a decision takes microseconds.
    pub fn cpu_budget(self, budget: Duration) -> Self {
        self.set("cpu_budget", |settings| settings.limits.cpu_budget = budget)
    }

    /// How much memory one instance of the component may use, in bytes: 2 MiB to 64 MiB. Default 4 MiB.
    pub fn memory_limit(self, bytes: usize) -> Self {
        self.set("memory_limit", |settings| settings.limits.memory_bytes = bytes)
    }

    /// Of how many circuits this process remembers the entry last seen; at least 1. Those in use are never forgotten;
    /// another, once forgotten, costs one load, and begins closed if the store goes down before that. Default 100,000.
    pub fn max_circuits(self, circuits: usize) -> Self {
        self.set("max_circuits", |settings| settings.max_circuits = circuits)
    }

    /// Checks what can be checked without the component. The component checks the rest when the factory is made.
    ///
    /// # Errors
    /// [`SettingsError::AlreadySet`] or [`SettingsError::Invalid`], with the setting's name.
    pub fn build(self) -> Result<Settings, SettingsError> {
        if let Some(setting) = self.twice {
            return Err(SettingsError::AlreadySet { setting });
        }
        let settings = self.settings;
        let bounds = |setting: &str, value: u128, least: u128, most: u128, unit: &str| {
            if (least..=most).contains(&value) {
                return Ok(());
            }
            let most = if most == u128::MAX { "or more".into() } else { format!("to {most}{unit}") };
            let problem = format!("{value}{unit} is out of bounds: give it {least} {most}");
            Err(SettingsError::Invalid { setting: setting.into(), problem })
        };
        let limits = settings.limits;
        bounds("store_timeout", settings.store_timeout.as_millis(), 1, 3_600_000, " ms")?;
        bounds("cpu_budget", limits.cpu_budget.as_millis(), 1, 3_600_000, " ms")?;
        bounds("memory_limit", limits.memory_bytes as u128, 2 << 20, MEMORY_MAX_BYTES as u128, " bytes")?;
        bounds("max_instances", limits.max_instances as u128, 8, 900, "")?;
        bounds("max_circuits", settings.max_circuits as u128, 1, u128::MAX, "")?;
        let lengths = [
            ("close_threshold", u64::from(settings.rules.close_threshold)),
            ("allow_after", settings.rules.allow_after_ms),
            ("cyclic_clear_after", settings.rules.cyclic_clear_after_ms.unwrap_or(1)),
            ("probe_timeout", settings.rules.probe_timeout_ms),
            ("idle_retention", settings.rules.idle_retention_ms),
        ];
        for (setting, value) in lengths {
            bounds(setting, u128::from(value), 1, u128::MAX, "")?;
        }
        Ok(settings)
    }
}

/// Whole milliseconds, rounded up, so that a length above zero does not become zero.
fn whole_ms(length: Duration) -> u64 {
    u64::try_from(length.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX)
}
