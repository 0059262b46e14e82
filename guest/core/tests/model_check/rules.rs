//! One decision: what may become of a record by a call, whoever makes it and whenever. What needs more than the decision itself
//! (what was applied before, who holds what) is with the world.

use circuitry_core::record::{
    OverrideKind, Record, State, Status, TRANSITIONS, TRANSITIONS_KEPT, Transition, TransitionReason,
};
use circuitry_core::request::{JudgedBy, RefusalReason, Verdict};
use circuitry_core::{Answer, Completion, Error, Outcome, Settings};

use crate::archive::{Broken, Ruling};
use crate::calls::{Ask, Deed, Named};
use crate::config::Config;

/// A record with its settings in force.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stood<'a> {
    pub(crate) record: &'a Record,
    pub(crate) in_force: &'a Settings,
}

pub(crate) fn in_force(record: &Record) -> Result<Settings, Broken> {
    let shared = record.in_force.as_ref().ok_or("a record without settings in force")?;
    shared.settings(1).map_err(|error| format!("property 6: {error:?}"))
}

/// A decision's circumstances.
pub(crate) struct Decided<'a> {
    pub(crate) config: &'a Config,
    pub(crate) named: Named,
    pub(crate) retry_of: Option<u16>,
    pub(crate) now_ms: u64,
}

pub(crate) fn demand(holds: bool, rule: &str) -> Result<(), Broken> {
    if holds { Ok(()) } else { Err(rule.into()) }
}

pub(crate) fn transitions_of(answer: &Answer) -> &[Transition] {
    match answer {
        Answer::Started { transitions, .. }
        | Answer::Settled { transitions, .. }
        | Answer::Voted { transitions, .. }
        | Answer::Cleared { transitions, .. } => transitions,
        Answer::Renewed(_) | Answer::Inspected(_) | Answer::Overridden { .. } => &[],
    }
}

pub(crate) fn is_already_applied(answer: &Answer) -> bool {
    match answer {
        Answer::Settled { already_applied, .. }
        | Answer::Overridden { already_applied, .. }
        | Answer::Voted { already_applied, .. }
        | Answer::Cleared { already_applied, .. } => *already_applied,
        Answer::Started { .. } | Answer::Renewed(_) | Answer::Inspected(_) => false,
    }
}

/// How many outcomes an answer says were accepted.
pub(crate) fn accepted(answer: &Answer) -> u32 {
    match answer {
        Answer::Settled { dispositions, .. } => dispositions.iter().map(|one| one.accepted).sum(),
        _ => 0,
    }
}

fn forced(record: &Record, now_ms: u64) -> Option<OverrideKind> {
    let set = record.override_set.as_ref()?;
    set.until_ms.is_none_or(|until_ms| until_ms > now_ms).then_some(set.kind)
}

fn open_for_ms(settings: &Settings, trip: u32) -> u64 {
    let Some(backoff) = settings.backoff else { return settings.allow_after_ms };
    let grown = (1..trip).fold(settings.allow_after_ms, |open_ms, _| {
        (open_ms * u64::from(backoff.factor_per_mille)).div_ceil(1_000)
    });
    grown.min(backoff.max_ms)
}

