//! Distributed: lost races, lost answers, repeated calls.

use circuitry_core::exchange::StoreError;
use circuitry_core::record::{OverrideKind, State, TRANSITIONS, Token};
use circuitry_core::request::{Disposition, Operation, RefusalReason, Verdict};
use circuitry_core::{Answer, Caller, Decision, Error, Loaded, Outcome, Settings, decide};

use crate::fleet::{Fault, Fleet, again, error, of, settings};

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
fn two_starts_that_race_for_the_last_place_get_one_permit() {
    let (mut fleet, _) = Fleet::to_be_probed(settings());
    let old = fleet.seen();
    fleet.probe();
    let start = Operation::Start(fleet.caller());
    let (answer, _) = fleet.call_knowing(Some(old), start).unwrap();
    assert!(matches!(
        answer,
        Answer::Started {
            verdict: Verdict::Refusal { reason: RefusalReason::TooManyRequests, .. },
            transitions
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
    assert_eq!(first, second);
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
fn an_end_whose_answer_was_lost_is_counted_once() {
    for (fault, already_applied) in [(Fault::AnswerLost, true), (Fault::WriteLost, false)] {
        let mut fleet = Fleet::new(bearing(2));
        let permit = fleet.permit();
        let completions = [of(permit, Outcome::Failure, 2)];
        let caller = fleet.caller();
        fleet.store.faults = [fault].into();
        let failure = fleet.settle_as(caller, &completions).err().unwrap();
        assert_eq!(failure.error, Error::Store(StoreError::Unknown("timeout".into())));
        assert_eq!(failure.revision, Some(1));
        let settled = fleet.settle_as(again(caller, &failure), &completions).unwrap();
        assert_eq!(settled.already_applied, already_applied);
        assert_eq!(settled.dispositions, [Disposition { accepted: 2, stale: 0 }]);
        assert_eq!(fleet.information().counts.total, 2);
        // However often it is repeated.
        assert!(fleet.settle_as(caller, &completions).unwrap().already_applied);
        assert_eq!(fleet.information().counts.total, 2);
    }
}

#[test]
fn a_call_that_was_counted_during_a_race_is_known_in_the_entry_that_won() {
    let mut fleet = Fleet::new(bearing(100));
    let permit = fleet.permit();
    let (old, caller) = (fleet.seen(), fleet.caller());
    let completions = [of(permit, Outcome::Failure, 1)];
    fleet.settle_as(caller, &completions).unwrap();
    // The host repeats it on what it knew before.
    let end = Operation::End(caller, completions.to_vec());
    let (answer, _) = fleet.call_knowing(Some(old), end).unwrap();
    assert!(matches!(answer, Answer::Settled { already_applied: true, .. }));
    assert_eq!(fleet.information().counts.total, 1);
}

#[test]
fn a_repeated_end_is_answered_as_the_first_was() {
    let mut fleet = Fleet::new(bearing(3));
    let permit = fleet.permit();
    let strange = circuitry_core::Completion { era: 5, ..of(permit, Outcome::Success, 7) };
    let completions: Vec<_> = (0..20)
        .flat_map(|_| [of(permit, Outcome::Ignored, 2), strange])
        .chain([of(permit, Outcome::Failure, 10), of(permit, Outcome::Success, 1)])
        .collect();
    let caller = fleet.caller();
    let first = fleet.settle_as(caller, &completions).unwrap();
    assert_eq!(first.dispositions[1], Disposition { accepted: 0, stale: 7 });
    assert_eq!(first.dispositions[40], Disposition { accepted: 4, stale: 6 });
    assert_eq!(first.dispositions[41], Disposition { accepted: 0, stale: 1 });
    fleet.now_ms += 60_000;
    fleet.probe();
    let second = fleet.settle_as(caller, &completions).unwrap();
    assert!(!first.already_applied && second.already_applied);
    assert_eq!(second.dispositions, first.dispositions);
    assert_eq!(second.transitions, first.transitions);
}

#[test]
fn what_was_accepted_whole_takes_no_room_in_the_record() {
    let mut fleet = Fleet::new(bearing(100));
    let permit = fleet.permit();
    fleet.settle(&[of(permit, Outcome::Failure, 9), of(permit, Outcome::Success, 1)]);
    let call = fleet.record().applied.to_vec()[0].clone();
    assert_eq!((call.stale.len(), call.cut), (0, None));
    // And of stale ones as much as reaches to the last of them.
    let strange = circuitry_core::Completion { era: 5, ..of(permit, Outcome::Success, 1) };
    let accepted = of(permit, Outcome::Success, 1);
    let mut completions = vec![accepted; 8];
    completions.extend([strange, accepted]);
    fleet.settle(&completions);
    assert_eq!(fleet.record().applied.to_vec()[1].stale.as_slice(), [0, 1]);
}

#[test]
fn a_start_whose_answer_was_lost_takes_one_place_and_tells_its_transition_again() {
    let (mut fleet, _) = Fleet::to_be_probed(Settings { close_threshold: 2, ..settings() });
    let caller = fleet.caller();
    fleet.store.faults = [Fault::AnswerLost].into();
    let failure = fleet.call(Operation::Start(caller)).unwrap_err();
    let revision = fleet.record().revision;
    assert_eq!(failure.revision, Some(revision - 1));
    let answer = fleet.call(Operation::Start(again(caller, &failure))).unwrap();
    let Answer::Started { verdict: Verdict::Permit(permit), transitions } = answer else { panic!() };
    assert_eq!(permit.probe.unwrap().id, caller.token);
    assert_eq!(transitions.len(), 1);
    assert_eq!(fleet.information().probes.len(), 1);
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
fn an_override_whose_answer_was_lost_is_set_once() {
    let mut fleet = Fleet::new(settings());
    fleet.permit();
    let caller = fleet.caller();
    fleet.store.faults = [Fault::AnswerLost].into();
    let failure = fleet.call(Operation::SetOverride(caller, None)).unwrap_err();
    // Somebody else has set another one since.
    fleet.force(OverrideKind::ForcedOpen, None).unwrap();
    let answer = fleet.call(Operation::SetOverride(again(caller, &failure), None)).unwrap();
    assert!(matches!(answer, Answer::Overridden { already_applied: true, .. }));
    assert_eq!(fleet.refusal().0, RefusalReason::ForcedOpen);
}

#[test]
fn a_repeated_call_is_known_for_32_writes_and_then_forgotten_but_not_applied() {
    let mut fleet = Fleet::new(Settings { failure_count_threshold: 1_000, ..settings() });
    let permit = fleet.permit();
    let completions = [of(permit, Outcome::Failure, 1)];
    let caller = fleet.caller();
    fleet.store.faults = [Fault::AnswerLost].into();
    let failure = fleet.settle_as(caller, &completions).err().unwrap();
    let retry = again(caller, &failure);
    for _ in 0..31 {
        fleet.end(permit, Outcome::Success);
    }
    assert!(fleet.settle_as(retry, &completions).unwrap().already_applied);
    fleet.end(permit, Outcome::Success);
    let before = fleet.information();
    assert_eq!(error(fleet.settle_as(retry, &completions)), Error::Forgotten);
    assert_eq!(error(fleet.call(Operation::SetOverride(retry, None))), Error::Forgotten);
    assert_eq!(fleet.information(), before);
}

#[test]
fn a_call_that_was_not_applied_is_applied_while_its_token_could_not_be_forgotten() {
    let mut fleet = Fleet::new(Settings { failure_count_threshold: 1_000, ..settings() });
    let permit = fleet.permit();
    let completions = [of(permit, Outcome::Failure, 1)];
    let caller = fleet.caller();
    fleet.store.faults = [Fault::WriteLost].into();
    let failure = fleet.settle_as(caller, &completions).err().unwrap();
    for _ in 0..32 {
        fleet.end(permit, Outcome::Success);
    }
    assert!(!fleet.settle_as(again(caller, &failure), &completions).unwrap().already_applied);
    assert_eq!(fleet.information().counts.total_failures, 1);
}

#[test]
fn a_call_of_another_process_with_the_same_number_is_another_call() {
    let mut fleet = Fleet::new(bearing(100));
    let permit = fleet.permit();
    for node in 1..=3 {
        let caller = Caller { token: Token { node, sequence: 77 }, retry_of: None };
        assert!(!fleet.settle_as(caller, &[of(permit, Outcome::Success, 1)]).unwrap().already_applied);
    }
    assert_eq!(fleet.information().counts.total, 3);
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
fn every_transition_is_one_of_the_four() {
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
    walked.push((failed.previous, failed.next, failed.reason));
    assert_eq!(walked, TRANSITIONS);
    let states: Vec<State> =
        fleet.information().transitions.iter().map(|transition| transition.next).collect();
    assert_eq!(states, [State::Open, State::HalfOpen, State::Open, State::HalfOpen, State::Closed]);
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
