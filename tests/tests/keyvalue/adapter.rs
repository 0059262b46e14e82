//! `store-keyvalue.wasm` as a store of circuitry.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use circuitry_store::store::ttl_ms;
use circuitry_store::{Clock, ManualClock, Store, StoreError, Version};
use circuitry_tests::contract::{Entry, Loaded, Swapped};
use circuitry_tests::keyvalue::buckets::{Buckets, MemoryBuckets};
use circuitry_tests::keyvalue::host::{Runnable, Running, World};

use crate::answers::{Answer, error, loaded, swapped};

const STORE: &str = "circuitry:breaker/store@0.1.0";

/// What the adapter takes where its environment is empty.
pub(crate) const BUCKET: &str = "default";

pub(crate) const NOW_MS: u64 = 1_800_000_000_000;

/// The adapter alone. It takes a second to compile, so once for the test process.
pub(crate) fn component() -> &'static Runnable {
    static COMPONENT: LazyLock<Runnable> = LazyLock::new(|| {
        let adapter = include_bytes!("../../../host/component/store-keyvalue.wasm");
        Runnable::new(adapter).expect("a component that needs nothing but wasi:*")
    });
    &COMPONENT
}

/// A world in which nothing fails, with buckets of its own.
pub(crate) fn world() -> (World, Arc<MemoryBuckets>, ManualClock) {
    let (buckets, clock) = (Arc::<MemoryBuckets>::default(), ManualClock::at_ms(NOW_MS));
    (world_of(buckets.clone(), &clock), buckets, clock)
}

pub(crate) fn world_of(buckets: Arc<dyn Buckets>, clock: &ManualClock) -> World {
    let clock = clock.clone();
    World::new(buckets, move || clock.now_ms())
}

/// An instance of the adapter.
pub(crate) struct Adapter(pub(crate) Running);

impl Adapter {
    pub(crate) fn start(world: World) -> Self {
        Self(component().start(world).expect("an instance"))
    }

    pub(crate) fn load(&mut self, circuit: &str) -> Answer<Loaded> {
        let (answer,) = self.0.call(STORE, "load", (circuit,));
        answer
    }

    pub(crate) fn swap(
        &mut self,
        circuit: &str,
        expected: Option<&[u8]>,
        value: &[u8],
        ttl_ms: Option<u64>,
    ) -> Answer<Swapped> {
        let (answer,) = self.0.call(STORE, "swap", (circuit, expected, value, ttl_ms));
        answer
    }

    /// The entry, which must be readable.
    pub(crate) fn entry(&mut self, circuit: &str) -> Option<Entry> {
        self.load(circuit).expect("a bucket that answers").entry
    }

    /// Writes, and gives the version.
    pub(crate) fn write(&mut self, circuit: &str, expected: Option<&[u8]>, value: &[u8]) -> Vec<u8> {
        match self.swap(circuit, expected, value, None) {
            Ok(Swapped::Stored(receipt)) => receipt.version,
            other => panic!("nobody else writes {circuit:?}, yet: {other:?}"),
        }
    }
}

/// A store whose every call is an instance of its own, as in a host of requests.
#[derive(Clone)]
pub(crate) struct AdapterStore(pub(crate) World);

impl AdapterStore {
    fn instance(&self) -> Adapter {
        Adapter::start(self.0.clone())
    }
}

#[async_trait::async_trait]
impl Store for AdapterStore {
    async fn load(&self, circuit: &str) -> Result<circuitry_store::Loaded, StoreError> {
        self.instance().load(circuit).map(loaded).map_err(error)
    }

    async fn swap(
        &self,
        circuit: &str,
        expected: Option<&Version>,
        value: &[u8],
        ttl: Option<Duration>,
    ) -> Result<circuitry_store::Swapped, StoreError> {
        let expected = expected.map(Version::as_bytes);
        swapped(self.instance().swap(circuit, expected, value, ttl.map(ttl_ms)))
    }
}
