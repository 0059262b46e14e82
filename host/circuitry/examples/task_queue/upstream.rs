//! The simulated upstreams, one a tenant. One of them fails for a while, as upstreams do: slowly, by a timeout.

use std::ops::Range;
use std::time::Duration;

use circuitry::{Clock, SystemClock};
use tokio::time::sleep;

use crate::options::Options;
use crate::queue::Job;

/// How long an answer takes, in milliseconds.
const ANSWERS_AFTER_MS: Range<u64> = 5..20;
/// How long a worker waits for an upstream that does not answer.
const TIMEOUT: Duration = Duration::from_millis(150);

/// All tenants' upstreams.
#[derive(Debug)]
pub(crate) struct Upstream {
    clock: SystemClock,
    failing_tenant: String,
    /// When it fails, after the beginning of the run.
    fails: Range<Duration>,
    seed: u64,
}

/// Why a job was not done.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UpstreamError {
    /// A failure by which a circuit learns: the deadline passed.
    #[error("the upstream of {tenant} did not answer within {TIMEOUT:?}")]
    TimedOut { tenant: String },
}

impl Upstream {
    pub(crate) fn new(options: &Options) -> Self {
        Self {
            clock: SystemClock::new(),
            failing_tenant: options.failing_tenant.clone(),
            fails: options.fails(),
            seed: options.seed,
        }
    }

    /// Does the job. As any queue, ours may deliver a job again whose worker died just after this; a real upstream
    /// would be given the job's id to know it by.
    pub(crate) async fn send(&self, job: &Job) -> Result<(), UpstreamError> {
        let since_begin = Duration::from_millis(self.clock.now_ms().saturating_sub(job.begun_at_ms));
        if job.tenant == self.failing_tenant && self.fails.contains(&since_begin) {
            sleep(TIMEOUT).await;
            return Err(UpstreamError::TimedOut { tenant: job.tenant.clone() });
        }
        let answers_after_ms = fastrand::Rng::with_seed(self.seed ^ job.id).u64(ANSWERS_AFTER_MS);
        sleep(Duration::from_millis(answers_after_ms)).await;
        Ok(())
    }
}
