//! [`SettingsBuilder`]: what a process says of itself here, how its circuits behave in `circuit`.

mod circuit;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use circuitry_store::{Clock, Store};

use crate::context::Context;
use crate::error::SettingsError;
use crate::event::StateChange;
use crate::outcome::{Outcome, WorkError, default_error_matcher};
use crate::policy::TripRule;
use crate::runtime::MEMORY_MAX_BYTES;
use crate::settings::{Consistency, Settings, StoreFailure};

/// The most bytes of a custom rule's name, as `wit/` says.
const RULE_NAME_MAX_BYTES: usize = 64;
/// The most bytes of a node's id, as `wit/` says.
const NODE_ID_MAX_BYTES: usize = 48;

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
    pub(crate) fn new(settings: Settings) -> Self {
        Self { settings, given: BTreeSet::new(), twice: None }
    }

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

    /// What was given so far is what holds where nothing is given.
    pub(crate) fn into_defaults(mut self) -> Self {
        self.given.clear();
        self
    }

    /// Where records live. Default: [`MemoryStore`](crate::MemoryStore), shared inside this factory only.
    pub fn store(self, store: impl Store) -> Self {
        self.set("store", |settings| settings.store = Arc::new(store))
    }

    /// Under which name a breaker's circuit is shared. Default: [`default_name`](crate::default_name). Two breakers with one
    /// name share one circuit, so the function must not map two tenants to one name.
    pub fn name_fn(self, name_fn: impl Fn(&str, &Context) -> String + Send + Sync + 'static) -> Self {
        self.set("name_fn", |settings| settings.name_fn = Arc::new(name_fn))
    }

    /// The name under which this node votes, where a [`quorum`](Self::quorum) is in force: 1 to 48 bytes, another for each node
    /// of the fleet. Needed with `quorum`.
    ///
    /// Give it one that a restart keeps (a host's name, the number of a replica): a node has one vote, and one that comes back
    /// under another name would have two until the window is over. Where other processes bring a quorum and this one has no
    /// name, it votes under one drawn at random.
    pub fn node_id(self, id: impl Into<String>) -> Self {
        self.set("node_id", |settings| settings.node_id = Some(id.into().into()))
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

    /// Is told of each change of state that this process made: once for each in the whole fleet. A change of a record of this
    /// process's own (while the store is down, or with a [`quorum`](Self::quorum)) is told here as `local`. Must not block; a
    /// panic in it is caught and logged.
    pub fn state_change_callback(self, callback: impl Fn(&StateChange<'_>) + Send + Sync + 'static) -> Self {
        self.set("state_change_callback", |settings| {
            settings.state_change_callback = Some(Arc::new(callback))
        })
    }

    /// How current decisions are, and what they cost. Default: [`Consistency::Bounded`], by 100 ms each.
    pub fn consistency(self, consistency: Consistency) -> Self {
        self.set("consistency", |settings| settings.consistency = consistency)
    }

    /// What becomes of calls while the store is down. Default: [`StoreFailure::Local`].
    pub fn store_failure(self, policy: StoreFailure) -> Self {
        self.set("store_failure", |settings| settings.store_failure = policy)
    }

    /// How long one call may wait for the store, tries included; at least 1 ms. Default 500 ms.
    pub fn store_timeout(self, timeout: Duration) -> Self {
        self.set("store_timeout", |settings| settings.store_timeout = timeout)
    }

    /// Where time comes from until the store tells its own, and by which calls are slow. Default: the system's clock.
    pub fn clock(self, clock: impl Clock) -> Self {
        self.set("clock", |settings| settings.clock = Arc::new(clock))
    }

    /// Runs the component in this file instead of the built-in one. It is checked against the world when the factory
    /// is made.
    pub fn component_path(self, path: impl Into<PathBuf>) -> Self {
        self.set("component_path", |settings| settings.source.path = Some(path.into()))
    }

    /// Keeps the compiled component in this folder, so that the next process need not compile it: it is ready in some
    /// milliseconds. Default: none, each process compiles. The folder is made where there is none.
    ///
    /// Code that is kept is compiled well, code that is not quickly: with a folder a decision of the component also takes a fifth
    /// less time. In strict mode, where each call takes two, give one.
    ///
    /// The first process writes a file of about a megabyte and those after it load it. Its name stands for the component,
    /// the release of wasmtime and the processor, so an update makes another file; old ones may be removed at any time.
    /// A file that is damaged is compiled anew and replaced, and where the folder cannot be written each process
    /// compiles, both with a warning in the log.
    ///
    /// The file is machine code, which runs with all rights of this process. So on Unix the folder and the file must belong
    /// to this process's user or to root, and nobody else may be able to write them, else [`Factory::new`](crate::Factory::new)
    /// fails and says what to change. Elsewhere that is yours to see to, and everywhere that nobody else can rename the
    /// folders above. A file is written for its owner's eyes only: in an image that root builds and another user runs,
    /// `chmod a+r` it.
    ///
    /// # Example
    /// ```
    /// # use circuitry::{Factory, Settings};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let folder = tempfile::tempdir()?;
    /// let cache = "/var/cache/my-service/circuitry";
    /// # let cache = folder.path().join("circuitry");
    /// let factory = Factory::new(Settings::builder().component_cache(cache).build()?).await?;
    /// # drop(factory);
    /// # Ok(()) }
    /// ```
    pub fn component_cache(self, folder: impl Into<PathBuf>) -> Self {
        self.set("component_cache", |settings| settings.source.cache = Some(folder.into()))
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

    /// Of how many circuits this process remembers the entry last seen; at least 1. Those in use are never forgotten, nor those that
    /// refuse for some time yet or have outcomes to be flushed; another, once forgotten, costs one load, and begins closed if the
    /// store goes down before that. With a quorum what the node had counted for itself is forgotten with it. Default 100,000.
    pub fn max_circuits(self, circuits: usize) -> Self {
        self.set("max_circuits", |settings| settings.max_circuits = circuits)
    }

    /// Checks what can be checked without the component. The component checks the rest when the factory is made.
    ///
    /// # Errors
    /// [`SettingsError::AlreadySet`] or [`SettingsError::Invalid`], with the setting's name.
    pub fn build(mut self) -> Result<Settings, SettingsError> {
        if let Some(setting) = self.twice.take() {
            return Err(SettingsError::AlreadySet { setting });
        }
        self.gather_rules()?;
        let settings = self.settings;
        let bounds = |setting: &str, value: u128, least: u128, most: u128, unit: &str| {
            if (least..=most).contains(&value) {
                return Ok(());
            }
            let most = if most == u128::MAX { "or more".into() } else { format!("to {most}{unit}") };
            Err(invalid(setting, format!("{value}{unit} is out of bounds: give it {least} {most}")))
        };
        let limits = settings.limits;
        bounds("store_timeout", settings.store_timeout.as_millis(), 1, 3_600_000, " ms")?;
        bounds("cpu_budget", limits.cpu_budget.as_millis(), 1, 3_600_000, " ms")?;
        bounds("memory_limit", limits.memory_bytes as u128, 2 << 20, MEMORY_MAX_BYTES as u128, " bytes")?;
        bounds("max_instances", limits.max_instances as u128, 8, 900, "")?;
        bounds("max_circuits", settings.max_circuits as u128, 1, u128::MAX, "")?;
        if let Consistency::Bounded { max_staleness, flush_every } = settings.consistency {
            bounds("consistency.max_staleness", max_staleness.as_millis(), 1, 60_000, " ms")?;
            bounds("consistency.flush_every", flush_every.as_millis(), 1, 60_000, " ms")?;
        }
        let rules = &settings.rules;
        let lengths = [
            ("close_threshold", u128::from(rules.close_threshold)),
            ("allow_after", rules.allow_after.as_millis()),
            ("cyclic_clear_after", rules.cyclic_clear_after.map_or(1, |length| length.as_millis())),
            ("probe_timeout", rules.probe_timeout.as_millis()),
            ("idle_retention", rules.idle_retention.as_millis()),
        ];
        for (setting, value) in lengths {
            bounds(setting, value, 1, u128::MAX, "")?;
        }
        match &settings.node_id {
            Some(id) => bounds("node_id", id.len() as u128, 1, NODE_ID_MAX_BYTES as u128, " bytes")?,
            None if rules.quorum.is_some() => {
                let problem = "a quorum is set, and votes are told apart by it: name this node, \
                               with a name that no other has and that a restart keeps";
                return Err(invalid("node_id", problem));
            }
            None => {}
        }
        if let Some(hook) = &settings.hook {
            bounds("trip_fn", hook.name.len() as u128, 1, RULE_NAME_MAX_BYTES as u128, " bytes of a name")?;
        }
        Ok(settings)
    }

    /// The rules that were given, the trip function last; the default where there are none.
    fn gather_rules(&mut self) -> Result<(), SettingsError> {
        let rules = &mut self.settings.rules.trip_rules;
        if rules.iter().any(|rule| matches!(rule, TripRule::Custom { .. })) {
            return Err(invalid("trip_rules", "a custom rule has code: give it with `trip_fn`"));
        }
        let by_default = TripRule::ConsecutiveFailures { minimum_calls: 0 };
        match &self.settings.hook {
            Some(hook) => rules.push(TripRule::Custom { name: hook.name.clone(), version: hook.version }),
            None if self.given.contains("trip_fn") && !rules.contains(&by_default) => rules.push(by_default),
            None if rules.is_empty() => rules.push(by_default),
            None => {}
        }
        Ok(())
    }
}

fn invalid(setting: &str, problem: impl Into<String>) -> SettingsError {
    SettingsError::Invalid { setting: setting.into(), problem: problem.into() }
}
