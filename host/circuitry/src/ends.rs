//! [`Ends`]: the outcomes that wait to be settled together on one record, and who settles them.

use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use crate::call::{Completion, Grant, Ruling};
use crate::circuit::Circuit;
use crate::error::Error;
use crate::finishing::Finishing;
use crate::metering;
use crate::outcome::{Disposition, Outcome, Settlement};

/// The most completions of one call, as `wit/` says.
pub(crate) const COMPLETIONS_MAX: usize = 256;
/// The most permits in one completion, as `wit/` says.
pub(crate) const RUN_MAX: u32 = 65_536;

/// What somebody who ended work is told.
pub(crate) type Settled = Result<Settlement, Error>;

/// The outcomes that wait to be settled on one record.
#[derive(Debug, Default)]
pub(crate) struct Ends {
    queue: Mutex<Queue>,
}

/// Outcomes that wait, and who settles them.
#[derive(Default)]
struct Queue {
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

impl fmt::Debug for Queue {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Queue").field("settling", &self.settling).finish_non_exhaustive()
    }
}

/// One outcome that waits, and who wants to know.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) grant: Grant,
    pub(crate) outcome: Outcome,
    pub(crate) slow: bool,
    pub(crate) reply: oneshot::Sender<Settled>,
}

/// Outcomes that go to the record in one swap.
#[derive(Debug)]
pub(crate) struct Batch {
    pub(crate) completions: Vec<Completion>,
    replies: Vec<Ended>,
}

impl Ends {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        // Every change under this lock is whole before anything can panic.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds an outcome; gives the number of the settling that the caller has to do. If another one settles, that goes on in
    /// a task now.
    pub(crate) fn push(&self, ended: Ended) -> Option<u64> {
        let mut queue = self.queue();
        queue.waiting.push(ended);
        if !queue.settling {
            (queue.settling, queue.hurried) = (true, false);
            queue.last_settler = queue.last_settler.wrapping_add(1);
            return Some(queue.last_settler);
        }
        queue.hurried = true;
        let settler = queue.settler.take();
        drop(queue);
        drop(settler);
        None
    }

    /// Keeps the settling until it is polled; says whether it is kept, or goes on in a task because others wait.
    pub(crate) fn keep_settler(&self, number: u64, settler: Finishing<()>) -> bool {
        let mut queue = self.queue();
        if queue.hurried {
            drop(queue);
            drop(settler);
            return false;
        }
        queue.settler = Some((number, settler));
        true
    }

    /// Takes the settling of this number, to poll it or to let it go on in a task.
    pub(crate) fn take_settler(&self, number: u64) -> Option<Finishing<()>> {
        self.queue().settler.take_if(|(own, _)| *own == number).map(|(_, settler)| settler)
    }

    /// Whether outcomes wait. If none does, the settling has ended: the next one who ends begins it anew.
    pub(crate) fn has_waiting(&self) -> bool {
        let mut queue = self.queue();
        queue.settling = !queue.waiting.is_empty();
        queue.settling
    }

    /// Takes what waits, as much as fits into one call; `None` ends the settling.
    pub(crate) fn next_batch(&self) -> Option<Batch> {
        let mut queue = self.queue();
        if queue.waiting.is_empty() {
            queue.settling = false;
            return None;
        }
        let mut completions: Vec<Completion> = Vec::new();
        let mut taken = 0;
        for ended in &queue.waiting {
            let full = completions.len() == COMPLETIONS_MAX;
            let run = completions.last_mut().filter(|last| {
                ended.grant.probe.is_none()
                    && last.grant == ended.grant
                    && last.outcome == ended.outcome
                    && last.slow == ended.slow
                    && last.count < RUN_MAX
            });
            match run {
                Some(run) => run.count += 1,
                None if full => break,
                None => {
                    let Ended { grant, outcome, slow, .. } = *ended;
                    completions.push(Completion { grant, outcome, slow, count: 1 });
                }
            }
            taken += 1;
        }
        let replies = queue.waiting.drain(..taken).collect();
        Some(Batch { completions, replies })
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
