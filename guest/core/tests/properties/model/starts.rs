//! Who may begin: closed, open, half-open, the ramp, and what a person forces.

use circuitry_core::Answer;
use circuitry_core::record::{OverrideKind, Probe, State, Token, TransitionReason, TripKind};
use circuitry_core::request::{JudgedBy, Permit, Refusal, RefusalReason, Verdict};
use circuitry_core::settings::{HalfOpenLimit, Overdue};

use super::calls::Calls;
use super::opening::{Cause, Found};
use super::{Call, Fate, Model, Place};

impl Model {
    pub(super) fn start(&mut self, call: &mut Call<'_>, id: Token) -> Answer {
        let verdict = match self.forced_as(call.now) {
            Some(OverrideKind::ForcedOpen) => {
                let until = self.forced_at(call.now).and_then(|forced| forced.until_ms);
                let wait = until.map_or(self.in_force.allow_after_ms, |until| until - call.now);
                Verdict::Refusal(Refusal { reason: RefusalReason::ForcedOpen, retry_after_ms: wait })
            }
            Some(OverrideKind::ForcedClosed) => self.permit(None, JudgedBy::Fleet),
            Some(OverrideKind::Disabled) => self.permit(None, JudgedBy::Nobody),
            Some(OverrideKind::MetricsOnly) => match self.admit(call, id) {
                Verdict::Refusal(refusal) => match self.permit(None, JudgedBy::Nobody) {
                    Verdict::Permit(permit) => {
                        Verdict::Permit(Permit { would_have_refused: Some(refusal), ..permit })
                    }
                    refusal @ Verdict::Refusal(_) => refusal,
                },
                permit @ Verdict::Permit(_) => permit,
            },
            None => self.admit(call, id),
        };
        let settings_in_force =
            self.differs_from(call.settings).then(|| Box::new(self.in_force_for(call.settings)));
        Answer::Started { verdict, transitions: self.changes_by(id), settings_in_force }
    }

    fn permit(&self, probe: Option<Probe>, judged_by: JudgedBy) -> Verdict {
        let slow_call_after_ms = self.in_force.slow_call_after_ms.filter(|_| judged_by != JudgedBy::Nobody);
        Verdict::Permit(Permit {
            era: self.era(),
            probe,
            judged_by,
            slow_call_after_ms,
            would_have_refused: None,
            grant_until_ms: None,
        })
    }

    fn closed_permit(&self) -> Verdict {
        let judged_by = if self.in_force.quorum.is_some() { JudgedBy::Node } else { JudgedBy::Fleet };
        self.permit(None, judged_by)
    }

    /// A closed permit; with a grant where starts need not be asked for one by one: for a minute, or until the counts are cleared.
    fn granted(&self, now: u64) -> Verdict {
        let Verdict::Permit(permit) = self.closed_permit() else { return self.closed_permit() };
        let asks_each = self.forced_at(now).is_some() || self.in_force.quorum.is_some();
        let clears = self.clears_at.filter(|at| *at > now).unwrap_or(u64::MAX);
        let until = now.saturating_add(60_000).min(clears);
        Verdict::Permit(Permit { grant_until_ms: Some(until).filter(|_| !asks_each), ..permit })
    }

    /// When a half-open phase has taken too long.
    pub(super) fn overdue_at(&self) -> Option<u64> {
        let limit = self.in_force.half_open_limit.filter(|_| self.state() == State::HalfOpen)?;
        Some(self.stay().since.saturating_add(limit.after_ms))
    }

    pub(crate) fn is_overdue(&self, now: u64) -> bool {
        self.overdue_at().is_some_and(|at| at <= now)
    }

    pub(super) fn end_overdue(&mut self, call: &Call<'_>, id: Token, at: u64) {
        let HalfOpenLimit { after_ms, then } = self.in_force.half_open_limit.unwrap();
        let cause = match then {
            Overdue::Closes => Cause::Closes(TransitionReason::HalfOpenOverdueClosed),
            Overdue::Opens => Cause::Opens {
                reason: TransitionReason::HalfOpenOverdueOpened,
                // The length of the phase, in milliseconds.
                found: Found { kind: TripKind::Overdue, observed: after_ms, threshold: after_ms, calls: 0 },
                retry_after: 0,
            },
        };
        self.enter(call, &cause, id, at);
    }

    fn admit(&mut self, call: &mut Call<'_>, id: Token) -> Verdict {
        if let (Some(at), true) = (self.overdue_at(), self.is_overdue(call.now)) {
            self.end_overdue(call, id, at);
            call.writes = true;
        }
        if let Some(until) = self.stay().until {
            if call.now < until {
                let retry_after_ms = until - call.now;
                return Verdict::Refusal(Refusal { reason: RefusalReason::Open, retry_after_ms });
            }
            self.enter(call, &Cause::OpenTimeOver, id, call.now);
            call.writes = true;
        }
        if self.state() == State::HalfOpen { self.probe(call, id) } else { self.ramped(call.now, id) }
    }

