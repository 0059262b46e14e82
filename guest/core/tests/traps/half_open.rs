//! Half-open: probes, their places and their leases.

use circuitry_core::record::{State, TransitionReason};
use circuitry_core::request::{RefusalReason, Verdict};
use circuitry_core::settings::CustomRule;
use circuitry_core::{Outcome, Settings, TripRule};

use crate::fleet::{BEGIN_MS, Fleet, of, settings};

fn closing_after(close_threshold: u32) -> Settings {
    Settings { close_threshold, ..settings() }
}

#[test]
fn no_more_probes_are_out_at_once_than_the_close_threshold() {
    let (mut fleet, _) = Fleet::to_be_probed(closing_after(3));
    let probes = [fleet.probe(), fleet.probe(), fleet.probe()];
    assert_eq!(fleet.refusal().0, RefusalReason::TooManyRequests);
    // What has succeeded keeps its place: the circuit needs three, not four.
    fleet.end(probes[0], Outcome::Success);
    assert_eq!(fleet.refusal().0, RefusalReason::TooManyRequests);
    assert_eq!(fleet.information().probes.len(), 2);
    assert_eq!(fleet.information().probe_successes, 1);
}

#[test]
fn eight_starts_of_one_process_take_one_place_each() {
    let (mut fleet, _) = Fleet::to_be_probed(closing_after(2));
    let admitted = (0..8).filter(|_| matches!(fleet.start(), Verdict::Permit(_))).count();
    assert_eq!(admitted, 2);
}

#[test]
fn a_refused_probe_is_told_when_the_next_lease_ends() {
    let (mut fleet, _) = Fleet::to_be_probed(closing_after(2));
    fleet.probe();
    fleet.now_ms += 4_000;
    fleet.probe();
    assert_eq!(fleet.refusal(), (RefusalReason::TooManyRequests, 6_000));
}

#[test]
fn a_refused_probe_waits_at_least_100_ms() {
    let (mut fleet, _) = Fleet::to_be_probed(settings());
    fleet.probe();
    fleet.now_ms += 9_950;
    assert_eq!(fleet.refusal(), (RefusalReason::TooManyRequests, 100));
}

#[test]
fn a_probe_that_never_settles_gives_its_place_to_a_start_after_its_lease() {
    let (mut fleet, _) = Fleet::to_be_probed(settings());
    fleet.probe();
    fleet.now_ms += 9_999;
    assert_eq!(fleet.refusal().0, RefusalReason::TooManyRequests);
    fleet.now_ms += 1;
    let second = fleet.probe();
    assert!(fleet.end(second, Outcome::Success));
    assert_eq!(fleet.state(), State::Closed);
}

#[test]
fn a_probe_that_ran_out_counts_until_its_place_is_taken() {
    let (mut fleet, _) = Fleet::to_be_probed(settings());
    let slow = fleet.probe();
    fleet.now_ms += 3_600_000;
    assert!(fleet.end(slow, Outcome::Success));
    assert_eq!(fleet.state(), State::Closed);
}

#[test]
fn a_probe_whose_place_was_taken_is_stale() {
    let (mut fleet, _) = Fleet::to_be_probed(settings());
    let slow = fleet.probe();
    fleet.now_ms += 10_000;
    let second = fleet.probe();
    let before = fleet.information();
    assert!(!fleet.end(slow, Outcome::Failure));
    assert_eq!(fleet.information(), before);
    assert!(fleet.end(second, Outcome::Success));
}

#[test]
fn the_place_that_ran_out_first_is_taken_first() {
    let (mut fleet, _) = Fleet::to_be_probed(closing_after(2));
    let (first, second) = (fleet.probe(), fleet.probe());
    fleet.now_ms += 1_000;
    fleet.renew(first);
    fleet.now_ms += 20_000;
    let third = fleet.probe();
    assert!(!fleet.end(second, Outcome::Success));
    assert!(fleet.end(first, Outcome::Success));
    assert!(fleet.end(third, Outcome::Success));
    assert_eq!(fleet.state(), State::Closed);
}

