//! What [`crate::grant`] and [`crate::gathering`] are made of. Their schedules are explored with loom's in its place; see
//! `tests/tests/schedules.rs`.

pub(crate) mod atomic {
    pub(crate) use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
}
pub(crate) use std::sync::{Mutex, MutexGuard, OnceLock};

/// Runs a test; elsewhere once for each schedule.
#[cfg(test)]
pub(crate) fn explore(test: impl Fn() + Send + Sync + 'static) {
    test();
}
