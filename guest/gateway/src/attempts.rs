//! [`Attempts`]: how often a call is tried again, and how long it waits before that.

use wasip2::clocks::monotonic_clock;
use wasip2::random::random::get_random_u64;

use crate::bindings::circuitry::breaker::types::{Error, StoreError};
use crate::wait::{after, pause};

/// How often a call is tried, lost races not counted.
const TRIES_MAX: u32 = 3;
/// The longest wait after a lost race, halved with each further one so often.
const RACE_US: u64 = 4_000;
const HALVINGS_MAX: u32 = 2;

/// How often a call may be tried again, and until when.
pub(crate) struct Attempts {
    deadline_ns: u64,
    failures: u32,
    races: u32,
}

impl Attempts {
    pub(crate) fn new(within_ms: u64) -> Self {
        Self { deadline_ns: after(monotonic_clock::now(), within_ms), failures: 0, races: 0 }
    }

    /// Whether to try again after `error`; waits as long as is good before that.
    pub(crate) fn again(&mut self, error: &Error) -> bool {
        match error {
            Error::Contention => self.waited(500, 8_000),
            // Whether it was written is to be asked soon: the record remembers 32 writes of others.
            Error::Store(StoreError::Unknown(_)) if self.failures == 0 => {
                self.failures = 1;
                self.waited(0, 0)
            }
            Error::Store(StoreError::Unknown(_) | StoreError::Unavailable(_)) => self.again_after_trouble(),
            _ => false,
        }
    }

    pub(crate) fn again_after_trouble(&mut self) -> bool {
        self.failures = self.failures.saturating_add(1);
        self.failures < TRIES_MAX && self.waited(4_000, 20_000)
    }

    /// Whether to try again after a lost race. The first is no wonder, since what was seen last is old. After the others those who
    /// raced spread over a random time, and who has lost often comes first: else newcomers would win for ever.
    pub(crate) fn again_after_a_race(&mut self) -> bool {
        let halvings = self.races.saturating_sub(1).min(HALVINGS_MAX);
        let most_us = if self.races == 0 { 0 } else { RACE_US.checked_shr(halvings).unwrap_or_default() };
        self.races = self.races.saturating_add(1);
        self.waited(0, most_us)
    }

    /// Waits between `least_us` and `most_us` microseconds, if there is so much time.
    fn waited(&self, least_us: u64, most_us: u64) -> bool {
        let spread_us = most_us.saturating_sub(least_us).saturating_add(1);
        let wait_us = least_us.saturating_add(get_random_u64().checked_rem(spread_us).unwrap_or_default());
        let wait_ns = wait_us.saturating_mul(1_000);
        if monotonic_clock::now().saturating_add(wait_ns) >= self.deadline_ns {
            return false;
        }
        pause(wait_ns);
        true
    }
}

/// Of revisions, where there are any.
pub(crate) fn lowest(known: Option<u64>, revision: Option<u64>) -> Option<u64> {
    match (known, revision) {
        (Some(known), Some(revision)) => Some(known.min(revision)),
        (known, revision) => known.or(revision),
    }
}
