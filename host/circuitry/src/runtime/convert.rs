//! The generated types from and to ours: one conversion a type.

use std::time::Duration;

use circuitry_store::{Entry, Loaded, StoreError, Swapped, Version};

use super::bindings::circuitry::breaker::{hooks, types};
use super::bindings::exports::circuitry::breaker::exchange;
use crate::call::{Answer, Call, Completion, Grant, Problem, Ruling, Token};
use crate::error::RecordError;
use crate::outcome::Outcome;
use crate::refusal::{Refusal, RefusalReason};
use crate::settings::{Rules, TripInformation, TripRule};
use crate::state::{Counts, Information, Override, OverrideKind, Probe, State, Transition, TransitionReason};

// ---- the store's values ----

impl From<Loaded> for types::Loaded {
    fn from(loaded: Loaded) -> Self {
        let entry = loaded
            .entry
            .map(|entry| types::Entry { value: entry.value, version: entry.version.into_bytes() });
        Self { entry, now_ms: loaded.now_ms }
    }
}

impl From<types::Loaded> for Loaded {
    fn from(loaded: types::Loaded) -> Self {
        let entry = loaded
            .entry
            .map(|entry| Entry { value: entry.value, version: Version::from_bytes(entry.version) });
        Self { entry, now_ms: loaded.now_ms }
    }
}

impl From<Swapped> for types::Swapped {
    fn from(swapped: Swapped) -> Self {
        match swapped {
            Swapped::Stored(receipt) => {
                Self::Stored(types::Receipt { version: receipt.version.into_bytes(), now_ms: receipt.now_ms })
            }
            Swapped::Conflict(loaded) => Self::Conflict(loaded.into()),
        }
    }
}

impl From<&StoreError> for types::StoreError {
    fn from(error: &StoreError) -> Self {
        let text = error.to_string();
        match error {
            StoreError::Unavailable { .. } => Self::Unavailable(text),
            StoreError::Unknown { .. } => Self::Unknown(text),
            StoreError::Denied { .. } => Self::Denied(text),
            _ => Self::Other(text),
        }
    }
}

// ---- settings ----

impl From<&Rules> for types::Settings {
    fn from(rules: &Rules) -> Self {
        Self {
            failure_count_threshold: rules.failure_count_threshold,
            close_threshold: rules.close_threshold,
            allow_after_ms: rules.allow_after_ms,
            cyclic_clear_after_ms: rules.cyclic_clear_after_ms,
            probe_timeout_ms: rules.probe_timeout_ms,
            idle_retention_ms: rules.idle_retention_ms,
            trip_rule: match &rules.trip_rule {
                TripRule::ConsecutiveFailures => types::TripRule::ConsecutiveFailures,
                TripRule::Custom { name, version } => {
                    types::TripRule::Custom(types::CustomRule { name: name.clone(), version: *version })
                }
            },
        }
    }
}

impl From<hooks::TripQuery> for TripInformation {
    fn from(query: hooks::TripQuery) -> Self {
        Self {
            circuit: query.circuit,
            failure_count_threshold: query.failure_count_threshold,
            generation: query.generation,
            counts: query.counts.into(),
        }
    }
}

// ---- the circuit ----

impl From<Token> for types::Token {
    fn from(token: Token) -> Self {
        Self { node: token.node, sequence: token.sequence }
    }
}

impl From<types::Token> for Token {
    fn from(token: types::Token) -> Self {
        Self { node: token.node, sequence: token.sequence }
    }
}

impl From<types::State> for State {
    fn from(state: types::State) -> Self {
        match state {
            types::State::Closed => Self::Closed,
            types::State::Open => Self::Open,
            types::State::HalfOpen => Self::HalfOpen,
        }
    }
}

impl From<types::Counts> for Counts {
    fn from(counts: types::Counts) -> Self {
        Self {
            total: counts.total,
            total_successes: counts.total_successes,
            total_failures: counts.total_failures,
            consecutive_successes: counts.consecutive_successes,
            consecutive_failures: counts.consecutive_failures,
        }
    }
}

impl From<types::Transition> for Transition {
    fn from(transition: types::Transition) -> Self {
        Self {
            previous: transition.previous.into(),
            next: transition.next.into(),
            reason: match transition.reason {
                types::TransitionReason::Tripped => TransitionReason::Tripped,
                types::TransitionReason::OpenTimeOver => TransitionReason::OpenTimeOver,
                types::TransitionReason::ProbesSucceeded => TransitionReason::ProbesSucceeded,
                types::TransitionReason::ProbeFailed => TransitionReason::ProbeFailed,
            },
            at_ms: transition.at_ms,
            era: transition.era,
            generation: transition.generation,
        }
    }
}

impl From<Override> for types::Override {
    fn from(wanted: Override) -> Self {
        Self {
            kind: match wanted.kind {
                OverrideKind::ForcedOpen => types::OverrideKind::ForcedOpen,
                OverrideKind::ForcedClosed => types::OverrideKind::ForcedClosed,
            },
            author: wanted.author,
            reason: wanted.reason,
            until_ms: wanted.until_ms,
        }
    }
}

