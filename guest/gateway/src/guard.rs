//! [`Guard`]: the circuit of one request, asked through `circuitry:breaker`.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use wasip2::clocks::{monotonic_clock, wall_clock};
use wasip2::random::random::get_random_u64;

use crate::bindings::circuitry::breaker::types::{
    Caller, Completion, ConsecutiveRule, Error, JudgedBy, Loaded, Outcome, Permit, Policies, RefusalReason,
    Settings, StoreError, TripRule, Verdict, Window, WindowedRule,
};
use crate::bindings::circuitry::breaker::{breaker, store};
use crate::config::{CircuitSettings, Config};
use crate::log;
use crate::wait::{NS_OF_MS, pause};

/// Set in the numbers of all calls but starts.
const NO_START: u64 = 1 << 63;
/// A ramp admits by the number of a start; at random, its share holds over all requests.
const PHASES: u64 = 1_000;
/// How often a call is tried, lost races not counted.
const TRIES_MAX: u32 = 3;
/// Two for each length of a lease, and ten lengths at most.
const RENEWALS_MAX: u32 = 20;

/// What the circuit says about a request.
#[allow(clippy::large_enum_variant, reason = "there is one at a time")]
pub(crate) enum Admission {
    /// It may go, and its outcome counts where the permit says so.
    Admitted(Guard),
    Refused {
        reason: &'static str,
        retry_after_ms: u64,
    },
    /// The store does not say.
    StoreDown,
    /// A setting that cannot be used.
    Misconfigured(String),
    /// No circuit has such a name.
    NoCircuit,
}

/// A request that was admitted.
pub(crate) struct Guard {
    circuit: String,
    settings: Settings,
    /// Of this request: whoever settles is told from everybody else by it.
    node: u64,
    calls: u64,
    permit: Permit,
    known: Option<Loaded>,
    clock: StoreClock,
    timeout_ms: u64,
    began_ns: u64,
    /// Of a probe.
    lease: Option<Lease>,
}

#[derive(Clone, Copy)]
struct Lease {
    /// On the clock of the runtime.
    renew_at_ns: u64,
    renewals: u32,
}

/// How a request ended, for the circuit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    Success,
    Failure {
        retry_after_ms: Option<u64>,
    },
    /// The client's doing.
    Ignored,
}

/// The store's time: as it was told, and what has passed since.
#[derive(Clone, Copy)]
struct StoreClock {
    told_ms: u64,
    at_ns: u64,
}

impl StoreClock {
    /// Where the store tells no time, the machine's has to do.
    fn new(told: Option<u64>) -> Self {
        Self { told_ms: told.unwrap_or_else(wall_ms), at_ns: monotonic_clock::now() }
    }

    fn learn(&mut self, seen: &Loaded) {
        if let Some(told_ms) = seen.now_ms {
            *self = Self { told_ms, at_ns: monotonic_clock::now() };
        }
    }

    fn now_ms(self) -> u64 {
        let passed_ns = monotonic_clock::now().saturating_sub(self.at_ns);
        self.told_ms.saturating_add(passed_ns.checked_div(NS_OF_MS).unwrap_or_default())
    }
}

fn wall_ms() -> u64 {
    let now = wall_clock::now();
    let milliseconds = u64::from(now.nanoseconds).checked_div(NS_OF_MS).unwrap_or_default();
    now.seconds.saturating_mul(1_000).saturating_add(milliseconds)
}

