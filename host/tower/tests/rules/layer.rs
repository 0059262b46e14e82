//! The layer as a whole: circuits open, refuse, and let through exactly the probes that they may.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use circuitry::{Consistency, State};
use circuitry_tower::CircuitBreakerLayer;
use http::Request;
use http_body_util::BodyExt;
use tokio::sync::Semaphore;
use tower::{Layer, ServiceExt, service_fn};

use crate::world::{Script, Step, World, answers, key, request, response};

#[tokio::test]
async fn an_upstream_that_fails_is_asked_no_more_by_its_tenant_and_by_nobody_else_less() {
    let world = World::new().await;
    let asked = Arc::new(AtomicU64::new(0));
    let asks = asked.clone();
    let service = CircuitBreakerLayer::new(world.factory.clone(), key()).layer(service_fn(
        move |request: Request<()>| {
            let is_acme = request.headers()["x-tenant"] == "acme";
            asks.fetch_add(u64::from(is_acme), Ordering::SeqCst);
            let status = if is_acme { 500 } else { 200 };
            std::future::ready(Ok::<_, std::convert::Infallible>(response(status, Script::default())))
        },
    ));
    for _ in 0..50 {
        let acme = service.clone().oneshot(request("acme")).await.expect("an answer");
        assert!([500, 503].contains(&acme.status().as_u16()));
        let birch = service.clone().oneshot(request("birch")).await.expect("an answer");
        assert_eq!(birch.status(), 200);
        birch.into_body().collect().await.expect("a body");
    }
    assert_eq!(asked.load(Ordering::SeqCst), 3, "the third failure trips");
    assert_eq!(world.counted("birch").await, (50, 0));
}

#[tokio::test]
async fn a_circuit_heals_through_the_layer() {
    let world = World::new().await;
    world.half_open("acme").await;
    let service = CircuitBreakerLayer::new(world.factory.clone(), key())
        .layer(answers(|| response(200, Script::of([Step::Data("well")]))));
    let probe = service.oneshot(request("acme")).await.expect("an answer");
    assert_eq!(world.state("acme").await, State::HalfOpen, "the body has not ended");
    probe.into_body().collect().await.expect("a body");
    while world.state("acme").await != State::Closed {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test]
async fn of_many_calls_at_once_exactly_the_allowed_probes_are_made() {
    for consistency in [Consistency::Strict, Consistency::default()] {
        let world = World::with(consistency, 3).await;
        world.half_open("acme").await;
        let made = Arc::new(AtomicU64::new(0));
        let end = Arc::new(Semaphore::new(0));
        let (makes, ends) = (made.clone(), end.clone());
        let service = service_fn(move |_: Request<()>| {
            let (made, end) = (makes.clone(), ends.clone());
            async move {
                made.fetch_add(1, Ordering::SeqCst);
                end.acquire().await.expect("an end").forget();
                Ok::<_, std::convert::Infallible>(response(200, Script::default()))
            }
        });
        let service = CircuitBreakerLayer::new(world.factory.clone(), key()).layer(service);
        let calls: Vec<_> = (0..64)
            .map(|_| {
                let call = service.clone().oneshot(request("acme"));
                tokio::spawn(async move {
                    let answer = call.await.expect("an answer");
                    let status = answer.status().as_u16();
                    answer.into_body().collect().await.expect("a body");
                    status
                })
            })
            .collect();
        while calls.iter().filter(|call| call.is_finished()).count() < 61 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert_eq!(made.load(Ordering::SeqCst), 3, "{consistency:?}");
        end.add_permits(3);
        let mut statuses = Vec::new();
        for call in calls {
            statuses.push(call.await.expect("a call"));
        }
        assert_eq!(statuses.iter().filter(|status| **status == 200).count(), 3);
        assert_eq!(statuses.iter().filter(|status| **status == 503).count(), 61);
        while world.state("acme").await != State::Closed {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

#[tokio::test]
async fn who_fails_at_the_head_is_counted_when_the_response_is_there() {
    for consistency in [Consistency::Strict, Consistency::default()] {
        let world = World::with(consistency, 1).await;
        let service = CircuitBreakerLayer::new(world.factory.clone(), key())
            .layer(answers(|| response(500, Script::of([Step::Silence]))));
        for status in [500, 500, 500, 503] {
            let answer = service.clone().oneshot(request("acme")).await.expect("an answer");
            assert_eq!(answer.status(), status, "{consistency:?}");
        }
        // The fleet knows too.
        let elsewhere = world.elsewhere(consistency).await;
        elsewhere.start().await.expect_err("a refusal");
    }
}

#[tokio::test]
async fn in_strict_mode_too_a_success_is_counted_behind_its_body() {
    let world = World::with(Consistency::Strict, 1).await;
    let service = CircuitBreakerLayer::new(world.factory.clone(), key())
        .layer(answers(|| response(200, Script::of([Step::Data("well")]))));
    for _ in 0..10 {
        let answer = service.clone().oneshot(request("acme")).await.expect("an answer");
        answer.into_body().collect().await.expect("a body");
    }
    while world.counted("acme").await != (10, 0) {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test]
async fn no_frame_waits_for_a_store_that_hangs() {
    let world = World::with(Consistency::Strict, 1).await;
    let service = CircuitBreakerLayer::new(world.factory.clone(), key())
        .layer(answers(|| response(200, Script::of([Step::Data("well")]))));
    let answer = service.oneshot(request("acme")).await.expect("an answer");
    world.store.on_next_swap(circuitry_store::fault::Fault::Hang);
    let mut body = std::pin::pin!(answer.into_body().collect());
    assert!(futures_util::poll!(&mut body).is_ready(), "at once");
    world.store.release();
}
