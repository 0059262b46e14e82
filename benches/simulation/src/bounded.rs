//! Bounded mode: starts are answered from what was seen a moment ago, outcomes are told together.

use std::rc::Rc;

use circuitry_core::request::Verdict;
use circuitry_core::{Answer, Completion, Decision, Write};

use crate::exchange::{Call, Exchange};
use crate::fleet::{Event, Fleet};
use crate::pair::Standing;
use crate::rules::{Broken, Stored};
use crate::scenario::{Bounded, Mode};

/// A process that eases lets others go first after so many races that it has lost in a row.
const LOST_MAX: u32 = 2;

impl Fleet<'_> {
    pub(crate) fn start_bounded(&mut self, pair: u32, mode: &Bounded) -> Result<(), Broken> {
        let now_us = self.now_us;
        let own = self.pair(pair);
        own.used = true;
        if !own.is_fresh(now_us, mode.max_staleness_us) {
            own.waiting += 1;
            let busy = std::mem::replace(&mut own.busy, true);
            self.tally.asked += 1;
            return if busy { Ok(()) } else { self.begin(pair, Call::Load, None) };
        }
        if !self.answered(pair)? {
            self.pair(pair).waiting += 1;
            self.tally.asked += 1;
            self.ask_to_start(pair)?;
        }
        self.maintain(pair, mode)
    }

    /// Answers a start from the view; says whether that could be done without the store.
    fn answered(&mut self, pair: u32) -> Result<bool, Broken> {
        let (now_us, circuit) = (self.now_us, self.population.circuit(pair));
        let own = self.pair(pair);
        match own.standing {
            Standing::Admits(era) => {
                self.permit(pair, era, None);
                return Ok(true);
            }
            Standing::Refuses(until_us) if now_us < until_us => {
                self.refused(pair);
                return Ok(true);
            }
            Standing::Unasked | Standing::Refuses(_) => {}
        }
        let ahead = own.ahead;
        let Some(seen) = own.seen() else { return Ok(false) };
        let token = self.next_token(pair);
        let Decision::Done(Answer::Started { verdict, .. }) =
            self.rules.start(circuit, token, &seen, now_us)?
        else {
            return Ok(false);
        };
        let own = self.pair(pair);
        match verdict {
            // A permit of an era that is not stored yet would be one of an era that may never be.
            Verdict::Permit(_) if ahead => return Ok(false),
            Verdict::Permit(permit) => own.standing = Standing::Admits(permit.era),
            Verdict::Refusal(refusal) => {
                own.standing = Standing::Refuses(now_us + refusal.retry_after_ms * 1_000);
            }
        }
        self.answer(pair, &verdict);
        Ok(true)
    }

    /// A start that must write: a swap on the base, for the first of those that wait.
    fn ask_to_start(&mut self, pair: u32) -> Result<(), Broken> {
        let own = self.pair(pair);
        if own.busy {
            return Ok(());
        }
        own.busy = true;
        own.waiting -= 1;
        let known = own.base.clone();
        self.begin(pair, Call::Start, known)
    }

    pub(crate) fn end_bounded(
        &mut self,
        pair: u32,
        completion: Completion,
        mode: &Bounded,
    ) -> Result<(), Broken> {
        let now_us = self.now_us;
        let own = self.pair(pair);
        own.push(completion, now_us);
        own.urgent |= completion.probe.is_some();
        self.apply(pair)?;
        self.maintain(pair, mode)
    }

    /// Applies what waits to the view, if there is more in it than successes, which change nothing.
    fn apply(&mut self, pair: u32) -> Result<(), Broken> {
        let (now_us, circuit) = (self.now_us, self.population.circuit(pair));
        let own = self.pair(pair);
        if !own.notable {
            return Ok(());
        }
        for mut completions in own.unapplied() {
            let token = self.next_token(pair);
            let Some(seen) = self.pair(pair).seen() else { return Ok(()) };
            if let Decision::Write(write) = self.rules.end(circuit, token, &mut completions, &seen, now_us)? {
                let own = self.pair(pair);
                own.view = Some(Rc::new(Stored::new(0, write.value)));
                if has_transition(&write.answer_if_stored) {
                    (own.urgent, own.ahead, own.standing) = (true, true, Standing::Unasked);
                    self.learned(pair);
                }
            }
        }
        Ok(())
    }

    /// A swap of outcomes is sent: the view is what will be stored, and what came after.
    pub(crate) fn expects(
        &mut self,
        exchange: &Exchange,
        write: &Write,
        new: &Rc<Stored>,
    ) -> Result<(), Broken> {
        let Call::End(..) = exchange.call else { return Ok(()) };
        let own = self.pair(exchange.pair);
        own.expect(new.clone());
        own.ahead = has_transition(&write.answer_if_stored);
        if own.ahead {
            self.learned(exchange.pair);
        }
        self.apply(exchange.pair)
    }

    /// Does what is due: tells outcomes, looks again, or sets a timer for either.
    pub(crate) fn maintain(&mut self, pair: u32, mode: &Bounded) -> Result<(), Broken> {
        let now_us = self.now_us;
        let own = self.pair(pair);
        if own.busy {
            return Ok(());
        }
        if std::mem::take(&mut own.told) {
            own.busy = true;
            return self.begin(pair, Call::Load, None);
        }
        let base_at_us = own.base_at_us;
        let early_per_mille = own.early_per_mille;
        let early = |length_us: u64| length_us * u64::from(1_000 - early_per_mille) / 1_000;
        let refresh_at_us = base_at_us + early(mode.refresh_after_us());
        let mut due_at_us = own.used.then_some(refresh_at_us);
        if own.has_outcomes() {
            let flush_at_us = (base_at_us + early(mode.flush_after_us())).max(own.not_before_us);
            if own.urgent || flush_at_us <= now_us {
                return self.flush(pair);
            }
            due_at_us = Some(due_at_us.map_or(flush_at_us, |due| due.min(flush_at_us)));
        }
        let Some(due_at_us) = due_at_us else { return Ok(()) };
        if due_at_us <= now_us {
            own.busy = true;
            return self.begin(pair, Call::Load, None);
        }
        if own.timer_at_us.is_none_or(|at_us| at_us <= now_us || due_at_us < at_us) {
            own.timer_at_us = Some(due_at_us);
            self.schedule(due_at_us, Event::Timer(pair));
        }
        Ok(())
    }

    fn flush(&mut self, pair: u32) -> Result<(), Broken> {
        let own = self.pair(pair);
        own.busy = true;
        let (completions, oldest_at_us) = own.take();
        let known = own.base.clone();
        self.begin(pair, Call::End(completions, oldest_at_us), known)
    }

    /// An announcement has come: whoever uses the circuit looks at once.
    pub(crate) fn heard(&mut self, pair: u32) -> Result<(), Broken> {
        let own = self.pair(pair);
        if own.base.is_none() {
            return Ok(());
        }
        // What is under way may have been answered before.
        own.told = true;
        let Mode::Bounded(mode) = &self.scenario.mode else { return Ok(()) };
        self.maintain(pair, mode)
    }

    pub(crate) fn finish_bounded(
        &mut self,
        exchange: Exchange,
        answer: Option<Answer>,
        mode: &Bounded,
    ) -> Result<(), Broken> {
        let pair = exchange.pair;
        self.pair(pair).busy = false;
        if answer.as_ref().is_some_and(has_transition) {
            self.announce(pair, mode);
        }
        match (exchange.call, answer) {
            (Call::Start, Some(Answer::Started { verdict, .. })) => self.answer(pair, &verdict),
            (Call::End(_, oldest_at_us), Some(Answer::Settled { dispositions, .. })) => {
                self.tally.settled(&dispositions, self.now_us - oldest_at_us);
                let own = self.pair(pair);
                own.urgent = false;
                own.patience /= 2;
                self.wait_as_patient(pair, mode);
            }
            _ => {}
        }
        self.go_on_bounded(pair, mode)
    }

    /// Whether a process that lost so many races lets others go first: not with a transition.
    pub(crate) fn eases(&mut self, exchange: &Exchange) -> bool {
        let Mode::Bounded(Bounded { eases_to_us: Some(_), .. }) = self.scenario.mode else { return false };
        let is_end = matches!(exchange.call, Call::End(..));
        is_end && exchange.lost >= LOST_MAX && !self.pair(exchange.pair).urgent
    }

    /// Puts outcomes back into the queue, for longer than before.
    pub(crate) fn ease(&mut self, exchange: Exchange) -> Result<(), Broken> {
        let Mode::Bounded(mode) = &self.scenario.mode else { return Ok(()) };
        let (Call::End(completions, oldest_at_us), pair) = (exchange.call, exchange.pair) else {
            return Ok(());
        };
        let most = mode.eases_to_us.unwrap_or_default() / mode.flush_after_us().max(1);
        let own = self.pair(pair);
        own.busy = false;
        own.put_back(completions, oldest_at_us);
        own.patience = (own.patience * 2 + 1).min(most as u32);
        self.wait_as_patient(pair, mode);
        self.go_on_bounded(pair, mode)
    }

    /// The next flush waits by the patience that races have taught: half of it at least, the rest at random.
    fn wait_as_patient(&mut self, pair: u32, mode: &Bounded) {
        let wait_us = mode.flush_after_us() * u64::from(self.pair(pair).patience);
        let drawn_us = wait_us / 2 + if wait_us > 1 { self.network.u64(..wait_us / 2) } else { 0 };
        self.pair(pair).not_before_us = self.now_us + drawn_us;
    }

    /// What an exchange leaves to be done.
    fn go_on_bounded(&mut self, pair: u32, mode: &Bounded) -> Result<(), Broken> {
        let own = self.pair(pair);
        own.urgent |= own.queue.iter().any(|run| run.probe.is_some());
        self.apply(pair)?;
        // Those that waited for the store are answered by what it said, however long that took.
        while self.pair(pair).waiting > 0 {
            if self.pair(pair).busy {
                return Ok(());
            }
            if self.answered(pair)? {
                self.pair(pair).waiting -= 1;
            } else if self.pair(pair).ahead {
                return self.maintain(pair, mode);
            } else {
                return self.ask_to_start(pair);
            }
        }
        self.maintain(pair, mode)
    }
}

fn has_transition(answer: &Answer) -> bool {
    match answer {
        Answer::Started { transitions, .. } | Answer::Settled { transitions, .. } => !transitions.is_empty(),
        _ => false,
    }
}
