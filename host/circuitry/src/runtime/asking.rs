//! Asking the user's store: until a deadline, and counted.

use std::time::Duration;

use circuitry_store::{Loaded, Store, StoreError, Swapped, Version};
use tokio::time::{Instant, timeout_at};

use crate::metering;

pub(crate) async fn load(store: &dyn Store, circuit: &str, deadline: Instant) -> Result<Loaded, StoreError> {
    let loaded = timeout_at(deadline, store.load(circuit)).await.unwrap_or_else(|elapsed| {
        Err(StoreError::unavailable("a load was not answered within the store's timeout", elapsed))
    });
    metering::load(&loaded);
    loaded
}

pub(crate) async fn swap(
    store: &dyn Store,
    circuit: &str,
    expected: Option<&Version>,
    value: &[u8],
    ttl_ms: Option<u64>,
    deadline: Instant,
) -> Result<Swapped, StoreError> {
    let swap = store.swap(circuit, expected, value, ttl_ms.map(Duration::from_millis));
    let swapped = timeout_at(deadline, swap).await.unwrap_or_else(|elapsed| {
        Err(StoreError::unknown("a swap was not answered within the store's timeout", elapsed))
    });
    metering::swap(&swapped);
    swapped
}
