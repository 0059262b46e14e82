//! The conformance suite finds each kind of broken store, with the rule that is meant for it.

use std::collections::HashMap;
use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use circuitry_store::conformance::{self, Harness};
use circuitry_store::fault::{Fault, FaultStore};
use circuitry_store::push::Pushes;
use circuitry_store::store::{check_name, ttl_ms};
use circuitry_store::{
    Clock, Entry, Loaded, ManualClock, Push, Receipt, Store, StoreError, Swapped, Version, Watch,
};
use futures_util::stream;

/// How a store is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flaw {
    None,
    ReadsWhatWasFirst,
    TakesTheEmptyValueForAbsence,
    CutsLongValues,
    KeepsEachHandleApart,
    ConflictWithoutEntry,
    WritesInSpiteOfConflict,
    TakesNoVersionForAny,
    ChecksAndWritesApart,
    CountsVersionsFromOneInEachLife,
    LivesForEver,
    LivesHalfAsLong,
    SwapSeesTheExpired,
    KeepsTheFirstTimeToLive,
    ConflictRenewsTimeToLive,
    TimeToLiveOverflows,
    TellsSeconds,
    TrimsNames,
    FoldsNames,
    CutsNamesAtNul,
    TakesAnyName,
    UnreachableIsEmpty,
    UnreachableIsUnknown,
    LostAnswerIsStored,
    LostAnswerIsUnavailable,
    LostAnswerIsSentAgain,
    PushesToTheOwnHandleOnly,
    PushesWhatIsWritten,
    PushesCutNames,
    PushesToStrangers,
    PushesToNobodyAfterADrop,
}

#[derive(Debug)]
struct Row {
    entry: Entry,
    first: Entry,
    ends_at_ms: Option<u64>,
}

/// A late second copy of a write, and when it comes.
struct Replay {
    circuit: String,
    value: Vec<u8>,
}

struct Shared {
    flaw: Flaw,
    clock: ManualClock,
    rows: Mutex<HashMap<String, Row>>,
    replay: Mutex<Option<Replay>>,
    pushes: Arc<Pushes>,
    a_watch_was_dropped: Arc<AtomicBool>,
}

#[derive(Clone)]
struct Broken(Arc<Shared>);

/// Notes that the watch it was in was dropped.
struct Noted(Arc<AtomicBool>);

impl Drop for Noted {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

impl Broken {
    fn new(flaw: Flaw, clock: ManualClock) -> Self {
        Self::with_pushes(flaw, clock, Arc::default())
    }

    fn with_pushes(flaw: Flaw, clock: ManualClock, pushes: Arc<Pushes>) -> Self {
        Self(Arc::new(Shared {
            flaw,
            clock,
            rows: Mutex::default(),
            replay: Mutex::default(),
            pushes,
            a_watch_was_dropped: Arc::default(),
        }))
    }

    fn has(&self, flaw: Flaw) -> bool {
        self.0.flaw == flaw
    }

    fn rows(&self) -> MutexGuard<'_, HashMap<String, Row>> {
        self.0.rows.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn name(&self, circuit: &str) -> Result<String, StoreError> {
        if !self.has(Flaw::TakesAnyName) {
            check_name(circuit)?;
        }
        Ok(match self.0.flaw {
            Flaw::TrimsNames => circuit.trim_end().to_owned(),
            Flaw::FoldsNames => circuit.to_lowercase(),
            Flaw::CutsNamesAtNul => circuit.split('\0').next().unwrap_or_default().to_owned(),
            _ => circuit.to_owned(),
        })
    }

    fn told_ms(&self) -> Option<u64> {
        let now_ms = self.0.clock.now_ms();
        Some(if self.has(Flaw::TellsSeconds) { now_ms / 1000 } else { now_ms })
    }

    fn current(&self, rows: &HashMap<String, Row>, name: &str, is_swap: bool) -> Option<Entry> {
        let now_ms = self.0.clock.now_ms();
        let sees_expired = is_swap && self.has(Flaw::SwapSeesTheExpired);
        let row = rows.get(name)?;
        let is_there = sees_expired || row.ends_at_ms.is_none_or(|at_ms| now_ms < at_ms);
        is_there.then(|| row.entry.clone())
    }

