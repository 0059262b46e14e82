//! Rules of the compare-and-swap itself.

use std::sync::Arc;

use tokio::task::JoinSet;

use super::{Harness, load, lose, present, swap, write};
use crate::store::{Entry, Store, Swapped, Version};

const WRITERS: u64 = 64;
/// Enough for each writer to lose many races, few enough for a store that takes milliseconds.
const INCREMENTS_OF_EACH: u64 = 2;

/// A load after a swap shows its value and version: the empty value is not absence, and every byte is kept.
pub async fn a_write_is_read(harness: &impl Harness) {
    let store = harness.open().await;
    assert_eq!(load(&*store, "circuit").await.entry, None, "a circuit that nobody wrote has no entry");

    let every_byte: Vec<u8> = (0..=u8::MAX).collect();
    let mut expected: Option<Version> = None;
    for value in [b"first".as_slice(), b"", &every_byte, b"{\"json\":1}", b"\r\n$-1\r\n"] {
        let receipt = write(&*store, "circuit", expected.as_ref(), value, None).await;
        let read = load(&*store, "circuit").await.entry;
        let written = Entry { value: value.to_vec(), version: receipt.version.clone() };
        assert_eq!(read, Some(written), "a load after a swap shows what the swap wrote");
        expected = Some(receipt.version);
    }
}

/// 64 kB come back byte for byte, from a load and from a conflict.
pub async fn values_of_64_kb_are_kept(harness: &impl Harness) {
    let store = harness.open().await;
    let value: Vec<u8> = (0..64 * 1024_u32).map(|index| (index.wrapping_mul(31) >> 3) as u8).collect();
    write(&*store, "large", None, &value, None).await;
    let read = present(load(&*store, "large").await, "64 kB were stored");
    assert!(
        read.value == value,
        "a load gave {} other bytes than the 65536 that were stored",
        read.value.len()
    );
    let brought = present(lose(&*store, "large", None).await, "64 kB were stored");
    assert!(brought == read, "a conflict brought another entry than the load");
}

/// What one handle writes the other one sees, replaces, and takes from it.
pub async fn two_handles_share_data(harness: &impl Harness) {
    let (one, other) = (harness.open().await, harness.open().await);
    let first = write(&*one, "shared", None, b"one", None).await;
    let seen = present(load(&*other, "shared").await, "the other handle wrote it");
    assert_eq!(seen, Entry { value: b"one".to_vec(), version: first.version.clone() });

    let second = write(&*other, "shared", Some(&seen.version), b"other", None).await;
    let brought = present(lose(&*one, "shared", Some(&first.version)).await, "the other handle replaced it");
    assert_eq!(brought, Entry { value: b"other".to_vec(), version: second.version });
}

/// A conflict shows the entry as it is, writes nothing, and its version is good for the next swap.
pub async fn a_lost_race_brings_the_entry_that_won(harness: &impl Harness) {
    let store = harness.open().await;
    let never_written = Version::from_bytes(*b"never written!!!");

    let brought = lose(&*store, "race", Some(&never_written)).await;
    assert_eq!(brought.entry, None, "a swap on a version of an absent entry brings the absence");
    assert_eq!(load(&*store, "race").await.entry, None, "a lost race creates no entry");

    let first = write(&*store, "race", None, b"first", None).await;
    let winner = Entry { value: b"first".to_vec(), version: first.version.clone() };
    let foreign =
        [b"".as_slice(), b"\0", &[first.version.as_bytes(), b"x"].concat(), never_written.as_bytes()];
    let wrong = foreign.map(|bytes| Some(Version::from_bytes(bytes)));
    for expected in std::iter::once(None).chain(wrong) {
        let brought = lose(&*store, "race", expected.as_ref()).await;
        assert_eq!(brought.entry.as_ref(), Some(&winner), "a swap on {expected:?} brings the entry that won");
        assert_eq!(load(&*store, "race").await.entry.as_ref(), Some(&winner), "a lost race writes nothing");
    }

    let second = write(&*store, "race", Some(&winner.version), b"second", None).await;
    let brought = present(lose(&*store, "race", Some(&first.version)).await, "it was replaced, not removed");
    assert_eq!(brought, Entry { value: b"second".to_vec(), version: second.version });
    write(&*store, "race", Some(&brought.version), b"third", None).await;
}

/// Of 64 that create an entry at once, exactly one is stored, and the others are brought its entry.
pub async fn of_64_creators_one_wins(harness: &impl Harness) {
    let handles = [harness.open().await, harness.open().await];
    let mut creators = JoinSet::new();
    for (creator, store) in (0..WRITERS).zip(handles.iter().cycle().map(Arc::clone)) {
        creators.spawn(async move { swap(&*store, "new", None, &creator.to_be_bytes(), None).await });
    }
    let (mut stored, mut brought) = (Vec::new(), Vec::new());
    for swapped in creators.join_all().await {
        match swapped {
            Swapped::Stored(receipt) => stored.push(receipt.version),
            Swapped::Conflict(loaded) => brought.push(present(loaded, "somebody else created it").version),
        }
    }
    assert_eq!(stored.len(), 1, "one of 64 swaps that expect no entry is stored");
    assert!(brought.iter().all(|version| *version == stored[0]), "each loser is brought the entry that won");
    let entry = present(load(&*handles[0], "new").await, "somebody created it");
    assert_eq!(entry.version, stored[0]);
}

/// 64 writers on two handles count up one entry; every increment is there at the end, and each was stored once.
pub async fn swap_is_atomic_under_64_concurrent_writers(harness: &impl Harness) {
    let handles = [harness.open().await, harness.open().await];
    let mut writers = JoinSet::new();
    for (_, store) in (0..WRITERS).zip(handles.iter().cycle().map(Arc::clone)) {
        writers.spawn(count_up(store));
    }
    let mut written: Vec<u64> = writers.join_all().await.into_iter().flatten().collect();
    written.sort_unstable();
    let all: Vec<u64> = (1..=WRITERS * INCREMENTS_OF_EACH).collect();
    assert_eq!(written, all, "each count is written once: a gap or a repetition is a lost update");
    let entry = present(load(&*handles[1], "count").await, "it was written");
    assert_eq!(number(&entry.value), WRITERS * INCREMENTS_OF_EACH, "nothing is lost");
}

/// Writes the next number as often as asked, and gives the numbers that it wrote.
async fn count_up(store: Arc<dyn Store>) -> Vec<u64> {
    let mut written = Vec::new();
    let mut known = load(&*store, "count").await.entry;
    for _ in 0..INCREMENTS_OF_EACH {
        loop {
            let next = known.as_ref().map_or(0, |entry| number(&entry.value)) + 1;
            let value = next.to_be_bytes();
            let expected = known.as_ref().map(|entry| &entry.version);
            match swap(&*store, "count", expected, &value, None).await {
                Swapped::Stored(receipt) => {
                    written.push(next);
                    known = Some(Entry { value: value.to_vec(), version: receipt.version });
                    break;
                }
                Swapped::Conflict(loaded) => known = loaded.entry,
            }
        }
    }
    written
}

fn number(value: &[u8]) -> u64 {
    u64::from_be_bytes(value.try_into().unwrap_or_else(|_| panic!("{value:?} is not what a writer stored")))
}
