//! [`Circuit`]: what this process keeps of one circuit.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use circuitry_store::Loaded;
use tokio::sync::Semaphore;
use tokio::time::timeout_at;

use crate::ballot::OwnRecord;
use crate::call::Problem;
use crate::context::Context;
use crate::ends::Ends;
use crate::error::ComponentError;
use crate::grant::Grants;
use crate::loading::Loads;
use crate::metering;
use crate::node::Node;
use crate::policy::CircuitSettings;
use crate::runtime::asking::Deadline;
use crate::state::State;
use crate::view::View;

/// So many settings of others are remembered, so that each is told once.
const TOLD_MAX: usize = 16;

/// What this process keeps of one circuit. Where nothing waits to be flushed nothing in it is needed: a circuit forgotten costs
/// one load, and with a quorum what the node has counted for itself.
#[derive(Debug)]
pub(crate) struct Circuit {
    /// First, since it is all that a call under a grant touches.
    pub(crate) grants: Grants,
    /// The circuit's name, as it is shared.
    pub(crate) name: Arc<str>,
    /// The name given to `breaker_for`.
    pub(crate) base: Arc<str>,
    pub(crate) context: Context,
    /// How many looks, overrides and renewals of this circuit may be under way at once, so that one that hangs leaves
    /// instances to others.
    pub(crate) calls: Semaphore,
    /// Strict starts that load.
    pub(crate) loads: Loads,
    /// Outcomes that the fleet judges.
    pub(crate) ends: Arc<Ends>,
    /// The number of the next start on the shared record, and on this node's own.
    starts: AtomicU64,
    own_starts: AtomicU64,
    /// What is known of it; absent, until something is.
    view: Mutex<Option<Box<View>>>,
    /// In bounded mode: held by the one exchange with the store that is under way.
    turn: tokio::sync::Mutex<()>,
    state: Mutex<Option<State>>,
    /// Until when it refuses, as far as is known, in the time of the host's clock.
    refuses_until_ms: AtomicU64,
    others: Mutex<Others>,
    /// With a quorum: the record by which this node decides for itself.
    own: Mutex<Option<Arc<OwnRecord>>>,
}

/// Settings in force that are not this process's own.
#[derive(Debug, Default)]
struct Others {
    in_force: bool,
    /// What has been told, as hashes.
    told: Vec<u64>,
}

/// Leave to exchange something with the store about a circuit, in bounded mode.
#[derive(Debug)]
pub(crate) struct Turn<'a>(
    #[expect(dead_code, reason = "it is held, not looked at")] tokio::sync::MutexGuard<'a, ()>,
);

