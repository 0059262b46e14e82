//! What a person says stands above everything else.

use circuitry::{Disposition, Outcome, OverrideKind, RefusalReason, StartError, State, TransitionReason};
use circuitry_store::fault::Fault;

use crate::world::{World, breaker, factory, forced, information, refused, run, trip, until};

#[tokio::test]
async fn metrics_only_admits_whom_it_would_refuse_and_says_so() {
    let world = World::new();
    let breaker = breaker(&world.factory().await);
    breaker.set_override(Some(forced(OverrideKind::MetricsOnly))).await.expect("stored");
    trip(&breaker).await;
    let permit = breaker.start().await.expect("nobody is refused");
    let refusal = permit.would_have_refused().copied().expect("it would have been refused");
    assert_eq!((refusal.reason(), refusal.retry_after().as_secs()), (RefusalReason::Open, 60));
    let (swaps, loads) = (world.store.swaps(), world.store.loads());
    let settled = permit.end(Outcome::Failure).await.expect("settled");
    assert_eq!((settled.disposition, settled.local), (Disposition::Uncounted, false));
    assert_eq!((world.store.swaps(), world.store.loads()), (swaps, loads), "nobody is asked");
}

#[tokio::test]
async fn under_metrics_only_everything_goes_on_as_ever_probes_included() {
    let world = World::new();
    let breaker = breaker(&world.factory().await);
    breaker.set_override(Some(forced(OverrideKind::MetricsOnly))).await.expect("stored");
    trip(&breaker).await;
    world.open_time_passes();
    let probes = [breaker.start().await.expect("a probe"), breaker.start().await.expect("a probe")];
    assert!(probes.iter().all(|probe| probe.is_probe() && probe.would_have_refused().is_none()));
    let third = breaker.start().await.expect("nobody is refused");
    assert_eq!(
        third.would_have_refused().map(circuitry::Refusal::reason),
        Some(RefusalReason::TooManyRequests)
    );
    for probe in probes {
        probe.end(Outcome::Success).await.expect("settled");
    }
    third.end(Outcome::Failure).await.expect("settled");
    let closed = information(&breaker).await;
    assert_eq!((closed.state, closed.counts.total), (State::Closed, 0));
}

#[tokio::test]
async fn disabled_admits_all_and_counts_nothing() {
    let world = World::new();
    let breaker = breaker(&world.factory().await);
    let before = breaker.start().await.expect("a permit");
    trip(&breaker).await;
    breaker.set_override(Some(forced(OverrideKind::Disabled))).await.expect("stored");
    let opened = information(&breaker).await;
    let swaps = world.store.swaps();
    for _ in 0..10 {
        let permit = breaker.start().await.expect("admitted");
        assert!(permit.would_have_refused().is_none() && !permit.is_probe());
        let settled = permit.end(Outcome::Failure).await.expect("settled");
        assert_eq!((settled.disposition, settled.local), (Disposition::Uncounted, false));
    }
    drop(before);
    assert_eq!(world.store.swaps(), swaps);
    breaker.set_override(None).await.expect("stored");
    let after = information(&breaker).await;
    assert_eq!(
        (after.state, after.counts, after.expires_at_ms),
        (State::Open, opened.counts, opened.expires_at_ms)
    );
}

#[tokio::test]
async fn under_forced_closed_nothing_trips_and_under_forced_open_nobody_starts() {
    let world = World::new();
    let breaker = breaker(&world.factory().await);
    breaker.set_override(Some(forced(OverrideKind::ForcedClosed))).await.expect("stored");
    run(&breaker, Outcome::Failure, 20).await;
    let closed = information(&breaker).await;
    assert_eq!((closed.state, closed.counts.total_failures), (State::Closed, 20));
    let previous = breaker.set_override(Some(forced(OverrideKind::ForcedOpen))).await.expect("stored");
    assert_eq!(previous.expect("the one before").kind, OverrideKind::ForcedClosed);
    assert_eq!(refused(&breaker).await.reason(), RefusalReason::ForcedOpen);
    assert!(world.changes().is_empty(), "an override is no change of the state");
}

#[tokio::test]
async fn an_override_ends_at_its_time() {
    let world = World::new();
    let breaker = breaker(&world.factory().await);
    let until_ms = Some(1_000_000 + 5_000);
    let set = circuitry::Override { until_ms, ..forced(OverrideKind::ForcedOpen) };
    breaker.set_override(Some(set)).await.expect("stored");
    assert_eq!(refused(&breaker).await.retry_after().as_secs(), 5);
    world.clock.advance_ms(5_000);
    run(&breaker, Outcome::Success, 1).await;
    assert_eq!(information(&breaker).await.override_in_force, None);
}

#[tokio::test]
async fn a_reset_closes_the_circuit_for_the_fleet_as_if_it_were_new() {
    let world = World::new();
    let (one, other) = (breaker(&world.factory().await), breaker(&world.factory().await));
    let late = one.start().await.expect("a permit");
    trip(&one).await;
    other.set_override(Some(forced(OverrideKind::ForcedOpen))).await.expect("stored");
    let previous = other.reset().await.expect("stored");
    assert_eq!(previous, Some(forced(OverrideKind::ForcedOpen)));
    assert_eq!(world.changes().last().map(|change| (change.1, change.2)), Some((State::Open, State::Closed)));
    let reset = information(&one).await;
    assert_eq!((reset.state, reset.counts.total, reset.trips_in_a_row), (State::Closed, 0, 0));
    assert_eq!((reset.override_in_force, reset.last_trip), (None, None));
    assert_eq!(reset.transitions.last().map(|last| last.reason), Some(TransitionReason::Reset));
    let settled = late.end(Outcome::Failure).await.expect("settled");
    assert_eq!(settled.disposition, Disposition::Stale);
    drop(one.start().await.expect("closed"));
}

#[tokio::test]
async fn a_reset_of_a_closed_circuit_is_a_transition_too_and_told_once_though_its_answer_is_lost() {
    let world = World::new();
    let breaker = breaker(&world.factory().await);
    run(&breaker, Outcome::Failure, 2).await;
    world.store.on_next_swap(Fault::LostAnswer);
    breaker.reset().await.expect("stored");
    run(&breaker, Outcome::Failure, 2).await;
    let information = information(&breaker).await;
    assert_eq!((information.state, information.counts.total_failures), (State::Closed, 2));
    assert_eq!(world.shared_changes(), [State::Closed]);
}

#[tokio::test(start_paused = true)]
async fn a_reset_that_cannot_be_stored_is_an_error_and_is_done_nowhere() {
    let world = World::new();
    let factory = world.factory().await;
    let breaker = breaker(&factory);
    trip(&breaker).await;
    world.store.go_down();
    let error = breaker.reset().await.expect_err("not stored");
    assert!(error.to_string().contains("unavailable"), "{error}");
    assert!(matches!(breaker.start().await, Err(StartError::Refused(_))), "it is open here too");
    world.store.come_up();
    until("the outage is over", || async { !factory.is_store_down() }).await;
    assert_eq!(breaker.state().await.expect("a state"), State::Open);
}

#[tokio::test(start_paused = true)]
async fn metrics_only_goes_on_in_an_outage() {
    let world = World::new();
    let factory = factory(world.settings()).await;
    let breaker = breaker(&factory);
    breaker.set_override(Some(forced(OverrideKind::MetricsOnly))).await.expect("stored");
    trip(&breaker).await;
    world.store.go_down();
    let permit = breaker.start().await.expect("nobody is refused");
    assert!(factory.is_store_down());
    assert!(permit.would_have_refused().is_some());
}
