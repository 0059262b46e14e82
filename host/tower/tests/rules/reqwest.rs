//! The middleware for reqwest, over real sockets.

use std::time::Duration;

use circuitry::{Context, Factory, Outcome, State};
use circuitry_tower::{BodyTimeout, CircuitKey, Part, Rejection, RequestHead, ReqwestBreaker, Verdict};
use http::StatusCode;
use reqwest_middleware::{ClientBuilder, ClientWithMiddleware, Error};

use crate::upstream::{Conduct, Upstream};
use crate::world::TENANT;

async fn factory() -> Factory {
    let settings = crate::world::settings().failure_count_threshold(2).build().expect("usable settings");
    Factory::new(settings).await.expect("a factory")
}

/// One circuit for each host and tenant.
fn key() -> CircuitKey {
    CircuitKey::of(Part::host()).tenant(Part::header(TENANT))
}

fn client(breaker: ReqwestBreaker) -> ClientWithMiddleware {
    let plain = reqwest::Client::builder().no_proxy().build().expect("a client");
    ClientBuilder::new(plain).with(breaker).build()
}

async fn ask(client: &ClientWithMiddleware, url: &str, tenant: &str) -> Result<reqwest::Response, Error> {
    client.get(url).header(TENANT, tenant).send().await
}

async fn counted(factory: &Factory, upstream: &Upstream, tenant: &str) -> (u64, u64) {
    let breaker = factory.breaker_for(&upstream.address.to_string(), &Context::tenant(tenant));
    let counts = breaker.information().await.expect("information").counts;
    (counts.total_successes, counts.total_failures)
}

fn rejection(error: &Error) -> &Rejection {
    Rejection::find(error).unwrap_or_else(|| panic!("not a rejection: {error}"))
}

#[tokio::test]
async fn a_success_counts_when_the_body_was_read() {
    let factory = factory().await;
    let upstream = Upstream::that(Conduct::answers(200, "well")).await;
    let client = client(ReqwestBreaker::new(factory.clone(), key()));
    let answer = ask(&client, &upstream.url(), "acme").await.expect("an answer");
    assert_eq!((answer.status(), answer.content_length()), (StatusCode::OK, Some(4)));
    assert_eq!(answer.url().as_str(), format!("{}/", upstream.url()), "the URL is not lost");
    assert_eq!(answer.remote_addr(), Some(upstream.address), "nor the address");
    assert_eq!(counted(&factory, &upstream, "acme").await, (0, 0));
    assert_eq!(answer.text().await.expect("a body"), "well");
    assert_eq!(counted(&factory, &upstream, "acme").await, (1, 0));
}

#[tokio::test]
async fn a_body_that_breaks_off_is_a_failure() {
    let factory = factory().await;
    let upstream = Upstream::that(Conduct::breaks_off()).await;
    let client = client(ReqwestBreaker::new(factory.clone(), key()));
    for _ in 0..3 {
        let answer = ask(&client, &upstream.url(), "acme").await.expect("a head");
        assert_eq!(answer.status(), StatusCode::OK);
        answer.bytes().await.expect_err("it breaks off");
    }
    let error = ask(&client, &upstream.url(), "acme").await.expect_err("a refusal");
    assert!(rejection(&error).refusal().expect("a refusal").retry_after() > Duration::ZERO);
    assert_eq!(upstream.asked(), 3);
    // Nobody else's circuit.
    ask(&client, &upstream.url(), "birch").await.expect("an answer");
}

#[tokio::test]
async fn a_body_that_never_ends_is_a_failure_after_its_time() {
    let factory = factory().await;
    let upstream = Upstream::that(Conduct::never_ends()).await;
    let limit = Duration::from_millis(50);
    let client = client(ReqwestBreaker::new(factory.clone(), key()).body_idle_timeout(limit));
    let answer = ask(&client, &upstream.url(), "acme").await.expect("a head");
    let error = answer.text().await.expect_err("it never ends");
    let mut cause: Option<&dyn std::error::Error> = Some(&error);
    while let Some(error) = cause.filter(|error| !error.is::<BodyTimeout>()) {
        cause = error.source();
    }
    assert!(cause.is_some(), "no timeout in {error:?}");
    assert_eq!(counted(&factory, &upstream, "acme").await, (0, 1));
}

