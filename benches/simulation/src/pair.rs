//! What a process keeps of one circuit.

use std::rc::Rc;

use circuitry_core::request::{COMPLETIONS_MAX, RUN_MAX};
use circuitry_core::{Completion, Outcome};

use crate::rules::Stored;

/// What a process keeps of one circuit.
#[derive(Default)]
pub(crate) struct Pair {
    /// The entry last seen in the store.
    pub(crate) base: Option<Rc<Stored>>,
    /// When it was asked for.
    pub(crate) base_at_us: u64,
    /// The base with outcomes of this process, where they were applied.
    pub(crate) view: Option<Rc<Stored>>,
    /// What the view says to starts.
    pub(crate) standing: Standing,
    /// Outcomes that wait to be told, as runs.
    pub(crate) queue: Vec<Completion>,
    /// How many there are, and how many of these are in the view.
    queued: u32,
    applied: u32,
    /// Whether there is more in the queue than successes, which change nothing on a closed circuit.
    pub(crate) notable: bool,
    /// When the first of the queue came.
    pub(crate) oldest_at_us: u64,
    /// Starts that wait for an answer of the store.
    pub(crate) waiting: u32,
    /// An exchange is under way.
    pub(crate) busy: bool,
    /// A start was answered since the base was asked for.
    pub(crate) used: bool,
    /// The outcomes are to be told at once.
    pub(crate) urgent: bool,
    /// The view has a transition that is not stored.
    pub(crate) ahead: bool,
    /// An announcement came while an exchange was under way.
    pub(crate) told: bool,
    /// The one timer that counts.
    pub(crate) timer_at_us: Option<u64>,
    /// What is due is due by so much of a thousand earlier; see [`crate::scenario::Bounded::spread_per_mille`].
    pub(crate) early_per_mille: u32,
    /// Outcomes wait so many times longer; see [`crate::scenario::Bounded::eases_to_us`].
    pub(crate) patience: u32,
    /// … and until then at least.
    pub(crate) not_before_us: u64,
    /// From when on every start was refused in the incident.
    pub(crate) refuses_at_us: Option<u64>,
    /// The last permit of an era before the first trip.
    pub(crate) last_permit_at_us: Option<u64>,
}

/// What a view says to starts, as long as it is the same view.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Standing {
    /// Nobody has asked.
    #[default]
    Unasked,
    /// Permits of this era.
    Admits(u64),
    /// Refusals until then.
    Refuses(u64),
}

/// Adds an outcome to runs of equal ones.
fn push_run(runs: &mut Vec<Completion>, completion: Completion) {
    let run = runs.last_mut().filter(|last| {
        completion.probe.is_none()
            && last.probe.is_none()
            && last.era == completion.era
            && last.outcome == completion.outcome
            && last.count < RUN_MAX
    });
    match run {
        Some(run) => run.count += 1,
        None => runs.push(completion),
    }
}

fn is_notable(completion: &Completion) -> bool {
    completion.outcome != Outcome::Success || completion.probe.is_some()
}

impl Pair {
    /// What starts are answered from.
    pub(crate) fn seen(&self) -> Option<Rc<Stored>> {
        self.view.as_ref().or(self.base.as_ref()).cloned()
    }

    pub(crate) fn is_fresh(&self, now_us: u64, max_staleness_us: u64) -> bool {
        self.base.is_some() && now_us <= self.base_at_us + max_staleness_us
    }

    /// Replaces the base; what waits is not in it.
    pub(crate) fn rebase(&mut self, base: Rc<Stored>, asked_at_us: u64) {
        self.base = Some(base);
        self.base_at_us = asked_at_us;
        self.view = None;
        self.applied = 0;
        self.standing = Standing::Unasked;
        self.used = false;
        self.ahead = false;
    }

    /// Replaces the view by what is about to be stored; what waits is not in it.
    pub(crate) fn expect(&mut self, view: Rc<Stored>) {
        self.view = Some(view);
        self.applied = 0;
        self.standing = Standing::Unasked;
    }

    pub(crate) fn has_outcomes(&self) -> bool {
        self.queued > 0
    }

    pub(crate) fn push(&mut self, completion: Completion, now_us: u64) {
        if self.queued == 0 {
            self.oldest_at_us = now_us;
        }
        self.notable |= is_notable(&completion);
        self.queued += completion.count;
        push_run(&mut self.queue, completion);
    }

    /// Takes what fits into one call, and since when the first of it waits.
    pub(crate) fn take(&mut self) -> (Vec<Completion>, u64) {
        let rest = self.queue.split_off(self.queue.len().min(COMPLETIONS_MAX));
        let taken = std::mem::replace(&mut self.queue, rest);
        self.queued = self.queue.iter().map(|run| run.count).sum();
        self.applied = 0;
        self.notable = self.queue.iter().any(is_notable);
        // What is left did not wait longer; told so, its wait is not made shorter than it is.
        (taken, self.oldest_at_us)
    }

    /// Puts back what was taken and not told.
    pub(crate) fn put_back(&mut self, mut taken: Vec<Completion>, oldest_at_us: u64) {
        // A run that was one before it was taken apart may stay two.
        taken.append(&mut self.queue);
        self.queue = taken;
        self.queued = self.queue.iter().map(|run| run.count).sum();
        self.applied = 0;
        self.notable = self.queue.iter().any(is_notable);
        self.oldest_at_us = oldest_at_us;
    }

    /// What waits and is not in the view yet, which it counts as from now on; as calls that are not too long.
    pub(crate) fn unapplied(&mut self) -> Vec<Vec<Completion>> {
        let mut left = self.queued - self.applied;
        self.applied = self.queued;
        let mut runs = Vec::new();
        for run in self.queue.iter().rev() {
            if left == 0 {
                break;
            }
            let count = run.count.min(left);
            left -= count;
            runs.push(Completion { count, ..*run });
        }
        runs.reverse();
        runs.chunks(COMPLETIONS_MAX).map(<[Completion]>::to_vec).collect()
    }
}