    fn write(
        &self,
        rows: &mut HashMap<String, Row>,
        name: &str,
        value: &[u8],
        ttl: Option<Duration>,
    ) -> Version {
        let now_ms = self.0.clock.now_ms();
        let life_ms =
            ttl.map(|ttl| if self.has(Flaw::LivesHalfAsLong) { ttl_ms(ttl) / 2 } else { ttl_ms(ttl) });
        let mut ends_at_ms = life_ms.map(|ms| now_ms.saturating_add(ms));
        let before = self.current(rows, name, false).and_then(|_| rows.remove(name));
        let mut version = Version::mint().expect("there is randomness");
        if self.has(Flaw::CountsVersionsFromOneInEachLife) {
            let last = before.as_ref().and_then(|row| row.entry.version.as_bytes().first().copied());
            version = Version::from_bytes([last.unwrap_or(0) + 1]);
        }
        if self.has(Flaw::KeepsTheFirstTimeToLive)
            && let Some(row) = &before
        {
            ends_at_ms = row.ends_at_ms;
        }
        if self.has(Flaw::LivesForEver) {
            ends_at_ms = None;
        }
        let length = if self.has(Flaw::CutsLongValues) { value.len().min(40_000) } else { value.len() };
        let entry = Entry { value: value[..length].to_vec(), version: version.clone() };
        let first = before.map_or_else(|| entry.clone(), |row| row.first);
        rows.insert(name.to_owned(), Row { entry, first, ends_at_ms });
        version
    }
}

#[async_trait::async_trait]
impl Store for Broken {
    async fn load(&self, circuit: &str) -> Result<Loaded, StoreError> {
        let name = self.name(circuit)?;
        let rows = self.rows();
        let mut entry = self.current(&rows, &name, false);
        if self.has(Flaw::ReadsWhatWasFirst) {
            entry = entry.and_then(|_| rows.get(&name).map(|row| row.first.clone()));
        }
        if self.has(Flaw::TakesTheEmptyValueForAbsence) {
            entry = entry.filter(|entry| !entry.value.is_empty());
        }
        Ok(Loaded { entry, now_ms: self.told_ms() })
    }

    async fn swap(
        &self,
        circuit: &str,
        expected: Option<&Version>,
        value: &[u8],
        ttl: Option<Duration>,
    ) -> Result<Swapped, StoreError> {
        let name = self.name(circuit)?;
        if self.has(Flaw::TimeToLiveOverflows) && ttl.is_some_and(|ttl| ttl.as_millis() > 1 << 60) {
            return Err(StoreError::rejected("the time to live is too long"));
        }
        let replay = self.0.replay.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).take();
        if let Some(replay) = replay {
            let mut rows = self.rows();
            self.write(&mut rows, &replay.circuit, &replay.value, None);
        }
        let seen_before = self.current(&self.rows(), &name, true);
        if self.has(Flaw::ChecksAndWritesApart) {
            // Long enough for all the others to check as well.
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let mut rows = self.rows();
        let current =
            if self.has(Flaw::ChecksAndWritesApart) { seen_before } else { self.current(&rows, &name, true) };
        let is_expected = match (&current, expected) {
            (_, None) if self.has(Flaw::TakesNoVersionForAny) => true,
            (current, expected) => current.as_ref().map(|entry| &entry.version) == expected,
        };
        if is_expected {
            let version = self.write(&mut rows, &name, value, ttl);
            if self.has(Flaw::PushesWhatIsWritten) {
                self.0.pushes.push(Push::Changed(circuit.to_owned()));
            }
            return Ok(Swapped::Stored(Receipt { version, now_ms: self.told_ms() }));
        }
        if self.has(Flaw::WritesInSpiteOfConflict) {
            self.write(&mut rows, &name, value, ttl);
        }
        if self.has(Flaw::ConflictRenewsTimeToLive)
            && let Some(row) = rows.get_mut(&name)
        {
            row.ends_at_ms = ttl.map(|ttl| self.0.clock.now_ms().saturating_add(ttl_ms(ttl)));
        }
        let entry = current.filter(|_| !self.has(Flaw::ConflictWithoutEntry));
        Ok(Swapped::Conflict(Loaded { entry, now_ms: self.told_ms() }))
    }

    async fn watch(&self) -> Result<Option<Watch>, StoreError> {
        let (mut watch, noted) = (self.0.pushes.watch(), Noted(Arc::clone(&self.0.a_watch_was_dropped)));
        Ok(Some(Box::pin(stream::poll_fn(move |context| {
            let _ = &noted;
            watch.as_mut().poll_next(context)
        }))))
    }

    async fn announce(&self, circuit: &str) -> Result<(), StoreError> {
        let is_deaf =
            self.has(Flaw::PushesToNobodyAfterADrop) && self.0.a_watch_was_dropped.load(Ordering::SeqCst);
        if is_deaf {
            return Ok(());
        }
        let cut = if self.has(Flaw::PushesCutNames) { 40 } else { usize::MAX };
        self.0.pushes.push(Push::Changed(circuit.chars().take(cut).collect()));
        Ok(())
    }
}

/// A handle that mistakes a lost answer for something else.
struct Mistaken(Broken, Arc<std::sync::atomic::AtomicBool>);

#[async_trait::async_trait]
impl Store for Mistaken {
    async fn load(&self, circuit: &str) -> Result<Loaded, StoreError> {
        self.0.load(circuit).await
    }

