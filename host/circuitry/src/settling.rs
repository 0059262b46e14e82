//! Settling: outcomes of one record go to it together, one swap under way at a time; what ends meanwhile waits and goes with the
//! next. The record is the circuit's shared one, or with a quorum this node's own.

use std::future::poll_fn;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::FutureExt;
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};

use crate::ballot::{self, OwnRecord};
use crate::call::{Answer, Grant, Leave, Operation, Problem, Started};
use crate::circuit::Circuit;
use crate::ends::{Batch, Ended, Ends, Settled};
use crate::error::{ComponentError, Error};
use crate::event::announce;
use crate::exchange::Exchange;
use crate::finishing::Finishing;
use crate::metering;
use crate::node::{Node, OwnAnswer, is_busy, is_outage};
use crate::outcome::{Disposition, Outcome, Settlement};
use crate::runtime::asking::Deadline;
use crate::settings::StoreFailure;

/// The record that judges outcomes.
#[derive(Clone, Debug)]
pub(crate) enum Judge {
    /// The shared one, or its stand-in while the store is down.
    Fleet,
    /// This node's own.
    Node(Arc<OwnRecord>),
}

impl Judge {
    fn ends<'a>(&'a self, circuit: &'a Circuit) -> &'a Arc<Ends> {
        match self {
            Self::Fleet => &circuit.ends,
            Self::Node(own) => &own.ends,
        }
    }
}

/// An outcome that was handed over.
pub(crate) struct HandedOver {
    answer: oneshot::Receiver<Settled>,
    /// Set for the one who settles what waits: everybody else's outcome goes with the next swap.
    settling: Option<Settling>,
}

/// The settling by the one who ended first. It goes on in a task as soon as somebody else waits for it too, and when this is
/// dropped: nobody else's outcome hangs on whether this one is polled.
struct Settling {
    ends: Arc<Ends>,
    number: u64,
}

impl Future for Settling {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        // Not under the lock: a callback in it may end a permit of this circuit.
        let Some(mut settler) = self.ends.take_settler(self.number) else { return Poll::Ready(()) };
        if Pin::new(&mut settler).poll(context).is_pending() && self.ends.keep_settler(self.number, settler) {
            return Poll::Pending;
        }
        Poll::Ready(())
    }
}

impl Drop for Settling {
    fn drop(&mut self) {
        drop(self.ends.take_settler(self.number));
    }
}

/// Hands an outcome over to be settled. It is settled also if nobody waits for it.
pub(crate) fn hand_over(
    node: &Arc<Node>,
    circuit: &Arc<Circuit>,
    judge: Judge,
    grant: Grant,
    outcome: Outcome,
    slow: bool,
) -> HandedOver {
    let (reply, answer) = oneshot::channel();
    let ends = judge.ends(circuit).clone();
    let settling = ends.push(Ended { grant, outcome, slow, reply }).map(|number| {
        let settler = Finishing::new(&node.tasks, settle_first(node.clone(), circuit.clone(), judge));
        if node.bounded.is_some() {
            // In a task at once: it will hold the circuit's turn, and others wait for that.
            drop(settler);
            return None;
        }
        ends.keep_settler(number, settler);
        Some(Settling { ends, number })
    });
    HandedOver { answer, settling: settling.flatten() }
}

/// Waits for the answer, but no longer than the store's timeout; the settling goes on.
pub(crate) async fn answer(node: &Node, circuit: &Circuit, handed_over: HandedOver) -> Settled {
    let HandedOver { mut answer, mut settling } = handed_over;
    // Both are asked each time: a settling that has gone over to a task wakes nobody here, its answer does.
    let settled = poll_fn(move |context| {
        let settled = Pin::new(&mut answer).poll(context);
        if settled.is_pending()
            && let Some(own) = &mut settling
            && Pin::new(own).poll(context).is_ready()
        {
            settling = None;
            return Pin::new(&mut answer).poll(context);
        }
        settled
    });
    let settled = settled
        .map(|told| told.map_err(|_dropped| ComponentError::CutOff("the settling ended early".into())));
    match timeout(node.settings.store_timeout, settled).await {
        Ok(Ok(settled)) => settled,
        Ok(Err(cut_off)) => Err(Error::new(&circuit.name, Problem::Component(cut_off))),
        Err(_elapsed) => Ok(Settlement { disposition: Disposition::Unsettled, local: false }),
    }
}

/// Settles what waits now, in the task of who ended first; what has come meanwhile is for a task of its own, so that nobody
/// settles for others for ever.
async fn settle_first(node: Arc<Node>, circuit: Arc<Circuit>, judge: Judge) {
    settle_next(&node, &circuit, &judge).await;
    if judge.ends(&circuit).has_waiting() {
        let tasks = node.tasks.clone();
        tasks.spawn(async move { while settle_next(&node, &circuit, &judge).await {} });
    }
}

/// Settles what fits into one call; says whether there was anything.
async fn settle_next(node: &Arc<Node>, circuit: &Arc<Circuit>, judge: &Judge) -> bool {
    let Some(batch) = judge.ends(circuit).next_batch() else { return false };
    let outcomes = batch.outcomes();
    let settled = async {
        match judge {
            Judge::Fleet => settle_batch(node.clone(), circuit.clone(), batch).await,
            Judge::Node(own) => Box::pin(ballot::settle(node, circuit, own, batch)).await,
        }
    };
    // A store that panics fails this batch, and not the circuit for ever.
    if AssertUnwindSafe(settled).catch_unwind().await.is_err() {
        lost(circuit, outcomes, &panicked(circuit));
    }
    true
}

