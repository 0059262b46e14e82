//! What a call under a grant costs in this process. In a program of its own, because it counts what is allocated.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};

use circuitry::{Clock, Context, Factory, ManualClock, MemoryStore, Outcome, Settings};
use circuitry_store::fault::FaultStore;
use peak_alloc::PeakAlloc;

#[global_allocator]
static ALLOCATED: PeakAlloc = PeakAlloc;

async fn no_op() -> Result<(), Infallible> {
    Ok(())
}

/// A clock that a test moves, and that has to be asked: somebody else's thread asks it for the calls under a grant.
#[derive(Debug)]
struct Asked {
    clock: ManualClock,
    own: ThreadId,
    by_others: Arc<AtomicU64>,
}

impl Clock for Asked {
    fn now_ms(&self) -> u64 {
        if thread::current().id() != self.own {
            self.by_others.fetch_add(1, Ordering::SeqCst);
        }
        self.clock.now_ms()
    }
}

/// One test, because the count is of all threads.
#[tokio::test]
async fn a_call_under_a_grant_allocates_nothing_and_a_blocked_runtime_prolongs_none() {
    let (clock, by_others) = (ManualClock::at_ms(1_000_000), Arc::new(AtomicU64::new(0)));
    let asked = Asked { clock: clock.clone(), own: thread::current().id(), by_others: by_others.clone() };
    let store = Arc::new(FaultStore::new(MemoryStore::with_clock(clock.clone())));
    let settings = Settings::builder().clock(asked).store(store.clone()).state_change_callback(|_| {});
    let factory = Factory::new(settings.build().expect("settings")).await.expect("a factory");
    let breaker = factory.breaker_for("jobs", &Context::tenant("acme"));
    // The first one makes the record, the second one is given the grant, the third finds all that is made once.
    for _ in 0..3 {
        breaker.execute(no_op).await.expect("admitted");
    }

    let (operations, before) = (store.loads() + store.swaps(), ALLOCATED.current_usage());
    ALLOCATED.reset_peak_usage();
    // Nothing here yields, so nobody else works.
    for _ in 0..10_000 {
        breaker.execute(no_op).await.expect("admitted");
        let permit = breaker.start().await.expect("admitted");
        permit.end(Outcome::Success).await.expect("settled");
    }
    assert_eq!(ALLOCATED.peak_usage(), before, "not a byte");
    assert_eq!(store.loads() + store.swaps(), operations);

    // Time passes, and the runtime is blocked by these very calls: only a thread of the clock's own can end the grant.
    clock.advance_ms(1_000);
    let begun = Instant::now();
    while store.loads() + store.swaps() == operations {
        assert!(begun.elapsed() < Duration::from_secs(30), "a blocked runtime prolongs the grant");
        breaker.execute(no_op).await.expect("admitted");
    }
    assert!(by_others.load(Ordering::SeqCst) > 0, "a thread of its own asks the clock");
}
