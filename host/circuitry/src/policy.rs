//! Policies: when a circuit trips, for how long it opens, and how it recovers; all of them together are [`CircuitSettings`].

use std::time::Duration;

/// The default of [`CircuitSettings::retry_after_max`], as `wit/` says.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(600);

/// Which calls of a closed circuit a rule looks at. Every entry into *closed* begins all windows anew; ignored outcomes are in
/// none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Window {
    /// The last so many calls: 1 to 1,024.
    Calls(u32),
    /// The calls of the last so long, at least 1 ms; kept in at most 20 buckets, so a call leaves the window with its bucket.
    Time(Duration),
    /// All calls, each with a weight that halves with every so long; at least 1 ms. It needs no more room for a long memory
    /// than for a short one.
    Decaying(Duration),
}

/// When a closed circuit trips.
///
/// A rule over failures is asked after each failure, [`TripRule::SlowCallRate`] after each slow call. *At least* the threshold
/// trips; the consecutive failures have to be *over* theirs, as in sony/gobreaker.
///
/// # Example
/// ```
/// # use std::time::Duration;
/// # use circuitry::{Settings, TripRule, Window};
/// // Half of the last 100 calls, once there were 20; or ten failures in a row.
/// let settings = Settings::builder().failure_count_threshold(9).trip_rules([
///     TripRule::FailureRate { per_mille: 500, window: Window::Calls(100), minimum_calls: 20 },
///     TripRule::ConsecutiveFailures { minimum_calls: 0 },
/// ]);
/// # settings.build().unwrap();
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TripRule {
    /// When the failures in a row are over [`failure_count_threshold`](crate::SettingsBuilder::failure_count_threshold).
    ConsecutiveFailures {
        /// The rule sleeps until so many calls were counted in this generation; 0 never sleeps.
        minimum_calls: u32,
    },
    /// When the window has so many failures.
    FailureCount {
        /// So many; at least 1, and for [`Window::Calls`] not above its size.
        failures: u32,
        /// Which calls.
        window: Window,
        /// The rule sleeps until so many calls are in the window; at least 1, and for [`Window::Calls`] not above its size.
        minimum_calls: u32,
    },
    /// When so large a share of the calls in the window are failures.
    FailureRate {
        /// The share, per mille: 1 to 1,000.
        per_mille: u32,
        /// Which calls.
        window: Window,
        /// As in [`TripRule::FailureCount`].
        minimum_calls: u32,
    },
    /// When so large a share of the calls in the window were slow, whether they failed or not. Needs
    /// [`slow_call_after`](crate::SettingsBuilder::slow_call_after).
    SlowCallRate {
        /// The share, per mille: 1 to 1,000.
        per_mille: u32,
        /// Which calls.
        window: Window,
        /// As in [`TripRule::FailureCount`].
        minimum_calls: u32,
    },
    /// When a function says so. It is given with [`trip_fn`](crate::SettingsBuilder::trip_fn), not as a value; here it is for
    /// who reads the rules of a circuit.
    Custom {
        /// The function's name: 1 to 64 bytes.
        name: String,
        /// Its version.
        version: u32,
    },
}

/// Open times that grow from trip to trip.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Backoff {
    /// Each trip in a row opens for so many per mille of the time before: 1,000 to 100,000. A failed probe is a trip; 2,000
    /// doubles.
    pub factor_per_mille: u32,
    /// The longest open time; not below [`allow_after`](crate::SettingsBuilder::allow_after).
    pub max: Duration,
    /// A circuit that has been closed for so long begins with `allow_after` again.
    pub healthy_after: Duration,
}

/// What becomes of a half-open phase that takes too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Overdue {
    /// It opens again; that is a trip.
    Opens,
    /// It closes.
    Closes,
}

/// The end of a half-open phase that its probes do not end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct HalfOpenLimit {
    /// How long the phase may take; at least 1 ms.
    pub after: Duration,
    /// What follows.
    pub then: Overdue,
}

/// How the load comes back after a recovery. The state is *closed* all the while; a failure puts it one step back.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Ramp {
    /// The share that is admitted in each step, per mille: 1 to 8 steps of 1 to 999, each above the one before. After the last
    /// all are admitted.
    pub steps_per_mille: Vec<u32>,
    /// How long a step takes; at least 1 ms.
    pub step: Duration,
}

/// Nodes decide for themselves, and together for the fleet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Quorum {
    /// So many nodes with a live vote trip the circuit: 1 to 32.
    pub votes: u32,
    /// How long a vote lives; at least 1 ms.
    pub window: Duration,
}

