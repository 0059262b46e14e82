//! The store goes away and comes back.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use circuitry::{
    Disposition, MemoryStore, Outcome, Override, OverrideKind, RefusalReason, Settings, State, Store,
    StoreError, StoreFailure,
};
use circuitry_store::fault::Fault;
use circuitry_store::{Loaded, Swapped, Version};

use crate::log::Log;
use crate::world::{World, breaker, factory, refused, run, trip, until};

/// How many events said that the store went down, and how many that it came back.
fn seen(log: &Log) -> (usize, usize) {
    (log.count("the store is down"), log.count("the store answers again"))
}

#[tokio::test(start_paused = true)]
async fn entering_and_leaving_an_outage_is_one_event_each() {
    let (log, _guard) = Log::watch();
    let world = World::new();
    let factory = world.factory().await;
    let breaker = breaker(&factory);
    run(&breaker, Outcome::Success, 1).await;
    world.store.go_down();
    run(&breaker, Outcome::Success, 100).await;
    assert_eq!(seen(&log), (1, 0));
    world.store.come_up();
    until("the outage is over", || async { !factory.is_store_down() }).await;
    assert_eq!(seen(&log), (1, 1));
    assert_eq!(log.len(), 2, "nothing else is logged");
}

#[tokio::test(start_paused = true)]
async fn a_refused_call_is_no_event() {
    let (log, _guard) = Log::watch();
    let world = World::new();
    let breaker = breaker(&world.factory().await);
    trip(&breaker).await;
    let before = log.len();
    for _ in 0..100 {
        breaker.start().await.expect_err("open");
    }
    assert_eq!(log.len(), before);
}

#[tokio::test(start_paused = true)]
async fn no_call_waits_longer_than_the_stores_timeout_and_only_the_first_waits() {
    let world = World::new();
    let timeout = Duration::from_millis(500);
    let breaker = breaker(&factory(world.settings().store_timeout(timeout)).await);
    run(&breaker, Outcome::Success, 1).await;
    for _ in 0..100 {
        world.store.on_next(Fault::Hang);
    }
    let begun = tokio::time::Instant::now();
    let permit = breaker.start().await.expect("the local record admits");
    assert!(begun.elapsed() <= timeout, "{:?}", begun.elapsed());
    let begun = tokio::time::Instant::now();
    permit.end(Outcome::Success).await.expect("settled");
    run(&breaker, Outcome::Success, 50).await;
    assert_eq!(begun.elapsed(), Duration::ZERO, "calls in an outage do not ask the store");
}

#[tokio::test(start_paused = true)]
async fn an_end_waits_no_longer_than_the_stores_timeout() {
    let world = World::new();
    let timeout = Duration::from_millis(500);
    let breaker = breaker(&factory(world.settings().store_timeout(timeout)).await);
    let permit = breaker.start().await.expect("a permit");
    for _ in 0..100 {
        world.store.on_next(Fault::Hang);
    }
    let begun = tokio::time::Instant::now();
    let settled = permit.end(Outcome::Success).await.expect("settled");
    assert!(begun.elapsed() <= timeout, "{:?}", begun.elapsed());
    assert_eq!((settled.disposition, settled.local), (Disposition::Accepted, true));
}

#[tokio::test(start_paused = true)]
async fn the_local_record_protects_during_an_outage_and_is_dropped_after_it() {
    let world = World::new();
    let factory = world.factory().await;
    let breaker = breaker(&factory);
    run(&breaker, Outcome::Success, 4).await;
    let before = breaker.information().await.expect("information");
    world.store.go_down();
    run(&breaker, Outcome::Failure, 3).await;
    assert_eq!(refused(&breaker).await.reason(), RefusalReason::Open);
    let local = breaker.information().await.expect("information");
    assert!(local.local && local.state == State::Open);
    let name = "jobs/acme".to_owned();
    assert_eq!(world.changes(), [(name, State::Closed, State::Open, true)]);
    world.store.come_up();
    until("the outage is over", || async { !factory.is_store_down() }).await;
    let after = breaker.information().await.expect("information");
    assert_eq!(after, before, "nothing of the local record is written");
}

#[tokio::test(start_paused = true)]
async fn an_open_circuit_stays_open_in_an_outage() {
    let world = World::new();
    let breaker = breaker(&world.factory().await);
    trip(&breaker).await;
    world.store.go_down();
    assert_eq!(refused(&breaker).await.reason(), RefusalReason::Open);
    world.open_time_passes();
    assert!(breaker.start().await.expect("a local probe").is_probe());
}

