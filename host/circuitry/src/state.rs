//! What a circuit is, as people and events see it: the words of `wit/types.wit` in Rust.

use std::fmt;

use crate::policy::{CircuitSettings, TripRule};

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

/// Why a circuit changed its state. Each reason but [`TransitionReason::Reset`] belongs to one transition only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TransitionReason {
    /// closed → open: a trip rule said so.
    Tripped,
    /// open → half-open: the open time is over and somebody asked to start.
    OpenTimeOver,
    /// half-open → closed: enough probes succeeded.
    ProbesSucceeded,
    /// half-open → open: too many probes failed.
    ProbeFailed,
    /// closed → open: enough nodes voted.
    VotesReached,
    /// half-open → open: the phase took too long.
    HalfOpenOverdueOpened,
    /// half-open → closed: the phase took too long.
    HalfOpenOverdueClosed,
    /// any state → closed: a person said so.
    Reset,
}

impl TransitionReason {
    /// The name as it is in metrics and events, for example `probe-failed`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tripped => "tripped",
            Self::OpenTimeOver => "open-time-over",
            Self::ProbesSucceeded => "probes-succeeded",
            Self::ProbeFailed => "probe-failed",
            Self::VotesReached => "votes-reached",
            Self::HalfOpenOverdueOpened => "half-open-overdue-opened",
            Self::HalfOpenOverdueClosed => "half-open-overdue-closed",
            Self::Reset => "reset",
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
///
/// What stands above what, when somebody starts: an override, then the state, then the ramp of a circuit that has recovered,
/// then, with a quorum, the node's own record. So an override frees a node that tripped alone, too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum OverrideKind {
    /// Every start is refused.
    ForcedOpen,
    /// Every start is admitted; outcomes of a closed circuit are counted, but nothing trips.
    ForcedClosed,
    /// Every start is admitted with a permit that counts nothing, and no outcome counts anything.
    Disabled,
    /// Everything goes on as ever, probes included, but a start that would be refused is admitted with a permit that counts
    /// nothing and says so: [`Permit::would_have_refused`](crate::Permit::would_have_refused). For a trial of new rules.
    MetricsOnly,
}

impl OverrideKind {
    /// The name as it is in the contract, for example `forced-open`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ForcedOpen => "forced-open",
            Self::ForcedClosed => "forced-closed",
            Self::Disabled => "disabled",
            Self::MetricsOnly => "metrics-only",
        }
    }
}

impl fmt::Display for OverrideKind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.as_str())
    }
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

/// A node that tripped for itself.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Vote {
    /// The node's id, as its settings have it.
    pub node_id: String,
    /// When, in store time.
    pub at_ms: u64,
}

/// What made a circuit open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TripKind {
    /// Failures in a row.
    ConsecutiveFailures,
    /// Failures in a window.
    FailureCount,
    /// The share of failures in a window.
    FailureRate,
    /// The share of slow calls in a window.
    SlowCallRate,
    /// The trip function.
    Custom,
    /// Probes that failed.
    Probe,
    /// A half-open phase that took too long.
    Overdue,
    /// Nodes that voted.
    Votes,
}

/// Why a circuit opened last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Trip {
    /// What made it open.
    pub kind: TripKind,
    /// What was found: failures, a share per mille, failed probes, or votes; for [`TripKind::Custom`] the failures in a row.
    pub observed: u64,
    /// With what it opens, in the same unit; 0 for [`TripKind::Custom`].
    pub threshold: u64,
    /// The calls that the rule looked at; 0 where it looks at none.
    pub calls: u64,
    /// When, in store time.
    pub at_ms: u64,
    /// How long it opened for, in milliseconds.
    pub open_for_ms: u64,
}

/// What a rule sees now.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RuleState {
    /// The rule.
    pub rule: TripRule,
    /// Failures, or a share per mille; for [`TripRule::Custom`] the failures in a row.
    pub observed: u64,
    /// The calls that it looks at.
    pub calls: u64,
}

/// Where a ramp is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RampPosition {
    /// The share that is admitted, per mille.
    pub share_per_mille: u32,
    /// When the next step begins, in store time.
    pub next_step_at_ms: u64,
}

/// What may change next without an outcome or a person.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ChangeKind {
    /// The open time ends; the next start is a probe.
    HalfOpen,
    /// A probe's lease ends.
    LeaseEnd,
    /// The half-open phase has taken too long.
    HalfOpenOverdue,
    /// The ramp's next step begins.
    RampStep,
    /// The override ends.
    OverrideEnd,
    /// The counts are cleared.
    CountsClear,
    /// A vote ends.
    VoteEnd,
}

/// The next change that time brings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct NextChange {
    /// What.
    pub kind: ChangeKind,
    /// When, in store time.
    pub at_ms: u64,
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
    /// Open: when the open time ends. Closed: when the counts are cleared. Half-open: when the phase is overdue. In store time.
    pub expires_at_ms: Option<u64>,
    /// The probes that hold a place.
    pub probes: Vec<Probe>,
    /// How many probes of this half-open phase have succeeded.
    pub probe_successes: u32,
    /// How many probes of this half-open phase have failed.
    pub probe_failures: u32,
    /// The override in force.
    pub override_in_force: Option<Override>,
    /// The last 8 transitions, oldest first.
    pub transitions: Vec<Transition>,
    /// How often the record was written.
    pub revision: u64,
    /// Why the circuit opened last.
    pub last_trip: Option<Trip>,
    /// How many trips in a row there were, for the backoff.
    pub trips_in_a_row: u32,
    /// Closed: what each rule in force sees. With a quorum the rules look at the nodes' own records instead: see `own`.
    pub rules: Vec<RuleState>,
    /// The ramp, while there is one.
    pub ramp: Option<RampPosition>,
    /// The votes that live, oldest first.
    pub votes: Vec<Vote>,
    /// What time will change next.
    pub next_change: Option<NextChange>,
    /// The settings in force; those of this process where nothing is stored yet.
    pub settings_in_force: CircuitSettings,
    /// Whether this process has others.
    pub settings_differ: bool,
    /// With a quorum: the record by which this node decides for itself, once it has asked it. Its rules are what the
    /// outcomes here are held against.
    pub own: Option<Box<Information>>,
    /// All this in a short paragraph, in English; the same as [`Information::explain`].
    pub explanation: String,
    /// Whether this is the process's own record, because the store is down or the process too busy to ask it.
    pub local: bool,
}

impl Information {
    /// Says in a short paragraph, in English, what the circuit does, why, and until when: for the person who was just woken up.
    pub fn explain(&self) -> &str {
        &self.explanation
    }
}
