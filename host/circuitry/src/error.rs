//! What can go wrong, each its own type: [`SettingsError`], [`StartError`], [`ExecuteError`], [`Error`].

use std::sync::Arc;

use circuitry_store::StoreError;

use crate::call::Problem;
use crate::refusal::Refusal;

/// Settings that cannot be used, found when the factory is made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SettingsError {
    /// A setting was given twice.
    #[error("the setting `{setting}` was already set: give it once")]
    AlreadySet {
        /// The setting's name; with the circuit for a setting of one circuit.
        setting: String,
    },
    /// A setting is out of its bounds.
    #[error("the setting `{setting}` cannot be used: {problem}")]
    Invalid {
        /// The setting's name.
        setting: String,
        /// What is wrong and what would do.
        problem: String,
    },
    /// The component cannot be used.
    #[error(transparent)]
    Component(#[from] ComponentError),
}

/// The component, or the machinery that runs it, failed. The call is lost and so is its instance; nothing else is.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ComponentError {
    /// The file is no component, or not one of the world `circuitry:breaker/circuitry`.
    #[error("the component {origin} cannot be used: {problem}")]
    Unusable {
        /// The file's path, or "that is built in".
        origin: String,
        /// What is wrong and what would do.
        problem: String,
    },
    /// The call used up its processor time.
    #[error("the component was stopped: it ran longer than its budget of {budget_ms} ms of processor time")]
    OutOfTime {
        /// The budget, in milliseconds.
        budget_ms: u64,
    },
    /// The component trapped; running out of memory is one way to.
    #[error("the component trapped: {0}")]
    Trapped(String),
    /// No instance came free in time.
    #[error("no instance of the component came free within {0} ms: raise `max_instances`")]
    Busy(u64),
    /// The call came to no end in its time, and that was not the store's fault: others wrote the circuit too, or the caller
    /// did not poll it.
    #[error("the call came to no end in its time; the store was given too little of it to be judged")]
    Hurried,
    /// The process has no room for another instance.
    #[error(
        "this process has as many instances of the component as it may: make fewer factories, or lower `max_instances`"
    )]
    Exhausted,
    /// The store's code panicked, or the async runtime shut down.
    #[error("the call was cut off: {0}")]
    CutOff(String),
}

/// Stored bytes that cannot be used. They are left as they are.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RecordError {
    /// Not a record, or a damaged one.
    #[error(
        "what is stored for it is no record of circuitry ({0}); remove it, or give this factory a prefix of its own"
    )]
    Malformed(String),
    /// A record of a newer schema.
    #[error(
        "what is stored for it has schema {0}, newer than this version knows; deploy a newer circuitry here too"
    )]
    NewerSchema(u32),
}

/// A question to a circuit that could not be answered.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The store failed.
    #[error("circuit `{circuit}`: {source}")]
    Store {
        /// The circuit's name.
        circuit: String,
        /// What the store says.
        source: Arc<StoreError>,
    },
    /// The stored bytes cannot be used.
    #[error("circuit `{circuit}`: {source}")]
    Record {
        /// The circuit's name.
        circuit: String,
        /// What is stored.
        source: RecordError,
    },
    /// The name or another argument is out of its bounds.
    #[error("circuit `{circuit}`: {problem}")]
    Argument {
        /// The circuit's name, shortened.
        circuit: String,
        /// What is wrong and what would do.
        problem: String,
    },
    /// The component failed.
    #[error("circuit `{circuit}`: {source}")]
    Component {
        /// The circuit's name.
        circuit: String,
        /// What happened.
        source: ComponentError,
    },
    /// Others kept writing and this call came to no end in time. Nothing was written.
    #[error("circuit `{circuit}`: too many processes write it at once; try again")]
    Contention {
        /// The circuit's name.
        circuit: String,
    },
    /// An answer was lost and so many others have written since that nobody can tell whether the call was applied.
    #[error(
        "circuit `{circuit}`: whether the call was applied cannot be told any more; it was not applied again"
    )]
    Forgotten {
        /// The circuit's name.
        circuit: String,
    },
}

/// A start that gave no permit. The work has not run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The circuit refuses.
    #[error("{0}")]
    Refused(#[from] Refusal),
    /// The circuit could not be asked, and no fallback applies.
    #[error(transparent)]
    Circuit(#[from] Error),
}

/// Work that gave no result.
///
/// Where it is the error of an outer breaker's work, the default matcher cannot look into it, because it does not know
/// `E`: box it, or give the outer breaker a matcher that ignores [`ExecuteError::Refused`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExecuteError<E> {
    /// The circuit refused; the work has not run.
    #[error("{0}")]
    Refused(#[source] Refusal),
    /// The work's own error, as it was.
    #[error("{0}")]
    Work(E),
    /// The circuit could not be asked, and no fallback applies; the work has not run.
    #[error(transparent)]
    Circuit(Error),
}

impl<E> ExecuteError<E> {
    /// The refusal, if it is one.
    pub fn refusal(&self) -> Option<&Refusal> {
        match self {
            Self::Refused(refusal) => Some(refusal),
            Self::Work(_) | Self::Circuit(_) => None,
        }
    }
}

impl<E> From<StartError> for ExecuteError<E> {
    fn from(error: StartError) -> Self {
        match error {
            StartError::Refused(refusal) => Self::Refused(refusal),
            StartError::Circuit(error) => Self::Circuit(error),
        }
    }
}

impl Error {
    pub(crate) fn new(circuit: &str, problem: Problem) -> Self {
        let circuit = shortened(circuit);
        match problem {
            Problem::Store(error) => Self::Store { circuit, source: Arc::new(error) },
            Problem::Record(source) => Self::Record { circuit, source },
            Problem::Argument(problem) => Self::Argument { circuit, problem },
            Problem::Component(source) => Self::Component { circuit, source },
            Problem::Contention => Self::Contention { circuit },
            Problem::Forgotten => Self::Forgotten { circuit },
        }
    }
}

/// A name for a message: whatever it is, it stays on a line.
fn shortened(name: &str) -> String {
    const CHARACTERS: usize = 120;
    let mut shown: String = name.chars().take(CHARACTERS).flat_map(char::escape_debug).collect();
    if name.chars().nth(CHARACTERS).is_some() {
        shown.push('…');
    }
    shown
}

/// Outcomes that [`Factory::flush`](crate::Factory::flush) could not settle.
#[derive(Clone, Debug, thiserror::Error)]
#[error(
    "{unsettled} outcomes are not settled: the store is down or did not answer in time; they are kept, flush again"
)]
#[non_exhaustive]
pub struct FlushError {
    /// How many outcomes wait.
    pub unsettled: u64,
}
