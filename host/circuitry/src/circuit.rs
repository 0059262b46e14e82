//! [`Circuit`]: what this process keeps of one circuit, and the outcomes that wait to be settled together.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use circuitry_store::Loaded;
use tokio::sync::{Semaphore, oneshot};

use crate::call::{Completion, Grant, Ruling};
use crate::context::Context;
use crate::error::Error;
use crate::finishing::Finishing;
use crate::metering;
use crate::outcome::{Disposition, Outcome, Settlement};
use crate::state::State;

/// The most completions of one call, as `wit/` says.
const COMPLETIONS_MAX: usize = 256;
/// The most permits in one completion, as `wit/` says.
const RUN_MAX: u32 = 65_536;

/// What somebody who ended work is told.
pub(crate) type Settled = Result<Settlement, Error>;

/// What this process keeps of one circuit. Nothing in it is needed: a circuit forgotten costs one load.
#[derive(Debug)]
pub(crate) struct Circuit {
    /// The circuit's name, as it is shared.
    pub(crate) name: Arc<str>,
    /// The name given to `breaker_for`.
    pub(crate) base: Arc<str>,
    pub(crate) context: Context,
    /// How many looks, overrides and renewals of this circuit may be under way at once, so that one that hangs leaves
    /// instances to others.
    pub(crate) calls: Semaphore,
    known: Mutex<Option<Loaded>>,
    ends: Mutex<Ends>,
    state: Mutex<Option<State>>,
}

/// Outcomes that wait, and who settles them.
#[derive(Default)]
struct Ends {
    waiting: Vec<Ended>,
    /// Somebody settles: the one who ended first, or a task.
    settling: bool,
    /// Others wait too, so the settling must not wait until the first one is polled again.
    hurried: bool,
    /// The settling, while the one who ended first is not just polling it, and its number.
    settler: Option<(u64, Finishing<()>)>,
    /// The number of the last settling.
    last_settler: u64,
}

impl fmt::Debug for Ends {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Ends").field("settling", &self.settling).finish_non_exhaustive()
    }
}

/// One outcome that waits, and who wants to know.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) grant: Grant,
    pub(crate) outcome: Outcome,
    pub(crate) reply: oneshot::Sender<Settled>,
}

