//! One call of the component, as values: what is asked, what is answered, and how it fails.

use std::sync::Arc;

use circuitry_store::{Loaded, StoreError};

use crate::error::{ComponentError, RecordError};
use crate::outcome::Outcome;
use crate::policy::CircuitSettings;
use crate::refusal::Refusal;
use crate::runtime::asking::Deadline;
use crate::state::{Information, Override, Transition};

/// Names one call of one process, and the probe that the call was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Token {
    pub(crate) node: u64,
    pub(crate) sequence: u64,
}

/// To what an outcome belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Grant {
    pub(crate) era: u64,
    pub(crate) probe: Option<Token>,
}

/// Who judges the outcome of work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum JudgedBy {
    /// The shared record.
    Fleet,
    /// This node's own record: a quorum is in force.
    Node,
    /// Nobody: it counts nothing.
    Nobody,
}

/// Leave to work, as the component gives it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Leave {
    pub(crate) grant: Grant,
    pub(crate) judged_by: JudgedBy,
    /// Work that takes longer is slow.
    pub(crate) slow_call_after_ms: Option<u64>,
    /// What an override of the kind *metrics only* turned into this leave.
    pub(crate) would_have_refused: Option<Refusal>,
    /// Until when, in store time, starts and successes need not ask.
    pub(crate) granted_until_ms: Option<u64>,
}

/// What a start is answered.
#[derive(Clone, Debug)]
pub(crate) struct Started {
    pub(crate) verdict: Result<Leave, Refusal>,
    pub(crate) transitions: Vec<Transition>,
    /// The settings in force, where they are others than those of the call.
    pub(crate) settings_in_force: Option<Arc<CircuitSettings>>,
}

/// One permit's outcome, or a run of equal ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Completion {
    pub(crate) grant: Grant,
    pub(crate) outcome: Outcome,
    pub(crate) slow: bool,
    pub(crate) count: u32,
}

/// How many of a completion were applied (the first ones), and how many came too late.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ruling {
    pub(crate) accepted: u32,
    pub(crate) stale: u32,
}

/// What is asked.
#[derive(Clone, Debug)]
pub(crate) enum Operation {
    /// A start, with its number: those of a process on a circuit are consecutive.
    Start(u64),
    End(Vec<Completion>),
    Renew {
        era: u64,
        probe: Token,
    },
    Inspect,
    SetOverride(Option<Override>),
    Vote {
        era: u64,
        node_id: Arc<str>,
    },
    Reset,
}

/// One call.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) circuit: Arc<str>,
    pub(crate) rules: Arc<CircuitSettings>,
    pub(crate) operation: Operation,
    pub(crate) token: Token,
    /// Set on a call that repeats one whose answer was lost.
    pub(crate) retry_of: Option<u64>,
    pub(crate) known: Option<Loaded>,
    pub(crate) now_ms: u64,
    /// How long the call may take, waits for the store and for an instance included.
    pub(crate) deadline: Deadline,
}

/// The answer to an operation of the same name.
#[derive(Clone, Debug)]
pub(crate) enum Answer {
    Started(Started),
    Settled {
        rulings: Vec<Ruling>,
        transitions: Vec<Transition>,
    },
    /// Whether the place is still held.
    Renewed(bool),
    Inspected(Box<Information>),
    Overridden {
        previous: Option<Override>,
    },
    Voted {
        accepted: bool,
        votes: u32,
        transitions: Vec<Transition>,
    },
    Cleared {
        previous: Option<Override>,
        transitions: Vec<Transition>,
    },
}

/// Why there is no answer.
#[derive(Debug)]
pub(crate) enum Problem {
    Store(StoreError),
    Contention,
    Forgotten,
    Record(RecordError),
    /// A name, a setting or another argument is out of its bounds; the text says which.
    Argument(String),
    Component(ComponentError),
}

/// A call that failed, with what was seen on the way.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) problem: Problem,
    pub(crate) last_seen: Option<Loaded>,
    /// The revision that a swap was based on whose fate is unknown.
    pub(crate) revision: Option<u64>,
}

impl From<ComponentError> for Failure {
    fn from(error: ComponentError) -> Self {
        Self { problem: Problem::Component(error), last_seen: None, revision: None }
    }
}
