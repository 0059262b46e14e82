//! What can be asked of a circuit and what is answered: the types of `wit/`, without bindings.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;

use crate::exchange::{Loaded, StoreError};
use crate::record::{Counts, Override, Probe, RecordError, State, Token, Transition, Trip, Vote};
use crate::settings::{Settings, SettingsError, TripRule};

/// The most completions in one call, and the most that their indices need.
pub const COMPLETIONS_MAX: usize = 256;
/// The most permits in a run of equal outcomes.
pub const RUN_MAX: u32 = 65_536;
/// The most probes that one call renews: as many as may be out.
pub const PROBES_MAX: usize = 64;
/// The most bytes of a circuit's name.
pub const NAME_MAX_BYTES: usize = 1024;
/// The most bytes of an override's author.
pub const AUTHOR_MAX_BYTES: usize = 128;
/// The most bytes of an override's reason.
pub const REASON_MAX_BYTES: usize = 256;
/// The most bytes of a node's id.
pub const NODE_ID_MAX_BYTES: usize = 48;

/// Who calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caller {
    /// Names the call: a repeated call has the token of the first.
    pub token: Token,
    /// Set on a repeated call: the revision that the try with the lost answer was based on.
    pub retry_of: Option<u64>,
}

/// How work ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It went well.
    Success,
    /// The dependency failed.
    Failure,
    /// Neither: changes no count and frees a probe's place.
    Ignored,
}

/// One permit's outcome, or a run of equal ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Completion {
    /// The permit's era.
    pub era: u64,
    /// The permit's probe.
    pub probe: Option<Token>,
    /// How the work ended.
    pub outcome: Outcome,
    /// Whether it took longer than the permit said.
    pub slow: bool,
    /// How many permits ended like this: 1 to [`RUN_MAX`], 1 for a probe.
    pub count: u32,
    /// How long the dependency asked to be left alone.
    pub retry_after_ms: Option<u64>,
}

/// One call, as a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The circuit's name.
    pub circuit: String,
    /// How the circuit behaves.
    pub settings: Settings,
    /// What is asked.
    pub operation: Operation,
}

/// What is asked of a circuit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    /// To begin work.
    Start(Caller),
    /// To settle permits.
    End(Caller, Vec<Completion>),
    /// To prolong the leases of probes of an era.
    Renew {
        /// Who calls.
        caller: Caller,
        /// The probes' era.
        era: u64,
        /// The probes' ids.
        probes: Vec<Token>,
    },
    /// To show the circuit.
    Inspect,
    /// To set or to take away the override.
    SetOverride(Caller, Option<Override>),
    /// To count the vote of a node that tripped for itself.
    Vote {
        /// Who calls.
        caller: Caller,
        /// The era in which it tripped.
        era: u64,
        /// The node, as its settings name it.
        node_id: String,
    },
    /// To close the circuit as if it were new.
    Reset(Caller),
}

/// Who judges the outcome of a permit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JudgedBy {
    /// The shared record.
    Fleet,
    /// The node's own record.
    Node,
    /// Nobody.
    Nobody,
}

/// Leave to work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Permit {
    /// The circuit's era, by which a late outcome is known.
    pub era: u64,
    /// The place that the permit holds in half-open.
    pub probe: Option<Probe>,
    /// Who judges its outcome.
    pub judged_by: JudgedBy,
    /// A call that takes longer is slow.
    pub slow_call_after_ms: Option<u64>,
    /// The refusal that it would be without the override.
    pub would_have_refused: Option<Refusal>,
    /// Until when the host need not ask for starts, nor at once for successes.
    pub grant_until_ms: Option<u64>,
}

/// Why a start was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefusalReason {
    /// The circuit is open.
    Open,
    /// Every probe's place is taken.
    TooManyRequests,
    /// A person forced the circuit open.
    ForcedOpen,
    /// The circuit is closed again and admits a share.
    Ramp,
}

/// A start that was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Why.
    pub reason: RefusalReason,
    /// How long to wait; at least 1 ms.
    pub retry_after_ms: u64,
}

/// The answer to a start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Leave to work.
    Permit(Permit),
    /// Ask again after a while.
    Refusal(Refusal),
}

/// What became of a completion; the two add up to its count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Disposition {
    /// So many were applied, the first ones of a run.
    pub accepted: u32,
    /// So many changed nothing.
    pub stale: u32,
}

