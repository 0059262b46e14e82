//! Starting: what the shared record says, then, with a quorum, what this node's own says; an override stands above both.

use std::sync::Arc;
use std::time::Duration;

use crate::ballot;
use crate::bounded;
use crate::call::{Answer, Grant, JudgedBy, Leave, Operation, Problem, Started};
use crate::circuit::Circuit;
use crate::error::{Error, StartError};
use crate::event::announce;
use crate::finishing::Finishing;
use crate::metering;
use crate::node::{Asked, Node};
use crate::permit::{Admitted, Judged, Permit};
use crate::refusal::{Refusal, RefusalReason};
use crate::settings::StoreFailure;
use crate::settling::{Judge, wrong_answer};
use crate::state::State;

/// Asks to begin work; `base` is the name given to `breaker_for`.
///
/// # Cancel safety
/// Goes on without the caller to its end: what it changed is told, and a permit that nobody takes is given back.
pub(crate) async fn start(
    node: &Arc<Node>,
    circuit: &Arc<Circuit>,
    base: &Arc<str>,
) -> Result<Permit, StartError> {
    let whole = start_whole(node.clone(), circuit.clone(), base.clone());
    match Finishing::new(&node.tasks, whole).await {
        Ok(started) => started,
        Err(cut_off) => Err(Error::new(&circuit.name, Problem::Component(cut_off)).into()),
    }
}

async fn start_whole(node: Arc<Node>, circuit: Arc<Circuit>, base: Arc<str>) -> Result<Permit, StartError> {
    // One number a start, whoever answers it.
    let number = circuit.next_start();
    let asked = match &node.bounded {
        Some(bounded) => bounded::start(&node, bounded, &circuit, number).await?,
        None => node.ask(&circuit, Operation::Start(number)).await?,
    };
    let admitted = match asked {
        Asked::Shared(Answer::Started(started)) => admit(&node, &circuit, number, started, false).await?,
        Asked::Local(Answer::Started(started)) => admit(&node, &circuit, number, started, true).await?,
        Asked::Nobody if node.settings.store_failure == StoreFailure::Admit => Ok(Admitted::unasked()),
        Asked::Nobody => Err(Refusal::new(RefusalReason::StoreDown, node.settings.store_timeout)),
        Asked::Shared(_) | Asked::Local(_) => return Err(Error::new(&circuit.name, wrong_answer()).into()),
    };
    match admitted {
        Ok(admitted) => {
            let is_probe = admitted.is_probe();
            let verdict = match &admitted.would_have_refused {
                Some(_) => "would-have-refused",
                None if is_probe => "probe",
                None => "permit",
            };
            metering::call(&base, verdict);
            // An override admits whatever the state is.
            if matches!(admitted.judged, Judged::By(..)) {
                circuit.saw_permit();
            }
            match &admitted.would_have_refused {
                Some(refusal) => saw_refusal(&node, &circuit, refusal),
                None if is_probe => circuit.saw_state(State::HalfOpen),
                None if matches!(admitted.judged, Judged::By(..)) => circuit.saw_state(State::Closed),
                // A disabled circuit may be in any state.
                None => {}
            }
            Ok(Permit::new(node, circuit, admitted))
        }
        Err(refusal) => {
            metering::call(&base, refusal.reason().as_str());
            saw_refusal(&node, &circuit, &refusal);
            Err(refusal.into())
        }
    }
}

/// Notes what a refusal tells of the state.
fn saw_refusal(node: &Node, circuit: &Circuit, refusal: &Refusal) {
    circuit.saw_refusal(refusal.retry_after(), node.settings.clock.now_ms());
    match refusal.reason() {
        RefusalReason::Open | RefusalReason::NodeOpen => circuit.saw_state(State::Open),
        RefusalReason::TooManyRequests => circuit.saw_state(State::HalfOpen),
        RefusalReason::Ramp => circuit.saw_state(State::Closed),
        RefusalReason::ForcedOpen | RefusalReason::StoreDown => {}
    }
}

/// Makes of the answer to the start of that number who judges the work, or why there is none.
async fn admit(
    node: &Arc<Node>,
    circuit: &Arc<Circuit>,
    number: u64,
    started: Started,
    local: bool,
) -> Result<Result<Admitted, Refusal>, Error> {
    let Started { verdict, transitions, settings_in_force } = started;
    announce(&node.settings, circuit, &transitions, local);
    circuit.saw_settings(settings_in_force.as_deref(), &node.rules);
    let in_force = settings_in_force.unwrap_or_else(|| node.rules.clone());
    let leave = match verdict {
        Ok(leave) => leave,
        Err(refusal) => return Ok(Err(refusal)),
    };
    let shared_era = leave.grant.era;
    let lease = in_force.probe_timeout;
    let (judge, leave) = match leave.judged_by {
        JudgedBy::Nobody => return Ok(Ok(Admitted::by_nobody(shared_era, leave.would_have_refused))),
        JudgedBy::Fleet => (Judge::Fleet, leave),
        JudgedBy::Node => {
            match Box::pin(ballot::start(node, circuit, shared_era, &in_force, number)).await? {
                (own, Ok(leave)) => (Judge::Node(own), leave),
                (_, Err(refusal)) if Box::pin(ballot::is_metrics_only(node, circuit)).await? => {
                    return Ok(Ok(Admitted::by_nobody(shared_era, Some(refusal))));
                }
                (_, Err(refusal)) => return Ok(Err(refusal)),
            }
        }
    };
    Ok(Ok(Admitted::judged(shared_era, judge, &leave, lease)))
}

impl Admitted {
    /// Without asking, because the store is down.
    fn unasked() -> Self {
        Self { judged: Judged::Nobody { local: true }, ..Self::by_nobody_of(None, None) }
    }

    /// By an override.
    fn by_nobody(era: u64, would_have_refused: Option<Refusal>) -> Self {
        Self::by_nobody_of(Some(era), would_have_refused)
    }

    fn by_nobody_of(era: Option<u64>, would_have_refused: Option<Refusal>) -> Self {
        let judged = Judged::Nobody { local: false };
        Self { era, judged, slow_call_after_ms: None, would_have_refused, lease: Duration::ZERO }
    }

    fn judged(era: u64, judge: Judge, leave: &Leave, lease: Duration) -> Self {
        Self {
            era: Some(era),
            judged: Judged::By(judge, leave.grant),
            slow_call_after_ms: leave.slow_call_after_ms,
            would_have_refused: None,
            lease,
        }
    }

    fn is_probe(&self) -> bool {
        matches!(self.judged, Judged::By(_, Grant { probe: Some(_), .. }))
    }
}
