//! Settling: outcomes of one circuit go to the store together, one swap under way at a time; what ends meanwhile
//! waits and goes with the next.

use std::sync::Arc;

use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::call::{Answer, Grant, Operation, Problem};
use crate::circuit::{Batch, Circuit, Ended, Settled};
use crate::error::{ComponentError, Error};
use crate::event::announce;
use crate::node::{Exchange, Node, is_outage};
use crate::outage;
use crate::outcome::{Disposition, Outcome, Settlement};
use crate::settings::StoreFailure;

/// Hands an outcome over to be settled, now; the answer comes by the receiver.
pub(crate) fn hand_over(
    node: &Arc<Node>,
    circuit: &Arc<Circuit>,
    grant: Grant,
    outcome: Outcome,
) -> oneshot::Receiver<Settled> {
    let (reply, answer) = oneshot::channel();
    if circuit.ended(Ended { grant, outcome, reply }) {
        node.tasks.spawn(settle(node.clone(), circuit.clone()));
    }
    answer
}

/// Waits for the answer, but no longer than the store's timeout; the settling goes on.
pub(crate) async fn answer(node: &Node, circuit: &Circuit, answer: oneshot::Receiver<Settled>) -> Settled {
    match timeout(node.settings.store_timeout, answer).await {
        Ok(Ok(settled)) => settled,
        Ok(Err(_dropped)) => {
            let cut_off = ComponentError::CutOff("the settling task ended early".into());
            Err(Error::new(&circuit.name, Problem::Component(cut_off)))
        }
        Err(_elapsed) => Ok(Settlement { disposition: Disposition::Unsettled, local: false }),
    }
}

/// Settles what waits until nothing does.
async fn settle(node: Arc<Node>, circuit: Arc<Circuit>) {
    while let Some(batch) = circuit.next_batch() {
        // In a task of its own, so that a store that panics fails this batch and not the circuit for ever.
        let settled = node.tasks.spawn(settle_batch(node.clone(), circuit.clone(), batch)).await;
        if let Err(error) = settled {
            tracing::error!(circuit = &*circuit.name, %error, "outcomes could not be settled");
        }
    }
}

async fn settle_batch(node: Arc<Node>, circuit: Arc<Circuit>, mut batch: Batch) {
    let operation = Operation::End(batch.completions.clone());
    let mut exchange = Exchange::new(&node, &circuit, operation.clone(), circuit.known());
    while !node.outage.is_down() {
        match exchange.run(&node, node.patience()).await {
            Ok(Answer::Settled { rulings, transitions, .. }) => {
                announce(&node.settings, &circuit, &transitions, false);
                return batch.settle(&circuit, &rulings, false);
            }
            Ok(_) => return batch.fail(&Error::new(&circuit.name, wrong_answer())),
            // No outcome is given up for contention.
            Err(failure) if matches!(failure.problem, Problem::Contention) => {}
            Err(failure) if is_outage(&failure.problem) => node.enter_outage(&circuit, &failure.problem),
            Err(failure) if matches!(failure.problem, Problem::Forgotten) => {
                outage::lost(&circuit.name, &circuit.base, batch.outcomes(), failure.problem);
                let unsettled = Settlement { disposition: Disposition::Unsettled, local: false };
                return batch.settle_all(&circuit, unsettled);
            }
            Err(failure) => {
                let error = Error::new(&circuit.name, failure.problem);
                tracing::warn!(circuit = &*circuit.name, %error, "outcomes could not be settled");
                return batch.fail(&error);
            }
        }
    }
    if exchange.may_have_written() {
        node.outage.park(exchange);
    }
    settle_locally(&node, &circuit, operation, batch).await;
}

/// Settles on this process's own record, so that the circuit protects through the outage.
async fn settle_locally(node: &Node, circuit: &Circuit, operation: Operation, mut batch: Batch) {
    if node.settings.store_failure != StoreFailure::Local {
        return batch.settle_all(circuit, Settlement { disposition: Disposition::Uncounted, local: true });
    }
    match node.ask_locally(circuit, operation).await {
        Ok(Answer::Settled { rulings, transitions, .. }) => {
            announce(&node.settings, circuit, &transitions, true);
            batch.settle(circuit, &rulings, true);
        }
        Ok(_) => batch.fail(&Error::new(&circuit.name, wrong_answer())),
        Err(failure) => batch.fail(&Error::new(&circuit.name, failure.problem)),
    }
}

/// Settles a call whose write may have happened before an outage: it is applied once, or told to be lost.
pub(crate) async fn settle_parked(node: Arc<Node>, mut exchange: Exchange) {
    let circuit = exchange.circuit.clone();
    match exchange.run(&node, node.patience()).await {
        Ok(Answer::Settled { transitions, .. }) => announce(&node.settings, &circuit, &transitions, false),
        Ok(_) => {}
        Err(failure) if is_outage(&failure.problem) || matches!(failure.problem, Problem::Contention) => {
            node.outage.park(exchange);
            node.enter_outage(&circuit, &failure.problem);
        }
        Err(failure) => outage::lost(&circuit.name, &circuit.base, exchange.outcomes(), failure.problem),
    }
}

fn wrong_answer() -> Problem {
    Problem::Component(ComponentError::Trapped("it answered another question".into()))
}
