//! [`Edge`]: what every middleware here does: finds the circuit of a request, asks it, and judges the response.

use std::fmt;
use std::sync::Arc;

use circuitry::{Factory, Permit, StartError, WorkError};
use http::Response;
use http::header::CONTENT_LENGTH;
use http_body::Body;

use crate::body::{Guard, GuardedBody, settle};
use crate::classify::{Classifier, HttpClassifier, Verdict};
use crate::head::{RequestHead, ResponseHead};
use crate::key::{KeyError, RequestKey};
use crate::patience::BodyLimits;
use crate::rejection::Rejection;

/// How calls are guarded. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Edge {
    factory: Factory,
    key: Arc<dyn RequestKey>,
    classifier: Arc<dyn Classifier>,
    pub(crate) limits: BodyLimits,
}

/// The circuit of a request, to be asked.
pub(crate) struct Asking(Result<circuitry::Breaker, KeyError>);

impl Edge {
    pub(crate) fn new(factory: Factory, key: impl RequestKey) -> Self {
        Self {
            factory,
            key: Arc::new(key),
            classifier: Arc::new(HttpClassifier::new()),
            limits: BodyLimits::default(),
        }
    }

    pub(crate) fn classify_by(&mut self, classifier: impl Classifier) {
        self.classifier = Arc::new(classifier);
    }

    /// Finds the circuit of a request, which may go on meanwhile.
    pub(crate) fn find(&self, request: &RequestHead<'_>) -> Asking {
        Asking(self.key.key(request).and_then(|key| key.breaker(&self.factory)))
    }

    /// Settles a call that gave no response.
    pub(crate) fn failed<E: 'static>(&self, permit: Permit, error: &E) {
        settle(permit, self.classifier.error(WorkError::new(error)));
    }

    /// Settles a call as its response's head says, or lets the end of its body do it.
    pub(crate) fn answered<B: Body>(
        &self,
        permit: Permit,
        response: Response<B>,
    ) -> Response<GuardedBody<B>> {
        let guard = match self.classifier.response(&ResponseHead::of(&response)) {
            Verdict::Settled(outcome) => {
                settle(permit, outcome);
                None
            }
            Verdict::AtEnd => {
                let length = response.headers().get(CONTENT_LENGTH);
                let length = length.and_then(|length| length.to_str().ok()?.parse().ok());
                Some(Guard::new(permit, self.classifier.clone(), length))
            }
        };
        response.map(|body| GuardedBody::upstream(body, guard, self.limits))
    }
}

impl Asking {
    /// Asks to begin the call.
    pub(crate) async fn start(self) -> Result<Permit, Rejection> {
        let breaker = self.0.map_err(Rejection::Key)?;
        breaker.start().await.map_err(|error| match error {
            StartError::Refused(refusal) => {
                Rejection::Refused { circuit: breaker.name().to_owned(), refusal }
            }
            error => Rejection::Circuit(Arc::new(error)),
        })
    }
}

impl fmt::Debug for Edge {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { factory, limits, .. } = self;
        let mut shown = formatter.debug_struct("Edge");
        shown.field("factory", factory).field("limits", limits).finish_non_exhaustive()
    }
}
