//! [`GrpcClassifier`]: gRPC says how a call went in the trailers, behind a body and a status of 200.

use circuitry::Outcome;
use http::HeaderMap;

use crate::classify::{Classifier, HttpClassifier, Verdict, failure};
use crate::head::ResponseHead;
use crate::retry_after::pushback;

const STATUS: &str = "grpc-status";

const OK: u16 = 0;
const CANCELLED: u16 = 1;
const UNKNOWN: u16 = 2;

/// The codes that are the upstream's fault: `UNKNOWN`, `DEADLINE_EXCEEDED`, `INTERNAL`, `UNAVAILABLE`, `DATA_LOSS`.
const FAILURES: u32 = 1 << UNKNOWN | 1 << 4 | 1 << 13 | 1 << 14 | 1 << 15;
const RESOURCE_EXHAUSTED: u16 = 8;

/// For calls of gRPC. What counts is `grpc-status`, of the trailers or, where there is no body, of the headers.
///
/// `UNKNOWN`, `DEADLINE_EXCEEDED`, `INTERNAL`, `UNAVAILABLE`, `DATA_LOSS` and codes above 16 are failures, with
/// `grpc-retry-pushback-ms` where it is there; `CANCELLED` is ignored, everything else is an answer and so a success. A body that ends
/// without a status is a failure, as gRPC has it, and an HTTP status is judged as by [`HttpClassifier`].
#[derive(Clone, Copy, Debug, Default)]
pub struct GrpcClassifier {
    resource_exhausted: bool,
}

impl GrpcClassifier {
    /// The codes that are named above.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes `RESOURCE_EXHAUSTED` for a failure too, as [`HttpClassifier::too_many_requests_fail`] does 429.
    #[must_use]
    pub fn resource_exhausted_fails(mut self) -> Self {
        self.resource_exhausted = true;
        self
    }

    /// What the status in `headers` means, if there is one.
    fn told(self, headers: &HeaderMap) -> Option<Outcome> {
        // What is no number is UNKNOWN.
        let code = headers.get(STATUS)?.to_str().ok().and_then(|code| code.parse().ok()).unwrap_or(UNKNOWN);
        Some(match code {
            OK => Outcome::Success,
            CANCELLED => Outcome::Ignored,
            RESOURCE_EXHAUSTED if self.resource_exhausted => failure(pushback(headers)),
            3..=16 if FAILURES & (1 << code) == 0 => Outcome::Success,
            _ => failure(pushback(headers)),
        })
    }
}

impl Classifier for GrpcClassifier {
    fn response(&self, response: &ResponseHead<'_>) -> Verdict {
        if let Some(outcome) = self.told(response.headers()) {
            return Verdict::Settled(outcome);
        }
        let http = HttpClassifier { too_many_requests: self.resource_exhausted };
        match http.response(response) {
            // Of a proxy on the way, that does not speak gRPC and will send no status.
            Verdict::AtEnd if response.status().is_client_error() => Verdict::Settled(Outcome::Success),
            verdict => verdict,
        }
    }

    fn end(&self, trailers: Option<&HeaderMap>) -> Outcome {
        trailers.and_then(|trailers| self.told(trailers)).unwrap_or(Outcome::Failure)
    }
}
