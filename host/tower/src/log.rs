//! [`Log`]: what is told of circuits that cannot be asked.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use circuitry::StartError;

/// Logs circuits that cannot be asked, one line for many: every call to such a circuit fails.
#[derive(Clone, Debug, Default)]
pub(crate) struct Log {
    last: Arc<Mutex<Option<Instant>>>,
}

impl Log {
    const EVERY: Duration = Duration::from_secs(10);

    pub(crate) fn note(&self, error: &StartError) {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if last.is_none_or(|last| last.elapsed() >= Self::EVERY) {
            *last = Some(Instant::now());
            tracing::warn!(%error, "calls are refused: a circuit cannot be asked");
        }
    }
}
