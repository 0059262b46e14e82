//! One call of the component, as values: what is asked, what is answered, and how it fails.

use std::sync::Arc;

use circuitry_store::{Loaded, StoreError};

use crate::error::{ComponentError, RecordError};
use crate::outcome::Outcome;
use crate::refusal::Refusal;
use crate::runtime::asking::Deadline;
use crate::settings::Rules;
use crate::state::{Information, Override, Transition};

/// Names one call of one process, and the probe that the call was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Token {
    pub(crate) node: u64,
    pub(crate) sequence: u64,
}

/// Leave to work, as the component gives it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Grant {
    pub(crate) era: u64,
    pub(crate) probe: Option<Token>,
}

/// One permit's outcome, or a run of equal ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Completion {
    pub(crate) grant: Grant,
    pub(crate) outcome: Outcome,
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
    Start,
    End(Vec<Completion>),
    Renew { era: u64, probe: Token },
    Inspect,
    SetOverride(Option<Override>),
}

/// One call.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) circuit: Arc<str>,
    pub(crate) rules: Arc<Rules>,
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
    Started {
        verdict: Result<Grant, Refusal>,
        transitions: Vec<Transition>,
    },
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
