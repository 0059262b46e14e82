//! Distributed: lost races, what is asked of the store, and transitions.

use circuitry_core::exchange::StoreError;
use circuitry_core::record::{OverrideKind, State, TRANSITIONS, Token};
use circuitry_core::request::{Disposition, Operation, RefusalReason, Verdict};
use circuitry_core::settings::{HalfOpenLimit, Overdue, Quorum};
use circuitry_core::{Answer, Caller, Decision, Error, Loaded, Outcome, Settings, decide};

use crate::fleet::{Fault, Fleet, of, settings};

fn bearing(failure_count_threshold: u64) -> Settings {
    Settings { failure_count_threshold, ..settings() }
}

#[test]
fn a_strict_call_loads_once_and_a_known_entry_costs_no_load() {
    let mut fleet = Fleet::new(bearing(100));
    let permit = fleet.permit();
    fleet.store.loads = 0;
    let caller = fleet.caller();
    let (_, seen) = fleet.call_knowing(None, Operation::Start(caller)).unwrap();
    assert_eq!((fleet.store.loads, &seen), (1, &fleet.seen()));
    let end = Operation::End(fleet.caller(), vec![of(permit, Outcome::Success, 1)]);
    let (_, seen) = fleet.call_knowing(Some(seen), end).unwrap();
    assert_eq!((fleet.store.loads, &seen), (1, &fleet.seen()));
}

#[test]
fn a_start_on_a_closed_circuit_writes_nothing() {
    let mut fleet = Fleet::new(settings());
    fleet.permit();
    fleet.store.swaps = 0;
    fleet.permit();
    assert_eq!(fleet.store.swaps, 0);
}

#[test]
fn a_refused_start_writes_nothing() {
    let (mut fleet, _) = Fleet::tripped(settings());
    fleet.store.swaps = 0;
    fleet.refusal();
    fleet.now_ms += 60_000;
    fleet.probe();
    assert_eq!(fleet.store.swaps, 1);
    fleet.refusal();
    fleet.force(OverrideKind::ForcedOpen, None).unwrap();
    fleet.refusal();
    assert_eq!(fleet.store.swaps, 2);
}

#[test]
fn a_lost_race_is_decided_again_on_the_entry_that_won_without_another_load() {
    let mut fleet = Fleet::new(bearing(100));
    let permit = fleet.permit();
    let old = fleet.seen();
    fleet.end(permit, Outcome::Failure);
    (fleet.store.loads, fleet.store.swaps) = (0, 0);
    let end = Operation::End(fleet.caller(), vec![of(permit, Outcome::Failure, 1)]);
    let (_, seen) = fleet.call_knowing(Some(old), end).unwrap();
    assert_eq!((fleet.store.loads, fleet.store.swaps), (0, 2));
    assert_eq!(fleet.information().counts.consecutive_failures, 2);
    assert_eq!(seen, fleet.seen());
}

#[test]
fn an_outcome_that_an_old_entry_denies_is_decided_on_a_loaded_one() {
    let mut fleet = Fleet::new(bearing(100));
    let nothing = fleet.seen();
    let permit = fleet.permit();
    (fleet.store.loads, fleet.store.swaps) = (0, 0);
    let end = Operation::End(fleet.caller(), vec![of(permit, Outcome::Failure, 1)]);
    let (answer, seen) = fleet.call_knowing(Some(nothing), end).unwrap();
    let Answer::Settled { dispositions, .. } = answer else { panic!() };
    assert_eq!(dispositions, [Disposition { accepted: 1, stale: 0 }]);
    assert_eq!((fleet.store.loads, fleet.store.swaps, seen), (1, 1, fleet.seen()));
}

#[test]
fn a_lease_that_an_old_entry_denies_is_renewed_on_a_loaded_one() {
    let (mut fleet, _) = Fleet::to_be_probed(settings());
    let old = fleet.seen();
    let probe = fleet.probe();
    fleet.now_ms += 1_000;
    (fleet.store.loads, fleet.store.swaps) = (0, 0);
    let probes = vec![probe.probe.unwrap().id];
    let renew = Operation::Renew { caller: fleet.caller(), era: probe.era, probes };
    let (answer, _) = fleet.call_knowing(Some(old), renew).unwrap();
    assert_eq!(answer, Answer::Renewed(vec![Some(fleet.now_ms + 10_000)]));
    assert_eq!((fleet.store.loads, fleet.store.swaps), (1, 1));
}

