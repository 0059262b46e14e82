//! Strict mode: each start is a load, each end a swap.

use circuitry_core::{Answer, Completion};

use crate::exchange::{Call, Exchange};
use crate::fleet::Fleet;
use crate::rules::Broken;

impl Fleet<'_> {
    pub(crate) fn start_strictly(&mut self, pair: u32) -> Result<(), Broken> {
        self.tally.asked += 1;
        self.begin(pair, Call::Start, None)
    }

    pub(crate) fn end_strictly(&mut self, pair: u32, completion: Completion) -> Result<(), Broken> {
        let now_us = self.now_us;
        self.pair(pair).push(completion, now_us);
        self.settle_next(pair)
    }

    /// Settles what waits, unless that is under way.
    fn settle_next(&mut self, pair: u32) -> Result<(), Broken> {
        let own = self.pair(pair);
        if own.busy || !own.has_outcomes() {
            return Ok(());
        }
        own.busy = true;
        let (completions, oldest_at_us) = own.take();
        let known = own.base.clone();
        self.begin(pair, Call::End(completions, oldest_at_us), known)
    }

    pub(crate) fn finish_strictly(
        &mut self,
        exchange: Exchange,
        answer: Option<Answer>,
    ) -> Result<(), Broken> {
        let pair = exchange.pair;
        match (exchange.call, answer) {
            (Call::Start, Some(Answer::Started { verdict, .. })) => self.answer(pair, &verdict),
            (Call::End(completions, oldest_at_us), Some(Answer::Settled { dispositions, .. })) => {
                self.tally.settled(&dispositions, self.now_us - oldest_at_us);
                // Whoever ended work waits until it is settled.
                let ended: u64 = completions.iter().map(|run| u64::from(run.count)).sum();
                self.finished(self.population.process(pair), ended, 0);
                self.pair(pair).busy = false;
                self.settle_next(pair)?;
            }
            _ => {}
        }
        Ok(())
    }
}
