//! [`Edge`]: what every middleware here does: finds the circuit of a request, asks it, and judges the response.

use std::fmt;
use std::sync::Arc;

use circuitry::{Breaker, Factory, Outcome, Permit, StartError, WorkError};
use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{Method, Response, StatusCode};
use http_body::Body;

use crate::body::{Guard, GuardedBody, settle};
use crate::classify::{Classifier, HttpClassifier, Verdict};
use crate::head::{RequestHead, ResponseHead};
use crate::key::{KeyError, RequestKey};
use crate::log::Log;
use crate::patience::BodyLimits;
use crate::rejection::Rejection;

/// How calls are guarded. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Edge {
    factory: Factory,
    key: Arc<dyn RequestKey>,
    classifier: Arc<dyn Classifier>,
    pub(crate) limits: BodyLimits,
    log: Log,
}

/// A call that may be made when its circuit says so.
pub(crate) struct Asking {
    edge: Edge,
    breaker: Result<Breaker, KeyError>,
    is_head: bool,
}

/// A call that is made. Dropped, it is ignored.
pub(crate) struct Call {
    edge: Edge,
    permit: Permit,
    is_head: bool,
}

impl Edge {
    pub(crate) fn new(factory: Factory, key: impl RequestKey) -> Self {
        Self {
            factory,
            key: Arc::new(key),
            classifier: Arc::new(HttpClassifier::new()),
            limits: BodyLimits::default(),
            log: Log::default(),
        }
    }

    pub(crate) fn classify_by(&mut self, classifier: impl Classifier) {
        self.classifier = Arc::new(classifier);
    }

    /// Finds the circuit of a request.
    pub(crate) fn find(&self, request: &RequestHead<'_>) -> Asking {
        let breaker = self.key.key(request).and_then(|key| key.breaker(&self.factory));
        Asking { edge: self.clone(), breaker, is_head: request.method() == Method::HEAD }
    }
}

impl Asking {
    /// Asks to begin the call.
    pub(crate) async fn start(self) -> Result<Call, Rejection> {
        let breaker = self.breaker.map_err(Rejection::Key)?;
        match breaker.start().await {
            Ok(permit) => Ok(Call { edge: self.edge, permit, is_head: self.is_head }),
            Err(StartError::Refused(refusal)) => {
                Err(Rejection::Refused { circuit: breaker.name().to_owned(), refusal })
            }
            Err(error) => {
                self.edge.log.note(&error);
                Err(Rejection::Circuit(Arc::new(error)))
            }
        }
    }
}

impl Call {
    // What is settled here is waited for, as `Breaker::execute` does it: whoever fails goes on when that is counted, and whoever
    // trips when the store has it. The outcome is handed over before that, and an error of it circuitry logs.

    /// It gave no response.
    pub(crate) fn failed<E: 'static>(self, error: &E) -> impl Future<Output = ()> + Send + use<E> {
        let ended = self.permit.end(self.edge.classifier.error(WorkError::new(error)));
        async move { _ = ended.await }
    }

    /// It gave a response, whose head settles it or leaves that to the end of its body.
    pub(crate) async fn answered<B: Body>(self, response: Response<B>) -> Response<GuardedBody<B>> {
        let Self { edge, permit, is_head } = self;
        if response.extensions().get::<Rejection>().is_some() {
            // Another layer inside made no call: nobody was asked of whom this circuit could learn.
            settle(permit, Outcome::Ignored);
            return response.map(|body| GuardedBody::upstream(body, None, edge.limits));
        }
        let guard = match edge.classifier.response(&ResponseHead::of(&response)) {
            Verdict::Settled(outcome) => {
                let _ = permit.end(outcome).await;
                None
            }
            Verdict::AtEnd if has_no_body(response.status(), is_head) => {
                settle(permit, edge.classifier.end(None));
                None
            }
            Verdict::AtEnd => {
                // Beside a transfer coding it may be wrong.
                let is_coded = response.headers().contains_key(TRANSFER_ENCODING);
                let length = response.headers().get(CONTENT_LENGTH).filter(|_| !is_coded);
                let length = length.and_then(|length| length.to_str().ok()?.parse().ok());
                Some(Guard::new(permit, edge.classifier.clone(), length))
            }
        };
        response.map(|body| GuardedBody::upstream(body, guard, edge.limits))
    }
}

/// Whether nobody will read a body, whatever the headers say of one (RFC 9110, section 6.4.1).
fn has_no_body(status: StatusCode, is_head: bool) -> bool {
    is_head
        || status.is_informational()
        || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
}

impl fmt::Debug for Edge {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { factory, limits, .. } = self;
        let mut shown = formatter.debug_struct("Edge");
        shown.field("factory", factory).field("limits", limits).finish_non_exhaustive()
    }
}
