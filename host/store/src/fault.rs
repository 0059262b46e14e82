//! [`FaultStore`]: a store that fails on demand, for tests of whatever sits on a store.

mod odds;
mod pushes;

use std::collections::VecDeque;
use std::fmt;
use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use self::odds::Chance;
use self::pushes::Way;
use crate::error::StoreError;
use crate::push::Watch;
use crate::store::{Entry, Loaded, Store, Swapped, Version};

pub use self::odds::Odds;

/// What goes wrong with one operation.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// [`StoreError::Unavailable`], and the inner store is not asked.
    Unavailable,
    /// The inner store carries the operation out and the answer is lost: [`StoreError::Unknown`] for a swap,
    /// [`StoreError::Unavailable`] for a load.
    LostAnswer,
    /// [`StoreError::Denied`], and the inner store is not asked.
    Denied,
    /// [`StoreError::Other`], and the inner store is not asked.
    Other,
    /// The operation waits so long (in tokio's time) before it is carried out.
    Delay(Duration),
    /// The operation waits for [`FaultStore::release`] before it is carried out; without it, for ever.
    Hang,
    /// The operation is carried out, but its answer waits for [`FaultStore::release`]; without it, for ever.
    HangAnswer,
    /// The operation is carried out, and these bytes stand in its answer instead of the entry's value, as if somebody
    /// else had written under our name. A load that finds nothing answers an entry of these bytes. A swap that is
    /// stored answers no value and stays as it is.
    Garbage(Vec<u8>),
    /// For an announcement: it is answered as made, and no watcher is told.
    LostPush,
    /// For an announcement: it is answered as made, and the watchers are told at
    /// [`FaultStore::release_pushes`]; without it, never.
    HeldPush,
    /// For an announcement: every watcher is told twice.
    DoubledPush,
}

/// One of the operations of a [`Store`] that faults strike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operation {
    Load,
    Swap,
    Announce,
}

impl fmt::Display for Operation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Load => "load",
            Self::Swap => "swap",
            Self::Announce => "announcement",
        })
    }
}

/// A wrapper around any store that fails as a test asks and counts every operation. Clones share faults and counts.
///
/// A scripted fault strikes one operation, in the order given. Where the script has nothing for an operation, chance
/// decides, if odds were set. While the store is down, both wait: the script keeps its faults.
///
/// Pushes fail where they are announced, so all watchers fare alike. A watch through this store hears nothing while
/// it is down, and of [`Push::Missed`] when it comes up, as with a connection that was lost.
///
/// [`Push::Missed`]: crate::Push::Missed
///
/// # Example
/// ```
/// use circuitry_store::fault::{Fault, FaultStore};
/// use circuitry_store::{MemoryStore, Store, StoreError};
///
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// let store = FaultStore::new(MemoryStore::new());
/// store.on_next_swap(Fault::LostAnswer);
/// let answer = store.swap("emails", None, b"1", None).await;
/// assert!(matches!(answer, Err(StoreError::Unknown { .. })));
/// assert!(store.load("emails").await?.entry.is_some(), "it was written all the same");
/// assert_eq!((store.loads(), store.swaps()), (1, 1));
/// # Ok::<(), StoreError>(()) }).unwrap();
/// ```
pub struct FaultStore<S> {
    shared: Arc<Shared<S>>,
}

struct Shared<S> {
    inner: S,
    /// Whether the store is down, also for watches that outlive it.
    way: Arc<Way>,
    loads: AtomicU64,
    swaps: AtomicU64,
    announces: AtomicU64,
    /// How many operations hang now.
    hanging: watch::Sender<usize>,
    /// Counts the releases: who hangs waits for it to change.
    releases: watch::Sender<u64>,
    faults: Mutex<Faults>,
}

#[derive(Default)]
struct Faults {
    script: VecDeque<(Option<Operation>, Fault)>,
    chance: Option<Chance>,
    /// The circuits of the announcements that are held, in their order.
    held_pushes: VecDeque<String>,
}

/// What is in store for one operation.
struct Plan {
    delay: Option<Duration>,
    fault: Option<Fault>,
}

impl Faults {
    fn plan(&mut self, operation: Operation) -> Plan {
        let meant = |(only, _): &(Option<Operation>, Fault)| match only {
            Some(only) => *only == operation,
            None => operation != Operation::Announce,
        };
        if let Some(index) = self.script.iter().position(meant) {
            return match self.script.remove(index) {
                Some((_, Fault::Delay(delay))) => Plan { delay: Some(delay), fault: None },
                scripted => Plan { delay: None, fault: scripted.map(|(_, fault)| fault) },
            };
        }
        match &mut self.chance {
            Some(chance) if operation == Operation::Announce => chance.plan_push(),
            Some(chance) => chance.plan(),
            None => Plan { delay: None, fault: None },
        }
    }
}

