//! Bounded mode: what is flushed, when the store answers and when it does not.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use circuitry::{
    Consistency, Context, Disposition, ManualClock, MemoryStore, Outcome, RefusalReason, Settings, Store,
    StoreError, StoreFailure,
};
use circuitry_store::fault::{Fault, FaultStore};
use circuitry_store::{Loaded, Swapped, Version};
use tokio::sync::Notify;

use crate::bounded::{TENTH, bounded, execute, pass, totals};
use crate::log::Log;
use crate::world::{World, breaker, factory, information, refused, run, until};

#[tokio::test(start_paused = true)]
async fn outcomes_wait_through_an_outage_and_are_counted_once() {
    let world = World::new();
    let factory = factory(bounded(&world)).await;
    let breaker = breaker(&factory);
    run(&breaker, Outcome::Success, 20).await;
    world.store.go_down();
    let unsettled = factory.flush().await.expect_err("the store is down").unsettled;
    assert_eq!(unsettled, 20);
    assert!(factory.is_store_down());
    // The outage's record goes on from what this process has seen and counted.
    run(&breaker, Outcome::Failure, 2).await;
    world.store.come_up();
    until("the outage is over", || async { !factory.is_store_down() }).await;
    factory.flush().await.expect("flushed");
    assert_eq!(totals(&breaker).await, (20, 0), "what was counted locally is dropped with the local record");
}

#[tokio::test(start_paused = true)]
async fn an_open_circuit_stays_open_when_the_store_goes_down() {
    for policy in [StoreFailure::Local, StoreFailure::Refuse] {
        let world = World::new();
        let breaker = breaker(&factory(bounded(&world).store_failure(policy)).await);
        run(&breaker, Outcome::Failure, 3).await;
        world.store.go_down();
        world.clock.advance_ms(5_000);
        let expected =
            if policy == StoreFailure::Local { RefusalReason::Open } else { RefusalReason::StoreDown };
        assert_eq!(refused(&breaker).await.reason(), expected);
    }
}

#[tokio::test(start_paused = true)]
async fn a_flush_whose_answer_was_lost_is_counted_once() {
    let world = World::new();
    let factory = factory(bounded(&world)).await;
    let breaker = breaker(&factory);
    run(&breaker, Outcome::Success, 7).await;
    world.store.on_next_swap(Fault::LostAnswer);
    factory.flush().await.expect("flushed");
    assert_eq!(totals(&breaker).await, (7, 0));
}

#[tokio::test(start_paused = true)]
async fn a_flush_whose_answers_are_all_lost_is_kept_and_counted_once() {
    let world = World::new();
    let factory = factory(bounded(&world)).await;
    let breaker = breaker(&factory);
    run(&breaker, Outcome::Success, 7).await;
    world.store.on_next_swap(Fault::LostAnswer);
    for _ in 0..3 {
        world.store.on_next_load(Fault::Unavailable);
    }
    assert_eq!(factory.flush().await.expect_err("nobody can tell").unsettled, 7);
    until("the outage is over", || async { !factory.is_store_down() }).await;
    run(&breaker, Outcome::Success, 1).await;
    factory.flush().await.expect("flushed");
    assert_eq!(totals(&breaker).await, (8, 0));
}

#[tokio::test(start_paused = true)]
async fn a_store_that_hangs_holds_nobody_up_while_the_view_is_fresh() {
    let world = World::new();
    let timeout = Duration::from_millis(500);
    let factory = factory(bounded(&world).store_timeout(timeout)).await;
    let breaker = breaker(&factory);
    run(&breaker, Outcome::Success, 5).await;
    for _ in 0..20 {
        world.store.on_next(Fault::Hang);
    }
    let begun = tokio::time::Instant::now();
    for _ in 0..100 {
        execute(&breaker, Outcome::Success).await;
    }
    assert_eq!(begun.elapsed(), Duration::ZERO);
    world.clock.advance_ms(150);
    execute(&breaker, Outcome::Success).await;
    assert!(begun.elapsed() <= timeout, "{:?}", begun.elapsed());
    assert!(factory.is_store_down());
}

