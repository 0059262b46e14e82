//! [`Settings`]: how a circuit behaves, and which settings can be used.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::ops::RangeInclusive;

/// The bounds of `close_threshold`: every probe that is out is in the record, so there is a limit to them.
pub const CLOSE_THRESHOLD_BOUNDS: RangeInclusive<u32> = 1..=64;
/// The most bytes of a custom rule's name.
pub const RULE_NAME_MAX_BYTES: usize = 64;
/// The most rules of one circuit.
pub const RULES_MAX: usize = 4;
/// The most calls of a window of calls: each is two bits in the record.
pub const WINDOW_CALLS_MAX: u32 = 1_024;
/// The most steps of a ramp.
pub const RAMP_STEPS_MAX: usize = 8;
/// The most votes that trip: each is in the record.
pub const VOTES_MAX: u32 = 32;
/// By default an upstream's wish to be left alone counts for ten minutes.
pub const RETRY_AFTER_MAX_MS: u64 = 600_000;
/// The rules where none are given.
static DEFAULT_RULES: [TripRule; 1] = [TripRule::CONSECUTIVE_FAILURES];
/// The whole, in per mille.
pub const WHOLE_PER_MILLE: u32 = 1_000;

/// The name and version that stand for a rule of the user's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CustomRule {
    /// 1 to [`RULE_NAME_MAX_BYTES`] bytes.
    pub name: String,
    /// Raised by the user whenever the rule changes.
    pub version: u32,
}

/// Which calls of a closed circuit a rule looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Window {
    /// The last so many calls.
    Calls(u32),
    /// The last so many milliseconds, in buckets.
    Time(u64),
    /// All calls, of which the weight halves with every so many milliseconds.
    Decaying(u64),
}

/// A rule over a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WindowedRule {
    /// Failures, or a share per mille; at least so much trips.
    pub threshold: u32,
    /// The rule sleeps until so many calls are in the window.
    pub minimum_calls: u32,
    /// Which calls.
    pub window: Window,
}

/// When a closed circuit trips.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TripRule {
    /// When the consecutive failures are *over* `failure_count_threshold` (as in the reference: 15 trips on the 16th).
    ConsecutiveFailures {
        /// The rule sleeps until so many calls were counted in this generation.
        minimum_calls: u32,
    },
    /// When the window has so many failures.
    FailureCount(WindowedRule),
    /// When so many per mille of the window's calls are failures.
    FailureRate(WindowedRule),
    /// When so many per mille of the window's calls were slow.
    SlowCallRate(WindowedRule),
    /// When the host's hook says so.
    Custom(CustomRule),
}

impl TripRule {
    /// The reference's rule.
    pub const CONSECUTIVE_FAILURES: Self = Self::ConsecutiveFailures { minimum_calls: 0 };

    /// The rule's window, where it has one.
    pub fn windowed(&self) -> Option<&WindowedRule> {
        match self {
            Self::FailureCount(rule) | Self::FailureRate(rule) | Self::SlowCallRate(rule) => Some(rule),
            Self::ConsecutiveFailures { .. } | Self::Custom(_) => None,
        }
    }
}

/// Open times that grow from trip to trip.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// Each trip in a row opens for so many per mille of the time before.
    pub factor_per_mille: u32,
    /// The longest open time.
    pub max_ms: u64,
    /// A circuit that has been closed for so long begins with the first open time again.
    pub healthy_after_ms: u64,
}

/// What becomes of a half-open phase that takes too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overdue {
    /// It opens again; that is a trip.
    Opens,
    /// It closes.
    Closes,
}

/// The end of a half-open phase that its probes do not end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HalfOpenLimit {
    /// How long the phase may take.
    pub after_ms: u64,
    /// What follows.
    pub then: Overdue,
}

/// How the load comes back after a recovery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ramp {
    /// The share admitted in each step.
    pub steps_per_mille: Vec<u32>,
    /// How long a step takes.
    pub step_ms: u64,
}

/// Nodes decide for themselves, and together for the fleet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quorum {
    /// So many nodes with a live vote trip the circuit.
    pub votes: u32,
    /// How long a vote lives.
    pub window_ms: u64,
}

