//! Bounded mode: what is flushed, when the store answers and when it does not.

use std::time::Duration;

use circuitry::{Outcome, RefusalReason, StoreFailure};
use circuitry_store::fault::Fault;

use crate::bounded::{bounded, execute, totals};
use crate::log::Log;
use crate::world::{World, breaker, factory, refused, run, until};

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
