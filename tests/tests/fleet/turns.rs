//! Who runs beside whom: tests that are about time, or that take the whole machine, run alone.

use tokio::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};

static TURNS: RwLock<()> = RwLock::const_new(());

/// Waits until no other test of this binary runs, and lets none begin.
pub(crate) async fn alone() -> RwLockWriteGuard<'static, ()> {
    TURNS.write().await
}

/// Waits until no test runs that wants to be alone.
pub(crate) async fn together() -> RwLockReadGuard<'static, ()> {
    TURNS.read().await
}