#[tokio::test]
async fn an_upstream_that_is_down_is_refused_after_its_failures() {
    let factory = factory().await;
    let gone = Upstream::that(Conduct::Echo).await.address;
    let client = client(ReqwestBreaker::new(factory.clone(), key()));
    let url = format!("http://{gone}/");
    while let Ok(_late) = tokio::net::TcpStream::connect(gone).await {}
    for _ in 0..3 {
        let error = ask(&client, &url, "acme").await.expect_err("nobody listens");
        assert!(error.is_connect(), "reqwest's own error: {error}");
    }
    let error = ask(&client, &url, "acme").await.expect_err("a refusal");
    assert!(rejection(&error).refusal().is_some());
    assert!(error.to_string().contains(&gone.to_string()), "it names the circuit: {error}");
}

#[tokio::test]
async fn a_request_that_cannot_be_sent_says_nothing_of_the_upstream() {
    let factory = factory().await;
    let client = client(ReqwestBreaker::new(factory.clone(), key()));
    for _ in 0..5 {
        // No scheme that the client knows.
        let error = ask(&client, "gopher://example.com/", "acme").await.expect_err("it cannot be sent");
        assert!(error.is_builder(), "{error}");
    }
    let breaker = factory.breaker_for("example.com", &Context::tenant("acme"));
    assert_eq!(breaker.state().await.expect("a state"), State::Closed);
}

#[tokio::test]
async fn a_request_without_a_key_is_not_sent() {
    let factory = factory().await;
    let upstream = Upstream::that(Conduct::Echo).await;
    let client = client(ReqwestBreaker::new(factory, key()));
    let error = client.get(upstream.url()).send().await.expect_err("no tenant");
    assert!(matches!(rejection(&error), Rejection::Key(_)), "{error}");
    let long = format!("{}/{}", upstream.url(), "a".repeat(70_000));
    let error = ask(&client, &long, "acme").await.expect_err("no URI");
    assert!(matches!(rejection(&error), Rejection::Key(_)), "{error}");
    assert_eq!(upstream.asked(), 0);
}

#[tokio::test]
async fn a_redirect_counts_where_it_led_from_unless_it_is_followed_outside() {
    let factory = factory().await;
    let there = Upstream::that(Conduct::answers(500, "")).await;
    let found = format!("HTTP/1.1 302 Found\r\nlocation: {}\r\ncontent-length: 0\r\n\r\n", there.url());
    let here = Upstream::that(Conduct::Says(found)).await;
    let follows = client(ReqwestBreaker::new(factory.clone(), key()));
    let answer = ask(&follows, &here.url(), "acme").await.expect("an answer");
    assert_eq!(answer.status(), StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(counted(&factory, &here, "acme").await, (0, 1));
    assert_eq!(counted(&factory, &there, "acme").await, (0, 0));

    let plain = reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none());
    let plain = ClientBuilder::new(plain.build().expect("a client"));
    let follows_not = plain.with(ReqwestBreaker::new(factory.clone(), key())).build();
    let answer = ask(&follows_not, &here.url(), "birch").await.expect("an answer");
    let next = answer.headers()["location"].to_str().expect("text").to_owned();
    answer.bytes().await.expect("a body");
    ask(&follows_not, &next, "birch").await.expect("an answer");
    assert_eq!(counted(&factory, &here, "birch").await, (1, 0));
    assert_eq!(counted(&factory, &there, "birch").await, (0, 1));
}

#[tokio::test]
async fn extensions_and_classifiers_are_the_users_own() {
    #[derive(Clone)]
    struct Tenant(&'static str);
    let by_extension = Part::computed("the tenant", |request: &RequestHead<'_>| {
        request.extensions().get::<Tenant>().map(|tenant| tenant.0.to_owned())
    });
    let factory = factory().await;
    let upstream = Upstream::that(Conduct::answers(404, "")).await;
    let breaker = ReqwestBreaker::new(factory.clone(), CircuitKey::of(Part::host()).tenant(by_extension))
        .classifier(|_: &circuitry_tower::ResponseHead<'_>| Verdict::Settled(Outcome::Failure));
    let client = client(breaker);
    for _ in 0..3 {
        let answer = client.get(upstream.url()).with_extension(Tenant("acme")).send().await;
        assert_eq!(answer.expect("an answer").status(), StatusCode::NOT_FOUND);
    }
    let error =
        client.get(upstream.url()).with_extension(Tenant("acme")).send().await.expect_err("a refusal");
    assert!(rejection(&error).refusal().is_some());
}
