//! [`View`]: what this process knows of a circuit, and in bounded mode answers from.
//!
//! It is the entry last seen, and with it this process's outcomes since. The component applies them as it would for the store, but
//! the bytes that come of it stay here: they are *shown*, and only ever counted in. The outcomes themselves wait to be flushed.
//!
//! Invariant: **the view only counts.** A state changes by a won swap alone. Where an outcome would trip the circuit the view is
//! *ahead* of the store: it refuses, and gives no permit until the swap has shown what is so.
//!
//! Invariant: what is decided on the view is decided again on the store's entry when it is flushed.

use std::fmt;

use circuitry_store::{Entry, Loaded, Version};

use crate::bounded::Bounded;
use crate::call::{Answer, Completion, Grant, Operation, Problem, Ruling, Started};
use crate::circuit::{AsOf, Circuit};
use crate::ends::{COMPLETIONS_MAX, RUN_MAX};
use crate::exchange::Exchange;
use crate::grant::Term;
use crate::metering;
use crate::node::Node;
use crate::outcome::{Disposition, Outcome};
use crate::runtime::Decided;
use crate::settling::wrong_answer;

/// So many terms that are over are remembered with their eras, for work that spans a change of state.
const TERMS_KEPT: usize = 8;

/// What this process knows of a circuit.
#[derive(Default)]
pub(crate) struct View {
    base: Option<Base>,
    /// The record with the outcomes since in it; `None`: as in `base`.
    shown: Option<Vec<u8>>,
    /// What is shown is not stored and is another state.
    ahead: bool,
    /// Outcomes that are not in what is shown.
    unapplied: Vec<Completion>,
    /// Outcomes to be flushed, as runs.
    pending: Vec<Completion>,
    /// A flush that has to be tried again.
    grounded: Option<Box<Exchange>>,
    /// What is in the flush that is under way, or grounded.
    flying: Vec<Completion>,
    /// How many outcomes have been settled or lost in all; they go in the order in which they came.
    settled: u64,
    /// A flush or a load is under way.
    busy: bool,
    /// Somebody has started since the last load or flush.
    used: bool,
    doubts: u64,
    /// Since when something waits to be flushed, as far as somebody looked, in the time of the host's clock.
    waits_since_ms: Option<u64>,
    /// The terms before the present one.
    terms: Vec<(Term, u64)>,
    /// In strict mode: what starts are answered while the store has the entry that it was said of.
    granted: Option<Box<Granted>>,
}

/// A start's answer that carries a grant, and the version of the entry that it was said of.
struct Granted {
    version: Version,
    until_ms: u64,
    started: Started,
}

/// The entry last seen, without the time that came with it.
struct Base {
    seen: Loaded,
    as_of: AsOf,
}

/// How a start goes on.
pub(crate) enum Look {
    /// The view answers it.
    Answer(Started),
    /// The view is too old, or there is none.
    Load,
    /// It has to be written, based on this entry.
    Write(Loaded),
    /// The view is ahead of the store: flush first.
    Flush,
}

/// What is to be done for a circuit in the background.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Plan {
    /// Nothing yet.
    Wait,
    Flush,
    Load,
    /// Nothing any more, until it is used again.
    Leave,
}

impl fmt::Debug for View {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("View")
            .field("ahead", &self.ahead)
            .field("pending", &self.pending)
            .finish_non_exhaustive()
    }
}

impl View {
    // ---- what is known ----

    /// The entry last seen in the store.
    pub(crate) fn known(&self) -> Option<Loaded> {
        self.base.as_ref().map(|base| base.seen.clone())
    }

    /// The entry last seen with this process's outcomes since, to go on from while the store is down.
    pub(crate) fn shown(&mut self, node: &Node, circuit: &Circuit) -> Option<Loaded> {
        self.collect(circuit);
        // What cannot be applied is what is not shown.
        let _ = self.bring_up(node, circuit);
        let base = self.base.as_ref()?;
        let Some(value) = &self.shown else { return Some(base.seen.clone()) };
        let version = base.seen.entry.as_ref().map(|entry| entry.version.clone());
        let version = version.unwrap_or_else(|| Version::from_bytes([]));
        Some(Loaded { entry: Some(Entry { value: value.clone(), version }), now_ms: None })
    }

