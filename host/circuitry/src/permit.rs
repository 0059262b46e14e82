//! [`Permit`]: leave to work, settled once: by [`Permit::end`], or as ignored when it is dropped.

use std::future::Future;
use std::sync::{Arc, Weak};
use std::time::Duration;

use circuitry_store::Clock;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use crate::ballot;
use crate::bounded;
use crate::call::{Answer, Grant, Operation};
use crate::circuit::Circuit;
use crate::error::Error;
use crate::grant::Term;
use crate::metering;
use crate::node::{Asked, Node};
use crate::outcome::{Disposition, Outcome, Settlement};
use crate::refusal::Refusal;
use crate::settling::{self, HandedOver, Judge};

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
    era: Option<u64>,
    is_probe: bool,
    would_have_refused: Option<Refusal>,
    slow_call_after_ms: Option<u64>,
    begun_at_ms: u64,
    /// Taken when it is settled.
    judged: Option<Judged>,
    renewal: Option<JoinHandle<()>>,
}

/// Who judges the outcome.
#[derive(Debug)]
pub(crate) enum Judged {
    By(Judge, Grant),
    /// The fleet; it was given under a grant, in this term.
    Granted(Term),
    /// It counts nothing: by an override, or `local` because the store is down.
    Nobody {
        local: bool,
    },
}

/// How an outcome is settled.
enum Settling {
    /// On the record that judges it.
    HandedOver(HandedOver),
    /// In this process's view first.
    Counted(bounded::Ended),
    /// Nobody is to be asked.
    Nothing(Settlement),
}

/// A start that was admitted.
#[derive(Debug)]
pub(crate) struct Admitted {
    pub(crate) era: Option<u64>,
    pub(crate) judged: Judged,
    pub(crate) slow_call_after_ms: Option<u64>,
    pub(crate) would_have_refused: Option<Refusal>,
    /// How long the lease of a probe lasts, by the settings in force.
    pub(crate) lease: Duration,
}

impl Permit {
    pub(crate) fn new(node: Arc<Node>, circuit: Arc<Circuit>, admitted: Admitted) -> Self {
        let Admitted { era, judged, slow_call_after_ms, would_have_refused, lease } = admitted;
        let renewal = match &judged {
            Judged::By(judge, grant @ Grant { probe: Some(_), .. }) => {
                let every = (lease / RENEWALS_A_LEASE).max(Duration::from_millis(1));
                let probe = Renewal { circuit: circuit.clone(), judge: judge.clone(), grant: *grant };
                Some(node.tasks.spawn(probe.run(Arc::downgrade(&node), every)))
            }
            Judged::By(..) | Judged::Granted(_) | Judged::Nobody { .. } => None,
        };
        Self {
            begun_at_ms: node.settings.clock.now_ms(),
            is_probe: renewal.is_some(),
            node,
            circuit,
            era,
            would_have_refused,
            slow_call_after_ms,
            judged: Some(judged),
            renewal,
        }
    }

    /// Leave that a grant of the component gives, without asking anybody.
    pub(crate) fn granted(node: &Arc<Node>, circuit: &Arc<Circuit>) -> Option<Self> {
        let now_ms = node.bounded.as_ref()?.time.now_ms();
        let (term, era) = circuit.grants.admit_in_era(now_ms).filter(|_| !node.outage.is_down())?;
        let slow_call_after_ms = circuit.grants.slow_call_after_ms();
        Some(Self {
            // Where no call is slow nobody asks when this one began.
            begun_at_ms: slow_call_after_ms.map_or(0, |_| node.settings.clock.now_ms()),
            node: node.clone(),
            circuit: circuit.clone(),
            era: Some(era),
            is_probe: false,
            would_have_refused: None,
            slow_call_after_ms,
            judged: Some(Judged::Granted(term)),
            renewal: None,
        })
    }

    /// The era of the circuit that the permit belongs to; `None` where it was given without asking, because the store is down.
    pub fn era(&self) -> Option<u64> {
        self.era
    }

    /// Whether the work is a probe: its outcome decides whether the circuit closes; with a quorum perhaps the circuit of this node
    /// only.
    pub fn is_probe(&self) -> bool {
        self.is_probe
    }

    /// The refusal that an override of the kind [`MetricsOnly`](crate::OverrideKind::MetricsOnly) turned into this permit. Its
    /// outcome counts nothing.
    pub fn would_have_refused(&self) -> Option<&Refusal> {
        self.would_have_refused.as_ref()
    }

