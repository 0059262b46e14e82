//! The states: a circuit at a moment, what it answers, what becomes of it, and how one state becomes another.
//!
//! Methods sort into questions (`&self`), the commands `start`, `apply`, `renew`, `vote` and `reset`, and `enter`, the one place
//! where a state changes. They change the record in memory; whether the change counts is for the store to say.

use alloc::borrow::Cow;
use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;

use crate::applied::AppliedCall;
use crate::opening::open_for_ms;
use crate::record::{
    Counts, InForce, Override, OverrideKind, Probe, Record, RecordError, State, Status, TRANSITIONS_KEPT,
    Token, Transition, TransitionReason, Trip, TripKind,
};
use crate::request::{JudgedBy, Permit, Refusal, RefusalReason, Request, Verdict};
use crate::rules::Finding;
use crate::settings::{Overdue, Settings};
use crate::window::Windows;

/// A circuit at a moment: its record, its settings and the time.
#[derive(Clone)]
pub(crate) struct Circuit<'a> {
    pub(crate) record: Box<Record>,
    pub(crate) changed: bool,
    pub(crate) now_ms: u64,
    pub(crate) request: &'a Request,
    /// Whether a transition brings the caller's settings: not where somebody only looks.
    pub(crate) brings_settings: bool,
    /// The settings in force, which are those of the request unless the record says otherwise.
    pub(crate) in_force: Cow<'a, Settings>,
}

/// A state to enter, with what it needs to know.
pub(crate) enum Next {
    Closed,
    HalfOpen,
    Open { found: Finding, retry_after_ms: Option<u64> },
}

impl<'a> Circuit<'a> {
    /// # Errors
    /// Where the record has settings or windows that cannot be used.
    pub(crate) fn stored(
        record: Box<Record>,
        request: &'a Request,
        now_ms: u64,
    ) -> Result<Self, RecordError> {
        let own = &request.settings;
        let mut in_force = Cow::Borrowed(own);
        let mut record = record;
        match &record.in_force {
            Some(shared) if shared.fingerprint != own.fingerprint() => {
                in_force = Cow::Owned(shared.settings(own.idle_retention_ms)?);
            }
            Some(_) => {}
            // A record of schema 1: whoever writes next says what is in force.
            None => record.in_force = Some(InForce::new(own)),
        }
        if let Status::Closed { windows, .. } = &record.status
            && !windows.fit(&in_force)
        {
            return Err(RecordError::Malformed("its windows are not those of its settings".into()));
        }
        Ok(Self { record, changed: false, now_ms, request, brings_settings: true, in_force })
    }

    /// A circuit without a record is closed, of generation 0, with counts of 0 (rule 1). Its era begins now, so that
    /// it differs from every era before a loss; that is why it has to be written before a permit goes out.
    pub(crate) fn unknown(request: &'a Request, now_ms: u64) -> Self {
        let mut record = Box::new(Record::beginning(now_ms.max(1), now_ms));
        record.in_force = Some(InForce::new(&request.settings));
        let in_force = Cow::Borrowed(&request.settings);
        Self { record, changed: true, now_ms, request, brings_settings: true, in_force }
    }

    // ---- questions ----

    /// The settings in force.
    pub(crate) fn settings(&self) -> &Settings {
        &self.in_force
    }

    /// Whether the caller has others.
    pub(crate) fn settings_differ(&self) -> bool {
        matches!(self.in_force, Cow::Owned(_))
    }

    pub(crate) fn override_in_force(&self) -> Option<&Override> {
        self.record
            .override_set
            .as_ref()
            .filter(|set| set.until_ms.is_none_or(|until_ms| until_ms > self.now_ms))
    }

    pub(crate) fn forced(&self) -> Option<OverrideKind> {
        self.override_in_force().map(|set| set.kind)
    }

    pub(crate) fn applied(&self, token: Token) -> Option<AppliedCall> {
        self.record.applied.find(token)
    }

    pub(crate) fn transitions_by(&self, token: Token) -> Vec<Transition> {
        self.record.transitions.iter().filter(|transition| transition.by == token).copied().collect()
    }

    /// The counts' time is over (rule 1): they read as zero until the next write resets them.
    pub(crate) fn counts_expired(&self) -> bool {
        matches!(
            self.record.status,
            Status::Closed { counts_expire_at_ms: Some(at_ms), .. } if at_ms <= self.now_ms
        )
    }

