//! With a quorum: the record by which a node decides for itself, and its vote when that opens.
//!
//! The own record is one in memory, of this process and this circuit; it goes by the settings in force without their quorum. It
//! belongs to one era of the shared record and begins anew with the next, so what a node held against the dependency does not
//! outlive the fleet's recovery. Its probes hold places of this node only.
//!
//! A vote is one call on the shared record. It is cast when the own record opens, again with each failed own probe, which
//! prolongs it; it is never taken back.

use std::sync::Arc;
use std::time::Duration;

use circuitry_store::{MemoryStore, Store};
use tokio::time::sleep;

use crate::call::{Answer, Call, Failure, Grant, Leave, Operation, Problem, Started};
use crate::circuit::Circuit;
use crate::ends::{Batch, Ends};
use crate::error::Error;
use crate::event::announce;
use crate::exchange::Exchange;
use crate::node::{Node, is_outage};
use crate::outcome::{Disposition, Settlement};
use crate::policy::CircuitSettings;
use crate::refusal::{Refusal, RefusalReason};
use crate::runtime::asking::Deadline;
use crate::settings::StoreFailure;
use crate::settling::{is_passing, lost, settle_parked, wrong_answer};
use crate::state::{Information, OverrideKind, State, Transition};

/// The record by which this node decides for itself.
#[derive(Debug)]
pub(crate) struct OwnRecord {
    /// The era of the shared record that it belongs to.
    era: u64,
    /// The first start that has begun after it.
    first_after: u64,
    in_force: Arc<CircuitSettings>,
    /// The settings in force, without the quorum.
    rules: Arc<CircuitSettings>,
    record: MemoryStore,
    /// Outcomes that this record judges.
    pub(crate) ends: Arc<Ends>,
}

impl OwnRecord {
    fn begin(node: &Node, era: u64, first_after: u64, in_force: Arc<CircuitSettings>) -> Self {
        let rules = Arc::new(CircuitSettings { quorum: None, ..(*in_force).clone() });
        let record = MemoryStore::with_clock(node.clock.clone());
        Self { era, first_after, in_force, rules, record, ends: Arc::default() }
    }

    pub(crate) fn belongs_to(&self, era: u64, in_force: &Arc<CircuitSettings>) -> bool {
        self.era == era && (Arc::ptr_eq(&self.in_force, in_force) || self.in_force == *in_force)
    }

    /// Whether the start of that number began before this record and was answered late, by an era that is over. One that began after
    /// it has seen what is now: eras go back too, after an outage or where a store was restored.
    pub(crate) fn outdates(&self, era: u64, number: u64) -> bool {
        era < self.era && number < self.first_after
    }

    /// Asks the own record. Memory does not fail, but calls may race and instances may be taken.
    pub(crate) async fn ask(
        &self,
        node: &Node,
        circuit: &Circuit,
        operation: Operation,
    ) -> Result<Answer, Error> {
        let token = node.local_token(&operation);
        let deadline = Deadline::within(node.settings.store_timeout);
        loop {
            let call = Call {
                rules: self.rules.clone(),
                ..node.call(circuit, operation.clone(), token, None, None, deadline)
            };
            let record: Arc<dyn Store> = Arc::new(self.record.clone());
            match node.runtime.call(record, node.settings.hook.clone(), true, call).await {
                Ok(answered) => return Ok(answered.answer),
                Err(Failure { problem, .. }) => {
                    let pause = Duration::from_micros(fastrand::u64(50..800));
                    if !is_passing(&problem) || pause >= deadline.left() {
                        return Err(Error::new(&circuit.name, problem));
                    }
                    sleep(pause).await;
                }
            }
        }
    }
}

/// Asks the node's own record too, where the shared one of the era `era` has admitted the start of that number.
pub(crate) async fn start(
    node: &Arc<Node>,
    circuit: &Arc<Circuit>,
    era: u64,
    in_force: &Arc<CircuitSettings>,
    number: u64,
) -> Result<(Arc<OwnRecord>, Result<Leave, Refusal>), Error> {
    let begin = |first_after| OwnRecord::begin(node, era, first_after, in_force.clone());
    let own = circuit.own_record(era, in_force, number, begin);
    let Answer::Started(Started { verdict, transitions, .. }) =
        own.ask(node, circuit, Operation::Start(circuit.next_own_start())).await?
    else {
        return Err(Error::new(&circuit.name, wrong_answer()));
    };
    announce(&node.settings, circuit, &transitions, true);
    if has_opened(&transitions) {
        // Its own half-open phase took too long. The start does not wait for the store a second time.
        node.tasks.spawn(cast(node.clone(), circuit.clone(), era));
    }
    let verdict = verdict.map_err(|refusal| match refusal.reason() {
        RefusalReason::Open => Refusal::new(RefusalReason::NodeOpen, refusal.retry_after()),
        _ => refusal,
    });
    Ok((own, verdict))
}