impl Guard {
    /// Asks to begin. Like every strict start it begins with a load: so the store's time is known before anything is decided.
    pub(crate) fn start(circuit: &str, config: &Config) -> Admission {
        let settings = settings(&config.circuit);
        let (node, phase) = (get_random_u64(), get_random_u64().checked_rem(PHASES).unwrap_or_default());
        let mut caller = Caller { node, sequence: phase, retry_of: None };
        let timeout_ms = config.store_timeout_ms;
        let mut attempts = Attempts::new(timeout_ms);
        loop {
            let loaded = match store::load(circuit) {
                Ok(loaded) => loaded,
                // A try before it may have written: that is to be found out.
                Err(_) if caller.retry_of.is_some() && attempts.again_after_trouble() => continue,
                Err(error) => {
                    failed(circuit, "start", &Error::Store(error));
                    return Admission::StoreDown;
                }
            };
            let mut clock = StoreClock::new(loaded.now_ms);
            let failure = match breaker::start(circuit, &settings, caller, Some(&loaded), clock.now_ms()) {
                Ok((started, seen)) => {
                    clock.learn(&seen);
                    let permit = match started.verdict {
                        Verdict::Permit(permit) => permit,
                        Verdict::Refusal(refusal) => {
                            let (reason, retry_after_ms) = (reason(refusal.reason), refusal.retry_after_ms);
                            return Admission::Refused { reason, retry_after_ms };
                        }
                    };
                    let mut guard = Self {
                        circuit: circuit.into(),
                        settings,
                        node,
                        calls: 0,
                        permit,
                        known: Some(seen),
                        clock,
                        timeout_ms,
                        began_ns: monotonic_clock::now(),
                        lease: None,
                    };
                    guard.lease = guard.permit.probe.map(|probe| guard.lease_until(probe.deadline_ms));
                    return Admission::Admitted(guard);
                }
                Err(failure) => failure,
            };
            caller.retry_of = lowest(caller.retry_of, failure.revision);
            match failure.error {
                Error::Settings(error) => {
                    return Admission::Misconfigured(format!(
                        "{}: {}",
                        variable(&error.field),
                        error.problem
                    ));
                }
                Error::CircuitName(_) | Error::Request(_) => return Admission::NoCircuit,
                error if attempts.again(&error) => {}
                error => {
                    failed(circuit, "start", &error);
                    return Admission::StoreDown;
                }
            }
        }
    }

    /// When [`Guard::renew`] is to be called; on the clock of the runtime.
    pub(crate) fn renew_at_ns(&self) -> Option<u64> {
        self.lease.map(|lease| lease.renew_at_ns)
    }

    /// Prolongs the lease of a probe whose time has come. Where that fails, its place may go to another, and its outcome still
    /// counts until it does.
    pub(crate) fn renew(&mut self) {
        let (Some(lease), Some(probe)) = (self.lease.take(), self.permit.probe) else { return };
        if lease.renewals >= RENEWALS_MAX {
            return;
        }
        let (caller, now_ms, era) = (self.next_caller(), self.clock.now_ms(), self.permit.era);
        let known = self.known.take();
        match breaker::renew(&self.circuit, &self.settings, caller, known.as_ref(), era, &[probe.id], now_ms)
        {
            Ok((renewed, seen)) => {
                self.clock.learn(&seen);
                self.known = Some(seen);
                if let Some(deadline_ms) = renewed.deadlines.first().copied().flatten() {
                    let renewals = lease.renewals.saturating_add(1);
                    self.lease = Some(Lease { renewals, ..self.lease_until(deadline_ms) });
                }
            }
            Err(failure) => failed(&self.circuit, "renewal", &failure.error),
        }
    }

    /// A lease that is prolonged when half of it is over.
    fn lease_until(&self, deadline_ms: u64) -> Lease {
        let left_ms = deadline_ms.saturating_sub(self.clock.now_ms());
        let half_ns = left_ms.saturating_mul(NS_OF_MS).checked_div(2).unwrap_or_default();
        Lease { renew_at_ns: monotonic_clock::now().saturating_add(half_ns), renewals: 0 }
    }

    /// Settles the request. It is told once, however often it has to be sent.
    pub(crate) fn end(mut self, ending: Ending) {
        if !matches!(self.permit.judged_by, JudgedBy::Fleet) {
            // Nobody counts it; or nodes vote, and this one has no record of its own to vote by.
            return;
        }
        let worked_ms = monotonic_clock::now().saturating_sub(self.began_ns).checked_div(NS_OF_MS);
        let slow = match (self.permit.slow_call_after_ms, worked_ms) {
            (Some(limit_ms), Some(worked_ms)) => worked_ms > limit_ms,
            _ => false,
        };
        let (outcome, retry_after_ms) = match ending {
            Ending::Success => (Outcome::Success, None),
            Ending::Failure { retry_after_ms } => (Outcome::Failure, retry_after_ms),
            Ending::Ignored => (Outcome::Ignored, None),
        };
        if outcome == Outcome::Ignored && self.permit.probe.is_none() {
            // It changes nothing and frees nothing.
            return;
        }
        let completion = Completion {
            era: self.permit.era,
            probe: self.permit.probe.map(|probe| probe.id),
            outcome,
            slow: slow && outcome != Outcome::Ignored,
            count: 1,
            retry_after_ms,
        };
        let mut caller = self.next_caller();
        // No outcome is given up soon because others write too.
        let mut attempts = Attempts::new(self.timeout_ms.saturating_mul(8));
        loop {
            let (known, now_ms) = (self.known.take(), self.clock.now_ms());
            let ended =
                breaker::end(&self.circuit, &self.settings, caller, known.as_ref(), &[completion], now_ms);
            let Err(failure) = ended else { return };
            caller.retry_of = lowest(caller.retry_of, failure.revision);
            if matches!(failure.error, Error::Contention) {
                self.known = failure.last_seen;
            }
            if !attempts.again(&failure.error) {
                failed(&self.circuit, "outcome", &failure.error);
                return;
            }
        }
    }

