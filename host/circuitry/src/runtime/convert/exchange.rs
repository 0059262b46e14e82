//! What is asked and what is answered.

use std::sync::Arc;
use std::time::Duration;

use circuitry_store::StoreError;

use super::all;
use crate::call::{Answer, Call, Completion, Grant, JudgedBy, Leave, Problem, Ruling, Started};
use crate::error::RecordError;
use crate::outcome::Outcome;
use crate::policy::whole_ms;
use crate::refusal::{Refusal, RefusalReason};
use crate::runtime::bindings::circuitry::breaker::types;
use crate::runtime::bindings::exports::circuitry::breaker::exchange;

impl From<Completion> for types::Completion {
    fn from(completion: Completion) -> Self {
        Self {
            era: completion.grant.era,
            probe: completion.grant.probe.map(Into::into),
            outcome: match completion.outcome {
                Outcome::Success => types::Outcome::Success,
                Outcome::Failure | Outcome::FailureRetryAfter(_) => types::Outcome::Failure,
                Outcome::Ignored => types::Outcome::Ignored,
            },
            slow: completion.slow,
            count: completion.count,
            retry_after_ms: match completion.outcome {
                Outcome::FailureRetryAfter(left_alone_for) => Some(whole_ms(left_alone_for)),
                Outcome::Success | Outcome::Failure | Outcome::Ignored => None,
            },
        }
    }
}

impl From<types::Refusal> for Refusal {
    fn from(refusal: types::Refusal) -> Self {
        let reason = match refusal.reason {
            types::RefusalReason::Open => RefusalReason::Open,
            types::RefusalReason::TooManyRequests => RefusalReason::TooManyRequests,
            types::RefusalReason::ForcedOpen => RefusalReason::ForcedOpen,
            types::RefusalReason::Ramp => RefusalReason::Ramp,
        };
        Self::new(reason, Duration::from_millis(refusal.retry_after_ms))
    }
}

impl From<types::Permit> for Leave {
    fn from(permit: types::Permit) -> Self {
        Self {
            grant: Grant { era: permit.era, probe: permit.probe.map(|probe| probe.id.into()) },
            judged_by: match permit.judged_by {
                types::JudgedBy::Fleet => JudgedBy::Fleet,
                types::JudgedBy::Node => JudgedBy::Node,
                types::JudgedBy::Nobody => JudgedBy::Nobody,
            },
            slow_call_after_ms: permit.slow_call_after_ms,
            would_have_refused: permit.would_have_refused.map(Into::into),
            granted_until_ms: permit.grant_until_ms,
        }
    }
}

impl From<types::Started> for Answer {
    fn from(started: types::Started) -> Self {
        Self::Started(Started {
            verdict: match started.verdict {
                types::Verdict::Permit(permit) => Ok(permit.into()),
                types::Verdict::Refusal(refusal) => Err(refusal.into()),
            },
            transitions: all(started.transitions),
            settings_in_force: started.settings_in_force.map(|settings| Arc::new(settings.into())),
        })
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

impl From<types::Voted> for Answer {
    fn from(voted: types::Voted) -> Self {
        Self::Voted { accepted: voted.accepted, votes: voted.votes, transitions: all(voted.transitions) }
    }
}

impl From<types::Cleared> for Answer {
    fn from(cleared: types::Cleared) -> Self {
        Self::Cleared { previous: cleared.previous.map(Into::into), transitions: all(cleared.transitions) }
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
            exchange::Answer::Voted(voted) => Ok(voted.into()),
            exchange::Answer::Cleared(cleared) => Ok(cleared.into()),
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
