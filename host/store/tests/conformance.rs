//! The memory store passes the suite. What a network loses, the fault store loses for it.

use std::sync::Arc;

use circuitry_store::conformance::{Harness, conformance_tests};
use circuitry_store::fault::{Fault, FaultStore};
use circuitry_store::{ManualClock, MemoryStore, Store};

struct MemoryHarness {
    clock: ManualClock,
    store: MemoryStore,
}

#[async_trait::async_trait]
impl Harness for MemoryHarness {
    async fn open(&self) -> Arc<dyn Store> {
        Arc::new(self.store.clone())
    }

    async fn wait_ms(&self, ms: u64) {
        self.clock.advance_ms(ms);
    }

    async fn open_unreachable(&self) -> Arc<dyn Store> {
        let store = FaultStore::new(self.store.clone());
        store.go_down();
        Arc::new(store)
    }

    async fn open_losing_answer(&self) -> Arc<dyn Store> {
        let store = FaultStore::new(self.store.clone());
        store.on_next_swap(Fault::LostAnswer);
        Arc::new(store)
    }

    async fn open_apart(&self) -> Option<Arc<dyn Store>> {
        Some(Arc::new(MemoryStore::new()))
    }
}

async fn memory() -> MemoryHarness {
    let clock = ManualClock::at_ms(1_000);
    MemoryHarness { store: MemoryStore::with_clock(clock.clone()), clock }
}

conformance_tests!(memory().await);

/// On the system's clock, as users run it.
mod on_the_system_clock {
    use super::*;

    struct SystemHarness(MemoryStore);

    #[async_trait::async_trait]
    impl Harness for SystemHarness {
        async fn open(&self) -> Arc<dyn Store> {
            Arc::new(self.0.clone())
        }

        async fn wait_ms(&self, ms: u64) {
            tokio::time::sleep(std::time::Duration::from_millis(ms)).await;
        }

        async fn open_unreachable(&self) -> Arc<dyn Store> {
            let store = FaultStore::new(self.0.clone());
            store.on_next_load(Fault::Unavailable);
            store.on_next_swap(Fault::Unavailable);
            Arc::new(store)
        }

        async fn open_losing_answer(&self) -> Arc<dyn Store> {
            let store = FaultStore::new(self.0.clone());
            store.on_next_swap(Fault::LostAnswer);
            Arc::new(store)
        }
    }

    conformance_tests!(SystemHarness(MemoryStore::new()));
}
