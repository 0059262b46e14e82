//! The types of `wit/` from and to those of the core: one conversion a type, and no decision.

use alloc::string::String;
use alloc::vec::Vec;

use circuitry_core::request::{Operation, Verdict};
use circuitry_core::{exchange as core_exchange, record, request, settings};

use crate::bindings::circuitry::breaker::types;
use crate::bindings::exports::circuitry::breaker::exchange;

// ---- the store's values ----

impl From<types::Loaded> for core_exchange::Loaded {
    fn from(loaded: types::Loaded) -> Self {
        let entry =
            loaded.entry.map(|entry| core_exchange::Entry { value: entry.value, version: entry.version });
        Self { entry, now_ms: loaded.now_ms }
    }
}

impl From<core_exchange::Loaded> for types::Loaded {
    fn from(loaded: core_exchange::Loaded) -> Self {
        let entry = loaded.entry.map(|entry| types::Entry { value: entry.value, version: entry.version });
        Self { entry, now_ms: loaded.now_ms }
    }
}

impl From<types::Swapped> for core_exchange::Swapped {
    fn from(swapped: types::Swapped) -> Self {
        match swapped {
            types::Swapped::Stored(receipt) => {
                Self::Stored { version: receipt.version, now_ms: receipt.now_ms }
            }
            types::Swapped::Conflict(loaded) => Self::Conflict(loaded.into()),
        }
    }
}

impl From<types::StoreError> for core_exchange::StoreError {
    fn from(error: types::StoreError) -> Self {
        match error {
            types::StoreError::Unavailable(text) => Self::Unavailable(text),
            types::StoreError::Unknown(text) => Self::Unknown(text),
            types::StoreError::Denied(text) => Self::Denied(text),
            types::StoreError::Other(text) => Self::Other(text),
        }
    }
}

impl From<core_exchange::StoreError> for types::StoreError {
    fn from(error: core_exchange::StoreError) -> Self {
        match error {
            core_exchange::StoreError::Unavailable(text) => Self::Unavailable(text),
            core_exchange::StoreError::Unknown(text) => Self::Unknown(text),
            core_exchange::StoreError::Denied(text) => Self::Denied(text),
            core_exchange::StoreError::Other(text) => Self::Other(text),
        }
    }
}

// ---- settings ----

impl From<types::CustomRule> for settings::CustomRule {
    fn from(rule: types::CustomRule) -> Self {
        Self { name: rule.name, version: rule.version }
    }
}

impl From<settings::CustomRule> for types::CustomRule {
    fn from(rule: settings::CustomRule) -> Self {
        Self { name: rule.name, version: rule.version }
    }
}

impl From<types::Settings> for settings::Settings {
    fn from(given: types::Settings) -> Self {
        Self {
            failure_count_threshold: given.failure_count_threshold,
            close_threshold: given.close_threshold,
            allow_after_ms: given.allow_after_ms,
            cyclic_clear_after_ms: given.cyclic_clear_after_ms,
            probe_timeout_ms: given.probe_timeout_ms,
            idle_retention_ms: given.idle_retention_ms,
            trip_rule: match given.trip_rule {
                types::TripRule::ConsecutiveFailures => settings::TripRule::ConsecutiveFailures,
                types::TripRule::Custom(rule) => settings::TripRule::Custom(rule.into()),
            },
        }
    }
}

impl From<settings::SettingsError> for types::SettingsError {
    fn from(error: settings::SettingsError) -> Self {
        Self { field: error.field.into(), problem: error.problem }
    }
}

// ---- who calls ----

impl From<types::Token> for record::Token {
    fn from(token: types::Token) -> Self {
        Self { node: token.node, sequence: token.sequence }
    }
}

impl From<record::Token> for types::Token {
    fn from(token: record::Token) -> Self {
        Self { node: token.node, sequence: token.sequence }
    }
}

impl From<types::Caller> for request::Caller {
    fn from(caller: types::Caller) -> Self {
        let token = record::Token { node: caller.node, sequence: caller.sequence };
        Self { token, retry_of: caller.retry_of }
    }
}

