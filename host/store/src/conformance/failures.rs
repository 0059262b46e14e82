//! Rules of failure: what did not happen, what may have happened, and how each is told.

use super::{Harness, load, lose, present, told, write};
use crate::error::StoreError;
use crate::store::{Entry, Store, Version};

/// A store out of reach is [`StoreError::Unavailable`] to load and swap, never an absent entry; the error says why.
pub async fn errors_are_typed(harness: &impl Harness) {
    let store = harness.open_unreachable().await;
    let load = store.load("circuit").await.map(|loaded| format!("{loaded:?}"));
    let swap = store.swap("circuit", None, b"value", None).await.map(|swapped| format!("{swapped:?}"));
    for (operation, answer) in [("load", load), ("swap", swap)] {
        match answer {
            Err(error @ StoreError::Unavailable { .. }) => {
                let StoreError::Unavailable { message, .. } = &error else { unreachable!("just matched") };
                assert!(!message.trim().is_empty(), "a {operation} that finds no store says nothing");
            }
            Err(error) => panic!("a {operation} that finds no store is Unavailable, not: {error:?}"),
            Ok(answer) => panic!("a {operation} finds no store, yet answers {answer}"),
        }
    }
}

/// A swap whose answer is lost is [`StoreError::Unknown`], and the entry is the old one or the new one, nothing else.
pub async fn an_ambiguous_write_is_reported_as_unknown(harness: &impl Harness) {
    let store = harness.open().await;
    lose_answer(harness, "created", None, b"new").await;
    if let Some(entry) = load(&*store, "created").await.entry {
        assert_eq!(entry.value, b"new", "a swap whose answer was lost wrote something else");
    }

    let old = write(&*store, "replaced", None, b"old", None).await;
    lose_answer(harness, "replaced", Some(&old.version), b"new").await;
    let entry = present(load(&*store, "replaced").await, "it was there before");
    match entry.value.as_slice() {
        b"old" => assert_eq!(entry.version, old.version, "the value is the old one, its version is not"),
        b"new" => assert_ne!(entry.version, old.version, "the value is the new one, its version is not"),
        other => panic!("a swap whose answer was lost wrote {other:?}"),
    }

    // It loses like any other swap: what is there stays, and the answer that did not come is no reason to say stored.
    lose_answer(harness, "replaced", Some(&Version::from_bytes(*b"never written!!!")), b"lost race").await;
    assert_eq!(load(&*store, "replaced").await.entry, Some(entry), "a swap on a wrong version wrote");
}

/// Nobody sends an ambiguous write again: once another one has written, it stays written.
pub async fn an_ambiguous_write_is_not_repeated(harness: &impl Harness) {
    let store = harness.open().await;
    for round in 0..3 {
        let circuit = format!("round {round}");
        let lossy = lose_answer(harness, &circuit, None, b"ambiguous").await;
        let seen = load(&*store, &circuit).await.entry;
        let mut last =
            write(&*store, &circuit, seen.as_ref().map(|entry| &entry.version), b"after", None).await;
        // The handle works again, and what it does now brings no second copy of what it did before.
        for value in [b"1", b"2"] {
            let brought = present(lose_or_reconnect(&*lossy, &circuit).await, "it was written after");
            assert_eq!(brought.version, last.version, "the ambiguous write was written a second time");
            last = write(&*lossy, &circuit, Some(&brought.version), value, None).await;
            let entry = present(load(&*store, &circuit).await, "it was written after");
            assert_eq!(entry, Entry { value: value.to_vec(), version: last.version.clone() });
        }
    }
}

/// Swaps on a fresh handle that loses the answer, and gives the handle back.
async fn lose_answer(
    harness: &impl Harness,
    circuit: &str,
    expected: Option<&Version>,
    value: &[u8],
) -> std::sync::Arc<dyn Store> {
    let lossy = harness.open_losing_answer().await;
    match lossy.swap(circuit, expected, value, None).await {
        Err(StoreError::Unknown { .. }) => lossy,
        Err(error) => panic!("a swap whose answer was lost is Unknown, not: {}: {error:?}", told(&error)),
        Ok(swapped) => panic!("the answer to a swap was lost, yet it says {swapped:?}"),
    }
}

/// Swaps on no version until the handle has a connection again: to be unavailable for a moment is no broken rule.
async fn lose_or_reconnect(store: &dyn Store, circuit: &str) -> crate::store::Loaded {
    for _ in 0..100 {
        match store.load(circuit).await {
            Err(StoreError::Unavailable { .. }) => {
                tokio::time::sleep(std::time::Duration::from_millis(50)).await
            }
            Err(error) => panic!("a load after an ambiguous write failed: {}", told(&error)),
            Ok(_) => return lose(store, circuit, None).await,
        }
    }
    panic!("a handle that lost one answer has not worked again for 5 s");
}
