//! Random sequences of calls: the core against an independent model, and what must hold in any sequence.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::float_arithmetic,
    reason = "the core has no panics and no floats; its tests may"
)]

mod agreement;
mod alone;
mod edges;
mod hooks;
mod hostile;
mod invariants;
mod model;
mod moves;
mod plans;
mod script;
mod sizes;
mod told;
mod transitions;
mod world;

use std::collections::BTreeSet;

use circuitry_core::record::{TRANSITIONS, Transition};
use circuitry_core::request::{Disposition, Operation, Verdict};
use circuitry_core::{Answer, Settings};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{RngAlgorithm, TestCaseError, TestRng, TestRunner};

use crate::model::Reply;
use crate::moves::{Move, beginning, moves, moves_and_losses};
use crate::plans::plans;
use crate::world::World;

/// So many cases, unless the environment says otherwise.
pub(crate) fn cases(usual: u32) -> ProptestConfig {
    let given = ProptestConfig::default();
    let cases = if std::env::var_os("PROPTEST_CASES").is_some() { given.cases } else { usual };
    // What a failing run finds becomes a test with a name, not a file of seeds.
    // Half the time of an unoptimized run went to the usual generator, which is a cipher.
    ProptestConfig { cases, failure_persistence: None, rng_algorithm: RngAlgorithm::XorShift, ..given }
}

pub(crate) fn played(plans: &[Settings], now: u64, moves: &[Move]) -> Result<World, TestCaseError> {
    let mut world = World::new(now);
    for mv in moves {
        world.play(plans, mv)?;
    }
    Ok(world)
}

proptest! {
    #![proptest_config(cases(2_000))]

    #[test]
    fn the_core_answers_as_an_independent_reading_of_the_rules(
        plans in plans(), now in beginning(), moves in moves_and_losses(),
    ) {
        let mut world = played(&plans, now, &moves)?;
        world.call_now(&plans, Operation::Inspect)?;
    }
}

/// Without this a change of the strategies could leave the properties true of nothing.
#[test]
fn random_sequences_reach_every_transition_and_every_kind_of_answer() {
    let random = TestRng::deterministic_rng(RngAlgorithm::XorShift);
    let mut runner = TestRunner::new_with_rng(cases(1), random);
    let mut reached = BTreeSet::new();
    for _ in 0..600 {
        let case = (plans(), beginning(), moves()).new_tree(&mut runner).unwrap().current();
        let mut world = World::new(case.1);
        for mv in &case.2 {
            let before = world.entries.len();
            let Some(played) = world.play(&case.0, mv).unwrap() else { continue };
            if played.wrote && mv.behind % before.min(6) > 0 {
                reached.insert("a lost race that wrote".into());
            }
            reached.extend(kinds(&played.reply));
            if played.wrote {
                let trip =
                    world.newest().and_then(|stored| stored.model.show(&case.0[0], stored.at).last_trip);
                reached.extend(trip.map(|trip| format!("trip: {:?}", trip.kind)));
            }
        }
    }
    let all = [
        "a lost race that wrote",
        "accepted",
        "already applied",
        "already cleared",
        "already overridden",
        "already voted",
        "bad request",
        "cleared",
        "cut in two",
        "forgotten",
        "judged by Fleet",
        "judged by Node",
        "judged by Nobody",
        "lease lost",
        "lease prolonged",
        "other settings in force",
        "overridden",
        "probe",
        "refused: ForcedOpen",
        "refused: Open",
        "refused: Ramp",
        "refused: TooManyRequests",
        "shown",
        "stale",
        "trip: ConsecutiveFailures",
        "trip: Custom",
        "trip: FailureCount",
        "trip: FailureRate",
        "trip: Overdue",
        "trip: Probe",
        "trip: SlowCallRate",
        "trip: Votes",
        "vote counted",
        "vote not counted",
        "would be refused: Open",
        "would be refused: Ramp",
        "would be refused: TooManyRequests",
    ];
    let transitions = TRANSITIONS.iter().map(|(from, to, reason)| format!("{from:?} to {to:?}: {reason:?}"));
    assert_eq!(reached, all.into_iter().map(String::from).chain(transitions).collect());
}

fn kinds(reply: &Reply) -> Vec<String> {
    let changed = |changes: &[Transition]| -> Vec<String> {
        let change = |it: &Transition| format!("{:?} to {:?}: {:?}", it.previous, it.next, it.reason);
        changes.iter().map(change).collect()
    };
    let told = |kind: &str| vec![kind.to_string()];
    let answer = match reply {
        Reply::Forgotten => return told("forgotten"),
        Reply::BadRequest => return told("bad request"),
        Reply::Answer(answer) => answer,
    };
    match answer {
        Answer::Started { verdict, transitions, settings_in_force } => {
            let mut kinds = changed(transitions);
            kinds.extend(settings_in_force.as_ref().map(|_| "other settings in force".into()));
            match verdict {
                Verdict::Permit(permit) => {
                    kinds.push(format!("judged by {:?}", permit.judged_by));
                    kinds.extend(permit.probe.map(|_| "probe".into()));
                    let refusal = permit.would_have_refused;
                    kinds.extend(refusal.map(|refusal| format!("would be refused: {:?}", refusal.reason)));
                }
                Verdict::Refusal(refusal) => kinds.push(format!("refused: {:?}", refusal.reason)),
            }
            kinds
        }
        Answer::Settled { dispositions, already_applied, transitions } => {
            let part = |part: &Disposition| match (part.accepted, part.stale) {
                (_, 0) => "accepted".into(),
                (0, _) => "stale".into(),
                _ => "cut in two".into(),
            };
            let again = already_applied.then(|| "already applied".to_string());
            changed(transitions).into_iter().chain(dispositions.iter().map(part)).chain(again).collect()
        }
        Answer::Renewed(deadlines) => {
            let lease = |at: &Option<u64>| if at.is_some() { "lease prolonged" } else { "lease lost" };
            deadlines.iter().map(|at| lease(at).to_string()).collect()
        }
        Answer::Inspected(_) => told("shown"),
        Answer::Overridden { already_applied: true, .. } => told("already overridden"),
        Answer::Overridden { .. } => told("overridden"),
        Answer::Voted { already_applied: true, .. } => told("already voted"),
        Answer::Voted { accepted, transitions, .. } => {
            let counted = if *accepted { "vote counted" } else { "vote not counted" };
            [changed(transitions), told(counted)].concat()
        }
        Answer::Cleared { already_applied: true, .. } => told("already cleared"),
        Answer::Cleared { transitions, .. } => [changed(transitions), told("cleared")].concat(),
    }
}
