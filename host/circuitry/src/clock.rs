//! [`StoreClock`]: store time, as well as this process knows it.

use std::sync::{Arc, Mutex, PoisonError};

use circuitry_store::Clock;

/// A sample is held for so long against ones that look earlier: their answers were only longer under way.
const SAMPLE_HELD_MS: u64 = 10_000;

/// The host's clock, put right by what the store's answers tell. Through an outage it goes on as it was.
#[derive(Clone, Debug)]
pub(crate) struct StoreClock {
    base: Arc<dyn Clock>,
    sample: Arc<Mutex<Option<Sample>>>,
}

#[derive(Clone, Copy, Debug)]
struct Sample {
    /// Store time less base time, in milliseconds.
    offset_ms: i64,
    /// When it was taken, in base time.
    taken_ms: u64,
}

impl StoreClock {
    pub(crate) fn new(base: Arc<dyn Clock>) -> Self {
        Self { base, sample: Arc::default() }
    }

    /// A store time as a time of the host's clock.
    pub(crate) fn in_base_time(&self, store_ms: u64) -> u64 {
        let sample = *self.sample.lock().unwrap_or_else(PoisonError::into_inner);
        let offset_ms = sample.map_or(0, |sample| sample.offset_ms);
        u64::try_from((i128::from(store_ms) - i128::from(offset_ms)).max(0)).unwrap_or(u64::MAX)
    }

    /// Whether an answer has told the store's time.
    pub(crate) fn is_told(&self) -> bool {
        self.sample.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// Takes the store's time, as an answer that just came in tells it.
    ///
    /// The answer was under way for a while, so the store's time is that or later: of two samples the later one is
    /// nearer to the truth, until it is old.
    pub(crate) fn learn(&self, store_ms: u64) {
        let base_ms = self.base.now_ms();
        let difference = i128::from(store_ms) - i128::from(base_ms);
        let offset_ms = i64::try_from(difference).unwrap_or(if difference < 0 { i64::MIN } else { i64::MAX });
        let mut sample = self.sample.lock().unwrap_or_else(PoisonError::into_inner);
        let held = sample.filter(|held| base_ms.saturating_sub(held.taken_ms) < SAMPLE_HELD_MS);
        if held.is_none_or(|held| offset_ms > held.offset_ms) {
            *sample = Some(Sample { offset_ms, taken_ms: base_ms });
        }
    }
}

impl Clock for StoreClock {
    fn now_ms(&self) -> u64 {
        let sample = *self.sample.lock().unwrap_or_else(PoisonError::into_inner);
        self.base.now_ms().saturating_add_signed(sample.map_or(0, |sample| sample.offset_ms))
    }
}

#[cfg(test)]
mod tests {
    use circuitry_store::ManualClock;

    use super::*;

    fn clock_at(now_ms: u64) -> (ManualClock, StoreClock) {
        let base = ManualClock::at_ms(now_ms);
        (base.clone(), StoreClock::new(Arc::new(base)))
    }

    #[test]
    fn the_stores_time_counts_not_the_hosts() {
        let (base, clock) = clock_at(1_000_000);
        clock.learn(400_000);
        base.advance_ms(5);
        assert_eq!(clock.now_ms(), 400_005);
    }

    #[test]
    fn a_slow_answer_does_not_set_the_clock_back() {
        let (base, clock) = clock_at(1_000);
        clock.learn(9_000);
        base.advance_ms(500);
        clock.learn(9_100);
        assert_eq!(clock.now_ms(), 9_500);
    }

    #[test]
    fn an_old_sample_gives_way_to_a_new_one() {
        let (base, clock) = clock_at(1_000);
        clock.learn(9_000);
        base.advance_ms(SAMPLE_HELD_MS);
        clock.learn(12_000);
        assert_eq!(clock.now_ms(), 12_000);
    }

    #[test]
    fn absurd_times_saturate() {
        let (base, clock) = clock_at(u64::MAX);
        clock.learn(0);
        assert!(clock.now_ms() > 0);
        base.set_ms(0);
        clock.learn(u64::MAX);
        base.set_ms(u64::MAX);
        assert_eq!(clock.now_ms(), u64::MAX);
    }
}
