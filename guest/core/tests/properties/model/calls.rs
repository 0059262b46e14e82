//! Every call that a closed circuit counted, and what a rule finds when it looks at them.
//!
//! Nothing is rolled, evicted or decayed: a window is read off the list of all calls each time.

use circuitry_core::TripRule;
use circuitry_core::settings::{Window, WindowedRule};

/// Equal calls that came together.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Calls {
    pub(crate) era: u64,
    pub(crate) at: u64,
    pub(crate) failed: bool,
    pub(crate) slow: bool,
    pub(crate) times: u64,
}

/// What is in a window. Only decaying weights are not whole.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Seen {
    pub(crate) calls: f64,
    pub(crate) failures: f64,
    pub(crate) slow: f64,
    /// Whether a weight is below one, so that the core's arithmetic may round.
    pub(crate) rounded: bool,
}

/// Whether a rule is for a trip. Where weights are rounded, near its bounds either answer is right.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Opinion {
    No,
    Either,
    Yes,
}

impl Seen {
    fn add(&mut self, calls: &Calls, each: f64) {
        let weight = calls.times as f64 * each;
        self.calls += weight;
        self.failures += if calls.failed { weight } else { 0.0 };
        self.slow += if calls.slow { weight } else { 0.0 };
        self.rounded |= each < 1.0;
    }

    /// What the rule has found, in the unit of its threshold.
    pub(crate) fn found(&self, rule: &TripRule) -> f64 {
        let rate = |part: f64| if self.calls == 0.0 { 0.0 } else { part * 1_000.0 / self.calls };
        match rule {
            TripRule::FailureRate(_) => rate(self.failures),
            TripRule::SlowCallRate(_) => rate(self.slow),
            _ => self.failures,
        }
    }

    pub(crate) fn opinion(&self, rule: &TripRule, windowed: &WindowedRule) -> Opinion {
        let (threshold, minimum) = (f64::from(windowed.threshold), f64::from(windowed.minimum_calls));
        let enough = match rule {
            // Whole numbers far below 2^53: exact.
            TripRule::FailureRate(_) => self.failures * 1_000.0 >= threshold * self.calls,
            TripRule::SlowCallRate(_) => self.slow * 1_000.0 >= threshold * self.calls,
            _ => self.failures >= threshold,
        };
        // All calls are all calls, however they are rounded.
        let whole = self.found(rule) == 1_000.0 && !matches!(rule, TripRule::FailureCount(_));
        let near_threshold = !whole && near(self.found(rule), threshold);
        if self.rounded && (near_threshold || near(self.calls, minimum)) {
            let far_below = |value: f64, bound: f64| value < bound && !near(value, bound);
            let no = far_below(self.found(rule), threshold) || far_below(self.calls, minimum);
            return if no { Opinion::No } else { Opinion::Either };
        }
        if enough && self.calls >= minimum { Opinion::Yes } else { Opinion::No }
    }
}

/// Within half a per mille or a five-hundredth of a call.
pub(crate) fn near(value: f64, bound: f64) -> bool {
    (value - bound).abs() <= (bound * 0.0005).max(0.002)
}

/// What is in `window` of all these calls, of one stay in closed. Looked at `now`, or with its newest call.
pub(crate) fn look(window: Window, all: &[Calls], now: Option<u64>) -> Seen {
    let mut seen = Seen::default();
    match window {
        Window::Calls(size) => {
            let mut room = u64::from(size);
            for calls in all.iter().rev() {
                let times = calls.times.min(room);
                room -= times;
                seen.add(&Calls { times, ..*calls }, 1.0);
            }
        }
        Window::Time(length) => {
            let bucket = length.div_ceil(20);
            let buckets = length.div_ceil(bucket);
            let place = |at: u64| u128::from(at / bucket);
            for (age, calls) in aged(all, now, place, buckets.into()) {
                if age < u128::from(buckets) {
                    seen.add(&calls, 1.0);
                }
            }
        }
        Window::Decaying(half_life) => {
            let place = |at: u64| step(at, half_life);
            for (age, calls) in aged(all, now, place, 16) {
                seen.add(&calls, (-(age as f64) / 16.0).exp2());
            }
        }
    }
    seen
}

/// When the last of these calls has been in a window of time for its length, or weighs half.
pub(crate) fn leaves_at(window: Window, all: &[Calls], now: u64) -> Option<u64> {
    let newest = |place: &dyn Fn(u64) -> u128, too_late: u128| {
        aged(all, None, place, too_late).into_iter().map(|(_, calls)| calls.at.min(now)).max()
    };
    match window {
        Window::Calls(_) => None,
        Window::Time(length) => {
            let bucket = length.div_ceil(20);
            let buckets = length.div_ceil(bucket);
            let newest = newest(&|at| u128::from(at / bucket), buckets.into());
            newest.map(|at| at.saturating_add(length))
        }
        Window::Decaying(half_life) => {
            let place = |at: u64| step(at, half_life);
            newest(&place, 16).map(|at| at.saturating_add(half_life))
        }
    }
}

/// Sixteenths of the half-life since the epoch. With half-lives below 16 ms no time passes from the year 36 million on.
fn step(at: u64, half_life: u64) -> u128 {
    (u128::from(at) * 16 / u128::from(half_life)).min(u64::MAX.into())
}

/// All calls with their ages in buckets or steps. Who comes late comes with the newest, unless it is so late that the
/// window begins anew with it.
fn aged(all: &[Calls], now: Option<u64>, place: impl Fn(u64) -> u128, too_late: u128) -> Vec<(u128, Calls)> {
    let mut newest = None;
    let mut placed = vec![];
    for calls in all {
        let at = place(calls.at);
        let begins_anew = newest.is_some_and(|newest: u128| newest.saturating_sub(at) >= too_late);
        if begins_anew {
            placed.clear();
            newest = None;
        }
        newest = newest.max(Some(at));
        placed.push((at.max(newest.unwrap()), *calls));
    }
    let Some(newest) = newest else { return vec![] };
    let seen_from = now.map_or(newest, &place);
    if newest.saturating_sub(seen_from) >= too_late {
        return vec![];
    }
    let seen_from = seen_from.max(newest);
    placed.into_iter().map(|(at, calls)| (seen_from - at, calls)).collect()
}

/// The first of `times` equal calls of which `holds` is true; more of them never make it false again, for a run adds
/// only what counts against the circuit, and pushes out at most as much.
pub(crate) fn first_that(times: u64, holds: impl Fn(u64) -> bool) -> Option<u64> {
    if !holds(times) {
        return None;
    }
    let (mut not, mut does) = (0, times);
    while does - not > 1 {
        let middle = not + (does - not) / 2;
        if holds(middle) { does = middle } else { not = middle }
    }
    Some(does)
}
