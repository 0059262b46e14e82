//! Whose clock counts: the store's, however wrong a host's is.

use std::time::Duration;

use circuitry::{
    Breaker, Clock, Context, Disposition, Factory, ManualClock, Outcome, RefusalReason, StartError, State,
    SystemClock,
};
use circuitry_tests::fleet::PATIENT;

use crate::eventually;
use crate::servers::{factory, own_name, patient, plain, redis_store, redis_url, run};
use crate::timeless;
use crate::turns::together;

const MINUTE_MS: i64 = 60_000;

/// A host's clock that is wrong by some minutes.
#[derive(Debug)]
struct Wrong {
    host: SystemClock,
    by_ms: i64,
}

impl Clock for Wrong {
    fn now_ms(&self) -> u64 {
        self.host.now_ms().saturating_add_signed(self.by_ms)
    }
}

async fn worker(prefix: &str, clock: impl Clock, open_for: Duration) -> Factory {
    let store = redis_store(&redis_url(), prefix).await;
    let settings = patient().failure_count_threshold(2).allow_after(open_for);
    factory(settings.clock(clock).store(store)).await
}

fn jobs(factory: &Factory) -> Breaker {
    factory.breaker_for("jobs", &Context::tenant("acme"))
}

/// The server's time in milliseconds.
async fn store_ms() -> u64 {
    let (seconds, micros): (u64, u64) = run(&mut plain(&redis_url()).await, &["TIME"]).await;
    seconds * 1_000 + micros / 1_000
}

async fn trip(breaker: &Breaker) {
    for _ in 0..3 {
        breaker.start().await.expect("a permit").end(Outcome::Failure).await.expect("settled");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn workers_whose_clocks_are_minutes_apart_behave_alike() {
    let _turn = together().await;
    const OPEN_FOR: Duration = Duration::from_millis(1_000);
    for by_minutes in [[-5, 5], [5, -5], [0, 60]] {
        let prefix = own_name();
        let clock = |minutes: i64| Wrong { host: SystemClock::new(), by_ms: minutes * MINUTE_MS };
        let first = jobs(&worker(&prefix, clock(by_minutes[0]), OPEN_FOR).await);
        let before_ms = store_ms().await;
        trip(&first).await;
        let after_ms = store_ms().await;
        let open = first.information().await.expect("information");
        assert_eq!(open.state, State::Open);
        assert!((before_ms..=after_ms).contains(&open.since_ms), "{by_minutes:?}: {open:?}");
        assert!((before_ms..=after_ms).contains(&open.era), "{by_minutes:?}: {open:?}");
        assert_eq!(open.expires_at_ms, Some(open.since_ms + 1_000));

        // One that has never heard the store's time: its very first call counts by it.
        let second = jobs(&worker(&prefix, clock(by_minutes[1]), OPEN_FOR).await);
        for breaker in [&second, &first] {
            let state = breaker.information().await.expect("information");
            if store_ms().await < open.since_ms + 1_000 {
                assert_eq!(timeless(state), timeless(open.clone()), "{by_minutes:?}");
            }
        }
        let third = jobs(&worker(&prefix, clock(by_minutes[1]), OPEN_FOR).await);
        for breaker in [&third, &second, &first] {
            match breaker.start().await {
                Err(StartError::Refused(refusal)) => {
                    assert_eq!(refusal.reason(), RefusalReason::Open, "{by_minutes:?}");
                    assert!(refusal.retry_after() <= OPEN_FOR, "{by_minutes:?}: {refusal}");
                }
                other => assert!(store_ms().await >= open.since_ms + 1_000, "{by_minutes:?}: {other:?}"),
            }
        }
        for breaker in [&first, &second] {
            eventually("the open time is over for it", PATIENT, async || {
                (breaker.state().await.expect("a state") == State::HalfOpen).then_some(())
            })
            .await;
            let now_ms = store_ms().await;
            // The worker's clock and the server's are cut to milliseconds.
            assert!(now_ms + 2 >= open.since_ms + 1_000, "{by_minutes:?}: {now_ms}, {open:?}");
        }
        let probe = second.start().await.expect("a probe");
        assert!(probe.is_probe());
        let settled = probe.end(Outcome::Success).await.expect("settled");
        assert_eq!(settled.disposition, Disposition::Accepted);
        let closed = first.information().await.expect("information");
        assert_eq!(closed.state, State::Closed);
        assert!((open.since_ms + 1_000..=store_ms().await).contains(&closed.since_ms), "{closed:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_call_of_a_worker_whose_clock_is_ahead_does_not_end_the_open_time() {
    let _turn = together().await;
    let prefix = own_name();
    trip(&jobs(&worker(&prefix, SystemClock::new(), Duration::from_secs(60)).await)).await;
    let ahead = Wrong { host: SystemClock::new(), by_ms: 10 * MINUTE_MS };
    let late = jobs(&worker(&prefix, ahead, Duration::from_secs(60)).await);
    match late.start().await {
        Err(StartError::Refused(refusal)) => assert_eq!(refusal.reason(), RefusalReason::Open),
        other => panic!("the open time has a minute to go: {other:?}"),
    }
    assert_eq!(late.state().await.expect("a state"), State::Open);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_whose_clock_stands_still_goes_by_the_time_that_answers_tell() {
    let _turn = together().await;
    let prefix = own_name();
    // It stands at 1970; whatever the worker knows of the time it has from the server.
    let stopped = jobs(&worker(&prefix, ManualClock::at_ms(0), Duration::from_millis(200)).await);
    let running = jobs(&worker(&prefix, SystemClock::new(), Duration::from_millis(200)).await);
    let before_ms = store_ms().await;
    trip(&stopped).await;
    let open = running.information().await.expect("information");
    assert!((before_ms..=store_ms().await).contains(&open.since_ms), "{open:?}");
    assert_eq!(open.expires_at_ms, Some(open.since_ms + 200));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_factory_that_shares_its_connection_with_another_hears_the_time_too() {
    let _turn = together().await;
    let store = redis_store(&redis_url(), &own_name()).await;
    let settings = || patient().failure_count_threshold(2).store(store.clone());
    trip(&jobs(&factory(settings()).await)).await;
    // The store has just been told the time, so it does not ask for it again.
    let ahead = Wrong { host: SystemClock::new(), by_ms: 10 * MINUTE_MS };
    let late = jobs(&factory(settings().clock(ahead)).await);
    assert!(late.start().await.is_err(), "the open time has a minute to go");
}