    /// Takes the entry that the store has. The outcomes since are applied to it when somebody looks. `settled`: it is what the flush
    /// under way has made of it.
    pub(crate) fn adopt(&mut self, circuit: &Circuit, seen: Loaded, as_of: AsOf, settled: bool) {
        circuit.grants.end();
        if settled {
            self.landed();
        }
        let known = self.base.as_ref().and_then(|base| base.seen.entry.as_ref());
        if let (Some(known), Some(entry)) = (known, &seen.entry)
            && known.version == entry.version
            && known.value != entry.value
        {
            // Somebody has written past the store's rules.
            self.granted = None;
        }
        self.base = Some(Base { seen: Loaded { now_ms: None, ..seen }, as_of });
        self.shown = None;
        self.ahead = false;
        // Those of a flush that is not settled are not in what was loaded, or are a second time: they are only shown.
        self.unapplied = self.flying.iter().chain(&self.pending).copied().collect();
    }

    /// Whether it has something that no load would bring back.
    pub(crate) fn is_kept(&self) -> bool {
        self.busy || self.grounded.is_some() || self.outcomes() > 0
    }

    /// How many outcomes are not settled yet, those of a flush under way among them.
    pub(crate) fn outcomes(&self) -> u64 {
        let pending = self.pending.iter().map(|completion| u64::from(completion.count));
        let flying = self.flying.iter().map(|completion| u64::from(completion.count));
        pending.chain(flying).sum()
    }

    /// The same with what was counted under the grant.
    pub(crate) fn outcomes_with(&mut self, circuit: &Circuit) -> u64 {
        self.collect(circuit);
        self.outcomes()
    }

    /// How often the circuit was said to have changed.
    pub(crate) fn doubts(&self) -> u64 {
        self.doubts
    }

    /// Takes what is known for old, also what is being asked for just now: somebody says that the circuit has changed.
    pub(crate) fn doubt(&mut self, circuit: &Circuit) {
        circuit.grants.end();
        self.doubts = self.doubts.wrapping_add(1);
    }

    /// When the entry last seen was asked for, if it is still believed.
    fn as_of_ms(&self) -> Option<u64> {
        self.base.as_ref().filter(|base| base.as_of.doubts == self.doubts).map(|base| base.as_of.ms)
    }

    // ---- strict mode ----

    /// The answer to a start on the entry `seen`, where a grant has it at `now_ms` of store time.
    pub(crate) fn granted(&self, seen: &Loaded, now_ms: u64) -> Option<Started> {
        let granted = self.granted.as_ref()?;
        let holds = seen.entry.as_ref().is_some_and(|entry| entry.version == granted.version);
        (holds && now_ms < granted.until_ms).then(|| granted.started.clone())
    }

    /// Remembers the answer to a start on the entry `seen`, where it carries a grant.
    pub(crate) fn learn_grant(&mut self, started: &Started, seen: &Loaded) {
        let leave = started.verdict.as_ref().ok();
        let until_ms = leave.and_then(|leave| leave.granted_until_ms);
        if let (Some(until_ms), Some(entry)) = (until_ms, &seen.entry) {
            let started = Started { transitions: Vec::new(), ..started.clone() };
            self.granted = Some(Box::new(Granted { version: entry.version.clone(), until_ms, started }));
        }
    }

    /// Nothing but successes turned the entry of the version `before` into `seen`: what was granted stays so.
    pub(crate) fn keep_grant(&mut self, before: &Version, seen: &Loaded) {
        if let (Some(granted), Some(entry)) = (&mut self.granted, &seen.entry)
            && granted.version == *before
        {
            granted.version = entry.version.clone();
        }
    }

    // ---- those who work ----

    /// Whether the entry last seen was asked for after `came`: it is no older than a start in strict mode that came then would see,
    /// however slow the store is. One of a time to come is of before the clock went back.
    pub(crate) fn was_asked_after(&self, came: AsOf, now_ms: u64) -> bool {
        self.as_of_ms().is_some_and(|as_of_ms| as_of_ms > came.ms && as_of_ms <= now_ms)
    }