// ---- the circuit ----

impl From<record::State> for types::State {
    fn from(state: record::State) -> Self {
        match state {
            record::State::Closed => Self::Closed,
            record::State::Open => Self::Open,
            record::State::HalfOpen => Self::HalfOpen,
        }
    }
}

impl From<record::Counts> for types::Counts {
    fn from(counts: record::Counts) -> Self {
        Self {
            total: counts.total,
            total_successes: counts.total_successes,
            total_failures: counts.total_failures,
            consecutive_successes: counts.consecutive_successes,
            consecutive_failures: counts.consecutive_failures,
        }
    }
}

impl From<record::Transition> for types::Transition {
    fn from(transition: record::Transition) -> Self {
        Self {
            previous: transition.previous.into(),
            next: transition.next.into(),
            reason: match transition.reason {
                record::TransitionReason::Tripped => types::TransitionReason::Tripped,
                record::TransitionReason::OpenTimeOver => types::TransitionReason::OpenTimeOver,
                record::TransitionReason::ProbesSucceeded => types::TransitionReason::ProbesSucceeded,
                record::TransitionReason::ProbeFailed => types::TransitionReason::ProbeFailed,
            },
            at_ms: transition.at_ms,
            era: transition.era,
            generation: transition.generation,
        }
    }
}

impl From<types::Override> for record::Override {
    fn from(wanted: types::Override) -> Self {
        Self {
            kind: match wanted.kind {
                types::OverrideKind::ForcedOpen => record::OverrideKind::ForcedOpen,
                types::OverrideKind::ForcedClosed => record::OverrideKind::ForcedClosed,
            },
            author: wanted.author,
            reason: wanted.reason,
            until_ms: wanted.until_ms,
        }
    }
}

impl From<record::Override> for types::Override {
    fn from(set: record::Override) -> Self {
        Self {
            kind: match set.kind {
                record::OverrideKind::ForcedOpen => types::OverrideKind::ForcedOpen,
                record::OverrideKind::ForcedClosed => types::OverrideKind::ForcedClosed,
            },
            author: set.author,
            reason: set.reason,
            until_ms: set.until_ms,
        }
    }
}

impl From<record::Probe> for types::Probe {
    fn from(probe: record::Probe) -> Self {
        Self { id: probe.id.into(), deadline_ms: probe.deadline_ms }
    }
}

impl From<request::Information> for types::Information {
    fn from(information: request::Information) -> Self {
        Self {
            state: information.state.into(),
            era: information.era,
            generation: information.generation,
            counts: information.counts.into(),
            since_ms: information.since_ms,
            expires_at_ms: information.expires_at_ms,
            probes: all(information.probes),
            probe_successes: information.probe_successes,
            override_: information.override_in_force.map(Into::into),
            transitions: all(information.transitions),
            revision: information.revision,
        }
    }
}

// ---- requests and answers ----

impl From<types::Completion> for request::Completion {
    fn from(completion: types::Completion) -> Self {
        Self {
            era: completion.era,
            probe: completion.probe.map(Into::into),
            outcome: match completion.outcome {
                types::Outcome::Success => request::Outcome::Success,
                types::Outcome::Failure => request::Outcome::Failure,
                types::Outcome::Ignored => request::Outcome::Ignored,
            },
            count: completion.count,
        }
    }
}

impl From<request::Disposition> for types::Disposition {
    fn from(disposition: request::Disposition) -> Self {
        Self { accepted: disposition.accepted, stale: disposition.stale }
    }
}

impl From<Verdict> for types::Verdict {
    fn from(verdict: Verdict) -> Self {
        match verdict {
            Verdict::Permit(permit) => {
                Self::Permit(types::Permit { era: permit.era, probe: permit.probe.map(Into::into) })
            }
            Verdict::Refusal { reason, retry_after_ms } => Self::Refusal(types::Refusal {
                reason: match reason {
                    request::RefusalReason::Open => types::RefusalReason::Open,
                    request::RefusalReason::TooManyRequests => types::RefusalReason::TooManyRequests,
                    request::RefusalReason::ForcedOpen => types::RefusalReason::ForcedOpen,
                },
                retry_after_ms,
            }),
        }
    }
}