#[tokio::test(start_paused = true)]
async fn dropping_the_factory_flushes_what_it_can() {
    let world = World::new();
    let factory_one = factory(bounded(&world)).await;
    run(&breaker(&factory_one), Outcome::Success, 9).await;
    drop(factory_one);
    let other = breaker(&factory(bounded(&world)).await);
    until("it is flushed", || async { totals(&other).await == (9, 0) }).await;
}

#[test]
fn what_a_drop_cannot_flush_is_reported() {
    let world = World::new();
    let (log, _guard) = Log::watch();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let (factory, breaker) = runtime.block_on(async {
        let factory = factory(bounded(&world)).await;
        let breaker = breaker(&factory);
        run(&breaker, Outcome::Success, 4).await;
        (factory, breaker)
    });
    drop(runtime);
    drop((factory, breaker));
    assert_eq!(log.count("outcomes are lost"), 1);
}

#[tokio::test(start_paused = true)]
async fn a_store_slower_than_the_staleness_costs_a_start_one_load() {
    let world = World::new();
    let store = Slow { store: world.store.clone(), clock: world.clock.clone() };
    let consistency = Consistency::Bounded { max_staleness: TENTH, flush_every: TENTH };
    let settings = Settings::builder().consistency(consistency).clock(world.clock.clone()).store(store);
    let breaker = breaker(&factory(settings).await);
    for _ in 0..3 {
        let loads = world.store.loads();
        let settled = breaker.start().await.expect("a permit").end(Outcome::Success).await.expect("settled");
        assert_eq!(settled.disposition, Disposition::Accepted);
        // None, where a flush has just been there.
        assert!(world.store.loads() <= loads + 1, "{} loads", world.store.loads() - loads);
        world.clock.advance_ms(1_000);
    }
    assert_eq!(totals(&breaker).await, (3, 0), "nothing went to a record of this process's own");
}

/// A store that takes 150 ms, by the clock of the world, to answer a load.
struct Slow {
    store: Arc<FaultStore<MemoryStore>>,
    clock: ManualClock,
}

