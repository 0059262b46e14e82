//! The types of `wit/` from and to those of the core: one conversion a type, and no decision.
//!
//! - this file: the store's values, requests and answers
//! - [`settings`] and [`circuit`]: what these are made of

mod circuit;
mod settings;

use alloc::string::String;
use alloc::vec::Vec;

use circuitry_core::request::{self, Operation, Verdict};
use circuitry_core::{exchange as core_exchange, record};

use crate::bindings::circuitry::breaker::types;
use crate::bindings::exports::circuitry::breaker::exchange;

/// Enums that have the same cases.
macro_rules! same_cases {
    ($($from:ty => $to:ty { $($case:ident),+ })+) => {
        $(impl From<$from> for $to {
            fn from(given: $from) -> Self {
                match given {
                    $(<$from>::$case => Self::$case,)+
                }
            }
        })+
    };
}
use same_cases;

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

// ---- requests and answers ----

same_cases! {
    types::Outcome => request::Outcome { Success, Failure, Ignored }
    request::RefusalReason => types::RefusalReason { Open, TooManyRequests, ForcedOpen, Ramp }
    request::JudgedBy => types::JudgedBy { Fleet, Node, Nobody }
}

impl From<types::Completion> for request::Completion {
    fn from(completion: types::Completion) -> Self {
        Self {
            era: completion.era,
            probe: completion.probe.map(Into::into),
            outcome: completion.outcome.into(),
            slow: completion.slow,
            count: completion.count,
            retry_after_ms: completion.retry_after_ms,
        }
    }
}

impl From<request::Disposition> for types::Disposition {
    fn from(disposition: request::Disposition) -> Self {
        Self { accepted: disposition.accepted, stale: disposition.stale }
    }
}

impl From<request::Refusal> for types::Refusal {
    fn from(refusal: request::Refusal) -> Self {
        Self { reason: refusal.reason.into(), retry_after_ms: refusal.retry_after_ms }
    }
}

impl From<request::Permit> for types::Permit {
    fn from(permit: request::Permit) -> Self {
        Self {
            era: permit.era,
            probe: permit.probe.map(Into::into),
            judged_by: permit.judged_by.into(),
            slow_call_after_ms: permit.slow_call_after_ms,
            would_have_refused: permit.would_have_refused.map(Into::into),
            grant_until_ms: permit.grant_until_ms,
        }
    }
}

impl From<Verdict> for types::Verdict {
    fn from(verdict: Verdict) -> Self {
        match verdict {
            Verdict::Permit(permit) => Self::Permit(permit.into()),
            Verdict::Refusal(refusal) => Self::Refusal(refusal.into()),
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
            exchange::Request::Vote(vote) => {
                let caller = vote.caller.into();
                let operation = Operation::Vote { caller, era: vote.era, node_id: vote.node_id };
                (vote.circuit, vote.settings, operation)
            }
            exchange::Request::Reset(reset) => {
                (reset.circuit, reset.settings, Operation::Reset(reset.caller.into()))
            }
        };
        Self { circuit, settings: settings.into(), operation }
    }
}

/// The core's answer as the bindings have it.
pub(crate) fn answer_from_core(answer: request::Answer) -> exchange::Answer {
    match answer {
        request::Answer::Started { verdict, transitions, settings_in_force } => {
            exchange::Answer::Started(types::Started {
                verdict: verdict.into(),
                transitions: all(transitions),
                settings_in_force: settings_in_force.map(|in_force| (*in_force).into()),
            })
        }
        request::Answer::Settled { dispositions, already_applied, transitions } => {
            exchange::Answer::Settled(types::Settled {
                dispositions: all(dispositions),
                already_applied,
                transitions: all(transitions),
            })
        }
        request::Answer::Renewed(deadlines) => exchange::Answer::Renewed(types::Renewed { deadlines }),
        request::Answer::Inspected(information) => exchange::Answer::Inspected((*information).into()),
        request::Answer::Overridden { previous, already_applied } => {
            exchange::Answer::Overridden(types::Overridden {
                previous: previous.map(Into::into),
                already_applied,
            })
        }
        request::Answer::Voted { accepted, votes, already_applied, transitions } => {
            exchange::Answer::Voted(types::Voted {
                accepted,
                votes,
                already_applied,
                transitions: all(transitions),
            })
        }
        request::Answer::Cleared { previous, already_applied, transitions } => {
            exchange::Answer::Cleared(types::Cleared {
                previous: previous.map(Into::into),
                already_applied,
                transitions: all(transitions),
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
