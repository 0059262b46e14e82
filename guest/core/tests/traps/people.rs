//! Overrides, resets, settings in force, votes, and what a person is told.

use circuitry_core::record::{Counts, OverrideKind, State, TransitionReason, TripKind};
use circuitry_core::request::{ChangeKind, JudgedBy, NextChange, Operation, RefusalReason, Verdict};
use circuitry_core::settings::{Quorum, Window, WindowedRule};
use circuitry_core::{Answer, Outcome, Settings, TripRule};

use crate::fleet::Fault;
use crate::fleet::{BEGIN_MS, Fleet, again, error, of, settings};

#[test]
fn a_disabled_circuit_admits_all_and_counts_nothing() {
    let mut fleet = Fleet::new(settings());
    let earlier = fleet.permit();
    fleet.force(OverrideKind::Disabled, None).unwrap();
    assert_eq!(fleet.permit().judged_by, JudgedBy::Nobody);
    let swaps = fleet.store.swaps;
    assert!(fleet.end(earlier, Outcome::Failure), "also of a permit from before");
    assert_eq!((fleet.information().counts, fleet.store.swaps), (Counts::default(), swaps));
}

#[test]
fn a_probe_that_ends_while_disabled_frees_its_place_and_decides_nothing() {
    let (mut fleet, _) = Fleet::to_be_probed(settings());
    let probe = fleet.probe();
    fleet.force(OverrideKind::Disabled, None).unwrap();
    assert!(fleet.end(probe, Outcome::Failure));
    let information = fleet.information();
    assert_eq!((information.state, information.probes.len()), (State::HalfOpen, 0));
}

#[test]
fn metrics_only_lets_the_machine_run_and_refuses_nobody() {
    let (mut fleet, _) = Fleet::tripped(settings());
    fleet.force(OverrideKind::MetricsOnly, None).unwrap();
    let permit = fleet.permit();
    assert_eq!((permit.judged_by, permit.probe), (JudgedBy::Nobody, None));
    let refusal = permit.would_have_refused.unwrap();
    assert_eq!((refusal.reason, refusal.retry_after_ms), (RefusalReason::Open, 60_000));
    fleet.now_ms += 60_000;
    let probe = fleet.probe();
    assert_eq!((probe.judged_by, probe.would_have_refused), (JudgedBy::Fleet, None));
    assert_eq!(fleet.permit().would_have_refused.unwrap().reason, RefusalReason::TooManyRequests);
    fleet.end(probe, Outcome::Success);
    assert_eq!(fleet.state(), State::Closed);
    let permit = fleet.permit();
    fleet.end(permit, Outcome::Failure);
    assert_eq!(fleet.state(), State::Open, "it trips as ever");
}

#[test]
fn the_last_override_set_replaces_the_others_and_ends_by_store_time() {
    let (mut fleet, _) = Fleet::tripped(settings());
    fleet.force(OverrideKind::Disabled, None).unwrap();
    fleet.force(OverrideKind::ForcedClosed, Some(fleet.now_ms + 30_000)).unwrap();
    assert_eq!(fleet.permit().judged_by, JudgedBy::Fleet);
    fleet.now_ms += 30_000;
    assert_eq!(fleet.refusal(), (RefusalReason::Open, 30_000), "the state underneath goes on as it is");
}

#[test]
fn an_override_that_cannot_be_stored_is_an_error_and_not_in_force() {
    let mut fleet = Fleet::new(settings());
    fleet.permit();
    fleet.store.faults.push_back(Fault::Unavailable);
    error(fleet.force(OverrideKind::ForcedOpen, None));
    fleet.permit();
}

