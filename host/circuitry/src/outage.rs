//! [`Outage`]: whether the store is down, and the records that this process keeps meanwhile.
//!
//! Entering and leaving is one event each. While the store is down no call asks it: one task does, with growing
//! pauses, until it reads *and writes*. Then the local records are dropped, and nothing of them is written.

use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};
use circuitry_store::{MemoryStore, Store, StoreError, Swapped};
use futures_util::FutureExt;
use tokio::time::{Instant, sleep, timeout};

use crate::call::Problem;
use crate::clock::StoreClock;
use crate::error::{ComponentError, Error};
use crate::exchange::Exchange;
use crate::metering;
use crate::node::Node;
use crate::settling::{lost, panicked, settle_parked};

/// The first pause before the store is asked again, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));
/// An outage that begins so soon after another is the same one: one shard of a cluster may work and another not.
const GOES_ON_WITHIN: Duration = Duration::from_secs(10);
/// How long the entry lives that the watch writes.
const TRIAL_TTL: Duration = Duration::from_secs(60);

/// Whether the store is down, and what this process keeps meanwhile.
#[derive(Debug)]
pub(crate) struct Outage {
    /// The same as in `phase`, for calls that only want to know.
    down: AtomicBool,
    clock: StoreClock,
    phase: Mutex<Phase>,
}

#[derive(Debug)]
struct Phase {
    down: bool,
    /// Begun anew with each outage, unless it goes on where one has just ended.
    records: MemoryStore,
    left_at: Option<Instant>,
    /// Calls whose write may have happened before the store went down.
    parked: Vec<Exchange>,
}

impl Outage {
    pub(crate) fn new(clock: StoreClock) -> Self {
        let records = MemoryStore::with_clock(clock.clone());
        let phase = Mutex::new(Phase { down: false, records, left_at: None, parked: Vec::new() });
        // So that the gauge is there before the first outage.
        metering::fallback(0.0);
        Self { down: AtomicBool::new(false), clock, phase }
    }

    fn phase(&self) -> MutexGuard<'_, Phase> {
        self.phase.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn is_down(&self) -> bool {
        self.down.load(Ordering::Acquire)
    }

    /// The records that this process keeps while the store is down.
    pub(crate) fn records(&self) -> MemoryStore {
        self.phase().records.clone()
    }

    /// Keeps a call until the store answers: it may have been applied, and is applied once if it was not. Gives it back
    /// when the store is not down (any more).
    pub(crate) fn park(&self, exchange: Exchange) -> Option<Exchange> {
        let mut phase = self.phase();
        if !phase.down {
            return Some(exchange);
        }
        phase.parked.push(exchange);
        None
    }

    /// Takes the store as down; says after which pause it is to be asked again, if it was taken as up until now.
    pub(crate) fn enter(&self, circuit: &str, problem: &Problem) -> Option<Duration> {
        let mut phase = self.phase();
        if phase.down {
            return None;
        }
        let goes_on = phase.left_at.is_some_and(|left_at| left_at.elapsed() < GOES_ON_WITHIN);
        phase.down = true;
        if !goes_on {
            phase.records = MemoryStore::with_clock(self.clock.clone());
        }
        self.down.store(true, Ordering::Release);
        metering::fallback(1.0);
        tracing::warn!(
            circuit,
            ?problem,
            "the store is down; calls take the store-failure way until it answers"
        );
        Some(if goes_on { PAUSES.1 } else { PAUSES.0 })
    }

    fn leave(&self) -> Vec<Exchange> {
        let mut phase = self.phase();
        phase.down = false;
        phase.left_at = Some(Instant::now());
        self.down.store(false, Ordering::Release);
        metering::fallback(-1.0);
        let parked = std::mem::take(&mut phase.parked);
        tracing::info!(parked = parked.len(), "the store answers again; the local records are dropped");
        parked
    }

    /// Lets go of the local records, when no outage can go on any more where the last one has ended.
    fn drop_records(&self) {
        let mut phase = self.phase();
        if !phase.down && phase.left_at.is_some_and(|left_at| left_at.elapsed() >= GOES_ON_WITHIN) {
            phase.records = MemoryStore::with_clock(self.clock.clone());
        }
    }
}

impl Drop for Outage {
    fn drop(&mut self) {
        if self.is_down() {
            metering::fallback(-1.0);
        }
        for exchange in self.phase().parked.drain(..) {
            let gone = ComponentError::CutOff("the factory was dropped before the store was back".into());
            let circuit = &exchange.circuit;
            lost(circuit, exchange.outcomes(), &Error::new(&circuit.name, Problem::Component(gone)));
        }
    }
}

/// Asks the store with growing pauses until it answers, then leaves the outage.
pub(crate) async fn watch(node: Weak<Node>, circuit: Arc<str>, first: Duration) {
    let (_, longest) = PAUSES;
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
        // A store that panics does not answer, and does not end the watch.
        let answers = AssertUnwindSafe(answers(&node, &circuit)).catch_unwind().await;
        if answers.unwrap_or(false) {
            // One after another, so that they do not take the calls' instances.
            for exchange in node.outage.leave() {
                let (circuit, outcomes) = (exchange.circuit.clone(), exchange.outcomes());
                let settled = AssertUnwindSafe(settle_parked(&node, exchange)).catch_unwind().await;
                if settled.is_err() {
                    lost(&circuit, outcomes, &panicked(&circuit));
                }
            }
            let node = {
                let weak = Arc::downgrade(&node);
                drop(node);
                sleep(GOES_ON_WITHIN).await;
                weak.upgrade()
            };
            if let Some(node) = node {
                node.outage.drop_records();
            }
            return;
        }
    }
}

/// Whether the store does its work: it reads the circuit that could not be read or written, and writes.
///
/// What it writes is an entry of this process's own, so that the answer does not hang on others.
async fn answers(node: &Node, circuit: &str) -> bool {
    let within = node.settings.store_timeout;
    let trial = node.trial_name();
    let asked = async {
        match node.store.load(circuit).await {
            // That what it has for this circuit is not ours is an answer too.
            Ok(_) | Err(StoreError::Other { .. }) => {}
            Err(error) => return Err(error),
        }
        let version = node.store.load(&trial).await?.entry.map(|entry| entry.version);
        node.store.swap(&trial, version.as_ref(), b"circuitry: the store writes", Some(TRIAL_TTL)).await
    };
    matches!(timeout(within, asked).await, Ok(Ok(Swapped::Stored(_))))
}