impl<S> FaultStore<S> {
    /// Wraps `inner`; nothing fails until it is asked for.
    pub fn new(inner: S) -> Self {
        Self {
            shared: Arc::new(Shared {
                inner,
                way: Arc::default(),
                loads: AtomicU64::new(0),
                swaps: AtomicU64::new(0),
                announces: AtomicU64::new(0),
                hanging: watch::Sender::new(0),
                releases: watch::Sender::new(0),
                faults: Mutex::default(),
            }),
        }
    }

    /// The store inside, to look at it past the faults and without being counted.
    pub fn inner(&self) -> &S {
        &self.shared.inner
    }

    /// Lets `fault` strike the next operation that has none yet, be it a load or a swap.
    pub fn on_next(&self, fault: Fault) {
        self.faults().script.push_back((None, fault));
    }

    /// Lets `fault` strike the next load that has none yet.
    pub fn on_next_load(&self, fault: Fault) {
        self.faults().script.push_back((Some(Operation::Load), fault));
    }

    /// Lets `fault` strike the next swap that has none yet.
    pub fn on_next_swap(&self, fault: Fault) {
        self.faults().script.push_back((Some(Operation::Swap), fault));
    }

    /// Lets `fault` strike the next announcement that has none yet; [`on_next`](Self::on_next) strikes none.
    pub fn on_next_announce(&self, fault: Fault) {
        self.faults().script.push_back((Some(Operation::Announce), fault));
    }

    /// Forgets the scripted faults that have not struck, the odds, and the pushes that are held.
    pub fn clear(&self) {
        *self.faults() = Faults::default();
    }

    /// Lets operations fail by chance from now on; the same `seed` and the same operations give the same faults.
    ///
    /// # Panics
    /// When the failures, or those of pushes, add up to more than a thousand, or the delay's odds are above a thousand.
    pub fn set_odds(&self, odds: Odds, seed: u64) {
        self.faults().chance = Some(Chance::new(odds, seed));
    }

    /// Takes the store down: every operation is [`StoreError::Unavailable`] and writes nothing, and no push comes
    /// through, until [`come_up`].
    ///
    /// [`come_up`]: Self::come_up
    pub fn go_down(&self) {
        self.shared.way.go_down();
    }

    /// Ends what [`go_down`](Self::go_down) began.
    pub fn come_up(&self) {
        self.shared.way.come_up();
    }

    /// Lets all operations go on that hang now. Later ones hang again if a fault says so.
    pub fn release(&self) {
        self.shared.releases.send_modify(|count| *count = count.wrapping_add(1));
    }

    /// How many operations hang now.
    pub fn hanging(&self) -> usize {
        *self.shared.hanging.borrow()
    }

    /// Waits until at least `count` operations hang, so that a test need not sleep. Cancel safe.
    pub async fn until_hanging(&self, count: usize) {
        let mut hanging = self.shared.hanging.subscribe();
        // The sender lives in `self`, so the channel cannot be closed here.
        let _ = hanging.wait_for(|now| *now >= count).await;
    }

    /// How many loads were asked for, whatever became of them.
    pub fn loads(&self) -> u64 {
        self.shared.loads.load(Ordering::SeqCst)
    }

    /// How many swaps were asked for, whatever became of them.
    pub fn swaps(&self) -> u64 {
        self.shared.swaps.load(Ordering::SeqCst)
    }

    /// How many announcements were asked for, whatever became of them.
    pub fn announces(&self) -> u64 {
        self.shared.announces.load(Ordering::SeqCst)
    }

    fn faults(&self) -> MutexGuard<'_, Faults> {
        self.shared.faults.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn plan(&self, operation: Operation) -> Result<Plan, StoreError> {
        let counter = match operation {
            Operation::Load => &self.shared.loads,
            Operation::Swap => &self.shared.swaps,
            Operation::Announce => &self.shared.announces,
        };
        counter.fetch_add(1, Ordering::SeqCst);
        self.check_up(operation)?;
        Ok(self.faults().plan(operation))
    }

    fn check_up(&self, operation: Operation) -> Result<(), StoreError> {
        if self.shared.way.is_down() {
            return Err(unavailable(operation, "the store is down"));
        }
        Ok(())
    }