    /// Settles the permit: tells the circuit how the work ended, and the caller what became of that. Where the settings in force
    /// say from when on a call is slow, the time since the start says whether it was.
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
                Settling::Counted(ended) => ended.settlement(&node).await,
                Settling::HandedOver(answer) => settling::answer(&node, &circuit, answer).await,
                Settling::Nothing(at_once) => Ok(at_once),
            }
        }
    }

    /// Hands the outcome over once.
    fn settle(&mut self, outcome: Outcome) -> Settling {
        if let Some(renewal) = self.renewal.take() {
            renewal.abort();
        }
        let at_once = |disposition, local| {
            let settlement = Settlement { disposition, local };
            metering::outcome(&self.circuit.base, outcome, settlement);
            Settling::Nothing(settlement)
        };
        match self.judged.take() {
            None => at_once(Disposition::Uncounted, true),
            Some(Judged::Nobody { local }) => at_once(Disposition::Uncounted, local),
            Some(Judged::Granted(term)) => self.settle_granted(term, outcome),
            // It would change nothing, so nobody needs to be asked.
            Some(Judged::By(judge, Grant { probe: None, .. })) if outcome == Outcome::Ignored => {
                at_once(Disposition::Accepted, matches!(judge, Judge::Node(_)))
            }
            Some(Judged::By(judge, grant)) => {
                let slow = outcome != Outcome::Ignored && self.is_slow();
                if let (Some(bounded), Judge::Fleet, None) = (&self.node.bounded, &judge, grant.probe)
                    && !self.node.outage.is_down()
                {
                    let (node, circuit) = (&self.node, &self.circuit);
                    return Settling::Counted(bounded::end(node, bounded, circuit, grant, outcome, slow));
                }
                let handed_over = settling::hand_over(&self.node, &self.circuit, judge, grant, outcome, slow);
                Settling::HandedOver(handed_over)
            }
        }
    }

    fn settle_granted(&self, term: Term, outcome: Outcome) -> Settling {
        let Self { node, circuit, .. } = self;
        let Some(bounded) = &node.bounded else { return Settling::Nothing(bounded::COUNTED) };
        let slow = outcome != Outcome::Ignored && self.is_slow();
        if let (true, Some(era)) = (node.outage.is_down() && outcome != Outcome::Ignored, self.era) {
            return Settling::HandedOver(bounded::end_in_outage(node, circuit, era, outcome, slow));
        }
        // Where something has ended the grant the view knows whether the era is over, and says so.
        let as_granted = outcome == Outcome::Success && !slow && circuit.grants.stands(term);
        if as_granted && bounded::succeed(node, bounded, circuit, term) {
            return Settling::Nothing(bounded::COUNTED);
        }
        Settling::Counted(bounded::end_otherwise(node, bounded, circuit, term, outcome, slow))
    }

    fn is_slow(&self) -> bool {
        let took_ms = self.node.settings.clock.now_ms().saturating_sub(self.begun_at_ms);
        self.slow_call_after_ms.is_some_and(|slow_after_ms| took_ms > slow_after_ms)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if self.judged.is_some() {
            // Nobody waits for the answer.
            let _ = self.settle(Outcome::Ignored);
        }
    }
}

/// Renews a probe's lease until its place is lost, the permit is settled, or it takes too long.
struct Renewal {
    circuit: Arc<Circuit>,
    judge: Judge,
    grant: Grant,
}

impl Renewal {
    async fn run(self, node: Weak<Node>, every: Duration) {
        let circuit = &self.circuit;
        for _ in 0..(LEASES_HELD - 1) * RENEWALS_A_LEASE {
            sleep(every).await;
            let Some(node) = node.upgrade() else { return };
            match self.renew(&node).await {
                Ok(true) => {}
                Ok(false) => {
                    tracing::debug!(circuit = &*circuit.name, "the probe's place was given to another");
                    return;
                }
                Err(error) => {
                    tracing::debug!(circuit = &*circuit.name, %error, "a probe's lease was not renewed");
                }
            }
        }
        tracing::warn!(
            circuit = &*circuit.name,
            "a probe's work takes too long; its place may go to another"
        );
    }

    /// Whether the place is held, as far as is known.
    async fn renew(&self, node: &Arc<Node>) -> Result<bool, Error> {
        match (&self.judge, self.grant) {
            (Judge::Node(own), grant) => ballot::renew(node, &self.circuit, own, grant).await,
            (Judge::Fleet, Grant { era, probe: Some(probe) }) => {
                let asked = node.ask(&self.circuit, Operation::Renew { era, probe }).await?;
                // What an outage's record does not hold the shared one may.
                Ok(!matches!(asked, Asked::Shared(Answer::Renewed(false))))
            }
            (Judge::Fleet, Grant { probe: None, .. }) => Ok(false),
        }
    }
}