#[test]
fn what_a_load_or_a_lost_race_has_shown_is_denied_without_another_load() {
    let mut fleet = Fleet::new(settings());
    let permit = fleet.permit();
    let closed = fleet.seen();
    fleet.end(permit, Outcome::Failure);
    let open = fleet.seen();
    for (known, loads, swaps) in [(None, 1, 0), (Some(closed), 0, 1), (Some(open), 1, 0)] {
        (fleet.store.loads, fleet.store.swaps) = (0, 0);
        let end = Operation::End(fleet.caller(), vec![of(permit, Outcome::Failure, 1)]);
        let (answer, _) = fleet.call_knowing(known, end).unwrap();
        let Answer::Settled { dispositions, .. } = answer else { panic!() };
        assert_eq!(dispositions, [Disposition { accepted: 0, stale: 1 }]);
        assert_eq!((fleet.store.loads, fleet.store.swaps), (loads, swaps));
    }
}

#[test]
fn an_ignored_outcome_is_accepted_on_a_known_entry_without_a_load_or_a_swap() {
    let mut fleet = Fleet::new(settings());
    let permit = fleet.permit();
    (fleet.store.loads, fleet.store.swaps) = (0, 0);
    let known = fleet.seen();
    let end = Operation::End(fleet.caller(), vec![of(permit, Outcome::Ignored, 3)]);
    let (answer, _) = fleet.call_knowing(Some(known), end).unwrap();
    let Answer::Settled { dispositions, .. } = answer else { panic!() };
    assert_eq!(dispositions, [Disposition { accepted: 3, stale: 0 }]);
    assert_eq!((fleet.store.loads, fleet.store.swaps), (0, 0));
}

#[test]
fn a_denial_that_cannot_be_verified_is_an_error_with_what_was_known() {
    let (mut fleet, permit) = Fleet::tripped(settings());
    let known = fleet.seen();
    fleet.store.down = true;
    let end = Operation::End(fleet.caller(), vec![of(permit, Outcome::Failure, 1)]);
    let failure = fleet.call_knowing(Some(known.clone()), end).unwrap_err();
    assert_eq!(failure.error, Error::Store(StoreError::Unavailable("down".into())));
    assert_eq!((failure.last_seen, failure.revision), (Some(known), None));
}

#[test]
fn a_refusal_by_a_known_entry_costs_no_load() {
    let (mut fleet, _) = Fleet::tripped(settings());
    fleet.store.loads = 0;
    let (known, start) = (fleet.seen(), Operation::Start(fleet.caller()));
    let (answer, _) = fleet.call_knowing(Some(known), start).unwrap();
    assert!(matches!(answer, Answer::Started { verdict: Verdict::Refusal { .. }, .. }));
    assert_eq!(fleet.store.loads, 0);
}

#[test]
fn two_starts_that_race_for_the_last_place_get_one_permit() {
    let (mut fleet, _) = Fleet::to_be_probed(settings());
    let old = fleet.seen();
    fleet.probe();
    let start = Operation::Start(fleet.caller());
    let (answer, _) = fleet.call_knowing(Some(old), start).unwrap();
    assert!(matches!(
        answer,
        Answer::Started {
            verdict: Verdict::Refusal(circuitry_core::request::Refusal { reason: RefusalReason::TooManyRequests, .. }),
            transitions,
            ..
        } if transitions.is_empty()
    ));
}

#[test]
fn two_failures_that_race_past_the_threshold_trip_once() {
    let mut fleet = Fleet::new(bearing(1));
    let permit = fleet.permit();
    fleet.end(permit, Outcome::Failure);
    let old = fleet.seen();
    let first = fleet.settle(&[of(permit, Outcome::Failure, 1)]);
    let end = Operation::End(fleet.caller(), vec![of(permit, Outcome::Failure, 1)]);
    let (answer, _) = fleet.call_knowing(Some(old), end).unwrap();
    let Answer::Settled { dispositions, transitions, .. } = answer else { panic!() };
    assert_eq!((first.transitions.len(), transitions.len()), (1, 0));
    assert_eq!(dispositions, [Disposition { accepted: 0, stale: 1 }]);
    assert_eq!(fleet.information().transitions.len(), 1);
}