    /// When a half-open phase is overdue, and what follows.
    pub(crate) fn overdue(&self) -> Option<(u64, Overdue)> {
        let limit = self.settings().half_open_limit?;
        matches!(self.record.status, Status::HalfOpen { .. })
            .then(|| (self.record.since_ms.saturating_add(limit.after_ms), limit.then))
    }

    /// Whether a half-open phase is over although nobody has noticed: its probes hold nothing any more.
    pub(crate) fn is_overdue(&self) -> bool {
        self.overdue().is_some_and(|(at_ms, _)| at_ms <= self.now_ms)
    }

    /// Until when something in the record matters; `None` is for ever (rule 11).
    fn matters_until_ms(&self) -> Option<u64> {
        let state_until_ms = self.state_matters_until_ms();
        match self.override_in_force() {
            None => Some(state_until_ms),
            Some(set) => set.until_ms.map(|until_ms| until_ms.max(state_until_ms)),
        }
    }

    fn state_matters_until_ms(&self) -> u64 {
        let settings = self.settings();
        let since_ms = self.record.since_ms;
        match &self.record.status {
            Status::Closed { counts_expire_at_ms, windows, votes, ramp_since_ms } => {
                let healthy_at_ms = match &settings.backoff {
                    Some(backoff) if self.record.trips_in_a_row > 0 => {
                        since_ms.saturating_add(backoff.healthy_after_ms)
                    }
                    _ => 0,
                };
                let windows_ms = windows.matter_until_ms(settings, self.now_ms);
                let vote_ms = votes.iter().map(|vote| vote.at_ms).max().unwrap_or(0);
                let votes_ms = vote_ms.saturating_add(settings.quorum.map_or(0, |quorum| quorum.window_ms));
                let ramp_ms = match (&settings.ramp, ramp_since_ms) {
                    (Some(ramp), Some(since_ms)) => since_ms
                        .saturating_add(ramp.step_ms.saturating_mul(ramp.steps_per_mille.len() as u64)),
                    _ => 0,
                };
                let latest = windows_ms.max(votes_ms).max(ramp_ms).max(healthy_at_ms);
                counts_expire_at_ms.unwrap_or(0).max(latest)
            }
            Status::Open { expires_at_ms } => *expires_at_ms,
            Status::HalfOpen { probes, .. } => {
                let lease_ms = probes.iter().map(|probe| probe.deadline_ms).max().unwrap_or(0);
                lease_ms.max(self.what_follows_matters_until_ms())
            }
        }
    }

    /// A half-open phase with a limit goes on into what follows it although nobody writes; so that, too, must outlive it: a
    /// circuit that is open again because its phase was overdue is not to vanish and be taken for a closed one.
    fn what_follows_matters_until_ms(&self) -> u64 {
        let Some((at_ms, _)) = self.overdue() else { return 0 };
        let mut then = self.clone();
        then.brings_settings = false;
        then.now_ms = then.now_ms.max(at_ms);
        match then.end_overdue(NOBODY) {
            Ok(()) => then.state_matters_until_ms().max(at_ms),
            Err(_) => at_ms,
        }
    }

    /// How long the store is to keep the record: longer than anything in it matters (rule 11).
    pub(crate) fn ttl_ms(&self) -> Option<u64> {
        let matters_for_ms = self.matters_until_ms()?.saturating_sub(self.now_ms);
        Some(matters_for_ms.saturating_add(self.request.settings.idle_retention_ms))
    }

    // ---- commands ----

    /// Answers a start (rules 4 to 6). An override stands above the state, and the state above the ramp.
    pub(crate) fn start(&mut self, token: Token) -> Result<Verdict, RecordError> {
        match self.forced() {
            Some(OverrideKind::ForcedOpen) => return Ok(self.refuse_forced()),
            Some(OverrideKind::ForcedClosed) => return Ok(self.permit(None, JudgedBy::Fleet)),
            Some(OverrideKind::Disabled) => return Ok(self.permit(None, JudgedBy::Nobody)),
            Some(OverrideKind::MetricsOnly) | None => {}
        }
        let verdict = self.start_unforced(token)?;
        Ok(match verdict {
            Verdict::Refusal(refusal) if self.forced() == Some(OverrideKind::MetricsOnly) => {
                Verdict::Permit(Permit {
                    era: self.record.era,
                    probe: None,
                    judged_by: JudgedBy::Nobody,
                    slow_call_after_ms: None,
                    would_have_refused: Some(refusal),
                    grant_until_ms: None,
                })
            }
            verdict => verdict,
        })
    }

