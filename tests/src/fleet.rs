//! What a worker process is told ([`Task`]) and what it reports ([`Report`]), as JSON.
//!
//! A worker gets its task as its only argument. It prints [`READY`] when it has a factory, waits for a line on its
//! standard input, works, and prints its report as one line.

use std::time::Duration;

use circuitry::{Consistency, Settings, SettingsBuilder, State, Transition, TransitionReason};
use serde::{Deserialize, Serialize};

/// The line that says that a worker waits for the start.
pub const READY: &str = "ready";
/// The line that says that a worker holds a probe, and that its work will not end.
pub const HOLDING: &str = "holding a probe";
/// No call of a test that is not about a slow store runs into it, on however busy a machine.
pub const PATIENT: Duration = Duration::from_secs(20);

/// What a worker does, on which circuit.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Task {
    /// The server.
    pub redis_url: String,
    /// Of the store's keys.
    pub prefix: String,
    /// The circuit's name.
    pub circuit: String,
    /// The setting of that name.
    pub failure_count_threshold: u64,
    /// The setting of that name.
    pub close_threshold: u32,
    /// The setting of that name, in milliseconds.
    pub allow_after_ms: u64,
    /// The setting of that name, in milliseconds.
    pub probe_timeout_ms: u64,
    /// Whether in bounded mode, by its default times; else in strict mode.
    pub bounded: bool,
    /// What to do.
    pub work: Work,
}

/// What to do.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Work {
    /// Execute, over and over.
    Execute(Load),
    /// Take a probe and hold it until the process is killed.
    HoldProbe,
}

/// How much to execute, and how it ends.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Load {
    /// How many tasks execute at once.
    pub tasks: u64,
    /// How many executions they try together.
    pub executions: u64,
    /// How long the work of a permit takes, in milliseconds.
    pub work_ms: u64,
    /// How many of a thousand permits end with a failure.
    pub failures_per_mille: u32,
    /// How many of a thousand permits end ignored.
    pub ignored_per_mille: u32,
    /// The key of a Redis stream in which the probes' leases are logged; see [`Lease`].
    pub lease_log: Option<String>,
    /// Of the outcomes.
    pub seed: u64,
}

/// What a worker has to say.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// How often a start was asked for.
    pub attempts: u64,
    /// Of these, starts that were refused.
    pub refused: u64,
    /// Permits whose success was accepted.
    pub accepted_successes: u64,
    /// Permits whose failure was accepted.
    pub accepted_failures: u64,
    /// Permits whose success or failure was stale.
    pub stale: u64,
    /// Permits that ended ignored.
    pub ignored: u64,
    /// Permits whose outcome was not settled in time.
    pub unsettled: u64,
    /// Permits that were settled, or refused, by the process's own record.
    pub local: u64,
    /// Calls that failed, with the error.
    pub errors: Vec<String>,
    /// What the state-change callback was told, in the order of the calls.
    pub changes: Vec<Change>,
    /// The longest that a start or an end took, in milliseconds.
    pub slowest_ms: u64,
    /// How long it all took, in milliseconds.
    pub took_ms: u64,
}

impl Report {
    /// Adds what another task has to say.
    pub fn add(&mut self, other: Self) {
        self.attempts += other.attempts;
        self.refused += other.refused;
        self.accepted_successes += other.accepted_successes;
        self.accepted_failures += other.accepted_failures;
        self.stale += other.stale;
        self.ignored += other.ignored;
        self.unsettled += other.unsettled;
        self.local += other.local;
        self.errors.extend(other.errors);
        self.changes.extend(other.changes);
        self.slowest_ms = self.slowest_ms.max(other.slowest_ms);
        self.took_ms = self.took_ms.max(other.took_ms);
    }
}

/// A change of state, as a callback was told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// The state before, by its name.
    pub from: String,
    /// The state after, by its name.
    pub to: String,
    /// Why, by its name.
    pub reason: String,
    /// When, in store time.
    pub at_ms: u64,
    /// The era that began.
    pub era: u64,
    /// The generation that is counted from then on.
    pub generation: u64,
    /// Whether it was the process's own record.
    pub local: bool,
}

impl Change {
    /// Writes a transition down.
    pub fn new(transition: &Transition, local: bool) -> Self {
        Self {
            from: transition.previous.to_string(),
            to: transition.next.to_string(),
            reason: transition.reason.to_string(),
            at_ms: transition.at_ms,
            era: transition.era,
            generation: transition.generation,
            local,
        }
    }

    /// Whether it is from `state`.
    pub fn is_from(&self, state: State) -> bool {
        self.from == state.as_str()
    }

    /// Whether it is to `state`.
    pub fn is_to(&self, state: State) -> bool {
        self.to == state.as_str()
    }

    /// Whether it came about by `reason`.
    pub fn is_by(&self, reason: TransitionReason) -> bool {
        self.reason == reason.as_str()
    }
}

/// One line in the log of leases, as the fields of a Redis stream's entry. The server gives the entry its time and its
/// place in the order, which is one for all workers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// The era that the probe belongs to.
    pub era: u64,
    /// What became of the lease.
    pub event: LeaseEvent,
}

/// What became of a lease. It is logged inside the time in which the lease is held: after the start was answered, and
/// before the end is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeaseEvent {
    /// The probe's work begins.
    Begun,
    /// It ends and gives its place back.
    Released,
    /// It ends with a success, which keeps its place until the phase is over.
    Succeeded,
}

impl LeaseEvent {
    /// The name in the log.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Begun => "begun",
            Self::Released => "released",
            Self::Succeeded => "succeeded",
        }
    }

    /// The event of that name.
    pub fn named(name: &str) -> Option<Self> {
        [Self::Begun, Self::Released, Self::Succeeded].into_iter().find(|event| event.as_str() == name)
    }
}

impl Task {
    /// The settings that it asks for, without a store.
    pub fn settings(&self) -> SettingsBuilder {
        let consistency = if self.bounded { Consistency::default() } else { Consistency::Strict };
        Settings::builder()
            .consistency(consistency)
            .failure_count_threshold(self.failure_count_threshold)
            .close_threshold(self.close_threshold)
            .allow_after(Duration::from_millis(self.allow_after_ms))
            .probe_timeout(Duration::from_millis(self.probe_timeout_ms))
            .store_timeout(PATIENT)
    }
}
