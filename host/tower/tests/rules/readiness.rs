//! Readiness is the service's own, and the service that was ready is the one that is called.

use std::convert::Infallible;
use std::task::{Context, Poll};

use circuitry_tower::{AsError, CircuitBreakerLayer};
use http::{Request, Response};
use tower::{Layer, Service, ServiceExt};
use tower_test::{assert_request_eq, mock};

use crate::world::{Script, World, key, request, response};

type Mock = mock::Mock<&'static str, &'static str>;

/// Speaks HTTP on a mock.
#[derive(Debug)]
struct OnMock(Mock);

impl Clone for OnMock {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl Service<Request<()>> for OnMock {
    type Response = Response<Script>;
    type Error = tower::BoxError;
    type Future = std::pin::Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, _: Request<()>) -> Self::Future {
        let told = self.0.call("asked");
        Box::pin(async move {
            told.await?;
            Ok(response(200, Script::default()))
        })
    }
}

#[tokio::test]
async fn it_is_ready_when_the_service_is() {
    let world = World::new().await;
    let (mock, mut handle) = mock::pair();
    let layer = CircuitBreakerLayer::new(world.factory.clone(), key()).when_refused(AsError);
    let mut service = mock::Spawn::new(layer.layer(OnMock(mock)));
    handle.allow(0);
    assert!(service.poll_ready().is_pending());
    handle.allow(1);
    assert!(service.poll_ready().is_ready());

    let call = tokio::spawn(service.call(request("acme")));
    assert_request_eq!(handle, "asked").send_response("answer");
    assert_eq!(call.await.expect("a call").expect("an answer").status(), 200);
}

#[tokio::test]
async fn an_error_of_readiness_is_handed_on_and_counts_nothing() {
    let world = World::new().await;
    let (mock, mut handle) = mock::pair();
    let layer = CircuitBreakerLayer::new(world.factory.clone(), key()).when_refused(AsError);
    let mut service = layer.layer(OnMock(mock));
    handle.send_error("it has ended");
    let error = service.ready().await.map(|_| ()).expect_err("an error");
    assert!(error.to_string().contains("it has ended"), "{error}");
    assert_eq!(world.counted("acme").await, (0, 0));
}

#[tokio::test]
async fn the_very_service_that_was_ready_is_called() {
    /// Panics, as tower allows, when it is called without having been ready.
    #[derive(Debug, Default)]
    struct Strict {
        is_ready: bool,
    }
    impl Clone for Strict {
        fn clone(&self) -> Self {
            Self::default()
        }
    }
    impl Service<Request<()>> for Strict {
        type Response = Response<Script>;
        type Error = Infallible;
        type Future = std::future::Ready<Result<Response<Script>, Infallible>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
            self.is_ready = true;
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, _: Request<()>) -> Self::Future {
            assert!(self.is_ready, "called without having been ready");
            self.is_ready = false;
            std::future::ready(Ok(response(200, Script::default())))
        }
    }
    let world = World::new().await;
    let mut service = CircuitBreakerLayer::new(world.factory.clone(), key()).layer(Strict::default());
    for _ in 0..3 {
        let first = service.ready().await.expect("ready").call(request("acme"));
        let second = service.ready().await.expect("ready").call(request("acme"));
        let (first, second) = futures_util::join!(first, second);
        assert_eq!(
            (first.expect("an answer").status(), second.expect("an answer").status()),
            (200.try_into().expect("a status"), http::StatusCode::OK)
        );
    }
}

#[tokio::test]
async fn a_refused_call_gives_the_place_back_that_was_made_ready_for_it() {
    let world = World::new().await;
    world.trip("acme").await;
    let service = crate::world::answers(|| response(200, Script::default()));
    let limited = tower::limit::ConcurrencyLimit::new(service, 1);
    let mut service = CircuitBreakerLayer::new(world.factory.clone(), key()).layer(limited);
    for _ in 0..5 {
        let refused = service.ready().await.expect("ready").call(request("acme")).await.expect("an answer");
        assert_eq!(refused.status(), 503);
    }
    let answer = service.ready().await.expect("ready").call(request("birch")).await.expect("an answer");
    assert_eq!(answer.status(), 200);
}
