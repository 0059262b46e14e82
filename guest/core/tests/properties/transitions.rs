//! The closed list of transitions, walked one by one; and the ways out of every state.

use std::collections::BTreeSet;

use circuitry_core::record::{OverrideKind, State, TRANSITIONS, Token, TransitionReason};
use circuitry_core::settings::{HalfOpenLimit, Overdue, Quorum};
use circuitry_core::{Outcome, Settings};

use crate::script::Script;

const STATES: [State; 3] = [State::Closed, State::Open, State::HalfOpen];
const REASONS: [TransitionReason; 8] = [
    TransitionReason::Tripped,
    TransitionReason::OpenTimeOver,
    TransitionReason::ProbesSucceeded,
    TransitionReason::ProbeFailed,
    TransitionReason::VotesReached,
    TransitionReason::HalfOpenOverdueOpened,
    TransitionReason::HalfOpenOverdueClosed,
    TransitionReason::Reset,
];

fn settings() -> Settings {
    Settings { failure_count_threshold: 0, allow_after_ms: 1_000, ..Settings::default() }
}

fn limited(then: Overdue) -> Settings {
    Settings { half_open_limit: Some(HalfOpenLimit { after_ms: 500, then }), ..settings() }
}

/// A circuit in the state that `from` names.
fn in_state(from: State, settings: Settings) -> Script {
    let mut script = Script::begun(settings);
    if from != State::Closed && script.settings.quorum.is_some() {
        script.vote("node");
    } else if from != State::Closed {
        script.failures(1);
    }
    if from == State::HalfOpen {
        script.half_open();
    }
    assert_eq!(script.state(), from);
    script
}

/// Whatever brings a circuit from one state into the next for that reason.
fn bring(script: &mut Script, reason: TransitionReason) {
    let started = script.sequence;
    match reason {
        TransitionReason::Tripped => {
            script.failures(1);
        }
        TransitionReason::VotesReached => {
            script.vote("node");
        }
        TransitionReason::OpenTimeOver => {
            script.half_open();
        }
        TransitionReason::ProbesSucceeded | TransitionReason::ProbeFailed => {
            let well = reason == TransitionReason::ProbesSucceeded;
            let probe = Token { node: script.node, sequence: started };
            script.probe_ends(probe, if well { Outcome::Success } else { Outcome::Failure });
        }
        TransitionReason::HalfOpenOverdueOpened | TransitionReason::HalfOpenOverdueClosed => {
            let _ = script.wait(500).start();
        }
        TransitionReason::Reset => {
            script.reset();
        }
    }
}

fn settings_for(reason: TransitionReason) -> Settings {
    match reason {
        TransitionReason::VotesReached => {
            Settings { quorum: Some(Quorum { votes: 1, window_ms: 1_000 }), ..settings() }
        }
        TransitionReason::HalfOpenOverdueOpened => limited(Overdue::Opens),
        TransitionReason::HalfOpenOverdueClosed => limited(Overdue::Closes),
        _ => settings(),
    }
}

#[test]
fn every_legal_transition_is_reached_and_the_list_has_no_other() {
    let mut walked = BTreeSet::new();
    for (from, to, reason) in TRANSITIONS {
        let mut script = in_state(from, settings_for(reason));
        let before = script.record();
        bring(&mut script, reason);
        let after = script.record();
        let change = after.transitions.last().unwrap();
        assert_eq!((change.previous, change.next, change.reason), (from, to, reason));
        assert_eq!((after.status.state(), after.era), (to, change.era));
        assert!(after.era > before.era);
        assert_eq!(after.transitions.len(), before.transitions.len() + 1);
        walked.insert((from, to, format!("{reason:?}")));
    }
    assert_eq!(walked.len(), TRANSITIONS.len());
    // Each reason belongs to one transition, but a person's to all states.
    for reason in REASONS {
        let of_it = TRANSITIONS.iter().filter(|(.., listed)| *listed == reason).count();
        assert_eq!(of_it, if reason == TransitionReason::Reset { STATES.len() } else { 1 }, "{reason:?}");
    }
}

#[test]
fn what_does_not_belong_to_a_state_does_not_change_it() {
    for state in STATES {
        for reason in REASONS {
            if TRANSITIONS.iter().any(|(from, _, listed)| (*from, *listed) == (state, reason)) {
                continue;
            }
            let mut script = in_state(state, settings_for(reason));
            let before = script.record();
            match reason {
                // Nobody can be asked to wait for an open time where there is none.
                TransitionReason::OpenTimeOver => {
                    let _ = script.wait(1_000).start();
                }
                reason => bring(&mut script, reason),
            }
            let after = script.record();
            // A start after a wait may find an open time over; that is its own transition.
            let changes = &after.transitions[before.transitions.len()..];
            assert!(
                changes.iter().all(|change| change.reason != reason),
                "{state:?}, {reason:?}: {changes:?}"
            );
        }
    }
}

#[test]
fn there_is_a_way_out_of_every_state() {
    for state in STATES {
        assert!(TRANSITIONS.iter().any(|(from, to, _)| *from == state && to != from));
    }
    // From each into each of the others, and under every override as soon as that is taken away.
    for kind in [
        None,
        Some(OverrideKind::ForcedOpen),
        Some(OverrideKind::ForcedClosed),
        Some(OverrideKind::Disabled),
        Some(OverrideKind::MetricsOnly),
    ] {
        for from in STATES {
            let mut script = in_state(from, settings());
            script.force(kind);
            assert_eq!(script.state(), from);
            script.force(None);
            // Whatever holds a place gives it up with its lease.
            script.wait(settings().probe_timeout_ms + settings().allow_after_ms);
            for _ in 0..2 {
                if script.state() == State::Closed {
                    script.failures(1);
                }
                let probe = script.half_open();
                script.probe_ends(probe, Outcome::Success);
                assert_eq!(script.state(), State::Closed);
            }
            script.reset();
            assert_eq!(script.state(), State::Closed);
        }
    }
}

#[test]
fn a_reset_leaves_nothing_but_the_memory_of_calls() {
    for from in STATES {
        let mut script = in_state(from, settings());
        script.force(Some(OverrideKind::ForcedOpen));
        let before = script.record();
        script.reset();
        let shown = script.shown();
        assert_eq!((shown.state, shown.generation), (State::Closed, before.generation + 1));
        assert_eq!((shown.counts.total, shown.trips_in_a_row, shown.last_trip), (0, 0, None));
        assert_eq!(
            (shown.override_in_force, shown.ramp, shown.votes, shown.probes),
            (None, None, vec![], vec![])
        );
        assert_eq!(shown.transitions.len(), before.transitions.len() + 1);
        assert_eq!(script.record().applied.len(), before.applied.len() + 1);
    }
}