/// How a circuit behaves: what the processes of a fleet share of their [`Settings`](crate::Settings).
///
/// The record of a circuit holds the settings in force: those of the process that made it, and later those of each that makes a
/// transition or a reset and has no lower revision. Every process decides by these.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct CircuitSettings {
    /// How many consecutive failures a closed circuit bears.
    pub failure_count_threshold: u64,
    /// How many successful probes close the circuit.
    pub close_threshold: u32,
    /// How long an open circuit refuses.
    pub allow_after: Duration,
    /// How long the counts of a closed circuit live; `None`: until it trips.
    pub cyclic_clear_after: Option<Duration>,
    /// How long the lease of a probe lasts.
    pub probe_timeout: Duration,
    /// How long a record is kept after the last thing in it that matters. Not shared: each process says its own.
    pub idle_retention: Duration,
    /// When it trips: any of these.
    pub trip_rules: Vec<TripRule>,
    /// A call that took longer is slow; `None`: none is.
    pub slow_call_after: Option<Duration>,
    /// Open times that grow; `None`: each takes `allow_after`.
    pub backoff: Option<Backoff>,
    /// An open time is up to so many per mille shorter.
    pub jitter_per_mille: u32,
    /// The most that a dependency's wish to be left alone counts; zero: it does not count.
    pub retry_after_max: Duration,
    /// How many probes a half-open phase has; `None`: `close_threshold`.
    pub probes: Option<u32>,
    /// How many probes may be out at once; `None`: all of them.
    pub probes_at_once: Option<u32>,
    /// How long a half-open phase may take; `None`: as long as it takes.
    pub half_open_limit: Option<HalfOpenLimit>,
    /// How the load comes back; `None`: at once.
    pub ramp: Option<Ramp>,
    /// Whether nodes vote; `None`: all outcomes count on the shared record.
    pub quorum: Option<Quorum>,
    /// By which an older deployment does not bring its own settings back.
    pub settings_revision: u64,
}

impl CircuitSettings {
    /// What holds where nothing is set; without a trip rule, which the builder adds.
    pub(crate) fn unset() -> Self {
        Self {
            failure_count_threshold: 5,
            close_threshold: 1,
            allow_after: Duration::from_secs(60),
            cyclic_clear_after: None,
            probe_timeout: Duration::from_secs(30),
            idle_retention: Duration::from_secs(24 * 3_600),
            trip_rules: Vec::new(),
            slow_call_after: None,
            backoff: None,
            jitter_per_mille: 0,
            retry_after_max: RETRY_AFTER_MAX,
            probes: None,
            probes_at_once: None,
            half_open_limit: None,
            ramp: None,
            quorum: None,
            settings_revision: 0,
        }
    }

    /// What holds where nothing is set, with the rule that the builder adds then.
    pub(crate) fn by_default() -> Self {
        Self { trip_rules: vec![TripRule::ConsecutiveFailures { minimum_calls: 0 }], ..Self::unset() }
    }

    /// Whether nothing is set that goes beyond the reference: the component need not be told of policies then.
    pub(crate) fn has_default_policies(&self) -> bool {
        // Asked with each call, so nothing is made to compare with.
        matches!(self.trip_rules[..], [TripRule::ConsecutiveFailures { minimum_calls: 0 }])
            && self.slow_call_after.is_none()
            && self.backoff.is_none()
            && self.jitter_per_mille == 0
            && self.retry_after_max == RETRY_AFTER_MAX
            && self.probes.is_none()
            && self.probes_at_once.is_none()
            && self.half_open_limit.is_none()
            && self.ramp.is_none()
            && self.quorum.is_none()
    }

    /// How long an open circuit may refuse at most.
    pub(crate) fn longest_open_time(&self) -> Duration {
        let grown = self.backoff.map_or(self.allow_after, |backoff| backoff.max);
        // Jitter only shortens; a dependency that says when it is back is believed up to its limit.
        self.allow_after.max(grown).max(self.retry_after_max)
    }

    /// The names of the settings that are others in `other`, as the builder has them.
    pub(crate) fn differing_from(&self, other: &Self) -> Vec<&'static str> {
        let differs = [
            ("failure_count_threshold", self.failure_count_threshold != other.failure_count_threshold),
            ("close_threshold", self.close_threshold != other.close_threshold),
            ("allow_after", self.allow_after != other.allow_after),
            ("cyclic_clear_after", self.cyclic_clear_after != other.cyclic_clear_after),
            ("probe_timeout", self.probe_timeout != other.probe_timeout),
            ("trip_rules", self.trip_rules != other.trip_rules),
            ("slow_call_after", self.slow_call_after != other.slow_call_after),
            ("backoff", self.backoff != other.backoff),
            ("jitter_per_mille", self.jitter_per_mille != other.jitter_per_mille),
            ("retry_after_max", self.retry_after_max != other.retry_after_max),
            ("probes", self.probes != other.probes),
            ("probes_at_once", self.probes_at_once != other.probes_at_once),
            ("half_open_limit", self.half_open_limit != other.half_open_limit),
            ("ramp", self.ramp != other.ramp),
            ("quorum", self.quorum != other.quorum),
            ("settings_revision", self.settings_revision != other.settings_revision),
        ];
        differs.into_iter().filter_map(|(name, differs)| differs.then_some(name)).collect()
    }
}

/// The length in whole milliseconds, rounded up, so that one above zero does not become zero. All lengths in
/// [`CircuitSettings`] are such.
pub(crate) fn in_whole_ms(length: Duration) -> Duration {
    Duration::from_millis(whole_ms(length))
}

/// Whole milliseconds, rounded up; the largest number for what is longer.
pub(crate) fn whole_ms(length: Duration) -> u64 {
    u64::try_from(length.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX)
}

impl TripRule {
    pub(crate) fn in_whole_ms(mut self) -> Self {
        match &mut self {
            Self::FailureCount { window, .. }
            | Self::FailureRate { window, .. }
            | Self::SlowCallRate { window, .. } => match window {
                Window::Time(length) | Window::Decaying(length) => *length = in_whole_ms(*length),
                Window::Calls(_) => {}
            },
            Self::ConsecutiveFailures { .. } | Self::Custom { .. } => {}
        }
        self
    }
}
