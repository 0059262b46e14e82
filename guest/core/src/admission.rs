//! Who is let in while a circuit recovers: the probes of half-open, and the share of a ramp.

use crate::circuit::Circuit;
use crate::record::{Probe, Status, Token};
use crate::request::{JudgedBy, RampPosition, Refusal, RefusalReason, Verdict};
use crate::settings::{Ramp, WHOLE_PER_MILLE};

/// The shortest delay named when all probes are out: their leases are renewed, so the end of one is only a guess.
const PROBE_DELAY_MIN_MS: u64 = 100;
/// The longest grant: who has not asked for so long has not looked either.
const GRANT_MAX_MS: u64 = 60_000;

impl Circuit<'_> {
    /// Gives away a place in half-open, or says when to come back (rule 6).
    pub(crate) fn start_probe(&mut self, token: Token) -> Verdict {
        let now_ms = self.now_ms;
        let settings = self.settings();
        let (probes_max, at_once) = (settings.probes(), settings.probes_at_once());
        let deadline_ms = now_ms.saturating_add(settings.probe_timeout_ms);
        let probe = Probe { id: token, deadline_ms };
        let Status::HalfOpen { probes, successes, failures } = &mut self.record.status else {
            return self.permit(None, JudgedBy::Fleet);
        };
        if let Some(own) = probes.iter().find(|probe| probe.id == token).copied() {
            return self.permit(Some(own), JudgedBy::Fleet);
        }
        let left = probes_max.saturating_sub(*successes).saturating_sub(*failures);
        let room = usize::try_from(left.min(at_once)).unwrap_or(usize::MAX);
        let running = |probe: &&Probe| probe.deadline_ms > now_ms;
        // Counted apart from the places: there are more places than room where the settings were lowered meanwhile.
        if probes.iter().filter(running).count() >= room {
            let ends_at_ms = probes.iter().filter(running).map(|probe| probe.deadline_ms).min();
            let retry_after_ms = ends_at_ms.unwrap_or(now_ms).saturating_sub(now_ms).max(PROBE_DELAY_MIN_MS);
            return Verdict::Refusal(Refusal { reason: RefusalReason::TooManyRequests, retry_after_ms });
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
        self.permit(Some(probe), JudgedBy::Fleet)
    }

    /// The step that a ramp is in, by its number from 0 on; `None` where there is none any more.
    pub(crate) fn ramp_step(&self) -> Option<(&Ramp, usize, RampPosition)> {
        let Status::Closed { ramp_since_ms: Some(since_ms), .. } = &self.record.status else { return None };
        let ramp = self.settings().ramp.as_ref()?;
        let step = self.now_ms.saturating_sub(*since_ms).checked_div(ramp.step_ms)?;
        let over = ramp.step_ms.saturating_mul(step.saturating_add(1));
        let index = usize::try_from(step).ok()?;
        let share_per_mille = *ramp.steps_per_mille.get(index)?;
        Some((ramp, index, RampPosition { share_per_mille, next_step_at_ms: since_ms.saturating_add(over) }))
    }

    /// Admits a closed circuit's start, all of them or a share.
    pub(crate) fn start_closed(&self, token: Token) -> Verdict {
        if let Some((_, _, position)) = self.ramp_step()
            && !is_in_share(token.sequence, position.share_per_mille)
        {
            let retry_after_ms = position.next_step_at_ms.saturating_sub(self.now_ms).max(1);
            return Verdict::Refusal(Refusal { reason: RefusalReason::Ramp, retry_after_ms });
        }
        let judged_by = if self.settings().quorum.is_some() { JudgedBy::Node } else { JudgedBy::Fleet };
        let mut verdict = self.permit(None, judged_by);
        if let Verdict::Permit(permit) = &mut verdict {
            permit.grant_until_ms = self.grant_until_ms();
        }
        verdict
    }

    /// Until when every start is admitted and a success changes nothing that the next start would ask about: no success opens a
    /// circuit, so what ends it early is another outcome. A ramp counts its starts, a node of a quorum has a record of its own to
    /// ask, and who has set an override wants it to be seen.
    fn grant_until_ms(&self) -> Option<u64> {
        if self.override_in_force().is_some()
            || self.settings().quorum.is_some()
            || self.ramp_step().is_some()
        {
            return None;
        }
        let Status::Closed { counts_expire_at_ms, .. } = &self.record.status else { return None };
        let longest_ms = self.now_ms.saturating_add(GRANT_MAX_MS);
        Some(
            counts_expire_at_ms
                .filter(|at_ms| *at_ms > self.now_ms)
                .map_or(longest_ms, |at_ms| at_ms.min(longest_ms)),
        )
    }

    /// So many failures put the ramp so many steps back, to the first one at most; that step begins now.
    pub(crate) fn step_back(&mut self, failures: u32) {
        let Some((ramp, step, _)) = self.ramp_step() else { return };
        let step = u64::try_from(step).unwrap_or(u64::MAX).saturating_sub(failures.into());
        let since = self.now_ms.saturating_sub(ramp.step_ms.saturating_mul(step));
        if let Status::Closed { ramp_since_ms, .. } = &mut self.record.status {
            *ramp_since_ms = Some(since);
            self.changed = true;
        }
    }
}

/// Whether start `n` of a process is in a share of `p` per mille: ⌊n·p/1000⌋ > ⌊(n−1)·p/1000⌋. So of any thousand consecutive
/// starts `p` are, evenly spread, whoever counts.
fn is_in_share(n: u64, p: u32) -> bool {
    let whole = u64::from(WHOLE_PER_MILLE);
    // Both terms repeat with every thousand but for a whole number, so the rest decides.
    let rest = n.checked_rem(whole).unwrap_or(0);
    let admitted = |n: u64| n.saturating_mul(p.into()).checked_div(whole).unwrap_or(0);
    let before = if rest == 0 { whole.saturating_sub(1) } else { rest.saturating_sub(1) };
    let now = if rest == 0 { u64::from(p) } else { admitted(rest) };
    now > admitted(before)
}