#[test]
fn a_reset_closes_from_every_state_as_if_the_circuit_were_new() {
    for state in [State::Closed, State::Open, State::HalfOpen] {
        let (mut fleet, tripped) = Fleet::to_be_probed(settings());
        let mut permit = tripped;
        match state {
            State::Open => fleet.now_ms -= 1,
            State::HalfOpen => permit = fleet.probe(),
            State::Closed => {
                let probe = fleet.probe();
                fleet.end(probe, Outcome::Success);
                permit = fleet.permit();
            }
        }
        fleet.force(OverrideKind::ForcedOpen, None).unwrap();
        let before = fleet.information();
        assert_eq!(before.state, state);
        fleet.reset();
        let after = fleet.information();
        assert_eq!(
            (after.state, after.counts, after.override_in_force),
            (State::Closed, Counts::default(), None)
        );
        assert_eq!((after.trips_in_a_row, after.last_trip), (0, None));
        assert!(after.era > before.era && after.generation == before.generation + 1);
        assert_eq!(after.transitions.last().unwrap().reason, TransitionReason::Reset);
        assert!(!fleet.end(permit, Outcome::Failure), "what began before is of another era");
    }
}

#[test]
fn a_reset_whose_answer_was_lost_is_done_once() {
    let (mut fleet, _) = Fleet::tripped(settings());
    let caller = fleet.caller();
    fleet.store.faults.push_back(Fault::AnswerLost);
    let failure = fleet.call(Operation::Reset(caller)).unwrap_err();
    let generation = fleet.information().generation;
    match fleet.call(Operation::Reset(again(caller, &failure))).unwrap() {
        Answer::Cleared { already_applied: true, transitions, .. } => assert_eq!(transitions.len(), 1),
        other => panic!("{other:?}"),
    }
    assert_eq!(fleet.information().generation, generation);
}

// ---- settings in force ----

#[test]
fn everybody_decides_by_the_settings_in_force() {
    let mut fleet = Fleet::new(Settings { failure_count_threshold: 3, ..settings() });
    let permit = fleet.permit();
    fleet.settings.failure_count_threshold = 0;
    let caller = fleet.caller();
    let Answer::Started { settings_in_force: Some(others), .. } =
        fleet.call(Operation::Start(caller)).unwrap()
    else {
        panic!("it is not told")
    };
    assert_eq!(others.failure_count_threshold, 3);
    fleet.settle(&[of(permit, Outcome::Failure, 3)]);
    let information = fleet.information();
    assert_eq!((information.state, information.settings_differ), (State::Closed, true));
    assert_eq!(information.settings_in_force.failure_count_threshold, 3);
}

#[test]
fn settings_come_into_force_with_a_transition_unless_their_revision_is_lower() {
    let mut fleet = Fleet::new(Settings { settings_revision: 5, ..settings() });
    fleet.permit();
    fleet.settings = Settings { settings_revision: 4, allow_after_ms: 1_000, ..settings() };
    let permit = fleet.permit();
    fleet.end(permit, Outcome::Failure);
    assert_eq!(fleet.refusal().1, 60_000, "an older deployment does not bring its own back");
    fleet.settings = Settings { settings_revision: 5, allow_after_ms: 7_000, ..settings() };
    fleet.now_ms += 60_000;
    let probe = fleet.probe();
    fleet.end(probe, Outcome::Failure);
    let information = fleet.information();
    assert_eq!((information.settings_differ, information.settings_in_force.allow_after_ms), (false, 7_000));
    assert_eq!(fleet.refusal().1, 7_000);
}

#[test]
fn a_new_process_with_other_settings_changes_nothing_by_looking_or_counting() {
    let mut fleet = Fleet::new(settings());
    let permit = fleet.permit();
    fleet.settings = Settings { settings_revision: 9, failure_count_threshold: 9, ..settings() };
    fleet.end(permit, Outcome::Success);
    fleet.permit();
    assert!(fleet.information().settings_differ);
}

#[test]
fn windows_of_other_settings_are_read_by_those_in_force() {
    let rule = |calls| {
        vec![TripRule::FailureCount(WindowedRule {
            threshold: 3,
            minimum_calls: 1,
            window: Window::Calls(calls),
        })]
    };
    let mut fleet = Fleet::new(Settings { trip_rules: rule(10), ..settings() });
    let permit = fleet.permit();
    fleet.settle(&[of(permit, Outcome::Failure, 2)]);
    fleet.settings.trip_rules = rule(1_000);
    fleet.settle(&[of(permit, Outcome::Failure, 1)]);
    assert_eq!(fleet.state(), State::Open);
}

