//! What is counted, and that workers share it.

use std::time::Duration;

use circuitry::{Context, Outcome, Override, OverrideKind, StartError, State, TripRule, Window};

use crate::client::{Client, get, request};
use crate::process::{Edge, UPSTREAM, breaker};
use crate::servers::{factory, patient, plain, redis_store, run};
use crate::upstream::{Piece, answer};

#[tokio::test]
async fn failures_through_the_gateway_open_the_circuit_for_a_worker() {
    let edge = Edge::start(&[]).await;
    edge.upstream.will(answer(500, &[], b"broken"));
    for _ in 0..3 {
        let passed = get(edge.gateway.address, "/", &[]).await;
        assert_eq!((passed.status, passed.text().as_str(), passed.own()), (500, "broken", None));
    }
    let started = breaker(edge.worker().await).start().await;
    assert!(matches!(started, Err(StartError::Refused(_))), "{started:?}");
    edge.gateway.assert_never_failed();
}

#[tokio::test]
async fn failures_of_a_worker_open_the_circuit_for_the_gateway_and_it_says_when_to_come_again() {
    let edge = Edge::start(&[]).await;
    let worker = breaker(edge.worker().await);
    for _ in 0..3 {
        worker.start().await.expect("a permit").end(Outcome::Failure).await.expect("settled");
    }
    let refused = get(edge.gateway.address, "/", &[]).await;
    assert_eq!((refused.status, refused.own().as_deref()), (503, Some("refused")));
    let seconds: u64 =
        refused.header("retry-after").and_then(|wait| wait.parse().ok()).expect("whole seconds");
    assert!((1..=60).contains(&seconds), "{seconds}");
    assert!(edge.upstream.asked().is_empty(), "a refused request goes nowhere");
}

#[tokio::test]
async fn a_good_probe_through_the_gateway_heals_the_circuit_for_the_worker() {
    let short = Duration::from_secs(3);
    let edge = Edge::start(&[("CIRCUITRY_ALLOW_AFTER_MS", "3000")]).await;
    edge.upstream.will(answer(500, &[], b""));
    for _ in 0..3 {
        get(edge.gateway.address, "/", &[]).await;
    }
    assert_eq!(get(edge.gateway.address, "/", &[]).await.own().as_deref(), Some("refused"));
    tokio::time::sleep(short).await;
    edge.upstream.will(answer(200, &[], b"well again"));
    assert_eq!(get(edge.gateway.address, "/", &[]).await.text(), "well again");
    assert_eq!(edge.information().await.state, State::Closed);
}

#[tokio::test]
async fn a_failed_probe_opens_the_circuit_again() {
    let edge = Edge::start(&[("CIRCUITRY_ALLOW_AFTER_MS", "3000")]).await;
    edge.upstream.will(answer(500, &[], b""));
    for _ in 0..3 {
        get(edge.gateway.address, "/", &[]).await;
    }
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(get(edge.gateway.address, "/", &[]).await.status, 500);
    assert_eq!(get(edge.gateway.address, "/", &[]).await.own().as_deref(), Some("refused"));
}

#[tokio::test]
async fn whoever_has_the_whole_answer_finds_it_counted_once() {
    let edge = Edge::start(&[]).await;
    for expected in 1..=20 {
        assert_eq!(get(edge.gateway.address, "/", &[]).await.text(), "well");
        assert_eq!(edge.counts().await, (expected, expected, 0));
    }
    edge.upstream.will(answer(404, &[], b""));
    get(edge.gateway.address, "/", &[]).await;
    assert_eq!(edge.counts().await, (21, 21, 0), "an answer that is no failure is a success");
    edge.upstream.will(answer(502, &[], b""));
    get(edge.gateway.address, "/", &[]).await;
    assert_eq!(edge.counts().await, (22, 21, 1));
}

#[tokio::test]
async fn the_statuses_that_are_failures_are_those_that_are_configured() {
    let edge = Edge::start(&[("CIRCUITRY_FAILURE_STATUSES", "429, 503-504")]).await;
    for (status, expected) in [(429, (1, 0, 1)), (500, (2, 1, 1)), (504, (3, 1, 2))] {
        edge.upstream.will(answer(status, &[], b""));
        assert_eq!(get(edge.gateway.address, "/", &[]).await.status, status);
        assert_eq!(edge.counts().await, expected, "after {status}");
    }
}

#[tokio::test]
async fn what_the_upstream_asks_to_be_left_alone_lengthens_the_open_time() {
    let edge = Edge::start(&[]).await;
    edge.upstream.will(answer(503, &["retry-after: 300"], b""));
    for _ in 0..3 {
        let passed = get(edge.gateway.address, "/", &[]).await;
        assert_eq!(passed.header("retry-after").as_deref(), Some("300"), "it is passed on as it came");
    }
    let refused = get(edge.gateway.address, "/", &[]).await;
    let seconds: u64 =
        refused.header("retry-after").and_then(|wait| wait.parse().ok()).expect("whole seconds");
    assert!((200..=300).contains(&seconds), "{seconds}");
}