    async fn hang(&self) {
        let mut releases = self.shared.releases.subscribe();
        let _hanging = Hanging::begin(&self.shared.hanging);
        // The sender lives in `self`, so the channel cannot be closed here.
        let _ = releases.changed().await;
    }

    /// Carries an operation out with what its plan does before and after it. Garbage is left to the caller.
    async fn carry_out<T>(
        &self,
        operation: Operation,
        plan: &Plan,
        carried_out: impl Future<Output = Result<T, StoreError>> + Send,
    ) -> Result<T, StoreError> {
        if let Some(delay) = plan.delay {
            tokio::time::sleep(delay).await;
        }
        match plan.fault {
            Some(Fault::Unavailable) => return Err(unavailable(operation, "as the test asked")),
            Some(Fault::Denied) => {
                let message = format!("{operation}: denied, as the test asked");
                return Err(StoreError::Denied { message, source: None });
            }
            Some(Fault::Other) => {
                return Err(StoreError::rejected(format!("{operation}: as the test asked")));
            }
            Some(Fault::Hang) => self.hang().await,
            _ => {}
        }
        self.check_up(operation)?;
        let answer = carried_out.await;
        match plan.fault {
            // An error that the inner store answered is no secret: it is passed on.
            Some(Fault::LostAnswer) if answer.is_ok() => Err(match operation {
                Operation::Load | Operation::Announce => unavailable(operation, "its answer was lost"),
                Operation::Swap => {
                    StoreError::Unknown { message: format!("{operation}: its answer was lost"), source: None }
                }
            }),
            Some(Fault::HangAnswer) => {
                self.hang().await;
                answer
            }
            _ => answer,
        }
    }
}

fn unavailable(operation: Operation, what: &str) -> StoreError {
    StoreError::Unavailable { message: format!("{operation}: {what}"), source: None }
}

/// Puts `bytes` where the entry's value was.
fn spoil(loaded: &mut Loaded, bytes: &[u8]) -> Result<(), StoreError> {
    match &mut loaded.entry {
        Some(entry) => entry.value = bytes.to_vec(),
        None => loaded.entry = Some(Entry { value: bytes.to_vec(), version: Version::mint()? }),
    }
    Ok(())
}

/// Counts an operation as hanging until it is dropped, also when its caller gives it up.
struct Hanging<'a>(&'a watch::Sender<usize>);

impl<'a> Hanging<'a> {
    fn begin(count: &'a watch::Sender<usize>) -> Self {
        count.send_modify(|count| *count += 1);
        Self(count)
    }
}

impl Drop for Hanging<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}

impl<S> Clone for FaultStore<S> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

impl<S: fmt::Debug> fmt::Debug for FaultStore<S> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("FaultStore")
            .field("inner", &self.shared.inner)
            .field("down", &self.shared.way.is_down())
            .field("loads", &self.loads())
            .field("swaps", &self.swaps())
            .field("announces", &self.announces())
            .finish_non_exhaustive()
    }
}

#[async_trait::async_trait]
impl<S: Store> Store for FaultStore<S> {
    async fn load(&self, circuit: &str) -> Result<Loaded, StoreError> {
        let plan = self.plan(Operation::Load)?;
        let mut loaded = self.carry_out(Operation::Load, &plan, self.shared.inner.load(circuit)).await?;
        if let Some(Fault::Garbage(bytes)) = &plan.fault {
            spoil(&mut loaded, bytes)?;
        }
        Ok(loaded)
    }

    async fn swap(
        &self,
        circuit: &str,
        expected: Option<&Version>,
        value: &[u8],
        ttl: Option<Duration>,
    ) -> Result<Swapped, StoreError> {
        let plan = self.plan(Operation::Swap)?;
        let swap = self.shared.inner.swap(circuit, expected, value, ttl);
        let mut swapped = self.carry_out(Operation::Swap, &plan, swap).await?;
        if let (Some(Fault::Garbage(bytes)), Swapped::Conflict(loaded)) = (&plan.fault, &mut swapped) {
            spoil(loaded, bytes)?;
        }
        Ok(swapped)
    }

    async fn watch(&self) -> Result<Option<Watch>, StoreError> {
        Ok(self.shared.inner.watch().await?.map(|inner| pushes::through(&self.shared.way, inner)))
    }

    async fn announce(&self, circuit: &str) -> Result<(), StoreError> {
        let plan = self.plan(Operation::Announce)?;
        let announce = self.announce_with(plan.fault.as_ref(), circuit);
        self.carry_out(Operation::Announce, &plan, announce).await
    }
}