impl From<exchange::Request> for request::Request {
    fn from(request: exchange::Request) -> Self {
        let (circuit, settings, operation): (String, types::Settings, Operation) = match request {
            exchange::Request::Start(start) => {
                (start.circuit, start.settings, Operation::Start(start.caller.into()))
            }
            exchange::Request::End(end) => {
                (end.circuit, end.settings, Operation::End(end.caller.into(), all(end.completions)))
            }
            exchange::Request::Renew(renew) => {
                let (caller, probes) = (renew.caller.into(), all(renew.probes));
                (renew.circuit, renew.settings, Operation::Renew { caller, era: renew.era, probes })
            }
            exchange::Request::Inspect(inspect) => (inspect.circuit, inspect.settings, Operation::Inspect),
            exchange::Request::SetOverride(set) => {
                let wanted = set.override_.map(Into::into);
                (set.circuit, set.settings, Operation::SetOverride(set.caller.into(), wanted))
            }
        };
        Self { circuit, settings: settings.into(), operation }
    }
}

/// The core's answer as the bindings have it.
pub(crate) fn answer_from_core(answer: request::Answer) -> exchange::Answer {
    match answer {
        request::Answer::Started { verdict, transitions } => exchange::Answer::Started(types::Started {
            verdict: verdict.into(),
            transitions: all(transitions),
        }),
        request::Answer::Settled { dispositions, already_applied, transitions } => {
            exchange::Answer::Settled(types::Settled {
                dispositions: all(dispositions),
                already_applied,
                transitions: all(transitions),
            })
        }
        request::Answer::Renewed(deadlines) => exchange::Answer::Renewed(types::Renewed { deadlines }),
        request::Answer::Inspected(information) => exchange::Answer::Inspected(information.into()),
        request::Answer::Overridden { previous, already_applied } => {
            exchange::Answer::Overridden(types::Overridden {
                previous: previous.map(Into::into),
                already_applied,
            })
        }
    }
}

impl From<core_exchange::Decision> for exchange::Decision {
    fn from(decision: core_exchange::Decision) -> Self {
        match decision {
            core_exchange::Decision::Done(answer) => Self::Done(answer_from_core(answer)),
            core_exchange::Decision::Write(write) => Self::Write(exchange::Write {
                value: write.value,
                ttl_ms: write.ttl_ms,
                answer_if_stored: answer_from_core(write.answer_if_stored),
                based_on: write.based_on,
            }),
        }
    }
}

impl From<request::Error> for types::Error {
    fn from(error: request::Error) -> Self {
        match error {
            request::Error::CircuitName(problem) => Self::CircuitName(problem),
            request::Error::Settings(error) => Self::Settings(error.into()),
            request::Error::Request(problem) => Self::Request(problem),
            request::Error::Record(record::RecordError::Malformed(problem)) => {
                Self::StoredRecord(types::RecordError::Malformed(problem))
            }
            request::Error::Record(record::RecordError::NewerSchema(schema)) => {
                Self::StoredRecord(types::RecordError::NewerSchema(schema))
            }
            request::Error::Store(error) => Self::Store(error.into()),
            request::Error::Contention => Self::Contention,
            request::Error::Forgotten => Self::Forgotten,
        }
    }
}

pub(crate) fn failure_from_core(failure: request::Failure) -> types::Failure {
    types::Failure {
        error: failure.error.into(),
        last_seen: failure.last_seen.map(Into::into),
        revision: failure.revision,
    }
}

/// The core answers each operation in its own kind, so this is reached by no input.
pub(crate) fn wrong_answer() -> types::Failure {
    let error = types::Error::Request("the answer is of another kind than the request".into());
    types::Failure { error, last_seen: None, revision: None }
}

fn all<T, U: From<T>>(items: Vec<T>) -> Vec<U> {
    items.into_iter().map(Into::into).collect()
}
