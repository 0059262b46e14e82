//! A call is over when its response's body is.

use std::time::Duration;

use circuitry::{Outcome, State};
use circuitry_tower::{CircuitBreakerLayer, GuardedBody, Verdict};
use http::{HeaderMap, HeaderValue, Response};
use http_body::Body;
use http_body_util::BodyExt;
use tower::{Layer, ServiceExt};

use crate::world::{Script, Step, World, answers, key, request, response};

/// Asks once, and gets the response with its body unread.
async fn ask(
    world: &World,
    answer: impl Fn() -> Response<Script> + Clone + Send + Sync + 'static,
) -> Response<GuardedBody<Script>> {
    let service = CircuitBreakerLayer::new(world.factory.clone(), key()).layer(answers(answer));
    service.oneshot(request("acme")).await.expect("an answer")
}

fn two_frames() -> Script {
    Script::of([Step::Data("first "), Step::Data("second")])
}

#[tokio::test]
async fn a_success_counts_when_the_body_ends_and_not_before() {
    let world = World::new().await;
    let mut body = ask(&world, || response(200, two_frames())).await.into_body();
    assert_eq!(world.counted("acme").await, (0, 0));
    body.frame().await.expect("a frame").expect("data");
    body.frame().await.expect("a frame").expect("data");
    assert_eq!(world.counted("acme").await, (0, 0), "there may be trailers");
    assert!(body.frame().await.is_none());
    assert_eq!(world.counted("acme").await, (1, 0));
    drop(body);
    assert_eq!(world.counted("acme").await, (1, 0), "it counts once");
}

#[tokio::test]
async fn a_body_that_tells_its_end_has_ended_with_its_last_frame() {
    let world = World::new().await;
    let mut body = ask(&world, || response(200, two_frames().that_tells_its_end())).await.into_body();
    body.frame().await.expect("a frame").expect("data");
    assert_eq!(world.counted("acme").await, (0, 0));
    body.frame().await.expect("a frame").expect("data");
    assert!(body.is_end_stream());
    assert_eq!(world.counted("acme").await, (1, 0));
}

#[tokio::test]
async fn an_empty_body_need_not_be_read() {
    let world = World::new().await;
    let answer = ask(&world, || response(204, Script::of([]).that_tells_its_end())).await;
    assert!(answer.body().is_end_stream());
    assert_eq!(world.counted("acme").await, (1, 0));
}

#[tokio::test]
async fn a_response_that_has_no_body_is_not_waited_for() {
    let world = World::new().await;
    // Not read by servers, whatever is in it.
    for status in [204, 304, 101] {
        drop(ask(&world, move || response(status, two_frames())).await);
    }
    assert_eq!(world.counted("acme").await, (3, 0));
    let service = CircuitBreakerLayer::new(world.factory.clone(), key()).layer(answers(|| {
        let mut answer = response(200, two_frames());
        answer.headers_mut().insert("content-length", HeaderValue::from_static("12"));
        answer
    }));
    let mut head = request("acme");
    *head.method_mut() = http::Method::HEAD;
    drop(service.clone().oneshot(head).await.expect("an answer"));
    assert_eq!(world.counted("acme").await, (4, 0));
    drop(service.oneshot(request("acme")).await.expect("an answer"));
    assert_eq!(world.counted("acme").await, (4, 0), "but with GET it has one");
}

#[tokio::test]
async fn trailers_end_a_body() {
    let world = World::new().await;
    let trailers =
        || Step::Trailers(HeaderMap::from_iter([(http::header::ETAG, HeaderValue::from_static("x"))]));
    let answer = ask(&world, move || response(200, Script::of([Step::Data("all"), trailers()]))).await;
    let collected = answer.into_body().collect().await.expect("a body");
    assert_eq!(collected.trailers().expect("trailers")["etag"], "x");
    assert_eq!(world.counted("acme").await, (1, 0));
}

#[tokio::test]
async fn a_body_that_breaks_off_is_a_failure() {
    let world = World::new().await;
    for _ in 0..3 {
        let answer = ask(&world, || response(200, Script::of([Step::Data("first"), Step::Error]))).await;
        let error = answer.into_body().collect().await.expect_err("it breaks off");
        assert_eq!(error.to_string(), "the upstream broke off");
        assert!(error.is::<std::io::Error>(), "the body's own error");
    }
    assert_eq!(world.state("acme").await, State::Open);
}

