//! Pushes of the memory store, and what the fault store does to them.

use std::sync::Arc;

use circuitry_store::fault::{Fault, FaultStore, Odds};
use circuitry_store::push::Pushes;
use circuitry_store::{MemoryStore, Push, Store, StoreError, Watch};
use futures_util::{FutureExt, StreamExt};

fn changed(circuit: &str) -> Push {
    Push::Changed(circuit.to_owned())
}

async fn watch(store: &impl Store) -> Watch {
    store.watch().await.expect("it answers").expect("it pushes")
}

/// Everything that has come by now: in one process a push is there when the announcement is answered.
fn so_far(watch: &mut Watch) -> Vec<Push> {
    std::iter::from_fn(|| watch.next().now_or_never().flatten()).collect()
}

#[tokio::test]
async fn an_announcement_reaches_all_who_watch_a_clone_of_the_memory_store() {
    let store = MemoryStore::new();
    store.announce("before").await.expect("nobody watches, which is no error");
    let mut watches =
        [watch(&store).await, watch(&store.clone()).await, watch(&Arc::new(store.clone())).await];
    let stranger = MemoryStore::new();
    let mut elsewhere = watch(&stranger).await;
    Arc::new(store.clone()).announce("a").await.expect("it is taken");
    store.announce("b").await.expect("it is taken");
    for watch in &mut watches {
        assert_eq!(so_far(watch), [changed("a"), changed("b")]);
    }
    assert_eq!(so_far(&mut elsewhere), [], "another store has its own watchers");
}

#[tokio::test]
async fn a_watch_of_the_memory_store_ends_with_its_last_clone() {
    let store = MemoryStore::new();
    let mut watch = watch(&store).await;
    store.announce("last").await.expect("it is taken");
    drop(store);
    assert_eq!(watch.next().await, Some(changed("last")));
    assert_eq!(watch.next().await, None);
    assert_eq!(watch.next().await, None, "also when it is asked again");
}

#[tokio::test]
async fn a_slow_watcher_is_told_that_it_missed_pushes_and_costs_no_memory_without_bound() {
    let store = MemoryStore::new();
    let mut slow = watch(&store).await;
    for number in 0..10_000 {
        store.announce(&format!("{number}")).await.expect("it is taken, however slow the watcher");
    }
    let mut pushes = Vec::new();
    while pushes.last() != Some(&changed("9999")) {
        pushes.push(slow.next().await.expect("the store is there"));
    }
    assert_eq!(pushes.first(), Some(&Push::Missed));
    assert!(pushes.len() <= 257, "{} were kept", pushes.len());
    assert_eq!(pushes.iter().filter(|push| **push == Push::Missed).count(), 1, "it is told once");
    store.announce("after").await.expect("it is taken");
    assert_eq!(so_far(&mut slow), [changed("after")]);
}

#[tokio::test]
async fn a_name_out_of_bounds_is_not_announced() {
    let store = MemoryStore::new();
    let mut watch = watch(&store).await;
    for name in [String::new(), "x".repeat(1025)] {
        assert!(matches!(store.announce(&name).await, Err(StoreError::Other { .. })));
    }
    assert_eq!(so_far(&mut watch), []);
}

#[tokio::test]
async fn a_queue_that_nobody_watches_takes_pushes_and_keeps_none() {
    let pushes = Pushes::new();
    pushes.push(changed("before"));
    drop(pushes.watch());
    pushes.push(changed("between"));
    assert_eq!(so_far(&mut pushes.watch()), []);
}

/// What a store that does not push inherits from the trait.
struct Silent(MemoryStore);

#[async_trait::async_trait]
impl Store for Silent {
    async fn load(&self, circuit: &str) -> Result<circuitry_store::Loaded, StoreError> {
        self.0.load(circuit).await
    }

    async fn swap(
        &self,
        circuit: &str,
        expected: Option<&circuitry_store::Version>,
        value: &[u8],
        ttl: Option<std::time::Duration>,
    ) -> Result<circuitry_store::Swapped, StoreError> {
        self.0.swap(circuit, expected, value, ttl).await
    }
}

#[tokio::test]
async fn a_store_that_does_not_push_says_so_through_every_wrapper() {
    let store = FaultStore::new(Arc::new(Silent(MemoryStore::new())));
    assert!(store.watch().await.expect("it answers").is_none());
    store.announce("circuit").await.expect("it goes nowhere, which is no error");
    assert_eq!(store.announces(), 1);
}

#[tokio::test]
async fn pushes_are_lost_held_and_doubled_in_the_order_of_the_script() {
    let store = FaultStore::new(MemoryStore::new());
    let (mut through, mut past) = (watch(&store).await, watch(store.inner()).await);
    for fault in [Fault::LostPush, Fault::HeldPush, Fault::DoubledPush, Fault::HeldPush] {
        store.on_next_announce(fault);
    }
    for circuit in ["lost", "held 1", "doubled", "held 2", "plain"] {
        store.announce(circuit).await.expect("who announces does not get to know");
    }
    let first = [changed("doubled"), changed("doubled"), changed("plain")];
    assert_eq!(so_far(&mut through), first);
    assert_eq!(so_far(&mut past), first, "they are lost where they are announced, for all watchers alike");
    assert_eq!(store.held_pushes(), 2);

    store.release_pushes().await.expect("the inner store takes them");
    assert_eq!(so_far(&mut through), [changed("held 1"), changed("held 2")]);
    assert_eq!((store.held_pushes(), store.announces()), (0, 5));
    store.release_pushes().await.expect("there is none");
    assert_eq!(so_far(&mut through), []);
}

