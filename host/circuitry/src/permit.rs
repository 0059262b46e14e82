//! [`Permit`]: leave to work, settled once: by [`Permit::end`], or as ignored when it is dropped.

use std::future::Future;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::sleep;

use crate::call::{Answer, Grant, Operation, Token};
use crate::circuit::Circuit;
use crate::error::Error;
use crate::node::{Asked, Node};
use crate::outcome::{Disposition, Outcome, Settlement};
use crate::settling::{self, HandedOver};

/// How often a lease is renewed within its length, so that two renewals may fail.
const RENEWALS_A_LEASE: u32 = 3;
/// For how many lengths of a lease a place is held. A probe whose work hangs, or whose permit leaked, is given up then.
const LEASES_HELD: u32 = 10;

/// Leave to work on a circuit.
///
/// While a permit for a probe lives, its lease is renewed, for ten times the lease's length at most: work that hangs
/// does not keep the circuit from recovery. Its outcome counts after that too, until another probe takes its place.
///
/// Settling takes the permit, so it happens once. A permit that is dropped (an early return, a cancel, a panic) is
/// settled as [`Outcome::Ignored`]: it frees its place and counts nothing.
#[derive(Debug)]
#[must_use = "a permit that is dropped is settled as ignored"]
pub struct Permit {
    node: Arc<Node>,
    circuit: Arc<Circuit>,
    /// `None`: admitted without asking, because the store is down.
    grant: Option<Grant>,
    renewal: Option<JoinHandle<()>>,
}

impl Permit {
    pub(crate) fn new(node: Arc<Node>, circuit: Arc<Circuit>, grant: Option<Grant>) -> Self {
        let probe = grant.and_then(|grant| Some((grant.era, grant.probe?)));
        let renewal = probe.map(|(era, probe)| {
            let lease = Duration::from_millis(node.settings.rules.probe_timeout_ms);
            let every = (lease / RENEWALS_A_LEASE).max(Duration::from_millis(1));
            node.tasks.spawn(renew(Arc::downgrade(&node), circuit.clone(), era, probe, every))
        });
        Self { node, circuit, grant, renewal }
    }

    /// The era that the permit belongs to; `None` where it was given without asking, because the store is down.
    pub fn era(&self) -> Option<u64> {
        self.grant.map(|grant| grant.era)
    }

    /// Whether the work is a probe: its outcome decides whether the circuit closes.
    pub fn is_probe(&self) -> bool {
        self.grant.is_some_and(|grant| grant.probe.is_some())
    }

    /// Settles the permit: tells the circuit how the work ended, and the caller what became of that.
    ///
    /// Waits at most the store's timeout; [`Disposition::Unsettled`] then says that the settling goes on.
    ///
    /// # Errors
    /// [`Error`] when the record cannot be read or the component failed. A store that is down is no error: the
    /// outcome is then settled as the store-failure policy says.
    ///
    /// # Cancel safety
    /// The outcome is handed over when `end` is called, before the first await; dropping the future drops the answer
    /// only.
    pub fn end(
        mut self,
        outcome: Outcome,
    ) -> impl Future<Output = Result<Settlement, Error>> + Send + 'static {
        let answer = self.settle(outcome);
        let (node, circuit) = (self.node.clone(), self.circuit.clone());
        async move {
            match answer {
                Ok(answer) => settling::answer(&node, &circuit, answer).await,
                Err(at_once) => Ok(at_once),
            }
        }
    }

    /// Hands the outcome over once; `Err` where there is nothing to wait for.
    fn settle(&mut self, outcome: Outcome) -> Result<HandedOver, Settlement> {
        if let Some(renewal) = self.renewal.take() {
            renewal.abort();
        }
        let Some(grant) = self.grant.take() else {
            return Err(Settlement { disposition: Disposition::Uncounted, local: true });
        };
        if outcome == Outcome::Ignored && grant.probe.is_none() {
            // It would change nothing, so nobody needs to be asked.
            let settlement = Settlement { disposition: Disposition::Accepted, local: false };
            crate::metering::outcome(&self.circuit.base, outcome, settlement);
            return Err(settlement);
        }
        Ok(settling::hand_over(&self.node, &self.circuit, grant, outcome))
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if self.grant.is_some() {
            // Nobody waits for the answer.
            let _ = self.settle(Outcome::Ignored);
        }
    }
}

/// Renews a probe's lease until its place is lost, the permit is settled, or it takes too long.
async fn renew(node: Weak<Node>, circuit: Arc<Circuit>, era: u64, probe: Token, every: Duration) {
    for _ in 0..(LEASES_HELD - 1) * RENEWALS_A_LEASE {
        sleep(every).await;
        let Some(node) = node.upgrade() else { return };
        match node.ask(&circuit, Operation::Renew { era, probe }).await {
            Ok(Asked::Shared(Answer::Renewed(false))) => {
                tracing::debug!(circuit = &*circuit.name, "the probe's place was given to another");
                return;
            }
            Ok(_) => {}
            Err(error) => {
                tracing::debug!(circuit = &*circuit.name, %error, "a probe's lease was not renewed")
            }
        }
    }
    tracing::warn!(circuit = &*circuit.name, "a probe's work takes too long; its place may go to another");
}
