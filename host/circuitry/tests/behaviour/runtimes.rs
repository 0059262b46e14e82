//! The component in wasmtime: limits cost one call and one instance, nothing else.

use std::sync::Arc;
use std::time::Duration;

use circuitry::{
    ComponentError, Context, Error, Factory, MemoryStore, Outcome, Settings, SettingsError, StartError,
    Store, StoreError, TripInformation,
};
use circuitry_store::fault::Fault;
use circuitry_store::{Loaded, Swapped, Version};

use crate::world::{World, breaker, factory, run};

#[tokio::test]
async fn waiting_for_the_store_does_not_count_as_processor_time() {
    let world = World::new();
    let breaker = breaker(&factory(world.settings().cpu_budget(Duration::from_millis(10))).await);
    for _ in 0..4 {
        world.store.on_next(Fault::Delay(Duration::from_millis(200)));
    }
    run(&breaker, Outcome::Success, 2).await;
    let information = breaker.information().await.expect("information");
    assert_eq!((information.counts.total, information.local), (2, false));
}

/// Burns processor time, as a rule that counts to infinity would.
fn burn(_: &TripInformation) -> bool {
    // The thread's own time: on a busy machine sixty milliseconds may pass in which it does nothing.
    let begun = cpu_time::ThreadTime::now();
    while begun.elapsed() < Duration::from_millis(60) {
        std::hint::spin_loop();
    }
    false
}

#[tokio::test]
async fn a_call_over_its_processor_time_is_an_error_of_that_call_and_nothing_else() {
    let settings = Settings::builder()
        .consistency(circuitry::Consistency::Strict)
        .cpu_budget(Duration::from_millis(10))
        .trip_fn("burns", 1, burn);
    let breaker = breaker(&factory(settings).await);
    run(&breaker, Outcome::Success, 1).await;
    let permit = breaker.start().await.expect("a permit");
    let error = permit.end(Outcome::Failure).await.expect_err("out of time");
    assert!(
        matches!(error, Error::Component { source: ComponentError::OutOfTime { budget_ms: 10 }, .. }),
        "{error}"
    );
    run(&breaker, Outcome::Success, 3).await;
    assert_eq!(breaker.information().await.expect("information").counts.total, 4);
}

#[tokio::test]
async fn a_call_over_its_memory_is_an_error_of_that_call_and_nothing_else() {
    let world = World::new();
    let breaker = breaker(&factory(world.settings().memory_limit(2 << 20)).await);
    run(&breaker, Outcome::Success, 1).await;
    world.store.on_next_load(Fault::Garbage(vec![0; 3 << 20]));
    let error = breaker.start().await.expect_err("out of memory");
    let StartError::Circuit(Error::Component { source, .. }) = &error else { panic!("{error}") };
    assert!(matches!(source, ComponentError::Trapped(_)), "{error}");
    run(&breaker, Outcome::Success, 3).await;
}

/// A store on which one circuit hangs for ever.
struct HangsFor {
    circuit: &'static str,
    store: MemoryStore,
}

#[async_trait::async_trait]
impl Store for HangsFor {
    async fn load(&self, circuit: &str) -> Result<Loaded, StoreError> {
        if circuit == self.circuit {
            std::future::pending::<()>().await;
        }
        self.store.load(circuit).await
    }

    async fn swap(
        &self,
        circuit: &str,
        expected: Option<&Version>,
        value: &[u8],
        ttl: Option<Duration>,
    ) -> Result<Swapped, StoreError> {
        self.store.swap(circuit, expected, value, ttl).await
    }
}

