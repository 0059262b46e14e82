//! Bounded mode: the store is off the call path.
//!
//! Starts are answered from the circuit's [`View`](crate::view::View), as long as that is fresh; outcomes are counted in it and
//! flushed together. What must be asked of the store is asked in a task, one exchange of a circuit at a time: its *turn*. So the
//! view never goes back to an older entry, and nobody waits for a caller who does not poll.
//!
//! [`Flusher`] has the one task of a process that flushes and refreshes the circuits in use.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{self, StreamExt};
use futures_util::{FutureExt, future};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::call::{Answer, Completion, Grant, Operation, Problem};
use crate::circuit::{Circuit, Turn};
use crate::coarse::CoarseClock;
use crate::error::{ComponentError, Error};
use crate::event::announce;
use crate::exchange::Exchange;
use crate::flusher::{self, Flusher};
use crate::grant::{Counted, Term};
use crate::metering;
use crate::node::{Asked, Node, is_busy, is_outage};
use crate::outcome::{Disposition, Outcome, Settlement};
use crate::runtime::asking::{self, Deadline};
use crate::settling::{self, HandedOver, Judge, is_passing, lost, pause, wrong_answer};
use crate::view::Look;

/// What a process has in bounded mode.
#[derive(Debug)]
pub(crate) struct Bounded {
    max_staleness_ms: u64,
    /// From this age on a view is refreshed, and outcomes are flushed.
    pub(crate) due_ms: u64,
    pub(crate) time: CoarseClock,
    pub(crate) flusher: Arc<Flusher>,
}

impl Bounded {
    pub(crate) fn new(max_staleness: Duration, flush_every: Duration, time: CoarseClock) -> Self {
        let ms = |length: Duration| u64::try_from(length.as_millis()).unwrap_or(u64::MAX);
        let max_staleness_ms = ms(max_staleness);
        // Ahead of the end, so that who uses the circuit all the time never waits.
        let ahead_ms = max_staleness_ms - max_staleness_ms / 4;
        let due_ms = ms(flush_every).min(ahead_ms);
        Self { max_staleness_ms, due_ms, time, flusher: Arc::default() }
    }

    /// Whether an entry that was asked for at `as_of_ms` may be answered from. A clock that went back makes it old.
    pub(crate) fn is_fresh(&self, as_of_ms: u64, now_ms: u64) -> bool {
        now_ms.checked_sub(as_of_ms).is_some_and(|age_ms| age_ms <= self.max_staleness_ms)
    }

    pub(crate) fn fresh_until_ms(&self, as_of_ms: u64) -> u64 {
        as_of_ms.saturating_add(self.max_staleness_ms)
    }
}

// ---- starts ----

/// Asks to begin work: the view if it can say, else the store; while the store is down, whom the settings name.
pub(crate) async fn start(
    node: &Arc<Node>,
    bounded: &Bounded,
    circuit: &Arc<Circuit>,
    number: u64,
) -> Result<Asked, Error> {
    let operation = Operation::Start(number);
    if !node.outage.is_down() {
        let looked = circuit.with_view(|view| view.start(node, bounded, circuit, number, false));
        let answered = match looked {
            Ok(Look::Answer(started)) => Ok(Answer::Started(started)),
            Ok(Look::Load | Look::Write(_) | Look::Flush) => {
                let (own, its) = (node.clone(), circuit.clone());
                let asked = node.tasks.spawn(async move { start_asking(&own, &its, number).await }).await;
                asked.unwrap_or_else(|_gone| Err(cut_off()))
            }
            Err(problem) => Err(problem),
        };
        match answered {
            Ok(answer) => {
                list(bounded, node, circuit);
                return Ok(Asked::Shared(answer));
            }
            Err(problem) if is_outage(&problem) => node.enter_outage(circuit, &problem),
            Err(problem) if is_busy(&problem) => return Box::pin(node.ask_copy(circuit, operation)).await,
            Err(problem) => return Err(Error::new(&circuit.name, problem)),
        }
    }
    Box::pin(node.ask_fallback(circuit, operation, Some(node.outage.records()))).await
}

fn cut_off() -> Problem {
    Problem::Component(ComponentError::CutOff(
        "the runtime of the factory has ended, or the store's code panicked".into(),
    ))
}

