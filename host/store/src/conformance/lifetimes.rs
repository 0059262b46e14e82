//! Rules of time to live, of versions over an entry's life, and of the time that a store tells.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use super::{Harness, load, lose, present, swap, write};
use crate::store::{Entry, Swapped, Version};

/// Short, since a store with its own clock makes the suite wait for it.
const SHORT_MS: u64 = 200;
/// What a slow machine gets at first for an entry that must still be there.
const LIFE_MS: u64 = 1_000;
/// An entry that lives an hour outlives every rule.
const LONG: Duration = Duration::from_secs(3_600);

/// Waits until an entry that was just written to live for `ttl_ms` must be gone.
async fn outwait(harness: &impl Harness, ttl_ms: u64) {
    harness.wait_ms(ttl_ms + harness.grain_ms()).await;
}

/// An entry is there for all of its time to live, and absent after it; without one it stays.
pub async fn an_entry_lives_as_long_as_its_time_to_live_and_no_longer(harness: &impl Harness) {
    let store = harness.open().await;
    write(&*store, "for ever", None, b"kept", None).await;
    // A machine that pauses for longer than the entry lives proves nothing, so it gets more time on the next round.
    for (round, ttl_ms) in [LIFE_MS, 4 * LIFE_MS, 16 * LIFE_MS].into_iter().enumerate() {
        let circuit = format!("round {round}");
        let begun = Instant::now();
        write(&*store, &circuit, None, b"mortal", Some(Duration::from_millis(ttl_ms))).await;
        harness.wait_ms(ttl_ms / 2).await;
        let halfway = load(&*store, &circuit).await.entry;
        let paused = begun.elapsed() >= Duration::from_millis(ttl_ms);
        if halfway.is_none() && paused {
            continue;
        }
        assert!(halfway.is_some(), "an entry with {ttl_ms} ms to live was gone after half of them");
        outwait(harness, ttl_ms - ttl_ms / 2).await;
        assert_eq!(load(&*store, &circuit).await.entry, None, "an entry outlived its {ttl_ms} ms");
        assert!(load(&*store, "for ever").await.entry.is_some(), "an entry without time to live is gone");
        return;
    }
    panic!("this machine pauses for seconds at a time: no round could show how long an entry lives");
}

/// To a swap, too, an expired entry is no entry, whether or not a load has seen that it is over.
pub async fn an_expired_entry_is_absent_for_load_and_swap_alike(harness: &impl Harness) {
    let store = harness.open().await;
    let ttl = Some(Duration::from_millis(SHORT_MS));
    let loaded_first = write(&*store, "loaded first", None, b"old", ttl).await;
    let swapped_first = write(&*store, "swapped first", None, b"old", ttl).await;
    write(&*store, "created first", None, b"old", ttl).await;
    outwait(harness, SHORT_MS).await;

    assert_eq!(load(&*store, "loaded first").await.entry, None, "a load sees an expired entry");
    for (circuit, old) in [("loaded first", loaded_first.version), ("swapped first", swapped_first.version)] {
        let brought = lose(&*store, circuit, Some(&old)).await;
        assert_eq!(brought.entry, None, "a conflict brings an expired entry");
        write(&*store, circuit, None, b"new", None).await;
        let brought = present(lose(&*store, circuit, Some(&old)).await, "it was created again");
        assert_eq!(brought.value, b"new", "the version of an expired entry is good for nothing");
    }
    let created = write(&*store, "created first", None, b"new", None).await;
    let read = present(load(&*store, "created first").await, "it was created again");
    assert_eq!(read, Entry { value: b"new".to_vec(), version: created.version });
}

/// A swap's time to live takes the place of the one before: a longer, a shorter, or none.
pub async fn a_write_sets_the_time_to_live_anew(harness: &impl Harness) {
    let store = harness.open().await;
    let short = Some(Duration::from_millis(LIFE_MS));
    let changes = [
        ("longer", short, Some(LONG), true),
        ("none any more", short, None, true),
        ("shorter", Some(LONG), short, false),
        ("one at last", None, short, false),
    ];
    for (circuit, before, after, _) in changes {
        // Whoever pauses between these two finds the first entry expired, and writes it anew: that is a write as well.
        let first = write(&*store, circuit, None, b"first", before).await;
        if let Swapped::Conflict(brought) =
            swap(&*store, circuit, Some(&first.version), b"second", after).await
        {
            assert_eq!(brought.entry, None, "nobody else writes {circuit:?}");
            write(&*store, circuit, None, b"second", after).await;
        }
    }
    outwait(harness, LIFE_MS).await;
    for (circuit, before, after, is_kept) in changes {
        let entry = load(&*store, circuit).await.entry;
        assert_eq!(entry.is_some(), is_kept, "{circuit}: from {before:?} to {after:?}, after {LIFE_MS} ms");
    }
}

