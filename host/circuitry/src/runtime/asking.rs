//! Asking the user's store: until a deadline, and counted.

use std::time::Duration;

use circuitry_store::{Loaded, Store, StoreError, Swapped, Version};
use tokio::time::{Instant, timeout_at};

use crate::call::Problem;
use crate::error::ComponentError;
use crate::metering;

/// Until when a call may take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deadline {
    pub(crate) at: Instant,
    /// How long an operation must have been given for its silence to say something of the store: with less, the time went
    /// to lost races, to a wait for a place, or to a caller who did not poll.
    pub(crate) enough: Duration,
}

impl Deadline {
    /// `within` from now, of which half is enough.
    pub(crate) fn within(within: Duration) -> Self {
        Self { at: Instant::now() + within, enough: within / 2 }
    }

    pub(crate) fn left(&self) -> Duration {
        self.at.saturating_duration_since(Instant::now())
    }
}

/// Why the store gave no answer.
#[derive(Debug)]
pub(crate) struct Trouble {
    pub(crate) error: StoreError,
    /// It was not given enough time, so this says nothing of it.
    pub(crate) hurried: bool,
}

impl Trouble {
    fn elapsed(error: StoreError, given: Duration, deadline: Deadline) -> Self {
        Self { error, hurried: given < deadline.enough }
    }

    /// Whether a write may have happened.
    pub(crate) fn is_unknown(&self) -> bool {
        matches!(self.error, StoreError::Unknown { .. })
    }
}

impl From<StoreError> for Trouble {
    fn from(error: StoreError) -> Self {
        Self { error, hurried: false }
    }
}

impl From<Trouble> for Problem {
    fn from(trouble: Trouble) -> Self {
        if trouble.hurried { Self::Component(ComponentError::Hurried) } else { Self::Store(trouble.error) }
    }
}

pub(crate) async fn load(store: &dyn Store, circuit: &str, deadline: Deadline) -> Result<Loaded, Trouble> {
    let given = deadline.left();
    let loaded = match timeout_at(deadline.at, store.load(circuit)).await {
        Ok(loaded) => loaded.map_err(Trouble::from),
        Err(elapsed) => {
            let error =
                StoreError::unavailable("a load was not answered within the store's timeout", elapsed);
            Err(Trouble::elapsed(error, given, deadline))
        }
    };
    metering::load(loaded.as_ref().map_err(|trouble| &trouble.error));
    loaded
}

pub(crate) async fn swap(
    store: &dyn Store,
    circuit: &str,
    expected: Option<&Version>,
    value: &[u8],
    ttl_ms: Option<u64>,
    deadline: Deadline,
) -> Result<Swapped, Trouble> {
    let given = deadline.left();
    let swap = store.swap(circuit, expected, value, ttl_ms.map(Duration::from_millis));
    let swapped = match timeout_at(deadline.at, swap).await {
        Ok(swapped) => swapped.map_err(Trouble::from),
        Err(elapsed) => {
            let error = StoreError::unknown("a swap was not answered within the store's timeout", elapsed);
            Err(Trouble::elapsed(error, given, deadline))
        }
    };
    metering::swap(swapped.as_ref().map_err(|trouble| &trouble.error));
    swapped
}