/// Adds what the node's own record shows, where the node goes by one in this era.
pub(crate) async fn look(node: &Node, circuit: &Circuit, information: &mut Information) -> Result<(), Error> {
    let quorum = information.settings_in_force.quorum.is_some();
    let own = circuit.own_record_now().filter(|own| quorum && own.era == information.era);
    let Some(own) = own else { return Ok(()) };
    let Answer::Inspected(seen) = own.ask(node, circuit, Operation::Inspect).await? else {
        return Err(Error::new(&circuit.name, wrong_answer()));
    };
    information.explanation += " This node decides for itself: ";
    information.explanation += &seen.explanation;
    information.own = Some(Box::new(Information { local: true, ..*seen }));
    Ok(())
}

/// Whether nobody is to be refused now: an override of that kind stands above the node's own record, which does not know it.
pub(crate) async fn is_metrics_only(node: &Node, circuit: &Circuit) -> Result<bool, Error> {
    // The entry that the start has just seen, or the last one of before the outage: no store is asked.
    let Some(known) = circuit.known() else { return Ok(false) };
    let deadline = Deadline::within(node.settings.store_timeout);
    let token = node.token(&Operation::Inspect);
    let call = node.call(circuit, Operation::Inspect, token, None, Some(known), deadline);
    let answered = node.runtime.call(node.store.clone(), None, true, call).await;
    match answered.map_err(|failure| Error::new(&circuit.name, failure.problem))?.answer {
        Answer::Inspected(information) => {
            let kind = information.override_in_force.map(|set| set.kind);
            Ok(kind == Some(OverrideKind::MetricsOnly))
        }
        _ => Err(Error::new(&circuit.name, wrong_answer())),
    }
}

/// Settles outcomes on the node's own record; if they open it, the node votes before they are told.
pub(crate) async fn settle(node: &Arc<Node>, circuit: &Arc<Circuit>, own: &Arc<OwnRecord>, mut batch: Batch) {
    if !circuit.is_own(own) {
        // The shared era is another one now.
        let stale = Settlement { disposition: Disposition::Stale, local: true };
        return batch.settle_all(circuit, stale);
    }
    let error = match own.ask(node, circuit, Operation::End(batch.completions.clone())).await {
        Ok(Answer::Settled { rulings, transitions }) => {
            announce(&node.settings, circuit, &transitions, true);
            if has_opened(&transitions) {
                // In a task, which goes on whoever polls.
                let cast = node.tasks.spawn(cast(node.clone(), circuit.clone(), own.era));
                if let Err(gone) = cast.await {
                    tracing::warn!(circuit = &*circuit.name, %gone, "this node's vote was cut off");
                }
            }
            return batch.settle(circuit, &rulings, true);
        }
        Ok(_) => Error::new(&circuit.name, wrong_answer()),
        Err(error) => error,
    };
    lost(circuit, batch.outcomes(), &error);
    batch.fail(&error);
}

/// Prolongs the lease of one of the node's own probes; says whether it still holds its place.
pub(crate) async fn renew(
    node: &Node,
    circuit: &Circuit,
    own: &OwnRecord,
    grant: Grant,
) -> Result<bool, Error> {
    let Some(probe) = grant.probe else { return Ok(false) };
    match own.ask(node, circuit, Operation::Renew { era: grant.era, probe }).await? {
        Answer::Renewed(held) => Ok(held),
        _ => Err(Error::new(&circuit.name, wrong_answer())),
    }
}

fn has_opened(transitions: &[Transition]) -> bool {
    transitions.iter().any(|transition| transition.next == State::Open)
}

/// Casts this node's vote in the era `era`. Waits for the store's timeout at most; what is not through by then goes on.
async fn cast(node: Arc<Node>, circuit: Arc<Circuit>, era: u64) {
    let operation = Operation::Vote { era, node_id: node.vote_as.clone() };
    if !node.outage.is_down() {
        let mut exchange = Exchange::new(&node, &circuit, operation.clone(), circuit.known());
        match exchange.run(&node, Deadline::within(node.patience())).await {
            Ok(answer) => return told(&node, &circuit, answer, false),
            // Perhaps it opened the circuit, which is to be told.
            Err(Failure { problem, .. }) if is_outage(&problem) && exchange.may_have_written() => {
                node.finish_later(&problem, exchange);
            }
            Err(Failure { problem, .. }) if is_outage(&problem) => node.enter_outage(&circuit, &problem),
            Err(Failure { problem, .. }) if is_passing(&problem) => {
                node.tasks.clone().spawn(async move { settle_parked(&node, exchange).await });
                return;
            }
            Err(Failure { problem, .. }) => return failed(&circuit, problem),
        }
    }
    if node.settings.store_failure == StoreFailure::Local {
        match node.ask_locally(&circuit, operation, Some(node.outage.records())).await {
            Ok(own) => told(&node, &circuit, own.answer, true),
            Err(failure) => failed(&circuit, failure.problem),
        }
    }
}

/// Tells what a vote brought.
pub(crate) fn told(node: &Node, circuit: &Circuit, answer: Answer, local: bool) {
    match answer {
        Answer::Voted { accepted, votes, transitions } => {
            tracing::info!(circuit = &*circuit.name, accepted, votes, local, "this node has voted to open");
            announce(&node.settings, circuit, &transitions, local);
        }
        _ => failed(circuit, wrong_answer()),
    }
}

fn failed(circuit: &Circuit, problem: Problem) {
    let error = Error::new(&circuit.name, problem);
    tracing::warn!(circuit = &*circuit.name, %error, "this node's vote was not counted");
}
