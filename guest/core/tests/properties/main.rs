//! Random sequences of calls: the core against an independent model, and what must hold in any sequence.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "the core has no panics; its tests may"
)]

mod hostile;
mod model;
mod moves;
mod translation;
mod words;
mod world;

use std::collections::BTreeSet;

use circuitry_core::record::{Record, Status};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{TestCaseError, TestRunner};

use crate::moves::{Move, beginning, moves, moves_and_losses, plan, plans};
use crate::words::{Ask, Change, Part, Phase, Plan, Reply, Went};
use crate::world::{Asked, Stored, World};

/// So many cases, unless the environment says otherwise.
pub(crate) fn cases(usual: u32) -> ProptestConfig {
    let given = ProptestConfig::default();
    let cases = if std::env::var_os("PROPTEST_CASES").is_some() { given.cases } else { usual };
    // What a failing run finds becomes a test with a name, not a file of seeds.
    ProptestConfig { cases, failure_persistence: None, ..given }
}

fn played(plans: &[Plan], now: u64, moves: &[Move]) -> Result<World, TestCaseError> {
    let mut world = World::new(now);
    for mv in moves {
        world.play(plans, mv)?;
    }
    Ok(world)
}

fn written(world: &World) -> impl Iterator<Item = &Stored> {
    world.entries.iter().flatten()
}

/// Without this a change of the strategies could leave the properties below true of nothing.
#[test]
fn random_sequences_reach_every_transition_and_every_kind_of_answer() {
    let mut runner = TestRunner::deterministic();
    let mut reached = BTreeSet::new();
    for _ in 0..400 {
        let case = (plans(), beginning(), moves()).new_tree(&mut runner).unwrap().current();
        let mut world = World::new(case.1);
        for mv in &case.2 {
            let before = world.entries.len();
            let Some(played) = world.play(&case.0, mv).unwrap() else { continue };
            if played.wrote && mv.behind % before.min(6) > 0 {
                reached.insert("a lost race that wrote");
            }
            reached.extend(kinds(&played.reply));
        }
    }
    let all = [
        "a lost race that wrote",
        "accepted",
        "already applied",
        "bad request",
        "cut in two",
        "forced-open",
        "lease lost",
        "lease prolonged",
        "open",
        "open-time-over",
        "overridden",
        "permit",
        "probe",
        "probe-failed",
        "probes-succeeded",
        "shown",
        "stale",
        "too late",
        "too-many-requests",
        "tripped",
    ];
    assert_eq!(reached, BTreeSet::from(all));
}

fn kinds(reply: &Reply) -> Vec<&'static str> {
    let changed = |changes: &[Change]| changes.iter().map(|change| change.why).collect::<Vec<_>>();
    match reply {
        Reply::Permit { probe, changes, .. } => {
            [changed(changes), vec![if probe.is_some() { "probe" } else { "permit" }]].concat()
        }
        Reply::Refusal { why, changes, .. } => [changed(changes), vec![*why]].concat(),
        Reply::Settled { parts, again, changes } => {
            let parts = parts.iter().map(|part| match part {
                (_, 0) => "accepted",
                (0, _) => "stale",
                _ => "cut in two",
            });
            let again = again.then_some("already applied");
            changed(changes).into_iter().chain(parts).chain(again).collect()
        }
        Reply::Renewed(deadlines) => {
            let lease =
                |deadline: &Option<u64>| if deadline.is_some() { "lease prolonged" } else { "lease lost" };
            deadlines.iter().map(lease).collect()
        }
        Reply::Shown(_) => vec!["shown"],
        Reply::Overridden { .. } => vec!["overridden"],
        Reply::TooLate => vec!["too late"],
        Reply::BadRequest => vec!["bad request"],
    }
}

proptest! {
    #![proptest_config(cases(2_000))]

    #[test]
    fn the_core_answers_as_an_independent_reading_of_the_rules(
        plans in plans(), now in beginning(), moves in moves_and_losses(),
    ) {
        let mut world = played(&plans, now, &moves)?;
        // What was counted and not asked about shows here at the latest.
        let newest = world.entries.len() - 1;
        world.call(&plans, Asked { ask: Ask::Inspect, plan: 0, based_on: 0 }, newest, None)?;
    }
}

