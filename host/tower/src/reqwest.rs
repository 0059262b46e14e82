//! [`ReqwestBreaker`]: circuits around the calls of a reqwest client.

use std::time::Duration;

use circuitry::Factory;
use http::{Extensions, Uri};
use reqwest::{Body, Request, Response, ResponseBuilderExt};
use reqwest_middleware::{Error, Middleware, Next};

use crate::classify::Classifier;
use crate::edge::Edge;
use crate::head::RequestHead;
use crate::key::{KeyError, KeyProblem, RequestKey};
use crate::rejection::Rejection;

/// A middleware for [reqwest](reqwest_middleware): calls stand behind circuits, and a response's body holds the permit until it has
/// ended.
///
/// A call that is not made is an error with a [`Rejection`] in it. One that is dropped before its response is ignored, and so is a
/// request that cannot be sent as it is. Put it *inside* of a middleware that retries, so that every try asks and counts: added
/// later, it is nearer to the client.
///
/// Redirects are followed by reqwest behind the middleware, so a call counts in the circuit of the first URL, whoever answers in the
/// end. Where they lead to other hosts build the client with [`redirect::Policy::none`](reqwest::redirect::Policy::none) and follow
/// them outside of the middleware: then each is a call of its own, in the circuit of its own URL.
///
/// A key sees the request's extensions as reqwest's middlewares have them: `RequestBuilder::with_extension`.
///
/// # Example
/// ```
/// use circuitry::{Factory, Settings};
/// use circuitry_tower::{CircuitKey, Part, Rejection, ReqwestBreaker};
/// use reqwest_middleware::ClientBuilder;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let factory = Factory::new(Settings::builder().failure_count_threshold(0).build()?).await?;
/// let client = ClientBuilder::new(reqwest::Client::new())
///     .with(ReqwestBreaker::new(factory, CircuitKey::of(Part::host())))
///     .build();
///
/// // Nobody listens there.
/// let failed = client.get("http://127.0.0.1:1/").send().await.unwrap_err();
/// assert!(failed.is_connect());
/// let refused = client.get("http://127.0.0.1:1/").send().await.unwrap_err();
/// let rejection = Rejection::find(&refused).expect("its circuit is open");
/// println!("again in {:?}", rejection.refusal().expect("a refusal").spread_delay());
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct ReqwestBreaker {
    edge: Edge,
}

impl ReqwestBreaker {
    /// Circuits of `factory`, one for each `key`; an [`HttpClassifier`](crate::HttpClassifier) judges, and a body has all the time it
    /// wants.
    pub fn new(factory: Factory, key: impl RequestKey) -> Self {
        Self { edge: Edge::new(factory, key) }
    }

    /// Judges responses and errors by `classifier`. The error of a call is a [`reqwest_middleware::Error`].
    #[must_use]
    pub fn classifier(mut self, classifier: impl Classifier) -> Self {
        self.edge.classify_by(classifier);
        self
    }

    /// As [`CircuitBreakerLayer::body_idle_timeout`](crate::CircuitBreakerLayer::body_idle_timeout).
    #[must_use]
    pub fn body_idle_timeout(mut self, limit: Duration) -> Self {
        self.edge.limits.idle = Some(limit);
        self
    }

    /// As [`CircuitBreakerLayer::body_timeout`](crate::CircuitBreakerLayer::body_timeout).
    #[must_use]
    pub fn body_timeout(mut self, limit: Duration) -> Self {
        self.edge.limits.total = Some(limit);
        self
    }
}

#[async_trait::async_trait]
impl Middleware for ReqwestBreaker {
    async fn handle(
        &self,
        request: Request,
        extensions: &mut Extensions,
        next: Next<'_>,
    ) -> Result<Response, Error> {
        let uri: Uri = request.url().as_str().parse().map_err(|_| {
            Error::middleware(Rejection::Key(KeyError::new("the URL", KeyProblem::Malformed("it is no URI"))))
        })?;
        let asking = self.edge.find(&RequestHead::new(request.method(), &uri, request.headers(), extensions));
        let made = asking.start().await.map_err(Error::middleware)?;
        match next.run(request, extensions).await {
            Ok(response) => {
                let url = response.url().clone();
                let response = made.answered(http::Response::<Body>::from(response)).await;
                Ok(with_url(response.map(Body::wrap), url))
            }
            // It was not sent, so it says nothing of the upstream: the permit is dropped.
            Err(error) if error.is_builder() => Err(error),
            Err(error) => {
                made.failed(&error).await;
                Err(error)
            }
        }
    }
}

/// A response of reqwest's, which keeps its URL among the extensions on the way.
fn with_url(response: http::Response<Body>, url: reqwest::Url) -> Response {
    let (mut parts, body) = response.into_parts();
    if let Ok(holder) = http::Response::builder().url(url).body(()) {
        parts.extensions.extend(holder.into_parts().0.extensions);
    }
    http::Response::from_parts(parts, body).into()
}