    fn next_caller(&mut self) -> Caller {
        self.calls = self.calls.saturating_add(1);
        Caller { node: self.node, sequence: self.calls | NO_START, retry_of: None }
    }
}

/// How often a call may be tried again, and until when.
struct Attempts {
    deadline_ns: u64,
    failures: u32,
}

impl Attempts {
    fn new(within_ms: u64) -> Self {
        let within_ns = within_ms.saturating_mul(NS_OF_MS);
        Self { deadline_ns: monotonic_clock::now().saturating_add(within_ns), failures: 0 }
    }

    /// Whether to try again after `error`; waits as long as is good before that.
    fn again(&mut self, error: &Error) -> bool {
        match error {
            // A short random time, so that those who raced do not meet again.
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

    fn again_after_trouble(&mut self) -> bool {
        self.failures = self.failures.saturating_add(1);
        self.failures < TRIES_MAX && self.waited(4_000, 20_000)
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

fn lowest(known: Option<u64>, revision: Option<u64>) -> Option<u64> {
    match (known, revision) {
        (Some(known), Some(revision)) => Some(known.min(revision)),
        (known, revision) => known.or(revision),
    }
}

/// Says what happened: each time where somebody has to do something about it, and now and then where it passes by itself.
fn failed(circuit: &str, what: &str, error: &Error) {
    let about = |kind: &str, text: &str| format!("{what} of {circuit:?}: {kind}: {text}");
    match error {
        Error::Store(StoreError::Denied(text)) => log::line(&about("the store denies it", text)),
        Error::Store(StoreError::Other(text)) => log::line(&about("the store refuses it", text)),
        Error::StoredRecord(error) => {
            log::line(&about("the stored record cannot be used", &format!("{error:?}")))
        }
        Error::Store(StoreError::Unavailable(text)) => log::sample(&about("the store is down", text)),
        Error::Store(StoreError::Unknown(text)) => {
            log::sample(&about("an answer of the store is lost", text))
        }
        other => log::sample(&about("no answer", &format!("{other:?}"))),
    }
}

fn reason(reason: RefusalReason) -> &'static str {
    match reason {
        RefusalReason::Open => "the circuit is open",
        RefusalReason::TooManyRequests => "the circuit is half-open and all its probes are out",
        RefusalReason::ForcedOpen => "the circuit was forced open",
        RefusalReason::Ramp => "the circuit has recovered and admits a share for now",
    }
}

/// The variable that a setting comes from.
fn variable(field: &str) -> String {
    let field = field.rsplit('.').next().unwrap_or_default().replace('-', "_").to_ascii_uppercase();
    format!("CIRCUITRY_{field}")
}

fn settings(circuit: &CircuitSettings) -> Settings {
    let mut trip_rules = Vec::new();
    if let Some(rate) = circuit.failure_rate {
        let (threshold, minimum_calls) = (rate.per_mille, rate.minimum_calls);
        let window = Window::Time(rate.window_ms);
        trip_rules.push(TripRule::ConsecutiveFailures(ConsecutiveRule { minimum_calls: 0 }));
        trip_rules.push(TripRule::FailureRate(WindowedRule { threshold, minimum_calls, window }));
    }
    let policies = circuit.has_policies().then_some(Policies {
        trip_rules,
        slow_call_after_ms: circuit.slow_call_after_ms,
        backoff: None,
        jitter_per_mille: circuit.jitter_per_mille,
        retry_after_max_ms: circuit.retry_after_max_ms,
        probes: None,
        probes_at_once: None,
        half_open_limit: None,
        ramp: None,
        quorum: None,
    });
    Settings {
        failure_count_threshold: circuit.failure_count_threshold,
        close_threshold: circuit.close_threshold,
        allow_after_ms: circuit.allow_after_ms,
        cyclic_clear_after_ms: circuit.cyclic_clear_after_ms,
        probe_timeout_ms: circuit.probe_timeout_ms,
        idle_retention_ms: circuit.idle_retention_ms,
        policies,
        settings_revision: circuit.settings_revision,
    }
}
