//! The same work on several threads at once.

use std::future::Future;
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use tokio::runtime::Handle;

/// Runs `work` on so many threads at once, each outside of the runtime's own; gives the time of the one that took longest.
///
/// `work` is given the thread's number. What it does in a task of its own runs on `runtime`.
///
/// # Panics
/// Where the work panics.
pub fn at_once<F: Future<Output = ()>>(
    runtime: &Handle,
    threads: usize,
    work: impl Fn(usize) -> F + Sync,
) -> Duration {
    let (barrier, work) = (&Barrier::new(threads), &work);
    thread::scope(|scope| {
        let threads: Vec<_> = (0..threads)
            .map(|number| {
                scope.spawn(move || {
                    let mine = work(number);
                    barrier.wait();
                    // Not the time that the threads take to start.
                    let begun = Instant::now();
                    runtime.block_on(mine);
                    begun.elapsed()
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().expect("no panic")).max().unwrap_or_default()
    })
}
