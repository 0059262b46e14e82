//! How circuits behave: the settings that a fleet shares. The component checks their bounds.
//!
//! Where an idea is taken from is said with the setting.

use std::sync::Arc;
use std::time::Duration;

use super::SettingsBuilder;
use crate::policy::{Backoff, CircuitSettings, HalfOpenLimit, Overdue, Quorum, Ramp, TripRule, in_whole_ms};
use crate::settings::{Hook, TripInformation};

impl SettingsBuilder {
    fn shared(self, setting: &str, change: impl FnOnce(&mut CircuitSettings)) -> Self {
        self.set(setting, |settings| change(&mut settings.rules))
    }

    // ---- when it trips ----

    /// How many consecutive failures a closed circuit bears; one more trips it. Default 5 (as sony/gobreaker).
    pub fn failure_count_threshold(self, failures: u64) -> Self {
        self.shared("failure_count_threshold", |rules| rules.failure_count_threshold = failures)
    }

    /// When a closed circuit trips: any of these, at most 4 with the [`trip_fn`](Self::trip_fn).
    ///
    /// Default, also with none: [`TripRule::ConsecutiveFailures`]. Windows of calls and of time, minimum calls and the slow-call rate are
    /// Resilience4j's, the decaying window is that of Finagle's failure accrual.
    pub fn trip_rules(self, rules: impl IntoIterator<Item = TripRule>) -> Self {
        let given = rules.into_iter().map(TripRule::in_whole_ms).collect();
        self.shared("trip_rules", |rules| rules.trip_rules = given)
    }

    /// A trip rule of your own, asked after each failure of a closed circuit. It must be pure and the same in every
    /// process; `name` (1 to 64 bytes) and `version` stand for it, so raise the version when you change it. Where the settings
    /// in force name another, or the function panics, the rule of [`default_trip_fn`](Self::default_trip_fn) stands in for it.
    ///
    /// With [`trip_rules`](Self::trip_rules) it is one rule more, alone it is the only one.
    pub fn trip_fn(
        self,
        name: impl Into<String>,
        version: u32,
        trips: impl Fn(&TripInformation) -> bool + Send + Sync + 'static,
    ) -> Self {
        self.set("trip_fn", |settings| {
            settings.hook = Some(Arc::new(Hook { name: name.into(), version, trips: Arc::new(trips) }));
        })
    }

    /// Trips when the consecutive failures are over the threshold. This is the default; with
    /// [`trip_rules`](Self::trip_rules) it is one rule more.
    pub fn default_trip_fn(self) -> Self {
        self.set("trip_fn", |_| {})
    }

    /// A call that took longer is slow, whatever came of it; at least 1 ms. Measured from the start's answer to the call of
    /// `end`. With [`TripRule::SlowCallRate`], which needs it, a probe that was slow has failed. Default: none is (as in
    /// Resilience4j, where it is `slowCallDurationThreshold`).
    pub fn slow_call_after(self, duration: Duration) -> Self {
        self.shared("slow_call_after", |rules| rules.slow_call_after = Some(in_whole_ms(duration)))
    }

    /// How long the counts of a closed circuit live from their first write on; at least 1 ms. Windows forget by themselves and
    /// are not touched by it. Default: until it trips.
    pub fn cyclic_clear_after(self, counted_for: Duration) -> Self {
        self.shared("cyclic_clear_after", |rules| rules.cyclic_clear_after = Some(in_whole_ms(counted_for)))
    }

    // ---- for how long it opens ----

    /// How long an open circuit refuses before it lets probes through; at least 1 ms. Default 60 s.
    pub fn allow_after(self, open_for: Duration) -> Self {
        self.shared("allow_after", |rules| rules.allow_after = in_whole_ms(open_for))
    }

    /// Open times that grow from trip to trip, up to a longest one. Default: each takes
    /// [`allow_after`](Self::allow_after). The usual exponential backoff; that a healthy time ends it is Envoy's outlier detection.
    pub fn backoff(self, backoff: Backoff) -> Self {
        let Backoff { factor_per_mille, max, healthy_after } = backoff;
        let backoff =
            Backoff { factor_per_mille, max: in_whole_ms(max), healthy_after: in_whole_ms(healthy_after) };
        self.shared("backoff", |rules| rules.backoff = Some(backoff))
    }