#[tokio::test]
async fn after_an_error_a_body_has_ended() {
    let world = World::new().await;
    let mut body =
        ask(&world, || response(200, Script::of([Step::Error, Step::Data("more")]))).await.into_body();
    assert!(body.frame().await.expect("a frame").is_err());
    assert!(body.is_end_stream());
    assert!(body.frame().await.is_none());
}

#[tokio::test]
async fn a_body_that_nobody_reads_to_its_end_is_ignored() {
    let world = World::new().await;
    let mut body = ask(&world, || response(200, two_frames().of_length(12))).await.into_body();
    body.frame().await.expect("a frame").expect("data");
    drop(body);
    drop(ask(&world, || response(200, two_frames())).await);
    assert_eq!(world.counted("acme").await, (0, 0));
}

#[tokio::test]
async fn a_client_that_goes_away_frees_the_place_of_its_probe() {
    let world = World::new().await;
    world.half_open("acme").await;
    let probe = ask(&world, || response(200, two_frames())).await;
    assert_eq!(probe.status(), 200);
    let refused = ask(&world, || response(200, two_frames())).await;
    assert_eq!(refused.status(), 503, "the only place is taken");
    drop(probe);
    // The place is given back behind whoever dropped it.
    let again = loop {
        let again = ask(&world, || response(200, two_frames())).await;
        if again.status() != 503 {
            break again;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    };
    again.into_body().collect().await.expect("a body");
    while world.state("acme").await != State::Closed {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test]
async fn a_body_of_known_length_has_ended_when_so_much_was_read() {
    let world = World::new().await;
    // By its own word.
    let mut body = ask(&world, || response(200, two_frames().of_length(12))).await.into_body();
    body.frame().await.expect("a frame").expect("data");
    body.frame().await.expect("a frame").expect("data");
    drop(body);
    assert_eq!(world.counted("acme").await, (1, 0));
    // By the header.
    let told = || {
        let mut told = response(200, two_frames());
        told.headers_mut().insert("content-length", HeaderValue::from_static("12"));
        told
    };
    let mut body = ask(&world, told).await.into_body();
    body.frame().await.expect("a frame").expect("data");
    body.frame().await.expect("a frame").expect("data");
    drop(body);
    assert_eq!(world.counted("acme").await, (2, 0));
}

#[tokio::test]
async fn a_length_beside_a_transfer_coding_says_nothing() {
    let world = World::new().await;
    let told = || {
        let mut told = response(200, two_frames());
        told.headers_mut().insert("content-length", HeaderValue::from_static("6"));
        told.headers_mut().insert("transfer-encoding", HeaderValue::from_static("chunked"));
        told
    };
    let mut body = ask(&world, told).await.into_body();
    body.frame().await.expect("a frame").expect("data");
    drop(body);
    assert_eq!(world.counted("acme").await, (0, 0), "there is more");
}

#[tokio::test]
async fn a_failure_at_the_head_waits_for_no_body() {
    let world = World::new().await;
    let answers: Vec<_> = [
        ask(&world, || response(500, Script::of([Step::Silence]))).await,
        ask(&world, || response(599, Script::of([Step::Silence]))).await,
        ask(&world, || response(999, Script::of([Step::Silence]))).await,
    ]
    .into();
    assert_eq!(world.state("acme").await, State::Open);
    drop(answers);
}

#[tokio::test]
async fn a_stream_without_an_end_can_be_settled_at_its_head() {
    let world = World::new().await;
    let classifier = |_: &circuitry_tower::ResponseHead<'_>| Verdict::Settled(Outcome::Success);
    let service = CircuitBreakerLayer::new(world.factory.clone(), key())
        .classifier(classifier)
        .layer(answers(|| response(200, Script::of([Step::Data("event"), Step::Silence]))));
    let answer = service.oneshot(request("acme")).await.expect("an answer");
    assert_eq!(world.counted("acme").await, (1, 0));
    drop(answer);
    assert_eq!(world.counted("acme").await, (1, 0));
}

#[tokio::test]
async fn a_body_is_handed_on_as_it_is() {
    let world = World::new().await;
    let answer = ask(&world, || response(200, two_frames().of_length(12))).await;
    assert_eq!(answer.body().size_hint().exact(), Some(12));
    let body = answer.into_body().collect().await.expect("a body").to_bytes();
    assert_eq!(body, "first second");
}
