//! The same work on several threads at once.

use std::future::Future;
use std::hint::spin_loop;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use tokio::runtime::Handle;

/// Runs `work` on so many threads at once, each outside of the runtime's own; gives the time from the moment at which all of them
/// begin to the end of the last.
///
/// `work` is given the thread's number. What it does in a task of its own runs on `runtime`.
///
/// The threads wait for each other awake: one that a barrier has put to sleep is woken late, by more than short work takes, and
/// the others would have the circuit for themselves meanwhile.
///
/// # Panics
/// Where the work panics.
pub fn at_once<F: Future<Output = ()>>(
    runtime: &Handle,
    threads: usize,
    work: impl Fn(usize) -> F + Sync,
) -> Duration {
    let (ready, work) = (&AtomicUsize::new(0), &work);
    thread::scope(|scope| {
        let threads: Vec<_> = (0..threads)
            .map(|number| {
                scope.spawn(move || {
                    let mine = work(number);
                    runtime.block_on(async {
                        ready.fetch_add(1, Ordering::SeqCst);
                        while ready.load(Ordering::SeqCst) < threads {
                            spin_loop();
                        }
                        let begun = Instant::now();
                        mine.await;
                        (begun, Instant::now())
                    })
                })
            })
            .collect();
        let times: Vec<_> = threads.into_iter().map(|thread| thread.join().expect("no panic")).collect();
        let begun = times.iter().map(|(begun, _)| *begun).min();
        let ended = times.iter().map(|(_, ended)| *ended).max();
        begun.zip(ended).map_or(Duration::ZERO, |(begun, ended)| ended.duration_since(begun))
    })
}
