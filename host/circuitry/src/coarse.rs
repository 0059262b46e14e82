//! [`CoarseClock`]: the time as one load, for those who may not even ask the system.
//!
//! A thread of its own writes it, and not a task: a runtime that is blocked must not make a grant last longer. The thread runs
//! only while somebody has a grant that it could end; parked, it has left a time behind at which all of them are over.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::thread::{self, Thread};
use std::time::Duration;

use circuitry_store::Clock;

/// How often the time is written.
const TICK: Duration = Duration::from_millis(5);
/// By how much the time may be behind, in milliseconds: two ticks, since a thread is seldom woken at once.
const BEHIND_MS: u64 = 10;

/// The time of a clock, a few milliseconds behind it at most while it is needed.
#[derive(Debug)]
pub(crate) struct CoarseClock {
    cell: Arc<AtomicU64>,
    /// None where the clock itself writes the cell.
    writer: Option<Arc<Writer>>,
}

#[derive(Debug)]
struct Writer {
    needed_until_ms: AtomicU64,
    parked: AtomicBool,
    thread: OnceLock<Thread>,
}

impl CoarseClock {
    /// # Errors
    /// Where the system has no thread to give.
    pub(crate) fn of(clock: Arc<dyn Clock>) -> io::Result<Self> {
        if let Some(cell) = clock.cell() {
            return Ok(Self { cell, writer: None });
        }
        let cell = Arc::new(AtomicU64::new(clock.now_ms()));
        let writer = Arc::new(Writer {
            needed_until_ms: AtomicU64::new(0),
            parked: AtomicBool::new(false),
            thread: OnceLock::new(),
        });
        let (own, written) = (Arc::downgrade(&writer), cell.clone());
        let handle = thread::Builder::new()
            .name("circuitry-time".into())
            .spawn(move || write(&own, &written, &*clock))?;
        // It was just made, so it is empty.
        let _ = writer.thread.set(handle.thread().clone());
        Ok(Self { cell, writer: Some(writer) })
    }

    /// The time, in milliseconds since the Unix epoch.
    #[inline]
    pub(crate) fn now_ms(&self) -> u64 {
        self.cell.load(Ordering::Relaxed)
    }

    /// By how much it may be behind: what is to end in time has to end so much earlier here.
    pub(crate) fn behind_ms(&self) -> u64 {
        if self.writer.is_some() { BEHIND_MS } else { 0 }
    }

    /// Keeps the time going until `until_ms` is over.
    pub(crate) fn keep_until(&self, until_ms: u64) {
        let Some(writer) = &self.writer else { return };
        writer.needed_until_ms.fetch_max(until_ms, Ordering::SeqCst);
        if writer.parked.load(Ordering::SeqCst) {
            writer.wake();
        }
    }
}

impl Drop for CoarseClock {
    fn drop(&mut self) {
        if let Some(writer) = self.writer.take() {
            let thread = writer.thread.get().cloned();
            // The thread ends as soon as it finds the writer gone.
            drop(writer);
            if let Some(thread) = thread {
                thread.unpark();
            }
        }
    }
}

impl Writer {
    fn wake(&self) {
        if let Some(thread) = self.thread.get() {
            thread.unpark();
        }
    }

    fn is_needed(&self, now_ms: u64) -> bool {
        self.needed_until_ms.load(Ordering::SeqCst) >= now_ms
    }
}

fn write(writer: &Weak<Writer>, cell: &AtomicU64, clock: &dyn Clock) {
    loop {
        let now_ms = clock.now_ms();
        cell.store(now_ms, Ordering::Relaxed);
        // Not kept while it sleeps, so that the clock can go.
        let Some(own) = writer.upgrade() else { return };
        if own.is_needed(now_ms) {
            drop(own);
            thread::sleep(TICK);
            continue;
        }
        own.parked.store(true, Ordering::SeqCst);
        // Who needed it before that flag was set has not woken anybody.
        let needed = own.is_needed(now_ms);
        drop(own);
        if !needed {
            thread::park();
        }
        let Some(own) = writer.upgrade() else { return };
        own.parked.store(false, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use circuitry_store::{ManualClock, SystemClock};

    use super::*;

    #[test]
    fn a_clock_that_a_test_moves_is_read_at_once() {
        let clock = ManualClock::at_ms(5);
        let coarse = CoarseClock::of(Arc::new(clock.clone())).unwrap();
        clock.advance_ms(7);
        assert_eq!((coarse.now_ms(), coarse.behind_ms()), (12, 0));
    }

    #[test]
    fn whoever_needs_it_sees_the_time_pass_though_it_was_parked() {
        let clock = Arc::new(SystemClock::new());
        let coarse = CoarseClock::of(clock.clone()).unwrap();
        for _ in 0..5 {
            let until_ms = clock.now_ms() + 20;
            coarse.keep_until(until_ms);
            let begun = Instant::now();
            while coarse.now_ms() <= until_ms {
                assert!(begun.elapsed() < Duration::from_secs(60), "the time stands still");
                thread::sleep(TICK);
            }
        }
    }

    #[test]
    fn its_thread_ends_with_it() {
        let coarse = CoarseClock::of(Arc::new(SystemClock::new())).unwrap();
        let cell = Arc::downgrade(&coarse.cell);
        drop(coarse);
        let begun = Instant::now();
        while cell.strong_count() > 0 {
            assert!(begun.elapsed() < Duration::from_secs(60), "the thread goes on");
            thread::sleep(TICK);
        }
    }
}
