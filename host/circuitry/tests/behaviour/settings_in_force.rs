//! Processes with different settings: those in force are in the record, and everybody decides by them.

use std::time::Duration;

use circuitry::{Breaker, Outcome, SettingsBuilder, State, TripKind, TripRule, Window};

use crate::log::Log;
use crate::world::{World, breaker, factory, information, refused, run, trip};

const TOLD: &str = "another process's settings are in force";

async fn of(settings: SettingsBuilder) -> Breaker {
    breaker(&factory(settings).await)
}

/// As `World::settings`, but opens for so many seconds, and with a revision.
fn opening_for(world: &World, seconds: u64, revision: u64) -> SettingsBuilder {
    circuitry::Settings::builder()
        .consistency(circuitry::Consistency::Strict)
        .store(world.store.clone())
        .clock(world.clock.clone())
        .failure_count_threshold(2)
        .close_threshold(1)
        .allow_after(Duration::from_secs(seconds))
        .settings_revision(revision)
}

async fn in_force(breaker: &Breaker) -> (u64, bool) {
    let information = information(breaker).await;
    (information.settings_in_force.allow_after.as_secs(), information.settings_differ)
}

#[tokio::test]
async fn everybody_decides_by_the_settings_of_who_made_the_record() {
    let world = World::new();
    let (one, other) = (of(opening_for(&world, 60, 0)).await, of(world.settings().probes(7)).await);
    run(&one, Outcome::Success, 1).await;
    assert_eq!(in_force(&one).await, (60, false));
    assert_eq!(in_force(&other).await, (60, true));
    assert_eq!(information(&other).await.settings_in_force.close_threshold, 1);
}

#[tokio::test]
async fn a_transition_brings_the_settings_of_who_makes_it() {
    let world = World::new();
    let (old, new) = (of(opening_for(&world, 60, 0)).await, of(opening_for(&world, 30, 0)).await);
    run(&old, Outcome::Success, 1).await;
    run(&new, Outcome::Failure, 2).await;
    assert_eq!(in_force(&new).await, (60, true), "a count is no transition");
    run(&new, Outcome::Failure, 1).await;
    assert_eq!(in_force(&old).await, (30, true));
    assert_eq!(refused(&old).await.retry_after(), Duration::from_secs(30));
}

#[tokio::test]
async fn a_lower_revision_does_not_bring_its_settings_back() {
    let world = World::new();
    let (old, new) = (of(opening_for(&world, 60, 1)).await, of(opening_for(&world, 30, 2)).await);
    run(&new, Outcome::Success, 1).await;
    trip(&old).await;
    assert_eq!(in_force(&old).await, (30, true));
    old.reset().await.expect("stored");
    assert_eq!(in_force(&new).await, (30, false), "nor does a reset");
    let newer = of(opening_for(&world, 10, 3)).await;
    newer.reset().await.expect("stored");
    assert_eq!(in_force(&new).await, (10, true));
}

#[tokio::test]
async fn settings_that_differ_are_told_once_a_circuit_and_once_for_each() {
    let (log, _guard) = Log::watch();
    let world = World::new();
    let (one, other) = (of(opening_for(&world, 60, 0)).await, of(opening_for(&world, 30, 5)).await);
    run(&one, Outcome::Success, 3).await;
    assert_eq!(log.count(TOLD), 0);
    run(&other, Outcome::Success, 20).await;
    assert_eq!(log.count(TOLD), 1);
    let fields = log.fields(TOLD);
    for told in ["jobs/acme", "\"allow_after\"", "\"settings_revision\"", "own_revision=5"] {
        assert!(fields.contains(told), "{fields}");
    }
    assert!(!fields.contains("close_threshold"), "{fields}");
    other.reset().await.expect("stored");
    run(&other, Outcome::Success, 20).await;
    assert_eq!(log.count(TOLD), 1, "its own are in force");
    run(&one, Outcome::Success, 20).await;
    assert_eq!(log.count(TOLD), 2, "another process, another story");
    let third = of(opening_for(&world, 10, 6)).await;
    third.reset().await.expect("stored");
    run(&one, Outcome::Success, 20).await;
    assert_eq!(log.count(TOLD), 3, "and other settings");
}

