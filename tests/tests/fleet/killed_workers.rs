//! A worker process that is killed while it holds the probe.

use std::time::Duration;

use circuitry::{Breaker, Context, Disposition, Outcome, RefusalReason, StartError, State};
use circuitry_tests::fleet::{HOLDING, PATIENT, Task, Work};
use tokio::time::Instant;

use crate::eventually;
use crate::servers::{factory, own_name, plain, redis_store, redis_url, run};
use crate::turns::alone;
use crate::workers::Worker;

/// The server's time in milliseconds.
async fn store_ms(connection: &mut redis::aio::MultiplexedConnection) -> u64 {
    let (seconds, micros): (u64, u64) = run(connection, &["TIME"]).await;
    seconds * 1_000 + micros / 1_000
}

async fn trip(breaker: &Breaker) {
    while let Ok(permit) = breaker.start().await {
        permit.end(Outcome::Failure).await.expect("settled");
    }
    assert_eq!(breaker.state().await.expect("a state"), State::Open);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_killed_with_the_probe_delays_recovery_by_its_lease_at_most() {
    let _turn = alone().await;
    const PROBE_TIMEOUT_MS: u64 = 1_000;
    let task = Task {
        redis_url: redis_url(),
        prefix: format!("{}:", own_name()),
        circuit: "jobs".into(),
        failure_count_threshold: 2,
        close_threshold: 1,
        allow_after_ms: 100,
        probe_timeout_ms: PROBE_TIMEOUT_MS,
        bounded: false,
        work: Work::HoldProbe,
    };
    let mut doomed = Worker::start(&task).await;
    let store = redis_store(&task.redis_url, &task.prefix).await;
    let other = factory(task.settings().store(store)).await.breaker_for(&task.circuit, &Context::new());
    let mut server = plain(&task.redis_url).await;
    trip(&other).await;
    doomed.begin().await;
    doomed.until_it_says(HOLDING).await;

    // It lives on past its first lease, which is renewed: nobody else gets the place.
    let held_at_ms = store_ms(&mut server).await;
    eventually("the first lease would be over", PATIENT, async || {
        match other.start().await {
            Err(StartError::Refused(refusal)) => assert_eq!(refusal.reason(), RefusalReason::TooManyRequests),
            other => panic!("a second probe while the first is at work: {other:?}"),
        }
        (store_ms(&mut server).await > held_at_ms + PROBE_TIMEOUT_MS * 3 / 2).then_some(())
    })
    .await;

    doomed.kill().await;
    let killed_at_ms = store_ms(&mut server).await;
    // As a worker does: it comes back when the refusal says, and not before.
    let deadline = Instant::now() + PATIENT;
    let probe = loop {
        match other.start().await {
            Ok(probe) => break probe,
            Err(StartError::Refused(refusal)) => tokio::time::sleep(refusal.spread_delay()).await,
            Err(error) => panic!("{error}"),
        }
        assert!(Instant::now() < deadline, "the killed worker holds its place for ever");
    };
    assert!(probe.is_probe());
    let settled = probe.end(Outcome::Success).await.expect("settled");
    assert_eq!(settled.disposition, Disposition::Accepted);
    let closed = other.information().await.expect("information");
    assert_eq!(closed.state, State::Closed);
    let took_ms = closed.since_ms.saturating_sub(killed_at_ms);
    println!("closed {took_ms} ms after the kill");
    let most_ms = u64::try_from(Duration::from_secs(1).as_millis()).expect("small") + PROBE_TIMEOUT_MS;
    assert!(took_ms <= most_ms, "closed {took_ms} ms after the kill");
}
