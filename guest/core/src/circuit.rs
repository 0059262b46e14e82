//! The rules: a circuit at a moment, what it answers and what becomes of it.
//!
//! Methods sort into questions (`&self`), and the two commands `start` and `apply` with the smaller `renew`. They change the record in memory; whether the change counts is for the store to say.

use alloc::vec;
use alloc::vec::Vec;

use crate::applied::{AppliedCall, AppliedCalls};
use crate::exchange::{Hooks, TripQuery};
use crate::record::{
    Counts, Override, OverrideKind, Probe, Record, State, Status, TRANSITIONS_KEPT, Token, Transition,
    TransitionReason,
};
use crate::request::{
    Completion, Disposition, Information, Outcome, Permit, RefusalReason, Request, Verdict,
};
use crate::settings::TripRule;

/// The shortest delay named when all probes are out: their leases are renewed, so the end of one is only a guess.
const PROBE_DELAY_MIN_MS: u64 = 100;

/// A circuit at a moment: its record, its settings and the time.
pub(crate) struct Circuit<'a> {
    pub(crate) record: Record,
    pub(crate) changed: bool,
    pub(crate) now_ms: u64,
    request: &'a Request,
}

impl<'a> Circuit<'a> {
    pub(crate) fn stored(record: Record, request: &'a Request, now_ms: u64) -> Self {
        Self { record, changed: false, request, now_ms }
    }

    /// A circuit without a record is closed, of generation 0, with counts of 0 (rule 1). Its era begins now, so that
    /// it differs from every era before a loss; that is why it has to be written before a permit goes out.
    pub(crate) fn unknown(request: &'a Request, now_ms: u64) -> Self {
        let record = Record {
            revision: 0,
            era: now_ms.max(1),
            generation: 0,
            since_ms: now_ms,
            status: Status::Closed { counts_expire_at_ms: None },
            counts: Counts::default(),
            override_set: None,
            transitions: Vec::new(),
            applied: AppliedCalls::default(),
        };
        Self { record, changed: true, request, now_ms }
    }

    // ---- questions ----

    pub(crate) fn override_in_force(&self) -> Option<&Override> {
        self.record
            .override_set
            .as_ref()
            .filter(|set| set.until_ms.is_none_or(|until_ms| until_ms > self.now_ms))
    }

    fn forced(&self) -> Option<OverrideKind> {
        self.override_in_force().map(|set| set.kind)
    }

    pub(crate) fn applied(&self, token: Token) -> Option<AppliedCall> {
        self.record.applied.find(token)
    }

    pub(crate) fn transitions_by(&self, token: Token) -> Vec<Transition> {
        self.record.transitions.iter().filter(|transition| transition.by == token).copied().collect()
    }

    /// The counts' time is over (rule 1): they read as zero until the next write resets them.
    fn counts_expired(&self) -> bool {
        matches!(self.record.status, Status::Closed { counts_expire_at_ms: Some(at_ms) } if at_ms <= self.now_ms)
    }

    /// What the circuit is at this moment, without changing it (rule 9).
    pub(crate) fn information(&self) -> Information {
        let record = &self.record;
        let (state, expires_at_ms, probes, probe_successes) = match &record.status {
            Status::Closed { .. } if self.counts_expired() => (State::Closed, None, Vec::new(), 0),
            Status::Closed { counts_expire_at_ms } => (State::Closed, *counts_expire_at_ms, Vec::new(), 0),
            Status::Open { expires_at_ms } if *expires_at_ms <= self.now_ms => {
                (State::HalfOpen, None, Vec::new(), 0)
            }
            Status::Open { expires_at_ms } => (State::Open, Some(*expires_at_ms), Vec::new(), 0),
            Status::HalfOpen { probes, successes } => (State::HalfOpen, None, probes.clone(), *successes),
        };
        Information {
            state,
            era: record.era,
            generation: record.generation,
            counts: if self.counts_expired() { Counts::default() } else { record.counts },
            since_ms: match &record.status {
                Status::Open { expires_at_ms } if *expires_at_ms <= self.now_ms => *expires_at_ms,
                _ => record.since_ms,
            },
            expires_at_ms,
            probes,
            probe_successes,
            override_in_force: self.override_in_force().cloned(),
            transitions: record.transitions.clone(),
            revision: record.revision,
        }
    }

