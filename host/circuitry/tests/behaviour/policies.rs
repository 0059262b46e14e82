//! When a circuit trips, for how long it opens, and how its half-open phase ends.

use std::time::Duration;

use circuitry::{
    Backoff, Breaker, Outcome, Overdue, RefusalReason, SettingsBuilder, State, TransitionReason, TripKind,
    TripRule, Window,
};

use crate::world::{World, breaker, factory, information, refused, run, trip};

const SECOND: Duration = Duration::from_secs(1);

async fn of(settings: SettingsBuilder) -> Breaker {
    breaker(&factory(settings).await)
}

/// Runs outcomes, one after another: `+` is a success, `-` a failure.
async fn runs(breaker: &Breaker, outcomes: &str) {
    for outcome in outcomes.chars() {
        run(breaker, if outcome == '+' { Outcome::Success } else { Outcome::Failure }, 1).await;
    }
}

/// The rule by which the circuit opened, with what was found of how many calls.
async fn tripped_by(breaker: &Breaker) -> Option<(TripKind, u64, u64)> {
    information(breaker).await.last_trip.map(|trip| (trip.kind, trip.observed, trip.calls))
}

#[tokio::test]
async fn a_failure_rate_trips_when_the_window_has_its_minimum_of_calls() {
    let world = World::new();
    let rule = TripRule::FailureRate { per_mille: 500, window: Window::Calls(10), minimum_calls: 6 };
    let breaker = of(world.settings().trip_rules([rule])).await;
    runs(&breaker, "---++").await;
    assert_eq!(
        tripped_by(&breaker).await,
        None,
        "five calls are too few, and three in a row are no rule here"
    );
    runs(&breaker, "-").await;
    assert_eq!(tripped_by(&breaker).await, Some((TripKind::FailureRate, 666, 6)));
}

#[tokio::test]
async fn a_window_of_calls_forgets_what_is_older() {
    let world = World::new();
    let rule = TripRule::FailureCount { failures: 3, window: Window::Calls(4), minimum_calls: 1 };
    let breaker = of(world.settings().trip_rules([rule])).await;
    runs(&breaker, "--++-+-++").await;
    assert_eq!(breaker.state().await.expect("a state"), State::Closed, "never three of four");
    runs(&breaker, "---").await;
    assert_eq!(tripped_by(&breaker).await, Some((TripKind::FailureCount, 3, 4)));
}

#[tokio::test]
async fn a_window_of_time_forgets_what_is_older() {
    let world = World::new();
    let rule = TripRule::FailureCount { failures: 3, window: Window::Time(10 * SECOND), minimum_calls: 1 };
    let breaker = of(world.settings().trip_rules([rule])).await;
    for _ in 0..4 {
        runs(&breaker, "--").await;
        world.clock.advance_ms(11_000);
    }
    assert_eq!(breaker.state().await.expect("a state"), State::Closed);
    runs(&breaker, "--").await;
    world.clock.advance_ms(5_000);
    runs(&breaker, "-").await;
    assert_eq!(tripped_by(&breaker).await, Some((TripKind::FailureCount, 3, 3)));
}

#[tokio::test]
async fn in_a_decaying_window_an_old_failure_weighs_less() {
    let world = World::new();
    let rule =
        TripRule::FailureRate { per_mille: 600, window: Window::Decaying(10 * SECOND), minimum_calls: 2 };
    let breaker = of(world.settings().trip_rules([rule])).await;
    runs(&breaker, "++").await;
    world.clock.advance_ms(20_000);
    runs(&breaker, "-").await;
    assert_eq!(breaker.state().await.expect("a state"), State::Closed, "a weight of 1.5 is too little");
    runs(&breaker, "-").await;
    let (kind, observed, calls) = tripped_by(&breaker).await.expect("a trip");
    assert_eq!((kind, observed, calls), (TripKind::FailureRate, 800, 2), "2 failures of a weight of 2.5");
}