    fn start_unforced(&mut self, token: Token) -> Result<Verdict, RecordError> {
        self.end_overdue(token)?;
        if let Status::Open { expires_at_ms } = self.record.status {
            if let Some(left_ms) = expires_at_ms.checked_sub(self.now_ms).filter(|left_ms| *left_ms > 0) {
                let reason = RefusalReason::Open;
                return Ok(Verdict::Refusal(Refusal { reason, retry_after_ms: left_ms }));
            }
            self.enter(Next::HalfOpen, TransitionReason::OpenTimeOver, self.now_ms, token)?;
        }
        if let Status::HalfOpen { successes, .. } = &self.record.status {
            if *successes < self.settings().close_threshold {
                return Ok(self.start_probe(token));
            }
            // Other settings were in force when those probes succeeded; waiting for more would wait for ever.
            self.enter(Next::Closed, TransitionReason::ProbesSucceeded, self.now_ms, token)?;
        }
        Ok(self.start_closed(token))
    }

    /// Ends a half-open phase that has taken too long, as of the time at which it was over.
    pub(crate) fn end_overdue(&mut self, by: Token) -> Result<(), RecordError> {
        let Some((at_ms, then)) = self.overdue().filter(|(at_ms, _)| *at_ms <= self.now_ms) else {
            return Ok(());
        };
        match then {
            Overdue::Closes => self.enter(Next::Closed, TransitionReason::HalfOpenOverdueClosed, at_ms, by),
            Overdue::Opens => {
                let took_ms = at_ms.saturating_sub(self.record.since_ms);
                let found =
                    Finding { kind: TripKind::Overdue, observed: took_ms, threshold: took_ms, calls: 0 };
                let next = Next::Open { found, retry_after_ms: None };
                self.enter(next, TransitionReason::HalfOpenOverdueOpened, at_ms, by)
            }
        }
    }

    /// Keeps a call, so that it is known when it is repeated.
    pub(crate) fn remember(&mut self, call: &AppliedCall) {
        self.changed = true;
        self.record.remember(call);
    }

