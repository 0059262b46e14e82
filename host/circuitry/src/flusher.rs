//! [`Flusher`]: the circuits in use in bounded mode, and the one task of a process that flushes and refreshes them.

use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::sync::Notify;
use tokio::time::sleep;

use crate::bounded::{Bounded, Flushed, flush_next, load};
use crate::call::Problem;
use crate::circuit::Circuit;
use crate::node::{Node, is_outage};
use crate::runtime::asking::Deadline;
use crate::settling::pause;
use crate::view::Plan;

/// So many flushes and loads may be under way at once.
pub(crate) const UNDER_WAY_MAX: usize = 64;
/// The task looks so often within the time in which something becomes due.
const LOOKS: u32 = 8;

/// The circuits in use, and the task that flushes and refreshes them.
#[derive(Debug, Default)]
pub(crate) struct Flusher {
    circuits: Mutex<Vec<Arc<Circuit>>>,
    /// Those that are to be flushed now.
    urgent: Mutex<Vec<Arc<Circuit>>>,
    wake: Notify,
    runs: AtomicBool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Every change under these locks is whole before anything can panic.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Flusher {
    pub(crate) fn add(self: &Arc<Self>, node: &Arc<Node>, circuit: &Arc<Circuit>) {
        lock(&self.circuits).push(circuit.clone());
        self.run(node);
    }

    /// Flushes at once: an outcome would trip the circuit.
    fn hurry(self: &Arc<Self>, node: &Arc<Node>, circuit: &Arc<Circuit>) {
        lock(&self.urgent).push(circuit.clone());
        self.run(node);
    }

    /// Somebody says that the circuit has changed: where it is in use it is asked for at once.
    pub(crate) fn changed(self: &Arc<Self>, node: &Arc<Node>, circuit: &Arc<Circuit>) {
        if circuit.grants.is_listed() {
            circuit.with_view(|view| view.doubt(circuit));
            self.hurry(node, circuit);
        }
    }

    fn run(self: &Arc<Self>, node: &Arc<Node>) {
        if !self.runs.swap(true, Ordering::AcqRel) {
            node.tasks.spawn(run(self.clone(), Arc::downgrade(node)));
        }
        self.wake.notify_one();
    }

    /// The circuits that are looked after.
    pub(crate) fn circuits(&self) -> Vec<Arc<Circuit>> {
        lock(&self.circuits).clone()
    }

    /// Wakes the task, so that it finds its node gone.
    pub(crate) fn stop(&self) {
        self.wake.notify_one();
    }

    /// What is due now, at most `most`; circuits that nobody uses are left.
    fn due(&self, node: &Node, bounded: &Bounded, most: usize) -> Vec<(Arc<Circuit>, Plan)> {
        let (now_ms, down) = (node.settings.clock.now_ms(), node.outage.is_down());
        let mut due = Vec::new();
        for circuit in std::mem::take(&mut *lock(&self.urgent)) {
            let plan = circuit.with_view(|view| view.plan(bounded, &circuit, now_ms, down));
            // One under way is followed by another look.
            if matches!(plan, Plan::Flush | Plan::Load) {
                due.push((circuit, plan));
            }
        }
        let mut left = Vec::new();
        let mut circuits = lock(&self.circuits);
        let mut looked_at = 0;
        circuits.retain(|circuit| {
            if due.len() >= most {
                return true;
            }
            looked_at += 1;
            match circuit.with_view(|view| view.plan(bounded, circuit, now_ms, down)) {
                Plan::Wait => true,
                Plan::Leave => {
                    circuit.grants.unlist();
                    // Somebody may have counted just before.
                    let is_used = circuit.has_outcomes() && !circuit.grants.list();
                    if !is_used {
                        left.push(circuit.clone());
                    }
                    is_used
                }
                plan => {
                    due.push((circuit.clone(), plan));
                    true
                }
            }
        });
        // Those that there was no room for are the first to be looked at next time.
        let kept = looked_at - left.len();
        circuits.rotate_left(kept);
        drop(circuits);
        for circuit in left {
            circuit.forget(now_ms);
        }
        due
    }
}

async fn run(flusher: Arc<Flusher>, node: Weak<Node>) {
    let mut under_way = FuturesUnordered::new();
    loop {
        let pause = {
            let Some(own) = node.upgrade() else { return };
            let Some(bounded) = &own.bounded else { return };
            let room = UNDER_WAY_MAX.saturating_sub(under_way.len());
            for (circuit, plan) in flusher.due(&own, bounded, room) {
                under_way.push(look_after(own.clone(), circuit, plan));
            }
            let every = Duration::from_millis(bounded.due_ms) / LOOKS;
            (!lock(&flusher.circuits).is_empty()).then(|| every.max(Duration::from_millis(1)))
        };
        let idle = async {
            match pause {
                Some(pause) => sleep(pause).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = flusher.wake.notified() => {}
            Some(()) = under_way.next(), if !under_way.is_empty() => {}
            () = idle => {}
        }
    }
}

/// Does what was planned. A store that panics costs what was under way, and not the task.
async fn look_after(node: Arc<Node>, circuit: Arc<Circuit>, plan: Plan) {
    let mut plan = Some(plan);
    while let Some(next) = plan.take() {
        let work = async {
            match next {
                Plan::Flush => {
                    let flushed = match circuit.turn(Deadline::within(node.patience())).await {
                        Ok(turn) => flush_next(&node, &circuit, &turn).await,
                        Err(_busy) => Flushed::Later,
                    };
                    if flushed != Flushed::Some {
                        pause().await;
                    }
                }
                _ => match refresh(&node, &circuit).await {
                    Err(problem) if is_outage(&problem) => node.enter_outage(&circuit, &problem),
                    // Who starts next is told.
                    Ok(()) | Err(_) => {}
                },
            }
        };
        if AssertUnwindSafe(work).catch_unwind().await.is_err() {
            tracing::error!(circuit = &*circuit.name, "the store's code panicked");
        }
        if circuit.with_view(|view| view.done(&node, &circuit)) {
            plan = Some(Plan::Flush);
        }
    }
}

async fn refresh(node: &Node, circuit: &Circuit) -> Result<(), Problem> {
    let deadline = Deadline::within(node.patience());
    let turn = circuit.turn(deadline).await?;
    load(node, circuit, &turn, deadline).await
}