#[test]
fn a_record_of_schema_1_keeps_its_state_and_takes_the_settings_of_who_writes() {
    let (mut fleet, _) = Fleet::tripped(settings());
    fleet.forget_settings();
    fleet.settings.allow_after_ms = 5_000;
    assert_eq!(fleet.refusal(), (RefusalReason::Open, 60_000), "an upgrade resets no circuit");
    assert!(!fleet.information().settings_differ);
    fleet.now_ms += 60_000;
    fleet.probe();
    assert_eq!(fleet.record().in_force.unwrap().settings(1).unwrap().allow_after_ms, 5_000);
}

// ---- votes ----

fn quorum(votes: u32) -> Fleet {
    let mut fleet = Fleet::new(Settings { quorum: Some(Quorum { votes, window_ms: 60_000 }), ..settings() });
    assert_eq!(fleet.permit().judged_by, JudgedBy::Node);
    fleet
}

#[test]
fn a_lone_sick_node_does_not_open_the_circuit_for_all() {
    let mut fleet = quorum(2);
    for _ in 0..5 {
        assert_eq!(fleet.vote("a"), (true, 1), "a node has one vote");
    }
    assert_eq!(fleet.state(), State::Closed);
}

#[test]
fn enough_live_votes_trip_the_fleet() {
    let mut fleet = quorum(3);
    fleet.vote("a");
    fleet.vote("b");
    assert_eq!(fleet.vote("c"), (true, 3));
    let information = fleet.information();
    assert_eq!(information.state, State::Open);
    assert_eq!(information.transitions.last().unwrap().reason, TransitionReason::VotesReached);
    let trip = information.last_trip.unwrap();
    assert_eq!((trip.kind, trip.observed, trip.threshold), (TripKind::Votes, 3, 3));
}

#[test]
fn a_vote_ends_with_the_window_and_casting_it_again_prolongs_it() {
    let mut fleet = quorum(3);
    fleet.vote("a");
    fleet.vote("b");
    fleet.now_ms += 59_999;
    fleet.vote("b");
    assert_eq!(fleet.information().votes.len(), 2);
    fleet.now_ms += 1;
    assert_eq!(fleet.vote("c"), (true, 2), "the first node's vote is over");
    assert_eq!(fleet.state(), State::Closed);
}

#[test]
fn a_vote_of_another_era_does_not_count() {
    let mut fleet = quorum(1);
    let old = fleet.information().era;
    fleet.vote("a");
    fleet.now_ms += 60_000;
    let probe = fleet.probe();
    fleet.end(probe, Outcome::Success);
    let caller = fleet.caller();
    let vote = Operation::Vote { caller, era: old, node_id: "a".into() };
    assert!(matches!(fleet.call(vote).unwrap(), Answer::Voted { accepted: false, votes: 0, .. }));
    assert_eq!(fleet.information().votes, []);
}

