//! The circuit: its state and what a person is shown of it.

use circuitry_core::{record, request};

use super::{all, same_cases};
use crate::bindings::circuitry::breaker::types;

same_cases! {
    record::State => types::State { Closed, Open, HalfOpen }
    record::TransitionReason => types::TransitionReason {
        Tripped, OpenTimeOver, ProbesSucceeded, ProbeFailed, VotesReached, HalfOpenOverdueOpened, HalfOpenOverdueClosed,
        Reset
    }
    types::OverrideKind => record::OverrideKind { ForcedOpen, ForcedClosed, Disabled, MetricsOnly }
    record::OverrideKind => types::OverrideKind { ForcedOpen, ForcedClosed, Disabled, MetricsOnly }
    record::TripKind => types::TripKind {
        ConsecutiveFailures, FailureCount, FailureRate, SlowCallRate, Custom, Probe, Overdue, Votes
    }
    request::ChangeKind => types::ChangeKind {
        HalfOpen, LeaseEnd, HalfOpenOverdue, RampStep, OverrideEnd, CountsClear, VoteEnd
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
            reason: transition.reason.into(),
            at_ms: transition.at_ms,
            era: transition.era,
            generation: transition.generation,
        }
    }
}

impl From<types::Override> for record::Override {
    fn from(wanted: types::Override) -> Self {
        Self {
            kind: wanted.kind.into(),
            author: wanted.author,
            reason: wanted.reason,
            until_ms: wanted.until_ms,
        }
    }
}

impl From<record::Override> for types::Override {
    fn from(set: record::Override) -> Self {
        Self { kind: set.kind.into(), author: set.author, reason: set.reason, until_ms: set.until_ms }
    }
}

impl From<record::Probe> for types::Probe {
    fn from(probe: record::Probe) -> Self {
        Self { id: probe.id.into(), deadline_ms: probe.deadline_ms }
    }
}

impl From<record::Vote> for types::Vote {
    fn from(vote: record::Vote) -> Self {
        Self { node_id: vote.node_id, at_ms: vote.at_ms }
    }
}

impl From<record::Trip> for types::Trip {
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

impl From<request::RuleState> for types::RuleState {
    fn from(state: request::RuleState) -> Self {
        Self { rule: state.rule.into(), observed: state.observed, calls: state.calls }
    }
}

impl From<request::RampPosition> for types::RampPosition {
    fn from(position: request::RampPosition) -> Self {
        Self { share_per_mille: position.share_per_mille, next_step_at_ms: position.next_step_at_ms }
    }
}

impl From<request::NextChange> for types::NextChange {
    fn from(change: request::NextChange) -> Self {
        Self { kind: change.kind.into(), at_ms: change.at_ms }
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