    /// Answers a start, or says what it needs. `loaded`: the entry last seen was asked for after this start came.
    pub(crate) fn start(
        &mut self,
        node: &Node,
        bounded: &Bounded,
        circuit: &Circuit,
        number: u64,
        loaded: bool,
    ) -> Result<Look, Problem> {
        let now_ms = node.settings.clock.now_ms();
        if self.base.is_none() {
            return Ok(Look::Load);
        }
        self.used = true;
        self.bring_up(node, circuit)?;
        let decided = node.decide_now(circuit, Operation::Start(number), self.seen()?)?;
        let started = match decided {
            Decided::Write(_) if self.ahead => return Ok(Look::Flush),
            // The swap shows whether the entry is still the one in the store, so it need not be loaded.
            Decided::Write(_) => return Ok(self.known().map_or(Look::Load, Look::Write)),
            Decided::Done(Answer::Started(started)) => started,
            Decided::Done(_) => return Err(wrong_answer()),
        };
        let fresh_as_of_ms = self.as_of_ms().filter(|as_of_ms| bounded.is_fresh(*as_of_ms, now_ms));
        if fresh_as_of_ms.is_none() && !loaded {
            return Ok(Look::Load);
        }
        if self.ahead && started.verdict.is_ok() {
            return Ok(Look::Flush);
        }
        let leave = started.verdict.as_ref().ok().filter(|_| !self.ahead);
        let granted = leave
            .and_then(|leave| Some((leave.grant.era, leave.slow_call_after_ms, leave.granted_until_ms?)));
        if let (Some((era, slow_call_after_ms, until_ms)), Some(as_of_ms)) = (granted, fresh_as_of_ms) {
            if circuit.grants.era() != era {
                self.begin_term(circuit, era);
            }
            // The component speaks of store time; what bounds the view is the host's.
            let until_ms = node.clock.in_base_time(until_ms).min(bounded.fresh_until_ms(as_of_ms));
            let until_ms = until_ms.saturating_sub(bounded.time.behind_ms());
            if until_ms > now_ms {
                bounded.time.keep_until(until_ms.saturating_add(bounded.time.behind_ms()));
                circuit.grants.give(until_ms, slow_call_after_ms);
            }
        }
        Ok(Look::Answer(started))
    }

    /// Counts an outcome of a closed permit, and says what becomes of it as far as is known here.
    pub(crate) fn end(
        &mut self,
        node: &Node,
        circuit: &Circuit,
        completion: Completion,
    ) -> Result<Disposition, Problem> {
        // What a grant expects does not end it.
        if completion.outcome != Outcome::Success || completion.slow {
            circuit.grants.end();
        }
        self.collect(circuit);
        self.push(completion);
        let ruling = self.bring_up(node, circuit)?;
        let stale = ruling.is_some_and(|ruling| ruling.accepted == 0);
        Ok(if stale { Disposition::Stale } else { Disposition::Accepted })
    }

    /// The era of a term, if it is not long over.
    pub(crate) fn era_of(&mut self, circuit: &Circuit, term: Term) -> Option<u64> {
        self.used = true;
        if circuit.grants.term() == term {
            return Some(circuit.grants.era());
        }
        self.terms.iter().rev().find(|(known, _)| *known == term).map(|(_, era)| *era)
    }

    /// Whether what is shown is not yet stored, so that it is to be flushed at once.
    pub(crate) fn is_ahead(&self) -> bool {
        self.ahead
    }

    // ---- those who flush ----