/// When an entry was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct AsOf {
    /// In the time of the host's clock.
    pub(crate) ms: u64,
    /// How often the circuit was said to have changed before.
    pub(crate) doubts: u64,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Every change under these locks is whole before anything can panic.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Circuit {
    /// `first_start` is the number of the first start; see [`crate::node::Node::first_start`].
    pub(crate) fn new(
        name: Arc<str>,
        base: Arc<str>,
        context: Context,
        calls: usize,
        first_start: u64,
    ) -> Self {
        Self {
            name,
            base,
            context,
            calls: Semaphore::new(calls),
            loads: Loads::new(),
            ends: Arc::default(),
            starts: AtomicU64::new(first_start),
            own_starts: AtomicU64::new(first_start),
            grants: Grants::new(),
            view: Mutex::default(),
            turn: tokio::sync::Mutex::default(),
            state: Mutex::default(),
            refuses_until_ms: AtomicU64::new(0),
            others: Mutex::default(),
            own: Mutex::default(),
        }
    }

    /// The number of a start; consecutive, because a ramp admits by it.
    pub(crate) fn next_start(&self) -> u64 {
        self.starts.fetch_add(1, Ordering::Relaxed)
    }

    /// The number of a start on this node's own record, which not all starts come to.
    pub(crate) fn next_own_start(&self) -> u64 {
        self.own_starts.fetch_add(1, Ordering::Relaxed)
    }

    /// Looks at what is known of it, and counts in it.
    pub(crate) fn with_view<T>(&self, look: impl FnOnce(&mut View) -> T) -> T {
        look(lock(&self.view).get_or_insert_default())
    }

    /// Waits for its turn: see [`crate::bounded`].
    ///
    /// # Errors
    /// Busy, where it does not come until the deadline.
    pub(crate) async fn turn(&self, deadline: Deadline) -> Result<Turn<'_>, Problem> {
        let waits_ms = u64::try_from(deadline.left().as_millis()).unwrap_or(u64::MAX);
        match timeout_at(deadline.at, self.turn.lock()).await {
            Ok(turn) => Ok(Turn(turn)),
            Err(_elapsed) => Err(Problem::Component(ComponentError::Busy(waits_ms))),
        }
    }

    /// The entry last seen in the store, without the time at which it was seen.
    pub(crate) fn known(&self) -> Option<Loaded> {
        lock(&self.view).as_ref()?.known()
    }

    /// The same with this process's outcomes since, where they are counted here first.
    pub(crate) fn shown(&self, node: &Node) -> Option<Loaded> {
        lock(&self.view).as_mut()?.shown(node, self)
    }

    /// What an entry that is asked for now will be as of.
    pub(crate) fn as_of(&self, now_ms: u64) -> AsOf {
        AsOf { ms: now_ms, doubts: lock(&self.view).as_ref().map_or(0, |view| view.doubts()) }
    }

    /// Remembers the entry last seen in the store.
    pub(crate) fn saw(&self, seen: Loaded, as_of: AsOf) {
        self.with_view(|view| view.adopt(self, seen, as_of, false));
    }

    /// Remembers the entry that the flush under way has made.
    pub(crate) fn saw_settled(&self, seen: Loaded, as_of: AsOf) {
        self.with_view(|view| view.adopt(self, seen, as_of, true));
    }

    /// Whether outcomes wait to be flushed.
    pub(crate) fn has_outcomes(&self) -> bool {
        self.grants.has_counted() || lock(&self.view).as_ref().is_some_and(|view| view.outcomes() > 0)
    }

    /// Whether it must not be forgotten: it refuses for some time yet, as far as is known, or something waits to be flushed.
    pub(crate) fn is_kept(&self, now_ms: u64) -> bool {
        self.refuses(now_ms)
            || self.grants.has_counted()
            || lock(&self.view).as_ref().is_some_and(|view| view.is_kept())
    }

    /// Forgets what a load would bring back, unless that is a refusal.
    pub(crate) fn forget(&self, now_ms: u64) {
        let mut view = lock(&self.view);
        if !self.refuses(now_ms) && view.take_if(|view| !view.is_kept()).is_some() {
            // It would be over by now, unless the clock went back. Under the lock, as all that changes it.
            self.grants.end();
        }
    }

    fn refuses(&self, now_ms: u64) -> bool {
        now_ms < self.refuses_until_ms.load(Ordering::Relaxed)
    }

    /// Notes that it does not refuse any more.
    pub(crate) fn saw_permit(&self) {
        self.refuses_until_ms.store(0, Ordering::Relaxed);
    }

    /// Notes that it refuses, for as long as whoever was refused is to wait.
    pub(crate) fn saw_refusal(&self, retry_after: Duration, now_ms: u64) {
        let for_ms = u64::try_from(retry_after.as_millis()).unwrap_or(u64::MAX);
        self.refuses_until_ms.store(now_ms.saturating_add(for_ms), Ordering::Relaxed);
    }

    /// Notes the state for the gauges.
    pub(crate) fn saw_state(&self, state: State) {
        let mut seen = lock(&self.state);
        if *seen != Some(state) {
            metering::state(&self.base, *seen, Some(state));
            *seen = Some(state);
        }
    }

    /// Notes settings in force that are others than `own`, or that there are none; tells of each once.
    pub(crate) fn saw_settings(&self, in_force: Option<&CircuitSettings>, own: &CircuitSettings) {
        let mut others = lock(&self.others);
        if others.in_force != in_force.is_some() {
            others.in_force = in_force.is_some();
            metering::settings_differ(&self.base, if others.in_force { 1.0 } else { -1.0 });
        }
        let Some(in_force) = in_force else { return };
        let mut hasher = DefaultHasher::new();
        in_force.hash(&mut hasher);
        let hash = hasher.finish();
        if others.told.contains(&hash) {
            return;
        }
        if others.told.len() == TOLD_MAX {
            others.told.remove(0);
        }
        others.told.push(hash);
        drop(others);
        tracing::warn!(
            circuit = &*self.name,
            differ = ?in_force.differing_from(own),
            revision_in_force = in_force.settings_revision,
            own_revision = own.settings_revision,
            "another process's settings are in force, not this one's"
        );
    }

    /// With a quorum: this node's own record for the shared era `era`, which the start of that number has seen; begun anew if it is
    /// of another or of other settings.
    pub(crate) fn own_record(
        &self,
        era: u64,
        in_force: &Arc<CircuitSettings>,
        number: u64,
        begin: impl FnOnce(u64) -> OwnRecord,
    ) -> Arc<OwnRecord> {
        let mut own = lock(&self.own);
        if let Some(own) = own.as_ref().filter(|own| own.belongs_to(era, in_force)) {
            return own.clone();
        }
        let begun = Arc::new(begin(self.starts.load(Ordering::Relaxed)));
        if own.as_ref().is_some_and(|own| own.outdates(era, number)) {
            return begun;
        }
        own.insert(begun).clone()
    }

    /// This node's own record, if it has one.
    pub(crate) fn own_record_now(&self) -> Option<Arc<OwnRecord>> {
        lock(&self.own).clone()
    }

    /// Whether `record` is still the node's own; else one has begun anew.
    pub(crate) fn is_own(&self, record: &Arc<OwnRecord>) -> bool {
        lock(&self.own).as_ref().is_some_and(|own| Arc::ptr_eq(own, record))
    }
}

impl Drop for Circuit {
    fn drop(&mut self) {
        metering::state(&self.base, *lock(&self.state), None);
        if lock(&self.others).in_force {
            metering::settings_differ(&self.base, -1.0);
        }
    }
}