#[test]
fn the_first_starts_of_a_new_circuit_share_one_era() {
    let mut fleet = Fleet::new(settings());
    let nothing = fleet.seen();
    let first = fleet.permit();
    fleet.now_ms += 5;
    let start = Operation::Start(fleet.caller());
    let (answer, _) = fleet.call_knowing(Some(nothing), start).unwrap();
    let Answer::Started { verdict: Verdict::Permit(second), .. } = answer else { panic!() };
    assert_eq!((first.era, second.era), (fleet.now_ms - 5, fleet.now_ms - 5));
}

#[test]
fn contention_after_8_lost_races_carries_the_fresh_entry_and_nothing_is_written() {
    let mut fleet = Fleet::new(bearing(100));
    let permit = fleet.permit();
    fleet.store.faults = [Fault::Race; 9].into();
    (fleet.store.loads, fleet.store.swaps) = (0, 0);
    let caller = fleet.caller();
    let failure = fleet.call(Operation::End(caller, vec![of(permit, Outcome::Success, 1)])).unwrap_err();
    assert_eq!(failure.error, Error::Contention);
    assert_eq!(failure.last_seen, Some(fleet.seen()));
    assert_eq!(failure.revision, None);
    assert_eq!((fleet.store.loads, fleet.store.swaps), (1, 8));
    // The ninth race was not run; from the fresh entry on the call is applied.
    fleet.store.faults.clear();
    let end = Operation::End(caller, vec![of(permit, Outcome::Success, 1)]);
    fleet.call_knowing(failure.last_seen, end).unwrap();
    assert_eq!(fleet.information().counts.total, 1);
}

#[test]
fn the_eighth_swap_may_still_win() {
    let mut fleet = Fleet::new(bearing(100));
    let permit = fleet.permit();
    fleet.store.faults = [Fault::Race; 7].into();
    assert!(fleet.end(permit, Outcome::Success));
    assert_eq!(fleet.information().counts.total, 1);
}

#[test]
fn a_transition_is_announced_to_the_one_who_made_it() {
    let (mut fleet, _) = Fleet::to_be_probed(Settings { close_threshold: 2, ..settings() });
    let told = |answer: Answer| match answer {
        Answer::Started { transitions, .. } => transitions.len(),
        other => panic!("{other:?}"),
    };
    let (first, second) = (fleet.caller(), fleet.caller());
    assert_eq!(told(fleet.call(Operation::Start(first)).unwrap()), 1);
    assert_eq!(told(fleet.call(Operation::Start(second)).unwrap()), 0);
    // Of the same process, but another call.
    assert_eq!(first.token.node, second.token.node);
}

#[test]
fn an_error_of_the_store_is_not_a_lost_race() {
    let mut fleet = Fleet::new(settings());
    let permit = fleet.permit();
    (fleet.store.loads, fleet.store.swaps) = (0, 0);
    fleet.store.faults = [Fault::Unavailable].into();
    let caller = fleet.caller();
    let failure = fleet.settle_as(caller, &[of(permit, Outcome::Failure, 1)]).err().unwrap();
    assert_eq!(failure.error, Error::Store(StoreError::Unavailable("throttled".into())));
    assert_eq!((failure.last_seen, failure.revision), (Some(fleet.seen()), None));
    assert_eq!((fleet.store.loads, fleet.store.swaps), (1, 1));
}

#[test]
fn an_outage_is_an_error_and_no_fresh_closed_circuit() {
    let (mut fleet, _) = Fleet::tripped(settings());
    fleet.store.down = true;
    let caller = fleet.caller();
    let failure = fleet.call(Operation::Start(caller)).unwrap_err();
    assert_eq!(failure.error, Error::Store(StoreError::Unavailable("down".into())));
    assert_eq!((failure.last_seen, failure.revision), (None, None));
}