/// What a person asks of a circuit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Information {
    /// The effective state, before any override.
    pub state: State,
    /// The era, 0 where there is no record.
    pub era: u64,
    /// How often the counts were reset.
    pub generation: u64,
    /// The counts; zero where their time is over.
    pub counts: Counts,
    /// Since when the circuit is in this state.
    pub since_ms: u64,
    /// Open: the end of the open time. Closed: when the counts are cleared. Half-open: when it is overdue.
    pub expires_at_ms: Option<u64>,
    /// The probes that hold a place.
    pub probes: Vec<Probe>,
    /// How many probes of this half-open phase have succeeded.
    pub probe_successes: u32,
    /// How many probes of this half-open phase have failed.
    pub probe_failures: u32,
    /// The override in force.
    pub override_in_force: Option<Override>,
    /// The last transitions, oldest first.
    pub transitions: Vec<Transition>,
    /// How often the record was written.
    pub revision: u64,
    /// Why the circuit opened last.
    pub last_trip: Option<Trip>,
    /// How many trips in a row there were.
    pub trips_in_a_row: u32,
    /// Closed: what each rule sees.
    pub rules: Vec<RuleState>,
    /// The ramp, while there is one.
    pub ramp: Option<RampPosition>,
    /// The votes that live, oldest first.
    pub votes: Vec<Vote>,
    /// What time will change next.
    pub next_change: Option<NextChange>,
    /// The settings in force.
    pub settings_in_force: Settings,
    /// Whether the settings given are others.
    pub settings_differ: bool,
    /// All this in a short paragraph.
    pub explanation: String,
}

/// What a rule sees now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleState {
    /// The rule.
    pub rule: TripRule,
    /// Failures, or a rate per mille.
    pub observed: u64,
    /// The calls that it looks at.
    pub calls: u64,
}

/// Where a ramp is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RampPosition {
    /// The share that is admitted.
    pub share_per_mille: u32,
    /// When the next step begins.
    pub next_step_at_ms: u64,
}

/// What may change next without an outcome or a person.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangeKind {
    /// The open time ends.
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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NextChange {
    /// What.
    pub kind: ChangeKind,
    /// When.
    pub at_ms: u64,
}

/// The answer to a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// To [`Operation::Start`].
    Started {
        /// Permit or refusal.
        verdict: Verdict,
        /// What this call changed.
        transitions: Vec<Transition>,
        /// The settings in force, where they are others than those given.
        settings_in_force: Option<Box<Settings>>,
    },
    /// To [`Operation::End`].
    Settled {
        /// One for each completion, in order.
        dispositions: Vec<Disposition>,
        /// Whether the call had been applied before.
        already_applied: bool,
        /// What this call changed.
        transitions: Vec<Transition>,
    },
    /// To [`Operation::Renew`]: for each probe its new deadline, `None` where the place is lost.
    Renewed(Vec<Option<u64>>),
    /// To [`Operation::Inspect`].
    Inspected(Box<Information>),
    /// To [`Operation::SetOverride`].
    Overridden {
        /// The override that was in force before.
        previous: Option<Override>,
        /// Whether the call had been applied before.
        already_applied: bool,
    },
    /// To [`Operation::Vote`].
    Voted {
        /// Whether the vote counts.
        accepted: bool,
        /// How many nodes have a live vote now.
        votes: u32,
        /// Whether the call had been applied before.
        already_applied: bool,
        /// What this call changed.
        transitions: Vec<Transition>,
    },
    /// To [`Operation::Reset`].
    Cleared {
        /// The override that was in force before.
        previous: Option<Override>,
        /// Whether the call had been applied before.
        already_applied: bool,
        /// What this call changed.
        transitions: Vec<Transition>,
    },
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    /// The circuit's name is out of its bounds.
    CircuitName(String),
    /// A setting cannot be used.
    Settings(SettingsError),
    /// An argument is out of its bounds.
    Request(String),
    /// The stored bytes cannot be used; they are left as they are.
    Record(RecordError),
    /// The store failed.
    Store(StoreError),
    /// Too many races were lost in a row; nothing was written.
    Contention,
    /// A repeated call whose fate cannot be told any more; it was not applied now.
    Forgotten,
}

/// A call that failed, with what was seen on the way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Why.
    pub error: Error,
    /// The entry last seen.
    pub last_seen: Option<Loaded>,
    /// The revision that a swap was based on whose fate is unknown.
    pub revision: Option<u64>,
}
