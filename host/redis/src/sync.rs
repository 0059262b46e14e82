//! What `link/driving.rs` is made of. Its schedules are explored with loom's in its place; see `tests/tests/schedules.rs`.

pub(crate) mod atomic {
    pub(crate) use std::sync::atomic::{AtomicBool, Ordering};
}
pub(crate) use std::sync::{Mutex, MutexGuard};