#[tokio::test]
async fn any_of_several_rules_trips() {
    let rules = || {
        [
            TripRule::FailureCount { failures: 3, window: Window::Calls(8), minimum_calls: 1 },
            TripRule::ConsecutiveFailures { minimum_calls: 0 },
        ]
    };
    for (outcomes, by) in [("--", TripKind::ConsecutiveFailures), ("-+-+-", TripKind::FailureCount)] {
        let settings = circuitry::Settings::builder()
            .consistency(circuitry::Consistency::Strict)
            .failure_count_threshold(1)
            .trip_rules(rules());
        let breaker = of(settings).await;
        runs(&breaker, outcomes).await;
        assert_eq!(tripped_by(&breaker).await.map(|trip| trip.0), Some(by), "{outcomes}");
    }
}

#[tokio::test]
async fn a_trip_function_is_one_rule_more_beside_others_and_alone_the_only_one() {
    let ten = |information: &circuitry::TripInformation| information.counts.total_failures >= 4;
    let few = TripRule::FailureCount { failures: 3, window: Window::Calls(4), minimum_calls: 1 };
    let beside = || {
        circuitry::Settings::builder()
            .consistency(circuitry::Consistency::Strict)
            .trip_fn("four", 1, ten)
            .trip_rules([few.clone()])
    };
    let breaker = of(beside()).await;
    runs(&breaker, "---").await;
    assert_eq!(tripped_by(&breaker).await.map(|trip| trip.0), Some(TripKind::FailureCount));
    let breaker = of(beside()).await;
    runs(&breaker, "-++++-++++-++++-").await;
    assert_eq!(tripped_by(&breaker).await.map(|trip| trip.0), Some(TripKind::Custom));
    let alone = circuitry::Settings::builder()
        .consistency(circuitry::Consistency::Strict)
        .failure_count_threshold(0)
        .trip_fn("four", 1, ten);
    let breaker = of(alone).await;
    runs(&breaker, "---").await;
    assert_eq!(breaker.state().await.expect("a state"), State::Closed);
}

#[tokio::test]
async fn open_times_grow_with_each_trip_in_a_row_up_to_the_longest() {
    let world = World::new();
    let backoff = Backoff { factor_per_mille: 2_000, max: 200 * SECOND, healthy_after: 600 * SECOND };
    let breaker = of(world.settings_to_close_after(1).backoff(backoff)).await;
    trip(&breaker).await;
    for seconds in [60, 120, 200, 200] {
        assert_eq!(refused(&breaker).await.retry_after(), seconds * SECOND);
        world.clock.advance_ms(u64::from(seconds) * 1_000);
        run(&breaker, Outcome::Failure, 1).await;
    }
    assert_eq!(information(&breaker).await.trips_in_a_row, 5);
}

#[tokio::test]
async fn a_healthy_time_begins_the_backoff_anew_and_a_shorter_one_does_not() {
    let world = World::new();
    let backoff = Backoff { factor_per_mille: 2_000, max: 600 * SECOND, healthy_after: 300 * SECOND };
    let breaker = of(world.settings_to_close_after(1).backoff(backoff)).await;
    for (healthy_for, seconds) in [(0, 60), (299, 120), (300, 60)] {
        world.clock.advance_ms(healthy_for * 1_000);
        trip(&breaker).await;
        assert_eq!(refused(&breaker).await.retry_after(), seconds * SECOND, "after {healthy_for} s");
        world.clock.advance_ms(u64::from(seconds) * 1_000);
        run(&breaker, Outcome::Success, 1).await;
    }
}

#[tokio::test]
async fn jitter_shortens_open_times_alike_in_every_process_and_unlike_for_every_circuit() {
    let world = World::new();
    let factories = [
        factory(world.settings().jitter_per_mille(500)).await,
        factory(world.settings().jitter_per_mille(500)).await,
    ];
    let mut open_times = std::collections::BTreeSet::new();
    for tenant in 0..8 {
        let context = circuitry::Context::tenant(tenant.to_string());
        let [one, other] = factories.each_ref().map(|factory| factory.breaker_for("jobs", &context));
        trip(&one).await;
        let open_for = refused(&one).await.retry_after();
        assert_eq!(refused(&other).await.retry_after(), open_for);
        assert!(open_for >= 30 * SECOND && open_for <= 60 * SECOND, "{open_for:?}");
        open_times.insert(open_for);
    }
    assert!(open_times.len() > 4, "{open_times:?}");
}

