//! Recovery: how long a circuit opens, how half-open ends, and how the load comes back.

use circuitry_core::record::{OverrideKind, State, Token, TransitionReason, TripKind};
use circuitry_core::request::{Operation, RefusalReason, Verdict};
use circuitry_core::settings::{Backoff, HalfOpenLimit, Overdue, Ramp};
use circuitry_core::{Answer, Caller, Completion, Outcome, Settings};

use crate::fleet::{BEGIN_MS, Fleet, of, settings};

const BACKOFF: Backoff = Backoff { factor_per_mille: 2_000, max_ms: 300_000, healthy_after_ms: 600_000 };

impl Fleet {
    /// Fails once, from closed or with a probe, and says for how long the circuit opened.
    fn open_for_ms(&mut self) -> u64 {
        let permit = self.permit();
        self.end(permit, Outcome::Failure);
        let (reason, left_ms) = self.refusal();
        assert_eq!(reason, RefusalReason::Open);
        left_ms
    }

    pub(crate) fn recover(&mut self) {
        let probe = self.probe();
        self.end(probe, Outcome::Success);
        assert_eq!(self.state(), State::Closed);
    }
}

#[test]
fn a_failed_probe_counts_as_a_trip_and_the_computed_time_is_armed() {
    let mut fleet = Fleet::new(Settings { backoff: Some(BACKOFF), ..settings() });
    for expected_ms in [60_000, 120_000, 240_000, 300_000, 300_000] {
        assert_eq!(fleet.open_for_ms(), expected_ms);
        fleet.now_ms += expected_ms - 1;
        assert_eq!(fleet.refusal(), (RefusalReason::Open, 1));
        fleet.now_ms += 1;
    }
}

#[test]
fn open_times_begin_anew_after_a_healthy_period_only() {
    let mut fleet = Fleet::new(Settings { backoff: Some(BACKOFF), ..settings() });
    fleet.now_ms += fleet.open_for_ms();
    fleet.recover();
    fleet.now_ms += 599_999;
    assert_eq!(fleet.open_for_ms(), 120_000, "it was not healthy for long enough");
    fleet.now_ms += 120_000;
    fleet.recover();
    fleet.now_ms += 600_000;
    assert_eq!(fleet.open_for_ms(), 60_000);
}

#[test]
fn without_backoff_every_open_time_is_the_same() {
    let mut fleet = Fleet::new(settings());
    for _ in 0..3 {
        assert_eq!(fleet.open_for_ms(), 60_000);
        fleet.now_ms += 60_000;
    }
    assert_eq!(fleet.information().trips_in_a_row, 3);
}

#[test]
fn jitter_shortens_by_name_and_era_and_is_equal_in_every_process() {
    let jittered = |start_ms| {
        let mut fleet = Fleet::new(Settings { jitter_per_mille: 200, ..settings() });
        fleet.now_ms = BEGIN_MS + start_ms;
        fleet.open_for_ms()
    };
    let times: Vec<u64> = (0..50).map(jittered).collect();
    assert_eq!(times, (0..50).map(jittered).collect::<Vec<_>>());
    assert!(times.iter().all(|open_ms| (48_000..=60_000).contains(open_ms)), "{times:?}");
    assert!(times.iter().min() < Some(&50_000) && times.iter().max() > Some(&58_000), "{times:?}");
}

#[test]
fn an_upstreams_wish_lengthens_the_open_time_as_far_as_it_counts() {
    let open_for_ms = |retry_after_max_ms, retry_after_ms| {
        let mut fleet = Fleet::new(Settings { retry_after_max_ms, ..settings() });
        let permit = fleet.permit();
        fleet.settle(&[Completion { retry_after_ms, ..of(permit, Outcome::Failure, 1) }]);
        fleet.refusal().1
    };
    assert_eq!(open_for_ms(600_000, Some(90_000)), 90_000);
    assert_eq!(open_for_ms(600_000, Some(10_000)), 60_000, "it never shortens");
    assert_eq!(open_for_ms(70_000, Some(u64::MAX)), 70_000);
    assert_eq!(open_for_ms(0, Some(90_000)), 60_000);
}

#[test]
fn an_upstreams_wish_counts_with_a_failed_probe_too_and_not_with_a_late_failure() {
    let mut fleet = Fleet::new(Settings { retry_after_max_ms: 600_000, ..settings() });
    let late = fleet.permit();
    assert_eq!(fleet.open_for_ms(), 60_000);
    fleet.settle(&[Completion { retry_after_ms: Some(500_000), ..of(late, Outcome::Failure, 1) }]);
    assert_eq!(fleet.refusal().1, 60_000);
    fleet.now_ms += 60_000;
    let probe = fleet.probe();
    fleet.settle(&[Completion { retry_after_ms: Some(90_000), ..of(probe, Outcome::Failure, 1) }]);
    assert_eq!(fleet.refusal().1, 90_000);
}

// ---- half-open ----

