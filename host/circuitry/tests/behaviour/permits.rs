//! Permits: settled once, never leaked, never a failure by mistake.

use std::time::Duration;

use circuitry::{Disposition, ExecuteError, MemoryStore, Outcome, RefusalReason, State};

use circuitry_store::fault::Fault;

use crate::world::{World, breaker, factory, refusal, run, trip, until};

#[derive(Debug, PartialEq)]
struct Unreachable(u16);

#[tokio::test]
async fn the_users_error_comes_back_as_it_was() {
    let world = World::new();
    let breaker = breaker(&world.factory().await);
    let failed = breaker.execute(|| async { Err::<(), _>(Unreachable(7)) }).await;
    let Err(ExecuteError::Work(error)) = failed else { panic!("not the work's error") };
    assert_eq!(error, Unreachable(7));
}

#[tokio::test]
async fn a_finished_result_is_not_lost_when_the_store_fails_afterwards() {
    let world = World::new();
    let breaker = breaker(&world.factory().await);
    let store = world.store.clone();
    let result = breaker
        .execute(|| async move {
            store.go_down();
            Ok::<_, Unreachable>("sent")
        })
        .await;
    assert_eq!(result.expect("the work's result"), "sent");
}

#[tokio::test]
async fn a_refusal_says_how_long_to_wait_and_the_work_does_not_run() {
    let world = World::new();
    let breaker = breaker(&world.factory().await);
    trip(&breaker).await;
    world.clock.advance_ms(20_000);
    let mut ran = false;
    let refused = breaker
        .execute(|| {
            ran = true;
            async { Ok::<_, Unreachable>(()) }
        })
        .await
        .expect_err("open");
    let refusal = refused.refusal().expect("a refusal");
    assert_eq!((refusal.reason(), refusal.retry_after()), (RefusalReason::Open, Duration::from_secs(40)));
    assert!(!ran);
}

#[tokio::test]
async fn half_open_admits_no_more_probes_than_the_close_threshold() {
    let world = World::new();
    let (one, other) = (breaker(&world.factory().await), breaker(&world.factory().await));
    trip(&one).await;
    world.open_time_passes();
    let first = one.start().await.expect("the first probe");
    let second = other.start().await.expect("the second probe");
    assert!(first.is_probe() && second.is_probe());
    for breaker in [&one, &other] {
        let refusal = refusal(breaker.start().await.expect_err("all probes are out"));
        assert_eq!(refusal.reason(), RefusalReason::TooManyRequests);
        assert!(refusal.retry_after() >= Duration::from_millis(100));
    }
    first.end(Outcome::Success).await.expect("settled");
    second.end(Outcome::Success).await.expect("settled");
    assert_eq!(one.state().await.expect("a state"), State::Closed);
}

#[tokio::test]
async fn a_probe_dropped_by_an_early_return_frees_its_place_and_counts_nothing() {
    let world = World::new();
    let breaker = breaker(&world.factory().await);
    trip(&breaker).await;
    world.open_time_passes();
    drop(breaker.start().await.expect("a probe"));
    until("the place is free", || async {
        breaker.information().await.expect("information").probes.is_empty()
    })
    .await;
    let information = breaker.information().await.expect("information");
    assert_eq!((information.state, information.probe_successes), (State::HalfOpen, 0));
    run(&breaker, Outcome::Success, 2).await;
    assert_eq!(breaker.state().await.expect("a state"), State::Closed);
}

#[tokio::test]
async fn a_cancelled_probe_neither_closes_nor_opens_the_circuit() {
    let world = World::new();
    let breaker = breaker(&world.factory().await);
    trip(&breaker).await;
    world.open_time_passes();
    let work = breaker.execute(|| async {
        std::future::pending::<()>().await;
        Ok::<_, Unreachable>(())
    });
    assert!(tokio::time::timeout(Duration::from_millis(50), work).await.is_err(), "the work never ends");
    until("the place is free", || async {
        breaker.information().await.expect("information").probes.is_empty()
    })
    .await;
    assert_eq!(breaker.state().await.expect("a state"), State::HalfOpen);
}