#[tokio::test]
async fn an_announcement_fails_as_other_operations_do_and_takes_none_of_their_faults() {
    let store = FaultStore::new(MemoryStore::new());
    let mut watch = watch(&store).await;
    store.on_next(Fault::Other);
    store.announce("a").await.expect("the fault is for a load or a swap");
    assert!(store.load("a").await.is_err());
    store.on_next_announce(Fault::Unavailable);
    assert!(matches!(store.announce("b").await, Err(StoreError::Unavailable { .. })));
    store.on_next_announce(Fault::Denied);
    assert!(matches!(store.announce("c").await, Err(StoreError::Denied { .. })));
    store.on_next_announce(Fault::LostAnswer);
    assert!(matches!(store.announce("d").await, Err(StoreError::Unavailable { .. })));
    assert_eq!(so_far(&mut watch), [changed("a"), changed("d")]);

    store.on_next_announce(Fault::Hang);
    let hanging = tokio::spawn({
        let store = store.clone();
        async move { store.announce("e").await }
    });
    store.until_hanging(1).await;
    assert_eq!(so_far(&mut watch), []);
    store.release();
    hanging.await.expect("it does not panic").expect("it is carried out");
    assert_eq!(so_far(&mut watch), [changed("e")]);
}

#[tokio::test]
async fn while_the_store_is_down_no_push_comes_and_when_it_is_up_again_it_says_that_some_were_missed() {
    let shared = MemoryStore::new();
    let (sick, well) = (FaultStore::new(shared.clone()), FaultStore::new(shared.clone()));
    let (mut deaf, mut hears) = (watch(&sick).await, watch(&well).await);
    sick.go_down();
    let mut begun_while_down = watch(&sick).await;
    assert!(matches!(sick.announce("a").await, Err(StoreError::Unavailable { .. })));
    well.announce("b").await.expect("it is up");
    assert_eq!(so_far(&mut deaf), []);
    well.announce("c").await.expect("it is up");
    sick.come_up();
    assert_eq!(so_far(&mut deaf), [Push::Missed], "what came meanwhile is not told late");
    assert_eq!(so_far(&mut begun_while_down), [Push::Missed]);
    assert_eq!(so_far(&mut hears), [changed("b"), changed("c")]);
    sick.come_up();
    sick.announce("d").await.expect("it is up");
    assert_eq!(so_far(&mut deaf), [changed("d")], "it was not down in between");
}

#[tokio::test]
async fn a_watch_through_faults_ends_with_the_inner_store() {
    let shared = MemoryStore::new();
    let store = FaultStore::new(shared.clone());
    let mut watch = watch(&store).await;
    drop(store);
    shared.announce("a").await.expect("it is taken");
    drop(shared);
    assert_eq!(watch.next().await, Some(changed("a")));
    assert_eq!(watch.next().await, None);
}

#[tokio::test]
async fn chance_loses_every_push_if_asked_and_changes_nothing_for_loads_and_swaps() {
    async fn run(announces: bool) -> Vec<bool> {
        let store = FaultStore::new(MemoryStore::new());
        let mut watch = watch(&store).await;
        store.set_odds(Odds { unavailable: 500, lost_push: 1_000, ..Odds::default() }, 7);
        let mut answers = Vec::new();
        for _ in 0..200 {
            answers.push(store.load("circuit").await.is_ok());
            if announces {
                store.announce("circuit").await.expect("it is lost on the way, not refused");
            }
        }
        assert_eq!(so_far(&mut watch), []);
        answers
    }
    assert_eq!(run(true).await, run(false).await);

    let store = FaultStore::new(MemoryStore::new());
    let mut watch = watch(&store).await;
    store.set_odds(Odds { lost_push: 300, held_push: 300, doubled_push: 300, ..Odds::default() }, 3);
    for _ in 0..100 {
        store.announce("circuit").await.expect("it is taken");
    }
    let (told, held) = (so_far(&mut watch).len(), store.held_pushes());
    assert!((10..50).contains(&held), "{held} of 100 are held, not about 30");
    assert!((40..100).contains(&told), "{told} were told, not about 70");
    store.clear();
    assert_eq!(store.held_pushes(), 0, "they are forgotten");
}

#[test]
#[should_panic(expected = "the odds of the pushes add up to 1001 per mille")]
fn odds_of_pushes_above_certainty_are_refused() {
    FaultStore::new(MemoryStore::new())
        .set_odds(Odds { lost_push: 1_000, held_push: 1, ..Odds::default() }, 1);
}