    fn probe(&mut self, call: &mut Call<'_>, id: Token) -> Verdict {
        let held: Vec<Place> = self.places(Fate::Out).into_iter().cloned().collect();
        if let Some(own) = held.iter().find(|place| place.id == id) {
            return self.permit(Some(Probe { id, deadline_ms: own.deadline }), JudgedBy::Fleet);
        }
        let probes = self.in_force.probes.unwrap_or(self.in_force.close_threshold) as usize;
        let settled = self.places(Fate::Succeeded).len() + self.places(Fate::Failed).len();
        let at_once = self.in_force.probes_at_once.map_or(probes, |at_once| at_once as usize);
        let room = at_once.min(probes - settled);
        let running: Vec<u64> =
            held.iter().map(|place| place.deadline).filter(|deadline| *deadline > call.now).collect();
        if running.len() >= room {
            let retry_after_ms = (running.iter().min().unwrap() - call.now).max(100);
            return Verdict::Refusal(Refusal { reason: RefusalReason::TooManyRequests, retry_after_ms });
        }
        if held.len() >= room {
            let era = self.era();
            let out = |place: &&mut Place| place.era == era && place.fate == Fate::Out;
            let oldest = self.places.iter_mut().filter(out).min_by_key(|place| place.deadline);
            oldest.unwrap().fate = Fate::Replaced;
        }
        let deadline = call.now.saturating_add(self.in_force.probe_timeout_ms);
        self.places.push(Place { era: self.era(), id, deadline, fate: Fate::Out });
        call.writes = true;
        self.permit(Some(Probe { id, deadline_ms: deadline }), JudgedBy::Fleet)
    }

    /// What a half-open phase has found so far, with the failure that opens it.
    pub(super) fn probes_failed(&self) -> Found {
        let probes = self.in_force.probes.unwrap_or(self.in_force.close_threshold);
        let failed = self.places(Fate::Failed).len() as u64;
        Found {
            kind: TripKind::Probe,
            observed: failed,
            threshold: u64::from(probes - self.in_force.close_threshold) + 1,
            calls: failed + self.places(Fate::Succeeded).len() as u64,
        }
    }

    // ---- the ramp ----

    fn ramped(&self, now: u64, id: Token) -> Verdict {
        let Some((share, next_step)) = self.ramp_at(now) else { return self.granted(now) };
        let admitted = |number: i128| (number * i128::from(share)).div_euclid(1_000);
        if admitted(id.sequence.into()) > admitted(i128::from(id.sequence) - 1) {
            return self.closed_permit();
        }
        let retry_after_ms = next_step.saturating_sub(now).max(1);
        Verdict::Refusal(Refusal { reason: RefusalReason::Ramp, retry_after_ms })
    }

    /// The share that is admitted and when the next step begins, while there is a ramp.
    pub(super) fn ramp_at(&self, now: u64) -> Option<(u32, u64)> {
        let (first, step) = self.ramp_step(&self.calls_here(), now)?;
        let ramp = self.in_force.ramp.as_ref()?;
        let next = first.saturating_add(ramp.step_ms.saturating_mul(step + 1));
        Some((ramp.steps_per_mille[step as usize], next))
    }

    pub(super) fn ramp_ends_at(&self, now: u64) -> Option<u64> {
        let (first, _) = self.ramp_step(&self.calls_here(), now)?;
        let ramp = self.in_force.ramp.as_ref()?;
        Some(first.saturating_add(ramp.step_ms.saturating_mul(ramp.steps_per_mille.len() as u64)))
    }

    /// When the ramp's first step began and which one it is now, after these calls.
    fn ramp_step(&self, calls: &[Calls], now: u64) -> Option<(u64, u64)> {
        let ramp = self.in_force.ramp.as_ref().filter(|_| self.stay().ramps)?;
        let step_at = |first: u64, now: u64| {
            let step = now.saturating_sub(first) / ramp.step_ms;
            (step < ramp.steps_per_mille.len() as u64).then_some(step)
        };
        let mut first = self.stay().since;
        for calls in calls.iter().filter(|calls| calls.failed) {
            // After as many failures as there are steps it stays at the first.
            for _ in 0..calls.times.min(9) {
                if let Some(step) = step_at(first, calls.at) {
                    first = calls.at.saturating_sub(ramp.step_ms * step.saturating_sub(1));
                }
            }
        }
        Some((first, step_at(first, now)?))
    }

    // ---- leases ----

    pub(super) fn renew(&mut self, call: &mut Call<'_>, era: u64, probes: &[Token]) -> Answer {
        let (current, lease) =
            (era == self.era() && !self.is_overdue(call.now), self.in_force.probe_timeout_ms);
        let mut deadlines = vec![];
        for probe in probes {
            let own = |place: &&mut Place| place.era == era && place.id == *probe && place.fate == Fate::Out;
            deadlines.push(self.places.iter_mut().find(own).filter(|_| current).map(|place| {
                let deadline = call.now.saturating_add(lease);
                call.writes |= deadline > place.deadline;
                place.deadline = place.deadline.max(deadline);
                place.deadline
            }));
        }
        Answer::Renewed(deadlines)
    }
}
