//! What must hold in any sequence of calls.

use std::collections::BTreeMap;

use circuitry_core::record::{Record, State, Status, TRANSITIONS, Token};
use circuitry_core::request::{Operation, Verdict};
use circuitry_core::settings::{Backoff, HalfOpenLimit, Ramp};
use circuitry_core::{Answer, Completion, Outcome, Settings};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::TestCaseError;

use crate::model::Reply;
use crate::moves::{beginning, moves, moves_and_losses, outcome};
use crate::plans::{plan, plans};
use crate::script::Script;
use crate::world::{Stored, World, caller};
use crate::{cases, played};

fn written(world: &World) -> impl Iterator<Item = &Stored> {
    world.entries.iter().flatten()
}

fn records(world: &World) -> Vec<Record> {
    written(world).map(|stored| Record::from_bytes(&stored.bytes).unwrap()).collect()
}

proptest! {
    #![proptest_config(cases(200))]

    #[test]
    fn with_one_setting_no_more_probes_are_out_or_ended_than_a_phase_has(
        plan in plan(), now in beginning(), moves in moves_and_losses(),
    ) {
        let all = plan.probes.unwrap_or(plan.close_threshold) as usize;
        let at_once = plan.probes_at_once.map_or(all, |at_once| at_once as usize);
        for record in records(&played(&[plan], now, &moves)?) {
            if let Status::HalfOpen { probes, successes, failures } = record.status {
                prop_assert!(probes.len() <= at_once);
                prop_assert!(probes.len() + (successes + failures) as usize <= all);
            }
        }
    }

    #[test]
    fn a_new_era_is_later_than_every_one_before_and_belongs_to_a_transition(
        plans in plans(), now in beginning(), moves in moves(),
    ) {
        let records = records(&played(&plans, now, &moves)?);
        for pair in records.windows(2) {
            prop_assert_eq!(pair[1].revision, pair[0].revision + 1);
            prop_assert!(pair[1].generation >= pair[0].generation);
            let last = pair[1].transitions.last();
            if last == pair[0].transitions.last() {
                prop_assert_eq!(pair[1].era, pair[0].era);
                prop_assert_eq!(pair[1].status.state(), pair[0].status.state());
            } else {
                prop_assert!(pair[1].era > pair[0].era);
                prop_assert_eq!(last.map(|last| last.era), Some(pair[1].era));
                prop_assert_eq!(last.map(|last| last.next), Some(pair[1].status.state()));
            }
        }
    }

    #[test]
    fn every_transition_is_a_legal_one_and_goes_on_from_the_one_before(
        plans in plans(), now in beginning(), moves in moves(),
    ) {
        for record in records(&played(&plans, now, &moves)?) {
            for change in &record.transitions {
                prop_assert!(TRANSITIONS.contains(&(change.previous, change.next, change.reason)), "{:?}", change);
            }
            for pair in record.transitions.windows(2) {
                prop_assert!(pair[0].era < pair[1].era);
                prop_assert!(pair[0].generation <= pair[1].generation);
                prop_assert_eq!(pair[0].next, pair[1].previous);
            }
        }
    }

    #[test]
    fn a_transition_is_told_by_the_call_that_wrote_it_and_by_no_other(
        plans in plans(), now in beginning(), moves in moves(),
    ) {
        let mut world = World::new(now);
        let mut told = BTreeMap::new();
        for mv in &moves {
            let Some(played) = world.play(&plans, mv)? else { continue };
            let transitions = match &played.reply {
                Reply::Answer(
                    Answer::Started { transitions, .. }
                    | Answer::Settled { transitions, .. }
                    | Answer::Voted { transitions, .. }
                    | Answer::Cleared { transitions, .. },
                ) => transitions.as_slice(),
                _ => &[],
            };
            for change in transitions {
                let by = told.entry(change.era).or_insert(change.by);
                prop_assert_eq!(*by, change.by, "two calls told of the era {}", change.era);
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
            let again = world.call(&plans, played.asked, newest, mv.store_clock)?;
            prop_assert!(!again.wrote, "{:?} was applied twice", mv);
            let (Reply::Answer(first), Reply::Answer(again)) = (played.reply, again.reply) else { continue };
            prop_assert_eq!(repeated(first, &again), again);
        }
    }

    #[test]
    fn the_bytes_of_a_record_give_that_record_and_no_other_bytes(
        plans in plans(), now in beginning(), moves in moves(),
    ) {
        for stored in written(&played(&plans, now, &moves)?) {
            let record = Record::from_bytes(&stored.bytes).unwrap();
            prop_assert_eq!(&record.to_bytes(), &stored.bytes);
            prop_assert_eq!(Record::from_bytes(&record.to_bytes()).unwrap(), record);
        }
    }

    #[test]
    fn the_store_keeps_a_record_longer_than_anything_in_it_matters(
        plans in plans(), now in beginning(), moves in moves(),
    ) {
        for stored in written(&played(&plans, now, &moves)?) {
            let shown = stored.model.show(&plans[0], stored.at);
            let Some(ttl) = stored.ttl else {
                prop_assert_eq!(shown.override_in_force.unwrap().until_ms, None);
                continue;
            };
            let gone_at = u128::from(stored.at) + u128::from(ttl);
            // At the end of time there is no longer.
            let outlives = |at: u64| gone_at > u128::from(at) || ttl == u64::MAX || at == u64::MAX;
            prop_assert!(shown.expires_at_ms.is_none_or(outlives));
            prop_assert!(shown.probes.iter().all(|probe| outlives(probe.deadline_ms)));
            prop_assert!(shown.next_change.is_none_or(|next| outlives(next.at_ms)));
            // Also what a half-open phase goes on into by itself.
            if shown.state == State::HalfOpen && let Some(overdue) = shown.expires_at_ms {
                let then = stored.model.show(&plans[0], overdue);
                prop_assert!(then.expires_at_ms.is_none_or(outlives));
                prop_assert!(then.ramp.is_none_or(|ramp| outlives(ramp.next_step_at_ms)));
            }
            prop_assert!(stored.model.effective(stored.at).changes_ahead(stored.at).iter().all(|next| outlives(next.at_ms)));
            if let Some(forced) = shown.override_in_force {
                prop_assert!(forced.until_ms.is_some_and(outlives));
            }
        }
    }

    #[test]
    fn every_state_has_a_way_out_by_waiting_and_succeeding(
        plan in plan(), now in beginning(), moves in moves(),
    ) {
        let plans = [within_a_minute(plan)];
        let mut world = played(&plans, now, &moves)?;
        let clear = caller(100, u64::MAX);
        world.call_now(&plans, Operation::SetOverride(clear, None))?;
        // Enough for each place to run out once and each probe to succeed once.
        for sequence in 1..=200 {
            if world.newest().is_some_and(|stored| stored.model.state() == State::Closed) {
                return Ok(());
            }
            let started = world.call_now(&plans, Operation::Start(caller(100, sequence)))?.reply;
            let Reply::Answer(Answer::Started { verdict, .. }) = started else {
                return Err(TestCaseError::fail(format!("{started:?} is no answer to a start")));
            };
            match verdict {
                Verdict::Refusal(refusal) => {
                    world.now = world.now.saturating_add(refusal.retry_after_ms);
                }
                Verdict::Permit(permit) => {
                    let probe = permit.probe.map(|probe| probe.id);
                    let ended = well(permit.era, probe, 1);
                    world.call_now(&plans, Operation::End(caller(101, sequence), vec![ended]))?;
                }
            }
        }
        prop_assert!(false, "the circuit did not close");
    }

    #[test]
    fn whoever_waits_as_long_as_a_refusal_says_is_told_something_else(
        plan in plan(), now in beginning(), moves in moves(),
    ) {
        let plans = [Settings { ramp: None, ..within_a_minute(plan) }];
        let mut world = played(&plans, now, &moves)?;
        let start = Operation::Start(caller(100, 1));
        let Reply::Answer(Answer::Started { verdict, .. }) = world.call_now(&plans, start)?.reply else { unreachable!() };
        let Verdict::Refusal(refusal) = verdict else { return Ok(()) };
        prop_assert!(refusal.retry_after_ms >= 1);
        let ends = world.newest().and_then(|stored| stored.model.show(&plans[0], world.now).override_in_force);
        world.now = world.now.saturating_add(refusal.retry_after_ms);
        let again = Operation::Start(caller(100, 2));
        let Reply::Answer(Answer::Started { verdict, .. }) = world.call_now(&plans, again)?.reply else { unreachable!() };
        // Only a person's word may last longer, and what was underneath it.
        let the_same = matches!(verdict, Verdict::Refusal(again) if again.reason == refusal.reason);
        prop_assert!(!the_same || ends.is_some_and(|ends| ends.until_ms.is_none()), "{:?} twice", refusal.reason);
    }
}

proptest! {
    #![proptest_config(cases(1_000))]

    #[test]
    fn a_run_is_as_many_single_calls_cut_at_the_trip(
        plan in plan(), runs in vec((outcome(), any::<bool>(), 1..60_u32, 0..3_000_u64), 1..8),
    ) {
        let (mut by_runs, mut one_by_one) = (Script::begun(plan.clone()), Script::begun(plan));
        for (outcome, slow, count, later) in runs {
            let run = Completion { slow, ..by_runs.completion(None, outcome, count) };
            let (run_parts, run_changes) = by_runs.wait(later).end(&[run]);
            let singles = vec![Completion { count: 1, ..run }; count as usize];
            let (single_parts, single_changes) = one_by_one.wait(later).end(&singles);
            let accepted = single_parts.iter().map(|part| part.accepted).sum::<u32>();
            prop_assert_eq!((run_parts[0].accepted, run_parts[0].stale), (accepted, count - accepted));
            prop_assert_eq!(run_changes, single_changes);
            prop_assert_eq!(by_runs.shown(), one_by_one.shown());
        }
    }

    #[test]
    fn a_ramp_admits_its_share_of_any_starts_in_a_row(
        share in 1..1_000_u32, first in prop_oneof![0..10_000_u64, any::<u64>().prop_map(|first| first / 2)], starts in 1..150_u64,
    ) {
        let ramp = Some(Ramp { steps_per_mille: vec![share], step_ms: 1_000_000 });
        let mut script = Script::begun(Settings { failure_count_threshold: 0, ramp, ..Settings::default() });
        script.failures(1);
        let probe = script.half_open();
        script.probe_ends(probe, Outcome::Success);
        script.sequence = first;
        let admitted = (0..starts).filter(|_| script.start().is_ok()).count() as u64;
        let exact = starts * u64::from(share);
        prop_assert!(admitted >= exact / 1_000 && admitted <= exact.div_ceil(1_000), "{} of {}", admitted, starts);
    }
}

fn well(era: u64, probe: Option<Token>, count: u32) -> Completion {
    Completion { era, probe, outcome: Outcome::Success, slow: false, count, retry_after_ms: None }
}

/// No single wait is longer than a minute.
fn within_a_minute(plan: Settings) -> Settings {
    let most = 60_000;
    let allow_after_ms = plan.allow_after_ms.min(most);
    Settings {
        allow_after_ms,
        probe_timeout_ms: plan.probe_timeout_ms.min(most),
        retry_after_max_ms: plan.retry_after_max_ms.min(most),
        backoff: plan.backoff.map(|backoff| Backoff { max_ms: backoff.max_ms.min(most), ..backoff }),
        half_open_limit: plan
            .half_open_limit
            .map(|limit| HalfOpenLimit { after_ms: limit.after_ms.min(most), ..limit }),
        ramp: plan.ramp.map(|ramp| Ramp { step_ms: ramp.step_ms.min(most), ..ramp }),
        ..plan
    }
}

/// The first answer as a repeated call is told it: it is again told what it changed, and of an override what is there now.
fn repeated(first: Answer, again: &Answer) -> Answer {
    let now = match again {
        Answer::Overridden { previous, .. } | Answer::Cleared { previous, .. } => previous.clone(),
        _ => None,
    };
    match first {
        Answer::Settled { dispositions, transitions, .. } => {
            Answer::Settled { dispositions, transitions, already_applied: true }
        }
        Answer::Overridden { .. } => Answer::Overridden { previous: now, already_applied: true },
        Answer::Voted { accepted, votes, transitions, .. } => {
            Answer::Voted { accepted, votes, transitions, already_applied: true }
        }
        Answer::Cleared { transitions, .. } => {
            Answer::Cleared { previous: now, transitions, already_applied: true }
        }
        other => other,
    }
}
