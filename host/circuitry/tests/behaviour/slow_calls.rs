//! Slow calls: by the host's clock, from the start to the end.

use std::time::Duration;

use circuitry::{Breaker, Disposition, Outcome, SettingsBuilder, State, TripKind, TripRule, Window};

use crate::world::{World, breaker, factory, information, run, trip};

/// Half of four calls are slow, with more than 100 ms.
fn settings(world: &World) -> SettingsBuilder {
    let rule = TripRule::SlowCallRate { per_mille: 500, window: Window::Calls(4), minimum_calls: 4 };
    let failures = TripRule::ConsecutiveFailures { minimum_calls: 0 };
    world.settings().trip_rules([rule, failures]).slow_call_after(Duration::from_millis(100))
}

async fn works_for(world: &World, breaker: &Breaker, ms: u64, outcome: Outcome) -> Disposition {
    let permit = breaker.start().await.expect("a permit");
    world.clock.advance_ms(ms);
    permit.end(outcome).await.expect("settled").disposition
}

#[tokio::test]
async fn slow_calls_trip_also_where_they_succeed() {
    let world = World::new();
    let breaker = breaker(&factory(settings(&world)).await);
    for ms in [101, 5, 100] {
        works_for(&world, &breaker, ms, Outcome::Success).await;
    }
    assert_eq!(breaker.state().await.expect("a state"), State::Closed, "100 ms are not longer than 100 ms");
    works_for(&world, &breaker, 101, Outcome::Success).await;
    let trip = information(&breaker).await.last_trip.expect("a trip");
    assert_eq!((trip.kind, trip.observed, trip.calls), (TripKind::SlowCallRate, 500, 4));
}

#[tokio::test]
async fn a_slow_probe_has_failed() {
    let world = World::new();
    let breaker = breaker(&factory(settings(&world)).await);
    trip(&breaker).await;
    world.open_time_passes();
    works_for(&world, &breaker, 101, Outcome::Success).await;
    let open = information(&breaker).await;
    assert_eq!((open.state, open.last_trip.expect("a trip").kind), (State::Open, TripKind::Probe));
    world.open_time_passes();
    run(&breaker, Outcome::Success, 2).await;
    assert_eq!(breaker.state().await.expect("a state"), State::Closed, "quick ones close");
}

#[tokio::test]
async fn without_a_rule_on_them_slow_calls_count_like_others() {
    let world = World::new();
    let breaker = breaker(&factory(world.settings().slow_call_after(Duration::from_millis(1))).await);
    trip(&breaker).await;
    world.open_time_passes();
    for _ in 0..2 {
        works_for(&world, &breaker, 1_000, Outcome::Success).await;
    }
    assert_eq!(breaker.state().await.expect("a state"), State::Closed);
}

#[tokio::test(start_paused = true)]
async fn the_default_clock_measures_calls_too() {
    let rule = TripRule::SlowCallRate { per_mille: 1_000, window: Window::Calls(2), minimum_calls: 2 };
    let settings = circuitry::Settings::builder()
        .consistency(circuitry::Consistency::Strict)
        .trip_rules([rule])
        .slow_call_after(Duration::from_secs(1));
    let breaker = breaker(&factory(settings).await);
    for _ in 0..2 {
        let work = || async {
            tokio::time::sleep(Duration::from_secs(2)).await;
            Ok::<_, std::io::Error>(())
        };
        breaker.execute(work).await.expect("it worked");
    }
    assert_eq!(breaker.state().await.expect("a state"), State::Open);
}

#[tokio::test]
async fn slow_and_quick_calls_that_end_together_are_not_counted_as_one_run() {
    let world = World::new();
    let breaker = breaker(&factory(settings(&world)).await);
    let slow = [breaker.start().await.expect("a permit"), breaker.start().await.expect("a permit")];
    world.clock.advance_ms(101);
    let quick = [breaker.start().await.expect("a permit"), breaker.start().await.expect("a permit")];
    let ends: Vec<_> = quick.into_iter().chain(slow).map(|permit| permit.end(Outcome::Success)).collect();
    for end in ends {
        assert_eq!(end.await.expect("settled").disposition, Disposition::Accepted);
    }
    let trip = information(&breaker).await.last_trip.expect("a trip");
    assert_eq!((trip.kind, trip.observed), (TripKind::SlowCallRate, 500));
}
