//! [`Settings`]: how circuits behave, where their records live, and who is told.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use circuitry_store::{Clock, MemoryStore, Store, SystemClock};

pub use crate::builder::SettingsBuilder;
use crate::context::{Context, default_name};
use crate::event::StateChange;
use crate::outcome::{ErrorMatcher, default_error_matcher};
use crate::policy::CircuitSettings;
use crate::runtime::{Limits, Source};
use crate::state::Counts;

/// Says under which name the circuit of a breaker is shared.
pub(crate) type NameFn = Arc<dyn Fn(&str, &Context) -> String + Send + Sync>;
/// Says whether a circuit trips.
pub(crate) type TripFn = Arc<dyn Fn(&TripInformation) -> bool + Send + Sync>;
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

/// How current a process's decisions are, and what they cost.
///
/// # Example
/// ```
/// use std::time::Duration;
/// use circuitry::{Consistency, Settings};
///
/// // The store is asked twice a call, and every process sees at once what another one did.
/// let strict = Settings::builder().consistency(Consistency::Strict).build()?;
/// // Half as many store operations as by default; a trip elsewhere is seen after 200 ms at the latest.
/// let calmer = Settings::builder().consistency(Consistency::Bounded {
///     max_staleness: Duration::from_millis(200),
///     flush_every: Duration::from_millis(200),
/// });
/// # let _ = (strict, calmer.build()?);
/// # Ok::<(), circuitry::SettingsError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Consistency {
    /// Every start reads the store and every end that counts writes it.
    Strict,
    /// Closed and open circuits are answered from what the process has seen lately; outcomes are counted in the process and
    /// written together. Probes are reserved in the store, as ever.
    Bounded {
        /// What another process did is seen so much later at the most, and a round trip: 1 ms to a minute.
        max_staleness: Duration,
        /// Outcomes are written so often at least (where `max_staleness` is shorter, at three quarters of it): 1 ms to a minute.
        flush_every: Duration,
    },
}

impl Default for Consistency {
    /// Bounded, by 100 ms each.
    fn default() -> Self {
        let tenth = Duration::from_millis(100);
        Self::Bounded { max_staleness: tenth, flush_every: tenth }
    }
}

/// A trip rule of the user's own: its code, and what stands for it in the settings in force.
pub(crate) struct Hook {
    pub(crate) name: String,
    pub(crate) version: u32,
    pub(crate) trips: TripFn,
}

/// Settings of a [`Factory`](crate::Factory); made by [`Settings::builder`].
#[derive(Clone)]
pub struct Settings {
    pub(crate) rules: CircuitSettings,
    pub(crate) hook: Option<Arc<Hook>>,
    /// The name under which this node votes.
    pub(crate) node_id: Option<Arc<str>>,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) name_fn: NameFn,
    pub(crate) fallback_error_matcher: ErrorMatcher,
    pub(crate) circuit_error_matchers: BTreeMap<String, ErrorMatcher>,
    pub(crate) state_change_callback: Option<StateChangeFn>,
    pub(crate) consistency: Consistency,
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
        SettingsBuilder::new(Self {
            rules: CircuitSettings::unset(),
            hook: None,
            node_id: None,
            store: Arc::new(MemoryStore::new()),
            name_fn: Arc::new(default_name),
            fallback_error_matcher: Arc::new(default_error_matcher),
            circuit_error_matchers: BTreeMap::new(),
            state_change_callback: None,
            consistency: Consistency::default(),
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
        })
    }
}

impl fmt::Debug for Settings {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Settings")
            .field("rules", &self.rules)
            .field("node_id", &self.node_id)
            .field("consistency", &self.consistency)
            .field("store_failure", &self.store_failure)
            .field("store_timeout", &self.store_timeout)
            .field("limits", &self.limits)
            .field("max_circuits", &self.max_circuits)
            .finish_non_exhaustive()
    }
}