#[tokio::test]
async fn a_probe_whose_work_panics_frees_its_place() {
    let world = World::new();
    let breaker = breaker(&world.factory().await);
    trip(&breaker).await;
    world.open_time_passes();
    let panicking = breaker.clone();
    let work = tokio::spawn(async move {
        panicking
            .execute(|| async {
                assert!(std::hint::black_box(false), "the work panics");
                Ok::<_, Unreachable>(())
            })
            .await
    });
    assert!(work.await.expect_err("a panic").is_panic());
    until("the place is free", || async {
        breaker.information().await.expect("information").probes.is_empty()
    })
    .await;
}

#[tokio::test]
async fn a_permit_dropped_outside_of_the_runtime_frees_its_place_too() {
    let world = World::new();
    let breaker = breaker(&world.factory().await);
    trip(&breaker).await;
    world.open_time_passes();
    let permit = breaker.start().await.expect("a probe");
    std::thread::spawn(move || drop(permit)).join().expect("no panic");
    until("the place is free", || async {
        breaker.information().await.expect("information").probes.is_empty()
    })
    .await;
}

#[tokio::test]
async fn a_cancel_is_never_a_failure() {
    let world = World::new();
    let breaker = breaker(&world.factory().await);
    for _ in 0..10 {
        drop(breaker.start().await.expect("a permit"));
    }
    run(&breaker, Outcome::Ignored, 10).await;
    let information = breaker.information().await.expect("information");
    assert_eq!((information.state, information.counts.total), (State::Closed, 0));
}

#[tokio::test(start_paused = true)]
async fn a_cancel_of_execute_is_neutral() {
    let world = World::new();
    let breaker = breaker(&world.factory().await);
    for _ in 0..10 {
        let work = breaker.execute(std::future::pending::<Result<(), Unreachable>>);
        assert!(tokio::time::timeout(Duration::from_secs(1), work).await.is_err(), "cancelled from outside");
    }
    let information = breaker.information().await.expect("information");
    assert_eq!((information.state, information.counts.total), (State::Closed, 0));
}

#[tokio::test(start_paused = true)]
async fn a_timeout_inside_the_work_is_a_failure() {
    let world = World::new();
    let breaker = breaker(&world.factory().await);
    let work = || tokio::time::timeout(Duration::from_secs(1), std::future::pending::<()>());
    for _ in 0..3 {
        assert!(matches!(breaker.execute(work).await, Err(ExecuteError::Work(_))));
    }
    assert_eq!(breaker.state().await.expect("a state"), State::Open);
}

#[tokio::test]
async fn the_caller_is_told_whether_the_outcome_was_accepted_or_stale() {
    let world = World::new();
    let breaker = breaker(&world.factory().await);
    let late = breaker.start().await.expect("a permit");
    let in_time = breaker.start().await.expect("a permit");
    let settled = in_time.end(Outcome::Success).await.expect("settled");
    assert_eq!(settled.disposition, Disposition::Accepted);
    trip(&breaker).await;
    let settled = late.end(Outcome::Failure).await.expect("settled");
    assert_eq!((settled.disposition, settled.local), (Disposition::Stale, false));
}

#[tokio::test]
async fn a_late_success_does_not_close_and_a_late_failure_does_not_extend() {
    let world = World::new();
    let breaker = breaker(&world.factory().await);
    let (late_success, late_failure) =
        (breaker.start().await.expect("a permit"), breaker.start().await.expect("a permit"));
    trip(&breaker).await;
    let opened = breaker.information().await.expect("information");
    world.clock.advance_ms(30_000);
    late_failure.end(Outcome::Failure).await.expect("settled");
    assert_eq!(breaker.information().await.expect("information").expires_at_ms, opened.expires_at_ms);
    world.clock.advance_ms(30_000);
    let probe = breaker.start().await.expect("a probe");
    late_success.end(Outcome::Success).await.expect("settled");
    assert_eq!(breaker.information().await.expect("information").probe_successes, 0);
    drop(probe);
}