    /// Prolongs leases and says their new deadlines (rule 6). A place given away is not won back.
    pub(crate) fn renew(&mut self, era: u64, ids: &[Token]) -> Vec<Option<u64>> {
        let deadline_ms = self.now_ms.saturating_add(self.settings().probe_timeout_ms);
        let current = era == self.record.era && !self.is_overdue();
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

    /// Closes the circuit as if it were new, and takes the override away.
    pub(crate) fn reset(&mut self, token: Token) -> Result<(), RecordError> {
        self.record.override_set = None;
        self.record.last_trip = None;
        self.enter(Next::Closed, TransitionReason::Reset, self.now_ms, token)?;
        self.record.trips_in_a_row = 0;
        if let Status::Closed { ramp_since_ms, .. } = &mut self.record.status {
            *ramp_since_ms = None;
        }
        self.remember(&AppliedCall::new(token));
        Ok(())
    }

    // ---- transitions ----

    /// The one place where a state changes: a new era begins, the caller's settings come into force unless they are older, and
    /// the change is noted.
    pub(crate) fn enter(
        &mut self,
        next: Next,
        reason: TransitionReason,
        at_ms: u64,
        by: Token,
    ) -> Result<(), RecordError> {
        let (previous, previous_since_ms) = (self.record.status.state(), self.record.since_ms);
        self.bring_settings()?;
        let opened_as = self.record.era.saturating_add(1).max(at_ms);
        // By the time of now, also where it took effect before: of two that do it on copies of a record, none has the other's era.
        self.record.era = opened_as.max(self.now_ms);
        self.record.since_ms = at_ms;
        self.record.status = match next {
            Next::HalfOpen => Status::HalfOpen { probes: Vec::new(), successes: 0, failures: 0 },
            Next::Closed => {
                self.reset_counts();
                closed(self.clear_at_ms(at_ms), self.settings().ramp.as_ref().map(|_| at_ms))
            }
            Next::Open { found, retry_after_ms } => {
                if previous == State::Closed {
                    self.reset_counts();
                    let healthy = match &self.settings().backoff {
                        Some(backoff) => at_ms.saturating_sub(previous_since_ms) >= backoff.healthy_after_ms,
                        None => true,
                    };
                    if healthy {
                        self.record.trips_in_a_row = 0;
                    }
                }
                self.open(found, retry_after_ms, at_ms, opened_as)
            }
        };
        let record = &mut self.record;
        let transition = Transition {
            previous,
            next: record.status.state(),
            reason,
            at_ms,
            era: record.era,
            generation: record.generation,
            by,
        };
        record.transitions.push(transition);
        drop_first(&mut record.transitions, TRANSITIONS_KEPT);
        self.changed = true;
        Ok(())
    }

    /// The status of a circuit that opens, with the jitter of `era`; the trip is noted.
    fn open(&mut self, found: Finding, retry_after_ms: Option<u64>, at_ms: u64, era: u64) -> Status {
        self.record.trips_in_a_row = self.record.trips_in_a_row.saturating_add(1);
        let open_for_ms = open_for_ms(
            &self.in_force,
            &self.request.circuit,
            era,
            self.record.trips_in_a_row,
            retry_after_ms,
        );
        let Finding { kind, observed, threshold, calls } = found;
        self.record.last_trip = Some(Trip { kind, observed, threshold, calls, at_ms, open_for_ms });
        Status::Open { expires_at_ms: at_ms.saturating_add(open_for_ms) }
    }

    /// Puts the caller's settings in force, unless the revision of those in force is higher.
    fn bring_settings(&mut self) -> Result<(), RecordError> {
        let own = &self.request.settings;
        if !self.brings_settings {
            return Ok(());
        }
        if let Some(shared) = &self.record.in_force {
            let revision = shared.settings(own.idle_retention_ms)?.settings_revision;
            let same = shared.fingerprint == own.fingerprint() && revision == own.settings_revision;
            if same || revision > own.settings_revision {
                return Ok(());
            }
        }
        self.record.in_force = Some(InForce::new(own));
        self.in_force = Cow::Borrowed(own);
        Ok(())
    }

    // ---- counts ----

    pub(crate) fn reset_counts(&mut self) {
        self.record.generation = self.record.generation.saturating_add(1);
        self.record.counts = Counts::default();
    }

    pub(crate) fn clear_at_ms(&self, from_ms: u64) -> Option<u64> {
        self.settings().cyclic_clear_after_ms.map(|after_ms| from_ms.saturating_add(after_ms))
    }

    // ---- small ones ----

    pub(crate) fn permit(&self, probe: Option<Probe>, judged_by: JudgedBy) -> Verdict {
        Verdict::Permit(Permit {
            era: self.record.era,
            probe,
            judged_by,
            slow_call_after_ms: self.settings().slow_call_after_ms.filter(|_| judged_by != JudgedBy::Nobody),
            would_have_refused: None,
            grant_until_ms: None,
        })
    }

    /// An override without end is asked about again after an open time.
    fn refuse_forced(&self) -> Verdict {
        let until_ms = self.override_in_force().and_then(|set| set.until_ms);
        let left_ms = until_ms.map(|until_ms| until_ms.saturating_sub(self.now_ms).max(1));
        let retry_after_ms = left_ms.unwrap_or(self.settings().allow_after_ms);
        Verdict::Refusal(Refusal { reason: RefusalReason::ForcedOpen, retry_after_ms })
    }
}

/// Who brings about what time alone does, where it is only looked at.
pub(crate) const NOBODY: Token = Token { node: 0, sequence: 0 };

/// A closed circuit that has counted nothing.
fn closed(counts_expire_at_ms: Option<u64>, ramp_since_ms: Option<u64>) -> Status {
    Status::Closed { counts_expire_at_ms, windows: Windows::default(), votes: Vec::new(), ramp_since_ms }
}

/// Drops the oldest beyond `most`.
pub(crate) fn drop_first<T>(items: &mut Vec<T>, most: usize) {
    let over = items.len().saturating_sub(most);
    items.drain(..over);
}
