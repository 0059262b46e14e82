//! The fault store does what it is told, and counts.

use std::time::Duration;

use circuitry_store::fault::{Fault, FaultStore, Odds};
use circuitry_store::{Entry, Loaded, MemoryStore, Store, StoreError, Swapped};
use tokio::time::Instant;

fn store() -> FaultStore<MemoryStore> {
    FaultStore::new(MemoryStore::new())
}

async fn written(store: &FaultStore<MemoryStore>) -> Option<Entry> {
    store.inner().load("circuit").await.expect("the memory store answers").entry
}

async fn create(store: &FaultStore<MemoryStore>) -> Result<Swapped, StoreError> {
    store.swap("circuit", None, b"value", None).await
}

/// One word for an answer, to compare sequences of them.
fn word<T>(answer: &Result<T, StoreError>) -> &'static str {
    match answer {
        Ok(_) => "ok",
        Err(StoreError::Unavailable { .. }) => "unavailable",
        Err(StoreError::Unknown { .. }) => "unknown",
        Err(StoreError::Denied { .. }) => "denied",
        Err(_) => "other",
    }
}

#[tokio::test]
async fn scripted_faults_strike_in_order_the_operations_they_are_for() {
    let store = store();
    store.on_next_swap(Fault::Denied);
    store.on_next(Fault::Unavailable);
    store.on_next_load(Fault::Other);
    // The first load takes the fault that is for any operation, since it comes first.
    assert_eq!(word(&store.load("circuit").await), "unavailable");
    assert_eq!(word(&store.load("circuit").await), "other");
    assert_eq!(word(&create(&store).await), "denied");
    assert_eq!(written(&store).await, None, "none of them reached the inner store");
    assert_eq!(word(&create(&store).await), "ok");
    assert_eq!(word(&store.load("circuit").await), "ok");
}

#[tokio::test]
async fn a_lost_answer_is_unknown_to_a_swap_that_was_stored_and_unavailable_to_a_load() {
    let store = store();
    store.on_next(Fault::LostAnswer);
    assert_eq!(word(&create(&store).await), "unknown");
    assert_eq!(written(&store).await.expect("it was stored").value, b"value");
    store.on_next(Fault::LostAnswer);
    assert_eq!(word(&store.load("circuit").await), "unavailable");
    store.on_next(Fault::LostAnswer);
    assert_eq!(word(&store.load("").await), "other", "an error that came is not lost");
}

#[tokio::test]
async fn a_store_that_is_down_is_unavailable_until_it_comes_up_and_keeps_its_script() {
    let store = store();
    store.on_next(Fault::Denied);
    store.go_down();
    assert_eq!(word(&store.load("circuit").await), "unavailable");
    assert_eq!(word(&create(&store).await), "unavailable");
    assert_eq!(written(&store).await, None);
    store.come_up();
    assert_eq!(word(&create(&store).await), "denied");
    assert_eq!(word(&create(&store).await), "ok");
}

#[tokio::test(start_paused = true)]
async fn a_delay_takes_its_time_and_then_the_operation_is_carried_out() {
    let store = store();
    store.on_next(Fault::Delay(Duration::from_millis(1_500)));
    let begun = Instant::now();
    assert_eq!(word(&create(&store).await), "ok");
    assert_eq!(begun.elapsed(), Duration::from_millis(1_500));
    assert!(written(&store).await.is_some());
}

#[tokio::test]
async fn who_hangs_goes_on_when_released_before_or_after_the_write() {
    let store = store();
    for (fault, is_written_meanwhile) in [(Fault::Hang, false), (Fault::HangAnswer, true)] {
        let store = FaultStore::new(MemoryStore::new());
        store.on_next(fault);
        let hanging = tokio::spawn({
            let store = store.clone();
            async move { word(&create(&store).await) }
        });
        store.until_hanging(1).await;
        assert_eq!(written(&store).await.is_some(), is_written_meanwhile);
        store.release();
        assert_eq!(hanging.await.expect("it does not panic"), "ok");
        assert!(written(&store).await.is_some());
        assert_eq!(store.hanging(), 0);
    }

    store.on_next(Fault::Hang);
    let given_up = tokio::time::timeout(Duration::from_millis(20), create(&store)).await;
    assert!(given_up.is_err(), "without a release it hangs for ever");
    assert_eq!(store.hanging(), 0, "who gave up does not hang");
    assert_eq!(written(&store).await, None);
}

