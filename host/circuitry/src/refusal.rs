//! [`Refusal`]: a start that was not admitted, and when to come back.

use std::fmt;
use std::time::Duration;

/// Why a start was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RefusalReason {
    /// The circuit is open.
    Open,
    /// The circuit is half-open and every probe's place is taken.
    TooManyRequests,
    /// A person forced the circuit open.
    ForcedOpen,
    /// The circuit has recovered and admits a share for now.
    Ramp,
    /// This node's own circuit is open, and the fleet's is not: the node tripped alone (see
    /// [`quorum`](crate::SettingsBuilder::quorum)).
    NodeOpen,
    /// The store is down, and the settings say to refuse then.
    StoreDown,
}

impl RefusalReason {
    /// The name as it is in metrics and events.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::TooManyRequests => "too-many-requests",
            Self::ForcedOpen => "forced-open",
            Self::Ramp => "ramp",
            Self::NodeOpen => "node-open",
            Self::StoreDown => "store-down",
        }
    }
}

/// A start that was refused. The work has not run.
///
/// # Example
/// ```
/// # use circuitry::{Refusal, RefusalReason};
/// # use std::time::Duration;
/// let refusal = Refusal::new(RefusalReason::Open, Duration::from_secs(10));
/// // A queue puts the job back; over a tenth of the delay the returning jobs spread out.
/// let delay = refusal.spread_delay();
/// assert!(delay >= refusal.retry_after() && delay <= refusal.retry_after() * 11 / 10);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    reason: RefusalReason,
    retry_after: Duration,
}

impl Refusal {
    /// Makes a refusal, for tests and adapters.
    pub fn new(reason: RefusalReason, retry_after: Duration) -> Self {
        Self { reason, retry_after }
    }

    /// Why.
    pub fn reason(&self) -> RefusalReason {
        self.reason
    }

    /// How long to wait before asking again.
    pub fn retry_after(&self) -> Duration {
        self.retry_after
    }

    /// The delay with which a queue gives the job back: [`Refusal::retry_after`] and up to a tenth of it more, at
    /// random, so that the jobs of a circuit do not all return at once.
    pub fn spread_delay(&self) -> Duration {
        self.retry_after.saturating_add(self.retry_after.mul_f64(fastrand::f64() / 10.0))
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let why = match self.reason {
            RefusalReason::Open => "the circuit is open",
            RefusalReason::TooManyRequests => "the circuit is half-open and all its probes are out",
            RefusalReason::ForcedOpen => "the circuit was forced open",
            RefusalReason::Ramp => "the circuit has recovered and admits a share for now",
            RefusalReason::NodeOpen => "the circuit is open for this node",
            RefusalReason::StoreDown => "the store is down and the settings refuse then",
        };
        write!(formatter, "{why}; try again in {} ms", self.retry_after.as_millis())
    }
}

impl std::error::Error for Refusal {}