/// A swap that was not stored leaves the entry's time to live as it is, neither longer nor without end.
pub async fn a_lost_race_changes_no_time_to_live(harness: &impl Harness) {
    let store = harness.open().await;
    let ttl = Some(Duration::from_millis(LIFE_MS));
    let not_its = Version::from_bytes(*b"not its version!");
    for (circuit, losing_ttl) in [("longer", Some(LONG)), ("none", None)] {
        write(&*store, circuit, None, b"mortal", ttl).await;
        let swapped = swap(&*store, circuit, Some(&not_its), b"never stored", losing_ttl).await;
        assert!(matches!(swapped, Swapped::Conflict(_)), "a swap on a version that never was is stored");
    }
    outwait(harness, LIFE_MS).await;
    for circuit in ["longer", "none"] {
        assert_eq!(
            load(&*store, circuit).await.entry,
            None,
            "a lost race with {circuit} kept the entry alive"
        );
    }
}

/// The shortest time to live ends, and the longest does not overflow.
pub async fn a_time_to_live_of_any_length_is_taken(harness: &impl Harness) {
    let store = harness.open().await;
    for (circuit, ttl) in [("nothing", Duration::ZERO), ("a nanosecond", Duration::from_nanos(1))] {
        write(&*store, circuit, None, b"mortal", Some(ttl)).await;
    }
    let endless =
        [Duration::MAX, Duration::from_millis(u64::MAX), Duration::from_millis(i64::MAX.unsigned_abs())];
    for (index, ttl) in endless.into_iter().enumerate() {
        let circuit = format!("endless {index}");
        write(&*store, &circuit, None, b"kept", Some(ttl)).await;
        assert!(
            load(&*store, &circuit).await.entry.is_some(),
            "an entry that lives for {ttl:?} is gone at once"
        );
    }
    outwait(harness, 1).await;
    for circuit in ["nothing", "a nanosecond"] {
        assert_eq!(load(&*store, circuit).await.entry, None, "an entry outlived {circuit}");
    }
}

/// No version comes twice for a circuit, not for equal values, nor after expiry and re-creation.
pub async fn versions_never_repeat(harness: &impl Harness) {
    let store = harness.open().await;
    let mut seen = HashSet::new();
    let ttl = Duration::from_millis(SHORT_MS);
    for life in 0..3 {
        let mut expected = None;
        for write_of_life in 0..20 {
            // Only the last write of a life is mortal, so that a pause of the machine does not end it early.
            let ttl = (write_of_life == 19).then_some(ttl);
            let receipt = write(&*store, "again", expected.as_ref(), b"the same", ttl).await;
            assert!(seen.insert(receipt.version.clone()), "{:?} came twice, in life {life}", receipt.version);
            expected = Some(receipt.version);
        }
        outwait(harness, SHORT_MS).await;
    }
    let other = write(&*store, "another", None, b"the same", None).await;
    assert!(seen.insert(other.version), "two circuits have had the same version");
}

/// Where a store tells its time, it is in milliseconds, goes on, and the same for loads, receipts and conflicts.
pub async fn a_told_time_goes_on_in_milliseconds(harness: &impl Harness) {
    const WAIT_MS: u64 = 1_200;
    /// Between two answers; wide, so that a paused machine is no broken rule.
    const AT_MOST_MS: u64 = 60_000;

    let store = harness.open().await;
    let mut told = Vec::new();
    let mut expected = None;
    for round in 0..2 {
        told.push(load(&*store, "time").await.now_ms);
        let receipt = write(&*store, "time", expected.as_ref(), b"tick", None).await;
        told.push(receipt.now_ms);
        told.push(lose(&*store, "time", None).await.now_ms);
        expected = Some(receipt.version);
        if round == 0 {
            harness.wait_ms(WAIT_MS).await;
        }
    }
    let told: Vec<u64> = told.into_iter().flatten().collect();
    for pair in told.windows(2) {
        let step_ms = pair[1].checked_sub(pair[0]);
        let step_ms =
            step_ms.unwrap_or_else(|| panic!("the store's time went from {} back to {}", pair[0], pair[1]));
        assert!(step_ms <= AT_MOST_MS, "the store's time leapt from {} to {}", pair[0], pair[1]);
    }
    if let [first, .., last] = told[..] {
        // A second's grain may hide a part of the wait, but not most of it.
        assert!(last - first >= WAIT_MS / 6, "{WAIT_MS} ms took the store's time from {first} to {last}");
    }
}