#[tokio::test]
async fn garbage_stands_in_for_the_value_of_a_load_and_of_a_conflict() {
    let store = store();
    store.on_next(Fault::Garbage(b"junk".to_vec()));
    let made_up = store.load("circuit").await.expect("it answers").entry.expect("an entry of garbage");
    assert_eq!(made_up.value, b"junk");

    let Ok(Swapped::Stored(receipt)) = create(&store).await else { panic!("nothing else was written") };
    let spoilt = Entry { value: b"junk".to_vec(), version: receipt.version.clone() };
    store.on_next(Fault::Garbage(b"junk".to_vec()));
    assert_eq!(store.load("circuit").await.expect("it answers").entry, Some(spoilt.clone()));
    store.on_next(Fault::Garbage(b"junk".to_vec()));
    match create(&store).await {
        Ok(Swapped::Conflict(Loaded { entry, .. })) => assert_eq!(entry, Some(spoilt)),
        other => panic!("it conflicts: {other:?}"),
    }
    assert_eq!(written(&store).await.expect("it is there").value, b"value", "the inner store is not touched");
}

#[tokio::test]
async fn every_operation_is_counted_whatever_becomes_of_it_and_clones_count_together() {
    let store = store();
    let clone = store.clone();
    store.on_next_load(Fault::Unavailable);
    store.go_down();
    let _ = store.load("circuit").await;
    store.come_up();
    let _ = clone.load("circuit").await;
    let _ = clone.load("circuit").await;
    let _ = create(&store).await;
    let _ = create(&clone).await;
    assert_eq!((store.loads(), store.swaps()), (3, 2));
    assert_eq!((clone.loads(), clone.swaps()), (3, 2));
    assert!(written(&store).await.is_some());
    assert_eq!(store.loads(), 3, "a look past the faults does not count");
}

#[tokio::test(start_paused = true)]
async fn chance_gives_the_same_faults_for_the_same_seed_and_about_the_odds() {
    async fn run(seed: u64) -> Vec<&'static str> {
        let store = store();
        let odds = Odds {
            unavailable: 100,
            lost_answer: 100,
            denied: 100,
            other: 100,
            delay: 200,
            delay_at_most: Duration::from_millis(50),
            ..Odds::default()
        };
        store.set_odds(odds, seed);
        let mut answers = Vec::new();
        for _ in 0..2_000 {
            answers.push(word(&create(&store).await));
        }
        answers
    }
    let answers = run(7).await;
    assert_eq!(answers, run(7).await);
    assert_ne!(answers, run(8).await);
    for (kind, expected) in
        [("ok", 1_200), ("unavailable", 200), ("unknown", 200), ("denied", 200), ("other", 200)]
    {
        let count = answers.iter().filter(|answer| **answer == kind).count();
        assert!(count.abs_diff(expected) < 80, "{kind}: {count} of 2000, not about {expected}");
    }
}

#[tokio::test]
async fn a_cleared_store_fails_no_more() {
    let store = store();
    store.set_odds(Odds { denied: 1_000, ..Odds::default() }, 1);
    store.on_next(Fault::Other);
    store.clear();
    assert_eq!(word(&create(&store).await), "ok");
}

#[test]
#[should_panic(expected = "add up to 1001 per mille")]
fn odds_above_certainty_are_refused() {
    store().set_odds(Odds { denied: 1_000, other: 1, ..Odds::default() }, 1);
}