async fn start_asking(node: &Arc<Node>, circuit: &Arc<Circuit>, number: u64) -> Result<Answer, Problem> {
    let Some(bounded) = &node.bounded else { return Err(wrong_answer()) };
    let deadline = Deadline::within(node.patience());
    let came = circuit.as_of(node.settings.clock.now_ms());
    let turn = circuit.turn(deadline).await?;
    // Who had the turn before may have done it; and who has it is the only one who asks, so what it has loaded stays the entry last
    // seen.
    let now_ms = node.settings.clock.now_ms();
    let mut loaded = circuit.with_view(|view| view.was_asked_after(came, now_ms));
    loop {
        let looked = circuit.with_view(|view| view.start(node, bounded, circuit, number, loaded))?;
        match looked {
            Look::Answer(started) => return Ok(Answer::Started(started)),
            Look::Load => {
                load(node, circuit, &turn, deadline).await?;
                loaded = true;
            }
            Look::Flush => {
                if !matches!(flush_next(node, circuit, &turn).await, Flushed::Some | Flushed::Nothing) {
                    return Err(Problem::Component(ComponentError::Busy(0)));
                }
            }
            Look::Write(known) => {
                let mut exchange = Exchange::new(node, circuit, Operation::Start(number), Some(known));
                return match exchange.run_in_turn(node, &turn, deadline).await {
                    Ok(answer) => Ok(answer),
                    Err(failure) => {
                        if exchange.may_have_written() {
                            node.finish_later(&failure.problem, exchange);
                        }
                        Err(failure.problem)
                    }
                };
            }
        }
        if deadline.left().is_zero() {
            return Err(Problem::Component(ComponentError::Hurried));
        }
    }
}

/// Loads the entry into the view.
pub(crate) async fn load(
    node: &Node,
    circuit: &Circuit,
    _turn: &Turn<'_>,
    deadline: Deadline,
) -> Result<(), Problem> {
    let as_of = circuit.as_of(node.settings.clock.now_ms());
    let seen = asking::load(&*node.store, &circuit.name, deadline).await?;
    if let Some(store_ms) = seen.now_ms {
        node.clock.learn(store_ms);
    }
    circuit.saw(seen, as_of);
    Ok(())
}

// ---- ends ----

/// What an outcome was told by the view, and the flush that it waits for, if it would trip the circuit.
pub(crate) struct Ended {
    settlement: Result<Settlement, Error>,
    trip: Option<JoinHandle<u64>>,
}

impl Ended {
    fn at_once(circuit: &Circuit, outcome: Outcome, disposition: Disposition) -> Self {
        let settlement = Settlement { disposition, local: true };
        metering::outcome(&circuit.base, outcome, settlement);
        Self { settlement: Ok(settlement), trip: None }
    }

    /// The settlement. Whoever trips the circuit waits until the store has it, but no longer than the store's timeout; the flush
    /// goes on.
    pub(crate) async fn settlement(self, node: &Node) -> Result<Settlement, Error> {
        if let Some(trip) = self.trip {
            // Whatever becomes of it, the outcome is counted here and will be settled.
            let _ = timeout(node.settings.store_timeout, trip).await;
        }
        self.settlement
    }
}

/// Counts an outcome of a closed permit that the fleet judges. If it would trip the circuit, it is flushed at once.
pub(crate) fn end(
    node: &Arc<Node>,
    bounded: &Bounded,
    circuit: &Arc<Circuit>,
    grant: Grant,
    outcome: Outcome,
    slow: bool,
) -> Ended {
    let completion = Completion { grant, outcome, slow, count: 1 };
    let (ended, ahead) = circuit.with_view(|view| (view.end(node, circuit, completion), view.is_ahead()));
    list(bounded, node, circuit);
    let trip = ahead.then(|| {
        let (own, its) = (node.clone(), circuit.clone());
        node.tasks.spawn(async move { flush(&own, &its).await })
    });
    match ended {
        Ok(disposition) => Ended { trip, ..Ended::at_once(circuit, outcome, disposition) },
        Err(problem) => Ended { settlement: Err(Error::new(&circuit.name, problem)), trip },
    }
}

/// Counts an outcome of work that began under a grant and that the grant does not settle.
#[cold]
pub(crate) fn end_otherwise(
    node: &Arc<Node>,
    bounded: &Bounded,
    circuit: &Arc<Circuit>,
    term: Term,
    outcome: Outcome,
    slow: bool,
) -> Ended {
    metering::call(&circuit.base, "permit");
    let era = circuit.with_view(|view| view.era_of(circuit, term));
    match era {
        // It would change nothing.
        Some(_) if outcome == Outcome::Ignored => Ended::at_once(circuit, outcome, Disposition::Accepted),
        Some(era) => end(node, bounded, circuit, Grant { era, probe: None }, outcome, slow),
        None => Ended::at_once(circuit, outcome, Disposition::Stale),
    }
}

/// While the store is down: hands an outcome of work that began under a grant to this process's own record.
#[cold]
pub(crate) fn end_in_outage(
    node: &Arc<Node>,
    circuit: &Arc<Circuit>,
    era: u64,
    outcome: Outcome,
    slow: bool,
) -> HandedOver {
    metering::call(&circuit.base, "permit");
    settling::hand_over(node, circuit, Judge::Fleet, Grant { era, probe: None }, outcome, slow)
}

/// What becomes of a success under a grant.
pub(crate) const COUNTED: Settlement = Settlement { disposition: Disposition::Accepted, local: true };

/// Counts a success under a grant; `false` where the grant's term is over.
#[inline]
pub(crate) fn succeed(node: &Arc<Node>, bounded: &Bounded, circuit: &Arc<Circuit>, term: Term) -> bool {
    match circuit.grants.succeed(term, crate::grant::slot()) {
        Counted::Yes => true,
        Counted::Unlisted => {
            list(bounded, node, circuit);
            true
        }
        Counted::No => false,
    }
}

