//! What ended work does.

use circuitry_core::record::{Counts, OverrideKind, State, Token, TransitionReason, Trip, TripKind};
use circuitry_core::request::{Caller, Disposition};
use circuitry_core::{Answer, Completion, Outcome, TripRule};

use super::calls::{Calls, Opinion, Seen, first_that, look};
use super::opening::{Cause, Found};
use super::{Call, Fate, Model, Place, Reply, Told, went_well};
use crate::hooks::OwnRule;

impl Model {
    pub(super) fn end(&mut self, call: &mut Call<'_>, caller: &Caller, completions: &[Completion]) -> Reply {
        let id = caller.token;
        if let Some(told) = self.remembered(id) {
            let (dispositions, transitions) = (told.dispositions.clone(), self.changes_by(id));
            return Reply::Answer(Answer::Settled { dispositions, already_applied: true, transitions });
        }
        if self.too_late(caller) {
            return Reply::Forgotten;
        }
        let mut dispositions = vec![];
        for (index, completion) in completions.iter().enumerate() {
            let accepted = self.settle(call, id, completions, index);
            dispositions.push(Disposition { accepted, stale: completion.count - accepted });
        }
        if call.writes {
            let stale = dispositions.iter().rposition(|disposition| disposition.accepted == 0);
            let cut = dispositions.iter().any(|it| it.accepted > 0 && it.stale > 0);
            let bytes = 17 + stale.map_or(0, |last| last / 8 + 1) + if cut { 6 } else { 0 };
            let revision = self.writes + 1;
            self.told.push(Told { id, dispositions: dispositions.clone(), votes: 0, bytes, revision });
        }
        let transitions = self.changes_by(id);
        Reply::Answer(Answer::Settled { dispositions, already_applied: false, transitions })
    }

    /// How many of the completion's count are accepted.
    fn settle(&mut self, call: &mut Call<'_>, id: Token, all: &[Completion], index: usize) -> u32 {
        let completion = &all[index];
        if completion.era != self.era() {
            return 0;
        }
        match (self.state(), completion.probe) {
            (State::Closed, None) => self.closed_call(call, id, all, index),
            (State::HalfOpen, Some(_)) if self.is_overdue(call.now) => 0,
            (State::HalfOpen, Some(probe)) => self.probe_ended(call, id, completion, probe),
            // From an override that admits all.
            (State::Open | State::HalfOpen, None) => completion.count,
            (State::Open | State::Closed, Some(_)) => 0,
        }
    }

    fn probe_ended(&mut self, call: &mut Call<'_>, id: Token, completion: &Completion, probe: Token) -> u32 {
        let era = self.era();
        let own = |place: &&mut Place| place.era == era && place.id == probe && place.fate == Fate::Out;
        let Some(place) = self.places.iter_mut().find(own) else { return 0 };
        call.writes = true;
        let disabled = self.forced.as_ref().is_some_and(|forced| {
            forced.kind == OverrideKind::Disabled && forced.until_ms.is_none_or(|until| until > call.now)
        });
        if disabled || completion.outcome == Outcome::Ignored {
            place.fate = Fate::Freed;
            return 1;
        }
        let well = went_well(&self.in_force, completion);
        place.fate = if well { Fate::Succeeded } else { Fate::Failed };
        self.hear(completion.outcome == Outcome::Success, 1);
        let close_threshold = self.in_force.close_threshold as usize;
        let probes = self.in_force.probes.map_or(close_threshold, |probes| probes as usize);
        if self.places(Fate::Succeeded).len() >= close_threshold {
            self.enter(call, &Cause::Closes(TransitionReason::ProbesSucceeded), id, call.now);
        } else if self.places(Fate::Failed).len() > probes - close_threshold {
            let found = self.probes_failed();
            let retry_after = wished(completion);
            let cause = Cause::Opens { reason: TransitionReason::ProbeFailed, found, retry_after };
            self.enter(call, &cause, id, call.now);
        }
        1
    }

