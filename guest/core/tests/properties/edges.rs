//! The edges of windows, each as a rule.

use circuitry_core::record::State;
use circuitry_core::settings::{Window, WindowedRule};
use circuitry_core::{Outcome, Settings, TripRule};

use crate::script::Script;

/// A multiple of every bucket's length below, so that a bucket begins here.
const BEGINNING: u64 = 1_800_000_000_000;

fn rule(threshold: u32, minimum_calls: u32, window: Window) -> WindowedRule {
    WindowedRule { threshold, minimum_calls, window }
}

fn begun(rule: TripRule) -> Script {
    let trip_rules = vec![rule];
    Script::begun(Settings { trip_rules, slow_call_after_ms: Some(100), ..Settings::default() })
}

fn count(failures: u32, window: Window) -> Script {
    begun(TripRule::FailureCount(rule(failures, 1, window)))
}

/// What the rule has found, and of how many calls.
fn found(script: &mut Script) -> (u64, u64) {
    let rules = script.shown().rules;
    (rules[0].observed, rules[0].calls)
}

#[test]
fn a_window_of_one_call_sees_the_last_call_only() {
    for failing in [
        TripRule::FailureCount(rule(1, 1, Window::Calls(1))),
        TripRule::FailureRate(rule(1_000, 1, Window::Calls(1))),
    ] {
        let mut script = begun(failing);
        assert_eq!(script.successes(3).state(), State::Closed);
        assert_eq!(found(&mut script), (0, 1));
        assert_eq!(script.failures(1).state(), State::Open);
    }
    let mut script = begun(TripRule::SlowCallRate(rule(1_000, 1, Window::Calls(1))));
    assert_eq!(script.failures(3).state(), State::Closed);
    script.calls(Outcome::Success, true, 1);
    assert_eq!(script.state(), State::Open);
}

#[test]
fn a_window_of_one_millisecond_sees_the_calls_of_that_millisecond_only() {
    let mut script = count(2, Window::Time(1));
    assert_eq!(script.failures(1).wait(1).failures(1).state(), State::Closed);
    assert_eq!(found(&mut script), (1, 1));
    assert_eq!(script.failures(1).state(), State::Open);
}

#[test]
fn the_bucket_that_rolls_counts_the_current_call() {
    let mut script = count(1, Window::Time(20));
    assert_eq!(script.successes(1).wait(20).failures(1).state(), State::Open);
    // All buckets are gone, and the call that finds it so is the first of the new ones.
    let mut script = count(2, Window::Time(20));
    assert_eq!(script.failures(1).wait(20).failures(1).state(), State::Closed);
    assert_eq!(found(&mut script), (1, 1));
    assert_eq!(script.wait(19).failures(1).state(), State::Open);
}

#[test]
fn a_call_leaves_a_window_of_time_with_its_bucket() {
    // Twenty buckets of two milliseconds.
    let mut script = count(u32::MAX, Window::Time(40));
    assert_eq!(script.now, BEGINNING);
    script.wait(1).failures(1);
    assert_eq!(found(script.wait(38)), (1, 1));
    assert_eq!(found(script.wait(1)), (0, 0));
    // One is not enough for 41: fourteen of three, so a call is in it for 42 milliseconds, less up to three.
    let mut script = count(u32::MAX, Window::Time(41));
    script.failures(1);
    assert_eq!(found(script.wait(41)), (1, 1));
    assert_eq!(found(script.wait(1)), (0, 0));
    script.wait(2).failures(1);
    assert_eq!(found(script.wait(39)), (1, 1));
    assert_eq!(found(script.wait(1)), (0, 0));
}

#[test]
fn a_minimum_above_the_size_of_a_window_is_refused() {
    let checked = |minimum, size| {
        let trip_rules = vec![TripRule::FailureRate(rule(500, minimum, Window::Calls(size)))];
        Settings { trip_rules, ..Settings::default() }.check().map_err(|error| error.field)
    };
    assert_eq!(checked(10, 10), Ok(()));
    assert_eq!(checked(11, 10), Err("trip-rules.failure-rate"));
}

#[test]
fn a_sliding_window_evicts() {
    let mut script = count(2, Window::Calls(3));
    assert_eq!(script.failures(1).successes(2).failures(1).state(), State::Closed);
    assert_eq!(script.successes(1).failures(1).state(), State::Open);
    // The largest window, by runs longer than it.
    let mut script = count(1_024, Window::Calls(1_024));
    assert_eq!(script.failures(1_023).successes(1).failures(1_023).state(), State::Closed);
    assert_eq!(found(&mut script), (1_023, 1_024));
    assert_eq!(found(script.successes(65_536)), (0, 1_024));
    assert_eq!(script.failures(1_024).state(), State::Open);

    let mut script = count(2, Window::Time(1_000));
    for _ in 0..50 {
        assert_eq!(script.failures(1).wait(1_000).state(), State::Closed);
    }
    assert_eq!(found(script.wait(1_000)), (0, 0));
}