    /// Until when something in the record matters; `None` is for ever (rule 11).
    fn matters_until_ms(&self) -> Option<u64> {
        let state_until_ms = match &self.record.status {
            Status::Closed { counts_expire_at_ms } => counts_expire_at_ms.unwrap_or(0),
            Status::Open { expires_at_ms } => *expires_at_ms,
            Status::HalfOpen { probes, .. } => {
                probes.iter().map(|probe| probe.deadline_ms).max().unwrap_or(0)
            }
        };
        match self.override_in_force() {
            None => Some(state_until_ms),
            Some(set) => set.until_ms.map(|until_ms| until_ms.max(state_until_ms)),
        }
    }

    /// How long the store is to keep the record: longer than anything in it matters (rule 11).
    pub(crate) fn ttl_ms(&self) -> Option<u64> {
        let matters_for_ms = self.matters_until_ms()?.saturating_sub(self.now_ms);
        Some(matters_for_ms.saturating_add(self.request.settings.idle_retention_ms))
    }

    // ---- commands ----

    /// Answers a start (rules 4 to 6).
    pub(crate) fn start(&mut self, token: Token) -> Verdict {
        match self.forced() {
            Some(OverrideKind::ForcedOpen) => return self.refuse_forced(),
            Some(OverrideKind::ForcedClosed) => return self.permit(None),
            None => {}
        }
        if let Status::Open { expires_at_ms } = self.record.status {
            if let Some(left_ms) = expires_at_ms.checked_sub(self.now_ms).filter(|left_ms| *left_ms > 0) {
                return Verdict::Refusal { reason: RefusalReason::Open, retry_after_ms: left_ms };
            }
            let half_open = Status::HalfOpen { probes: Vec::new(), successes: 0 };
            self.enter(half_open, TransitionReason::OpenTimeOver, token);
        }
        let close_threshold = self.close_threshold();
        match &self.record.status {
            Status::HalfOpen { successes, .. } if *successes >= close_threshold => {
                // Other settings were in force when those probes succeeded; waiting for more would wait for ever.
                self.close(token);
                self.permit(None)
            }
            Status::HalfOpen { .. } => self.start_probe(token),
            Status::Closed { .. } | Status::Open { .. } => self.permit(None),
        }
    }

    /// Gives away a place in half-open, or says when to come back (rule 6).
    fn start_probe(&mut self, token: Token) -> Verdict {
        let now_ms = self.now_ms;
        let close_threshold = self.close_threshold();
        let deadline_ms = now_ms.saturating_add(self.request.settings.probe_timeout_ms);
        let probe = Probe { id: token, deadline_ms };
        let Status::HalfOpen { probes, successes } = &mut self.record.status else {
            return self.permit(None);
        };
        if let Some(own) = probes.iter().find(|probe| probe.id == token).copied() {
            return self.permit(Some(own));
        }
        let room = usize::try_from(close_threshold.saturating_sub(*successes)).unwrap_or(usize::MAX);
        let running = |probe: &&Probe| probe.deadline_ms > now_ms;
        // Counted apart from the places: there are more places than room where the threshold was lowered meanwhile.
        if probes.iter().filter(running).count() >= room {
            let ends_at_ms = probes.iter().filter(running).map(|probe| probe.deadline_ms).min();
            let retry_after_ms = ends_at_ms.unwrap_or(now_ms).saturating_sub(now_ms).max(PROBE_DELAY_MIN_MS);
            return Verdict::Refusal { reason: RefusalReason::TooManyRequests, retry_after_ms };
        }
        if probes.len() >= room
            && let Some((longest_over, _)) =
                probes.iter().enumerate().min_by_key(|(_, probe)| probe.deadline_ms)
        {
            // A lease that ran out keeps its place until somebody needs it.
            probes.remove(longest_over);
        }
        probes.push(probe);
        self.changed = true;
        self.permit(Some(probe))
    }