/// How a circuit behaves. Times are lengths in milliseconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// How many consecutive failures a closed circuit bears.
    pub failure_count_threshold: u64,
    /// How many successful probes close the circuit.
    pub close_threshold: u32,
    /// How long an open circuit refuses.
    pub allow_after_ms: u64,
    /// How long the counts of a closed circuit live from their first write on.
    pub cyclic_clear_after_ms: Option<u64>,
    /// How long a probe's lease lasts.
    pub probe_timeout_ms: u64,
    /// How long a record is kept after the last thing in it that matters. Not shared: each writer says its own.
    pub idle_retention_ms: u64,
    /// When a closed circuit trips: any of these; none: [`TripRule::CONSECUTIVE_FAILURES`]. See [`Settings::rules`].
    pub trip_rules: Vec<TripRule>,
    /// A call that took longer is slow.
    pub slow_call_after_ms: Option<u64>,
    /// Open times that grow.
    pub backoff: Option<Backoff>,
    /// An open time is up to so many per mille shorter.
    pub jitter_per_mille: u32,
    /// The most that an upstream's wish to be left alone counts.
    pub retry_after_max_ms: u64,
    /// How many probes a half-open phase has; `None`: `close_threshold`.
    pub probes: Option<u32>,
    /// How many probes may be out at once; `None`: all of them.
    pub probes_at_once: Option<u32>,
    /// How long a half-open phase may take.
    pub half_open_limit: Option<HalfOpenLimit>,
    /// How the load comes back.
    pub ramp: Option<Ramp>,
    /// Whether nodes vote.
    pub quorum: Option<Quorum>,
    /// Raised by the user with the settings.
    pub settings_revision: u64,
}

impl Default for Settings {
    /// The reference's rule, 60 s open and one probe.
    fn default() -> Self {
        Self {
            failure_count_threshold: 5,
            close_threshold: 1,
            allow_after_ms: 60_000,
            cyclic_clear_after_ms: None,
            probe_timeout_ms: 30_000,
            idle_retention_ms: 86_400_000,
            trip_rules: Vec::new(),
            slow_call_after_ms: None,
            backoff: None,
            jitter_per_mille: 0,
            retry_after_max_ms: RETRY_AFTER_MAX_MS,
            probes: None,
            probes_at_once: None,
            half_open_limit: None,
            ramp: None,
            quorum: None,
            settings_revision: 0,
        }
    }
}

/// A setting that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SettingsError {
    /// The field's name, as it is in WIT.
    pub field: &'static str,
    /// What is wrong and what would do.
    pub problem: String,
}

fn within(field: &'static str, value: u64, bounds: RangeInclusive<u64>) -> Result<(), SettingsError> {
    if bounds.contains(&value) {
        return Ok(());
    }
    let (least, most) = (bounds.start(), bounds.end());
    Err(SettingsError { field, problem: format!("{value} is out of bounds: give it {least} to {most}") })
}

fn lasting(field: &'static str, length_ms: u64) -> Result<(), SettingsError> {
    if length_ms == 0 {
        return Err(SettingsError { field, problem: "it is zero: give it at least 1 ms".into() });
    }
    Ok(())
}

fn wrong(field: &'static str, problem: &str) -> SettingsError {
    SettingsError { field, problem: problem.into() }
}

impl Settings {
    /// The rules, also where none are given.
    pub fn rules(&self) -> &[TripRule] {
        if self.trip_rules.is_empty() { &DEFAULT_RULES } else { &self.trip_rules }
    }

    /// Whether nothing goes beyond the reference, so that all `policies` are by default.
    pub fn has_default_policies(&self) -> bool {
        matches!(self.rules(), [TripRule::ConsecutiveFailures { minimum_calls: 0 }])
            && self.jitter_per_mille == 0
            && self.retry_after_max_ms == RETRY_AFTER_MAX_MS
            && self.slow_call_after_ms.is_none()
            && self.backoff.is_none()
            && self.probes() == self.close_threshold
            && self.probes_at_once() == self.close_threshold
            && self.half_open_limit.is_none()
            && self.ramp.is_none()
            && self.quorum.is_none()
    }

    /// How many probes a half-open phase has.
    pub fn probes(&self) -> u32 {
        self.probes.unwrap_or(self.close_threshold)
    }

    /// How many probes may be out at once.
    pub fn probes_at_once(&self) -> u32 {
        self.probes_at_once.unwrap_or_else(|| self.probes())
    }

    /// Says whether the settings can be used.
    ///
    /// # Errors
    /// The first field that is out of its bounds.
    pub fn check(&self) -> Result<(), SettingsError> {
        let most_probes = u64::from(*CLOSE_THRESHOLD_BOUNDS.end());
        within("close-threshold", self.close_threshold.into(), 1..=most_probes)?;
        lasting("allow-after-ms", self.allow_after_ms)?;
        lasting("cyclic-clear-after-ms", self.cyclic_clear_after_ms.unwrap_or(1))?;
        lasting("probe-timeout-ms", self.probe_timeout_ms)?;
        lasting("idle-retention-ms", self.idle_retention_ms)?;
        self.check_rules()?;
        lasting("slow-call-after-ms", self.slow_call_after_ms.unwrap_or(1))?;
        if let Some(backoff) = &self.backoff {
            within("backoff.factor-per-mille", backoff.factor_per_mille.into(), 1_000..=100_000)?;
            if backoff.max_ms < self.allow_after_ms {
                return Err(wrong(
                    "backoff.max-ms",
                    "it is below allow-after-ms, with which open times begin: raise it",
                ));
            }
        }
        within("jitter-per-mille", self.jitter_per_mille.into(), 0..=1_000)?;
        let least = u64::from(self.close_threshold);
        within("probes", self.probes().into(), least..=most_probes)?;
        within("probes-at-once", self.probes_at_once().into(), 1..=u64::from(self.probes()))?;
        if let Some(limit) = &self.half_open_limit {
            lasting("half-open-limit.after-ms", limit.after_ms)?;
        }
        if let Some(ramp) = &self.ramp {
            ramp.check()?;
        }
        if let Some(quorum) = &self.quorum {
            within("quorum.votes", quorum.votes.into(), 1..=u64::from(VOTES_MAX))?;
            lasting("quorum.window-ms", quorum.window_ms)?;
        }
        Ok(())
    }