    fn closed_call(&mut self, call: &mut Call<'_>, id: Token, all: &[Completion], index: usize) -> u32 {
        let completion = &all[index];
        let forced = self.forced_as(call.now);
        if completion.outcome == Outcome::Ignored || forced == Some(OverrideKind::Disabled) {
            return completion.count;
        }
        call.writes = true;
        if self.clears_at.is_some_and(|at| at <= call.now) {
            self.generation += 1;
            self.clears_at = None;
        }
        if self.clears_at.is_none() {
            let after = self.in_force.cyclic_clear_after_ms;
            self.clears_at = after.map(|after| call.now.saturating_add(after));
        }
        let run = Calls {
            era: self.era(),
            at: call.now,
            failed: completion.outcome == Outcome::Failure,
            slow: completion.slow,
            times: completion.count.into(),
        };
        let nothing_trips = forced == Some(OverrideKind::ForcedClosed) || self.in_force.quorum.is_some();
        let trip = if nothing_trips { None } else { self.first_trip(call, all, index, run) };
        let times = trip.map_or(run.times, |(times, _)| times);
        self.hear(!run.failed, times);
        self.calls.push(Calls { times, ..run });
        if let Some((_, found)) = trip {
            let retry_after = wished(completion);
            let cause = Cause::Opens { reason: TransitionReason::Tripped, found, retry_after };
            self.enter(call, &cause, id, call.now);
        }
        times as u32
    }

    /// The call of the run with which the circuit trips, and what the rule has found.
    fn first_trip(
        &self,
        call: &Call<'_>,
        all: &[Completion],
        index: usize,
        run: Calls,
    ) -> Option<(u64, Found)> {
        let rules = &self.in_force.trip_rules;
        // By when each rule is sure of a trip, and from when on it may see one.
        let first_with = |rule: &TripRule, opinion: Opinion| {
            first_that(run.times, |times| self.opinion(rule, Calls { times, ..run }) >= opinion)
        };
        let not_own = |rule: &&TripRule| !matches!(rule, TripRule::Custom(_));
        let sure = rules.iter().filter(not_own).filter_map(|rule| first_with(rule, Opinion::Yes)).min();
        let perhaps = rules.iter().filter(not_own).filter_map(|rule| first_with(rule, Opinion::Either)).min();
        let own = self.own_rule_trips(run, sure.unwrap_or(run.times + 1));
        let certain = [sure, own].into_iter().flatten().min();
        let times = match perhaps {
            Some(perhaps) if certain.is_none_or(|certain| perhaps < certain) => {
                told_trip(call, all, index, perhaps).into_iter().chain(certain).min()?
            }
            _ => certain?,
        };
        let counted = Calls { times, ..run };
        // The first in the list; of those that may be right, the one that the core says. The user's own rule comes after the
        // others, for it is not asked about a call with which they trip.
        let opinion = |rule: &TripRule| match rule {
            TripRule::Custom(_) => Opinion::No,
            rule => self.opinion(rule, counted),
        };
        let told = |rule: &TripRule| {
            let found = self.found(call, rule, counted);
            let said = |trip: Trip| (trip.kind, trip.threshold) == (found.kind, found.threshold);
            call.hint.last_trip.is_some_and(said)
        };
        let trips = |rule: &&TripRule| match opinion(rule) {
            Opinion::Yes => true,
            Opinion::Either => told(rule),
            Opinion::No => false,
        };
        let is_own = |rule: &&TripRule| own == Some(times) && matches!(rule, TripRule::Custom(_));
        let may_trip = |rule: &&TripRule| opinion(rule) == Opinion::Either;
        let first = |which: &dyn Fn(&&TripRule) -> bool| rules.iter().find(|rule| which(rule));
        let rule = first(&trips).or_else(|| first(&is_own)).or_else(|| first(&may_trip));
        Some((times, self.found(call, rule.unwrap(), counted)))
    }

    /// The first failure of the run, before the call `end`, at which the user's own rule says so.
    fn own_rule_trips(&self, run: Calls, end: u64) -> Option<u64> {
        let own = self.in_force.trip_rules.iter().find_map(|rule| match rule {
            TripRule::Custom(custom) => Some(OwnRule::named(&custom.name)),
            _ => None,
        });
        let own = own.filter(|_| run.failed)?;
        let before = self.counts();
        (1..end.min(run.times + 1)).find(|times| {
            own.trips(Counts {
                total: before.total + times,
                total_failures: before.total_failures + times,
                consecutive_failures: before.consecutive_failures + times,
                consecutive_successes: 0,
                ..before
            })
        })
    }

