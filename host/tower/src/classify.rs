//! [`Classifier`]: what a response, the end of its body, or an error means for the circuit.

use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::time::Duration;

use circuitry::{Expected, Outcome, Refusal, WorkError, default_error_matcher};
use http::{HeaderMap, StatusCode};

use crate::BoxError;
use crate::head::ResponseHead;
use crate::rejection::Rejection;
use crate::retry_after;

/// What the head of a response means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is settled now; whatever becomes of the body changes nothing.
    Settled(Outcome),
    /// The end of the body decides. Until then nothing is counted; a body that ends in an error is a failure, one that nobody
    /// reads to its end is ignored.
    AtEnd,
}

/// Says what becomes of a call. A function of a [`ResponseHead`] that gives a [`Verdict`] is one, with the defaults for the rest.
///
/// # Example
/// ```
/// use circuitry::Outcome;
/// use circuitry_tower::{Classifier, HttpClassifier, ResponseHead, Verdict};
///
/// fn classify(response: &ResponseHead<'_>) -> Verdict {
///     match response.headers().get("x-backend-degraded") {
///         Some(_) => Verdict::Settled(Outcome::Failure),
///         None => HttpClassifier::new().response(response),
///     }
/// }
///
/// let response = http::Response::builder().header("x-backend-degraded", "1").body(())?;
/// assert_eq!(classify.response(&ResponseHead::of(&response)), Verdict::Settled(Outcome::Failure));
/// # Ok::<(), http::Error>(())
/// ```
pub trait Classifier: Send + Sync + 'static {
    /// What a response means, as far as its head tells. Not asked of one that another layer made itself, with a [`Rejection`] among its
    /// extensions: that is ignored.
    fn response(&self, response: &ResponseHead<'_>) -> Verdict;

    /// What the end of a body means whose head was [`Verdict::AtEnd`]. Default: success.
    fn end(&self, trailers: Option<&HeaderMap>) -> Outcome {
        let _ = trailers;
        Outcome::Success
    }

    /// What an error means: of the service, as the layer hands it on (with [`AsError`](crate::AsError) as a [`BoxError`], else as the
    /// service's own type), or of a body, as a [`BoxError`].
    ///
    /// Default: as circuitry's [`default_error_matcher`] has it, a failure, but an [`Expected`](circuitry::Expected) is a success and
    /// the refusal of another breaker is ignored; a [`CallerError`] and any [`Rejection`] are ignored too. Each is
    /// found among the sources of a [`BoxError`] or an [`io::Error`]. Another type tells a classifier nothing of its sources: where it
    /// stays as it is, put a `map_err(BoxError::from)` between the layer and the service, or look into it in a classifier of your own.
    fn error(&self, error: WorkError<'_>) -> Outcome {
        judge(error)
    }
}

impl<F> Classifier for F
where
    F: Fn(&ResponseHead<'_>) -> Verdict + Send + Sync + 'static,
{
    fn response(&self, response: &ResponseHead<'_>) -> Verdict {
        self(response)
    }
}

/// The default: a status of 500 and above is a failure, with its `Retry-After` where it has one; with any other the body's end is a
/// success. So 404 is a success: the upstream has answered.
#[derive(Clone, Copy, Debug, Default)]
pub struct HttpClassifier {
    pub(crate) too_many_requests: bool,
}

impl HttpClassifier {
    /// The default.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes 429 for a failure too, with its `Retry-After`. Leave it where several callers with limits of their own share a circuit.
    #[must_use]
    pub fn too_many_requests_fail(mut self) -> Self {
        self.too_many_requests = true;
        self
    }

    fn is_failure(self, status: StatusCode) -> bool {
        // Numbers above 599 are no status that anybody defined.
        status.as_u16() >= 500 || (self.too_many_requests && status == StatusCode::TOO_MANY_REQUESTS)
    }
}

impl Classifier for HttpClassifier {
    fn response(&self, response: &ResponseHead<'_>) -> Verdict {
        match self.is_failure(response.status()) {
            true => Verdict::Settled(failure(retry_after::of(response.headers()))),
            false => Verdict::AtEnd,
        }
    }
}

/// A failure, with the time for which it asks.
pub(crate) fn failure(asked_for: Option<Duration>) -> Outcome {
    asked_for.map_or(Outcome::Failure, Outcome::FailureRetryAfter)
}

/// An error that is the caller's: a request whose body broke off, a form that cannot be sent. It says nothing of the upstream, so the
/// default classifiers ignore it, wherever it is in the sources of an error that they can look into: see [`Classifier::error`].
///
/// Put it around the errors of a request's body where that comes from somebody else: a client that goes away in the middle
/// of an upload is then no failure.
///
/// # Example
/// ```
/// use circuitry_tower::CallerError;
/// use http_body_util::BodyExt;
///
/// fn forwarded(request: http::Request<hyper::body::Incoming>) {
///     let request = request.map(|body| body.map_err(CallerError::new));
///     // … sent to the upstream …
/// #   let _ = request;
/// }
/// ```
#[derive(Debug)]
pub struct CallerError {
    source: BoxError,
}

impl CallerError {
    /// Marks `error` as the caller's.
    pub fn new(error: impl Into<BoxError>) -> Self {
        Self { source: error.into() }
    }

    /// The first in an error and its sources.
    pub fn find<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a Self> {
        causes(error).find_map(|cause| cause.downcast_ref())
    }
}

impl fmt::Display for CallerError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.source.fmt(formatter)
    }
}

impl StdError for CallerError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        Some(&*self.source)
    }
}

/// The error and its sources.
pub(crate) fn causes<'a>(
    error: &'a (dyn StdError + 'static),
) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    std::iter::successors(Some(error), |cause| inner(*cause))
}

/// The next source of an error. Two kinds of errors are only a shell, and name as their source that of what is in them.
fn inner<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a (dyn StdError + 'static)> {
    if let Some(inner) = error.downcast_ref().and_then(io::Error::get_ref) {
        return Some(inner);
    }
    #[cfg(feature = "reqwest")]
    if let Some(reqwest_middleware::Error::Middleware(inner)) = error.downcast_ref() {
        return Some(inner.as_ref());
    }
    error.source()
}

/// What an error means where nobody says otherwise.
fn judge(error: WorkError<'_>) -> Outcome {
    let Some(known) = known(error) else { return default_error_matcher(error) };
    let marked = causes(known).find_map(|cause| match cause {
        cause if cause.is::<Expected>() => Some(Outcome::Success),
        cause if cause.is::<Refusal>() || cause.is::<Rejection>() || cause.is::<CallerError>() => {
            Some(Outcome::Ignored)
        }
        _ => None,
    });
    marked.unwrap_or(Outcome::Failure)
}

/// An error of a type that is known here.
fn known(error: WorkError<'_>) -> Option<&(dyn StdError + 'static)> {
    if let Some(error) = error.downcast_ref::<BoxError>() {
        return Some(&**error);
    }
    if let Some(error) = error.downcast_ref::<CallerError>() {
        return Some(error);
    }
    if let Some(error) = error.downcast_ref::<io::Error>() {
        return Some(error);
    }
    #[cfg(feature = "reqwest")]
    if let Some(error) = error.downcast_ref::<reqwest_middleware::Error>() {
        return Some(error);
    }
    error.downcast_ref::<Rejection>().map(|error| error as _)
}