async fn settle_batch(node: Arc<Node>, circuit: Arc<Circuit>, mut batch: Batch) {
    let operation = Operation::End(batch.completions.clone());
    let mut exchange = Exchange::new(&node, &circuit, operation.clone(), circuit.known());
    while !node.outage.is_down() {
        let problem = match exchange.run(&node, Deadline::within(node.patience())).await {
            Ok(Answer::Settled { rulings, transitions }) => {
                announce(&node.settings, &circuit, &transitions, false);
                return batch.settle(&circuit, &rulings, false);
            }
            Ok(_) => wrong_answer(),
            Err(failure) => failure.problem,
        };
        match problem {
            problem if is_outage(&problem) => node.enter_outage(&circuit, &problem),
            // No outcome is given up because others write too.
            problem if is_passing(&problem) => pause().await,
            Problem::Forgotten => {
                lost(&circuit, batch.outcomes(), &Error::new(&circuit.name, problem));
                let unsettled = Settlement { disposition: Disposition::Unsettled, local: false };
                return batch.settle_all(&circuit, unsettled);
            }
            problem => {
                let error = Error::new(&circuit.name, problem);
                lost(&circuit, batch.outcomes(), &error);
                return batch.fail(&error);
            }
        }
    }
    if exchange.may_have_written()
        && let Some(exchange) = node.outage.park(exchange)
    {
        let node = node.clone();
        node.tasks.clone().spawn(async move { settle_parked(&node, exchange).await });
    }
    Box::pin(settle_locally(&node, &circuit, operation, batch)).await;
}

/// Settles on this process's own record, so that the circuit protects through the outage.
async fn settle_locally(node: &Node, circuit: &Circuit, operation: Operation, mut batch: Batch) {
    if node.settings.store_failure != StoreFailure::Local {
        return batch.settle_all(circuit, Settlement { disposition: Disposition::Uncounted, local: true });
    }
    match node.ask_locally(circuit, operation, Some(node.outage.records())).await {
        Ok(OwnAnswer { answer: Answer::Settled { rulings, transitions }, is_kept: true }) => {
            announce(&node.settings, circuit, &transitions, true);
            batch.settle(circuit, &rulings, true);
        }
        // There is no room for a record that would count it.
        Ok(OwnAnswer { answer: Answer::Settled { .. }, is_kept: false }) => {
            batch.settle_all(circuit, Settlement { disposition: Disposition::Uncounted, local: true });
        }
        Ok(_) => batch.fail(&Error::new(&circuit.name, wrong_answer())),
        Err(failure) => batch.fail(&Error::new(&circuit.name, failure.problem)),
    }
}

/// Runs a call again whose write may have happened: it is applied once, and what it did is told.
pub(crate) async fn settle_parked(node: &Arc<Node>, mut exchange: Exchange) {
    let circuit = exchange.circuit.clone();
    loop {
        match exchange.run(node, Deadline::within(node.patience())).await {
            Ok(Answer::Settled { transitions, .. }) => {
                return announce(&node.settings, &circuit, &transitions, false);
            }
            Ok(Answer::Started(Started { verdict, transitions, .. })) => {
                announce(&node.settings, &circuit, &transitions, false);
                if let Ok(Leave { grant: grant @ Grant { probe: Some(_), .. }, .. }) = verdict {
                    // Whoever asked is gone: the place is given back.
                    drop(hand_over(node, &circuit, Judge::Fleet, grant, Outcome::Ignored, false));
                }
                return;
            }
            Ok(answer @ Answer::Voted { .. }) => return ballot::told(node, &circuit, answer, false),
            Ok(_) => return,
            Err(failure) if is_passing(&failure.problem) => pause().await,
            Err(failure) if is_outage(&failure.problem) => {
                node.enter_outage(&circuit, &failure.problem);
                match node.outage.park(exchange) {
                    None => return,
                    Some(back) => exchange = back,
                }
            }
            Err(failure) => {
                let error = Error::new(&circuit.name, failure.problem);
                return lost(&circuit, exchange.outcomes(), &error);
            }
        }
    }
}

/// Whether the same call may well succeed in a moment.
pub(crate) fn is_passing(problem: &Problem) -> bool {
    is_busy(problem) || matches!(problem, Problem::Contention)
}

/// A short random time, so that those who write one circuit do not meet again.
pub(crate) async fn pause() {
    sleep(Duration::from_micros(fastrand::u64(500..8_000))).await;
}

/// What is said of outcomes whose settling panicked.
pub(crate) fn panicked(circuit: &Circuit) -> Error {
    let cut_off = ComponentError::CutOff("the store's code panicked".into());
    Error::new(&circuit.name, Problem::Component(cut_off))
}

/// Outcomes that are not counted, or of which nobody can tell.
pub(crate) fn lost(circuit: &Circuit, outcomes: u64, error: &Error) {
    if outcomes > 0 {
        metering::lost(&circuit.base, outcomes);
        tracing::warn!(circuit = &*circuit.name, outcomes, %error, "outcomes are lost");
    }
}

pub(crate) fn wrong_answer() -> Problem {
    Problem::Component(ComponentError::Trapped("it answered another question".into()))
}