    fn opinion(&self, rule: &TripRule, run: Calls) -> Opinion {
        let asked = if matches!(rule, TripRule::SlowCallRate(_)) { run.slow } else { run.failed };
        let yes = |yes: bool| if yes { Opinion::Yes } else { Opinion::No };
        match rule {
            _ if !asked => Opinion::No,
            TripRule::ConsecutiveFailures { minimum_calls } => {
                let counts = self.counts();
                yes(counts.consecutive_failures + run.times > self.in_force.failure_count_threshold
                    && counts.total + run.times >= u64::from(*minimum_calls))
            }
            TripRule::FailureCount(windowed)
            | TripRule::FailureRate(windowed)
            | TripRule::SlowCallRate(windowed) => self.look_with(rule, run).opinion(rule, windowed),
            TripRule::Custom(_) => unreachable!("asked one by one"),
        }
    }

    fn look_with(&self, rule: &TripRule, run: Calls) -> Seen {
        let mut calls = self.calls_here();
        calls.push(run);
        look(rule.windowed().unwrap().window, &calls, None)
    }

    /// What is kept of a trip.
    fn found(&self, call: &Call<'_>, rule: &TripRule, run: Calls) -> Found {
        let counts = self.counts();
        let in_a_row = counts.consecutive_failures + run.times;
        let (observed, threshold, calls) = match rule {
            TripRule::ConsecutiveFailures { .. } => {
                (in_a_row, self.in_force.failure_count_threshold + 1, counts.total + run.times)
            }
            TripRule::Custom(_) => (in_a_row, 0, counts.total + run.times),
            TripRule::FailureCount(windowed)
            | TripRule::FailureRate(windowed)
            | TripRule::SlowCallRate(windowed) => {
                let seen = self.look_with(rule, run);
                let (mut observed, mut calls) = (seen.found(rule) as u64, seen.calls as u64);
                if let (Some(trip), true) = (call.hint.last_trip, seen.rounded) {
                    if trip.observed.abs_diff(observed) <= 1 + observed / 500 {
                        observed = trip.observed;
                    }
                    if trip.calls.abs_diff(calls) <= 1 + calls / 500 {
                        calls = trip.calls;
                    }
                }
                (observed, windowed.threshold.into(), calls)
            }
        };
        Found { kind: kind(rule), observed, threshold, calls }
    }
}

/// It is asked for with a failure: a slow success that opens the circuit asks for nothing.
fn wished(completion: &Completion) -> u64 {
    completion.retry_after_ms.filter(|_| completion.outcome == Outcome::Failure).unwrap_or(0)
}

fn kind(rule: &TripRule) -> TripKind {
    match rule {
        TripRule::ConsecutiveFailures { .. } => TripKind::ConsecutiveFailures,
        TripRule::FailureCount(_) => TripKind::FailureCount,
        TripRule::FailureRate(_) => TripKind::FailureRate,
        TripRule::SlowCallRate(_) => TripKind::SlowCallRate,
        TripRule::Custom(_) => TripKind::Custom,
    }
}

/// With which call of the run the core tripped, if it did, not before the call `from`.
fn told_trip(call: &Call<'_>, all: &[Completion], index: usize, from: u64) -> Option<u64> {
    let (dispositions, transitions) = call.hint.settled()?;
    transitions.iter().find(|change| change.reason == TransitionReason::Tripped)?;
    let accepted = u64::from(dispositions.get(index)?.accepted);
    // A call of this era that was accepted afterwards says that it had not tripped yet.
    let later = all.iter().zip(dispositions).skip(index + 1);
    let goes_on = |(completion, disposition): (&Completion, &Disposition)| {
        completion.era == all[index].era && completion.probe.is_none() && disposition.accepted > 0
    };
    (accepted >= from && !later.into_iter().any(goes_on)).then_some(accepted)
}
