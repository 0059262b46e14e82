//! The seven defects of the breaker that this one re-creates, each as the rule that it broke, on both servers.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use circuitry::{
    Breaker, Context, Disposition, Error, ExecuteError, Factory, Outcome, Permit, Refusal, RefusalReason,
    Settlement, StartError, State, TransitionReason,
};
use circuitry_tests::fleet::PATIENT;
use tokio::sync::Barrier;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use crate::eventually;
use crate::servers::{Place, patient};

/// Makes a test on each of the servers out of each rule.
macro_rules! on_each_store {
    ($($rule:ident,)+) => {
        mod redis {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $rule() {
                    let _turn = crate::turns::together().await;
                    super::$rule(super::Place::on_redis()).await;
                }
            )+
        }
        mod dynamodb {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $rule() {
                    let _turn = crate::turns::together().await;
                    super::$rule(super::Place::on_dynamodb().await).await;
                }
            )+
        }
    };
}

on_each_store! {
    every_first_execution_succeeds,
    the_record_outlives_the_open_time_and_half_open_is_seen_in_every_trip,
    a_tripped_circuit_is_open_for_every_worker,
    a_refused_start_holds_nothing,
    a_permit_that_is_forgotten_does_not_lock_the_circuit,
    a_probe_that_is_forgotten_does_not_lock_the_circuit,
    half_open_forgets_the_probes_of_before,
    with_the_default_close_threshold_the_first_probe_is_admitted_and_closes,
    nothing_is_held_while_64_callers_work,
    the_default_open_time_is_a_minute,
}

/// Both clocks, the server's and the worker's, are cut to whole milliseconds.
const GRAIN: Duration = Duration::from_millis(2);

fn jobs(factory: &Factory) -> Breaker {
    factory.breaker_for("jobs", &Context::tenant("acme"))
}

async fn permit(breaker: &Breaker) -> Permit {
    breaker.start().await.expect("a permit")
}

async fn refusal(breaker: &Breaker) -> Refusal {
    match breaker.start().await {
        Err(StartError::Refused(refusal)) => refusal,
        other => panic!("not refused: {other:?}"),
    }
}

/// What became of an outcome, and whether that was on the process's own record.
type Fate = (Disposition, bool);

fn fate(settled: Result<Settlement, Error>) -> Fate {
    let settled = settled.expect("settled");
    (settled.disposition, settled.local)
}

async fn end(permit: Permit, outcome: Outcome) -> Fate {
    fate(permit.end(outcome).await)
}

/// Applied to the shared record.
const ACCEPTED: Fate = (Disposition::Accepted, false);

/// Fails until the circuit is open; its threshold is two.
async fn trip(breaker: &Breaker) {
    for _ in 0..3 {
        assert_eq!(end(permit(breaker).await, Outcome::Failure).await, ACCEPTED);
    }
}

/// Asks as a worker does that obeys refusals, until there is a permit.
async fn permit_in_time(breaker: &Breaker) -> Permit {
    let begun = Instant::now();
    loop {
        match breaker.start().await {
            Ok(permit) => return permit,
            Err(StartError::Refused(refusal)) => {
                assert!(begun.elapsed() < PATIENT, "refused for {PATIENT:?}: {refusal}");
                // The time that the server's clock needs; nothing else passes here.
                tokio::time::sleep(refusal.retry_after()).await;
            }
            Err(error) => panic!("{error}"),
        }
    }
}

/// Defect 1: the lock and the data shared a key, and no first execution succeeded.
async fn every_first_execution_succeeds(place: Place) {
    let worker = place.worker(patient()).await;
    let executions = if matches!(place, Place::Redis { .. }) { 1_000 } else { 100 };
    let mut succeeded = 0;
    for index in 0..executions {
        let breaker = worker.breaker_for(&format!("first-{index}"), &Context::new());
        let executed =
            breaker.execute_settled(|| async { Ok::<_, Infallible>(index) }).await.expect("admitted");
        assert_eq!(executed.result, Ok(index));
        assert_eq!(fate(executed.settlement), ACCEPTED);
        succeeded += 1;
    }
    assert_eq!(succeeded, executions);
    let last = worker.breaker_for(&format!("first-{}", executions - 1), &Context::new());
    assert_eq!(last.information().await.expect("information").counts.total_successes, 1);
}