#[tokio::test]
async fn settings_come_back_from_the_record_as_they_were_given() {
    let world = World::new();
    let second = Duration::from_secs(1);
    let rules = vec![
        TripRule::ConsecutiveFailures { minimum_calls: 3 },
        TripRule::FailureCount { failures: 7, window: Window::Time(30 * second), minimum_calls: 9 },
        TripRule::SlowCallRate { per_mille: 400, window: Window::Decaying(20 * second), minimum_calls: 2 },
    ];
    let backoff =
        circuitry::Backoff { factor_per_mille: 1_500, max: 90 * second, healthy_after: 600 * second };
    let ramp = circuitry::Ramp { steps_per_mille: vec![50, 250], step: 15 * second };
    let quorum = circuitry::Quorum { votes: 3, window: 120 * second };
    let given = world
        .settings()
        .trip_rules(rules.clone())
        .trip_fn("mine", 4, |_| false)
        .slow_call_after(Duration::from_micros(1_500))
        .backoff(backoff)
        .jitter_per_mille(125)
        .retry_after_max(33 * second)
        .probes(6)
        .probes_at_once(4)
        .half_open_limit(45 * second, circuitry::Overdue::Closes)
        .ramp(ramp.clone())
        .quorum(quorum)
        .node_id("a")
        .cyclic_clear_after(50 * second)
        .settings_revision(8);
    run(&of(given).await, Outcome::Success, 1).await;
    let read = information(&of(world.settings()).await).await.settings_in_force;
    let custom = TripRule::Custom { name: "mine".into(), version: 4 };
    assert_eq!(read.trip_rules, [rules, vec![custom]].concat());
    assert_eq!(read.slow_call_after, Some(Duration::from_millis(2)), "rounded up");
    assert_eq!((read.backoff, read.jitter_per_mille), (Some(backoff), 125));
    assert_eq!((read.retry_after_max, read.probes, read.probes_at_once), (33 * second, Some(6), Some(4)));
    let limit = circuitry::HalfOpenLimit { after: 45 * second, then: circuitry::Overdue::Closes };
    assert_eq!((read.half_open_limit, read.ramp), (Some(limit), Some(ramp)));
    assert_eq!((read.quorum, read.settings_revision), (Some(quorum), 8));
    assert_eq!((read.failure_count_threshold, read.close_threshold), (2, 2));
    assert_eq!((read.allow_after, read.probe_timeout), (60 * second, 30 * second));
    assert_eq!(read.cyclic_clear_after, Some(50 * second));
}

#[tokio::test]
async fn a_rule_of_another_version_is_not_asked_in_the_place_of_the_one_in_force() {
    let world = World::new();
    let version = |version, trips| world.settings().trip_fn("mine", version, move |_| trips);
    let (new, old) = (of(version(2, false)).await, of(version(1, true)).await);
    run(&new, Outcome::Success, 1).await;
    run(&old, Outcome::Failure, 2).await;
    assert_eq!(new.state().await.expect("a state"), State::Closed, "version 1 would have tripped");
    run(&old, Outcome::Failure, 1).await;
    let trip = information(&new).await.last_trip.expect("the default rule stands in for it");
    assert_eq!((trip.kind, trip.observed), (TripKind::Custom, 3));
}

#[tokio::test(start_paused = true)]
async fn a_probe_is_renewed_by_the_lease_in_force() {
    let world = World::new();
    let short = || world.settings().probe_timeout(Duration::from_secs(3)).settings_revision(1);
    trip(&of(short()).await).await;
    world.open_time_passes();
    // By its own lease of a minute it would renew every twenty seconds.
    let other = of(world.settings().probe_timeout(Duration::from_secs(60))).await;
    let probe = other.start().await.expect("a probe");
    let leased_until_ms = information(&other).await.probes[0].deadline_ms;
    world.clock.advance_ms(1_000);
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    assert_eq!(information(&other).await.probes[0].deadline_ms, leased_until_ms + 1_000);
    drop(probe);
}