#[tokio::test]
async fn a_tenant_has_a_circuit_of_its_own_whatever_its_name() {
    let edge = Edge::start(&[("CIRCUITRY_TENANT_HEADER", "X-Tenant")]).await;
    let worker = edge.worker().await;
    let tenants = [
        "acme",
        "a/b",
        "a%2Fb",
        "100%",
        "../acme",
        "web/acme",
        "circuitry:web",
        "*",
        "{x}",
        "müller",
        "a b",
        "acme/",
    ];
    for (tenant, failures) in tenants.iter().zip(1..) {
        edge.upstream.will(answer(500, &[], b""));
        for _ in 0..failures.min(2) {
            get(edge.gateway.address, "/", &[&format!("x-tenant: {tenant}")]).await;
        }
        // Nobody else's: it is counted where a worker counts for that tenant.
        let circuit = worker.breaker_for(UPSTREAM, &Context::tenant(*tenant));
        let counts = circuit.information().await.expect("a store that answers").counts;
        assert_eq!((counts.total, counts.total_failures), (failures.min(2), failures.min(2)), "{tenant}");
    }
    edge.gateway.assert_never_failed();
}

#[tokio::test]
async fn a_request_whose_tenant_cannot_be_told_touches_no_circuit() {
    let edge = Edge::start(&[("CIRCUITRY_TENANT_HEADER", "X-Tenant")]).await;
    let too_long = [b"x-tenant: ".as_slice(), &[b'x'; 2_000]].concat();
    for lines in [
        &b""[..],
        b"x-tenant:",
        b"x-tenant: acme\r\nX-Tenant: acme",
        b"x-tenant: \xff\xfe",
        b"x-tenant: a\tb",
        &too_long,
    ] {
        let head = request("GET", "/", &[]);
        let end = head.len() - 2;
        let line = if lines.is_empty() { vec![] } else { [lines, b"\r\n"].concat() };
        let whole = [&head[..end], &line, b"\r\n"].concat();
        let refused = crate::client::ask(edge.gateway.address, &whole).await.expect("an answer");
        assert_eq!((refused.status, refused.own().as_deref()), (503, Some("bad-request")), "{lines:?}");
        assert_eq!(refused.header("retry-after"), None, "coming again would not help");
    }
    assert!(edge.upstream.asked().is_empty());
    let mut redis = plain(&edge.redis_url).await;
    let keys: Vec<String> = run(&mut redis, &["KEYS", &format!("{}*", edge.prefix)]).await;
    assert_eq!(keys, Vec::<String>::new());
    edge.gateway.assert_never_failed();
}

#[tokio::test]
async fn what_a_person_forces_holds_at_the_edge() {
    let edge = Edge::start(&[]).await;
    let worker = breaker(edge.worker().await);
    let force = |kind| Override { kind, author: "ops".into(), reason: "test".into(), until_ms: None };
    worker.set_override(Some(force(OverrideKind::ForcedOpen))).await.expect("stored");
    let refused = get(edge.gateway.address, "/", &[]).await;
    assert_eq!(refused.own().as_deref(), Some("refused"));
    assert!(refused.text().contains("forced open"), "{}", refused.text());
    worker.set_override(Some(force(OverrideKind::Disabled))).await.expect("stored");
    edge.upstream.will(answer(500, &[], b""));
    for _ in 0..5 {
        assert_eq!(get(edge.gateway.address, "/", &[]).await.status, 500);
    }
    assert_eq!(edge.counts().await, (0, 0, 0));
}

#[tokio::test]
async fn a_probe_that_still_works_keeps_its_place() {
    let edge =
        Edge::start(&[("CIRCUITRY_ALLOW_AFTER_MS", "200"), ("CIRCUITRY_PROBE_TIMEOUT_MS", "1000")]).await;
    edge.upstream.will(answer(500, &[], b""));
    for _ in 0..3 {
        get(edge.gateway.address, "/", &[]).await;
    }
    tokio::time::sleep(Duration::from_millis(200)).await;
    let slow = [vec![Piece::Wait(Duration::from_secs(3))], answer(200, &[], b"late")].concat();
    edge.upstream.will(slow);
    let address = edge.gateway.address;
    let probe = tokio::spawn(async move { get(address, "/", &[]).await });
    tokio::time::sleep(Duration::from_secs(2)).await;
    // Its first lease is over, and nobody else gets its place.
    assert_eq!(get(address, "/", &[]).await.own().as_deref(), Some("refused"));
    assert_eq!(probe.await.expect("a task").text(), "late");
    assert_eq!(edge.information().await.state, State::Closed);
}

#[tokio::test]
async fn a_request_is_slow_by_the_time_of_the_upstream_and_not_of_the_client() {
    let edge = Edge::start(&[]).await;
    // The settings with the higher revision are in force, and these open the circuit at the first slow call.
    let rule = TripRule::SlowCallRate { per_mille: 1, window: Window::Calls(10), minimum_calls: 1 };
    let settings = patient().trip_rules([rule]).slow_call_after(Duration::from_secs(2)).settings_revision(1);
    let worker = factory(settings.store(redis_store(&edge.redis_url, &edge.prefix).await)).await;
    breaker(&worker).start().await.expect("a permit").end(Outcome::Success).await.expect("settled");

    let mut client = Client::connect(edge.gateway.address).await;
    client.send(&request("POST", "/", &["content-length: 5"])).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    client.send(b"hello").await;
    assert_eq!(client.answer(true).await.expect("an answer").text(), "well");
    assert_eq!(edge.information().await.state, State::Closed);

    edge.upstream.will([vec![Piece::Wait(Duration::from_secs(3))], answer(200, &[], b"late")].concat());
    assert_eq!(get(edge.gateway.address, "/", &[]).await.text(), "late");
    assert_eq!(get(edge.gateway.address, "/", &[]).await.own().as_deref(), Some("refused"));
}