#[tokio::test(start_paused = true)]
async fn an_override_stays_in_an_outage() {
    let world = World::new();
    let breaker = breaker(&world.factory().await);
    let forced = Override {
        kind: OverrideKind::ForcedOpen,
        author: "ann".into(),
        reason: "the provider asked".into(),
        until_ms: None,
    };
    assert_eq!(breaker.set_override(Some(forced.clone())).await.expect("stored"), None);
    breaker.start().await.expect_err("forced open");
    world.store.go_down();
    assert_eq!(refused(&breaker).await.reason(), RefusalReason::ForcedOpen);
    assert_eq!(breaker.information().await.expect("information").override_in_force, Some(forced));
}

#[tokio::test(start_paused = true)]
async fn an_override_that_cannot_be_stored_is_an_error_and_does_not_resurface() {
    let world = World::new();
    let factory = world.factory().await;
    let breaker = breaker(&factory);
    world.store.go_down();
    let forced = Override {
        kind: OverrideKind::ForcedOpen,
        author: "ann".into(),
        reason: "too late".into(),
        until_ms: None,
    };
    let error = breaker.set_override(Some(forced)).await.expect_err("not stored");
    assert!(error.to_string().contains("unavailable"), "{error}");
    drop(breaker.start().await.expect("it is forced nowhere"));
    world.store.come_up();
    until("the outage is over", || async { !factory.is_store_down() }).await;
    assert_eq!(breaker.information().await.expect("information").override_in_force, None);
}

#[tokio::test(start_paused = true)]
async fn an_outage_is_not_read_as_a_fresh_closed_circuit() {
    let world = World::new();
    let (one, other) = (breaker(&world.factory().await), breaker(&world.factory().await));
    drop(one.start().await.expect("a permit"));
    trip(&other).await;
    // Seen before the outage: this process knows that the circuit is open.
    one.start().await.expect_err("open");
    world.store.go_down();
    for _ in 0..10 {
        one.start().await.expect_err("still open");
    }
}

#[tokio::test(start_paused = true)]
async fn a_permit_of_before_the_outage_settles_on_the_local_record_and_one_of_the_outage_on_the_shared() {
    let world = World::new();
    let factory = world.factory().await;
    let breaker = breaker(&factory);
    let shared = breaker.start().await.expect("a permit");
    world.store.go_down();
    let local = breaker.start().await.expect("a local permit of the same era");
    let settled = shared.end(Outcome::Success).await.expect("settled");
    assert_eq!((settled.disposition, settled.local), (Disposition::Accepted, true));
    world.store.come_up();
    until("the outage is over", || async { !factory.is_store_down() }).await;
    let settled = local.end(Outcome::Success).await.expect("settled");
    assert_eq!((settled.disposition, settled.local), (Disposition::Accepted, false));
    assert_eq!(breaker.information().await.expect("information").counts.total, 1);
}

#[tokio::test(start_paused = true)]
async fn an_outcome_of_a_local_era_is_stale_on_the_shared_record() {
    let world = World::new();
    let factory = world.factory().await;
    let breaker = breaker(&factory);
    run(&breaker, Outcome::Success, 1).await;
    world.store.go_down();
    run(&breaker, Outcome::Failure, 3).await;
    world.open_time_passes();
    let probe = breaker.start().await.expect("a local probe");
    world.store.come_up();
    until("the outage is over", || async { !factory.is_store_down() }).await;
    let settled = probe.end(Outcome::Failure).await.expect("settled");
    assert_eq!((settled.disposition, settled.local), (Disposition::Stale, false));
    assert_eq!(breaker.state().await.expect("a state"), State::Closed);
}

#[tokio::test(start_paused = true)]
async fn the_policy_admit_admits_and_counts_nothing() {
    let world = World::new();
    let breaker = breaker(&factory(world.settings().store_failure(StoreFailure::Admit)).await);
    trip(&breaker).await;
    world.store.go_down();
    let permit = breaker.start().await.expect("admitted");
    assert_eq!(permit.era(), None);
    let settled = permit.end(Outcome::Failure).await.expect("settled");
    assert_eq!(settled.disposition, Disposition::Uncounted);
}

