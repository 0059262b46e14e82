//! Windows: which calls a rule looks at, and when it trips.

use circuitry_core::record::{State, TripKind};
use circuitry_core::settings::{Window, WindowedRule};
use circuitry_core::{Completion, Outcome, Settings, TripRule};

use crate::fleet::{BEGIN_MS, Fleet, of, settings};

fn rule(threshold: u32, minimum_calls: u32, window: Window) -> WindowedRule {
    WindowedRule { threshold, minimum_calls, window }
}

fn going_by(rules: Vec<TripRule>) -> Fleet {
    Fleet::new(Settings { trip_rules: rules, slow_call_after_ms: Some(1_000), ..settings() })
}

fn failure_rate(per_mille: u32, minimum_calls: u32, window: Window) -> Fleet {
    going_by(vec![TripRule::FailureRate(rule(per_mille, minimum_calls, window))])
}

fn failure_count(failures: u32, window: Window) -> Fleet {
    going_by(vec![TripRule::FailureCount(rule(failures, 1, window))])
}

impl Fleet {
    /// Counts runs of outcomes: a letter each, `+` success, `-` failure, `s` slow success, `f` slow failure, `i` ignored.
    fn hear(&mut self, outcomes: &str) {
        let permit = self.permit();
        let completions: Vec<Completion> = outcomes
            .chars()
            .map(|outcome| {
                let (outcome, slow) = match outcome {
                    '+' => (Outcome::Success, false),
                    '-' => (Outcome::Failure, false),
                    's' => (Outcome::Success, true),
                    'f' => (Outcome::Failure, true),
                    _ => (Outcome::Ignored, false),
                };
                Completion { slow, ..of(permit, outcome, 1) }
            })
            .collect();
        self.settle(&completions);
    }

    fn is_open(&mut self) -> bool {
        self.state() == State::Open
    }

    /// What the first rule sees: failures or a rate, and the calls.
    fn sees(&mut self) -> (u64, u64) {
        let information = self.information();
        (information.rules[0].observed, information.rules[0].calls)
    }
}

#[test]
fn a_failure_rate_trips_at_its_threshold_and_not_below() {
    let mut fleet = failure_rate(500, 4, Window::Calls(10));
    fleet.hear("+++--");
    assert_eq!(fleet.sees(), (400, 5));
    assert!(!fleet.is_open());
    fleet.hear("-");
    assert!(fleet.is_open());
    let trip = fleet.information().last_trip.unwrap();
    assert_eq!((trip.kind, trip.observed, trip.threshold, trip.calls), (TripKind::FailureRate, 500, 500, 6));
}

#[test]
fn a_rate_sleeps_until_there_are_enough_calls() {
    let mut fleet = failure_rate(500, 4, Window::Calls(10));
    fleet.hear("---");
    assert!(!fleet.is_open());
    fleet.hear("-");
    assert!(fleet.is_open());
}

#[test]
fn a_success_never_trips_a_rule_of_failures() {
    let mut fleet = failure_rate(500, 4, Window::Calls(10));
    fleet.hear("---+");
    assert_eq!(fleet.sees(), (750, 4));
    assert!(!fleet.is_open());
    fleet.hear("-");
    assert!(fleet.is_open());
}

#[test]
fn consecutive_counters_are_blind_to_one_success_in_ten_and_a_rate_is_not() {
    let mut blind = Fleet::new(Settings { failure_count_threshold: 9, ..settings() });
    let mut seeing = failure_rate(900, 100, Window::Calls(100));
    for fleet in [&mut blind, &mut seeing] {
        for _ in 0..11 {
            if !fleet.is_open() {
                fleet.hear("+---------");
            }
        }
    }
    assert!(!blind.is_open());
    assert!(seeing.is_open());
}

#[test]
fn a_window_of_calls_evicts_the_oldest() {
    let mut fleet = failure_rate(600, 5, Window::Calls(5));
    fleet.hear("--+++");
    assert_eq!(fleet.sees(), (400, 5));
    fleet.hear("++");
    assert_eq!(fleet.sees(), (0, 5));
    fleet.hear("--");
    assert!(!fleet.is_open(), "two of the last five failed, whatever failed before");
    fleet.hear("-");
    assert!(fleet.is_open());
}

#[test]
fn a_window_of_one_call_trips_on_one_failure() {
    let mut fleet = failure_rate(1_000, 1, Window::Calls(1));
    fleet.hear("++++");
    assert!(!fleet.is_open());
    fleet.hear("-");
    assert!(fleet.is_open());
}

