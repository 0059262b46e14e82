//! One call on the store: load where nothing is known, decide, swap; again with what a lost race brought. It is the loop of
//! `circuitry_core::exchange::run`, taken apart at the places where it waits.

use std::rc::Rc;

use circuitry_core::exchange::TRIES_MAX;
use circuitry_core::record::Token;
use circuitry_core::{Answer, Completion, Decision};

use crate::fleet::{Event, Fleet};
use crate::rules::{Broken, Stored};

/// A call that goes over thousands of processes: so long a pause, at random, follows races that were lost in a row.
const PAUSE_US: std::ops::Range<u64> = 500..8_000;

/// What a call is about.
pub(crate) enum Call {
    /// Only to see.
    Load,
    Start,
    /// Outcomes, and since when the first of them waits.
    End(Vec<Completion>, u64),
}

/// What was sent to the store, and, once it was there, what the store says.
enum Sent {
    Load,
    Swap {
        new: Rc<Stored>,
        answer: Answer,
    },
    Loaded(Rc<Stored>),
    Stored {
        new: Rc<Stored>,
        answer: Answer,
    },
    Conflict(Rc<Stored>),
    /// Nothing is under way.
    Nothing,
}

/// A call that is under way.
pub(crate) struct Exchange {
    pub(crate) pair: u32,
    pub(crate) call: Call,
    token: Token,
    seen: Option<Rc<Stored>>,
    /// No swap and no load has shown that what was seen is current.
    unverified: bool,
    tries: u32,
    sent_at_us: u64,
    sent: Sent,
    /// How many races were lost in all.
    pub(crate) lost: u32,
}

