//! What counts as what.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use circuitry::{Consistency, Expected, Outcome, State, WorkError};
use circuitry_store::fault::Fault;
use circuitry_tower::{
    AsError, BoxError, CallerError, CircuitBreakerLayer, CircuitKey, Classifier, GrpcClassifier,
    HttpClassifier, Part, Rejection, RespondGrpc, RespondWith, ResponseHead, Verdict,
};
use futures_util::FutureExt;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use tokio::sync::Notify;
use tower::{Layer, Service, ServiceExt, service_fn};

use crate::upstream::{Conduct, Upstream};
use crate::world::{Script, Step, TENANT, World, answers, key, request, response};

fn judged(classifier: &impl Classifier, status: u16, headers: &[(&'static str, &str)]) -> Verdict {
    let mut response = Response::new(());
    *response.status_mut() = status.try_into().expect("a status");
    for (name, value) in headers {
        let name = HeaderName::from_static(name);
        response.headers_mut().insert(name, HeaderValue::from_str(value).expect("a value"));
    }
    classifier.response(&ResponseHead::of(&response))
}

#[test]
fn from_500_on_a_status_is_a_failure_and_below_it_the_end_decides() {
    let classifier = HttpClassifier::new();
    for status in [100, 101, 200, 204, 301, 400, 401, 404, 429, 499] {
        assert_eq!(judged(&classifier, status, &[]), Verdict::AtEnd, "{status}");
    }
    for status in [500, 501, 503, 599, 600, 999] {
        assert_eq!(judged(&classifier, status, &[]), Verdict::Settled(Outcome::Failure), "{status}");
    }
    assert_eq!(classifier.end(None), Outcome::Success);
}

#[test]
fn a_failure_that_says_when_to_come_back_is_heard() {
    let in_a_minute = Verdict::Settled(Outcome::FailureRetryAfter(Duration::from_secs(60)));
    let seconds = [("retry-after", "60")];
    assert_eq!(judged(&HttpClassifier::new(), 503, &seconds), in_a_minute);
    let date = [("date", "Wed, 21 Oct 2015 07:28:00 GMT"), ("retry-after", "Wed, 21 Oct 2015 07:29:00 GMT")];
    assert_eq!(judged(&HttpClassifier::new(), 503, &date), in_a_minute);
    assert_eq!(
        judged(&HttpClassifier::new(), 503, &[("retry-after", "soon")]),
        Verdict::Settled(Outcome::Failure)
    );
    assert_eq!(judged(&HttpClassifier::new(), 429, &seconds), Verdict::AtEnd);
    assert_eq!(judged(&HttpClassifier::new().too_many_requests_fail(), 429, &seconds), in_a_minute);
}

#[tokio::test]
async fn an_absurd_retry_after_opens_no_circuit_for_ever() {
    let world = World::new().await;
    let absurd = || {
        let mut absurd = response(503, Script::default());
        absurd.headers_mut().insert("retry-after", HeaderValue::from_str(&"9".repeat(400)).expect("a value"));
        absurd
    };
    let service = CircuitBreakerLayer::new(world.factory.clone(), key()).layer(answers(absurd));
    for _ in 0..3 {
        service.clone().oneshot(request("acme")).await.expect("an answer");
    }
    let refused = service.oneshot(request("acme")).await.expect("an answer");
    let told: u64 = refused.headers()["retry-after"].to_str().expect("text").parse().expect("seconds");
    assert!((61..=600).contains(&told), "{told} s: more than was set, and at most `retry_after_max`");
}

#[tokio::test]
async fn an_error_of_the_service_is_a_failure_unless_it_says_otherwise() {
    let world = World::new().await;
    type Case = (fn() -> BoxError, (u64, u64));
    let errors: [Case; 4] = [
        (|| "no connection".into(), (0, 1)),
        (|| Expected::new("no such customer").into(), (1, 1)),
        (|| CallerError::new("the upload broke off").into(), (1, 1)),
        // In the sources of another.
        (|| std::io::Error::other(CallerError::new("the upload broke off")).into(), (1, 1)),
    ];
    for (error, counted) in errors {
        let service =
            service_fn(move |_: Request<()>| std::future::ready(Err::<Response<Script>, BoxError>(error())));
        let service =
            CircuitBreakerLayer::new(world.factory.clone(), key()).when_refused(AsError).layer(service);
        let handed_on = service.oneshot(request("acme")).await.expect_err("an error");
        assert_eq!(handed_on.to_string(), error().to_string(), "as it was");
        assert_eq!(world.counted("acme").await, counted, "{handed_on}");
    }
}

/// An error of a type that nobody here knows.
#[derive(Debug, thiserror::Error)]
#[error("of a client")]
struct Concrete(#[source] BoxError);

#[tokio::test]
async fn marks_are_seen_in_the_sources_of_an_error_of_any_type_that_is_boxed() {
    type Case = (fn() -> BoxError, (u64, u64));
    let sources: [Case; 4] = [
        (|| "no connection".into(), (0, 1)),
        (|| Expected::new("no such customer").into(), (1, 0)),
        (|| CallerError::new("the upload broke off").into(), (0, 0)),
        (|| std::io::Error::other(CallerError::new("the upload broke off")).into(), (0, 0)),
    ];
    for (source, counted) in sources {
        let service = service_fn(move |_: Request<()>| {
            std::future::ready(Err::<Response<Script>, Concrete>(Concrete(source())))
        });
        // By the layer, or before it.
        let world = World::new().await;
        let layer = CircuitBreakerLayer::new(world.factory.clone(), key());
        let error = layer.clone().when_refused(AsError).layer(service).oneshot(request("acme")).await;
        assert!(error.expect_err("an error").is::<Concrete>(), "as it was");
        assert_eq!(world.counted("acme").await, counted, "{}", source());

        let world = World::new().await;
        let layer = CircuitBreakerLayer::new(world.factory.clone(), key());
        let error = layer.layer(service.map_err(BoxError::from)).oneshot(request("acme")).await;
        assert!(error.expect_err("an error").is::<Concrete>(), "as it was");
        assert_eq!(world.counted("acme").await, counted, "{}", source());
    }
}

#[tokio::test]
async fn marks_are_seen_in_an_io_error_that_is_not_boxed() {
    let world = World::new().await;
    let service = service_fn(|_: Request<()>| {
        let error = std::io::Error::other(CallerError::new("the upload broke off"));
        std::future::ready(Err::<Response<Script>, _>(error))
    });
    let service = CircuitBreakerLayer::new(world.factory.clone(), key()).layer(service);
    service.oneshot(request("acme")).await.expect_err("an error");
    assert_eq!(world.counted("acme").await, (0, 0));
}

#[tokio::test]
async fn an_upload_that_breaks_off_on_its_way_through_hypers_client_is_no_failure() {
    let world = World::new().await;
    let upstream = Upstream::that(Conduct::answers(200, "well")).await;
    let client = Client::builder(TokioExecutor::new()).build_http();
    let service = CircuitBreakerLayer::new(world.factory.clone(), key()).when_refused(AsError).layer(client);
    for _ in 0..5 {
        let first = Ok(Frame::data(Bytes::from_static(b"first")));
        let frames = futures_util::stream::iter([first, Err(CallerError::new("the client has gone"))]);
        let request = Request::post(upstream.url()).header(TENANT, "acme").body(StreamBody::new(frames));
        let error = service.clone().oneshot(request.expect("a request")).await.expect_err("it breaks off");
        assert!(CallerError::find(&*error).is_some(), "another: {error:?}");
    }
    assert_eq!(world.counted("acme").await, (0, 0));
}

/// A circuit that is nobody's in particular, around those of tenants.
fn around(world: &World) -> CircuitBreakerLayer {
    CircuitBreakerLayer::new(world.factory.clone(), CircuitKey::named("orders").tenant(Part::literal("all")))
}

/// Asks in vain, and sees that the circuit outside has learnt nothing from it.
async fn assert_ignored_outside<S, B>(outer: &World, service: S, request: fn() -> Request<()>)
where
    S: Service<Request<()>, Response = Response<B>> + Clone,
    B: http_body::Body,
{
    for _ in 0..5 {
        if let Ok(answer) = service.clone().oneshot(request()).await {
            assert!(answer.extensions().get::<Rejection>().is_some(), "it is seen further out");
            let _ = answer.into_body().collect().await;
        }
    }
    assert_eq!(outer.counted("all").await, (0, 0));
    assert_eq!(outer.state("all").await, State::Closed);
}

#[tokio::test]
async fn that_a_layer_inside_makes_no_call_is_nothing_to_the_one_outside() {
    let requests: [fn() -> Request<()>; 2] = [|| request("acme"), || Request::new(())];
    for request in requests {
        let (outer, inner) = (World::new().await, World::new().await);
        inner.trip("acme").await;
        let tenants = || CircuitBreakerLayer::new(inner.factory.clone(), key());
        let service = || answers(|| response(200, Script::default()));

        let responding = around(&outer).layer(tenants().layer(service()));
        assert_ignored_outside(&outer, responding, request).await;

        let page = RespondWith::new(|_: &Rejection| {
            let mut page = Response::new(Bytes::new());
            *page.status_mut() = http::StatusCode::BAD_GATEWAY;
            page
        });
        let page = around(&outer).layer(tenants().when_refused(page).layer(service()));
        assert_ignored_outside(&outer, page, request).await;

        let grpc = around(&outer).classifier(GrpcClassifier::new()).when_refused(RespondGrpc::new());
        let grpc = grpc.layer(tenants().when_refused(RespondGrpc::new()).layer(service()));
        assert_ignored_outside(&outer, grpc, request).await;

        let error = around(&outer).layer(tenants().when_refused(AsError).layer(service()));
        assert_ignored_outside(&outer, error, request).await;
    }
}

#[tokio::test]
async fn that_a_layer_inside_makes_no_call_takes_no_probe_of_the_one_outside() {
    let (outer, inner) = (World::new().await, World::new().await);
    outer.half_open("all").await;
    inner.trip("acme").await;
    let tenants = CircuitBreakerLayer::new(inner.factory.clone(), key());
    let service = around(&outer).layer(tenants.layer(answers(|| response(200, Script::default()))));
    let refused = service.clone().oneshot(request("acme")).await.expect("an answer");
    assert_eq!(refused.status(), 503);
    assert_eq!(outer.state("all").await, State::HalfOpen);
    // The place is given back behind whoever did not need it.
    while service.clone().oneshot(request("birch")).await.expect("an answer").status() != 200 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test]
async fn a_damaged_circuit_inside_is_no_failure_outside() {
    let outer = World::new().await;
    let inner = World::with(Consistency::Strict, 1).await;
    let tenants = CircuitBreakerLayer::new(inner.factory.clone(), key()).when_refused(AsError);
    let service = around(&outer).layer(tenants.layer(answers(|| response(200, Script::default()))));
    for _ in 0..5 {
        inner.store.on_next_load(Fault::Garbage(b"not a record".to_vec()));
        service.clone().oneshot(request("acme")).await.map(|_| ()).expect_err("no circuit");
    }
    assert_eq!(outer.counted("all").await, (0, 0));
}

#[tokio::test]
async fn a_service_with_an_error_of_its_own_can_be_judged_by_it() {
    #[derive(Debug, thiserror::Error)]
    #[error("quota")]
    struct Quota;
    struct ByQuota;
    impl Classifier for ByQuota {
        fn response(&self, _: &ResponseHead<'_>) -> Verdict {
            Verdict::AtEnd
        }
        fn error(&self, error: WorkError<'_>) -> Outcome {
            match error.downcast_ref::<Quota>() {
                Some(Quota) => Outcome::Success,
                None => Outcome::Failure,
            }
        }
    }
    let world = World::new().await;
    let service = service_fn(|_: Request<()>| std::future::ready(Err::<Response<Script>, Quota>(Quota)));
    let service = CircuitBreakerLayer::new(world.factory.clone(), key()).classifier(ByQuota).layer(service);
    let Quota = service.oneshot(request("acme")).await.expect_err("its own error, as its own type");
    assert_eq!(world.counted("acme").await, (1, 0));
}

fn grpc(status: &str) -> HeaderMap {
    HeaderMap::from_iter([(
        HeaderName::from_static("grpc-status"),
        HeaderValue::from_str(status).expect("a value"),
    )])
}

#[tokio::test]
async fn grpc_is_judged_by_its_trailers() {
    let told = [
        ("0", (1, 0)),
        ("5", (1, 0)),
        ("1", (0, 0)),
        ("14", (0, 1)),
        ("2", (0, 1)),
        ("99", (0, 1)),
        ("", (0, 1)),
    ];
    for (status, counted) in told {
        let world = World::new().await;
        let answer = move || response(200, Script::of([Step::Data("message"), Step::Trailers(grpc(status))]));
        let service = CircuitBreakerLayer::new(world.factory.clone(), key())
            .classifier(GrpcClassifier::new())
            .layer(answers(answer));
        let answer = service.oneshot(request("acme")).await.expect("an answer");
        assert_eq!(world.counted("acme").await, (0, 0), "nothing is told yet");
        answer.into_body().collect().await.expect("a body");
        assert_eq!(world.counted("acme").await, counted, "grpc-status: {status}");
    }
}

#[tokio::test]
async fn a_grpc_body_that_ends_without_a_status_is_a_failure() {
    let world = World::new().await;
    let service = CircuitBreakerLayer::new(world.factory.clone(), key())
        .classifier(GrpcClassifier::new())
        .layer(answers(|| response(200, Script::of([Step::Data("message")]))));
    let answer = service.oneshot(request("acme")).await.expect("an answer");
    answer.into_body().collect().await.expect("a body");
    assert_eq!(world.counted("acme").await, (0, 1));
}

#[test]
fn grpc_without_a_body_is_judged_by_its_headers() {
    let classifier = GrpcClassifier::new();
    assert_eq!(judged(&classifier, 200, &[("grpc-status", "0")]), Verdict::Settled(Outcome::Success));
    assert_eq!(judged(&classifier, 200, &[("grpc-status", "8")]), Verdict::Settled(Outcome::Success));
    let pushed_back = [("grpc-status", "14"), ("grpc-retry-pushback-ms", "1500")];
    let failure = Verdict::Settled(Outcome::FailureRetryAfter(Duration::from_millis(1_500)));
    assert_eq!(judged(&classifier, 200, &pushed_back), failure);
    let not_again = [("grpc-status", "14"), ("grpc-retry-pushback-ms", "-1")];
    assert_eq!(judged(&classifier, 200, &not_again), Verdict::Settled(Outcome::Failure));
    let exhausted = GrpcClassifier::new().resource_exhausted_fails();
    assert_eq!(judged(&exhausted, 200, &[("grpc-status", "8")]), Verdict::Settled(Outcome::Failure));
    assert_eq!(judged(&classifier, 503, &[]), Verdict::Settled(Outcome::Failure));
    assert_eq!(judged(&classifier, 404, &[]), Verdict::Settled(Outcome::Success));
    assert_eq!(judged(&classifier, 200, &[]), Verdict::AtEnd);
}

#[tokio::test]
async fn a_body_whose_trailers_were_not_read_is_no_failure_of_the_upstream() {
    let world = World::new().await;
    let answer =
        || response(200, Script::of([Step::Data("message"), Step::Trailers(grpc("0"))]).of_length(7));
    let service = CircuitBreakerLayer::new(world.factory.clone(), key())
        .classifier(GrpcClassifier::new())
        .layer(answers(answer));
    let mut body = service.oneshot(request("acme")).await.expect("an answer").into_body();
    body.frame().await.expect("a frame").expect("data");
    drop(body);
    assert_eq!(world.counted("acme").await, (0, 0));
}

/// Makes a call that is not answered, and drops it.
async fn drop_a_call(world: &World) {
    let called = Arc::new(Notify::new());
    let calls = called.clone();
    let hangs = service_fn(move |_: Request<()>| {
        calls.notify_one();
        std::future::pending::<Result<Response<Full<Bytes>>, std::convert::Infallible>>()
    });
    let service = CircuitBreakerLayer::new(world.factory.clone(), key()).layer(hangs);
    tokio::select! {
        answer = service.oneshot(request("acme")) => panic!("it was answered: {answer:?}"),
        () = called.notified() => {}
    }
}

#[tokio::test]
async fn a_call_that_is_dropped_before_its_response_is_ignored() {
    let world = World::new().await;
    for _ in 0..5 {
        drop_a_call(&world).await;
    }
    assert_eq!(world.counted("acme").await, (0, 0));
    assert_eq!(world.state("acme").await, State::Closed);
}

#[tokio::test]
async fn a_call_that_is_dropped_before_its_response_frees_the_place_of_its_probe() {
    let world = World::new().await;
    world.half_open("acme").await;
    drop_a_call(&world).await;
    assert_eq!(world.state("acme").await, State::HalfOpen);
    // The place is given back behind whoever dropped it.
    while world.circuit("acme").start().await.is_err() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test]
async fn a_service_that_panics_is_ignored_unless_a_layer_inside_makes_an_error_of_it() {
    let world = World::new().await;
    let panics = service_fn(|request: Request<()>| async move {
        if request.headers().contains_key(TENANT) {
            panic!("as it is told to");
        }
        Ok::<_, BoxError>(response(200, Script::default()))
    });
    let layer = CircuitBreakerLayer::new(world.factory.clone(), key()).when_refused(AsError);
    let bare = layer.clone().layer(panics);
    for _ in 0..5 {
        let call = tokio::spawn(bare.clone().oneshot(request("acme")));
        assert!(call.await.expect_err("it panics").is_panic());
    }
    assert_eq!(world.counted("acme").await, (0, 0));
    let caught = layer.layer(service_fn(move |request: Request<()>| async move {
        let called = AssertUnwindSafe(panics.oneshot(request)).catch_unwind().await;
        called.unwrap_or_else(|_| Err("the service panicked".into()))
    }));
    caught.oneshot(request("acme")).await.expect_err("it panics");
    assert_eq!(world.counted("acme").await, (0, 1));
}