#[test]
fn the_largest_window_of_calls_slides_too() {
    let mut fleet = failure_count(1_024, Window::Calls(1_024));
    let permit = fleet.permit();
    fleet.settle(&[of(permit, Outcome::Failure, 1_023), of(permit, Outcome::Success, 1)]);
    assert_eq!(fleet.sees(), (1_023, 1_024));
    fleet.settle(&[of(permit, Outcome::Failure, 1_023)]);
    assert!(!fleet.is_open(), "the success is the oldest of the window now");
    assert_eq!(fleet.sees(), (1_023, 1_024));
    fleet.hear("-");
    assert!(fleet.is_open());
}

#[test]
fn a_window_of_time_forgets_by_itself() {
    let mut fleet = failure_count(3, Window::Time(60_000));
    fleet.hear("--");
    assert_eq!(fleet.sees(), (2, 2));
    fleet.now_ms += 60_000;
    assert_eq!(fleet.sees(), (0, 0), "a look shows what is in the window now");
    fleet.hear("--");
    assert!(!fleet.is_open());
    fleet.hear("-");
    assert!(fleet.is_open());
}

#[test]
fn a_window_of_time_slides_and_does_not_tumble() {
    // Buckets of 3 s: two failures in the last bucket of one minute and two in the first of the next are four in a minute.
    let mut fleet = failure_count(4, Window::Time(60_000));
    fleet.now_ms = BEGIN_MS + 59_999;
    fleet.hear("--");
    fleet.now_ms = BEGIN_MS + 60_001;
    fleet.hear("--");
    assert!(fleet.is_open());
}

#[test]
fn the_current_call_is_counted_when_a_bucket_rolls() {
    let mut fleet = failure_count(2, Window::Time(60_000));
    fleet.now_ms = BEGIN_MS + 2_999;
    fleet.hear("-");
    fleet.now_ms = BEGIN_MS + 3_000;
    fleet.hear("-");
    assert!(fleet.is_open());
}

#[test]
fn a_call_leaves_the_window_with_its_bucket() {
    let mut fleet = failure_count(9, Window::Time(60_000));
    fleet.now_ms = BEGIN_MS + 2_999;
    fleet.hear("-");
    fleet.now_ms = BEGIN_MS + 59_999;
    assert_eq!(fleet.sees(), (1, 1));
    fleet.now_ms += 1;
    assert_eq!(fleet.sees(), (0, 0));
}

#[test]
fn a_window_of_a_millisecond_has_the_calls_of_that_millisecond() {
    let mut fleet = failure_count(2, Window::Time(1));
    fleet.hear("-");
    fleet.now_ms += 1;
    fleet.hear("-");
    assert!(!fleet.is_open());
    fleet.hear("-");
    assert!(fleet.is_open());
}

#[test]
fn a_decaying_window_halves_what_it_holds() {
    let mut fleet = failure_count(100, Window::Decaying(10_000));
    let permit = fleet.permit();
    fleet.settle(&[of(permit, Outcome::Failure, 64), of(permit, Outcome::Success, 64)]);
    for expected in [64, 32, 16, 8, 4, 2, 1] {
        assert_eq!(fleet.sees(), (expected, 2 * expected));
        fleet.now_ms += 10_000;
    }
    fleet.now_ms += 1_000_000_000;
    assert_eq!(fleet.sees(), (0, 0));
}

#[test]
fn in_a_decaying_rate_the_latest_calls_weigh_most() {
    let mut fleet = failure_rate(600, 4, Window::Decaying(10_000));
    fleet.hear("++++");
    fleet.now_ms += 20_000;
    // The four successes weigh one by now, so the minimum of four is not reached with three failures or fewer.
    fleet.hear("--");
    assert!(!fleet.is_open());
    fleet.hear("-");
    assert!(fleet.is_open());
}

#[test]
fn a_window_is_not_kept_across_recovery() {
    let mut fleet = failure_rate(500, 2, Window::Calls(10));
    fleet.hear("--");
    fleet.now_ms += 60_000;
    let probe = fleet.probe();
    fleet.end(probe, Outcome::Success);
    assert_eq!(fleet.sees(), (0, 0));
    fleet.hear("-");
    assert!(!fleet.is_open());
}

#[test]
fn half_open_is_not_evaluated_with_closed_state_rules() {
    let mut fleet = Fleet::new(Settings {
        trip_rules: vec![TripRule::FailureRate(rule(100, 1, Window::Calls(10)))],
        close_threshold: 2,
        probes: Some(5),
        ..settings()
    });
    fleet.hear("-");
    fleet.now_ms += 60_000;
    let probe = fleet.probe();
    fleet.end(probe, Outcome::Failure);
    assert_eq!(fleet.state(), State::HalfOpen, "one failed probe of five is borne, whatever the rate is");
}

#[test]
fn an_ignored_outcome_dilutes_no_rate() {
    let mut fleet = failure_rate(500, 2, Window::Calls(10));
    fleet.hear("iiiiiiii-");
    assert_eq!(fleet.sees(), (1_000, 1));
    fleet.hear("i-");
    assert!(fleet.is_open());
}