fn probing(close_threshold: u32, probes: u32, probes_at_once: u32) -> Fleet {
    let (probes, probes_at_once) = (Some(probes), Some(probes_at_once));
    let own = Settings { close_threshold, probes, probes_at_once, ..settings() };
    Fleet::to_be_probed(own).0
}

#[test]
fn no_more_probes_are_out_than_at_once_although_more_are_to_come() {
    let mut fleet = probing(3, 5, 2);
    let first = fleet.probe();
    fleet.probe();
    assert_eq!(fleet.refusal().0, RefusalReason::TooManyRequests);
    fleet.end(first, Outcome::Success);
    fleet.probe();
    assert_eq!(fleet.refusal().0, RefusalReason::TooManyRequests);
}

#[test]
fn a_phase_bears_as_many_failures_as_leave_enough_probes() {
    let mut fleet = probing(3, 5, 5);
    let probes: Vec<_> = (0..5).map(|_| fleet.probe()).collect();
    fleet.end(probes[0], Outcome::Failure);
    fleet.end(probes[1], Outcome::Success);
    fleet.end(probes[2], Outcome::Failure);
    assert_eq!(fleet.state(), State::HalfOpen);
    fleet.end(probes[3], Outcome::Failure);
    assert_eq!(fleet.state(), State::Open);
    let trip = fleet.information().last_trip.unwrap();
    assert_eq!((trip.kind, trip.observed, trip.threshold, trip.calls), (TripKind::Probe, 3, 3, 4));
}

#[test]
fn enough_successes_close_whatever_failed_before() {
    let mut fleet = probing(2, 4, 1);
    for outcome in [Outcome::Failure, Outcome::Success, Outcome::Failure] {
        let probe = fleet.probe();
        fleet.end(probe, outcome);
        assert_eq!(fleet.state(), State::HalfOpen);
    }
    fleet.recover();
}

#[test]
fn an_ignored_outcome_on_the_last_probe_leaves_its_place_to_another() {
    let mut fleet = probing(2, 2, 2);
    let (first, second) = (fleet.probe(), fleet.probe());
    fleet.end(first, Outcome::Success);
    fleet.end(second, Outcome::Ignored);
    fleet.recover();
}

fn limited(then: Overdue) -> Fleet {
    let limit = HalfOpenLimit { after_ms: 20_000, then };
    Fleet::to_be_probed(Settings { half_open_limit: Some(limit), backoff: Some(BACKOFF), ..settings() }).0
}

#[test]
fn an_overdue_phase_opens_as_of_the_time_at_which_it_was_over() {
    let mut fleet = limited(Overdue::Opens);
    let probe = fleet.probe();
    let began_ms = fleet.now_ms;
    fleet.now_ms += 20_000 + 5_000;
    // A look shows it and writes nothing.
    let information = fleet.information();
    assert_eq!((information.state, information.since_ms), (State::Open, began_ms + 20_000));
    assert_eq!(information.expires_at_ms, Some(began_ms + 20_000 + 120_000));
    assert_eq!(fleet.refusal(), (RefusalReason::Open, 115_000));
    let last = *fleet.information().transitions.last().unwrap();
    assert_eq!((last.reason, last.at_ms), (TransitionReason::HalfOpenOverdueOpened, began_ms + 20_000));
    assert_eq!(last.era, fleet.now_ms, "an era is of the time at which it was begun");
    assert!(!fleet.end(probe, Outcome::Success), "the probe is of another era now");
}

#[test]
fn after_a_long_idle_time_an_overdue_phase_costs_no_open_time_more() {
    let mut fleet = limited(Overdue::Opens);
    fleet.probe();
    fleet.now_ms += 3_600_000;
    assert_eq!(fleet.state(), State::HalfOpen);
    fleet.probe();
    let reasons: Vec<_> =
        fleet.information().transitions.iter().rev().take(2).map(|transition| transition.reason).collect();
    assert_eq!(reasons, [TransitionReason::OpenTimeOver, TransitionReason::HalfOpenOverdueOpened]);
    assert_eq!(fleet.information().trips_in_a_row, 2, "it counts as a trip all the same");
}

#[test]
fn an_overdue_phase_closes_where_the_settings_say_so() {
    let mut fleet = limited(Overdue::Closes);
    fleet.probe();
    fleet.now_ms += 19_999;
    assert_eq!(fleet.state(), State::HalfOpen);
    fleet.now_ms += 1;
    assert_eq!(fleet.state(), State::Closed);
    assert_eq!(fleet.permit().probe, None);
}

#[test]
fn a_probe_that_ends_when_the_phase_is_overdue_is_stale_also_before_anybody_noticed() {
    for then in [Overdue::Opens, Overdue::Closes] {
        let mut fleet = limited(then);
        let (probe, swaps) = (fleet.probe(), fleet.store.swaps);
        fleet.now_ms += 20_000;
        let state = fleet.state();
        assert_eq!(fleet.renew(probe), None);
        assert!(!fleet.end(probe, Outcome::Success));
        assert_eq!((fleet.state(), fleet.store.swaps), (state, swaps));
    }
}

