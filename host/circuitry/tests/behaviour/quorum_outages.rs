//! A quorum while the store is away: the shared side is then the outage's local copy.

use circuitry::{Disposition, Outcome, Quorum, RefusalReason, State, StoreFailure};
use circuitry_store::fault::Fault;

use crate::quorum::{node, settings, trip_alone, voters};
use crate::world::{World, breaker, factory, information, refused, run, until};

#[tokio::test(start_paused = true)]
async fn a_node_decides_for_itself_through_an_outage_and_nothing_of_it_is_written() {
    let world = World::new();
    let factory = factory(settings(&world, "a")).await;
    let node = breaker(&factory);
    run(&node, Outcome::Failure, 2).await;
    let before = information(&node).await;
    world.store.go_down();
    run(&node, Outcome::Failure, 1).await;
    assert!(factory.is_store_down());
    assert_eq!(refused(&node).await.reason(), RefusalReason::NodeOpen, "failures of before count too");
    let local = information(&node).await;
    assert_eq!((local.local, local.state, voters(&node).await), (true, State::Closed, vec!["a".to_owned()]));
    world.store.come_up();
    until("the outage is over", || async { !factory.is_store_down() }).await;
    let after = information(&node).await;
    assert_eq!(
        (after.revision, after.votes),
        (before.revision, before.votes),
        "nothing of the local copy is written"
    );
    assert_eq!(refused(&node).await.reason(), RefusalReason::NodeOpen, "its own record goes on");
}

#[tokio::test(start_paused = true)]
async fn a_node_that_suffices_opens_the_local_copy_in_an_outage() {
    let world = World::new();
    let settings = world
        .settings()
        .quorum(Quorum { votes: 1, window: std::time::Duration::from_secs(600) })
        .node_id("a");
    let factory = factory(settings).await;
    let node = breaker(&factory);
    run(&node, Outcome::Success, 1).await;
    world.store.go_down();
    trip_alone(&node).await;
    assert_eq!(refused(&node).await.reason(), RefusalReason::Open);
    let told: Vec<_> = world.changes().into_iter().map(|change| (change.2, change.3)).collect();
    assert_eq!(told, [(State::Open, true), (State::Open, true)], "the node's own record, and the local copy");
    world.store.come_up();
    until("the outage is over", || async { !factory.is_store_down() }).await;
    assert_eq!(information(&node).await.state, State::Closed);
}

#[tokio::test(start_paused = true)]
async fn where_no_local_record_is_kept_the_vote_is_not_cast_and_the_outcome_counts_all_the_same() {
    let world = World::new();
    let factory = factory(settings(&world, "a").store_failure(StoreFailure::Admit)).await;
    let node = breaker(&factory);
    run(&node, Outcome::Failure, 2).await;
    let permit = node.start().await.expect("a permit");
    world.store.go_down();
    let settled = permit.end(Outcome::Failure).await.expect("settled");
    assert_eq!((settled.disposition, settled.local), (Disposition::Accepted, true));
    world.store.come_up();
    until("the outage is over", || async { !factory.is_store_down() }).await;
    assert!(voters(&node).await.is_empty());
    assert_eq!(refused(&node).await.reason(), RefusalReason::NodeOpen);
}

#[tokio::test(start_paused = true)]
async fn a_vote_that_may_have_been_cast_before_an_outage_counts_once_after_it_and_is_told() {
    for cast in [true, false] {
        let world = World::new();
        let one = node(&world, "a").await;
        trip_alone(&one).await;
        let factory = factory(settings(&world, "b")).await;
        let two = breaker(&factory);
        run(&two, Outcome::Failure, 2).await;
        let permit = two.start().await.expect("a permit");
        world.store.on_next_swap(if cast { Fault::HangAnswer } else { Fault::Hang });
        let ending = tokio::spawn(permit.end(Outcome::Failure));
        world.store.until_hanging(1).await;
        world.store.go_down();
        let settled = ending.await.expect("no panic").expect("settled");
        assert_eq!((settled.disposition, settled.local), (Disposition::Accepted, true));
        world.store.come_up();
        until("the outage is over", || async { !factory.is_store_down() }).await;
        until("the vote is counted", || async { information(&one).await.state == State::Open }).await;
        assert_eq!(information(&one).await.last_trip.expect("a trip").observed, 2);
        until("it is told", || async { !world.shared_changes().is_empty() }).await;
        assert_eq!(world.shared_changes(), [State::Open]);
    }
}

#[tokio::test(start_paused = true)]
async fn an_end_that_votes_waits_no_longer_than_the_stores_timeout() {
    let world = World::new();
    let node = node(&world, "a").await;
    run(&node, Outcome::Failure, 2).await;
    let permit = node.start().await.expect("a permit");
    for _ in 0..100 {
        world.store.on_next(Fault::Hang);
    }
    let begun = tokio::time::Instant::now();
    let settled = permit.end(Outcome::Failure).await.expect("settled");
    assert!(begun.elapsed() <= std::time::Duration::from_millis(500), "{:?}", begun.elapsed());
    assert_eq!((settled.disposition, settled.local), (Disposition::Accepted, true));
}
