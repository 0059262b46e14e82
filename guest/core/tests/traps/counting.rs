//! Windows, counting and classification.

use circuitry_core::record::{Counts, State, Status};
use circuitry_core::request::Disposition;
use circuitry_core::settings::CustomRule;
use circuitry_core::{Completion, Outcome, Settings, TripRule};

use crate::fleet::{BEGIN_MS, Fleet, of, settings};

fn bearing(failure_count_threshold: u64) -> Settings {
    Settings { failure_count_threshold, ..settings() }
}

fn custom() -> Settings {
    Settings {
        trip_rules: vec![TripRule::Custom(CustomRule { name: "own".into(), version: 3 })],
        ..settings()
    }
}

fn counts(fleet: &mut Fleet) -> [u64; 5] {
    let counts = fleet.information().counts;
    [
        counts.total,
        counts.total_successes,
        counts.total_failures,
        counts.consecutive_successes,
        counts.consecutive_failures,
    ]
}

#[test]
fn a_success_counts_and_ends_a_row_of_failures_and_a_failure_mirrors_it() {
    let mut fleet = Fleet::new(bearing(10));
    let permit = fleet.permit();
    fleet.settle(&[of(permit, Outcome::Failure, 2)]);
    assert_eq!(counts(&mut fleet), [2, 0, 2, 0, 2]);
    fleet.settle(&[of(permit, Outcome::Success, 3)]);
    assert_eq!(counts(&mut fleet), [5, 3, 2, 3, 0]);
    fleet.end(permit, Outcome::Failure);
    assert_eq!(counts(&mut fleet), [6, 3, 3, 0, 1]);
}

#[test]
fn fifteen_failures_in_a_row_are_borne_and_the_sixteenth_trips() {
    let mut fleet = Fleet::new(bearing(15));
    let permit = fleet.permit();
    for _ in 0..15 {
        fleet.end(permit, Outcome::Failure);
    }
    assert_eq!(fleet.state(), State::Closed);
    fleet.end(permit, Outcome::Failure);
    assert_eq!(fleet.state(), State::Open);
}

#[test]
fn a_run_of_failures_trips_where_single_ones_would() {
    for (before, run, accepted) in [(0, 15, 15), (0, 16, 16), (0, 40, 16), (10, 6, 6), (15, 2, 1)] {
        let mut fleet = Fleet::new(bearing(15));
        let permit = fleet.permit();
        for _ in 0..before {
            fleet.end(permit, Outcome::Failure);
        }
        let settled = fleet.settle(&[of(permit, Outcome::Failure, run)]);
        assert_eq!(settled.dispositions, [Disposition { accepted, stale: run - accepted }]);
        assert_eq!(fleet.state() == State::Open, before + accepted > 15);
    }
}

#[test]
fn a_threshold_of_0_trips_on_the_first_failure() {
    let mut fleet = Fleet::new(bearing(0));
    let permit = fleet.permit();
    fleet.end(permit, Outcome::Success);
    assert_eq!(fleet.state(), State::Closed);
    fleet.end(permit, Outcome::Failure);
    assert_eq!(fleet.state(), State::Open);
}

#[test]
fn the_largest_threshold_never_trips_and_counts_stop_at_their_largest_value() {
    let mut fleet = Fleet::new(bearing(u64::MAX));
    let permit = fleet.permit();
    let full = u64::MAX - 1;
    let counts_full = Counts {
        total: full,
        total_successes: full,
        total_failures: full,
        consecutive_successes: full,
        consecutive_failures: full,
    };
    fleet.put(&circuitry_core::record::Record { counts: counts_full, ..fleet.record() });
    fleet.settle(&[of(permit, Outcome::Failure, 65_536)]);
    assert_eq!(fleet.state(), State::Closed);
    assert_eq!(counts(&mut fleet), [u64::MAX, full, u64::MAX, 0, u64::MAX]);
    fleet.settle(&[of(permit, Outcome::Success, 65_536)]);
    assert_eq!(counts(&mut fleet), [u64::MAX, u64::MAX, u64::MAX, 65_536, 0]);
}

#[test]
fn a_lowered_threshold_trips_on_the_next_failure() {
    let mut fleet = Fleet::new(bearing(10));
    let permit = fleet.permit();
    fleet.settle(&[of(permit, Outcome::Failure, 8)]);
    fleet.forget_settings();
    fleet.settings.failure_count_threshold = 3;
    assert_eq!(fleet.state(), State::Closed);
    let settled = fleet.settle(&[of(permit, Outcome::Failure, 5)]);
    assert_eq!(settled.dispositions, [Disposition { accepted: 1, stale: 4 }]);
    assert_eq!(fleet.state(), State::Open);
}

