//! [`Clock`]: milliseconds since the Unix epoch, from the system or from a test.

use std::fmt::Debug;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use tokio::time::Instant;

/// A source of time in milliseconds since the Unix epoch.
pub trait Clock: Debug + Send + Sync + 'static {
    /// The time now, in milliseconds since the Unix epoch.
    fn now_ms(&self) -> u64;

    /// Where the time always stands, for who reads it more often than a call allows. `None`, the default: nowhere, ask for it.
    fn cell(&self) -> Option<Arc<AtomicU64>> {
        None
    }
}

impl<C: Clock + ?Sized> Clock for Arc<C> {
    fn now_ms(&self) -> u64 {
        (**self).now_ms()
    }

    fn cell(&self) -> Option<Arc<AtomicU64>> {
        (**self).cell()
    }
}

/// The system's time as it was when the clock was made, carried on by the monotonic clock.
///
/// It never steps, so a correction of the machine's clock neither opens nor closes a circuit. In a test under tokio's
/// paused time it follows that time.
#[derive(Clone, Debug)]
pub struct SystemClock {
    origin: Instant,
    origin_ms: u64,
}

impl SystemClock {
    /// Anchors the clock at the system's time.
    pub fn new() -> Self {
        // A system clock before 1970 reads as 1970: late, never a panic.
        let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Self { origin: Instant::now(), origin_ms: u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX) }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    fn now_ms(&self) -> u64 {
        let elapsed_ms = u64::try_from(self.origin.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.origin_ms.saturating_add(elapsed_ms)
    }
}

/// A clock that stands still until it is moved. Clones share their time.
///
/// # Example
/// ```
/// use circuitry_store::{Clock, ManualClock};
/// let clock = ManualClock::at_ms(1_000);
/// clock.advance_ms(60_000);
/// assert_eq!(clock.now_ms(), 61_000);
/// ```
#[derive(Clone, Debug)]
pub struct ManualClock {
    now_ms: Arc<AtomicU64>,
}

impl ManualClock {
    /// Makes a clock that shows `now_ms`.
    pub fn at_ms(now_ms: u64) -> Self {
        Self { now_ms: Arc::new(AtomicU64::new(now_ms)) }
    }

    /// Sets the clock, forwards or backwards.
    pub fn set_ms(&self, now_ms: u64) {
        self.now_ms.store(now_ms, Ordering::SeqCst);
    }

    /// Moves the clock forwards; it stops at the largest time.
    pub fn advance_ms(&self, by_ms: u64) {
        let forward = |now_ms: u64| Some(now_ms.saturating_add(by_ms));
        // The closure never declines, so there is no error to look at.
        let _ = self.now_ms.fetch_update(Ordering::SeqCst, Ordering::SeqCst, forward);
    }
}

impl Clock for ManualClock {
    fn now_ms(&self) -> u64 {
        self.now_ms.load(Ordering::SeqCst)
    }

    fn cell(&self) -> Option<Arc<AtomicU64>> {
        Some(self.now_ms.clone())
    }
}
