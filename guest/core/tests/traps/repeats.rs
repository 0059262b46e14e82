//! Distributed: lost answers and repeated calls.

use circuitry_core::exchange::StoreError;
use circuitry_core::record::{OverrideKind, Token};
use circuitry_core::request::{Disposition, Operation, RefusalReason, Verdict};
use circuitry_core::{Answer, Caller, Error, Outcome, Settings};

use crate::fleet::{Fault, Fleet, again, error, of, settings};

fn bearing(failure_count_threshold: u64) -> Settings {
    Settings { failure_count_threshold, ..settings() }
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
    assert!(fleet.record().applied.is_empty(), "a start needs no token but its probe's");
    fleet.settle(&[of(permit, Outcome::Failure, 9), of(permit, Outcome::Success, 1)]);
    let call = fleet.record().applied.to_vec()[0].clone();
    assert_eq!((call.stale.len(), call.cut), (0, None));
    assert!(!fleet.record().applied.is_empty());
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
    let Answer::Started { verdict: Verdict::Permit(permit), transitions, .. } = answer else { panic!() };
    assert_eq!(permit.probe.unwrap().id, caller.token);
    assert_eq!(transitions.len(), 1);
    assert_eq!(fleet.information().probes.len(), 1);
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
