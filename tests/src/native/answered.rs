//! What the core answers.

use circuitry_core::request::Verdict;
use circuitry_core::{exchange as stored, record, request};

use super::{all, same_cases};
use crate::contract;

same_cases! {
    record::State => contract::State { Closed, Open, HalfOpen }
    record::TransitionReason => contract::TransitionReason {
        Tripped, OpenTimeOver, ProbesSucceeded, ProbeFailed, VotesReached, HalfOpenOverdueOpened, HalfOpenOverdueClosed,
        Reset
    }
    record::OverrideKind => contract::OverrideKind { ForcedOpen, ForcedClosed, Disabled, MetricsOnly }
    record::TripKind => contract::TripKind {
        ConsecutiveFailures, FailureCount, FailureRate, SlowCallRate, Custom, Probe, Overdue, Votes
    }
    request::ChangeKind => contract::ChangeKind {
        HalfOpen, LeaseEnd, HalfOpenOverdue, RampStep, OverrideEnd, CountsClear, VoteEnd
    }
}

impl From<record::Counts> for contract::Counts {
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

impl From<record::Transition> for contract::Transition {
    fn from(transition: record::Transition) -> Self {
        Self {
            previous: transition.previous.into(),
            next: transition.next.into(),
            reason: transition.reason.into(),
            at_ms: transition.at_ms,
            era: transition.era,
            generation: transition.generation,
        }
    }
}

impl From<record::Override> for contract::Override {
    fn from(set: record::Override) -> Self {
        Self { kind: set.kind.into(), author: set.author, reason: set.reason, until_ms: set.until_ms }
    }
}

impl From<record::Probe> for contract::Probe {
    fn from(probe: record::Probe) -> Self {
        Self { id: probe.id.into(), deadline_ms: probe.deadline_ms }
    }
}

impl From<record::Vote> for contract::Vote {
    fn from(vote: record::Vote) -> Self {
        Self { node_id: vote.node_id, at_ms: vote.at_ms }
    }
}

impl From<record::Trip> for contract::Trip {
    fn from(trip: record::Trip) -> Self {
        Self {
            kind: trip.kind.into(),
            observed: trip.observed,
            threshold: trip.threshold,
            calls: trip.calls,
            at_ms: trip.at_ms,
            open_for_ms: trip.open_for_ms,
        }
    }
}

impl From<request::RuleState> for contract::RuleState {
    fn from(state: request::RuleState) -> Self {
        Self { rule: state.rule.into(), observed: state.observed, calls: state.calls }
    }
}

impl From<request::RampPosition> for contract::RampPosition {
    fn from(position: request::RampPosition) -> Self {
        Self { share_per_mille: position.share_per_mille, next_step_at_ms: position.next_step_at_ms }
    }
}

impl From<request::NextChange> for contract::NextChange {
    fn from(change: request::NextChange) -> Self {
        Self { kind: change.kind.into(), at_ms: change.at_ms }
    }
}

impl From<request::Information> for contract::Information {
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
            probe_failures: information.probe_failures,
            override_: information.override_in_force.map(Into::into),
            transitions: all(information.transitions),
            revision: information.revision,
            last_trip: information.last_trip.map(Into::into),
            trips_in_a_row: information.trips_in_a_row,
            rules: all(information.rules),
            ramp: information.ramp.map(Into::into),
            votes: all(information.votes),
            next_change: information.next_change.map(Into::into),
            settings_in_force: information.settings_in_force.into(),
            settings_differ: information.settings_differ,
            explanation: information.explanation,
        }
    }
}

same_cases! {
    request::RefusalReason => contract::RefusalReason { Open, TooManyRequests, ForcedOpen, Ramp }
    request::JudgedBy => contract::JudgedBy { Fleet, Node, Nobody }
}

impl From<record::Token> for contract::Token {
    fn from(token: record::Token) -> Self {
        Self { node: token.node, sequence: token.sequence }
    }
}

impl From<stored::Loaded> for contract::Loaded {
    fn from(loaded: stored::Loaded) -> Self {
        let entry = loaded.entry.map(|entry| contract::Entry { value: entry.value, version: entry.version });
        Self { entry, now_ms: loaded.now_ms }
    }
}

