//! [`MemoryStore`]: the embedded store, shared by all handles inside one process.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::clock::{Clock, SystemClock};
use crate::error::StoreError;
use crate::push::{Push, Pushes, Watch};
use crate::store::{Entry, Loaded, Receipt, Store, Swapped, Version, check_name, ttl_ms};

/// Entries are looked through for expired ones once in so many writes, so a name used once does not stay for ever.
const SWEEP_EVERY: u32 = 1024;

/// A store in this process's memory: the default, and the double for tests. Clones share their entries and watchers.
///
/// It lives as long as its last handle; nothing is kept over a restart.
///
/// # Example
/// ```
/// use circuitry_store::{ManualClock, MemoryStore};
/// let clock = ManualClock::at_ms(1_000);
/// let store = MemoryStore::with_clock(clock.clone()); // its entries age as the test moves the clock
/// let same_entries = store.clone();
/// ```
#[derive(Clone, Debug)]
pub struct MemoryStore {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    clock: Box<dyn Clock>,
    table: Mutex<Table>,
    pushes: Pushes,
}

#[derive(Debug, Default)]
struct Table {
    rows: HashMap<String, Row>,
    writes_since_sweep: u32,
}

#[derive(Debug)]
struct Row {
    entry: Entry,
    expires_at_ms: Option<u64>,
}

impl Row {
    fn is_expired(&self, now_ms: u64) -> bool {
        self.expires_at_ms.is_some_and(|at_ms| at_ms <= now_ms)
    }
}

impl Table {
    fn entry(&self, circuit: &str, now_ms: u64) -> Option<&Entry> {
        self.rows.get(circuit).filter(|row| !row.is_expired(now_ms)).map(|row| &row.entry)
    }

    fn sweep(&mut self, now_ms: u64) {
        self.writes_since_sweep = self.writes_since_sweep.saturating_add(1);
        if self.writes_since_sweep >= SWEEP_EVERY {
            self.writes_since_sweep = 0;
            self.rows.retain(|_, row| !row.is_expired(now_ms));
        }
    }
}

impl MemoryStore {
    /// Makes an empty store on the system's clock.
    pub fn new() -> Self {
        Self::with_clock(SystemClock::new())
    }

    /// Makes an empty store on `clock`, by which its entries age and which its answers tell.
    pub fn with_clock(clock: impl Clock) -> Self {
        let shared = Shared { clock: Box::new(clock), table: Mutex::default(), pushes: Pushes::new() };
        Self { shared: Arc::new(shared) }
    }

    /// How many entries there are, with those that are over and not yet swept.
    pub fn len(&self) -> usize {
        self.table().rows.len()
    }

    /// Whether there is no entry.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A holder that panicked cannot have left a row half written: every change is one insertion.
    fn table(&self) -> MutexGuard<'_, Table> {
        self.shared.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

#[async_trait::async_trait]
impl Store for MemoryStore {
    async fn load(&self, circuit: &str) -> Result<Loaded, StoreError> {
        check_name(circuit)?;
        let now_ms = self.shared.clock.now_ms();
        Ok(Loaded { entry: self.table().entry(circuit, now_ms).cloned(), now_ms: Some(now_ms) })
    }

    async fn swap(
        &self,
        circuit: &str,
        expected: Option<&Version>,
        value: &[u8],
        ttl: Option<Duration>,
    ) -> Result<Swapped, StoreError> {
        check_name(circuit)?;
        let version = Version::mint()?;
        let now_ms = self.shared.clock.now_ms();
        let mut table = self.table();
        let current = table.entry(circuit, now_ms);
        if current.map(|entry| &entry.version) != expected {
            return Ok(Swapped::Conflict(Loaded { entry: current.cloned(), now_ms: Some(now_ms) }));
        }
        let row = Row {
            entry: Entry { value: value.to_vec(), version: version.clone() },
            expires_at_ms: ttl.map(|ttl| now_ms.saturating_add(ttl_ms(ttl))),
        };
        table.rows.insert(circuit.to_owned(), row);
        table.sweep(now_ms);
        Ok(Swapped::Stored(Receipt { version, now_ms: Some(now_ms) }))
    }

    /// Reaches whoever watches a clone of this store. It ends with the last clone.
    async fn watch(&self) -> Result<Option<Watch>, StoreError> {
        Ok(Some(self.shared.pushes.watch()))
    }

    async fn announce(&self, circuit: &str) -> Result<(), StoreError> {
        check_name(circuit)?;
        self.shared.pushes.push(Push::Changed(circuit.to_owned()));
        Ok(())
    }
}