    async fn swap(
        &self,
        circuit: &str,
        expected: Option<&Version>,
        value: &[u8],
        ttl: Option<Duration>,
    ) -> Result<Swapped, StoreError> {
        let swapped = self.0.swap(circuit, expected, value, ttl).await;
        if self.1.swap(true, std::sync::atomic::Ordering::SeqCst) {
            return swapped;
        }
        let message = "the answer was lost".to_owned();
        match self.0.0.flaw {
            Flaw::LostAnswerIsStored => swapped,
            Flaw::LostAnswerIsUnavailable => Err(StoreError::Unavailable { message, source: None }),
            flaw => {
                if flaw == Flaw::LostAnswerIsSentAgain {
                    let replay = Replay { circuit: circuit.to_owned(), value: value.to_vec() };
                    *self.0.0.replay.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = Some(replay);
                }
                Err(StoreError::Unknown { message, source: None })
            }
        }
    }
}

struct BrokenHarness {
    flaw: Flaw,
    clock: ManualClock,
    store: Broken,
}

impl BrokenHarness {
    fn new(flaw: Flaw) -> Self {
        let clock = ManualClock::at_ms(1_700_000_000_000);
        Self { flaw, store: Broken::new(flaw, clock.clone()), clock }
    }
}

#[async_trait::async_trait]
impl Harness for BrokenHarness {
    async fn open(&self) -> Arc<dyn Store> {
        match self.flaw {
            Flaw::KeepsEachHandleApart | Flaw::PushesToTheOwnHandleOnly => {
                Arc::new(Broken::new(self.flaw, self.clock.clone()))
            }
            _ => Arc::new(self.store.clone()),
        }
    }

    async fn wait_ms(&self, ms: u64) {
        self.clock.advance_ms(ms);
    }

    async fn open_unreachable(&self) -> Arc<dyn Store> {
        let store = FaultStore::new(self.store.clone());
        match self.flaw {
            Flaw::UnreachableIsEmpty => {}
            Flaw::UnreachableIsUnknown => {
                store.on_next_load(Fault::Unavailable);
                store.on_next_swap(Fault::LostAnswer);
            }
            _ => store.go_down(),
        }
        Arc::new(store)
    }

    async fn open_losing_answer(&self) -> Arc<dyn Store> {
        Arc::new(Mistaken(self.store.clone(), Arc::default()))
    }

    async fn open_apart(&self) -> Option<Arc<dyn Store>> {
        Some(match self.flaw {
            Flaw::PushesToStrangers => {
                let pushes = Arc::clone(&self.store.0.pushes);
                Arc::new(Broken::with_pushes(self.flaw, self.clock.clone(), pushes))
            }
            _ => Arc::new(Broken::new(self.flaw, self.clock.clone())),
        })
    }
}

/// Whether a rule finds the store broken.
async fn is_found<R: Future<Output = ()> + Send + 'static>(
    rule: impl FnOnce(Arc<BrokenHarness>) -> R,
    flaw: Flaw,
) -> bool {
    let outcome = tokio::spawn(rule(Arc::new(BrokenHarness::new(flaw)))).await;
    outcome.is_err_and(|error| error.is_panic())
}

/// One test for each rule: the good store passes it, the broken ones do not.
macro_rules! found {
    ($($rule:ident: $($flaw:ident),+;)+) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $rule() {
                let rule = |harness: Arc<BrokenHarness>| async move { conformance::$rule(&*harness).await };
                assert!(!is_found(rule, Flaw::None).await, "the rule fails a store without a flaw");
                $(assert!(is_found(rule, Flaw::$flaw).await, "the rule passes a store that {:?}", Flaw::$flaw);)+
            }
        )+
    };
}

found! {
    a_write_is_read: ReadsWhatWasFirst, TakesTheEmptyValueForAbsence;
    values_of_64_kb_are_kept: CutsLongValues;
    two_handles_share_data: KeepsEachHandleApart;
    a_lost_race_brings_the_entry_that_won: ConflictWithoutEntry, WritesInSpiteOfConflict, TakesNoVersionForAny;
    of_64_creators_one_wins: ChecksAndWritesApart, TakesNoVersionForAny;
    swap_is_atomic_under_64_concurrent_writers: ChecksAndWritesApart;
    versions_never_repeat: CountsVersionsFromOneInEachLife;
    an_entry_lives_as_long_as_its_time_to_live_and_no_longer: LivesForEver, LivesHalfAsLong;
    an_expired_entry_is_absent_for_load_and_swap_alike: SwapSeesTheExpired, LivesForEver;
    a_write_sets_the_time_to_live_anew: KeepsTheFirstTimeToLive;
    a_lost_race_changes_no_time_to_live: ConflictRenewsTimeToLive;
    a_time_to_live_of_any_length_is_taken: TimeToLiveOverflows;
    a_told_time_goes_on_in_milliseconds: TellsSeconds;
    hostile_names_are_opaque: TrimsNames, FoldsNames, CutsNamesAtNul;
    names_out_of_bounds_are_refused: TakesAnyName;
    errors_are_typed: UnreachableIsEmpty, UnreachableIsUnknown;
    an_ambiguous_write_is_reported_as_unknown: LostAnswerIsStored, LostAnswerIsUnavailable;
    an_ambiguous_write_is_not_repeated: LostAnswerIsSentAgain;
    an_announcement_reaches_a_watcher_on_another_handle: PushesToTheOwnHandleOnly;
    a_watch_of_nothing_announced_yields_nothing: PushesWhatIsWritten;
    a_push_names_the_circuit_as_it_is: PushesCutNames;
    pushes_stay_among_those_who_share_entries: PushesToStrangers;
    a_dropped_watch_ends_alone: PushesToNobodyAfterADrop;
}