impl Decided<'_> {
    /// All that this one decision can show.
    pub(crate) fn check(
        &self,
        old: Option<Stood<'_>>,
        ruling: &Ruling,
        new: Option<Stood<'_>>,
    ) -> Result<(), Broken> {
        let answer = match ruling {
            Ruling::Failed(error) => return self.check_error(old.map(|old| old.record), error),
            Ruling::Done(answer) | Ruling::Write { answer, .. } => answer,
        };
        self.check_told(old.map(|old| old.record), new.map(|new| new.record), answer)?;
        if let Some(old) = old {
            self.check_outcomes(old, answer)?;
        }
        self.check_verdict(new.or(old), answer)?;
        let Some(new) = new else { return Ok(()) };
        demand(!is_already_applied(answer), "a call that was applied before writes again")?;
        self.check_record(new)?;
        match old {
            None => {
                demand(new.record.revision == 1, "a new record does not begin with revision 1")?;
                demand(self.has_new_era(new.record), "property 5: the era of a new record does not begin now")
            }
            Some(old) => {
                demand(new.record.revision == old.record.revision + 1, "a write is not the next revision")?;
                self.check_settings(old, new)?;
                self.check_transitions(old, new)?;
                self.check_counts(old.record, new.record, answer)
            }
        }
    }

    /// A reset of what is not there is a transition of its own.
    fn has_new_era(&self, new: &Record) -> bool {
        new.era == self.now_ms + new.transitions.len() as u64
    }

    /// The settings in force become the caller's with a transition, unless those are older.
    fn check_settings(&self, old: Stood<'_>, new: Stood<'_>) -> Result<(), Broken> {
        let own = self.config.settings_of(self.named.slot);
        let is_older = own.settings_revision < old.in_force.settings_revision;
        let stays = new.record.era == old.record.era || is_older;
        let expected = if stays { old.in_force } else { own };
        let name = |settings: &Settings| (settings.fingerprint(), settings.settings_revision);
        demand(name(new.in_force) == name(expected), "other settings are in force than should be")
    }

    /// Property 6. Two errors are right: the end of an override may be over when it is set, and a repeated call may come too
    /// late.
    fn check_error(&self, old: Option<&Record>, error: &Error) -> Result<(), Broken> {
        let is_right = match (error, self.named.ask, self.retry_of, old) {
            (Error::Request(_), Ask::Person { until: Some(until), .. }, ..) => {
                crate::calls::BEGIN_MS + u64::from(until) <= self.now_ms
            }
            (Error::Forgotten, _, Some(based_on), Some(old)) => old.revision > u64::from(based_on) + 32,
            _ => false,
        };
        demand(is_right, "property 6: the core cannot use a record that it wrote itself")
    }

    /// Properties 4 and 5: what a call is told it changed is in the record, and of that call.
    fn check_told(&self, old: Option<&Record>, new: Option<&Record>, answer: &Answer) -> Result<(), Broken> {
        let token = self.named.token();
        let own = |record: &Record| -> Vec<Transition> {
            record.transitions.iter().filter(|transition| transition.by == token).copied().collect()
        };
        let expected = new.or(old).map(own).unwrap_or_default();
        let told = transitions_of(answer);
        let is_silent = matches!(answer, Answer::Overridden { .. } | Answer::Renewed(_));
        demand(is_silent || told == expected, "property 4: a call is told other transitions than its own")
    }

    /// From then on the probes of a half-open phase hold nothing.
    fn is_overdue(&self, old: &Record, in_force: &Settings) -> bool {
        in_force.half_open_limit.is_some_and(|limit| old.since_ms + limit.after_ms <= self.now_ms)
    }

    /// Property 2: only outcomes of the present era are accepted, and all of these whose place is there.
    fn check_outcomes(
        &self,
        Stood { record: old, in_force }: Stood<'_>,
        answer: &Answer,
    ) -> Result<(), Broken> {
        let Answer::Settled { dispositions, already_applied: false, .. } = answer else { return Ok(()) };
        let completions = self.named.completions();
        demand(dispositions.len() == completions.len(), "an outcome has no disposition")?;
        for (completion, disposition) in completions.iter().zip(dispositions) {
            demand(
                disposition.accepted + disposition.stale == completion.count,
                "a disposition does not add up to its count",
            )?;
            demand(
                disposition.accepted == 0 || completion.era == old.era,
                "property 2: an outcome of another era was accepted",
            )?;
        }
        let belongs = |completion: &Completion| {
            completion.era == old.era
                && match (&old.status, completion.probe) {
                    (Status::HalfOpen { probes, .. }, Some(id)) => {
                        !self.is_overdue(old, in_force) && probes.iter().any(|probe| probe.id == id)
                    }
                    (_, probe) => probe.is_none(),
                }
        };
        demand(
            !belongs(&completions[0]) || dispositions[0].accepted > 0,
            "property 2: an outcome of the present era was dropped",
        )
    }

    /// Who is let in, by the record that the verdict rests on.
    fn check_verdict(&self, stood: Option<Stood<'_>>, answer: &Answer) -> Result<(), Broken> {
        let Answer::Started { verdict, .. } = answer else { return Ok(()) };
        let Some(Stood { record, in_force: settings }) = stood else {
            return Err("a start was answered without a record".into());
        };
        let (state, forced) = (record.status.state(), forced(record, self.now_ms));
        let is_right = match verdict {
            Verdict::Refusal(refusal) => {
                refusal.retry_after_ms > 0
                    && match (refusal.reason, &record.status) {
                        (RefusalReason::ForcedOpen, _) => forced == Some(OverrideKind::ForcedOpen),
                        (RefusalReason::Open, Status::Open { expires_at_ms }) => {
                            self.now_ms + refusal.retry_after_ms == *expires_at_ms
                        }
                        (
                            RefusalReason::TooManyRequests,
                            Status::HalfOpen { probes, successes, failures },
                        ) => {
                            let running =
                                probes.iter().filter(|probe| probe.deadline_ms > self.now_ms).count() as u32;
                            let left = settings.probes() - successes - failures;
                            running >= left.min(settings.probes_at_once())
                        }
                        (RefusalReason::Ramp, Status::Closed { ramp_since_ms, .. }) => {
                            ramp_since_ms.is_some()
                        }
                        _ => false,
                    }
            }
            Verdict::Permit(permit) => {
                permit.era == record.era
                    && match (permit.probe, permit.judged_by, &record.status) {
                        (Some(own), JudgedBy::Fleet, Status::HalfOpen { probes, .. }) => {
                            own.id == self.named.token() && probes.contains(&own)
                        }
                        (None, JudgedBy::Nobody, _) => {
                            forced == Some(OverrideKind::Disabled)
                                || (forced == Some(OverrideKind::MetricsOnly)
                                    && permit.would_have_refused.is_some())
                        }
                        (None, judged_by, _) => {
                            let is_forced = forced == Some(OverrideKind::ForcedClosed);
                            let by_node = settings.quorum.is_some() && !is_forced;
                            (state == State::Closed || is_forced) && (judged_by == JudgedBy::Node) == by_node
                        }
                        _ => false,
                    }
            }
        };
        demand(is_right, "a start was answered against the state of the circuit")
    }

    /// Property 1, as far as the record shows it.
    fn check_record(&self, Stood { record: new, in_force: settings }: Stood<'_>) -> Result<(), Broken> {
        match &new.status {
            Status::HalfOpen { probes, successes, failures } => {
                let out = probes.len() as u32;
                demand(
                    out + successes + failures <= settings.probes(),
                    "property 1: more probes than a half-open phase has",
                )?;
                demand(out <= settings.probes_at_once(), "property 1: more probes are out than at once")?;
                let is_twice = |index: usize| probes[..index].iter().any(|one| one.id == probes[index].id);
                demand(!(0..probes.len()).any(is_twice), "property 1: a start has two places")?;
                let bears = settings.probes() - settings.close_threshold;
                demand(
                    *successes < settings.close_threshold && *failures <= bears,
                    "property 3: a half-open phase goes on although it is decided",
                )
            }
            Status::Open { expires_at_ms } => demand(
                expires_at_ms.checked_sub(new.since_ms) == new.last_trip.map(|trip| trip.open_for_ms)
                    && new
                        .last_trip
                        .is_some_and(|trip| trip.open_for_ms == open_for_ms(settings, new.trips_in_a_row)),
                "an open time is not that of so many trips in a row",
            ),
            Status::Closed { .. } => demand(
                settings.quorum.is_some()
                    || self.config.budget.deeds > 0
                    || self.config.other_settings.is_some()
                    || new.counts.consecutive_failures <= settings.failure_count_threshold,
                "a closed circuit has more failures than it bears",
            ),
        }
    }

    /// Property 5, and that each transition has its cause.
    fn check_transitions(&self, old: Stood<'_>, new: Stood<'_>) -> Result<(), Broken> {
        let (settings, old, new) = (old.in_force, old.record, new.record);
        let added: Vec<&Transition> =
            new.transitions.iter().filter(|transition| transition.era > old.era).collect();
        let kept = new.transitions.len() - added.len();
        let dropped = (old.transitions.len() + added.len()).saturating_sub(TRANSITIONS_KEPT);
        demand(
            old.transitions.len() == kept + dropped && old.transitions[dropped..] == new.transitions[..kept],
            "property 5: what was noted of earlier transitions changed",
        )?;
        let (mut era, mut state, mut generation) = (old.era, old.status.state(), old.generation);
        for transition in added {
            let step = (transition.previous, transition.next, transition.reason);
            demand(TRANSITIONS.contains(&step), "property 5: a transition that is not legal")?;
            demand(transition.previous == state, "property 5: transitions do not follow each other")?;
            demand(transition.era > era, "property 5: an era does not grow")?;
            demand(transition.by == self.named.token(), "property 4: a transition has another author")?;
            demand(self.has_cause(settings, old, transition), "a transition has no cause")?;
            if transition.next == State::Closed || transition.previous == State::Closed {
                generation += 1;
            }
            (era, state) = (transition.era, transition.next);
        }
        demand(new.era == era, "property 5: an era begins without a transition, or none with one")?;
        demand(new.status.state() == state, "property 5: a state changes without a transition")?;
        let cleared = u64::from(self.may_clear(old));
        demand(
            (generation..=generation + cleared).contains(&new.generation),
            "a generation begins without a cause",
        )
    }

    fn may_clear(&self, old: &Record) -> bool {
        let Status::Closed { counts_expire_at_ms, .. } = old.status else { return false };
        counts_expire_at_ms.is_some_and(|at_ms| at_ms <= self.now_ms)
    }

    fn has_cause(&self, settings: &Settings, old: &Record, transition: &Transition) -> bool {
        let bad = self.completed(old, Outcome::Failure);
        let overdue_at_ms = settings.half_open_limit.map(|limit| old.since_ms + limit.after_ms);
        let is_overdue =
            || overdue_at_ms.is_some_and(|at_ms| at_ms <= self.now_ms && at_ms == transition.at_ms);
        let is_start = self.named.ask == Ask::Start;
        match (transition.reason, &old.status) {
            (TransitionReason::Tripped, Status::Closed { .. }) => {
                let before = if self.may_clear(old) { 0 } else { old.counts.consecutive_failures };
                before + bad > settings.failure_count_threshold
            }
            (TransitionReason::OpenTimeOver, Status::Open { expires_at_ms }) => {
                is_start && *expires_at_ms <= self.now_ms
            }
            (TransitionReason::OpenTimeOver, Status::HalfOpen { .. }) => {
                is_start && overdue_at_ms.is_some_and(|at_ms| at_ms + settings.allow_after_ms <= self.now_ms)
            }
            (TransitionReason::ProbesSucceeded, Status::HalfOpen { successes, .. }) => {
                u64::from(*successes) + self.completed(old, Outcome::Success)
                    >= settings.close_threshold.into()
            }
            (TransitionReason::ProbeFailed, Status::HalfOpen { failures, .. }) => {
                u64::from(failures + settings.close_threshold) + bad > settings.probes().into()
            }
            (TransitionReason::VotesReached, Status::Closed { votes, .. }) => {
                settings.quorum.is_some_and(|quorum| {
                    let own = format!("node-{}", self.named.slot);
                    let others = votes.iter().filter(|vote| {
                        vote.node_id != own && self.now_ms.abs_diff(vote.at_ms) < quorum.window_ms
                    });
                    matches!(self.named.ask, Ask::Vote { .. }) && others.count() as u32 + 1 >= quorum.votes
                })
            }
            (
                TransitionReason::HalfOpenOverdueOpened | TransitionReason::HalfOpenOverdueClosed,
                Status::HalfOpen { .. },
            ) => is_start && is_overdue(),
            (TransitionReason::Reset, _) => {
                matches!(self.named.ask, Ask::Person { deed, .. }
                    if matches!(self.config.deeds[usize::from(deed)], Deed::Reset))
            }
            _ => false,
        }
    }

    /// How many of the permits that are settled are of the present era and ended so.
    fn completed(&self, old: &Record, outcome: Outcome) -> u64 {
        let completions = self.named.completions();
        let current = completions.iter().filter(|one| one.outcome == outcome && one.era == old.era);
        current.map(|one| u64::from(one.count)).sum()
    }

    /// Property 2: the counts are what was accepted in this generation, no more and no less.
    fn check_counts(&self, old: &Record, new: &Record, answer: &Answer) -> Result<(), Broken> {
        let mut accepted = [0, 0];
        if let Answer::Settled { dispositions, .. } = answer
            && forced(old, self.now_ms) != Some(OverrideKind::Disabled)
        {
            for (completion, disposition) in self.named.completions().iter().zip(dispositions) {
                let is_counted = match old.status {
                    Status::Closed { .. } => completion.probe.is_none(),
                    Status::HalfOpen { .. } => completion.probe.is_some(),
                    Status::Open { .. } => false,
                };
                match completion.outcome {
                    Outcome::Success if is_counted => accepted[0] += u64::from(disposition.accepted),
                    Outcome::Failure if is_counted => accepted[1] += u64::from(disposition.accepted),
                    _ => {}
                }
            }
        }
        let before = match (new.generation == old.generation, new.era == old.era) {
            (true, _) => [old.counts.total_successes, old.counts.total_failures],
            (false, true) => [0, 0],
            // Where the state changed nothing is counted yet.
            (false, false) => {
                accepted = [0, 0];
                [0, 0]
            }
        };
        let counts = new.counts;
        let expected = [before[0] + accepted[0], before[1] + accepted[1]];
        demand(
            [counts.total_successes, counts.total_failures] == expected
                && counts.total == expected[0] + expected[1],
            "property 2: the counts are not the outcomes that were accepted",
        )
    }
}
