//! What a circuit is, as people and events see it: the words of `wit/types.wit` in Rust.

use std::fmt;

/// What a circuit does with a start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum State {
    /// It admits.
    Closed,
    /// It refuses.
    Open,
    /// It admits a few probes.
    HalfOpen,
}

impl State {
    /// All states, in the order in which a circuit usually goes through them.
    pub const ALL: [Self; 3] = [Self::Closed, Self::Open, Self::HalfOpen];

    /// The name as it is in metrics and events: `closed`, `open` or `half-open`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half-open",
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.as_str())
    }
}

/// What has been counted since the generation began; each count stops at its largest value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Successes and failures.
    pub total: u64,
    /// Successes.
    pub total_successes: u64,
    /// Failures.
    pub total_failures: u64,
    /// Successes since the last failure.
    pub consecutive_successes: u64,
    /// Failures since the last success.
    pub consecutive_failures: u64,
}

/// Why a circuit changed its state. Each reason belongs to one transition only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TransitionReason {
    /// closed → open: the trip rule said so.
    Tripped,
    /// open → half-open: the open time is over and somebody asked to start.
    OpenTimeOver,
    /// half-open → closed: enough probes succeeded.
    ProbesSucceeded,
    /// half-open → open: a probe failed.
    ProbeFailed,
}

impl TransitionReason {
    /// The name as it is in metrics and events, for example `probe-failed`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tripped => "tripped",
            Self::OpenTimeOver => "open-time-over",
            Self::ProbesSucceeded => "probes-succeeded",
            Self::ProbeFailed => "probe-failed",
        }
    }
}

impl fmt::Display for TransitionReason {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.as_str())
    }
}

/// A change of state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Transition {
    /// The state before.
    pub previous: State,
    /// The state after.
    pub next: State,
    /// Why.
    pub reason: TransitionReason,
    /// When, in store time (milliseconds since the Unix epoch).
    pub at_ms: u64,
    /// The era that began.
    pub era: u64,
    /// The generation that is counted from then on.
    pub generation: u64,
}

/// What a person can force.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum OverrideKind {
    /// Every start is refused.
    ForcedOpen,
    /// Every start is admitted; outcomes of a closed circuit are counted, but nothing trips.
    ForcedClosed,
}

/// A state set by a person, for the whole fleet. The state underneath goes on as it is when the override ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Override {
    /// What is forced.
    pub kind: OverrideKind,
    /// Who set it; at most 128 bytes.
    pub author: String,
    /// Why; at most 256 bytes.
    pub reason: String,
    /// When it ends, in store time (milliseconds since the Unix epoch); `None`: when somebody takes it away.
    pub until_ms: Option<u64>,
}

/// A probe that holds a place in half-open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Probe {
    /// The process that has it.
    pub node: u64,
    /// The start that was given it.
    pub sequence: u64,
    /// When its lease ends, in store time.
    pub deadline_ms: u64,
}

/// What a person asks of a circuit.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Information {
    /// The effective state, before any override: an open circuit whose time is over reads as half-open.
    pub state: State,
    /// The era, 0 where nothing is stored yet.
    pub era: u64,
    /// How often the counts were reset.
    pub generation: u64,
    /// The counts; zero where their time is over.
    pub counts: Counts,
    /// Since when the circuit is in this state, in store time; 0 where nothing is stored yet.
    pub since_ms: u64,
    /// Open: when the open time ends. Closed: when the counts are cleared. In store time.
    pub expires_at_ms: Option<u64>,
    /// The probes that hold a place.
    pub probes: Vec<Probe>,
    /// How many probes of this half-open phase have succeeded.
    pub probe_successes: u32,
    /// The override in force.
    pub override_in_force: Option<Override>,
    /// The last 8 transitions, oldest first.
    pub transitions: Vec<Transition>,
    /// How often the record was written.
    pub revision: u64,
    /// Whether this is the process's own record, because the store is down or the process too busy to ask it.
    pub local: bool,
}