#[test]
fn a_free_place_is_given_before_one_that_ran_out() {
    let (mut fleet, _) = Fleet::to_be_probed(closing_after(2));
    let slow = fleet.probe();
    fleet.now_ms += 20_000;
    fleet.probe();
    assert!(fleet.end(slow, Outcome::Success));
}

#[test]
fn a_renewed_lease_keeps_its_place() {
    let (mut fleet, _) = Fleet::to_be_probed(settings());
    let probe = fleet.probe();
    for _ in 0..5 {
        fleet.now_ms += 9_000;
        assert_eq!(fleet.renew(probe), Some(fleet.now_ms + 10_000));
        assert_eq!(fleet.refusal(), (RefusalReason::TooManyRequests, 10_000));
    }
}

#[test]
fn a_lease_that_ran_out_can_be_renewed_until_its_place_is_taken() {
    let (mut fleet, _) = Fleet::to_be_probed(settings());
    let probe = fleet.probe();
    fleet.now_ms += 30_000;
    assert_eq!(fleet.renew(probe), Some(fleet.now_ms + 10_000));
    fleet.now_ms += 30_000;
    let second = fleet.probe();
    assert_eq!(fleet.renew(probe), None);
    assert_eq!(fleet.renew(second), Some(fleet.now_ms + 10_000));
}

#[test]
fn a_clock_that_is_behind_does_not_shorten_a_lease() {
    let (mut fleet, _) = Fleet::to_be_probed(settings());
    let probe = fleet.probe();
    let deadline_ms = probe.probe.unwrap().deadline_ms;
    let swaps = fleet.store.swaps;
    fleet.now_ms -= 5_000;
    assert_eq!(fleet.renew(probe), Some(deadline_ms));
    assert_eq!(fleet.store.swaps, swaps, "there was nothing to write");
}

#[test]
fn a_lease_of_an_earlier_era_is_not_renewed() {
    let (mut fleet, _) = Fleet::to_be_probed(closing_after(2));
    let (first, second) = (fleet.probe(), fleet.probe());
    fleet.end(first, Outcome::Failure);
    assert_eq!(fleet.renew(second), None);
    fleet.now_ms += 60_000;
    fleet.probe();
    assert_eq!(fleet.renew(second), None);
}

#[test]
fn a_retried_start_takes_no_second_place() {
    let (mut fleet, _) = Fleet::to_be_probed(closing_after(2));
    let caller = fleet.caller();
    let first = fleet.start_as(caller);
    fleet.now_ms += 500;
    assert_eq!(fleet.start_as(caller), first);
    assert_eq!(fleet.information().probes.len(), 1);
}

#[test]
fn an_ignored_outcome_on_the_last_probe_frees_its_place() {
    let (mut fleet, _) = Fleet::to_be_probed(settings());
    for _ in 0..5 {
        let probe = fleet.probe();
        assert!(fleet.end(probe, Outcome::Ignored));
        assert_eq!(fleet.information().probes, []);
    }
    let probe = fleet.probe();
    fleet.end(probe, Outcome::Success);
    assert_eq!(fleet.state(), State::Closed);
}

#[test]
fn a_cancelled_probe_neither_closes_nor_opens_nor_counts() {
    let (mut fleet, _) = Fleet::to_be_probed(settings());
    let probe = fleet.probe();
    let before = fleet.information();
    fleet.end(probe, Outcome::Ignored);
    let after = fleet.information();
    assert_eq!(after.state, State::HalfOpen);
    assert_eq!((after.counts, after.probe_successes), (before.counts, 0));
}

#[test]
fn an_ignored_probe_takes_no_success_back() {
    let (mut fleet, _) = Fleet::to_be_probed(closing_after(2));
    let (first, second) = (fleet.probe(), fleet.probe());
    fleet.end(first, Outcome::Success);
    fleet.end(second, Outcome::Ignored);
    assert_eq!(fleet.information().probe_successes, 1);
    let third = fleet.probe();
    fleet.end(third, Outcome::Success);
    assert_eq!(fleet.state(), State::Closed);
}

