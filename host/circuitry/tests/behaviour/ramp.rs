//! The load comes back in steps.

use std::time::Duration;

use circuitry::{Breaker, Outcome, Ramp, RefusalReason, SettingsBuilder, State};

use crate::world::{World, breaker, factory, information, refused, run, trip};

const STEP: Duration = Duration::from_secs(10);

/// 10 %, then half, then all.
fn settings(world: &World) -> SettingsBuilder {
    world.settings().ramp(Ramp { steps_per_mille: vec![100, 500], step: STEP })
}

/// A circuit that has just recovered, as two processes see it.
async fn recovered(world: &World) -> (Breaker, Breaker) {
    let (one, other) = (breaker(&factory(settings(world)).await), breaker(&factory(settings(world)).await));
    trip(&one).await;
    world.open_time_passes();
    run(&one, Outcome::Success, 2).await;
    assert_eq!(one.state().await.expect("a state"), State::Closed);
    (one, other)
}

/// How many of so many starts are admitted, with other calls between them.
async fn admitted(breaker: &Breaker, starts: usize) -> usize {
    let mut admitted = 0;
    for start in 0..starts {
        if let Ok(permit) = breaker.start().await {
            admitted += 1;
            permit
                .end(if start % 7 == 0 { Outcome::Success } else { Outcome::Ignored })
                .await
                .expect("settled");
        }
        if start % 50 == 0 {
            breaker.information().await.expect("information");
        }
    }
    admitted
}

#[tokio::test]
async fn each_process_admits_the_steps_share_of_a_thousand_starts() {
    let world = World::new();
    let (one, other) = recovered(&world).await;
    for share in [100, 500] {
        assert_eq!(admitted(&one, 1_000).await, share);
        assert_eq!(admitted(&other, 1_000).await, share);
        world.clock.advance_ms(10_000);
    }
    assert_eq!(admitted(&one, 100).await, 100, "and all after the last step");
}

#[tokio::test]
async fn the_share_is_spread_evenly_over_the_starts() {
    let world = World::new();
    let (one, _) = recovered(&world).await;
    for _ in 0..20 {
        assert_eq!(admitted(&one, 10).await, 1);
    }
}

#[tokio::test]
async fn who_is_not_in_the_share_is_told_when_the_next_step_begins() {
    let world = World::new();
    let (one, _) = recovered(&world).await;
    world.clock.advance_ms(4_000);
    let mut refusals = 0;
    for _ in 0..10 {
        if let Err(error) = one.start().await {
            let refusal = crate::world::refusal(error);
            assert_eq!(
                (refusal.reason(), refusal.retry_after()),
                (RefusalReason::Ramp, Duration::from_secs(6))
            );
            refusals += 1;
        }
    }
    assert_eq!(refusals, 9);
}

#[tokio::test]
async fn a_failure_puts_the_ramp_one_step_back() {
    let world = World::new();
    let (one, other) = recovered(&world).await;
    world.clock.advance_ms(10_000);
    assert_eq!(information(&one).await.ramp.expect("a ramp").share_per_mille, 500);
    let mut failures = 0;
    while failures == 0 {
        if let Ok(permit) = one.start().await {
            permit.end(Outcome::Failure).await.expect("settled");
            failures += 1;
        }
    }
    let ramp = information(&other).await.ramp.expect("a ramp");
    assert_eq!((ramp.share_per_mille, ramp.next_step_at_ms), (100, 1_000_000 + 60_000 + 10_000 + 10_000));
    assert_eq!(admitted(&other, 1_000).await, 100);
}

#[tokio::test]
async fn the_state_is_closed_all_the_while_and_a_new_circuit_has_no_ramp() {
    let world = World::new();
    let new = breaker(&factory(settings(&world)).await);
    assert_eq!(admitted(&new, 100).await, 100);
    trip(&new).await;
    world.open_time_passes();
    run(&new, Outcome::Success, 2).await;
    let closed = information(&new).await;
    assert_eq!((closed.state, closed.ramp.expect("a ramp").share_per_mille), (State::Closed, 100));
    world.clock.advance_ms(20_000);
    assert_eq!(information(&new).await.ramp, None);
}

#[tokio::test]
async fn starts_have_consecutive_numbers_whatever_else_is_asked_and_a_refused_one_has_its_own() {
    let world = World::new();
    let breaker = breaker(&factory(world.settings_to_close_after(3).probes_at_once(2)).await);
    trip(&breaker).await;
    world.open_time_passes();
    let first = breaker.start().await.expect("a probe");
    breaker.information().await.expect("information");
    let second = breaker.start().await.expect("a probe");
    let numbers: Vec<_> =
        information(&breaker).await.probes.into_iter().map(|probe| probe.sequence).collect();
    assert_eq!(numbers[1], numbers[0] + 1);
    assert_eq!(refused(&breaker).await.reason(), RefusalReason::TooManyRequests);
    first.end(Outcome::Success).await.expect("settled");
    let third = breaker.start().await.expect("a probe");
    let last = information(&breaker).await.probes.into_iter().map(|probe| probe.sequence).max();
    assert_eq!(last, Some(numbers[0] + 3));
    drop((second, third));
}

#[tokio::test]
async fn a_circuit_that_was_forgotten_and_made_again_repeats_no_number() {
    let world = World::new();
    let factory = factory(world.settings().max_circuits(1)).await;
    let mut numbers: Vec<u64> = Vec::new();
    for round in 0..4_u32 {
        let breaker = breaker(&factory);
        trip(&breaker).await;
        world.open_time_passes();
        let probe = breaker.start().await.expect("a probe");
        let number = information(&breaker).await.probes[0].sequence;
        let apart = |before: &u64| before.abs_diff(number) > 1_000_000;
        assert!(numbers.iter().all(apart), "room for a million starts between {number} and {numbers:?}");
        numbers.push(number);
        probe.end(Outcome::Ignored).await.expect("settled");
        // One that is not closed would not be forgotten.
        breaker.reset().await.expect("stored");
        drop(breaker);
        // The renewal of the lease lets go of the circuit, too.
        tokio::task::yield_now().await;
        for other in 0..20 {
            // There is room for one circuit: these take it.
            let context = circuitry::Context::tenant(format!("{round} {other}"));
            run(&factory.breaker_for("others", &context), Outcome::Success, 1).await;
        }
    }
}