#[tokio::test(start_paused = true)]
async fn a_lease_is_renewed_while_the_work_runs() {
    let world = World::new();
    // The circuit's clock is tokio's here, so that leases and renewals live in the same time.
    let store = MemoryStore::new();
    let settings = || {
        circuitry::Settings::builder()
            .consistency(circuitry::Consistency::Strict)
            .store(store.clone())
            .failure_count_threshold(0)
            .allow_after(Duration::from_secs(1))
            .probe_timeout(Duration::from_secs(3))
    };
    let (slow, other) = (breaker(&factory(settings()).await), breaker(&factory(settings()).await));
    run(&slow, Outcome::Failure, 1).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let permit = slow.start().await.expect("the probe");
    for _ in 0..20 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let refused = other.start().await.expect_err("the slow probe holds the only place");
        assert_eq!(refusal(refused).reason(), RefusalReason::TooManyRequests);
    }
    let settled = permit.end(Outcome::Success).await.expect("settled");
    assert_eq!(settled.disposition, Disposition::Accepted);
    assert_eq!(other.state().await.expect("a state"), State::Closed);
    drop(world);
}

#[tokio::test]
async fn a_worker_that_died_blocks_recovery_no_longer_than_its_lease() {
    let world = World::new();
    let (dying, other) = (breaker(&world.factory().await), breaker(&world.factory().await));
    trip(&other).await;
    world.open_time_passes();
    for _ in 0..2 {
        // A killed process settles nothing and renews nothing; the movable clock keeps the renewals from running.
        std::mem::forget(dying.start().await.expect("a probe"));
    }
    other.start().await.expect_err("both places are held");
    world.clock.advance_ms(30_000);
    run(&other, Outcome::Success, 2).await;
    assert_eq!(other.state().await.expect("a state"), State::Closed);
}

#[tokio::test]
async fn reading_the_state_never_changes_it_nor_writes() {
    let world = World::new();
    let breaker = breaker(&world.factory().await);
    trip(&breaker).await;
    world.open_time_passes();
    let swaps = world.store.swaps();
    for _ in 0..5 {
        assert_eq!(breaker.state().await.expect("a state"), State::HalfOpen);
    }
    assert_eq!(world.store.swaps(), swaps);
    assert_eq!(world.changes().len(), 1, "only the trip was a transition");
}

#[tokio::test]
async fn a_start_that_nobody_waits_for_any_more_is_announced_and_gives_its_place_back() {
    let world = World::new();
    let breaker = breaker(&world.factory().await);
    trip(&breaker).await;
    world.open_time_passes();
    world.store.on_next_swap(Fault::HangAnswer);
    let starting = tokio::spawn({
        let breaker = breaker.clone();
        async move { breaker.start().await.map(drop) }
    });
    world.store.until_hanging(1).await;
    starting.abort();
    assert!(starting.await.expect_err("cancelled").is_cancelled());
    world.store.release();
    until("the place is given back", || async {
        let information = breaker.information().await.expect("information");
        information.state == State::HalfOpen && information.probes.is_empty()
    })
    .await;
    let changes: Vec<_> = world.changes().into_iter().map(|change| change.2).collect();
    assert_eq!(changes, [State::Open, State::HalfOpen]);
}

#[tokio::test]
async fn an_end_that_nobody_waits_for_counts_all_the_same() {
    let world = World::new();
    let breaker = breaker(&world.factory().await);
    for _ in 0..2 {
        // Handed over with the call, so it counts although it is never polled.
        drop(breaker.start().await.expect("a permit").end(Outcome::Success));
    }
    until("both are counted", || async {
        breaker.information().await.expect("information").counts.total_successes == 2
    })
    .await;
}