#[test]
fn a_bad_argument_costs_no_load_and_keeps_what_was_known() {
    let mut fleet = Fleet::new(settings());
    fleet.permit();
    fleet.store.loads = 0;
    let known = Some(fleet.seen());
    let end = Operation::End(fleet.caller(), vec![]);
    let failure = fleet.call_knowing(known.clone(), end).unwrap_err();
    assert!(matches!(failure.error, Error::Request(_)));
    assert_eq!((failure.last_seen, fleet.store.loads), (known, 0));
}

#[test]
fn an_answer_that_depends_on_a_write_is_given_only_with_it() {
    let (fleet, _) = Fleet::to_be_probed(settings());
    let caller = Caller { token: Token { node: 1, sequence: 99 }, retry_of: None };
    let request = fleet.request(Operation::Start(caller));
    let mut hooks = crate::fleet::Questions::default();
    let Ok(Decision::Write(write)) = decide(&request, &fleet.seen(), fleet.now_ms, &mut hooks) else {
        panic!("a probe's place was given away without a write")
    };
    assert_eq!(write.based_on, fleet.record().revision);
    // Without a record the decision is based on revision 0.
    let Ok(Decision::Write(write)) = decide(&request, &Loaded::default(), fleet.now_ms, &mut hooks) else {
        panic!("an era went out without a write")
    };
    assert_eq!(write.based_on, 0);
}

#[test]
fn every_legal_transition_is_walked_and_there_is_no_other() {
    let mut fleet = Fleet::new(settings());
    let mut walked = Vec::new();
    let mut note = |fleet: &mut Fleet| {
        let last = *fleet.information().transitions.last().unwrap();
        walked.push((last.previous, last.next, last.reason));
    };
    let permit = fleet.permit();
    fleet.end(permit, Outcome::Failure);
    note(&mut fleet);
    fleet.now_ms += 60_000;
    let probe = fleet.probe();
    note(&mut fleet);
    fleet.end(probe, Outcome::Failure);
    fleet.now_ms += 60_000;
    let probe = fleet.probe();
    let failed = fleet.information().transitions[2];
    fleet.end(probe, Outcome::Success);
    note(&mut fleet);
    let states: Vec<State> =
        fleet.information().transitions.iter().map(|transition| transition.next).collect();
    assert_eq!(states, [State::Open, State::HalfOpen, State::Open, State::HalfOpen, State::Closed]);
    fleet.reset();
    note(&mut fleet);

    // The limit and the quorum come into force with a reset.
    let limit = |then| Some(HalfOpenLimit { after_ms: 5_000, then });
    fleet.settings.quorum = Some(Quorum { votes: 1, window_ms: 1_000 });
    for then in [Overdue::Opens, Overdue::Closes] {
        fleet.settings.half_open_limit = limit(then);
        fleet.reset();
        fleet.vote("a");
        note(&mut fleet);
        fleet.now_ms += 60_000;
        fleet.probe();
        fleet.now_ms += 5_000;
        fleet.start();
        note(&mut fleet);
    }
    fleet.vote("a");
    fleet.reset();
    note(&mut fleet);
    fleet.vote("a");
    fleet.now_ms += 60_000;
    fleet.probe();
    fleet.reset();
    note(&mut fleet);

    walked.push((failed.previous, failed.next, failed.reason));
    walked.sort_by_key(|walk| format!("{walk:?}"));
    walked.dedup();
    let mut legal = TRANSITIONS.to_vec();
    legal.sort_by_key(|walk| format!("{walk:?}"));
    assert_eq!(walked, legal);
}

#[test]
fn the_last_8_transitions_are_kept() {
    let (mut fleet, _) = Fleet::to_be_probed(settings());
    for _ in 0..10 {
        let probe = fleet.probe();
        fleet.end(probe, Outcome::Failure);
        fleet.now_ms += 60_000;
    }
    let transitions = fleet.information().transitions;
    assert_eq!(transitions.len(), 8);
    assert_eq!(transitions.last().unwrap().era, fleet.information().era);
}