#[tokio::test]
async fn a_dependency_that_asks_to_be_left_alone_is_left_alone_for_so_long_at_most_the_longest() {
    for (asked, opened) in [(30, 60), (100, 100), (3_600, 300)] {
        let world = World::new();
        let breaker = of(world.settings().retry_after_max(300 * SECOND)).await;
        run(&breaker, Outcome::Failure, 2).await;
        run(&breaker, Outcome::FailureRetryAfter(asked * SECOND), 1).await;
        assert_eq!(refused(&breaker).await.retry_after(), opened * SECOND);
    }
}

#[tokio::test]
async fn a_failure_that_does_not_trip_asks_for_nothing() {
    let world = World::new();
    let breaker = of(world.settings()).await;
    run(&breaker, Outcome::FailureRetryAfter(300 * SECOND), 2).await;
    run(&breaker, Outcome::Failure, 1).await;
    let information = information(&breaker).await;
    assert_eq!(information.last_trip.expect("a trip").open_for_ms, 60_000);
}

#[tokio::test]
async fn failures_that_ask_for_different_times_are_not_counted_as_one_run() {
    let world = World::new();
    let breaker = of(world.settings()).await;
    let mut permits = Vec::new();
    for _ in 0..3 {
        permits.push(breaker.start().await.expect("a permit"));
    }
    let asked = [10, 20, 100].map(|seconds| Outcome::FailureRetryAfter(seconds * SECOND));
    let ends: Vec<_> = permits.into_iter().zip(asked).map(|(permit, outcome)| permit.end(outcome)).collect();
    for end in ends {
        end.await.expect("settled");
    }
    assert_eq!(refused(&breaker).await.retry_after(), 100 * SECOND, "the third one tripped");
}

#[tokio::test]
async fn with_more_probes_than_the_threshold_some_may_fail() {
    let world = World::new();
    let breaker = of(world.settings_to_close_after(3).probes(5)).await;
    trip(&breaker).await;
    world.open_time_passes();
    runs(&breaker, "-+-+").await;
    let half_open = information(&breaker).await;
    assert_eq!(
        (half_open.state, half_open.probe_successes, half_open.probe_failures),
        (State::HalfOpen, 2, 2)
    );
    runs(&breaker, "+").await;
    assert_eq!(breaker.state().await.expect("a state"), State::Closed);
    trip(&breaker).await;
    world.open_time_passes();
    runs(&breaker, "+--+-").await;
    let open = information(&breaker).await;
    assert_eq!((open.state, open.last_trip.expect("a trip").kind), (State::Open, TripKind::Probe));
}

#[tokio::test]
async fn no_more_probes_are_out_at_once_than_allowed_in_the_whole_fleet() {
    let world = World::new();
    let settings = || world.settings_to_close_after(4).probes_at_once(2);
    let (one, other) = (of(settings()).await, of(settings()).await);
    trip(&one).await;
    world.open_time_passes();
    let first = one.start().await.expect("a probe");
    let second = other.start().await.expect("a probe");
    assert_eq!(refused(&one).await.reason(), RefusalReason::TooManyRequests);
    first.end(Outcome::Success).await.expect("settled");
    drop(other.start().await.expect("a place is free again"));
    second.end(Outcome::Success).await.expect("settled");
}

#[tokio::test]
async fn a_half_open_phase_that_takes_too_long_ends_as_the_settings_say() {
    for (then, state, reason) in [
        (Overdue::Opens, State::Open, TransitionReason::HalfOpenOverdueOpened),
        (Overdue::Closes, State::Closed, TransitionReason::HalfOpenOverdueClosed),
    ] {
        let world = World::new();
        let breaker = of(world.settings().half_open_limit(20 * SECOND, then)).await;
        trip(&breaker).await;
        world.open_time_passes();
        let probe = breaker.start().await.expect("a probe");
        world.clock.advance_ms(20_000);
        assert_eq!(breaker.state().await.expect("a state"), state);
        assert_eq!(breaker.start().await.is_ok(), state == State::Closed);
        let last = *information(&breaker).await.transitions.last().expect("a transition");
        assert_eq!((last.next, last.reason, last.at_ms), (state, reason, 1_000_000 + 80_000));
        probe.end(Outcome::Success).await.expect("settled");
        assert_eq!(breaker.state().await.expect("a state"), state, "the late probe is stale");
    }
}