proptest! {
    #![proptest_config(cases(200))]

    #[test]
    fn with_one_setting_no_more_than_close_threshold_probes_are_out_or_successful(
        plan in plan(), now in beginning(), moves in moves_and_losses(),
    ) {
        let closes_after = plan.closes_after as usize;
        for stored in written(&played(&[plan], now, &moves)?) {
            if let Status::HalfOpen { probes, successes } = Record::from_bytes(&stored.bytes).unwrap().status {
                prop_assert!(probes.len() + (successes as usize) <= closes_after);
            }
        }
    }

    #[test]
    fn a_new_era_is_later_than_every_one_before_and_belongs_to_a_transition(
        plans in plans(), now in beginning(), moves in moves(),
    ) {
        let world = played(&plans, now, &moves)?;
        let records: Vec<Record> =
            written(&world).map(|stored| Record::from_bytes(&stored.bytes).unwrap()).collect();
        for pair in records.windows(2) {
            prop_assert!(pair[1].era >= pair[0].era);
            prop_assert_eq!(pair[1].revision, pair[0].revision + 1);
            let same = pair[0].status.state() == pair[1].status.state();
            prop_assert_eq!(pair[1].era == pair[0].era, same);
            let last = pair[1].transitions.last();
            if same {
                prop_assert_eq!(last, pair[0].transitions.last());
            } else {
                prop_assert_eq!(last.map(|last| last.era), Some(pair[1].era));
            }
            for eras in pair[1].transitions.windows(2) {
                prop_assert!(eras[0].era < eras[1].era);
                prop_assert_eq!(eras[0].next, eras[1].previous);
            }
        }
    }

    #[test]
    fn a_repeated_call_changes_nothing_and_is_answered_alike(
        plans in plans(), now in beginning(), moves in moves(),
    ) {
        let mut world = World::new(now);
        for mv in &moves {
            let Some(played) = world.play(&plans, mv)? else { continue };
            if !played.wrote {
                continue;
            }
            let newest = world.entries.len() - 1;
            let again = world.call(&plans, played.asked, newest, None)?;
            prop_assert!(!again.wrote, "{:?} was applied twice", mv);
            match (played.reply, again.reply) {
                (Reply::Settled { parts, changes, .. }, Reply::Settled { parts: again_parts, again, changes: again_changes }) => {
                    prop_assert_eq!((parts, changes, true), (again_parts, again_changes, again));
                }
                (Reply::Overridden { .. }, Reply::Overridden { again, .. }) => prop_assert!(again),
                (first, again) => prop_assert_eq!(first, again),
            }
        }
    }

    #[test]
    fn the_bytes_of_a_record_give_that_record_and_no_other_bytes(
        plans in plans(), now in beginning(), moves in moves(),
    ) {
        for stored in written(&played(&plans, now, &moves)?) {
            let record = Record::from_bytes(&stored.bytes).unwrap();
            prop_assert_eq!(&record.to_bytes().unwrap(), &stored.bytes);
            prop_assert_eq!(Record::from_bytes(&record.to_bytes().unwrap()).unwrap(), record);
        }
    }

    #[test]
    fn a_record_has_at_most_4_kilobytes(plans in plans(), now in beginning(), moves in moves()) {
        for stored in written(&played(&plans, now, &moves)?) {
            prop_assert!(stored.bytes.len() <= 4_096, "{} bytes", stored.bytes.len());
        }
    }

    #[test]
    fn the_store_keeps_a_record_longer_than_anything_in_it_matters(
        plans in plans(), now in beginning(), moves in moves(),
    ) {
        for stored in written(&played(&plans, now, &moves)?) {
            let shown = stored.model.show(stored.at);
            let Some(ttl) = stored.ttl else {
                prop_assert_eq!(shown.forced.unwrap().until, None);
                continue;
            };
            let gone_at = u128::from(stored.at) + u128::from(ttl);
            // At the end of time there is no longer.
            let outlives = |at: u64| gone_at > u128::from(at) || ttl == u64::MAX || at == u64::MAX;
            prop_assert!(shown.expires.is_none_or(outlives));
            prop_assert!(shown.probes.iter().all(|(_, deadline)| outlives(*deadline)));
            if let Some(forced) = shown.forced {
                prop_assert!(forced.until.is_some_and(outlives));
            }
        }
    }

    #[test]
    fn every_state_has_a_way_out_by_waiting_and_succeeding(
        plan in plan(), now in beginning(), moves in moves(),
    ) {
        let plan = Plan { open_for: plan.open_for.min(60_000), lease: plan.lease.min(60_000), ..plan };
        let plans = [plan];
        let mut world = played(&plans, now, &moves)?;
        let ask = |world: &mut World, ask| {
            let newest = world.entries.len() - 1;
            world.call(&plans, Asked { ask, plan: 0, based_on: 0 }, newest, None).map(|played| played.reply)
        };
        ask(&mut world, Ask::Force { who: (100, 0), retry_of: None, forced: None })?;
        // Enough for each place to run out once and each probe to succeed once.
        for sequence in 1..=200 {
            if world.newest().is_some_and(|stored| stored.model.phase() == Phase::Closed) {
                return Ok(());
            }
            match ask(&mut world, Ask::Start { who: (100, sequence) })? {
                Reply::Refusal { wait, .. } => world.now = world.now.saturating_add(wait),
                Reply::Permit { era, probe, .. } => {
                    let probe = probe.map(|(who, _)| who);
                    let parts = vec![Part { era, probe, went: Went::Well, times: 1 }];
                    ask(&mut world, Ask::End { who: (101, sequence), retry_of: None, parts })?;
                }
                other => return Err(TestCaseError::fail(format!("{other:?} is no answer to a start"))),
            }
        }
        prop_assert!(false, "the circuit did not close");
    }
}