#[test]
fn a_cyclic_clear_does_not_touch_windows() {
    let mut fleet = failure_count(2, Window::Time(60_000));
    fleet.settings.cyclic_clear_after_ms = Some(1_000);
    fleet.hear("-");
    fleet.now_ms += 2_000;
    fleet.hear("-");
    assert!(fleet.is_open());
}

#[test]
fn a_slow_success_can_trip_the_slow_call_rate() {
    let mut fleet = going_by(vec![TripRule::SlowCallRate(rule(500, 4, Window::Calls(10)))]);
    fleet.hear("++ss");
    assert!(fleet.is_open());
    let trip = fleet.information().last_trip.unwrap();
    assert_eq!((trip.kind, trip.observed), (TripKind::SlowCallRate, 500));
}

#[test]
fn a_fast_failure_does_not_trip_the_slow_call_rate() {
    let mut fleet = going_by(vec![TripRule::SlowCallRate(rule(500, 2, Window::Calls(10)))]);
    fleet.hear("s----");
    assert!(!fleet.is_open());
    fleet.hear("ffff");
    assert!(fleet.is_open());
}

#[test]
fn any_of_the_rules_trips_and_the_trip_says_which() {
    let rules = || {
        vec![
            TripRule::ConsecutiveFailures { minimum_calls: 0 },
            TripRule::FailureRate(rule(500, 10, Window::Calls(10))),
            TripRule::SlowCallRate(rule(900, 5, Window::Time(60_000))),
        ]
    };
    for (outcomes, kind) in [
        ("++++++----", TripKind::ConsecutiveFailures),
        ("+-+-+-+-+-", TripKind::FailureRate),
        ("sssss", TripKind::SlowCallRate),
    ] {
        let mut fleet = going_by(rules());
        fleet.settings.failure_count_threshold = 3;
        fleet.hear(outcomes);
        assert!(fleet.is_open(), "{outcomes}");
        assert_eq!(fleet.information().last_trip.unwrap().kind, kind);
    }
}

#[test]
fn a_run_is_cut_where_a_rule_trips() {
    let mut fleet = failure_rate(500, 4, Window::Time(60_000));
    let permit = fleet.permit();
    fleet.settle(&[of(permit, Outcome::Success, 100)]);
    let settled = fleet.settle(&[of(permit, Outcome::Failure, 65_536)]);
    assert_eq!((settled.dispositions[0].accepted, settled.dispositions[0].stale), (100, 65_436));
}

#[test]
fn the_consecutive_rule_sleeps_until_enough_calls_were_counted() {
    let mut fleet = going_by(vec![TripRule::ConsecutiveFailures { minimum_calls: 5 }]);
    fleet.hear("+--");
    assert!(!fleet.is_open());
    fleet.hear("-");
    assert!(!fleet.is_open());
    fleet.hear("-");
    assert!(fleet.is_open());
}

#[test]
fn a_clock_that_steps_back_a_little_loses_no_call() {
    let mut fleet = failure_count(3, Window::Time(60_000));
    fleet.hear("-");
    fleet.now_ms -= 30_000;
    fleet.hear("-");
    fleet.now_ms += 30_000;
    fleet.hear("-");
    assert!(fleet.is_open());
}

#[test]
fn a_clock_that_was_far_ahead_does_not_stop_a_window() {
    for window in [Window::Time(60_000), Window::Decaying(60_000)] {
        let mut fleet = failure_count(2, window);
        fleet.now_ms += 3_600_000;
        fleet.hear("-");
        fleet.now_ms = BEGIN_MS;
        fleet.hear("-");
        assert!(!fleet.is_open(), "the failure of an hour ahead is no part of this window");
        fleet.now_ms += 120_000;
        fleet.hear("-");
        assert!(!fleet.is_open());
        fleet.hear("-");
        assert!(fleet.is_open());
    }
}

#[test]
fn a_record_whose_windows_are_not_those_of_its_settings_is_malformed() {
    let mut fleet = failure_count(2, Window::Calls(9));
    fleet.hear("-");
    let mut record = fleet.record();
    let circuitry_core::record::Status::Closed { windows, .. } = &mut record.status else { panic!() };
    let good = windows.bytes.clone();
    for bytes in [
        vec![0; 7],
        [good.clone(), vec![0]].concat(),
        vec![9, 0, 0, 0, 0, 0, 0, 0],
        vec![1, 0, 10, 0, 0, 0, 0, 0],
    ] {
        let circuitry_core::record::Status::Closed { windows, .. } = &mut record.status else { panic!() };
        windows.bytes = bytes;
        fleet.put(&record);
        let caller = fleet.caller();
        let error = crate::fleet::error(fleet.call(circuitry_core::request::Operation::Start(caller)));
        assert!(matches!(
            error,
            circuitry_core::Error::Record(circuitry_core::record::RecordError::Malformed(_))
        ));
    }
}
