//! Rules of pushes. A store that does not push, and says so with `None`, passes them all.
//!
//! A push may be lost and a watch may say so at any time; so an announcement is repeated where pushes were missed.

use std::time::Duration;

use futures_util::StreamExt;

use super::names::hostile_names;
use super::{Harness, load, told, write};
use crate::push::{Push, Watch};
use crate::store::Store;

/// A push may be late; a rule waits for one no longer than so before it announces again.
const PATIENCE: Duration = Duration::from_secs(2);
/// A store whose every push is lost does not push.
const ATTEMPTS: usize = 5;

/// An announcement on one handle reaches those who watch on another one, and on its own.
pub async fn an_announcement_reaches_a_watcher_on_another_handle(harness: &impl Harness) {
    let (one, other) = (harness.open().await, harness.open().await);
    let Some(mut here) = begin(&*one).await else { return };
    let Some(mut there) = begin(&*other).await else {
        panic!("of two handles on the same store one pushes and one does not")
    };
    for (announcer, circuit) in [(&one, "a"), (&other, "b"), (&one, "a")] {
        here.hear(&**announcer, circuit).await;
        // It was for all who watch.
        there.hear_again(&**announcer, circuit).await;
    }
}

/// What was not announced is not pushed, though it was read and written.
pub async fn a_watch_of_nothing_announced_yields_nothing(harness: &impl Harness) {
    let (store, other) = (harness.open().await, harness.open().await);
    let Some(mut watch) = begin(&*store).await else { return };
    for store in [&store, &other] {
        load(&**store, "read").await;
    }
    let receipt = write(&*store, "written", None, b"1", None).await;
    write(&*other, "written", Some(&receipt.version), b"2", None).await;
    // Whatever came of it by now comes first.
    watch.hear(&*store, "announced").await;
}

/// A push names the circuit in the very bytes that were announced.
pub async fn a_push_names_the_circuit_as_it_is(harness: &impl Harness) {
    let (store, other) = (harness.open().await, harness.open().await);
    let Some(mut watch) = begin(&*store).await else { return };
    for name in hostile_names() {
        watch.hear(&*other, &name).await;
    }
}

/// Pushes are heard only by those who share entries with whoever announces.
pub async fn pushes_stay_among_those_who_share_entries(harness: &impl Harness) {
    let Some(stranger) = harness.open_apart().await else { return };
    let store = harness.open().await;
    let (Some(mut here), Some(mut there)) = (begin(&*store).await, begin(&*stranger).await) else { return };
    announce(&*stranger, "theirs").await;
    here.hear(&*store, "ours").await;
    there.hear(&*stranger, "theirs").await;
}

/// Dropping a watch ends it, and no other one; the next one works.
pub async fn a_dropped_watch_ends_alone(harness: &impl Harness) {
    let store = harness.open().await;
    let (Some(dropped), Some(mut kept)) = (begin(&*store).await, begin(&*store).await) else { return };
    drop(dropped);
    kept.hear(&*store, "kept").await;
    drop(kept);
    announce(&*store, "nobody watches").await;
    let mut next = begin(&*store).await.unwrap_or_else(|| panic!("a store that pushed pushes no more"));
    next.announced.push("nobody watches".to_owned());
    next.hear(&*store, "next").await;
}

/// A watch, and all that it may tell of: a push may come late or twice.
struct Ear {
    watch: Watch,
    announced: Vec<String>,
}

async fn begin(store: &dyn Store) -> Option<Ear> {
    match store.watch().await {
        Ok(watch) => watch.map(|watch| Ear { watch, announced: Vec::new() }),
        Err(error) => panic!("a watch could not begin: {}", told(&error)),
    }
}

async fn announce(store: &dyn Store, circuit: &str) {
    if let Err(error) = store.announce(circuit).await {
        panic!("an announcement of {circuit:?} failed: {}", told(&error));
    }
}

impl Ear {
    /// Announces, and waits until the watch tells of it; it tells of nothing that was never announced.
    async fn hear(&mut self, announcer: &dyn Store, circuit: &str) {
        announce(announcer, circuit).await;
        self.hear_again(announcer, circuit).await;
    }

    /// The same, where it was announced already; it is announced again where the push may be lost.
    async fn hear_again(&mut self, announcer: &dyn Store, circuit: &str) {
        self.announced.push(circuit.to_owned());
        for _ in 0..ATTEMPTS {
            loop {
                match tokio::time::timeout(PATIENCE, self.watch.next()).await {
                    Ok(Some(Push::Changed(changed))) if changed == circuit => return,
                    Ok(Some(Push::Changed(changed))) => {
                        assert!(
                            self.announced.contains(&changed),
                            "{circuit:?} was announced, and the watch tells of {changed:?}"
                        );
                    }
                    Ok(Some(Push::Missed)) | Err(_) => break,
                    Ok(None) => panic!("the watch has ended while the store is there"),
                }
            }
            announce(announcer, circuit).await;
        }
        panic!("{circuit:?} was announced {ATTEMPTS} times, and the watch does not tell of it");
    }
}