/// Outcomes that go to the store in one swap.
#[derive(Debug)]
pub(crate) struct Batch {
    pub(crate) completions: Vec<Completion>,
    replies: Vec<Ended>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Every change under these locks is whole before anything can panic.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Circuit {
    pub(crate) fn new(name: Arc<str>, base: Arc<str>, context: Context, calls: usize) -> Self {
        Self {
            name,
            base,
            context,
            calls: Semaphore::new(calls),
            known: Mutex::default(),
            ends: Mutex::default(),
            state: Mutex::default(),
        }
    }

    /// The entry last seen in the store, without the time at which it was seen.
    pub(crate) fn known(&self) -> Option<Loaded> {
        lock(&self.known).clone()
    }

    /// Remembers the entry last seen in the store.
    pub(crate) fn saw(&self, seen: Loaded) {
        *lock(&self.known) = Some(Loaded { now_ms: None, ..seen });
    }

    /// Notes the state for the gauges.
    pub(crate) fn saw_state(&self, state: State) {
        let mut seen = lock(&self.state);
        if *seen != Some(state) {
            metering::state(&self.base, *seen, Some(state));
            *seen = Some(state);
        }
    }

    /// Adds an outcome; gives the number of the settling that the caller has to do. If another one settles, that goes on in
    /// a task now.
    pub(crate) fn ended(&self, ended: Ended) -> Option<u64> {
        let mut ends = lock(&self.ends);
        ends.waiting.push(ended);
        if !ends.settling {
            (ends.settling, ends.hurried) = (true, false);
            ends.last_settler = ends.last_settler.wrapping_add(1);
            return Some(ends.last_settler);
        }
        ends.hurried = true;
        let settler = ends.settler.take();
        drop(ends);
        drop(settler);
        None
    }

    /// Keeps the settling until it is polled; says whether it is kept, or goes on in a task because others wait.
    pub(crate) fn keep_settler(&self, number: u64, settler: Finishing<()>) -> bool {
        let mut ends = lock(&self.ends);
        if ends.hurried {
            drop(ends);
            drop(settler);
            return false;
        }
        ends.settler = Some((number, settler));
        true
    }

    /// Takes the settling of this number, to poll it or to let it go on in a task.
    pub(crate) fn take_settler(&self, number: u64) -> Option<Finishing<()>> {
        lock(&self.ends).settler.take_if(|(own, _)| *own == number).map(|(_, settler)| settler)
    }

    /// Whether outcomes wait. If none does, the settling has ended: the next one who ends begins it anew.
    pub(crate) fn has_waiting(&self) -> bool {
        let mut ends = lock(&self.ends);
        ends.settling = !ends.waiting.is_empty();
        ends.settling
    }

    /// Takes what waits, as much as fits into one call; `None` ends the settling.
    pub(crate) fn next_batch(&self) -> Option<Batch> {
        let mut ends = lock(&self.ends);
        if ends.waiting.is_empty() {
            ends.settling = false;
            return None;
        }
        let mut completions: Vec<Completion> = Vec::new();
        let mut taken = 0;
        for ended in &ends.waiting {
            let full = completions.len() == COMPLETIONS_MAX;
            let run = completions.last_mut().filter(|last| {
                ended.grant.probe.is_none()
                    && last.grant == ended.grant
                    && last.outcome == ended.outcome
                    && last.count < RUN_MAX
            });
            match run {
                Some(run) => run.count += 1,
                None if full => break,
                None => completions.push(Completion { grant: ended.grant, outcome: ended.outcome, count: 1 }),
            }
            taken += 1;
        }
        let replies = ends.waiting.drain(..taken).collect();
        Some(Batch { completions, replies })
    }
}

impl Drop for Circuit {
    fn drop(&mut self) {
        metering::state(&self.base, *lock(&self.state), None);
    }
}

impl Batch {
    /// Tells everybody what became of their outcome: of a run the first ones are accepted. Nobody is told twice.
    pub(crate) fn settle(&mut self, circuit: &Circuit, rulings: &[Ruling], local: bool) {
        let dispositions = rulings.iter().flat_map(|ruling| {
            let accepted = std::iter::repeat_n(Disposition::Accepted, ruling.accepted as usize);
            accepted.chain(std::iter::repeat_n(Disposition::Stale, ruling.stale as usize))
        });
        // A component that rules on too few leaves the rest unsettled.
        let dispositions = dispositions.chain(std::iter::repeat(Disposition::Unsettled));
        for (ended, disposition) in self.replies.drain(..).zip(dispositions) {
            ended.tell(circuit, Settlement { disposition, local });
        }
    }

    /// Tells everybody the same.
    pub(crate) fn settle_all(&mut self, circuit: &Circuit, settlement: Settlement) {
        for ended in self.replies.drain(..) {
            ended.tell(circuit, settlement);
        }
    }

    /// Tells everybody of an error.
    pub(crate) fn fail(&mut self, error: &Error) {
        for ended in self.replies.drain(..) {
            // Who no longer waits does not want to know.
            let _ = ended.reply.send(Err(error.clone()));
        }
    }

    /// How many outcomes there are in it.
    pub(crate) fn outcomes(&self) -> u64 {
        self.completions.iter().map(|completion| u64::from(completion.count)).sum()
    }
}

impl Ended {
    fn tell(self, circuit: &Circuit, settlement: Settlement) {
        metering::outcome(&circuit.base, self.outcome, settlement);
        // Who no longer waits does not want to know.
        let _ = self.reply.send(Ok(settlement));
    }
}
