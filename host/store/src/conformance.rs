//! The suite that every store passes. It runs on yours too, in two steps.
//!
//! 1. Implement [`Harness`]: how the suite opens your store, lets its time pass, and makes it fail.
//! 2. Write [`conformance_tests!`](crate::conformance_tests) with an expression that makes a harness. It becomes one
//!    test for each rule.
//!
//! A store that does not push passes the rules of pushes.
//!
//! A rule is a function of a harness that panics with a message when the rule is broken. [`LossyProxy`] stands between
//! a client and a server that speaks TCP and loses answers, which no server does by itself when a test wants it to.
//!
//! The suite needs `circuitry-store` with the feature `conformance` and `tokio` with the features `macros` and
//! `rt-multi-thread` among your dev-dependencies.
//!
//! # Example
//! ```
//! use std::sync::Arc;
//!
//! use circuitry_store::conformance::{Harness, conformance_tests};
//! use circuitry_store::fault::{Fault, FaultStore};
//! use circuitry_store::{ManualClock, MemoryStore, Store};
//!
//! struct MemoryHarness {
//!     clock: ManualClock,
//!     store: MemoryStore,
//! }
//!
//! #[async_trait::async_trait]
//! impl Harness for MemoryHarness {
//!     async fn open(&self) -> Arc<dyn Store> {
//!         Arc::new(self.store.clone())
//!     }
//!
//!     async fn wait_ms(&self, ms: u64) {
//!         self.clock.advance_ms(ms);
//!     }
//!
//!     async fn open_unreachable(&self) -> Arc<dyn Store> {
//!         let store = FaultStore::new(self.store.clone());
//!         store.go_down();
//!         Arc::new(store)
//!     }
//!
//!     async fn open_losing_answer(&self) -> Arc<dyn Store> {
//!         let store = FaultStore::new(self.store.clone());
//!         store.on_next_swap(Fault::LostAnswer);
//!         Arc::new(store)
//!     }
//! }
//!
//! async fn memory() -> MemoryHarness {
//!     let clock = ManualClock::at_ms(1_000);
//!     MemoryHarness { store: MemoryStore::with_clock(clock.clone()), clock }
//! }
//!
//! conformance_tests!(memory().await);
//! ```

mod failures;
mod lifetimes;
mod lossy_proxy;
mod names;
mod pushes;
mod swaps;

use std::sync::Arc;
use std::time::Duration;

use crate::store::{Entry, Loaded, Receipt, Store, Swapped, Version};

pub use crate::conformance_tests;
pub use failures::{
    an_ambiguous_write_is_not_repeated, an_ambiguous_write_is_reported_as_unknown, errors_are_typed,
};
pub use lifetimes::{
    a_lost_race_changes_no_time_to_live, a_time_to_live_of_any_length_is_taken,
    a_told_time_goes_on_in_milliseconds, a_write_sets_the_time_to_live_anew,
    an_entry_lives_as_long_as_its_time_to_live_and_no_longer,
    an_expired_entry_is_absent_for_load_and_swap_alike, versions_never_repeat,
};
pub use lossy_proxy::LossyProxy;
pub use names::{hostile_names_are_opaque, names_out_of_bounds_are_refused};
pub use pushes::{
    a_dropped_watch_ends_alone, a_push_names_the_circuit_as_it_is,
    a_watch_of_nothing_announced_yields_nothing, an_announcement_reaches_a_watcher_on_another_handle,
    pushes_stay_among_those_who_share_entries,
};
pub use swaps::{
    a_lost_race_brings_the_entry_that_won, a_write_is_read, of_64_creators_one_wins,
    swap_is_atomic_under_64_concurrent_writers, two_handles_share_data, values_of_64_kb_are_kept,
};

/// How the suite opens a store and makes things happen to it. Each rule gets a harness of its own.
///
/// Methods panic when they fail: there is no test without a store.
#[async_trait::async_trait]
pub trait Harness: Send + Sync {
    /// Opens a new handle, with a connection of its own where there are connections. All handles of one harness share
    /// their entries, and share none with another harness (a prefix or a table of its own does it on a shared server).
    async fn open(&self) -> Arc<dyn Store>;

    /// Lets at least `ms` milliseconds of the store's time pass. A movable clock does it at once; with a server that
    /// keeps its own time, sleep.
    async fn wait_ms(&self, ms: u64);

    /// Opens a handle on a store that is out of reach: no request arrives. It must end each operation by itself.
    async fn open_unreachable(&self) -> Arc<dyn Store>;

    /// Opens a handle that shares the entries of [`open`](Self::open) and whose next swap is sent while its answer is
    /// lost. Whether the write happens is left to the harness; it should, at least now and then.
    async fn open_losing_answer(&self) -> Arc<dyn Store>;

    /// Opens a handle that shares no entries with [`open`](Self::open), on the same server where there are servers. Only
    /// stores that push need it; `None` leaves out the rule that their pushes stay among those who share entries.
    async fn open_apart(&self) -> Option<Arc<dyn Store>> {
        None
    }

    /// For how many milliseconds after its end an entry may still be seen: the grain of the store's clock.
    fn grain_ms(&self) -> u64 {
        1
    }
}