#[test]
fn a_late_success_of_an_earlier_era_does_not_close() {
    let (mut fleet, closed_permit) = Fleet::to_be_probed(settings());
    fleet.probe();
    assert!(!fleet.end(closed_permit, Outcome::Success));
    assert_eq!(fleet.state(), State::HalfOpen);
    assert_eq!(fleet.information().counts.total, 0);
}

#[test]
fn a_late_failure_of_an_earlier_era_does_not_reopen() {
    let (mut fleet, closed_permit) = Fleet::to_be_probed(settings());
    let probe = fleet.probe();
    assert!(!fleet.end(closed_permit, Outcome::Failure));
    assert_eq!(fleet.state(), State::HalfOpen);
    assert!(fleet.end(probe, Outcome::Success));
}

#[test]
fn late_failures_do_not_push_the_open_time_forward() {
    let (mut fleet, closed_permit) = Fleet::tripped(settings());
    fleet.now_ms += 59_000;
    assert!(!fleet.end(closed_permit, Outcome::Failure));
    assert_eq!(fleet.refusal(), (RefusalReason::Open, 1_000));
}

#[test]
fn releasing_a_closed_permit_frees_no_probe_place() {
    let (mut fleet, closed_permit) = Fleet::to_be_probed(settings());
    fleet.probe();
    for outcome in [Outcome::Ignored, Outcome::Success, Outcome::Failure] {
        assert!(!fleet.end(closed_permit, outcome));
        assert_eq!(fleet.refusal().0, RefusalReason::TooManyRequests);
    }
}

#[test]
fn a_probe_of_an_earlier_half_open_phase_is_stale() {
    let (mut fleet, _) = Fleet::to_be_probed(closing_after(2));
    let (failing, late) = (fleet.probe(), fleet.probe());
    fleet.end(failing, Outcome::Failure);
    assert!(!fleet.end(late, Outcome::Success));
    fleet.now_ms += 60_000;
    fleet.probe();
    assert!(!fleet.end(late, Outcome::Success));
    assert!(!fleet.end(late, Outcome::Failure));
    assert_eq!(fleet.information().probe_successes, 0);
}

#[test]
fn a_probe_settles_once() {
    let (mut fleet, _) = Fleet::to_be_probed(closing_after(2));
    let probe = fleet.probe();
    assert!(fleet.end(probe, Outcome::Success));
    assert!(!fleet.end(probe, Outcome::Success));
    assert_eq!(fleet.state(), State::HalfOpen);
}

#[test]
fn a_failed_probe_opens_for_the_whole_open_time_again() {
    let (mut fleet, _) = Fleet::to_be_probed(settings());
    let probe = fleet.probe();
    fleet.now_ms += 5_000;
    let settled = fleet.settle(&[of(probe, Outcome::Failure, 1)]);
    assert_eq!(settled.transitions.len(), 1);
    assert_eq!(settled.transitions[0].reason, TransitionReason::ProbeFailed);
    assert_eq!(fleet.refusal(), (RefusalReason::Open, 60_000));
}

#[test]
fn a_failed_probe_keeps_generation_and_counts() {
    let (mut fleet, _) = Fleet::to_be_probed(closing_after(3));
    let probes = [fleet.probe(), fleet.probe()];
    let generation = fleet.information().generation;
    fleet.end(probes[0], Outcome::Success);
    fleet.end(probes[1], Outcome::Failure);
    let information = fleet.information();
    assert_eq!(information.generation, generation);
    let counts = information.counts;
    assert_eq!((counts.total, counts.total_successes, counts.total_failures), (2, 1, 1));
    assert_eq!((counts.consecutive_successes, counts.consecutive_failures), (0, 1));
}