    /// Applies completions in order and says what became of each (rules 2, 3, 4, 7, 8).
    pub(crate) fn apply(
        &mut self,
        completions: &[Completion],
        token: Token,
        hooks: &mut dyn Hooks,
    ) -> Vec<Disposition> {
        let mut call = AppliedCall::new(token);
        for (index, completion) in (0_u16..).zip(completions) {
            let accepted = self.settle(completion, token, hooks);
            if accepted == 0 {
                call.set_stale(index);
            } else if accepted < completion.count {
                call.cut = Some((index, accepted));
            }
        }
        let dispositions = call.dispositions(completions);
        if self.changed {
            self.record.applied.push(&call);
        }
        dispositions
    }

    /// Applies one completion and says how many of its run were accepted.
    fn settle(&mut self, completion: &Completion, token: Token, hooks: &mut dyn Hooks) -> u32 {
        if completion.era != self.record.era {
            return 0;
        }
        match (&mut self.record.status, completion.probe) {
            (Status::Closed { .. }, None) => self.settle_closed(completion, token, hooks),
            (Status::HalfOpen { probes, .. }, Some(id)) => {
                let Some(place) = probes.iter().position(|probe| probe.id == id) else { return 0 };
                probes.remove(place);
                self.changed = true;
                self.settle_probe(completion.outcome, token);
                completion.count
            }
            // Admitted by a forced-closed override: it belongs to this era and has nothing to count.
            (Status::Open { .. } | Status::HalfOpen { .. }, None) => completion.count,
            (Status::Closed { .. } | Status::Open { .. }, Some(_)) => 0,
        }
    }

    fn settle_closed(&mut self, completion: &Completion, token: Token, hooks: &mut dyn Hooks) -> u32 {
        if completion.outcome == Outcome::Ignored {
            return completion.count;
        }
        self.begin_count();
        match completion.outcome {
            Outcome::Success => {
                self.record.counts.succeed(completion.count);
                completion.count
            }
            Outcome::Failure if self.forced() == Some(OverrideKind::ForcedClosed) => {
                self.record.counts.fail(completion.count);
                completion.count
            }
            Outcome::Failure => {
                let (counted, trips) = self.count_failures(completion.count, hooks);
                if trips {
                    self.trip(token);
                }
                counted
            }
            Outcome::Ignored => completion.count,
        }
    }

    fn settle_probe(&mut self, outcome: Outcome, token: Token) {
        let close_threshold = self.close_threshold();
        let Status::HalfOpen { successes, .. } = &mut self.record.status else { return };
        match outcome {
            Outcome::Ignored => {}
            Outcome::Success => {
                *successes = successes.saturating_add(1);
                let enough = *successes >= close_threshold;
                self.record.counts.succeed(1);
                if enough {
                    self.close(token);
                }
            }
            Outcome::Failure => {
                self.record.counts.fail(1);
                self.enter(self.open(), TransitionReason::ProbeFailed, token);
            }
        }
    }

    /// Counts failures up to the one that trips; says how many were counted and whether it trips.
    fn count_failures(&mut self, count: u32, hooks: &mut dyn Hooks) -> (u32, bool) {
        let threshold = self.request.settings.failure_count_threshold;
        match &self.request.settings.trip_rule {
            TripRule::ConsecutiveFailures => {
                let before = self.record.counts.consecutive_failures;
                let trips = before.saturating_add(u64::from(count)) > threshold;
                // At least one is counted: with a lowered threshold the next failure trips, not an earlier one.
                let borne = u32::try_from(threshold.saturating_sub(before)).unwrap_or(count);
                let counted = if trips { borne.saturating_add(1) } else { count };
                self.record.counts.fail(counted);
                (counted, trips)
            }
            TripRule::Custom(rule) => {
                for counted in 1..=count {
                    self.record.counts.fail(1);
                    let query = TripQuery {
                        circuit: &self.request.circuit,
                        rule,
                        failure_count_threshold: threshold,
                        generation: self.record.generation,
                        counts: self.record.counts,
                    };
                    if hooks.will_trip(&query) {
                        return (counted, true);
                    }
                }
                (count, false)
            }
        }
    }