impl From<types::Override> for Override {
    fn from(set: types::Override) -> Self {
        Self {
            kind: match set.kind {
                types::OverrideKind::ForcedOpen => OverrideKind::ForcedOpen,
                types::OverrideKind::ForcedClosed => OverrideKind::ForcedClosed,
            },
            author: set.author,
            reason: set.reason,
            until_ms: set.until_ms,
        }
    }
}

impl From<types::Probe> for Probe {
    fn from(probe: types::Probe) -> Self {
        Self { node: probe.id.node, sequence: probe.id.sequence, deadline_ms: probe.deadline_ms }
    }
}

impl From<types::Information> for Answer {
    fn from(information: types::Information) -> Self {
        Self::Inspected(Box::new(Information {
            state: information.state.into(),
            era: information.era,
            generation: information.generation,
            counts: information.counts.into(),
            since_ms: information.since_ms,
            expires_at_ms: information.expires_at_ms,
            probes: all(information.probes),
            probe_successes: information.probe_successes,
            override_in_force: information.override_.map(Into::into),
            transitions: all(information.transitions),
            revision: information.revision,
            local: false,
        }))
    }
}

// ---- requests and answers ----

impl From<Completion> for types::Completion {
    fn from(completion: Completion) -> Self {
        Self {
            era: completion.grant.era,
            probe: completion.grant.probe.map(Into::into),
            outcome: match completion.outcome {
                Outcome::Success => types::Outcome::Success,
                Outcome::Failure => types::Outcome::Failure,
                Outcome::Ignored => types::Outcome::Ignored,
            },
            count: completion.count,
        }
    }
}

impl From<types::Started> for Answer {
    fn from(started: types::Started) -> Self {
        let verdict = match started.verdict {
            types::Verdict::Permit(permit) => {
                Ok(Grant { era: permit.era, probe: permit.probe.map(|probe| probe.id.into()) })
            }
            types::Verdict::Refusal(refusal) => Err(Refusal::new(
                match refusal.reason {
                    types::RefusalReason::Open => RefusalReason::Open,
                    types::RefusalReason::TooManyRequests => RefusalReason::TooManyRequests,
                    types::RefusalReason::ForcedOpen => RefusalReason::ForcedOpen,
                },
                Duration::from_millis(refusal.retry_after_ms),
            )),
        };
        Self::Started { verdict, transitions: all(started.transitions) }
    }
}

impl From<types::Settled> for Answer {
    fn from(settled: types::Settled) -> Self {
        let ruled = |ruled: types::Disposition| Ruling { accepted: ruled.accepted, stale: ruled.stale };
        Self::Settled {
            rulings: settled.dispositions.into_iter().map(ruled).collect(),
            transitions: all(settled.transitions),
        }
    }
}

impl From<types::Renewed> for Answer {
    fn from(renewed: types::Renewed) -> Self {
        Self::Renewed(renewed.deadlines.iter().any(Option::is_some))
    }
}

impl From<types::Overridden> for Answer {
    fn from(overridden: types::Overridden) -> Self {
        Self::Overridden { previous: overridden.previous.map(Into::into) }
    }
}

impl From<&Call> for types::Caller {
    fn from(call: &Call) -> Self {
        Self { node: call.token.node, sequence: call.token.sequence, retry_of: call.retry_of }
    }
}

impl From<exchange::Answer> for Result<Answer, Problem> {
    fn from(answer: exchange::Answer) -> Self {
        match answer {
            exchange::Answer::Started(started) => Ok(started.into()),
            exchange::Answer::Settled(settled) => Ok(settled.into()),
            exchange::Answer::Renewed(renewed) => Ok(renewed.into()),
            exchange::Answer::Inspected(information) => Ok(information.into()),
            exchange::Answer::Overridden(overridden) => Ok(overridden.into()),
            exchange::Answer::Failed(error) => Err(error.into()),
        }
    }
}

impl From<types::Error> for Problem {
    fn from(error: types::Error) -> Self {
        match error {
            types::Error::CircuitName(problem) | types::Error::Request(problem) => Self::Argument(problem),
            types::Error::Settings(error) => {
                Self::Argument(format!("setting `{}`: {}", error.field, error.problem))
            }
            types::Error::StoredRecord(types::RecordError::Malformed(problem)) => {
                Self::Record(RecordError::Malformed(problem))
            }
            types::Error::StoredRecord(types::RecordError::NewerSchema(schema)) => {
                Self::Record(RecordError::NewerSchema(schema))
            }
            types::Error::Store(types::StoreError::Unavailable(text)) => {
                Self::Store(StoreError::Unavailable { message: text, source: None })
            }
            types::Error::Store(types::StoreError::Unknown(text)) => {
                Self::Store(StoreError::Unknown { message: text, source: None })
            }
            types::Error::Store(types::StoreError::Denied(text)) => {
                Self::Store(StoreError::Denied { message: text, source: None })
            }
            types::Error::Store(types::StoreError::Other(text)) => {
                Self::Store(StoreError::Other { message: text, source: None })
            }
            types::Error::Contention => Self::Contention,
            types::Error::Forgotten => Self::Forgotten,
        }
    }
}

fn all<T, U: From<T>>(items: Vec<T>) -> Vec<U> {
    items.into_iter().map(Into::into).collect()
}