#[test]
fn probe_accounting_starts_afresh_at_every_entry_into_half_open() {
    let (mut fleet, _) = Fleet::to_be_probed(closing_after(2));
    for _ in 0..100 {
        let (first, second) = (fleet.probe(), fleet.probe());
        assert!(fleet.end(first, Outcome::Success));
        assert!(fleet.end(second, Outcome::Failure));
        fleet.now_ms += 60_000;
    }
}

#[test]
fn enough_probe_successes_close_and_zero_the_counts() {
    let (mut fleet, _) = Fleet::to_be_probed(closing_after(2));
    let generation = fleet.information().generation;
    let (first, second) = (fleet.probe(), fleet.probe());
    assert!(fleet.settle(&[of(first, Outcome::Success, 1)]).transitions.is_empty());
    let settled = fleet.settle(&[of(second, Outcome::Success, 1)]);
    assert_eq!(settled.transitions[0].reason, TransitionReason::ProbesSucceeded);
    let information = fleet.information();
    assert_eq!((information.state, information.generation), (State::Closed, generation + 1));
    assert_eq!(information.counts.total, 0);
}

#[test]
fn a_circuit_without_traffic_reads_as_half_open_after_its_open_time() {
    let (mut fleet, _) = Fleet::tripped(settings());
    fleet.now_ms += 59_999;
    let open = fleet.information();
    assert_eq!((open.state, open.expires_at_ms), (State::Open, Some(BEGIN_MS + 60_000)));
    fleet.now_ms += 1;
    let over = fleet.information();
    assert_eq!((over.state, over.expires_at_ms), (State::HalfOpen, None));
    assert_eq!(over.since_ms, BEGIN_MS + 60_000);
    fleet.now_ms += 1_000_000;
    assert_eq!(fleet.information().since_ms, BEGIN_MS + 60_000);
}

#[test]
fn reading_never_writes() {
    let (mut fleet, _) = Fleet::to_be_probed(settings());
    let (seen, swaps) = (fleet.seen(), fleet.store.swaps);
    for _ in 0..3 {
        fleet.information();
        fleet.now_ms += 100_000;
    }
    assert_eq!((fleet.seen(), fleet.store.swaps), (seen, swaps));
}

#[test]
fn the_rule_of_a_closed_circuit_is_not_asked_about_a_probe() {
    let trip_rules = vec![TripRule::Custom(CustomRule { name: "own".into(), version: 1 })];
    let mut fleet = Fleet::new(Settings { trip_rules, close_threshold: 2, ..settings() });
    fleet.questions.trips_at = 1;
    let permit = fleet.permit();
    fleet.end(permit, Outcome::Failure);
    fleet.now_ms += 60_000;
    fleet.questions.asked = 0;
    let (first, second) = (fleet.probe(), fleet.probe());
    fleet.end(first, Outcome::Success);
    fleet.end(second, Outcome::Failure);
    assert_eq!((fleet.questions.asked, fleet.state()), (0, State::Open));
}

#[test]
fn a_lowered_close_threshold_lets_no_probe_out_beyond_it() {
    let (mut fleet, _) = Fleet::to_be_probed(closing_after(3));
    for _ in 0..3 {
        fleet.probe();
    }
    fleet.forget_settings();
    fleet.settings.close_threshold = 1;
    fleet.now_ms += 10_000;
    // All three leases are over, and yet there is room for one only.
    fleet.probe();
    fleet.now_ms += 4_000;
    assert_eq!(fleet.refusal(), (RefusalReason::TooManyRequests, 6_000));
}

#[test]
fn probe_successes_that_reach_a_lowered_threshold_close_at_the_next_start() {
    let (mut fleet, _) = Fleet::to_be_probed(closing_after(3));
    let (first, second) = (fleet.probe(), fleet.probe());
    fleet.end(first, Outcome::Success);
    fleet.forget_settings();
    fleet.settings.close_threshold = 1;
    assert_eq!(fleet.permit().probe, None);
    assert_eq!(fleet.state(), State::Closed);
    assert!(!fleet.end(second, Outcome::Failure));
}