    /// Prolongs leases and says their new deadlines (rule 6). A place given away is not won back.
    pub(crate) fn renew(&mut self, era: u64, ids: &[Token]) -> Vec<Option<u64>> {
        let deadline_ms = self.now_ms.saturating_add(self.request.settings.probe_timeout_ms);
        let current = era == self.record.era;
        let Status::HalfOpen { probes, .. } = &mut self.record.status else { return vec![None; ids.len()] };
        let mut deadlines = Vec::with_capacity(ids.len());
        for id in ids {
            let held = probes.iter_mut().find(|probe| current && probe.id == *id);
            deadlines.push(held.map(|probe| {
                // A repeated call, or one by a clock that is behind, has nothing to write.
                self.changed |= deadline_ms > probe.deadline_ms;
                probe.deadline_ms = probe.deadline_ms.max(deadline_ms);
                probe.deadline_ms
            }));
        }
        deadlines
    }

    // ---- transitions ----

    /// The one place where a state changes: a new era begins, and the change is noted.
    fn enter(&mut self, status: Status, reason: TransitionReason, by: Token) {
        let record = &mut self.record;
        let previous = record.status.state();
        record.era = record.era.saturating_add(1).max(self.now_ms);
        record.since_ms = self.now_ms;
        record.status = status;
        let transition = Transition {
            previous,
            next: record.status.state(),
            reason,
            at_ms: self.now_ms,
            era: record.era,
            generation: record.generation,
            by,
        };
        push_last(&mut record.transitions, transition, TRANSITIONS_KEPT);
        self.changed = true;
    }

    /// closed → open (rule 4).
    fn trip(&mut self, by: Token) {
        self.reset_counts();
        self.enter(self.open(), TransitionReason::Tripped, by);
    }

    /// half-open → closed (rule 7).
    fn close(&mut self, by: Token) {
        self.reset_counts();
        let closed = Status::Closed { counts_expire_at_ms: self.clear_at_ms() };
        self.enter(closed, TransitionReason::ProbesSucceeded, by);
    }

    /// The status of a circuit that opens now.
    fn open(&self) -> Status {
        Status::Open { expires_at_ms: self.now_ms.saturating_add(self.request.settings.allow_after_ms) }
    }

    // ---- counts ----

    fn reset_counts(&mut self) {
        self.record.generation = self.record.generation.saturating_add(1);
        self.record.counts = Counts::default();
    }

    fn clear_at_ms(&self) -> Option<u64> {
        self.request.settings.cyclic_clear_after_ms.map(|after_ms| self.now_ms.saturating_add(after_ms))
    }

    /// Before the first count of a period: clears what is over and sets when this one is (rule 1). No new era.
    fn begin_count(&mut self) {
        self.changed = true;
        if self.counts_expired() {
            self.reset_counts();
            self.record.status = Status::Closed { counts_expire_at_ms: None };
        }
        let clear_at_ms = self.clear_at_ms();
        if let Status::Closed { counts_expire_at_ms } = &mut self.record.status {
            *counts_expire_at_ms = counts_expire_at_ms.or(clear_at_ms);
        }
    }

    // ---- small ones ----

    fn close_threshold(&self) -> u32 {
        self.request.settings.close_threshold
    }

    fn permit(&self, probe: Option<Probe>) -> Verdict {
        Verdict::Permit(Permit { era: self.record.era, probe })
    }

    /// An override without end is asked about again after an open time.
    fn refuse_forced(&self) -> Verdict {
        let until_ms = self.override_in_force().and_then(|set| set.until_ms);
        let left_ms = until_ms.map(|until_ms| until_ms.saturating_sub(self.now_ms).max(1));
        Verdict::Refusal {
            reason: RefusalReason::ForcedOpen,
            retry_after_ms: left_ms.unwrap_or(self.request.settings.allow_after_ms),
        }
    }
}

impl Counts {
    fn succeed(&mut self, times: u32) {
        let times = u64::from(times);
        self.total = self.total.saturating_add(times);
        self.total_successes = self.total_successes.saturating_add(times);
        self.consecutive_successes = self.consecutive_successes.saturating_add(times);
        self.consecutive_failures = 0;
    }

    fn fail(&mut self, times: u32) {
        let times = u64::from(times);
        self.total = self.total.saturating_add(times);
        self.total_failures = self.total_failures.saturating_add(times);
        self.consecutive_failures = self.consecutive_failures.saturating_add(times);
        self.consecutive_successes = 0;
    }
}

/// Appends `item` and drops the oldest beyond `most`.
fn push_last<T>(items: &mut Vec<T>, item: T, most: usize) {
    items.push(item);
    let over = items.len().saturating_sub(most);
    items.drain(..over);
}
