//! Grants: when a host need not ask for each start.

use circuitry_core::record::OverrideKind;
use circuitry_core::request::Verdict;
use circuitry_core::settings::{Quorum, Ramp, Window, WindowedRule};
use circuitry_core::{Outcome, Settings, TripRule};

use crate::fleet::{Fleet, of, settings};

const MINUTE_MS: u64 = 60_000;

#[test]
fn a_closed_circuit_grants_for_a_minute_at_most() {
    let mut fleet = Fleet::new(settings());
    assert_eq!(fleet.permit().grant_until_ms, Some(fleet.now_ms + MINUTE_MS), "also where it is new");
    fleet.now_ms += 5;
    assert_eq!(fleet.permit().grant_until_ms, Some(fleet.now_ms + MINUTE_MS));
}

#[test]
fn a_grant_ends_when_the_counts_are_cleared() {
    let mut fleet = Fleet::new(Settings { cyclic_clear_after_ms: Some(10_000), ..settings() });
    let permit = fleet.permit();
    fleet.end(permit, Outcome::Success);
    let clears_at_ms = fleet.now_ms + 10_000;
    assert_eq!(fleet.permit().grant_until_ms, Some(clears_at_ms));
    fleet.now_ms = clears_at_ms;
    assert_eq!(fleet.permit().grant_until_ms, Some(clears_at_ms + MINUTE_MS), "they read as cleared");
}

#[test]
fn a_custom_rule_a_rate_and_slow_calls_grant_too_for_no_success_trips_them() {
    let windowed = WindowedRule { threshold: 500, minimum_calls: 1, window: Window::Calls(10) };
    let rules = vec![TripRule::FailureRate(windowed), TripRule::SlowCallRate(windowed)];
    let mut fleet = Fleet::new(Settings { trip_rules: rules, slow_call_after_ms: Some(1_000), ..settings() });
    let permit = fleet.permit();
    assert!(permit.grant_until_ms.is_some());
    assert_eq!(permit.slow_call_after_ms, Some(1_000), "and what is slow is no such success");
}

#[test]
fn whatever_has_to_be_asked_for_each_start_is_not_granted() {
    let mut quorum =
        Fleet::new(Settings { quorum: Some(Quorum { votes: 2, window_ms: 60_000 }), ..settings() });
    assert_eq!(quorum.permit().grant_until_ms, None, "the node's own record is asked");

    for kind in [OverrideKind::ForcedClosed, OverrideKind::Disabled, OverrideKind::MetricsOnly] {
        let mut fleet = Fleet::new(settings());
        fleet.permit();
        let until_ms = fleet.now_ms + 1_000;
        fleet.force(kind, Some(until_ms)).unwrap();
        assert_eq!(fleet.permit().grant_until_ms, None, "{kind:?}");
        fleet.now_ms = until_ms;
        assert!(fleet.permit().grant_until_ms.is_some(), "{kind:?} is over");
    }

    let (mut probing, _) = Fleet::to_be_probed(settings());
    assert_eq!(probing.permit().grant_until_ms, None, "a probe has a place of its own");
}

#[test]
fn a_ramp_counts_its_starts_so_there_is_no_grant_until_it_is_over() {
    let ramp = Ramp { steps_per_mille: vec![500], step_ms: 60_000 };
    let mut fleet = Fleet::new(Settings { ramp: Some(ramp), failure_count_threshold: 0, ..settings() });
    let permit = fleet.permit();
    fleet.settle(&[of(permit, Outcome::Failure, 1)]);
    fleet.now_ms += 60_000;
    fleet.recover();
    let admitted = (0..4).find_map(|_| match fleet.start() {
        Verdict::Permit(permit) => Some(permit),
        Verdict::Refusal(_) => None,
    });
    assert_eq!(admitted.unwrap().grant_until_ms, None);
    fleet.now_ms += 60_000;
    assert!(fleet.permit().grant_until_ms.is_some());
}