/// Defect 2: the key expired with the open time, or before it; half-open was seen in no trip.
async fn the_record_outlives_the_open_time_and_half_open_is_seen_in_every_trip(place: Place) {
    const OPEN_FOR: Duration = Duration::from_millis(150);
    let settings = || patient().failure_count_threshold(2).allow_after(OPEN_FOR);
    let (worker, other) = (place.worker(settings()).await, place.worker(settings()).await);
    let (worker, other) = (jobs(&worker), jobs(&other));
    for generation in (0..20).step_by(2) {
        let begun = Instant::now();
        trip(&worker).await;
        let open = worker.information().await.expect("information");
        assert_eq!(open.state, State::Open);
        assert_eq!(open.generation, generation + 1);
        assert_eq!(open.expires_at_ms, Some(open.since_ms + 150));

        // Before anybody asks to start, whoever looks sees the open time and then half-open, never closed.
        let seen = eventually("the open time is over", PATIENT, async || {
            let seen = other.information().await.expect("information");
            (seen.state != State::Open).then_some(seen)
        })
        .await;
        assert!(begun.elapsed() + GRAIN >= OPEN_FOR, "open for {:?} only", begun.elapsed());
        assert_eq!((seen.state, seen.era), (State::HalfOpen, open.era), "the record is still there");

        let probe = permit_in_time(&other).await;
        assert!(probe.is_probe());
        let half_open = other.information().await.expect("information");
        let last = half_open.transitions.last().expect("transitions");
        assert_eq!((last.reason, last.next), (TransitionReason::OpenTimeOver, State::HalfOpen));
        assert!(last.at_ms >= open.since_ms + 150, "half-open at {}, open {open:?}", last.at_ms);
        assert_eq!(end(probe, Outcome::Success).await, ACCEPTED);
        assert_eq!(worker.state().await.expect("a state"), State::Closed);
    }
}

/// Defect 3: the state was not written, and a tripped circuit let every call through.
async fn a_tripped_circuit_is_open_for_every_worker(place: Place) {
    let settings = || patient().failure_count_threshold(2);
    let first = jobs(&place.worker(settings()).await);
    let second = jobs(&place.worker(settings()).await);
    drop(permit(&second).await);
    trip(&first).await;
    // One that has been there before, and one that comes now.
    let third = jobs(&place.worker(settings()).await);
    let ran = AtomicUsize::new(0);
    for _ in 0..20 {
        for breaker in [&first, &second, &third] {
            let failing = || async {
                ran.fetch_add(1, Ordering::SeqCst);
                Err::<(), _>("the dependency is down")
            };
            match breaker.execute(failing).await {
                Err(ExecuteError::Refused(refusal)) => assert_eq!(refusal.reason(), RefusalReason::Open),
                other => panic!("not refused: {other:?}"),
            }
        }
    }
    assert_eq!(ran.load(Ordering::SeqCst), 0, "calls that got through");
}

/// Defect 4: a refused start left the lock taken, and locked the other workers out.
async fn a_refused_start_holds_nothing(place: Place) {
    let settings = || patient().failure_count_threshold(2).allow_after(Duration::from_millis(100));
    let (worker, other) = (jobs(&place.worker(settings()).await), jobs(&place.worker(settings()).await));
    trip(&worker).await;
    for _ in 0..10 {
        // The open time may end in between; then the probe is given back and the circuit trips again.
        for breaker in [&worker, &other] {
            match breaker.start().await {
                Err(StartError::Refused(refusal)) => assert_eq!(refusal.reason(), RefusalReason::Open),
                Ok(probe) => drop(end(probe, Outcome::Failure).await),
                Err(error) => panic!("{error}"),
            }
        }
    }
    let probe = permit_in_time(&worker).await;
    for _ in 0..10 {
        assert_eq!(refusal(&other).await.reason(), RefusalReason::TooManyRequests);
        assert_eq!(refusal(&worker).await.reason(), RefusalReason::TooManyRequests);
    }
    // Whoever was refused has left nothing behind: the probe's end is accepted, and both go on.
    assert_eq!(end(probe, Outcome::Success).await, ACCEPTED);
    for breaker in [&other, &worker] {
        assert_eq!(end(permit(breaker).await, Outcome::Success).await, ACCEPTED);
    }
}

/// Defect 4: a worker that died between start and end locked the circuit.
async fn a_permit_that_is_forgotten_does_not_lock_the_circuit(place: Place) {
    let (worker, other) = (jobs(&place.worker(patient()).await), jobs(&place.worker(patient()).await));
    for _ in 0..10 {
        std::mem::forget(permit(&worker).await);
        for breaker in [&worker, &other] {
            assert_eq!(end(permit(breaker).await, Outcome::Success).await, ACCEPTED);
        }
    }
    let counts = other.information().await.expect("information").counts;
    assert_eq!((counts.total, counts.total_successes), (20, 20));
}

