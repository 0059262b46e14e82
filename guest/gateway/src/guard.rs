//! [`Guard`]: the circuit of one request, asked through `circuitry:breaker`.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use wasip2::clocks::monotonic_clock;
use wasip2::random::random::get_random_u64;

use crate::attempts::{Attempts, lowest};
use crate::bindings::circuitry::breaker::exchange::EndRequest;
use crate::bindings::circuitry::breaker::types::{
    Caller, Completion, Error, JudgedBy, Loaded, Outcome, Permit, RefusalReason, Settings, StoreError,
    Verdict,
};
use crate::bindings::circuitry::breaker::{breaker, store};
use crate::clock::StoreClock;
use crate::config::Config;
use crate::log::failed;
use crate::settings::{settings, variable};
use crate::settling::settle;
use crate::wait::NS_OF_MS;

/// Set in the numbers of all calls but starts.
const NO_START: u64 = 1 << 63;
/// A ramp admits by the number of a start; at random, its share holds over all requests.
const PHASES: u64 = 1_000;
/// Two for each length of a lease, and ten lengths at most: work that hangs does not keep a circuit half-open for ever.
const RENEWALS_MAX: u32 = 20;
/// A renewal that failed is tried again when half of what is left is over, down to so much.
const RENEW_AGAIN_MIN_NS: u64 = 50 * NS_OF_MS;
/// What the names of variables begin with.
const VARIABLE: &str = "CIRCUITRY_";

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
    /// Of the time since then, what does not speak against the upstream.
    left_out_ns: u64,
    /// Of a probe.
    lease: Option<Lease>,
}

#[derive(Clone, Copy)]
struct Lease {
    /// On the clock of the runtime.
    renew_at_ns: u64,
    ends_at_ns: u64,
    renewals: u32,
}

impl Lease {
    /// Due when half of it is over.
    fn of(left_ns: u64, renewals: u32) -> Self {
        let (now_ns, half_ns) = (monotonic_clock::now(), left_ns.checked_div(2).unwrap_or_default());
        Self {
            renew_at_ns: now_ns.saturating_add(half_ns),
            ends_at_ns: now_ns.saturating_add(left_ns),
            renewals,
        }
    }

    /// The same after a renewal that failed, if there is time for another.
    fn later(self) -> Option<Self> {
        let left_ns = self.ends_at_ns.saturating_sub(monotonic_clock::now());
        (left_ns >= RENEW_AGAIN_MIN_NS).then(|| Self::of(left_ns, self.renewals))
    }
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
                // So a store says which variable it cannot use.
                Err(StoreError::Other(fault)) if fault.starts_with(VARIABLE) => {
                    return Admission::Misconfigured(fault);
                }
                Err(error) => {
                    failed(circuit, "start", &Error::Store(error));
                    return Admission::StoreDown;
                }
            };
            let mut clock = StoreClock::new(loaded.now_ms);
            let failure = match breaker::start(circuit, &settings, caller, Some(&loaded), clock.now_ms()) {
                Ok((started, seen)) => {
                    clock.learn(seen.now_ms);
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
                        left_out_ns: 0,
                        lease: None,
                    };
                    guard.lease = guard.permit.probe.map(|probe| guard.lease_until(probe.deadline_ms, 0));
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

    /// Takes so much off the time that the request took: it was the client who was waited for.
    pub(crate) fn leave_out(&mut self, waited_ns: u64) {
        self.left_out_ns = self.left_out_ns.saturating_add(waited_ns);
    }

    /// Prolongs the lease of a probe whose time has come. Where that fails until it is over, its place may go to another, and its
    /// outcome still counts until it does.
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
                self.clock.learn(seen.now_ms);
                self.known = Some(seen);
                if let Some(deadline_ms) = renewed.deadlines.first().copied().flatten() {
                    let renewals = lease.renewals.saturating_add(1);
                    self.lease = Some(self.lease_until(deadline_ms, renewals));
                }
            }
            Err(failure) => {
                failed(&self.circuit, "renewal", &failure.error);
                self.lease = lease.later();
            }
        }
    }

    fn lease_until(&self, deadline_ms: u64, renewals: u32) -> Lease {
        let left_ms = deadline_ms.saturating_sub(self.clock.now_ms());
        Lease::of(left_ms.saturating_mul(NS_OF_MS), renewals)
    }

    /// Settles the request. It is told once, however often it has to be sent.
    pub(crate) fn end(mut self, ending: Ending) {
        if !matches!(self.permit.judged_by, JudgedBy::Fleet) {
            // Nobody counts it; or nodes vote, and this one has no record of its own to vote by.
            return;
        }
        let worked_ns = monotonic_clock::now().saturating_sub(self.began_ns).saturating_sub(self.left_out_ns);
        let worked_ms = worked_ns.checked_div(NS_OF_MS);
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
        let caller = self.next_caller();
        let Self { circuit, settings, known, clock, timeout_ms, .. } = self;
        let request = EndRequest { circuit, settings, caller, completions: Vec::from([completion]) };
        settle(request, known, clock, timeout_ms);
    }

    fn next_caller(&mut self) -> Caller {
        self.calls = self.calls.saturating_add(1);
        Caller { node: self.node, sequence: self.calls | NO_START, retry_of: None }
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
