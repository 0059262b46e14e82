//! What workers tell the process that started them: down a channel from a task, as a line of JSON from a process.

use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

/// Where a worker's events go.
pub(crate) type Events = mpsc::UnboundedSender<Event>;

/// Something worth a line, or a count.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Event {
    /// The worker can take jobs.
    Ready { worker: u32 },
    /// This worker's call changed the state of a tenant's circuit.
    StateChanged { worker: u32, tenant: String, change: Change, local: bool },
    /// The worker took a job whose earlier lease had ended.
    Redelivered { worker: u32, job: u64, tenant: String },
    /// The queue told the worker that it is the one who finished the job.
    Finished { worker: u32, job: u64 },
    /// The worker could not do something and goes on.
    Trouble { worker: u32, problem: String },
}

/// A change of a circuit's state.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Change {
    pub(crate) from: String,
    pub(crate) to: String,
    pub(crate) reason: String,
    /// In store time, milliseconds since the Unix epoch.
    pub(crate) at_ms: u64,
    /// Each change begins an era of its own, so the era tells changes apart.
    pub(crate) era: u64,
}

impl From<circuitry::Transition> for Change {
    fn from(transition: circuitry::Transition) -> Self {
        Self {
            from: transition.previous.to_string(),
            to: transition.next.to_string(),
            reason: transition.reason.to_string(),
            at_ms: transition.at_ms,
            era: transition.era,
        }
    }
}