impl From<stored::StoreError> for contract::StoreError {
    fn from(error: stored::StoreError) -> Self {
        match error {
            stored::StoreError::Unavailable(text) => Self::Unavailable(text),
            stored::StoreError::Unknown(text) => Self::Unknown(text),
            stored::StoreError::Denied(text) => Self::Denied(text),
            stored::StoreError::Other(text) => Self::Other(text),
        }
    }
}

impl From<request::Disposition> for contract::Disposition {
    fn from(disposition: request::Disposition) -> Self {
        Self { accepted: disposition.accepted, stale: disposition.stale }
    }
}

impl From<request::Refusal> for contract::Refusal {
    fn from(refusal: request::Refusal) -> Self {
        Self { reason: refusal.reason.into(), retry_after_ms: refusal.retry_after_ms }
    }
}

impl From<request::Permit> for contract::Permit {
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

impl From<Verdict> for contract::Verdict {
    fn from(verdict: Verdict) -> Self {
        match verdict {
            Verdict::Permit(permit) => Self::Permit(permit.into()),
            Verdict::Refusal(refusal) => Self::Refusal(refusal.into()),
        }
    }
}

impl From<request::Answer> for contract::Answer {
    fn from(answer: request::Answer) -> Self {
        match answer {
            request::Answer::Started { verdict, transitions, settings_in_force } => {
                Self::Started(contract::Started {
                    verdict: verdict.into(),
                    transitions: all(transitions),
                    settings_in_force: settings_in_force.map(|in_force| (*in_force).into()),
                })
            }
            request::Answer::Settled { dispositions, already_applied, transitions } => {
                Self::Settled(contract::Settled {
                    dispositions: all(dispositions),
                    already_applied,
                    transitions: all(transitions),
                })
            }
            request::Answer::Renewed(deadlines) => Self::Renewed(contract::Renewed { deadlines }),
            request::Answer::Inspected(information) => Self::Inspected((*information).into()),
            request::Answer::Overridden { previous, already_applied } => {
                Self::Overridden(contract::Overridden { previous: previous.map(Into::into), already_applied })
            }
            request::Answer::Voted { accepted, votes, already_applied, transitions } => {
                Self::Voted(contract::Voted {
                    accepted,
                    votes,
                    already_applied,
                    transitions: all(transitions),
                })
            }
            request::Answer::Cleared { previous, already_applied, transitions } => {
                Self::Cleared(contract::Cleared {
                    previous: previous.map(Into::into),
                    already_applied,
                    transitions: all(transitions),
                })
            }
        }
    }
}

impl From<stored::Decision> for contract::Decision {
    fn from(decision: stored::Decision) -> Self {
        match decision {
            stored::Decision::Done(answer) => Self::Done(answer.into()),
            stored::Decision::Write(write) => Self::Write(contract::Write {
                value: write.value,
                ttl_ms: write.ttl_ms,
                answer_if_stored: write.answer_if_stored.into(),
                based_on: write.based_on,
            }),
        }
    }
}

impl From<request::Error> for contract::Error {
    fn from(error: request::Error) -> Self {
        match error {
            request::Error::CircuitName(problem) => Self::CircuitName(problem),
            request::Error::Settings(error) => Self::Settings(error.into()),
            request::Error::Request(problem) => Self::Request(problem),
            request::Error::Record(record::RecordError::Malformed(problem)) => {
                Self::StoredRecord(contract::RecordError::Malformed(problem))
            }
            request::Error::Record(record::RecordError::NewerSchema(schema)) => {
                Self::StoredRecord(contract::RecordError::NewerSchema(schema))
            }
            request::Error::Store(error) => Self::Store(error.into()),
            request::Error::Contention => Self::Contention,
            request::Error::Forgotten => Self::Forgotten,
        }
    }
}

impl From<request::Failure> for contract::Failure {
    fn from(failure: request::Failure) -> Self {
        Self {
            error: failure.error.into(),
            last_seen: failure.last_seen.map(Into::into),
            revision: failure.revision,
        }
    }
}