#[test]
fn a_vote_whose_answer_was_lost_trips_and_is_told_once() {
    let mut fleet = quorum(1);
    let (caller, era) = (fleet.caller(), fleet.information().era);
    let vote = |caller| Operation::Vote { caller, era, node_id: "a".into() };
    fleet.store.faults.push_back(Fault::AnswerLost);
    let failure = fleet.call(vote(caller)).unwrap_err();
    match fleet.call(vote(again(caller, &failure))).unwrap() {
        Answer::Voted { accepted: true, votes: 1, already_applied: true, transitions } => {
            assert_eq!(transitions.len(), 1);
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(fleet.information().transitions.len(), 1);
}

#[test]
fn with_a_quorum_outcomes_on_the_shared_record_never_trip() {
    let mut fleet = quorum(2);
    fleet.force(OverrideKind::ForcedClosed, None).unwrap();
    let permit = fleet.permit();
    assert_eq!(permit.judged_by, JudgedBy::Fleet);
    let caller = fleet.caller();
    fleet.call(Operation::SetOverride(caller, None)).unwrap();
    fleet.settle(&[of(permit, Outcome::Failure, 100)]);
    assert_eq!((fleet.state(), fleet.information().counts.total_failures), (State::Closed, 100));
}

#[test]
fn votes_do_not_trip_under_force_and_do_not_count_while_disabled() {
    let mut fleet = quorum(1);
    fleet.force(OverrideKind::Disabled, None).unwrap();
    assert_eq!(fleet.vote("a"), (false, 0));
    fleet.force(OverrideKind::ForcedClosed, None).unwrap();
    assert_eq!(fleet.vote("a"), (true, 1));
    assert_eq!(fleet.state(), State::Closed);
}

#[test]
fn without_a_quorum_there_is_nothing_to_vote() {
    let mut fleet = Fleet::new(settings());
    fleet.permit();
    assert_eq!(fleet.vote("a"), (false, 0));
}

#[test]
fn a_vote_from_far_ahead_of_the_clock_does_not_live() {
    let mut fleet = quorum(2);
    fleet.now_ms += 3_600_000;
    fleet.vote("a");
    fleet.now_ms = BEGIN_MS;
    assert_eq!(fleet.vote("b"), (true, 1));
}

// ---- what a person is told ----

#[test]
fn an_open_circuit_explains_itself() {
    let rate = WindowedRule { threshold: 500, minimum_calls: 4, window: Window::Calls(10) };
    let mut fleet = Fleet::new(Settings { trip_rules: vec![TripRule::FailureRate(rate)], ..settings() });
    let permit = fleet.permit();
    fleet.settle(&[of(permit, Outcome::Success, 3), of(permit, Outcome::Failure, 3)]);
    fleet.now_ms += 12_000;
    fleet.force(OverrideKind::ForcedOpen, Some(fleet.now_ms + 7_200_000)).unwrap();
    let information = fleet.information();
    assert_eq!(
        information.explanation,
        "Circuit upstream is open since 12 s, for another 48 s, because 50 % of 6 calls failed, 50 % trip. \
         The first start after that is a probe. \
         Every start is refused for another 2 h, by ops: an incident."
    );
    let next = NextChange { kind: ChangeKind::HalfOpen, at_ms: BEGIN_MS + 60_000 };
    assert_eq!(information.next_change, Some(next));
}

#[test]
fn the_next_change_is_the_earliest_that_time_brings() {
    let (mut fleet, _) = Fleet::to_be_probed(settings());
    fleet.probe();
    let lease_end = NextChange { kind: ChangeKind::LeaseEnd, at_ms: fleet.now_ms + 10_000 };
    assert_eq!(fleet.information().next_change, Some(lease_end));
    fleet.force(OverrideKind::ForcedOpen, Some(fleet.now_ms + 5_000)).unwrap();
    let override_end = NextChange { kind: ChangeKind::OverrideEnd, at_ms: fleet.now_ms + 5_000 };
    assert_eq!(fleet.information().next_change, Some(override_end));
}

#[test]
fn every_state_explains_itself_in_a_sentence_that_names_it() {
    let (mut fleet, _) = Fleet::to_be_probed(settings());
    let said = |fleet: &mut Fleet| fleet.information().explanation;
    assert!(
        said(&mut fleet)
            .starts_with("Circuit upstream is half-open since 0 ms, because 1 failure in a row, 1 trip.")
    );
    let probe = fleet.probe();
    assert!(said(&mut fleet).contains("Probes that succeeded: 0 of 1, failed: 0, out: 1."));
    fleet.end(probe, Outcome::Success);
    assert!(said(&mut fleet).starts_with("Circuit upstream is closed since 0 ms. It opened last 60 s ago"));
    let mut unknown = Fleet::new(settings());
    assert_eq!(said(&mut unknown), "Circuit upstream is closed: nothing is stored for it.");
    let Verdict::Permit(_) = unknown.start() else { panic!() };
    unknown.settings.close_threshold = 9;
    assert!(said(&mut unknown).ends_with("The settings in force are not those of this process."));
}