#[test]
fn a_window_slides_and_does_not_tumble() {
    // Nine failures before and nine after a round second are eighteen within a second.
    let mut script = count(18, Window::Time(1_000));
    assert_eq!(script.wait(950).failures(9).wait(100).failures(8).state(), State::Closed);
    assert_eq!(script.failures(1).state(), State::Open);
}

#[test]
fn a_weight_halves_with_every_half_life() {
    let mut script = count(u32::MAX, Window::Decaying(1_000));
    script.failures(64);
    for weight in [32, 16, 8, 4, 2, 1, 0] {
        assert_eq!(found(script.wait(1_000)), (weight, weight));
    }
    // The threshold is of what is left.
    let mut script = count(3, Window::Decaying(1_000));
    assert_eq!(script.failures(2).wait(1_000).failures(1).state(), State::Closed);
    assert_eq!(script.failures(1).state(), State::Open);
}

#[test]
fn a_window_is_not_kept_across_recovery() {
    for window in [Window::Calls(4), Window::Time(1_000_000), Window::Decaying(1_000_000)] {
        let mut script = count(2, window);
        script.failures(2);
        let probe = script.half_open();
        script.probe_ends(probe, Outcome::Success);
        assert_eq!(found(&mut script), (0, 0));
        assert_eq!(script.failures(1).state(), State::Closed);
        script.reset();
        assert_eq!(found(&mut script), (0, 0));
        assert_eq!(script.failures(2).state(), State::Open);
    }
}

#[test]
fn a_half_open_circuit_is_not_asked_by_the_rules_of_a_closed_one() {
    let settings = Settings {
        trip_rules: vec![TripRule::FailureCount(rule(1, 1, Window::Calls(1)))],
        close_threshold: 1,
        probes: Some(3),
        ..Settings::default()
    };
    let mut script = Script::begun(settings);
    script.failures(1);
    let probe = script.half_open();
    script.probe_ends(probe, Outcome::Failure);
    assert_eq!(script.state(), State::HalfOpen);
}

#[test]
fn a_cyclic_clear_does_not_touch_a_window() {
    let settings = Settings {
        trip_rules: vec![TripRule::FailureCount(rule(3, 1, Window::Calls(10)))],
        cyclic_clear_after_ms: Some(10),
        ..Settings::default()
    };
    let mut script = Script::begun(settings);
    script.failures(2).wait(10);
    assert_eq!(script.shown().counts.total, 0);
    assert_eq!(found(&mut script), (2, 2));
    assert_eq!(script.failures(1).state(), State::Open);
}

#[test]
fn ignored_outcomes_are_in_no_window() {
    for window in [Window::Calls(4), Window::Time(1_000), Window::Decaying(1_000)] {
        let mut script = count(4, window);
        script.failures(1);
        script.calls(Outcome::Ignored, true, 100);
        assert_eq!(found(&mut script), (1, 1));
    }
}

#[test]
fn who_comes_late_comes_with_the_newest_call() {
    for window in [Window::Time(1_000), Window::Decaying(1_600)] {
        let mut script = count(u32::MAX, window);
        script.failures(1);
        // One step less than it takes to begin anew.
        script.now -= if matches!(window, Window::Time(_)) { 950 } else { 1_500 };
        script.failures(1);
        assert_eq!(found(&mut script), (2, 2));
        script.now = BEGINNING;
        assert_eq!(found(&mut script), (2, 2));
    }
}

#[test]
fn a_window_begins_anew_with_who_comes_from_before_it() {
    for window in [Window::Time(1_000), Window::Decaying(1_600)] {
        let mut script = count(u32::MAX, window);
        script.failures(5);
        script.now -= if matches!(window, Window::Time(_)) { 1_000 } else { 1_600 };
        assert_eq!(found(&mut script), (0, 0));
        script.failures(1);
        assert_eq!(found(&mut script), (1, 1));
        // A clock that was ahead leaves no calls that never leave.
        assert_eq!(found(script.wait(1_000_000)), (0, 0));
    }
}

#[test]
fn rules_over_the_same_window_see_the_same_calls() {
    for window in [Window::Calls(8), Window::Time(1_000), Window::Decaying(1_000)] {
        let rules = [rule(8, 1, window), rule(1_000, 8, window), rule(1_000, 8, window)];
        let trip_rules = vec![
            TripRule::FailureCount(rules[0]),
            TripRule::FailureRate(rules[1]),
            TripRule::SlowCallRate(rules[2]),
        ];
        let settings = Settings { trip_rules, slow_call_after_ms: Some(1), ..Settings::default() };
        let mut script = Script::begun(settings);
        script.failures(3).successes(2).calls(Outcome::Success, true, 1);
        let seen: Vec<_> = script.shown().rules.iter().map(|rule| (rule.observed, rule.calls)).collect();
        assert_eq!(seen, [(3, 6), (500, 6), (166, 6)]);
    }
}