#[tokio::test(start_paused = true)]
async fn the_policy_refuse_refuses() {
    let world = World::new();
    let breaker = breaker(&factory(world.settings().store_failure(StoreFailure::Refuse)).await);
    run(&breaker, Outcome::Success, 1).await;
    world.store.go_down();
    assert_eq!(refused(&breaker).await.reason(), RefusalReason::StoreDown);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_denies_takes_the_store_failure_way_too() {
    let world = World::new();
    let factory = world.factory().await;
    let breaker = breaker(&factory);
    run(&breaker, Outcome::Success, 1).await;
    for _ in 0..3 {
        world.store.on_next(Fault::Denied);
    }
    drop(breaker.start().await.expect("the local record admits"));
    assert!(factory.is_store_down());
}

#[tokio::test(start_paused = true)]
async fn a_failure_that_passes_within_the_timeout_is_no_outage() {
    let world = World::new();
    let factory = world.factory().await;
    let breaker = breaker(&factory);
    run(&breaker, Outcome::Success, 1).await;
    world.store.on_next(Fault::Unavailable);
    let permit = breaker.start().await.expect("a permit");
    world.store.on_next(Fault::LostAnswer);
    let settled = permit.end(Outcome::Success).await.expect("settled");
    assert_eq!((settled.disposition, settled.local), (Disposition::Accepted, false));
    assert!(!factory.is_store_down());
    assert_eq!(breaker.information().await.expect("information").counts.total, 2, "counted once");
}

#[tokio::test(start_paused = true)]
async fn a_write_that_may_have_happened_before_an_outage_is_counted_once_after_it() {
    for happened in [true, false] {
        let world = World::new();
        let factory = world.factory().await;
        let breaker = breaker(&factory);
        let permit = breaker.start().await.expect("a permit");
        world.store.on_next_swap(if happened { Fault::HangAnswer } else { Fault::Hang });
        let ending = tokio::spawn(permit.end(Outcome::Success));
        until("the swap was sent", || async { world.store.swaps() >= 2 }).await;
        world.store.go_down();
        let settled = ending.await.expect("no panic").expect("settled");
        assert!(settled.local);
        world.store.come_up();
        until("the outcome is counted", || async {
            breaker.information().await.expect("information").counts.total == 1
        })
        .await;
        run(&breaker, Outcome::Success, 1).await;
        assert_eq!(breaker.information().await.expect("information").counts.total, 2);
    }
}

/// A store that may stop writing, as a replica or a full disk does, or panic.
struct Sick {
    store: MemoryStore,
    read_only: AtomicBool,
    panics: AtomicBool,
}

#[async_trait::async_trait]
impl Store for Sick {
    async fn load(&self, circuit: &str) -> Result<Loaded, StoreError> {
        assert!(!self.panics.load(Ordering::SeqCst), "the store panics");
        self.store.load(circuit).await
    }

    async fn swap(
        &self,
        circuit: &str,
        expected: Option<&Version>,
        value: &[u8],
        ttl: Option<Duration>,
    ) -> Result<Swapped, StoreError> {
        if self.read_only.load(Ordering::SeqCst) {
            return Err(StoreError::Unavailable { message: "it does not write".into(), source: None });
        }
        self.store.swap(circuit, expected, value, ttl).await
    }
}

fn sick() -> Arc<Sick> {
    let (read_only, panics) = (AtomicBool::new(false), AtomicBool::new(false));
    Arc::new(Sick { store: MemoryStore::new(), read_only, panics })
}

#[tokio::test(start_paused = true)]
async fn a_store_that_reads_but_does_not_write_is_down_until_it_writes() {
    let (log, _guard) = Log::watch();
    let store = sick();
    let settings = Settings::builder()
        .consistency(circuitry::Consistency::Strict)
        .store(store.clone())
        .failure_count_threshold(2);
    let factory = factory(settings).await;
    let breaker = breaker(&factory);
    run(&breaker, Outcome::Success, 1).await;
    store.read_only.store(true, Ordering::SeqCst);
    let mut admitted = 0;
    for _ in 0..30 {
        if let Ok(permit) = breaker.start().await {
            admitted += 1;
            permit.end(Outcome::Failure).await.expect("settled");
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    assert_eq!(admitted, 3, "the local record protects for as long as the store does not write");
    assert_eq!(seen(&log), (1, 0));
    store.read_only.store(false, Ordering::SeqCst);
    until("the outage is over", || async { !factory.is_store_down() }).await;
    assert_eq!(seen(&log), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_store_that_panics_while_it_is_down_does_not_keep_the_outage_for_ever() {
    let store = sick();
    let factory =
        factory(Settings::builder().consistency(circuitry::Consistency::Strict).store(store.clone())).await;
    let breaker = breaker(&factory);
    run(&breaker, Outcome::Success, 1).await;
    store.read_only.store(true, Ordering::SeqCst);
    run(&breaker, Outcome::Success, 1).await;
    assert!(factory.is_store_down());
    store.panics.store(true, Ordering::SeqCst);
    tokio::time::sleep(Duration::from_secs(10)).await;
    store.panics.store(false, Ordering::SeqCst);
    store.read_only.store(false, Ordering::SeqCst);
    until("the outage is over", || async { !factory.is_store_down() }).await;
}

#[tokio::test(start_paused = true)]
async fn a_start_whose_answer_was_lost_in_an_outage_is_announced_and_gives_its_place_back() {
    let world = World::new();
    let factory = world.factory().await;
    let breaker = breaker(&factory);
    trip(&breaker).await;
    world.open_time_passes();
    world.store.on_next_swap(Fault::HangAnswer);
    let starting = tokio::spawn({
        let breaker = breaker.clone();
        async move { breaker.start().await.map(drop) }
    });
    world.store.until_hanging(1).await;
    world.store.go_down();
    starting.await.expect("no panic").expect("a local probe");
    world.store.come_up();
    until("the outage is over", || async { !factory.is_store_down() }).await;
    until("the place is given back", || async {
        let information = breaker.information().await.expect("information");
        information.state == State::HalfOpen && information.probes.is_empty()
    })
    .await;
    let shared: Vec<_> =
        world.changes().into_iter().filter(|change| !change.3).map(|change| change.2).collect();
    assert_eq!(shared, [State::Open, State::HalfOpen], "each once");
}

/// A store of which one part writes and another does not, as in a cluster.
struct HalfSick {
    store: MemoryStore,
}

#[async_trait::async_trait]
impl Store for HalfSick {
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
        if circuit == "jobs/acme" && expected.is_some() {
            return Err(StoreError::Unavailable { message: "its shard does not write".into(), source: None });
        }
        self.store.swap(circuit, expected, value, ttl).await
    }
}

#[tokio::test(start_paused = true)]
async fn an_outage_that_goes_on_where_one_has_ended_keeps_its_local_records() {
    let store = HalfSick { store: MemoryStore::new() };
    let factory = factory(
        Settings::builder()
            .consistency(circuitry::Consistency::Strict)
            .store(store)
            .failure_count_threshold(2),
    )
    .await;
    let breaker = breaker(&factory);
    let mut refused = 0;
    for _ in 0..100 {
        match breaker.start().await {
            Ok(permit) => {
                permit.end(Outcome::Failure).await.expect("settled");
            }
            Err(_) => refused += 1,
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(
        refused > 50,
        "the local record trips although the outage comes and goes: {refused} of 100 refused"
    );
}

#[tokio::test(start_paused = true)]
async fn many_who_meet_the_beginning_of_an_outage_get_no_more_probes_than_one_record_has() {
    let world = World::new();
    let settings = world.settings_to_close_after(1).store_timeout(Duration::from_millis(500));
    let factory = factory(settings).await;
    let breaker = breaker(&factory);
    trip(&breaker).await;
    let changes = world.changes().len();
    world.open_time_passes();
    for _ in 0..1_000 {
        world.store.on_next(Fault::Hang);
    }
    let starts: Vec<_> = (0..100)
        .map(|_| {
            let breaker = breaker.clone();
            tokio::spawn(async move { breaker.start().await })
        })
        .collect();
    let mut permits = Vec::new();
    for start in starts {
        permits.extend(start.await.expect("no panic").ok());
    }
    assert_eq!(permits.len(), 1, "the local record has one place");
    assert_eq!(world.changes().len(), changes + 1, "and it went half-open once");
}

#[tokio::test(start_paused = true)]
async fn in_an_outage_no_more_local_records_are_kept_than_circuits_are_remembered() {
    let world = World::new();
    let factory = factory(world.settings().max_circuits(3)).await;
    world.store.go_down();
    let tenants: Vec<_> = (0..5).map(|tenant| format!("{tenant}")).collect();
    let mut told = Vec::new();
    for tenant in &tenants {
        let breaker = factory.breaker_for("jobs", &circuitry::Context::tenant(tenant));
        run(&breaker, Outcome::Failure, 2).await;
        let settled = breaker.start().await.expect("a permit").end(Outcome::Failure).await.expect("settled");
        told.push((settled.disposition, breaker.start().await.is_err()));
    }
    assert_eq!(told[..3], [(Disposition::Accepted, true); 3]);
    assert_eq!(
        told[3..],
        [(Disposition::Uncounted, false); 2],
        "what has no record goes by what was seen last"
    );
}

#[tokio::test(start_paused = true)]
async fn what_waits_for_the_store_when_its_factory_is_dropped_is_told_to_be_lost() {
    let (log, _guard) = Log::watch();
    let world = World::new();
    let factory = world.factory().await;
    let breaker = breaker(&factory);
    let permit = breaker.start().await.expect("a permit");
    for _ in 0..3 {
        world.store.on_next_swap(Fault::LostAnswer);
    }
    for _ in 0..6 {
        world.store.on_next_load(Fault::Unavailable);
    }
    world.store.go_down();
    world.store.come_up();
    permit.end(Outcome::Failure).await.expect("settled locally");
    assert!(factory.is_store_down());
    drop((factory, breaker));
    until("the last task has let go", || async { log.count("outcomes are lost") == 1 }).await;
}