#[test]
fn a_trip_begins_a_generation_with_counts_of_0() {
    let mut fleet = Fleet::new(bearing(1));
    let permit = fleet.permit();
    let settled = fleet.settle(&[of(permit, Outcome::Failure, 2)]);
    let information = fleet.information();
    assert_eq!((information.generation, information.counts), (1, Counts::default()));
    let transition = settled.transitions[0];
    assert_eq!((transition.generation, transition.at_ms), (1, fleet.now_ms));
    assert_eq!(transition.era, information.era);
    assert_eq!((information.since_ms, information.expires_at_ms), (BEGIN_MS, Some(BEGIN_MS + 60_000)));
}

#[test]
fn what_was_counted_before_a_recovery_does_not_count_after_it() {
    let (mut fleet, _) = Fleet::to_be_probed(bearing(2));
    let probe = fleet.probe();
    fleet.end(probe, Outcome::Success);
    assert_eq!(counts(&mut fleet), [0; 5]);
    let permit = fleet.permit();
    fleet.settle(&[of(permit, Outcome::Failure, 2)]);
    assert_eq!(fleet.state(), State::Closed);
}

// ---- the cyclic clear ----

fn clearing() -> Settings {
    Settings { cyclic_clear_after_ms: Some(10_000), ..bearing(2) }
}

#[test]
fn counts_read_as_zero_once_their_time_is_over_and_the_next_count_begins_a_generation() {
    let mut fleet = Fleet::new(clearing());
    let permit = fleet.permit();
    fleet.settle(&[of(permit, Outcome::Failure, 2)]);
    fleet.now_ms += 9_999;
    let before = fleet.information();
    assert_eq!((before.counts.total, before.expires_at_ms), (2, Some(BEGIN_MS + 10_000)));
    fleet.now_ms += 1;
    let over = fleet.information();
    assert_eq!((over.counts, over.expires_at_ms), (Counts::default(), None));
    assert_eq!(over.generation, 0, "reading changes nothing");
    // The failure that comes now is the first of its period, not the third.
    fleet.end(permit, Outcome::Failure);
    let after = fleet.information();
    assert_eq!((after.counts.total_failures, after.generation), (1, 1));
    assert_eq!(after.expires_at_ms, Some(BEGIN_MS + 20_000));
}

#[test]
fn a_period_lasts_from_its_first_count_on_and_is_not_prolonged() {
    let mut fleet = Fleet::new(clearing());
    let permit = fleet.permit();
    fleet.now_ms += 5_000;
    fleet.end(permit, Outcome::Failure);
    fleet.now_ms += 5_000;
    fleet.end(permit, Outcome::Failure);
    assert_eq!(fleet.information().expires_at_ms, Some(BEGIN_MS + 15_000));
}

#[test]
fn a_cyclic_clear_is_no_new_era_so_a_call_that_spans_it_counts() {
    let mut fleet = Fleet::new(clearing());
    let permit = fleet.permit();
    fleet.end(permit, Outcome::Success);
    let spanning = fleet.permit();
    fleet.now_ms += 25_000;
    assert!(fleet.end(spanning, Outcome::Failure));
    assert_eq!(counts(&mut fleet), [1, 0, 1, 0, 1]);
    assert_eq!(fleet.information().era, permit.era);
}

#[test]
fn failures_of_two_periods_do_not_add_up() {
    let mut fleet = Fleet::new(clearing());
    let permit = fleet.permit();
    for _ in 0..20 {
        fleet.settle(&[of(permit, Outcome::Failure, 2)]);
        fleet.now_ms += 10_000;
    }
    assert_eq!((fleet.state(), fleet.information().generation), (State::Closed, 19));
}

#[test]
fn without_a_cyclic_clear_counts_last() {
    let mut fleet = Fleet::new(bearing(5));
    let permit = fleet.permit();
    fleet.end(permit, Outcome::Failure);
    assert_eq!(
        fleet.record().status,
        Status::Closed {
            counts_expire_at_ms: None,
            windows: circuitry_core::window::Windows::default(),
            votes: vec![],
            ramp_since_ms: None
        }
    );
    fleet.now_ms += 1_000_000_000;
    assert_eq!(fleet.information().counts.total, 1);
}

#[test]
fn a_closed_circuit_begins_its_period_when_it_closes_and_an_open_one_has_none() {
    let mut fleet = Fleet::new(clearing());
    let permit = fleet.permit();
    fleet.settle(&[of(permit, Outcome::Failure, 3)]);
    fleet.now_ms += 59_999;
    assert_eq!(fleet.information().expires_at_ms, Some(BEGIN_MS + 60_000));
    fleet.now_ms += 1;
    let probe = fleet.probe();
    fleet.end(probe, Outcome::Success);
    assert_eq!(fleet.information().expires_at_ms, Some(BEGIN_MS + 70_000));
}

