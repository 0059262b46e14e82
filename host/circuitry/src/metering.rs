//! Metrics, through the facade of the crate `metrics`; without the feature `metrics` nothing is counted.
//!
//! Labels are bounded: `circuit` is the name given to `breaker_for`, without the tenant.
//!
//! A call that [`Breaker::execute`](crate::Breaker::execute) admits under a grant is counted when it ends, as a start and as an end; one
//! that is cancelled, or whose work panics, then counts as neither.
//!
//! | metric | kind | labels | counts |
//! |---|---|---|---|
//! | `circuitry_calls_total` | counter | circuit, verdict | starts: `permit`, `probe`, `would-have-refused`, or the refusal's reason |
//! | `circuitry_outcomes_total` | counter | circuit, outcome, disposition, local | ends |
//! | `circuitry_transitions_total` | counter | circuit, from, to, reason, local | changes of state that this process made |
//! | `circuitry_circuits` | gauge | circuit, state | circuits that this process saw last in that state, by its own record where that refuses |
//! | `circuitry_settings_differ` | gauge | circuit | circuits for which another process's settings are in force |
//! | `circuitry_store_operations_total` | counter | operation, result | loads and swaps; `unknown` is a swap without an answer |
//! | `circuitry_fallback` | gauge | | factories for which the store is down: 0 or 1 where there is one |
//! | `circuitry_outcomes_flushed_total` | counter | circuit, disposition | bounded mode: outcomes that were flushed, and what the shared record made of them |
//! | `circuitry_outcomes_lost_total` | counter | circuit | outcomes that were not counted, or whose fate cannot be told |

#[cfg(feature = "metrics")]
mod counted {
    use circuitry_store::{StoreError, Swapped};
    use metrics::{counter, gauge};

    use crate::outcome::{Disposition, Outcome, Settlement};
    use crate::state::{State, Transition};

    pub(crate) fn call(circuit: &str, verdict: &'static str) {
        counter!("circuitry_calls_total", "circuit" => circuit.to_owned(), "verdict" => verdict).increment(1);
    }

    pub(crate) fn outcome(circuit: &str, outcome: Outcome, settlement: Settlement) {
        counter!(
            "circuitry_outcomes_total",
            "circuit" => circuit.to_owned(),
            "outcome" => outcome.as_str(),
            "disposition" => settlement.disposition.as_str(),
            "local" => if settlement.local { "true" } else { "false" },
        )
        .increment(1);
    }

    /// Calls under a grant, which all went well.
    pub(crate) fn granted(circuit: &str, calls: u64) {
        counter!("circuitry_calls_total", "circuit" => circuit.to_owned(), "verdict" => "permit")
            .increment(calls);
        counter!(
            "circuitry_outcomes_total",
            "circuit" => circuit.to_owned(),
            "outcome" => Outcome::Success.as_str(),
            "disposition" => Disposition::Accepted.as_str(),
            "local" => "true",
        )
        .increment(calls);
    }

    pub(crate) fn flushed(circuit: &str, accepted: u64, stale: u64) {
        for (disposition, outcomes) in [(Disposition::Accepted, accepted), (Disposition::Stale, stale)] {
            let labels = [("circuit", circuit.to_owned()), ("disposition", disposition.as_str().to_owned())];
            counter!("circuitry_outcomes_flushed_total", &labels).increment(outcomes);
        }
    }

    pub(crate) fn transition(circuit: &str, transition: &Transition, local: bool) {
        counter!(
            "circuitry_transitions_total",
            "circuit" => circuit.to_owned(),
            "from" => transition.previous.as_str(),
            "to" => transition.next.as_str(),
            "reason" => transition.reason.as_str(),
            "local" => if local { "true" } else { "false" },
        )
        .increment(1);
    }

    /// Moves a circuit from the gauge of one state to that of another, so that none is left set.
    pub(crate) fn state(circuit: &str, previous: Option<State>, next: Option<State>) {
        for (state, change) in [(previous, -1.0), (next, 1.0)] {
            if let Some(state) = state {
                gauge!("circuitry_circuits", "circuit" => circuit.to_owned(), "state" => state.as_str())
                    .increment(change);
            }
        }
    }

    /// Circuits of one name add up.
    pub(crate) fn settings_differ(circuit: &str, change: f64) {
        gauge!("circuitry_settings_differ", "circuit" => circuit.to_owned()).increment(change);
    }

    fn store(operation: &'static str, result: &'static str) {
        counter!("circuitry_store_operations_total", "operation" => operation, "result" => result)
            .increment(1);
    }

    fn failed(error: &StoreError) -> &'static str {
        match error {
            StoreError::Unavailable { .. } => "unavailable",
            StoreError::Unknown { .. } => "unknown",
            StoreError::Denied { .. } => "denied",
            _ => "other",
        }
    }

    pub(crate) fn load<T>(result: Result<T, &StoreError>) {
        store("load", result.err().map_or("ok", failed));
    }

    pub(crate) fn swap(result: Result<&Swapped, &StoreError>) {
        let result = match result {
            Ok(Swapped::Stored(_)) => "stored",
            Ok(Swapped::Conflict(_)) => "conflict",
            Err(error) => failed(error),
        };
        store("swap", result);
    }

    /// Factories of one process add up.
    pub(crate) fn fallback(change: f64) {
        gauge!("circuitry_fallback").increment(change);
    }

    pub(crate) fn lost(circuit: &str, outcomes: u64) {
        counter!("circuitry_outcomes_lost_total", "circuit" => circuit.to_owned()).increment(outcomes);
    }
}

#[cfg(feature = "metrics")]
pub(crate) use counted::*;

#[cfg(not(feature = "metrics"))]
mod uncounted {
    use circuitry_store::{StoreError, Swapped};

    use crate::outcome::{Outcome, Settlement};
    use crate::state::{State, Transition};

    pub(crate) fn call(_: &str, _: &'static str) {}
    pub(crate) fn outcome(_: &str, _: Outcome, _: Settlement) {}
    pub(crate) fn granted(_: &str, _: u64) {}
    pub(crate) fn flushed(_: &str, _: u64, _: u64) {}
    pub(crate) fn transition(_: &str, _: &Transition, _: bool) {}
    pub(crate) fn state(_: &str, _: Option<State>, _: Option<State>) {}
    pub(crate) fn settings_differ(_: &str, _: f64) {}
    pub(crate) fn load<T>(_: Result<T, &StoreError>) {}
    pub(crate) fn swap(_: Result<&Swapped, &StoreError>) {}
    pub(crate) fn fallback(_: f64) {}
    pub(crate) fn lost(_: &str, _: u64) {}
}

#[cfg(not(feature = "metrics"))]
pub(crate) use uncounted::*;
