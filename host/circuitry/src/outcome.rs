//! How work ended: [`Outcome`], what became of it: [`Settlement`], and who says which error is what: matchers.

use std::any::Any;
use std::error::Error as StdError;
use std::sync::Arc;
use std::time::Duration;
use std::{fmt, io};

use crate::error::StartError;
use crate::refusal::Refusal;

/// How work ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// It went well, or with an error that is expected.
    Success,
    /// The dependency failed; a deadline that passed is a failure too.
    Failure,
    /// The dependency failed and asked to be left alone for so long (HTTP's `Retry-After`). If this failure opens the circuit, it
    /// opens for at least so long, [`retry_after_max`](crate::SettingsBuilder::retry_after_max) at most.
    FailureRetryAfter(Duration),
    /// Neither: changes no count and frees a probe's place. A cancel by the caller is one.
    Ignored,
}

impl Outcome {
    /// The name as it is in metrics and events.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Failure | Self::FailureRetryAfter(_) => "failure",
            Self::Ignored => "ignored",
        }
    }
}

/// What became of an outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Settlement {
    /// Whether it was applied.
    pub disposition: Disposition,
    /// Whether this was a record of the process's own: because the store was down, or because a quorum is in force.
    pub local: bool,
}

/// Whether an outcome was applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Disposition {
    /// It was applied.
    Accepted,
    /// It belongs to another era, or to a probe's place that was given away, and changed nothing.
    Stale,
    /// Not known: the store did not answer in time, and the outcome is settled in the background, once; or an answer was
    /// lost and so many others have written since that nobody can tell (`circuitry_outcomes_lost_total` counts it).
    Unsettled,
    /// It was not counted: by an override nothing counts, or the store is down, or was when the permit was given, and the
    /// settings keep no local record, or there are as many as `max_circuits` already.
    Uncounted,
}

impl Disposition {
    /// The name as it is in metrics and events.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Stale => "stale",
            Self::Unsettled => "unsettled",
            Self::Uncounted => "uncounted",
        }
    }
}

/// An error that is part of the work and no fault of the dependency; it counts as a success.
///
/// # Example
/// ```
/// # use circuitry::Expected;
/// // "No such customer" is an answer.
/// let error = Expected::new(std::io::Error::other("no such customer"));
/// assert_eq!(error.to_string(), "no such customer");
/// ```
#[derive(Debug)]
pub struct Expected {
    source: Box<dyn StdError + Send + Sync + 'static>,
}

impl Expected {
    /// Marks `error` as expected.
    pub fn new(error: impl Into<Box<dyn StdError + Send + Sync + 'static>>) -> Self {
        Self { source: error.into() }
    }

    /// The error that was expected.
    pub fn into_inner(self) -> Box<dyn StdError + Send + Sync + 'static> {
        self.source
    }
}

impl fmt::Display for Expected {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.source.fmt(formatter)
    }
}

impl StdError for Expected {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.source()
    }
}

/// An error of the user's own type, as a matcher that does not know the type sees it.
#[derive(Clone, Copy)]
pub struct WorkError<'a>(&'a (dyn Any + 'static));

impl<'a> WorkError<'a> {
    /// Shows `error` to a matcher.
    pub fn new<E: Any>(error: &'a E) -> Self {
        Self(error)
    }

    /// The error, if it is of the type `E`.
    pub fn downcast_ref<E: Any>(&self) -> Option<&'a E> {
        self.0.downcast_ref()
    }
}

impl fmt::Debug for WorkError<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("WorkError(..)")
    }
}

/// Says what an error of the work means for the circuit.
pub type ErrorMatcher = Arc<dyn Fn(WorkError<'_>) -> Outcome + Send + Sync>;

/// The default matcher: every error is a failure, but [`Expected`] is a success and a breaker's own [`Refusal`] is
/// ignored. Looks through `Box<dyn Error + Send + Sync>`, `std::io::Error` and the sources in them.
pub fn default_error_matcher(error: WorkError<'_>) -> Outcome {
    if error.downcast_ref::<Expected>().is_some() {
        return Outcome::Success;
    }
    if error.downcast_ref::<Refusal>().is_some()
        || matches!(error.downcast_ref::<StartError>(), Some(StartError::Refused(_)))
    {
        return Outcome::Ignored;
    }
    let boxed = error.downcast_ref::<Box<dyn StdError + Send + Sync>>();
    let boxed = boxed.map(|boxed| &**boxed as &(dyn StdError + 'static));
    let mut cause = boxed.or_else(|| error.downcast_ref::<io::Error>().map(|error| error as _));
    while let Some(error) = cause {
        if error.is::<Expected>() {
            return Outcome::Success;
        }
        if error.is::<Refusal>() {
            return Outcome::Ignored;
        }
        // The source of an `io::Error` is that of the error in it, and not that error.
        let inner = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        cause = inner.map(|inner| inner as _).or_else(|| error.source());
    }
    Outcome::Failure
}