#[async_trait::async_trait]
impl Store for Slow {
    async fn load(&self, circuit: &str) -> Result<Loaded, StoreError> {
        let loaded = self.store.load(circuit).await;
        self.clock.advance_ms(150);
        loaded
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
async fn a_trip_that_could_not_be_stored_holds_through_the_outage() {
    let world = World::new();
    let breaker = breaker(&factory(bounded(&world)).await);
    run(&breaker, Outcome::Failure, 2).await;
    world.store.go_down();
    run(&breaker, Outcome::Failure, 1).await;
    assert_eq!(refused(&breaker).await.reason(), RefusalReason::Open);
}

#[tokio::test(start_paused = true)]
async fn outcomes_that_come_faster_than_flushes_are_due_do_not_pile_up() {
    let world = World::new();
    let factory = factory(bounded(&world)).await;
    let breaker = breaker(&factory);
    // Two runs each time, and 256 go into one call.
    for _ in 0..1_000 {
        execute(&breaker, Outcome::Success).await;
        execute(&breaker, Outcome::Failure).await;
    }
    let swaps = world.store.swaps();
    pass(&world, 100).await;
    assert!(world.store.swaps() >= swaps + 7, "{} flushes", world.store.swaps() - swaps);
}

#[tokio::test(start_paused = true)]
async fn of_more_circuits_than_can_be_flushed_at_once_none_is_left_out() {
    let world = World::new();
    let factory = factory(bounded(&world)).await;
    let (hot, all) = (80, 90);
    let circuits: Vec<_> =
        (0..all).map(|tenant| factory.breaker_for("jobs", &Context::tenant(format!("{tenant}")))).collect();
    let mut permits = Vec::new();
    for circuit in &circuits {
        let mut of_one = Vec::new();
        for _ in 0..30 {
            of_one.push(circuit.start().await.expect("a permit"));
        }
        permits.push(of_one);
    }
    // A flush takes so long that its circuit is due again when it is done; and there are more of those than places.
    for _ in 0..10_000 {
        world.store.on_next_swap(Fault::Delay(Duration::from_millis(200)));
    }
    for round in 0..30 {
        for of_one in &mut permits[..if round == 0 { all } else { hot }] {
            let permit = of_one.pop().expect("one for each round");
            permit.end(Outcome::Success).await.expect("counted");
        }
        pass(&world, 50).await;
    }
    world.store.clear();
    let other = world.factory().await;
    for tenant in 0..all {
        let shared = other.breaker_for("jobs", &Context::tenant(format!("{tenant}")));
        assert!(information(&shared).await.counts.total > 0, "{tenant} was left out");
    }
}

#[tokio::test(start_paused = true)]
async fn outcomes_of_a_flush_under_way_are_not_yet_settled() {
    let world = World::new();
    let factory = factory(bounded(&world)).await;
    run(&breaker(&factory), Outcome::Success, 5).await;
    world.store.on_next_swap(Fault::Hang);
    let flush = tokio::spawn({
        let factory = factory.clone();
        async move { factory.flush().await }
    });
    world.store.until_hanging(1).await;
    world.store.go_down();
    let other = factory.breaker_for("others", &Context::new());
    drop(other.start().await.expect("a permit of the outage"));
    assert!(factory.is_store_down());
    // Also when nobody has used the circuit for long.
    pass(&world, 200).await;
    assert_eq!(factory.flush().await.expect_err("it hangs").unsettled, 5);
    flush.abort();
}

#[tokio::test(start_paused = true)]
async fn under_a_grant_too_an_outage_goes_by_the_processs_own_record() {
    let world = World::new();
    let long = Duration::from_secs(60);
    let consistency = Consistency::Bounded { max_staleness: long, flush_every: long };
    for policy in [StoreFailure::Refuse, StoreFailure::Local] {
        let factory = factory(world.settings_in(consistency).store_failure(policy)).await;
        let breaker = breaker(&factory);
        execute(&breaker, Outcome::Success).await;
        let (begun, go_on) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let work = tokio::spawn({
            let (breaker, begun, go_on) = (breaker.clone(), begun.clone(), go_on.clone());
            async move {
                let work = || async {
                    begun.notify_one();
                    go_on.notified().await;
                    Err::<(), _>(std::io::Error::other("it failed"))
                };
                breaker.execute_classified(work, |_| Outcome::Failure).await.expect("admitted").settlement
            }
        });
        begun.notified().await;
        world.store.go_down();
        let _ = factory.breaker_for("others", &Context::new()).start().await;
        assert!(factory.is_store_down());
        go_on.notify_one();
        let settled = work.await.expect("no panic").expect("settled");
        if policy == StoreFailure::Refuse {
            assert_eq!(settled.disposition, Disposition::Uncounted);
            let work = || async { Ok::<_, std::io::Error>(()) };
            assert!(breaker.execute(work).await.is_err(), "no grant stands above the outage");
        } else {
            assert_eq!((settled.disposition, settled.local), (Disposition::Accepted, true));
            run(&breaker, Outcome::Failure, 2).await;
            assert_eq!(refused(&breaker).await.reason(), RefusalReason::Open, "the third failure in a row");
        }
        world.store.come_up();
        until("the outage is over", || async { !factory.is_store_down() }).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_flush_of_a_hot_circuit_comes_to_an_end() {
    let world = World::new();
    let factory = factory(bounded(&world)).await;
    let breaker = breaker(&factory);
    run(&breaker, Outcome::Success, 5).await;
    for _ in 0..100_000 {
        world.store.on_next_swap(Fault::Delay(Duration::from_millis(5)));
    }
    let traffic = tokio::spawn({
        let breaker = breaker.clone();
        async move {
            loop {
                execute(&breaker, Outcome::Success).await;
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
    });
    let flushed = tokio::time::timeout(Duration::from_secs(5), factory.flush()).await;
    traffic.abort();
    flushed.expect("what waited when it was called is settled").expect("flushed");
}

/// A store that panics while it is told to, on circuits whose name ends so.
struct Panics {
    store: Arc<FaultStore<MemoryStore>>,
    panics: Arc<AtomicBool>,
    on: &'static str,
}

impl Panics {
    fn meet(&self, circuit: &str) {
        assert!(!self.panics.load(Ordering::SeqCst) || !circuit.ends_with(self.on), "as the test says");
    }
}

#[async_trait::async_trait]
impl Store for Panics {
    async fn load(&self, circuit: &str) -> Result<Loaded, StoreError> {
        self.meet(circuit);
        self.store.load(circuit).await
    }

    async fn swap(
        &self,
        circuit: &str,
        expected: Option<&Version>,
        value: &[u8],
        ttl: Option<Duration>,
    ) -> Result<Swapped, StoreError> {
        self.meet(circuit);
        self.store.swap(circuit, expected, value, ttl).await
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_that_panics_keeps_no_task_busy() {
    let world = World::new();
    let panics = Arc::new(AtomicBool::new(false));
    let store = Panics { store: world.store.clone(), panics: panics.clone(), on: "" };
    let consistency = Consistency::Bounded { max_staleness: TENTH, flush_every: TENTH };
    let settings = Settings::builder().consistency(consistency).clock(world.clock.clone()).store(store);
    let breaker = breaker(&factory(settings.failure_count_threshold(2)).await);
    run(&breaker, Outcome::Failure, 2).await;
    let permit = breaker.start().await.expect("a permit");
    panics.store(true, Ordering::SeqCst);
    permit.end(Outcome::Failure).await.expect("counted");
    // Time stands still while anybody is busy.
    pass(&world, 300).await;
    panics.store(false, Ordering::SeqCst);
    run(&breaker, Outcome::Success, 1).await;
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_ends_while_a_flush_waits_settles_nothing_of_it() {
    let (log, _guard) = Log::watch();
    let world = World::new();
    let factory = factory(bounded(&world)).await;
    let breaker = breaker(&factory);
    let permits = [breaker.start().await, breaker.start().await].map(|permit| permit.expect("a permit"));
    run(&breaker, Outcome::Failure, 3).await;
    world.open_time_passes();
    let probe = breaker.start().await.expect("a probe");
    assert!(probe.is_probe());
    for permit in permits {
        permit.end(Outcome::Success).await.expect("counted");
    }
    world.store.go_down();
    assert_eq!(factory.flush().await.expect_err("the store is down").unsettled, 2);
    world.store.come_up();
    until("the outage is over", || async { !factory.is_store_down() }).await;
    let settled = probe.end(Outcome::Success).await.expect("settled");
    assert_eq!((settled.disposition, settled.local), (Disposition::Accepted, false));
    factory.flush().await.expect("flushed");
    assert_eq!(
        log.count("outcomes came too late"),
        1,
        "the two are of an era that is over, and were flushed"
    );
}

#[tokio::test(start_paused = true)]
async fn a_store_that_panics_on_one_circuit_costs_the_others_nothing() {
    let world = World::new();
    let panics = Arc::new(AtomicBool::new(false));
    let store = Panics { store: world.store.clone(), panics: panics.clone(), on: "/sick" };
    let consistency = Consistency::Bounded { max_staleness: TENTH, flush_every: TENTH };
    let settings = Settings::builder().consistency(consistency).clock(world.clock.clone()).store(store);
    let factory = factory(settings).await;
    let other = world.factory().await;
    for tenant in ["one", "sick", "two"] {
        let context = Context::tenant(tenant);
        run(&factory.breaker_for("jobs", &context), Outcome::Success, 3).await;
        world.store.on_next_swap(Fault::Delay(Duration::from_millis(20)));
    }
    panics.store(true, Ordering::SeqCst);
    let _told_as_lost = factory.flush().await;
    for tenant in ["one", "two"] {
        let shared = other.breaker_for("jobs", &Context::tenant(tenant));
        assert_eq!(information(&shared).await.counts.total, 3, "{tenant}");
    }
}

#[tokio::test(start_paused = true)]
async fn after_the_clock_went_back_what_is_known_is_loaded_again() {
    let world = World::new();
    let breaker = breaker(&factory(bounded(&world)).await);
    run(&breaker, Outcome::Failure, 3).await;
    assert_eq!(refused(&breaker).await.reason(), RefusalReason::Open);
    world.clock.set_ms(crate::world::BEGIN_MS - 1_000);
    let other = world.factory().await;
    other.breaker_for("jobs", &Context::tenant("acme")).reset().await.expect("reset");
    drop(breaker.start().await.expect("it is closed again"));
}
