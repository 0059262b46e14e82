//! The adapter passes the suite that every store passes, in memory and on a Redis.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use circuitry_store::conformance::{Harness, conformance_tests};
use circuitry_store::{Loaded, ManualClock, Store, StoreError, Swapped, Version};
use circuitry_tests::keyvalue::buckets::{Buckets, Error, MemoryBuckets, RedisBuckets};
use circuitry_tests::keyvalue::host::{Fault, World};

use crate::adapter::{Adapter, AdapterStore, NOW_MS, world_of};
use crate::answers::swapped;

struct KeyvalueHarness {
    clock: ManualClock,
    world: World,
}

impl KeyvalueHarness {
    fn on(buckets: Arc<dyn Buckets>, environment: Vec<(String, String)>) -> Self {
        let clock = ManualClock::at_ms(NOW_MS);
        Self { world: World { environment, ..world_of(buckets, &clock) }, clock }
    }

    fn in_memory() -> Self {
        Self::on(Arc::<MemoryBuckets>::default(), Vec::new())
    }

    /// In a bucket that no other test uses.
    fn on_redis() -> Self {
        let url = std::env::var("CIRCUITRY_TEST_REDIS_URL")
            .expect("CIRCUITRY_TEST_REDIS_URL is not set: run `cargo xtask test`, which starts the servers");
        let buckets = RedisBuckets::connect(&url).expect("a Redis that answers");
        let bucket = format!("keyvalue-{:016x}", fastrand::u64(..));
        Self::on(Arc::new(buckets), vec![("CIRCUITRY_KEYVALUE_BUCKET".into(), bucket)])
    }
}

#[async_trait::async_trait]
impl Harness for KeyvalueHarness {
    async fn open(&self) -> Arc<dyn Store> {
        Arc::new(AdapterStore(self.world.clone()))
    }

    async fn wait_ms(&self, ms: u64) {
        self.clock.advance_ms(ms);
    }

    async fn open_unreachable(&self) -> Arc<dyn Store> {
        let opening_fails = Some(Error::Other("connection refused".into()));
        Arc::new(AdapterStore(World { opening_fails, ..self.world.clone() }))
    }

    async fn open_losing_answer(&self) -> Arc<dyn Store> {
        Arc::new(Losing { has_lost: AtomicBool::new(false), then: AdapterStore(self.world.clone()) })
    }
}

/// A handle whose first swap is sent while its answer is lost, with the connection.
struct Losing {
    has_lost: AtomicBool,
    then: AdapterStore,
}

#[async_trait::async_trait]
impl Store for Losing {
    async fn load(&self, circuit: &str) -> Result<Loaded, StoreError> {
        self.then.load(circuit).await
    }

    async fn swap(
        &self,
        circuit: &str,
        expected: Option<&Version>,
        value: &[u8],
        ttl: Option<Duration>,
    ) -> Result<Swapped, StoreError> {
        if self.has_lost.swap(true, Ordering::SeqCst) {
            return self.then.swap(circuit, expected, value, ttl).await;
        }
        let fault = match fastrand::bool() {
            true => Fault::AnswerLost { reads_fail: 1 },
            false => Fault::WriteLost { reads_fail: 1 },
        };
        let mut adapter = Adapter::start(World { faults: [fault].into(), ..self.then.0.clone() });
        let answer = adapter.swap(circuit, expected.map(Version::as_bytes), value, None);
        if adapter.0.world().swaps == 0 {
            // The adapter has seen by itself that the race is lost. It is then its own answer that does not arrive.
            return Err(StoreError::unknown("the answer is lost", "nobody says more"));
        }
        swapped(answer)
    }
}

mod in_memory {
    use super::*;
    conformance_tests!(KeyvalueHarness::in_memory());
}

mod on_redis {
    use super::*;
    conformance_tests!(KeyvalueHarness::on_redis());
}