/// Longer than any rule takes on a slow machine; a store that hangs is told from a slow one.
const RULE_TAKES_AT_MOST: Duration = Duration::from_secs(120);

/// Ends a rule that hangs. [`conformance_tests!`](crate::conformance_tests) puts it around each rule.
///
/// # Panics
/// When `rule` takes more than two minutes, with its `name`.
pub async fn run_bounded(name: &str, rule: impl Future<Output = ()>) {
    if tokio::time::timeout(RULE_TAKES_AT_MOST, rule).await.is_err() {
        panic!("{name}: an operation of the store did not end in {RULE_TAKES_AT_MOST:?}");
    }
}

/// Runs every rule, one after the other, each on a harness that `harness` makes: for a harness whose servers are
/// started once. Otherwise [`conformance_tests!`](crate::conformance_tests) shows more.
///
/// # Panics
/// When a rule is broken; the rule's name is the last one printed.
pub async fn run_all<H: Harness>(harness: impl AsyncFn() -> H) {
    conformance_tests!(@rules run harness);
}

/// Makes one `#[tokio::test]` for each rule of the suite out of an expression that makes a [`Harness`].
///
/// The expression is evaluated anew for each rule, inside an async function. Put the macro into a module of its own to
/// run the suite more than once in a file. See [`conformance`](crate::conformance) for an example.
#[macro_export]
macro_rules! conformance_tests {
    (@rules $what:ident $harness:expr) => {
        $crate::conformance_tests! {
            @$what $harness;
            a_write_is_read,
            values_of_64_kb_are_kept,
            two_handles_share_data,
            a_lost_race_brings_the_entry_that_won,
            of_64_creators_one_wins,
            swap_is_atomic_under_64_concurrent_writers,
            versions_never_repeat,
            an_entry_lives_as_long_as_its_time_to_live_and_no_longer,
            an_expired_entry_is_absent_for_load_and_swap_alike,
            a_write_sets_the_time_to_live_anew,
            a_lost_race_changes_no_time_to_live,
            a_time_to_live_of_any_length_is_taken,
            a_told_time_goes_on_in_milliseconds,
            hostile_names_are_opaque,
            names_out_of_bounds_are_refused,
            errors_are_typed,
            an_ambiguous_write_is_reported_as_unknown,
            an_ambiguous_write_is_not_repeated,
            an_announcement_reaches_a_watcher_on_another_handle,
            a_watch_of_nothing_announced_yields_nothing,
            a_push_names_the_circuit_as_it_is,
            pushes_stay_among_those_who_share_entries,
            a_dropped_watch_ends_alone,
        }
    };
    (@tests $harness:expr; $($rule:ident,)+) => {
        $(
            #[::tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $rule() {
                $crate::conformance::run_bounded(stringify!($rule), async {
                    let harness = $harness;
                    $crate::conformance::$rule(&harness).await;
                })
                .await;
            }
        )+
    };
    (@run $harness:expr; $($rule:ident,)+) => {
        $(
            println!("{}", stringify!($rule));
            $crate::conformance::run_bounded(stringify!($rule), async {
                let harness = $harness().await;
                $crate::conformance::$rule(&harness).await;
            })
            .await;
        )+
    };
    ($harness:expr) => {
        $crate::conformance_tests! { @rules tests $harness }
    };
}

/// Loads, and panics with the store's error.
async fn load(store: &dyn Store, circuit: &str) -> Loaded {
    match store.load(circuit).await {
        Ok(loaded) => loaded,
        Err(error) => panic!("a load of {circuit:?} failed: {}", told(&error)),
    }
}

/// Swaps, and panics with the store's error.
async fn swap(
    store: &dyn Store,
    circuit: &str,
    expected: Option<&Version>,
    value: &[u8],
    ttl: Option<Duration>,
) -> Swapped {
    match store.swap(circuit, expected, value, ttl).await {
        Ok(swapped) => swapped,
        Err(error) => panic!("a swap of {circuit:?} failed: {}", told(&error)),
    }
}

/// Writes over `expected`, which must be the version of the entry.
async fn write(
    store: &dyn Store,
    circuit: &str,
    expected: Option<&Version>,
    value: &[u8],
    ttl: Option<Duration>,
) -> Receipt {
    match swap(store, circuit, expected, value, ttl).await {
        Swapped::Stored(receipt) => receipt,
        Swapped::Conflict(loaded) => {
            panic!(
                "nobody else writes {circuit:?}, yet a swap on {expected:?} lost against {:?}",
                loaded.entry
            )
        }
    }
}

/// Swaps on `expected`, which must not be the version of the entry, and gives what the conflict brought.
async fn lose(store: &dyn Store, circuit: &str, expected: Option<&Version>) -> Loaded {
    match swap(store, circuit, expected, b"this must not be stored", None).await {
        Swapped::Conflict(loaded) => loaded,
        Swapped::Stored(receipt) => {
            panic!(
                "a swap of {circuit:?} on {expected:?}, which is not its version, was stored as {receipt:?}"
            )
        }
    }
}

/// The entry that a conflict or a load has to show.
fn present(loaded: Loaded, what: &str) -> Entry {
    loaded.entry.unwrap_or_else(|| panic!("{what}: the entry is absent"))
}

/// An error with its causes.
fn told(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
