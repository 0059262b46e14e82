//! [`CircuitBreakerLayer`] and [`CircuitBreaker`]: circuits around a [`tower_service::Service`] of HTTP.

use std::future::Future;
use std::mem;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use circuitry::Factory;
use http::{Request, Response};
use http_body::Body;
use tower_layer::Layer;
use tower_service::Service;

use crate::body::GuardedBody;
use crate::classify::Classifier;
use crate::edge::Edge;
use crate::head::RequestHead;
use crate::key::RequestKey;
use crate::refuse::{Respond, WhenRefused};

/// Puts a [`CircuitBreaker`] around a service. Make one a service and clone it; all clones share the factory.
///
/// # Example
/// ```
/// use std::time::Duration;
/// use circuitry::{Factory, Settings};
/// use circuitry_tower::{CircuitBreakerLayer, CircuitKey, HttpClassifier, Part};
/// use http::{HeaderName, Request, Response};
/// use http_body_util::{BodyExt, Full};
/// use bytes::Bytes;
/// use tower::{ServiceBuilder, ServiceExt, service_fn};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let factory = Factory::new(Settings::builder().failure_count_threshold(0).build()?).await?;
/// let key = CircuitKey::named("orders").tenant(Part::header(HeaderName::from_static("x-tenant")));
/// let layer = CircuitBreakerLayer::new(factory, key)
///     .classifier(HttpClassifier::new().too_many_requests_fail())
///     .body_idle_timeout(Duration::from_secs(30));
///
/// let service = ServiceBuilder::new().layer(layer).service(service_fn(|_: Request<()>| async {
///     let mut response = Response::new(Full::new(Bytes::from_static(b"out of order")));
///     *response.status_mut() = http::StatusCode::BAD_GATEWAY;
///     Ok::<_, std::convert::Infallible>(response)
/// }));
///
/// // The failure opens acme's circuit, and nobody else's.
/// for (tenant, status) in [("acme", 502), ("acme", 503), ("birch", 502)] {
///     let request = Request::builder().header("x-tenant", tenant).body(())?;
///     let response = service.clone().oneshot(request).await?;
///     assert_eq!(response.status(), status);
///     assert_eq!(response.headers().contains_key("retry-after"), status == 503);
/// }
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct CircuitBreakerLayer<W = Respond> {
    edge: Edge,
    when_refused: W,
}

impl CircuitBreakerLayer {
    /// Circuits of `factory`, one for each `key`. By default an [`HttpClassifier`](crate::HttpClassifier) judges, a call that is refused
    /// is answered as by [`Respond`], and a body has all the time it wants.
    pub fn new(factory: Factory, key: impl RequestKey) -> Self {
        Self { edge: Edge::new(factory, key), when_refused: Respond::new() }
    }
}

impl<W> CircuitBreakerLayer<W> {
    /// Judges responses and errors by `classifier`.
    #[must_use]
    pub fn classifier(mut self, classifier: impl Classifier) -> Self {
        self.edge.classify_by(classifier);
        self
    }

    /// Gives what `when_refused` says to callers whose calls are not made.
    pub fn when_refused<V>(self, when_refused: V) -> CircuitBreakerLayer<V> {
        CircuitBreakerLayer { edge: self.edge, when_refused }
    }

    /// How long the upstream may send nothing while its body is waited for. After that the body ends in a
    /// [`BodyTimeout`](crate::BodyTimeout) and the call is a failure. Default: as long as it likes.
    ///
    /// Only waiting counts: a client that is slow to read is not the upstream's fault. A body whose call is settled already ends so too,
    /// so that nobody hangs on a 500 without an end; a stream of events should say something more often than that.
    ///
    /// An upstream that answers before it has the whole request may be waiting for the rest of that. Where the request's body comes from
    /// somebody else, as in a gateway, measure silence in the service inside, which sees both bodies: the example `reverse_proxy` does.
    #[must_use]
    pub fn body_idle_timeout(mut self, limit: Duration) -> Self {
        self.edge.limits.idle = Some(limit);
        self
    }

    /// How long the upstream may be waited for until its body has ended, all waits together. After that the body ends in a
    /// [`BodyTimeout`](crate::BodyTimeout) and the call is a failure. Default: as long as it takes.
    ///
    /// A body whose call is settled already, as a stream of events may be, goes on as long as it likes.
    #[must_use]
    pub fn body_timeout(mut self, limit: Duration) -> Self {
        self.edge.limits.total = Some(limit);
        self
    }
}

impl<S, W: Clone> Layer<S> for CircuitBreakerLayer<W> {
    type Service = CircuitBreaker<S, W>;

    fn layer(&self, service: S) -> Self::Service {
        CircuitBreaker { service, edge: self.edge.clone(), when_refused: self.when_refused.clone() }
    }
}

/// A service whose calls stand behind circuits. Made by [`CircuitBreakerLayer`].
///
/// A call finds its circuit, asks it, and makes the call only if it may; the response's body holds the permit (see [`GuardedBody`]).
/// An outcome that shows before that (an error, a status of 500) is settled first, as by circuitry's `execute`: at most the store's
/// timeout, in bounded mode only by the call that trips.
///
/// # Readiness
/// It is ready when the service is, and the very service that was ready is called. A service that is never ready (a limit on concurrent
/// calls, all of which hang) so holds up refusals too: put such a limit outside of this layer. An error of `poll_ready` is handed on
/// and counts nothing, for no call was made.
///
/// # Errors
/// Those of the service, and with [`AsError`](crate::AsError) the [`Rejection`](crate::Rejection).
///
/// # Cancel safety
/// A call that is dropped before its response is ignored: a probe's place comes free, nothing is counted.
///
/// # Panics
/// A service that panics drops its call so, and is ignored too. Where that is to be a failure put a layer inside that catches it.
#[derive(Clone, Debug)]
pub struct CircuitBreaker<S, W = Respond> {
    service: S,
    edge: Edge,
    when_refused: W,
}

impl<S, W> CircuitBreaker<S, W> {
    /// The service inside.
    pub fn get_ref(&self) -> &S {
        &self.service
    }

    /// The service inside, to be changed.
    pub fn get_mut(&mut self) -> &mut S {
        &mut self.service
    }

    /// Gives the service back.
    pub fn into_inner(self) -> S {
        self.service
    }
}

impl<S, W, ReqBody, ResBody> Service<Request<ReqBody>> for CircuitBreaker<S, W>
where
    S: Service<Request<ReqBody>, Response = Response<ResBody>> + Clone + Send + 'static,
    S::Future: Send,
    W: WhenRefused<ResBody, S::Error, Error: Send + 'static>,
    ReqBody: Send + 'static,
    ResBody: Body + Send + 'static,
{
    type Response = Response<GuardedBody<ResBody>>;
    type Error = W::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.service.poll_ready(context).map_err(W::pass)
    }

    fn call(&mut self, request: Request<ReqBody>) -> Self::Future {
        // The clone has not been asked whether it is ready; the next caller asks it.
        let clone = self.service.clone();
        let mut ready = mem::replace(&mut self.service, clone);
        let when_refused = self.when_refused.clone();
        let asking = self.edge.find(&RequestHead::of(&request));
        Box::pin(async move {
            let made = match asking.start().await {
                Ok(made) => made,
                Err(rejection) => return when_refused.refuse(rejection),
            };
            // Boxed before it is judged, if it will be: so its sources are seen, whatever its type.
            match ready.call(request).await.map_err(W::pass) {
                Ok(response) => Ok(made.answered(response).await),
                Err(error) => {
                    made.failed(&error).await;
                    Err(error)
                }
            }
        })
    }
}
