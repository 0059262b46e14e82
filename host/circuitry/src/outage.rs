//! [`Outage`]: whether the store is down, and the records that this process keeps meanwhile.
//!
//! Entering and leaving is one event each. While the store is down no call asks it: one task does, with growing
//! pauses, until it answers. Then the local records are dropped, and nothing of them is written.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};
use circuitry_store::{MemoryStore, Store, StoreError};
use tokio::time::{sleep, timeout};

use crate::call::Problem;
use crate::clock::StoreClock;
use crate::error::Error;
use crate::metering;
use crate::node::{Exchange, Node};

/// The first pause before the store is asked again, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));

/// Whether the store is down, and what this process keeps meanwhile.
#[derive(Debug)]
pub(crate) struct Outage {
    down: AtomicBool,
    clock: StoreClock,
    records: Mutex<MemoryStore>,
    /// Calls whose write may have happened before the store went down.
    parked: Mutex<Vec<Exchange>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Outage {
    pub(crate) fn new(clock: StoreClock) -> Self {
        let records = Mutex::new(MemoryStore::with_clock(clock.clone()));
        Self { down: AtomicBool::new(false), clock, records, parked: Mutex::default() }
    }

    pub(crate) fn is_down(&self) -> bool {
        self.down.load(Ordering::Acquire)
    }

    /// The records that this process keeps while the store is down.
    pub(crate) fn records(&self) -> MemoryStore {
        lock(&self.records).clone()
    }

    /// Keeps a call until the store answers: it may have been applied, and is applied once if it was not.
    pub(crate) fn park(&self, exchange: Exchange) {
        lock(&self.parked).push(exchange);
    }

    /// Says whether the store was taken as up until now.
    pub(crate) fn enter(&self, circuit: &str, problem: &Problem) -> bool {
        if self.down.swap(true, Ordering::AcqRel) {
            return false;
        }
        metering::fallback(true);
        tracing::warn!(
            circuit,
            ?problem,
            "the store is down; calls take the store-failure way until it answers"
        );
        true
    }

    fn leave(&self) -> Vec<Exchange> {
        // Begun anew before anybody can enter the next outage.
        *lock(&self.records) = MemoryStore::with_clock(self.clock.clone());
        let parked = std::mem::take(&mut *lock(&self.parked));
        self.down.store(false, Ordering::Release);
        metering::fallback(false);
        tracing::info!(parked = parked.len(), "the store answers again; the local records are dropped");
        parked
    }
}

/// Asks the store with growing pauses until it answers, then leaves the outage.
pub(crate) async fn watch(node: Weak<Node>, circuit: Arc<str>) {
    let (first, longest) = PAUSES;
    let pauses = ExponentialBuilder::new()
        .with_min_delay(first)
        .with_max_delay(longest)
        .with_jitter()
        .without_max_times()
        .build();
    for pause in pauses {
        sleep(pause).await;
        // A factory that is gone needs no store.
        let Some(node) = node.upgrade() else { return };
        if answers(&*node.store, &circuit, node.settings.store_timeout).await {
            for exchange in node.outage.leave() {
                node.tasks.spawn(crate::settling::settle_parked(node.clone(), exchange));
            }
            return;
        }
    }
}

/// Whether the store does its work; that what it has for this circuit is not ours is an answer too.
async fn answers(store: &dyn Store, circuit: &str, within: Duration) -> bool {
    match timeout(within, store.load(circuit)).await {
        Ok(Ok(_)) => true,
        Ok(Err(StoreError::Unavailable { .. } | StoreError::Unknown { .. } | StoreError::Denied { .. })) => {
            false
        }
        Ok(Err(_)) => true,
        Err(_elapsed) => false,
    }
}

/// What a parked call that cannot be settled leaves behind.
pub(crate) fn lost(circuit: &str, base: &str, outcomes: u64, problem: Problem) {
    metering::lost(base, outcomes);
    tracing::warn!(circuit, outcomes, error = %Error::new(circuit, problem), "outcomes are lost");
}