#[test]
fn what_an_overdue_phase_became_does_not_vanish_before_its_time() {
    for (then, lasts_ms) in [(Overdue::Opens, 120_000), (Overdue::Closes, 300_000)] {
        let limit = HalfOpenLimit { after_ms: 20_000, then };
        let own = Settings {
            half_open_limit: Some(limit),
            backoff: (then == Overdue::Opens).then_some(BACKOFF),
            cyclic_clear_after_ms: Some(300_000),
            idle_retention_ms: 1,
            ..settings()
        };
        let mut fleet = Fleet::to_be_probed(own).0;
        fleet.probe();
        assert_eq!(fleet.store.ttl_ms, Some(20_000 + lasts_ms + 1), "nobody need write for that");
        fleet.now_ms += 25_000;
        fleet.force(OverrideKind::MetricsOnly, Some(fleet.now_ms + 1)).unwrap();
        assert_eq!(
            fleet.store.ttl_ms,
            Some(lasts_ms - 5_000 + 1),
            "nor does somebody else who writes shorten it"
        );
    }
}

// ---- the ramp ----

fn ramping() -> Fleet {
    let ramp = Ramp { steps_per_mille: vec![100, 250, 500], step_ms: 60_000 };
    let own = Settings { ramp: Some(ramp), failure_count_threshold: 5, ..settings() };
    let mut fleet = Fleet::new(own);
    assert!(matches!(fleet.start(), Verdict::Permit(_)), "a circuit that never opened has no ramp");
    let permit = fleet.permit();
    fleet.settle(&[of(permit, Outcome::Failure, 6)]);
    fleet.now_ms += 60_000;
    fleet.recover();
    fleet
}

/// How many of a thousand consecutive starts of a node are admitted.
fn admitted(fleet: &mut Fleet, node: u64, first: u64) -> usize {
    let swaps = fleet.store.swaps;
    let admitted = (first..first + 1_000)
        .filter(|sequence| {
            let caller = Caller { token: Token { node, sequence: *sequence }, retry_of: None };
            matches!(fleet.start_as(caller), Verdict::Permit(_))
        })
        .count();
    assert_eq!(fleet.store.swaps, swaps, "a ramp costs no write");
    admitted
}

#[test]
fn a_ramp_admits_its_share_in_every_process() {
    let mut fleet = ramping();
    for share in [100, 250, 500, 1_000] {
        for (node, first) in [(7, 1), (8, 1_000_000_007), (9, u64::MAX - 2_000)] {
            assert_eq!(admitted(&mut fleet, node, first), share);
        }
        fleet.now_ms += 60_000;
    }
}

#[test]
fn a_start_that_a_ramp_refuses_is_told_when_the_next_step_begins() {
    let mut fleet = ramping();
    fleet.now_ms += 20_000;
    let caller = Caller { token: Token { node: 7, sequence: 1 }, retry_of: None };
    let Verdict::Refusal(refusal) = fleet.start_as(caller) else { panic!() };
    assert_eq!((refusal.reason, refusal.retry_after_ms), (RefusalReason::Ramp, 40_000));
    assert_eq!(fleet.state(), State::Closed);
}

#[test]
fn a_failure_puts_a_ramp_one_step_back() {
    let mut fleet = ramping();
    fleet.now_ms += 130_000;
    let share = |fleet: &mut Fleet| {
        fleet.information().ramp.map(|ramp| (ramp.share_per_mille, ramp.next_step_at_ms - fleet.now_ms))
    };
    assert_eq!(share(&mut fleet), Some((500, 50_000)));
    let era = fleet.information().era;
    let failure = Completion {
        era,
        probe: None,
        outcome: Outcome::Failure,
        slow: false,
        count: 1,
        retry_after_ms: None,
    };
    fleet.settle(&[failure]);
    assert_eq!(share(&mut fleet), Some((250, 60_000)), "the step before begins now");
    fleet.settle(&[failure, failure]);
    assert_eq!(share(&mut fleet), Some((100, 60_000)), "and there is none before the first");
    fleet.now_ms += 180_000;
    assert_eq!(share(&mut fleet), None);
    fleet.settle(&[failure]);
    assert_eq!(share(&mut fleet), None, "a ramp that is over stays over");
    assert_eq!(fleet.information().era, era);
}

#[test]
fn an_override_stands_above_a_ramp() {
    let mut fleet = ramping();
    fleet.force(OverrideKind::ForcedClosed, None).unwrap();
    assert_eq!(admitted(&mut fleet, 7, 1), 1_000);
    fleet.force(OverrideKind::MetricsOnly, None).unwrap();
    let caller = Caller { token: Token { node: 7, sequence: 1 }, retry_of: None };
    let Answer::Started { verdict: Verdict::Permit(permit), .. } =
        fleet.call(Operation::Start(caller)).unwrap()
    else {
        panic!()
    };
    assert_eq!(permit.would_have_refused.unwrap().reason, RefusalReason::Ramp);
}
