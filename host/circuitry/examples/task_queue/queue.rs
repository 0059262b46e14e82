//! The queue: what a job is, and what can happen to it.
//!
//! ```text
//!            ┌────────────── a lease ends: its worker is gone ──────────────┐
//!            ▼                                                              │
//!  push ─► ready ─► take ─► leased ─► finish ─► done                        │
//!            ▲                │  └──────────────────────────────────────────┘
//!            └── delayed ◄────┘ give back, with a delay
//! ```
//!
//! Invariant: a job is always in one of these places; each step moves it at once. Only who holds the lease moves a
//! leased job, so a worker that was slow, and whose job was given to another, changes nothing any more.
//!
//! - [`memory`]: tables behind a lock, for the tasks of one process
//! - [`redis`]: the same tables on a Redis server, for many processes; each step is one call of a script
//! - `rules`: the tests, the same for both

mod memory;
mod redis;
#[cfg(test)]
mod rules;

use std::time::Duration;

use anyhow::Result;
use async_trait::async_trait;
use serde::{Deserialize, Serialize};

pub(crate) use self::memory::MemoryQueue;
pub(crate) use self::redis::RedisQueue;

/// A job, as it was pushed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Job {
    pub(crate) id: u64,
    pub(crate) tenant: String,
    /// When the run began, by the system's clock; the simulated upstream fails by it.
    pub(crate) begun_at_ms: u64,
}

/// A job that a worker has a lease on.
#[derive(Clone, Debug)]
pub(crate) struct Delivery {
    pub(crate) job: Job,
    pub(crate) worker: u32,
    /// Names this delivery: another one of the same job has another holder.
    holder: String,
    /// From the push until now, by the queue's clock.
    waited_ms: u64,
    /// How often the job failed before.
    pub(crate) failed: u64,
    /// Whether the delivery before this one ended with its lease: its worker is gone, or was too slow.
    pub(crate) is_redelivery: bool,
}

/// Why a job is given back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Return {
    /// The circuit refused it: no attempt was made.
    Refused,
    /// It was tried, and failed.
    Failed,
    /// The circuit could not be asked: no attempt was made.
    Unasked,
}

/// Who holds which job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Lease {
    pub(crate) worker: u32,
    pub(crate) job: u64,
}

/// How many jobs are where, and how often they came back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Census {
    pub(crate) ready: u64,
    pub(crate) delayed: u64,
    pub(crate) leased: u64,
    pub(crate) done: u64,
    pub(crate) refused: u64,
    pub(crate) failed: u64,
    pub(crate) redelivered: u64,
}

/// All that is known of one job.
#[derive(Clone, Debug)]
pub(crate) struct Account {
    pub(crate) job: Job,
    pub(crate) refused: u64,
    pub(crate) failed: u64,
    pub(crate) redelivered: u64,
    /// If it is finished.
    pub(crate) receipt: Option<Receipt>,
}

/// That a job is finished.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Receipt {
    pub(crate) worker: u32,
    /// From the push until the attempt that did it.
    pub(crate) waited_ms: u64,
}

/// A queue that workers share. An error leaves the job where it was, or where the step would have put it: in no case
/// is it lost.
#[async_trait]
pub(crate) trait Queue: Send + Sync {
    /// Adds a job. One with an id that is known changes nothing, so a push may be repeated.
    async fn push(&self, job: &Job) -> Result<()>;

    /// Takes the job that waited longest, for as long as `lease`; `None` when nothing is due. Jobs whose delay or
    /// whose lease is over become ready before.
    async fn take(&self, worker: u32, lease: Duration) -> Result<Option<Delivery>>;

    /// Begins the lease anew. `false`: it has gone to another worker.
    async fn renew(&self, delivery: &Delivery, lease: Duration) -> Result<bool>;

    /// Finishes the job. `true` for one delivery of a job only: the one that counts.
    async fn finish(&self, delivery: &Delivery) -> Result<bool>;

    /// Makes the job ready again after `delay`. `false`: it has gone to another worker.
    async fn give_back(&self, delivery: &Delivery, delay: Duration, why: Return) -> Result<bool>;

    /// Counts the jobs.
    async fn census(&self) -> Result<Census>;

    /// Who holds which job.
    async fn leases(&self) -> Result<Vec<Lease>>;

    /// All jobs, by id.
    async fn accounts(&self) -> Result<Vec<Account>>;
}

impl Return {
    fn as_str(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Failed => "failed",
            Self::Unasked => "unasked",
        }
    }
}

impl Delivery {
    fn receipt(&self) -> Receipt {
        Receipt { worker: self.worker, waited_ms: self.waited_ms }
    }
}

/// A name for a delivery that no other has, also when a worker's number is used again.
fn mint_holder(worker: u32) -> String {
    format!("{worker}/{:016x}", fastrand::u64(..))
}

/// The worker that a holder's name tells.
fn worker_of(holder: &str) -> Option<u32> {
    holder.split_once('/')?.0.parse().ok()
}