#[tokio::test(start_paused = true)]
async fn a_circuit_whose_store_hangs_leaves_instances_to_the_others() {
    let store = HangsFor { circuit: "hangs", store: MemoryStore::new() };
    let settings = Settings::builder()
        .consistency(circuitry::Consistency::Strict)
        .store(store)
        .max_instances(8)
        .store_timeout(Duration::from_secs(10));
    let factory = factory(settings).await;
    let hanging = factory.breaker_for("hangs", &Context::new());
    for _ in 0..100 {
        let (one, other) = (hanging.clone(), hanging.clone());
        tokio::spawn(async move { one.start().await.map(drop) });
        tokio::spawn(async move { other.information().await.map(drop) });
    }
    tokio::task::yield_now().await;
    let begun = tokio::time::Instant::now();
    let other = factory.breaker_for("works", &Context::new());
    run(&other, Outcome::Success, 10).await;
    let information = other.information().await.expect("information");
    assert_eq!(begun.elapsed(), Duration::ZERO, "no instance had to be waited for");
    assert!(!factory.is_store_down() && !information.local);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_finds_no_free_instance_takes_the_store_failure_way_within_its_deadline() {
    let world = World::new();
    let timeout = Duration::from_millis(500);
    let factory = factory(world.settings().max_instances(8).store_timeout(timeout)).await;
    let breaker_of = |tenant: usize| factory.breaker_for("jobs", &Context::tenant(tenant.to_string()));
    let late = breaker_of(8);
    run(&late, Outcome::Success, 1).await;
    let mut hanging = Vec::new();
    for tenant in 0..8 {
        world.store.on_next_load(Fault::Hang);
        let breaker = breaker_of(tenant);
        hanging.push(tokio::spawn(async move { breaker.information().await }));
    }
    world.store.until_hanging(8).await;
    let (begun, loads) = (tokio::time::Instant::now(), world.store.loads());
    let information = late.information().await.expect("the entry last seen");
    assert!(begun.elapsed() <= timeout, "{:?}", begun.elapsed());
    assert!(information.local, "it could not ask the store");
    assert_eq!((information.counts.total, world.store.loads()), (1, loads));
    for information in hanging {
        information.await.expect("no panic").expect("the local record");
    }
}

#[tokio::test(start_paused = true)]
async fn a_busy_process_is_no_outage() {
    let world = World::new();
    let factory = factory(world.settings().max_instances(8)).await;
    let breaker = breaker(&factory);
    run(&breaker, Outcome::Success, 1).await;
    // A slow store and many callers of one circuit at once: two may ask, the others find no place in time.
    for _ in 0..100 {
        world.store.on_next(Fault::Delay(Duration::from_millis(300)));
    }
    let asking: Vec<_> = (0..32)
        .map(|_| {
            let breaker = breaker.clone();
            tokio::spawn(async move { breaker.information().await })
        })
        .collect();
    let mut local = 0;
    for information in asking {
        local += usize::from(information.await.expect("no panic").expect("information").local);
    }
    assert!(local > 0 && local < 32, "{local} went by a copy");
    assert!(!factory.is_store_down());
}

#[tokio::test(start_paused = true)]
async fn many_circuits_that_wait_for_places_are_no_outage() {
    let world = World::new();
    let factory = factory(world.settings().max_instances(8)).await;
    run(&breaker(&factory), Outcome::Success, 1).await;
    for _ in 0..100 {
        world.store.on_next(Fault::Delay(Duration::from_millis(300)));
    }
    let looks: Vec<_> = (0..32)
        .map(|tenant: u32| {
            let breaker = factory.breaker_for("jobs", &Context::tenant(tenant.to_string()));
            tokio::spawn(async move { breaker.information().await })
        })
        .collect();
    for look in looks {
        look.await.expect("no panic").expect("information");
    }
    assert!(!factory.is_store_down());
}

#[tokio::test]
async fn a_store_that_panics_costs_its_call_an_error_and_the_circuit_goes_on() {
    struct PanicsOnce {
        store: MemoryStore,
        panics: Arc<std::sync::atomic::AtomicBool>,
    }

    #[async_trait::async_trait]
    impl Store for PanicsOnce {
        async fn load(&self, circuit: &str) -> Result<Loaded, StoreError> {
            self.store.load(circuit).await
        }

        async fn swap(
            &self,
            circuit: &str,
            expected: Option<&Version>,
            value: &[u8],
            ttl: Option<Duration>,
        ) -> Result<Swapped, StoreError> {
            assert!(!self.panics.swap(false, std::sync::atomic::Ordering::SeqCst), "the store panics");
            self.store.swap(circuit, expected, value, ttl).await
        }
    }

    let panics = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let store = PanicsOnce { store: MemoryStore::new(), panics: panics.clone() };
    let breaker =
        breaker(&factory(Settings::builder().consistency(circuitry::Consistency::Strict).store(store)).await);
    run(&breaker, Outcome::Success, 1).await;
    let permit = breaker.start().await.expect("a permit");
    panics.store(true, std::sync::atomic::Ordering::SeqCst);
    let error = permit.end(Outcome::Success).await.expect_err("cut off");
    assert!(matches!(error, Error::Component { source: ComponentError::CutOff(_), .. }), "{error}");
    run(&breaker, Outcome::Success, 2).await;
}

#[tokio::test]
async fn a_component_file_is_checked_before_use() {
    let folder = tempfile::tempdir().expect("a folder");
    let cases: [(&str, Option<&[u8]>, &str); 4] = [
        ("missing.wasm", None, "No such file"),
        ("text.wasm", Some(b"not wasm at all"), "no WebAssembly component"),
        ("module.wasm", Some(b"\0asm\x01\0\0\0"), "no WebAssembly component"),
        // A component without imports and exports.
        ("empty.wasm", Some(b"\0asm\x0d\0\x01\0"), "does not fit the world"),
    ];
    for (file, bytes, told) in cases {
        let path = folder.path().join(file);
        if let Some(bytes) = bytes {
            std::fs::write(&path, bytes).expect("written");
        }
        let settings = Settings::builder()
            .consistency(circuitry::Consistency::Strict)
            .component_path(&path)
            .build()
            .expect("settings");
        let error = Factory::new(settings).await.expect_err("not usable");
        assert!(matches!(error, SettingsError::Component(ComponentError::Unusable { .. })), "{error}");
        assert!(error.to_string().contains(told) && error.to_string().contains(file), "{error}");
    }
}

#[tokio::test]
async fn the_built_in_component_given_by_path_works() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("circuitry.wasm");
    std::fs::write(&path, circuitry_component::WASM).expect("written");
    let breaker = breaker(
        &factory(Settings::builder().consistency(circuitry::Consistency::Strict).component_path(path)).await,
    );
    run(&breaker, Outcome::Success, 2).await;
}
