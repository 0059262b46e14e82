//! [`StoreClock`]: the store's time.

use wasip2::clocks::{monotonic_clock, wall_clock};

use crate::wait::NS_OF_MS;

/// The store's time: as it was told, and what has passed since.
#[derive(Clone, Copy)]
pub(crate) struct StoreClock {
    told_ms: u64,
    at_ns: u64,
}

impl StoreClock {
    /// Where the store tells no time, the machine's has to do.
    pub(crate) fn new(told: Option<u64>) -> Self {
        Self { told_ms: told.unwrap_or_else(wall_ms), at_ns: monotonic_clock::now() }
    }

    pub(crate) fn learn(&mut self, told: Option<u64>) {
        if let Some(told_ms) = told {
            *self = Self { told_ms, at_ns: monotonic_clock::now() };
        }
    }

    pub(crate) fn now_ms(self) -> u64 {
        let passed_ns = monotonic_clock::now().saturating_sub(self.at_ns);
        self.told_ms.saturating_add(passed_ns.checked_div(NS_OF_MS).unwrap_or_default())
    }
}

fn wall_ms() -> u64 {
    let now = wall_clock::now();
    let milliseconds = u64::from(now.nanoseconds).checked_div(NS_OF_MS).unwrap_or_default();
    now.seconds.saturating_mul(1_000).saturating_add(milliseconds)
}