// ---- custom rules ----

#[test]
fn a_custom_rule_is_asked_after_each_failure_of_a_run_and_trips_at_once() {
    let mut fleet = Fleet::new(custom());
    fleet.questions.trips_at = 4;
    let permit = fleet.permit();
    let settled = fleet.settle(&[of(permit, Outcome::Success, 9), of(permit, Outcome::Failure, 10)]);
    assert_eq!(settled.dispositions[1], Disposition { accepted: 4, stale: 6 });
    assert_eq!((fleet.questions.asked, fleet.state()), (4, State::Open));
}

#[test]
fn a_custom_rule_is_not_asked_about_successes_ignored_and_stale_outcomes_nor_under_forced_closed() {
    use circuitry_core::record::OverrideKind;
    let mut fleet = Fleet::new(custom());
    fleet.questions.trips_at = 1;
    let permit = fleet.permit();
    fleet.settle(&[
        of(permit, Outcome::Success, 3),
        of(permit, Outcome::Ignored, 3),
        Completion { era: 1, ..of(permit, Outcome::Failure, 3) },
    ]);
    fleet.force(OverrideKind::ForcedClosed, None).unwrap();
    fleet.end(permit, Outcome::Failure);
    assert_eq!((fleet.questions.asked, fleet.state()), (0, State::Closed));
}

#[test]
fn a_custom_rule_that_does_not_trip_lets_a_whole_run_count() {
    let mut fleet = Fleet::new(custom());
    let permit = fleet.permit();
    let settled = fleet.settle(&[of(permit, Outcome::Failure, 7)]);
    assert_eq!(settled.dispositions, [Disposition { accepted: 7, stale: 0 }]);
    assert_eq!((fleet.questions.asked, counts(&mut fleet)), (7, [7, 0, 7, 0, 7]));
}

// ---- classification ----

#[test]
fn an_ignored_outcome_is_accepted_and_changes_nothing() {
    let mut fleet = Fleet::new(bearing(1));
    let permit = fleet.permit();
    fleet.end(permit, Outcome::Failure);
    let seen = fleet.seen();
    assert!(fleet.end(permit, Outcome::Ignored));
    assert_eq!(fleet.seen(), seen);
    // Neither a success that would end the row …
    fleet.end(permit, Outcome::Failure);
    // … nor a failure that would have tripped before.
    assert_eq!(fleet.state(), State::Open);
}

#[test]
fn a_refusal_is_not_counted() {
    let (mut fleet, _) = Fleet::tripped(settings());
    let before = fleet.information();
    for _ in 0..10 {
        fleet.refusal();
    }
    assert_eq!(fleet.information(), before);
}

#[test]
fn what_follows_a_trip_in_a_list_is_stale() {
    let mut fleet = Fleet::new(bearing(1));
    let permit = fleet.permit();
    let settled = fleet.settle(&[
        of(permit, Outcome::Failure, 5),
        of(permit, Outcome::Success, 2),
        of(permit, Outcome::Ignored, 1),
        of(permit, Outcome::Failure, 3),
    ]);
    let fates: Vec<(u32, u32)> =
        settled.dispositions.iter().map(|fate| (fate.accepted, fate.stale)).collect();
    assert_eq!(fates, [(2, 3), (0, 2), (0, 1), (0, 3)]);
    assert_eq!(settled.transitions.len(), 1);
    assert_eq!(fleet.information().counts.total, 0);
}

#[test]
fn a_list_is_applied_in_its_order() {
    let mut fleet = Fleet::new(bearing(1));
    let permit = fleet.permit();
    let (failure, success) = (of(permit, Outcome::Failure, 1), of(permit, Outcome::Success, 1));
    fleet.settle(&[failure, success, failure, success, failure]);
    assert_eq!(fleet.state(), State::Closed);
    fleet.settle(&[failure]);
    assert_eq!(fleet.state(), State::Open);
}

#[test]
fn a_probe_of_a_closed_circuits_era_is_stale() {
    let mut fleet = Fleet::new(settings());
    let permit = fleet.permit();
    let probe = Some(fleet.caller().token);
    let settled = fleet.settle(&[Completion { probe, ..of(permit, Outcome::Failure, 1) }]);
    assert_eq!(settled.dispositions, [Disposition { accepted: 0, stale: 1 }]);
    assert_eq!(fleet.state(), State::Closed);
}
