//! What becomes of outcomes: they are counted, trip the circuit, or decide about its recovery (rules 2, 3, 7 and 8).

use alloc::vec::Vec;

use crate::applied::AppliedCall;
use crate::circuit::{Circuit, Next};
use crate::exchange::Hooks;
use crate::record::{Counts, OverrideKind, RecordError, Status, Token, TransitionReason, TripKind};
use crate::request::{Completion, Disposition, Outcome};
use crate::rules::{Finding, Seen};
use crate::window::{Counted, Windows};

impl Circuit<'_> {
    /// Applies completions in order and says what became of each (rules 2, 3, 4, 7, 8).
    pub(crate) fn apply(
        &mut self,
        completions: &[Completion],
        token: Token,
        hooks: &mut dyn Hooks,
    ) -> Result<Vec<Disposition>, RecordError> {
        let mut call = AppliedCall::new(token);
        for (index, completion) in (0_u16..).zip(completions) {
            let accepted = self.settle(completion, token, hooks)?;
            if accepted == 0 {
                call.set_stale(index);
            } else if accepted < completion.count {
                call.cut = Some((index, accepted));
            }
        }
        let dispositions = call.dispositions(completions);
        if self.changed {
            self.remember(&call);
        }
        Ok(dispositions)
    }

    /// Applies one completion and says how many of its run were accepted.
    fn settle(
        &mut self,
        completion: &Completion,
        token: Token,
        hooks: &mut dyn Hooks,
    ) -> Result<u32, RecordError> {
        if completion.era != self.record.era {
            return Ok(0);
        }
        let over = self.is_overdue();
        let disabled = self.forced() == Some(OverrideKind::Disabled);
        match (&mut self.record.status, completion.probe) {
            (Status::Closed { .. }, None) if disabled => Ok(completion.count),
            (Status::Closed { .. }, None) => self.settle_closed(completion, token, hooks),
            (Status::HalfOpen { .. }, Some(_)) if over => Ok(0),
            (Status::HalfOpen { probes, .. }, Some(id)) => {
                let Some(place) = probes.iter().position(|probe| probe.id == id) else { return Ok(0) };
                probes.remove(place);
                self.changed = true;
                if !disabled {
                    self.settle_probe(completion, token)?;
                }
                Ok(completion.count)
            }
            // Admitted by an override: it belongs to this era and has nothing to count.
            (Status::Open { .. } | Status::HalfOpen { .. }, None) => Ok(completion.count),
            (Status::Closed { .. } | Status::Open { .. }, Some(_)) => Ok(0),
        }
    }

    fn settle_closed(
        &mut self,
        completion: &Completion,
        token: Token,
        hooks: &mut dyn Hooks,
    ) -> Result<u32, RecordError> {
        if completion.outcome == Outcome::Ignored {
            return Ok(completion.count);
        }
        self.begin_count();
        let failed = completion.outcome == Outcome::Failure;
        let counted = Counted { count: completion.count, failed, slow: completion.slow };
        // With a quorum the fleet trips by votes only.
        let may_trip = self.settings().quorum.is_none() && self.forced() != Some(OverrideKind::ForcedClosed);
        let trip =
            if may_trip && (failed || completion.slow) { self.first_trip(counted, hooks) } else { None };
        if let Some((number, found)) = trip {
            let next = Next::Open { found, retry_after_ms: completion.retry_after_ms.filter(|_| failed) };
            self.enter(next, TransitionReason::Tripped, self.now_ms, token)?;
            return Ok(number);
        }
        if failed {
            self.record.counts.fail(counted.count);
            self.step_back(counted.count);
        } else {
            self.record.counts.succeed(counted.count);
        }
        if self.settings().quorum.is_some() {
            // The rules look at the nodes' own records, and votes take the room of windows here.
            return Ok(completion.count);
        }
        if let Status::Closed { windows, .. } = &mut self.record.status {
            windows.count(&self.in_force, counted, self.now_ms);
        }
        Ok(completion.count)
    }

    fn first_trip(&self, counted: Counted, hooks: &mut dyn Hooks) -> Option<(u32, Finding)> {
        let Status::Closed { windows, .. } = &self.record.status else { return None };
        self.seen(windows).first_trip(counted, hooks)
    }

    /// What the rules look at.
    pub(crate) fn seen<'s>(&'s self, windows: &'s Windows) -> Seen<'s> {
        Seen {
            circuit: &self.request.circuit,
            settings: &self.in_force,
            generation: self.record.generation,
            counts: if self.counts_expired() { Counts::default() } else { self.record.counts },
            windows,
            now_ms: self.now_ms,
        }
    }

    /// A probe that went well may close the circuit, one that did not may open it (rule 7). A slow one did not go well where a
    /// rule minds slow calls.
    fn settle_probe(&mut self, completion: &Completion, token: Token) -> Result<(), RecordError> {
        let settings = self.settings();
        let close_threshold = settings.close_threshold;
        let bears = settings.probes().saturating_sub(close_threshold);
        let too_slow = completion.slow && settings.minds_slow_calls();
        let Status::HalfOpen { successes, failures, .. } = &mut self.record.status else { return Ok(()) };
        match completion.outcome {
            Outcome::Ignored => {}
            Outcome::Success if !too_slow => {
                *successes = successes.saturating_add(1);
                let enough = *successes >= close_threshold;
                self.record.counts.succeed(1);
                if enough {
                    self.enter(Next::Closed, TransitionReason::ProbesSucceeded, self.now_ms, token)?;
                }
            }
            Outcome::Success | Outcome::Failure => {
                *failures = failures.saturating_add(1);
                let (failed, calls) = (*failures, successes.saturating_add(*failures));
                match completion.outcome {
                    Outcome::Failure => self.record.counts.fail(1),
                    Outcome::Success | Outcome::Ignored => self.record.counts.succeed(1),
                }
                if failed > bears {
                    let found = Finding {
                        kind: TripKind::Probe,
                        observed: failed.into(),
                        threshold: u64::from(bears).saturating_add(1),
                        calls: calls.into(),
                    };
                    let asked_ms =
                        completion.retry_after_ms.filter(|_| completion.outcome == Outcome::Failure);
                    let next = Next::Open { found, retry_after_ms: asked_ms };
                    self.enter(next, TransitionReason::ProbeFailed, self.now_ms, token)?;
                }
            }
        }
        Ok(())
    }

    /// Before the first count of a period: clears what is over and sets when this one is (rule 1). No new era.
    fn begin_count(&mut self) {
        self.changed = true;
        let expired = self.counts_expired();
        if expired {
            self.reset_counts();
        }
        let clear_at_ms = self.clear_at_ms(self.now_ms);
        if let Status::Closed { counts_expire_at_ms, .. } = &mut self.record.status {
            *counts_expire_at_ms = counts_expire_at_ms.filter(|_| !expired).or(clear_at_ms);
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

    pub(crate) fn fail(&mut self, times: u32) {
        let times = u64::from(times);
        self.total = self.total.saturating_add(times);
        self.total_failures = self.total_failures.saturating_add(times);
        self.consecutive_failures = self.consecutive_failures.saturating_add(times);
        self.consecutive_successes = 0;
    }
}