impl Fleet<'_> {
    /// Begins a call; without anything `known` it loads first.
    pub(crate) fn begin(&mut self, pair: u32, call: Call, known: Option<Rc<Stored>>) -> Result<(), Broken> {
        let token = self.next_token(pair);
        let exchange = Exchange {
            pair,
            call,
            token,
            unverified: known.is_some(),
            seen: known,
            tries: 0,
            sent_at_us: self.now_us,
            sent: Sent::Nothing,
            lost: 0,
        };
        let number = self.exchanges.insert(exchange);
        self.go_on(number)
    }

    fn send(&mut self, number: u32, exchange: &mut Exchange, sent: Sent) {
        exchange.sent = sent;
        exchange.sent_at_us = self.now_us;
        let there_us = self.draw_one_way();
        self.schedule(self.now_us + there_us, Event::AtStore(number));
    }

    /// Decides on what was seen, or loads.
    pub(crate) fn go_on(&mut self, number: u32) -> Result<(), Broken> {
        let Some(mut exchange) = self.exchanges.take(number) else { return Ok(()) };
        let Some(seen) = exchange.seen.clone().filter(|_| !matches!(exchange.call, Call::Load)) else {
            self.send(number, &mut exchange, Sent::Load);
            self.exchanges.put(number, exchange);
            return Ok(());
        };
        let circuit = self.population.circuit(exchange.pair);
        let decision = match &mut exchange.call {
            Call::End(completions, _) => {
                self.rules.end(circuit, exchange.token, completions, &seen, self.now_us)?
            }
            Call::Start | Call::Load => self.rules.start(circuit, exchange.token, &seen, self.now_us)?,
        };
        match decision {
            Decision::Done(answer) if exchange.unverified && denies(&answer) => {
                exchange.unverified = false;
                self.send(number, &mut exchange, Sent::Load);
                self.exchanges.put(number, exchange);
                Ok(())
            }
            Decision::Done(answer) => self.finish(number, exchange, Some(answer)),
            Decision::Write(mut write) => {
                let new = Rc::new(Stored::new(self.next_version(), std::mem::take(&mut write.value)));
                if self.is_bounded() {
                    self.expects(&exchange, &write, &new)?;
                }
                self.send(number, &mut exchange, Sent::Swap { new, answer: write.answer_if_stored });
                self.exchanges.put(number, exchange);
                Ok(())
            }
        }
    }

    /// A command has come to the store.
    pub(crate) fn at_store(&mut self, number: u32) -> Result<(), Broken> {
        let Some(mut exchange) = self.exchanges.take(number) else { return Ok(()) };
        let circuit = self.population.circuit(exchange.pair);
        let done_at_us = self.shards.serve(circuit, self.now_us);
        let sent = std::mem::replace(&mut exchange.sent, Sent::Nothing);
        exchange.sent = match sent {
            Sent::Load => {
                self.tally.loaded(self.now_us, circuit);
                Sent::Loaded(self.shards.load(circuit))
            }
            Sent::Swap { new, answer } => {
                let expected = exchange.seen.as_ref().map_or(0, |seen| seen.version);
                match self.shards.swap(circuit, expected, &new) {
                    Ok(()) => {
                        self.tally.stored(self.now_us, circuit, &answer);
                        Sent::Stored { new, answer }
                    }
                    Err(fresh) => {
                        self.tally.conflicted(self.now_us, circuit);
                        Sent::Conflict(fresh)
                    }
                }
            }
            sent => sent,
        };
        self.exchanges.put(number, exchange);
        let back_us = self.draw_one_way();
        self.schedule(done_at_us + back_us, Event::Reply(number));
        Ok(())
    }

    /// The store's answer is there.
    pub(crate) fn replied(&mut self, number: u32) -> Result<(), Broken> {
        let Some(mut exchange) = self.exchanges.take(number) else { return Ok(()) };
        match std::mem::replace(&mut exchange.sent, Sent::Nothing) {
            Sent::Loaded(seen) => {
                self.saw(exchange.pair, &seen, exchange.sent_at_us)?;
                exchange.seen = Some(seen);
                if matches!(exchange.call, Call::Load) {
                    return self.finish(number, exchange, None);
                }
            }
            Sent::Stored { new, answer } => {
                self.saw(exchange.pair, &new, exchange.sent_at_us)?;
                return self.finish(number, exchange, Some(answer));
            }
            Sent::Conflict(fresh) => {
                self.saw(exchange.pair, &fresh, exchange.sent_at_us)?;
                exchange.seen = Some(fresh);
                exchange.unverified = false;
                exchange.tries += 1;
                exchange.lost += 1;
                if self.eases(&exchange) {
                    self.exchanges.end(number);
                    return self.ease(exchange);
                }
                if exchange.tries == TRIES_MAX {
                    exchange.tries = 0;
                    self.exchanges.put(number, exchange);
                    let pause_us = self.network.u64(PAUSE_US);
                    self.schedule(self.now_us + pause_us, Event::Resume(number));
                    return Ok(());
                }
            }
            sent => exchange.sent = sent,
        }
        self.exchanges.put(number, exchange);
        self.go_on(number)
    }
}

/// Whether the answer denies something that a newer entry may grant.
fn denies(answer: &Answer) -> bool {
    match answer {
        Answer::Settled { dispositions, .. } => dispositions.iter().any(|disposition| disposition.stale > 0),
        _ => false,
    }
}

/// The calls that are under way, by number.
#[derive(Default)]
pub(crate) struct Exchanges {
    places: Vec<Option<Exchange>>,
    free: Vec<u32>,
}

impl Exchanges {
    fn insert(&mut self, exchange: Exchange) -> u32 {
        if let Some(number) = self.free.pop() {
            self.put(number, exchange);
            return number;
        }
        self.places.push(Some(exchange));
        (self.places.len() - 1) as u32
    }

    fn put(&mut self, number: u32, exchange: Exchange) {
        if let Some(place) = self.places.get_mut(number as usize) {
            *place = Some(exchange);
        }
    }

    fn take(&mut self, number: u32) -> Option<Exchange> {
        self.places.get_mut(number as usize).and_then(Option::take)
    }

    /// Gives the number of a call that has ended to another.
    pub(crate) fn end(&mut self, number: u32) {
        self.free.push(number);
    }
}