    fn check_rules(&self) -> Result<(), SettingsError> {
        const FIELD: &str = "trip-rules";
        let count = self.trip_rules.len();
        if count > RULES_MAX {
            let problem = format!("there are {count}: give {RULES_MAX} at most, any of which trips");
            return Err(SettingsError { field: FIELD, problem });
        }
        let mut customs = 0_u32;
        for rule in &self.trip_rules {
            match rule {
                TripRule::ConsecutiveFailures { .. } => {}
                TripRule::FailureCount(rule) => rule.check("trip-rules.failure-count", u32::MAX)?,
                TripRule::FailureRate(rule) => rule.check("trip-rules.failure-rate", WHOLE_PER_MILLE)?,
                TripRule::SlowCallRate(rule) => {
                    rule.check("trip-rules.slow-call-rate", WHOLE_PER_MILLE)?;
                    if self.slow_call_after_ms.is_none() {
                        let problem = "a rule is slow-call-rate: say from when on a call is slow";
                        return Err(wrong("slow-call-after-ms", problem));
                    }
                }
                TripRule::Custom(rule) => {
                    customs = customs.saturating_add(1);
                    let length = rule.name.len();
                    if !(1..=RULE_NAME_MAX_BYTES).contains(&length) {
                        let problem =
                            format!("the rule's name has {length} bytes: give it 1 to {RULE_NAME_MAX_BYTES}");
                        return Err(SettingsError { field: FIELD, problem });
                    }
                }
            }
        }
        if customs > 1 {
            return Err(wrong(FIELD, "two rules are custom: put both into one"));
        }
        Ok(())
    }

    /// Whether a slow call counts against the circuit.
    pub fn minds_slow_calls(&self) -> bool {
        self.trip_rules.iter().any(|rule| matches!(rule, TripRule::SlowCallRate(_)))
    }
}

impl WindowedRule {
    fn check(&self, field: &'static str, most: u32) -> Result<(), SettingsError> {
        let problem = |problem| Err(SettingsError { field, problem });
        if !(1..=most).contains(&self.threshold) {
            return problem(format!(
                "a threshold of {} is out of bounds: give it 1 to {most}",
                self.threshold
            ));
        }
        if self.minimum_calls == 0 {
            return problem("minimum-calls is 0: give it at least 1".into());
        }
        match self.window {
            Window::Calls(calls) => {
                if !(1..=WINDOW_CALLS_MAX).contains(&calls) {
                    return problem(format!(
                        "a window of {calls} calls is out of bounds: give it 1 to {WINDOW_CALLS_MAX}"
                    ));
                }
                if self.minimum_calls > calls {
                    return problem(format!(
                        "minimum-calls of {} is above the window's {calls} calls, so it would never trip: lower it",
                        self.minimum_calls
                    ));
                }
                if most == u32::MAX && self.threshold > calls {
                    return problem(format!(
                        "a threshold of {} is above the window's {calls} calls, so it would never trip: lower it",
                        self.threshold
                    ));
                }
            }
            Window::Time(0) | Window::Decaying(0) => {
                return problem("the window's length is zero: give it at least 1 ms".into());
            }
            Window::Time(_) | Window::Decaying(_) => {}
        }
        Ok(())
    }
}

impl Ramp {
    fn check(&self) -> Result<(), SettingsError> {
        const FIELD: &str = "ramp.steps-per-mille";
        let count = self.steps_per_mille.len();
        if !(1..=RAMP_STEPS_MAX).contains(&count) {
            let problem = format!("there are {count} steps: give 1 to {RAMP_STEPS_MAX}");
            return Err(SettingsError { field: FIELD, problem });
        }
        let mut before = 0;
        for share in &self.steps_per_mille {
            if !(1..WHOLE_PER_MILLE).contains(share) || *share <= before {
                let problem = format!(
                    "{share} after {before}: give each step 1 to 999 per mille, and more than the one before"
                );
                return Err(SettingsError { field: FIELD, problem });
            }
            before = *share;
        }
        lasting("ramp.step-ms", self.step_ms)
    }
}