    /// An open time is up to so many per mille shorter: 0 to 1,000. By the circuit's name and era, so every process has the same
    /// and a thousand tenants do not come back together. Default 0. (After Amazon's "Exponential Backoff And Jitter".)
    pub fn jitter_per_mille(self, most: u32) -> Self {
        self.shared("jitter_per_mille", |rules| rules.jitter_per_mille = most)
    }

    /// The most that [`Outcome::FailureRetryAfter`](crate::Outcome::FailureRetryAfter) counts: so long a dependency may ask to be
    /// left alone when that failure opens the circuit. Zero: it does not count. Default 10 min. (HTTP's `Retry-After`.)
    pub fn retry_after_max(self, most: Duration) -> Self {
        self.shared("retry_after_max", |rules| rules.retry_after_max = in_whole_ms(most))
    }

    // ---- how it recovers ----

    /// How many successful probes close the circuit: 1 to 64. Default 1.
    ///
    /// Without [`probes`](Self::probes) it is also how many a half-open phase has, so one that fails opens the circuit again.
    pub fn close_threshold(self, probes: u32) -> Self {
        self.shared("close_threshold", |rules| rules.close_threshold = probes)
    }

    /// How many probes a half-open phase has: [`close_threshold`](Self::close_threshold) to 64. The circuit opens again as soon as
    /// too many have failed for the threshold to be reached. Default: the threshold, so all must succeed. (Resilience4j's
    /// `permittedNumberOfCallsInHalfOpenState`.)
    pub fn probes(self, probes: u32) -> Self {
        self.shared("probes", |rules| rules.probes = Some(probes))
    }

    /// How many probes may be out at once, in the whole fleet: 1 to the number of probes. Default: all of them.
    pub fn probes_at_once(self, probes: u32) -> Self {
        self.shared("probes_at_once", |rules| rules.probes_at_once = Some(probes))
    }

    /// How long the lease of a probe lasts; it is renewed while the work runs, so this is how long a killed worker
    /// holds its place. Work that hangs holds it for ten times as long. At least 1 ms. Default 30 s.
    pub fn probe_timeout(self, lease: Duration) -> Self {
        self.shared("probe_timeout", |rules| rules.probe_timeout = in_whole_ms(lease))
    }

    /// How long a half-open phase may take, at least 1 ms, and what follows then. Default: as long as it takes. (Resilience4j's
    /// `maxWaitDurationInHalfOpenState`.)
    pub fn half_open_limit(self, after: Duration, then: Overdue) -> Self {
        let limit = HalfOpenLimit { after: in_whole_ms(after), then };
        self.shared("half_open_limit", |rules| rules.half_open_limit = Some(limit))
    }

    /// How the load comes back when the circuit has closed. Others are refused as
    /// [`RefusalReason::Ramp`](crate::RefusalReason::Ramp). Default: all at once. (The slow start of load balancers.)
    pub fn ramp(self, ramp: Ramp) -> Self {
        let ramp = Ramp { step: in_whole_ms(ramp.step), ..ramp };
        self.shared("ramp", |rules| rules.ramp = Some(ramp))
    }

    // ---- the fleet ----

    /// Nodes decide for themselves, and so many of them for the fleet. Needs [`node_id`](Self::node_id). Default: all outcomes
    /// count on the shared record.
    ///
    /// Each node keeps a record of its own and refuses alone when that is open
    /// ([`RefusalReason::NodeOpen`](crate::RefusalReason::NodeOpen)): a node with a broken network does not stop the others. When
    /// it opens the node votes; enough votes within the window open the circuit for all. Its own record begins anew with every
    /// change of the shared state. (Redis Sentinel's way from *subjectively* to *objectively down*.) It also costs no write for
    /// an outcome.
    pub fn quorum(self, quorum: Quorum) -> Self {
        let quorum = Quorum { window: in_whole_ms(quorum.window), ..quorum };
        self.shared("quorum", |rules| rules.quorum = Some(quorum))
    }

    /// The revision of these settings. Default 0. Raise it whenever you change them: a process with a lower one does not bring
    /// its own settings back while both are deployed. Which settings are in force is in
    /// [`Information`](crate::Information::settings_in_force).
    pub fn settings_revision(self, revision: u64) -> Self {
        self.shared("settings_revision", |rules| rules.settings_revision = revision)
    }

    /// How long a record is kept after the last thing in it that matters; at least 1 ms. Default 24 h. Not shared: each process
    /// says its own.
    pub fn idle_retention(self, kept_for: Duration) -> Self {
        self.shared("idle_retention", |rules| rules.idle_retention = in_whole_ms(kept_for))
    }
}
