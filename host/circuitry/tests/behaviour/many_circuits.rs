//! A process with more circuits than it has room for.

use std::time::Duration;

use circuitry::{Breaker, Consistency, Context, Factory, Outcome, Quorum, RefusalReason, State};

use crate::world::{World, breaker, factory, information, refused, run};

/// A factory with room for one circuit, in bounded mode by default times.
async fn small(world: &World) -> Factory {
    factory(world.settings_in(Consistency::default()).max_circuits(1)).await
}

/// Uses so many other circuits, and lets go of them.
async fn crowd(factory: &Factory) {
    for tenant in 0..50 {
        let other: Breaker = factory.breaker_for("others", &Context::tenant(format!("{tenant}")));
        run(&other, Outcome::Ignored, 1).await;
    }
}

/// Nobody uses it any more: what looks after it lets it go.
async fn until_nobody_looks_after_it(world: &World) {
    for _ in 0..100 {
        world.clock.advance_ms(5);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_open_circuit_keeps_its_place() {
    let world = World::new();
    let factory = small(&world).await;
    run(&breaker(&factory), Outcome::Failure, 3).await;
    assert_eq!(refused(&breaker(&factory)).await.reason(), RefusalReason::Open);
    factory.flush().await.expect("flushed");
    crowd(&factory).await;
    let before = (world.store.loads(), world.store.swaps());
    assert_eq!(refused(&breaker(&factory)).await.reason(), RefusalReason::Open);
    assert_eq!((world.store.loads(), world.store.swaps()), before, "what it knew is still known");
}

#[tokio::test(start_paused = true)]
async fn outcomes_that_wait_keep_the_place_of_their_circuit() {
    let world = World::new();
    let factory = small(&world).await;
    run(&breaker(&factory), Outcome::Success, 7).await;
    crowd(&factory).await;
    factory.flush().await.expect("flushed");
    let information = information(&breaker(&factory)).await;
    assert_eq!((information.counts.total, information.state), (7, State::Closed));
}

#[tokio::test(start_paused = true)]
async fn a_closed_and_empty_circuit_gives_its_place_up_and_costs_a_load_when_it_comes_back() {
    let world = World::new();
    let factory = small(&world).await;
    run(&breaker(&factory), Outcome::Success, 1).await;
    factory.flush().await.expect("flushed");
    until_nobody_looks_after_it(&world).await;
    crowd(&factory).await;
    let loads = world.store.loads();
    run(&breaker(&factory), Outcome::Ignored, 1).await;
    assert_eq!(world.store.loads(), loads + 1);
}

#[tokio::test(start_paused = true)]
async fn an_open_circuit_gives_its_place_up_when_its_open_time_is_over() {
    let world = World::new();
    let factory = small(&world).await;
    run(&breaker(&factory), Outcome::Failure, 3).await;
    assert_eq!(refused(&breaker(&factory)).await.reason(), RefusalReason::Open);
    factory.flush().await.expect("flushed");
    world.open_time_passes();
    until_nobody_looks_after_it(&world).await;
    crowd(&factory).await;
    let loads = world.store.loads();
    assert!(breaker(&factory).start().await.expect("a permit").is_probe());
    assert_eq!(world.store.loads(), loads + 1);
}

#[tokio::test(start_paused = true)]
async fn with_a_quorum_idle_circuits_give_their_places_up_too() {
    let world = World::new();
    let settings = world.settings_in(Consistency::default()).node_id("a");
    let quorum = Quorum { votes: 2, window: Duration::from_secs(600) };
    let factory = factory(settings.quorum(quorum).max_circuits(1)).await;
    run(&breaker(&factory), Outcome::Failure, 2).await;
    until_nobody_looks_after_it(&world).await;
    crowd(&factory).await;
    run(&breaker(&factory), Outcome::Failure, 2).await;
    drop(breaker(&factory).start().await.expect("what the node had counted for itself is forgotten"));
    run(&breaker(&factory), Outcome::Failure, 1).await;
    assert_eq!(refused(&breaker(&factory)).await.reason(), RefusalReason::NodeOpen);
    crowd(&factory).await;
    assert_eq!(refused(&breaker(&factory)).await.reason(), RefusalReason::NodeOpen, "that is not");
}

#[tokio::test(start_paused = true)]
async fn a_circuit_that_tripped_keeps_its_place_though_nobody_was_refused_yet() {
    let world = World::new();
    let factory = small(&world).await;
    run(&breaker(&factory), Outcome::Failure, 3).await;
    factory.flush().await.expect("flushed");
    until_nobody_looks_after_it(&world).await;
    crowd(&factory).await;
    world.store.go_down();
    assert_eq!(refused(&breaker(&factory)).await.reason(), RefusalReason::Open);
}
