//! How long an upstream may take over its body. Time is tokio's, and paused.

use std::time::Duration;

use bytes::Bytes;
use circuitry::{Outcome, State};
use circuitry_tower::{BodyTimeout, BoxError, CircuitBreakerLayer, GuardedBody, ResponseHead, Verdict};
use http_body_util::BodyExt;
use tokio::time::{Instant, sleep};
use tower::{Layer, ServiceExt};

use crate::world::{Script, Step, World, answers, key, request, response};

const LIMIT: Duration = Duration::from_secs(30);

fn layer(world: &World) -> CircuitBreakerLayer {
    CircuitBreakerLayer::new(world.factory.clone(), key())
}

/// Asks once for a body of these steps.
async fn ask(
    layer: CircuitBreakerLayer,
    steps: impl Fn() -> Vec<Step> + Clone + Send + Sync + 'static,
) -> GuardedBody<Script> {
    let service = layer.layer(answers(move || response(200, Script::of(steps()))));
    service.oneshot(request("acme")).await.expect("an answer").into_body()
}

async fn read(body: GuardedBody<Script>) -> Result<Bytes, BoxError> {
    Ok(body.collect().await?.to_bytes())
}

#[tokio::test(start_paused = true)]
async fn a_body_that_never_ends_is_a_failure_after_its_time() {
    let world = World::new().await;
    for _ in 0..3 {
        let body =
            ask(layer(&world).body_idle_timeout(LIMIT), || vec![Step::Data("first"), Step::Silence]).await;
        let begun = Instant::now();
        let error = read(body).await.expect_err("it never ends");
        assert_eq!(begun.elapsed(), LIMIT);
        let timeout: &BodyTimeout = error.downcast_ref().expect("a timeout");
        assert_eq!((timeout.limit(), timeout.is_total()), (LIMIT, false));
    }
    assert_eq!(world.state("acme").await, State::Open);
}

#[tokio::test(start_paused = true)]
async fn a_probe_whose_body_never_ends_opens_the_circuit_again() {
    let world = World::new().await;
    world.half_open("acme").await;
    let body = ask(layer(&world).body_timeout(LIMIT), || vec![Step::Silence]).await;
    read(body).await.expect_err("it never ends");
    // Settled behind the reader.
    while world.state("acme").await == State::HalfOpen {
        sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(world.state("acme").await, State::Open);
}

#[tokio::test(start_paused = true)]
async fn a_body_that_comes_in_drops_keeps_within_the_one_limit_and_not_the_other() {
    let drops = || {
        let drops = std::iter::repeat_with(|| [Step::Wait(LIMIT / 3), Step::Data("drop ")]).take(9).flatten();
        drops.collect::<Vec<_>>()
    };
    let world = World::new().await;
    let body = read(ask(layer(&world).body_idle_timeout(LIMIT), drops).await).await.expect("a body");
    assert_eq!(body, "drop ".repeat(9));
    assert_eq!(world.counted("acme").await, (1, 0));

    let begun = Instant::now();
    let error = read(ask(layer(&world).body_timeout(LIMIT), drops).await).await.expect_err("too long");
    assert_eq!(begun.elapsed(), LIMIT);
    assert!(error.downcast_ref::<BodyTimeout>().expect("a timeout").is_total());
    assert_eq!(world.counted("acme").await, (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_body_whose_call_is_settled_may_take_for_ever_and_not_be_silent_for_ever() {
    let events = || {
        let events =
            std::iter::repeat_with(|| [Step::Wait(LIMIT / 3), Step::Data("event ")]).take(9).flatten();
        events.chain([Step::Silence]).collect::<Vec<_>>()
    };
    for (status, counted) in [(200, (1, 0)), (500, (0, 1))] {
        let world = World::new().await;
        let settled = move |_: &ResponseHead<'_>| {
            Verdict::Settled(if status == 200 { Outcome::Success } else { Outcome::Failure })
        };
        let limits = layer(&world).classifier(settled).body_idle_timeout(LIMIT).body_timeout(LIMIT);
        let service = limits.layer(answers(move || response(status, Script::of(events()))));
        let mut body = service.oneshot(request("acme")).await.expect("an answer").into_body();
        for _ in 0..9 {
            body.frame().await.expect("a frame").expect("an event");
        }
        let silence = Instant::now();
        let error = body.frame().await.expect("a frame").expect_err("it is silent");
        assert!(!error.downcast_ref::<BodyTimeout>().expect("a timeout").is_total());
        assert_eq!(silence.elapsed(), LIMIT);
        assert_eq!(world.counted("acme").await, counted, "once");
    }
}

#[tokio::test(start_paused = true)]
async fn a_slow_reader_is_no_failure_of_the_upstream() {
    let world = World::new().await;
    let limits = layer(&world).body_idle_timeout(LIMIT).body_timeout(LIMIT);
    let steps =
        || vec![Step::Data("first "), Step::Wait(LIMIT / 3), Step::Data("second "), Step::Data("third")];
    let mut body = ask(limits, steps).await;
    for _ in 0..3 {
        sleep(LIMIT * 10).await;
        body.frame().await.expect("a frame").expect("data");
    }
    sleep(LIMIT * 10).await;
    assert!(body.frame().await.is_none());
    assert_eq!(world.counted("acme").await, (1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_is_woken_and_comes_late_is_no_failure_of_the_upstream() {
    let world = World::new().await;
    let limits = layer(&world).body_idle_timeout(LIMIT).body_timeout(LIMIT);
    let steps = || {
        let frames =
            std::iter::repeat_with(|| [Step::Wait(LIMIT / 10), Step::Data("frame ")]).take(5).flatten();
        frames.collect::<Vec<_>>()
    };
    let mut body = ask(limits, steps).await;
    for _ in 0..5 {
        // It looks, finds nothing, is woken, and then its own client takes its time.
        let mut frame = std::pin::pin!(body.frame());
        let looked = futures_util::poll!(&mut frame);
        assert!(looked.is_pending());
        sleep(LIMIT * 10).await;
        frame.await.expect("a frame").expect("data");
    }
    assert!(body.frame().await.is_none());
    assert_eq!(world.counted("acme").await, (1, 0));
}

#[tokio::test(start_paused = true)]
async fn without_a_limit_a_body_has_all_the_time_it_wants() {
    let world = World::new().await;
    let steps = || vec![Step::Wait(LIMIT * 10), Step::Data("late")];
    assert_eq!(read(ask(layer(&world), steps).await).await.expect("a body"), "late");
    // A limit beyond all time is none either.
    let limits = layer(&world).body_idle_timeout(Duration::MAX).body_timeout(Duration::MAX);
    assert_eq!(read(ask(limits, steps).await).await.expect("a body"), "late");
    assert_eq!(world.counted("acme").await, (2, 0));
}
