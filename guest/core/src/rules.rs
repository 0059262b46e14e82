//! When a closed circuit trips: each rule finds the first of several equal calls with which it does.
//!
//! A rule is asked after each call that it counts against, and goes on to hold with every further one, so the first call of a
//! run that trips can be searched for. Which of several rules trips is the one with the earliest call, or the first of these.

use crate::exchange::{Hooks, TripQuery};
use crate::record::{Counts, TripKind};
use crate::settings::{CustomRule, Settings, TripRule, WHOLE_PER_MILLE, WindowedRule};
use crate::window::{Counted, Sums, Windows};

/// A closed circuit's counts, before the calls that are asked about.
pub(crate) struct Seen<'a> {
    pub(crate) circuit: &'a str,
    pub(crate) settings: &'a Settings,
    pub(crate) generation: u64,
    pub(crate) counts: Counts,
    pub(crate) windows: &'a Windows,
    pub(crate) now_ms: u64,
}

/// What a rule found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Finding {
    pub(crate) kind: TripKind,
    pub(crate) observed: u64,
    pub(crate) threshold: u64,
    pub(crate) calls: u64,
}

/// Failures or slow calls of a window's calls, per mille.
fn per_mille(part: u64, calls: u64) -> u64 {
    part.saturating_mul(WHOLE_PER_MILLE.into()).checked_div(calls).unwrap_or(0)
}

/// Whether a share is at least a threshold, without rounding.
fn reaches(part: u64, calls: u64, threshold: u32) -> bool {
    u128::from(part).saturating_mul(WHOLE_PER_MILLE.into())
        >= u128::from(calls).saturating_mul(threshold.into())
}

fn finding(rule: &TripRule, windowed: &WindowedRule, sums: Sums) -> Finding {
    let unit = windowed.window.unit();
    let whole = |weight: u64| weight.checked_div(unit).unwrap_or(0);
    let (kind, observed) = match rule {
        TripRule::FailureCount(_) => (TripKind::FailureCount, whole(sums.failures)),
        TripRule::SlowCallRate(_) => (TripKind::SlowCallRate, per_mille(sums.slow, sums.calls)),
        _ => (TripKind::FailureRate, per_mille(sums.failures, sums.calls)),
    };
    Finding { kind, observed, threshold: windowed.threshold.into(), calls: whole(sums.calls) }
}

impl Seen<'_> {
    /// The number of the first of `counted` calls that trips (from 1 on), and what was found.
    pub(crate) fn first_trip(&self, counted: Counted, hooks: &mut dyn Hooks) -> Option<(u32, Finding)> {
        let mut first: Option<(u32, Finding)> = None;
        let mut custom = None;
        for rule in self.settings.rules() {
            let found = match rule {
                TripRule::ConsecutiveFailures { minimum_calls } if counted.failed => {
                    self.first_in_a_row(*minimum_calls, counted.count)
                }
                TripRule::FailureCount(windowed) | TripRule::FailureRate(windowed) if counted.failed => {
                    self.first_in_window(rule, windowed, counted)
                }
                TripRule::SlowCallRate(windowed) if counted.slow => {
                    self.first_in_window(rule, windowed, counted)
                }
                TripRule::Custom(rule) if counted.failed => {
                    custom = Some(rule);
                    None
                }
                _ => None,
            };
            if let Some((number, _)) = found
                && first.is_none_or(|(least, _)| number < least)
            {
                first = found;
            }
        }
        // Asked last: with another rule's trip known, it need not be asked about what follows that.
        let least = first.map(|(number, _)| number);
        let by_hook = custom.and_then(|rule| self.first_by_hook(rule, counted.count, least, hooks));
        by_hook.or(first)
    }

    fn first_in_a_row(&self, minimum_calls: u32, count: u32) -> Option<(u32, Finding)> {
        let threshold = self.settings.failure_count_threshold;
        let before = self.counts.consecutive_failures;
        // At least one: with a lowered threshold the next failure trips, not an earlier one.
        let over = threshold.saturating_sub(before).saturating_add(u64::from(threshold >= before)).max(1);
        let enough = u64::from(minimum_calls).saturating_sub(self.counts.total).max(1);
        let number = u32::try_from(over.max(enough)).ok().filter(|number| *number <= count)?;
        let reached = before.saturating_add(number.into());
        if reached <= threshold {
            // Counts stop at their largest value, and a threshold may be there too.
            return None;
        }
        let calls = self.counts.total.saturating_add(number.into());
        let kind = TripKind::ConsecutiveFailures;
        // One more than it bears.
        Some((number, Finding { kind, observed: reached, threshold: threshold.saturating_add(1), calls }))
    }

    fn first_in_window(
        &self,
        rule: &TripRule,
        windowed: &WindowedRule,
        counted: Counted,
    ) -> Option<(u32, Finding)> {
        let unit = windowed.window.unit();
        let least = unit.saturating_mul(windowed.minimum_calls.into());
        let trips = |sums: Sums| {
            sums.calls >= least
                && match rule {
                    TripRule::FailureCount(_) => {
                        sums.failures >= unit.saturating_mul(windowed.threshold.into())
                    }
                    TripRule::SlowCallRate(_) => reaches(sums.slow, sums.calls, windowed.threshold),
                    _ => reaches(sums.failures, sums.calls, windowed.threshold),
                }
        };
        let (number, sums) =
            self.windows.first(self.settings, windowed.window, counted, self.now_ms, trips)?;
        Some((number, finding(rule, windowed, sums)))
    }

    /// Asks the hook about each failure, one by one, as long as no other rule has tripped before.
    fn first_by_hook(
        &self,
        rule: &CustomRule,
        count: u32,
        other: Option<u32>,
        hooks: &mut dyn Hooks,
    ) -> Option<(u32, Finding)> {
        let mut counts = self.counts;
        let asked = other.map_or(count, |other| other.saturating_sub(1));
        for number in 1..=asked {
            counts.fail(1);
            let query = TripQuery {
                circuit: self.circuit,
                rule,
                failure_count_threshold: self.settings.failure_count_threshold,
                generation: self.generation,
                counts,
            };
            if hooks.will_trip(&query) {
                return Some((number, custom(counts)));
            }
        }
        None
    }

    /// What a rule sees now.
    pub(crate) fn state_of(&self, rule: &TripRule) -> Finding {
        match rule {
            TripRule::ConsecutiveFailures { .. } => Finding {
                kind: TripKind::ConsecutiveFailures,
                observed: self.counts.consecutive_failures,
                threshold: self.settings.failure_count_threshold,
                calls: self.counts.total,
            },
            TripRule::Custom(_) => custom(self.counts),
            TripRule::FailureCount(windowed)
            | TripRule::FailureRate(windowed)
            | TripRule::SlowCallRate(windowed) => {
                let sums = self.windows.sums(self.settings, windowed.window, self.now_ms);
                finding(rule, windowed, sums)
            }
        }
    }
}

fn custom(counts: Counts) -> Finding {
    Finding {
        kind: TripKind::Custom,
        observed: counts.consecutive_failures,
        threshold: 0,
        calls: counts.total,
    }
}
