//! What a caller gets whose call was not made.

use std::time::Duration;

use bytes::Bytes;
use circuitry::RefusalReason;
use circuitry_tower::{
    AsError, CircuitBreakerLayer, KeyError, KeyProblem, Rejection, RequestHead, Respond, RespondGrpc,
    RespondWith, retry_after,
};
use http::{HeaderName, Response, StatusCode};
use http_body_util::BodyExt;
use tower::{Layer, ServiceExt};

use crate::world::{Script, World, answers, key, request, response};

fn layer(world: &World) -> CircuitBreakerLayer {
    CircuitBreakerLayer::new(world.factory.clone(), key())
}

fn well() -> Response<Script> {
    response(200, Script::default())
}

#[tokio::test]
async fn a_refusal_is_a_503_that_tells_when_to_come_back() {
    let world = World::new().await;
    world.trip("acme").await;
    let service = layer(&world).layer(answers(well));
    // 60.5 s of open time are 61 whole seconds; the last half of a second is one.
    for (passes_ms, told) in [(0, "61"), (500, "60"), (1, "60"), (59_499, "1"), (499, "1")] {
        world.clock.advance_ms(passes_ms);
        let refused = service.clone().oneshot(request("acme")).await.expect("an answer");
        assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(refused.headers()["retry-after"], told);
        assert!(!refused.headers().contains_key("proxy-status"));
        let rejection: &Rejection = refused.extensions().get().expect("a rejection");
        assert_eq!(rejection.refusal().expect("a refusal").reason(), RefusalReason::Open);
        let body = refused.into_body().collect().await.expect("a body").to_bytes();
        assert!(body.starts_with(b"the circuit is open; try again in "), "{body:?}");
    }
}

#[test]
fn a_wait_in_whole_seconds_is_never_too_short_and_never_none() {
    let waits = [(0, "1"), (1, "1"), (1_000, "1"), (1_001, "2"), (60_000, "60")];
    for (ms, told) in waits {
        assert_eq!(retry_after(Duration::from_millis(ms)), told);
    }
    assert_eq!(retry_after(Duration::from_nanos(1_000_000_001)), "2");
    assert_eq!(retry_after(Duration::MAX), u64::MAX.to_string());
}

#[tokio::test]
async fn a_gateway_can_tell_its_own_refusals_from_those_of_the_upstream() {
    let world = World::new().await;
    world.trip("acme").await;
    let respond = Respond::new().proxy_status("my \"gateway\"\r\n7");
    let service = layer(&world).when_refused(respond).layer(answers(well));
    let refused = service.clone().oneshot(request("acme")).await.expect("an answer");
    let told = &refused.headers()["proxy-status"];
    assert_eq!(told, "\"my--gateway---7\"; error=destination_unavailable; details=\"open\"");
    let without_key = service.oneshot(http::Request::new(())).await.expect("an answer");
    assert_eq!(
        without_key.headers()["proxy-status"],
        "\"my--gateway---7\"; error=http_request_error; details=\"no key\""
    );
}

#[tokio::test]
async fn a_refusal_can_be_the_services_error() {
    let world = World::new().await;
    world.trip("acme").await;
    let service = layer(&world).when_refused(AsError).layer(answers(well));
    let error = service.oneshot(request("acme")).await.expect_err("a refusal");
    let rejection = Rejection::find(&*error).expect("a rejection");
    let Rejection::Refused { circuit, refusal } = rejection else { panic!("another: {rejection}") };
    assert_eq!(circuit, "orders/acme");
    assert_eq!(refusal.retry_after(), crate::world::ALLOW_AFTER);
    assert!(error.to_string().starts_with("circuit `orders/acme`: the circuit is open"), "{error}");
    // Whoever knows circuitry and not this crate finds it too.
    assert!(error.source().expect("a source").is::<circuitry::Refusal>());
}

#[tokio::test]
async fn a_refusal_can_be_a_response_of_ones_own() {
    let world = World::new().await;
    world.trip("acme").await;
    let busy = RespondWith::new(|rejection: &Rejection| {
        let mut busy = Response::new(Bytes::from_static(b"{}"));
        *busy.status_mut() = StatusCode::IM_A_TEAPOT;
        assert!(rejection.refusal().is_some());
        busy
    });
    let service = layer(&world).when_refused(busy).layer(answers(well));
    let refused = service.oneshot(request("acme")).await.expect("an answer");
    assert_eq!(refused.status(), StatusCode::IM_A_TEAPOT);
    assert!(refused.extensions().get::<Rejection>().is_some());
    assert_eq!(refused.into_body().collect().await.expect("a body").to_bytes(), "{}");
}

#[tokio::test]
async fn a_grpc_client_is_refused_in_its_own_way() {
    let world = World::new().await;
    world.trip("acme").await;
    let service = layer(&world).when_refused(RespondGrpc::new()).layer(answers(well));
    let refused = service.clone().oneshot(request("acme")).await.expect("an answer");
    assert_eq!(refused.status(), StatusCode::OK);
    let header =
        |name: &'static str| refused.headers()[HeaderName::from_static(name)].to_str().expect("text");
    assert_eq!((header("grpc-status"), header("grpc-retry-pushback-ms")), ("14", "60500"));
    assert!(header("grpc-message").starts_with("the circuit is open"));
    assert!(http_body::Body::is_end_stream(refused.body()));
    let without_key = service.oneshot(http::Request::new(())).await.expect("an answer");
    assert_eq!(without_key.headers()["grpc-status"], "3");
}

#[tokio::test]
async fn what_a_grpc_client_is_told_is_escaped_as_grpc_has_it() {
    let world = World::new().await;
    let told = async |part: &'static str| {
        let key = move |_: &RequestHead<'_>| Err(KeyError::new(part, KeyProblem::Missing));
        let layer = CircuitBreakerLayer::new(world.factory.clone(), key).when_refused(RespondGrpc::new());
        let service = layer.layer(answers(well));
        let refused = service.oneshot(request("acme")).await.expect("an answer");
        refused.headers()["grpc-message"].clone()
    };
    assert_eq!(told("the login").await, "the login is missing");
    assert_eq!(told("100 %").await, "100 %25 is missing");
    assert_eq!(told("Schl\u{fc}ssel\n~").await, "Schl%C3%BCssel%0A~ is missing");
}

#[tokio::test]
async fn a_refused_call_counts_nothing() {
    let world = World::new().await;
    world.trip("acme").await;
    let before = world.counts("acme").await;
    let service = layer(&world).layer(answers(|| response(500, Script::default())));
    for _ in 0..20 {
        service.clone().oneshot(request("acme")).await.expect("an answer");
    }
    assert_eq!(world.counts("acme").await, before);
}