/// Defect 4, of a probe in a process that lives on.
async fn a_probe_that_is_forgotten_does_not_lock_the_circuit(place: Place) {
    let settings = || {
        let settings = patient().failure_count_threshold(2).allow_after(Duration::from_millis(50));
        settings.probe_timeout(Duration::from_millis(100))
    };
    let (worker, other) = (jobs(&place.worker(settings()).await), jobs(&place.worker(settings()).await));
    trip(&worker).await;
    let forgotten = permit_in_time(&worker).await;
    assert!(forgotten.is_probe());
    std::mem::forget(forgotten);
    let probe = permit_in_time(&other).await;
    assert!(probe.is_probe());
    assert_eq!(end(probe, Outcome::Success).await, ACCEPTED);
    assert_eq!(other.state().await.expect("a state"), State::Closed);
}

/// Defect 5: half-open remembered old probes, and after a failed one refused for ever.
async fn half_open_forgets_the_probes_of_before(place: Place) {
    let settings = || {
        let settings = patient().failure_count_threshold(2).close_threshold(2);
        settings.allow_after(Duration::from_millis(20))
    };
    let (worker, other) = (jobs(&place.worker(settings()).await), jobs(&place.worker(settings()).await));
    trip(&worker).await;
    for _ in 0..20 {
        // One succeeds and one fails, so there is something of either kind to remember.
        let (first, second) = (permit_in_time(&worker).await, permit_in_time(&other).await);
        assert!(first.is_probe() && second.is_probe());
        assert_eq!(first.era(), second.era());
        assert_eq!(end(first, Outcome::Success).await, ACCEPTED);
        assert_eq!(end(second, Outcome::Failure).await, ACCEPTED);
    }
    for breaker in [&worker, &other] {
        assert_eq!(end(permit_in_time(breaker).await, Outcome::Success).await, ACCEPTED);
    }
    assert_eq!(worker.state().await.expect("a state"), State::Closed);
}

/// Defect 5: with the close threshold unset the first probe was refused.
async fn with_the_default_close_threshold_the_first_probe_is_admitted_and_closes(place: Place) {
    let settings = patient().failure_count_threshold(2).allow_after(Duration::from_millis(20));
    let worker = jobs(&place.worker(settings).await);
    trip(&worker).await;
    eventually("the open time is over", PATIENT, async || {
        (worker.state().await.expect("a state") == State::HalfOpen).then_some(())
    })
    .await;
    let probe = permit(&worker).await;
    assert!(probe.is_probe());
    assert_eq!(end(probe, Outcome::Success).await, ACCEPTED);
    assert_eq!(worker.state().await.expect("a state"), State::Closed);
}

/// Defect 6: the lock was held during the work, and 64 callers were refused for it.
async fn nothing_is_held_while_64_callers_work(place: Place) {
    let workers = [jobs(&place.worker(patient()).await), jobs(&place.worker(patient()).await)];
    let all_at_work = Arc::new(Barrier::new(64));
    let mut callers = JoinSet::new();
    for index in 0..64 {
        let (breaker, all_at_work) = (workers[index % 2].clone(), all_at_work.clone());
        callers.spawn(async move {
            // Nobody's work ends before all 64 are at work.
            let work = || async { timeout(PATIENT, all_at_work.wait()).await.map(drop) };
            breaker.execute_settled(work).await
        });
    }
    while let Some(executed) = callers.join_next().await {
        let executed = executed.expect("no panic").expect("nobody is refused");
        executed.result.expect("all 64 are at work at once");
        assert_eq!(fate(executed.settlement), ACCEPTED);
    }
    let counts = workers[0].information().await.expect("information").counts;
    assert_eq!((counts.total, counts.total_successes), (64, 64));
}

/// Defect 7: the default open time was zero.
async fn the_default_open_time_is_a_minute(place: Place) {
    let worker = jobs(&place.worker(patient().failure_count_threshold(2)).await);
    trip(&worker).await;
    let open = worker.information().await.expect("information");
    assert_eq!(open.expires_at_ms.map(|at_ms| at_ms - open.since_ms), Some(60_000));
    let retry_after = refusal(&worker).await.retry_after();
    let left = Duration::from_secs(60).checked_sub(retry_after).expect("no longer than the open time");
    assert!(left < PATIENT, "back in {retry_after:?}");
}