    /// What is to be done for the circuit at `now_ms`; what it says is taken as begun.
    pub(crate) fn plan(&mut self, bounded: &Bounded, circuit: &Circuit, now_ms: u64, down: bool) -> Plan {
        if self.busy {
            return Plan::Wait;
        }
        let as_of_ms = self.as_of_ms();
        // What is not believed, or of a time to come, is due.
        let is_due =
            |since_ms: u64| now_ms.checked_sub(since_ms).is_none_or(|for_ms| for_ms >= bounded.due_ms);
        let plan = if self.outcomes() > 0 || circuit.grants.has_counted() {
            let waits_since_ms = *self.waits_since_ms.get_or_insert(now_ms);
            let now = self.ahead || as_of_ms.is_none_or(is_due) || is_due(waits_since_ms);
            if now && !down { Plan::Flush } else { Plan::Wait }
        } else if self.used && !down {
            if as_of_ms.is_none_or(is_due) { Plan::Load } else { Plan::Wait }
        } else if as_of_ms.is_some_and(|as_of_ms| bounded.is_fresh(as_of_ms, now_ms)) {
            Plan::Wait
        } else {
            Plan::Leave
        };
        if matches!(plan, Plan::Flush | Plan::Load) {
            (self.busy, self.used) = (true, false);
        }
        plan
    }

    /// Ends what [`View::plan`] began; says whether it is to flush once more at once: because outcomes that came meanwhile would trip
    /// the circuit, or because there are more than fit into one call, which may come faster than flushes become due.
    pub(crate) fn done(&mut self, node: &Node, circuit: &Circuit) -> bool {
        let applied = self.bring_up(node, circuit).is_ok();
        // So it stays busy, and nobody else begins to look after it.
        self.busy =
            !node.outage.is_down() && ((applied && self.ahead) || self.pending.len() >= COMPLETIONS_MAX);
        self.busy
    }

    /// Takes what is to be flushed, as much as fits into one call.
    pub(crate) fn take_flush(
        &mut self,
        node: &Node,
        circuit: &std::sync::Arc<Circuit>,
    ) -> Option<Box<Exchange>> {
        self.waits_since_ms = None;
        let exchange = match self.grounded.take() {
            Some(exchange) => exchange,
            None => {
                self.collect(circuit);
                if self.pending.is_empty() {
                    return None;
                }
                let most = self.pending.len().min(COMPLETIONS_MAX);
                let batch: Vec<_> = self.pending.drain(..most).collect();
                self.flying.clone_from(&batch);
                Box::new(Exchange::flush(node, circuit, batch, self.known()))
            }
        };
        Some(exchange)
    }

    /// The flush under way is settled, or lost.
    pub(crate) fn landed(&mut self) {
        let flown: u64 = self.flying.drain(..).map(|completion| u64::from(completion.count)).sum();
        self.settled = self.settled.wrapping_add(flown);
    }

    /// How many outcomes have been settled or lost so far.
    pub(crate) fn settled(&self) -> u64 {
        self.settled
    }

    /// Keeps a flush that has to be tried again.
    pub(crate) fn ground(&mut self, exchange: Box<Exchange>) {
        self.grounded = Some(exchange);
    }

    /// Gives everything up that was to be flushed, and says how much that was.
    pub(crate) fn give_up(&mut self, circuit: &Circuit) -> u64 {
        self.collect(circuit);
        let outcomes = self.outcomes();
        self.pending.clear();
        self.flying.clear();
        self.grounded = None;
        outcomes
    }

    /// Gives up what is shown: something in it will never be stored.
    pub(crate) fn forget_shown(&mut self, circuit: &Circuit) {
        circuit.grants.end();
        self.landed();
        *self = Self {
            pending: std::mem::take(&mut self.pending),
            terms: std::mem::take(&mut self.terms),
            busy: self.busy,
            doubts: self.doubts,
            settled: self.settled,
            ..Self::default()
        };
    }

    // ---- inside ----

    fn seen(&self) -> Result<Loaded, Problem> {
        let Some(base) = &self.base else { return Err(wrong_answer()) };
        let entry = match (&self.shown, &base.seen.entry) {
            (Some(value), entry) => {
                let version =
                    entry.as_ref().map_or_else(|| Version::from_bytes([]), |entry| entry.version.clone());
                Some(Entry { value: value.clone(), version })
            }
            (None, entry) => entry.clone(),
        };
        Ok(Loaded { entry, now_ms: None })
    }