// ---- flushing ----

/// How a flush went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flushed {
    Nothing,
    Some,
    /// It has to be tried again.
    Later,
}

/// Settles what waits now, all of it unless the store is down; says how much of it is left. What comes meanwhile is for the next
/// flush: on a hot circuit there is always more.
pub(crate) async fn flush(node: &Arc<Node>, circuit: &Arc<Circuit>) -> u64 {
    let (waiting, before) = circuit.with_view(|view| (view.outcomes_with(circuit), view.settled()));
    let left = || {
        // Also by whoever had the turn before.
        let settled = circuit.with_view(|view| view.settled()).wrapping_sub(before);
        waiting.saturating_sub(settled)
    };
    while left() > 0 && !node.outage.is_down() {
        let Ok(turn) = circuit.turn(Deadline::within(node.patience())).await else { break };
        if left() == 0 {
            break;
        }
        match flush_next(node, circuit, &turn).await {
            Flushed::Nothing => return 0,
            Flushed::Some => {}
            Flushed::Later => {
                drop(turn);
                pause().await;
            }
        }
    }
    left()
}

/// Settles all that waits in this process; says how much could not be settled.
pub(crate) async fn flush_all(node: &Arc<Node>) -> u64 {
    let Some(bounded) = &node.bounded else { return 0 };
    let circuits = stream::iter(bounded.flusher.circuits());
    let flushes = circuits.map(|circuit| async move {
        // A store that panics costs its own circuit what was under way, and no other.
        let flushed = AssertUnwindSafe(flush(node, &circuit)).catch_unwind().await;
        flushed.unwrap_or_else(|_panic| circuit.with_view(|view| view.outcomes_with(&circuit)))
    });
    let flushes = flushes.buffer_unordered(flusher::UNDER_WAY_MAX);
    flushes.fold(0_u64, |sum, left| future::ready(sum.saturating_add(left))).await
}

/// How many outcomes of this process wait to be settled.
pub(crate) fn unsettled(node: &Node) -> u64 {
    let Some(bounded) = &node.bounded else { return 0 };
    let circuits = bounded.flusher.circuits();
    circuits.iter().map(|circuit| circuit.with_view(|view| view.outcomes_with(circuit))).sum()
}

/// Settles as much as fits into one call. What the store may have got and did not answer is kept, and goes first next time
/// under its token.
pub(crate) async fn flush_next(node: &Arc<Node>, circuit: &Arc<Circuit>, turn: &Turn<'_>) -> Flushed {
    let taken = circuit.with_view(|view| view.take_flush(node, circuit));
    let Some(exchange) = taken else { return Flushed::Nothing };
    let mut airborne = Airborne { circuit, exchange: Some(exchange) };
    let Some(exchange) = &mut airborne.exchange else { return Flushed::Nothing };
    let problem = match exchange.run_in_turn(node, turn, Deadline::within(node.patience())).await {
        Ok(Answer::Settled { rulings, transitions }) => {
            if let Some(exchange) = airborne.exchange.take() {
                circuit.with_view(|view| view.landed());
                tell(circuit, &exchange, rulings.iter().map(|ruling| u64::from(ruling.stale)).sum());
            }
            announce(&node.settings, circuit, &transitions, false);
            return Flushed::Some;
        }
        Ok(_) => wrong_answer(),
        Err(failure) => failure.problem,
    };
    let Some(exchange) = airborne.exchange.take() else { return Flushed::Nothing };
    if is_outage(&problem) || is_passing(&problem) {
        circuit.with_view(|view| view.ground(exchange));
        if is_outage(&problem) {
            node.enter_outage(circuit, &problem);
        }
        return Flushed::Later;
    }
    lost(circuit, exchange.outcomes(), &Error::new(&circuit.name, problem));
    circuit.with_view(|view| view.forget_shown(circuit));
    Flushed::Some
}

/// Notes outcomes that turned out to be stale though they were accepted here.
fn tell(circuit: &Circuit, exchange: &Exchange, stale: u64) {
    metering::flushed(&circuit.base, exchange.outcomes().saturating_sub(stale), stale);
    if stale > 0 {
        tracing::debug!(circuit = &*circuit.name, stale, "outcomes came too late for the shared record");
    }
}

/// A flush under way. Dropped before its end (the runtime ends), its outcomes are lost, and that is told.
struct Airborne<'a> {
    circuit: &'a Circuit,
    exchange: Option<Box<Exchange>>,
}

impl Drop for Airborne<'_> {
    fn drop(&mut self) {
        if let Some(exchange) = &self.exchange {
            self.circuit.with_view(|view| view.forget_shown(self.circuit));
            lost(self.circuit, exchange.outcomes(), &Error::new(&self.circuit.name, cut_off()));
        }
    }
}

/// Has the circuit looked after in the background.
#[cold]
fn list(bounded: &Bounded, node: &Arc<Node>, circuit: &Arc<Circuit>) {
    if !circuit.grants.list() {
        bounded.flusher.add(node, circuit);
    }
}