    /// Applies what is not applied yet; gives the ruling on the last of it.
    fn bring_up(&mut self, node: &Node, circuit: &Circuit) -> Result<Option<Ruling>, Problem> {
        let mut last = None;
        while !self.unapplied.is_empty() && self.base.is_some() {
            let most = self.unapplied.len().min(COMPLETIONS_MAX);
            let next: Vec<_> = self.unapplied.drain(..most).collect();
            let answer = match node.decide_now(circuit, Operation::End(next), self.seen()?)? {
                Decided::Done(answer) => answer,
                Decided::Write(write) => {
                    let answer = write.answer_if_stored?;
                    self.shown = Some(write.value);
                    answer
                }
            };
            let Answer::Settled { rulings, transitions } = answer else { return Err(wrong_answer()) };
            self.ahead |= !transitions.is_empty();
            last = rulings.last().copied();
        }
        if self.ahead {
            circuit.grants.end();
        }
        Ok(last)
    }

    /// Takes over what was counted under the grant.
    fn collect(&mut self, circuit: &Circuit) {
        let era = circuit.grants.era();
        let counted = circuit.grants.collect();
        self.push_successes(circuit, era, counted);
    }

    fn begin_term(&mut self, circuit: &Circuit, era: u64) {
        let before = (circuit.grants.term(), circuit.grants.era());
        let left = circuit.grants.begin_term(era);
        self.push_successes(circuit, before.1, left);
        if self.terms.len() == TERMS_KEPT {
            self.terms.remove(0);
        }
        self.terms.push(before);
    }

    fn push_successes(&mut self, circuit: &Circuit, era: u64, mut count: u64) {
        if count > 0 {
            metering::granted(&circuit.base, count);
        }
        while count > 0 {
            let run = u32::try_from(count).unwrap_or(RUN_MAX).min(RUN_MAX);
            let grant = Grant { era, probe: None };
            self.push(Completion { grant, outcome: Outcome::Success, slow: false, count: run });
            count -= u64::from(run);
        }
    }

    fn push(&mut self, completion: Completion) {
        add(&mut self.pending, completion);
        add(&mut self.unapplied, completion);
    }
}

/// Adds to the last run, where that is alike and has room.
fn add(runs: &mut Vec<Completion>, completion: Completion) {
    if let Some(last) = runs.last_mut()
        && (Completion { count: completion.count, ..*last }) == completion
        && let Some(count) = last.count.checked_add(completion.count).filter(|count| *count <= RUN_MAX)
    {
        last.count = count;
    } else {
        runs.push(completion);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::call::{JudgedBy, Leave};

    fn seen(version: u8) -> Loaded {
        Loaded {
            entry: Some(Entry { value: vec![version], version: Version::from_bytes([version]) }),
            now_ms: None,
        }
    }

    fn started(granted_until_ms: Option<u64>) -> Started {
        let leave = Leave {
            grant: Grant { era: 7, probe: None },
            judged_by: JudgedBy::Fleet,
            slow_call_after_ms: None,
            would_have_refused: None,
            granted_until_ms,
        };
        Started { verdict: Ok(leave), transitions: Vec::new(), settings_in_force: None }
    }

    #[test]
    fn a_grant_holds_for_its_entry_and_until_its_time() {
        let mut view = View::default();
        view.learn_grant(&started(Some(100)), &seen(1));
        assert!(view.granted(&seen(1), 99).is_some());
        assert!(view.granted(&seen(1), 100).is_none());
        assert!(view.granted(&seen(2), 99).is_none());
        assert!(view.granted(&Loaded { entry: None, now_ms: None }, 99).is_none());
    }

    #[test]
    fn a_permit_without_a_grant_is_not_remembered() {
        let mut view = View::default();
        view.learn_grant(&started(None), &seen(1));
        assert!(view.granted(&seen(1), 0).is_none());
    }

    #[test]
    fn a_grant_goes_over_to_the_entry_that_took_the_place_of_its_own_and_to_no_other() {
        let mut view = View::default();
        view.learn_grant(&started(Some(100)), &seen(1));
        view.keep_grant(&Version::from_bytes([2]), &seen(3));
        assert!(view.granted(&seen(1), 0).is_some() && view.granted(&seen(3), 0).is_none());
        view.keep_grant(&Version::from_bytes([1]), &seen(2));
        assert!(view.granted(&seen(2), 0).is_some() && view.granted(&seen(1), 0).is_none());
    }
}
