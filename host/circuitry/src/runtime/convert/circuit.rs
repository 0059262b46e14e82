//! What a circuit is and what people are shown of it.

use super::all;
use crate::call::{Answer, Token};
use crate::runtime::bindings::circuitry::breaker::types;
use crate::state::{
    ChangeKind, Counts, Information, NextChange, Override, OverrideKind, Probe, RampPosition, RuleState,
    State, Transition, TransitionReason, Trip, TripKind, Vote,
};

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
                types::TransitionReason::VotesReached => TransitionReason::VotesReached,
                types::TransitionReason::HalfOpenOverdueOpened => TransitionReason::HalfOpenOverdueOpened,
                types::TransitionReason::HalfOpenOverdueClosed => TransitionReason::HalfOpenOverdueClosed,
                types::TransitionReason::Reset => TransitionReason::Reset,
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
                OverrideKind::Disabled => types::OverrideKind::Disabled,
                OverrideKind::MetricsOnly => types::OverrideKind::MetricsOnly,
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
                types::OverrideKind::Disabled => OverrideKind::Disabled,
                types::OverrideKind::MetricsOnly => OverrideKind::MetricsOnly,
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

impl From<types::Vote> for Vote {
    fn from(vote: types::Vote) -> Self {
        Self { node_id: vote.node_id, at_ms: vote.at_ms }
    }
}

impl From<types::Trip> for Trip {
    fn from(trip: types::Trip) -> Self {
        Self {
            kind: match trip.kind {
                types::TripKind::ConsecutiveFailures => TripKind::ConsecutiveFailures,
                types::TripKind::FailureCount => TripKind::FailureCount,
                types::TripKind::FailureRate => TripKind::FailureRate,
                types::TripKind::SlowCallRate => TripKind::SlowCallRate,
                types::TripKind::Custom => TripKind::Custom,
                types::TripKind::Probe => TripKind::Probe,
                types::TripKind::Overdue => TripKind::Overdue,
                types::TripKind::Votes => TripKind::Votes,
            },
            observed: trip.observed,
            threshold: trip.threshold,
            calls: trip.calls,
            at_ms: trip.at_ms,
            open_for_ms: trip.open_for_ms,
        }
    }
}

impl From<types::RuleState> for RuleState {
    fn from(state: types::RuleState) -> Self {
        Self { rule: state.rule.into(), observed: state.observed, calls: state.calls }
    }
}

impl From<types::RampPosition> for RampPosition {
    fn from(position: types::RampPosition) -> Self {
        Self { share_per_mille: position.share_per_mille, next_step_at_ms: position.next_step_at_ms }
    }
}

impl From<types::NextChange> for NextChange {
    fn from(change: types::NextChange) -> Self {
        Self {
            kind: match change.kind {
                types::ChangeKind::HalfOpen => ChangeKind::HalfOpen,
                types::ChangeKind::LeaseEnd => ChangeKind::LeaseEnd,
                types::ChangeKind::HalfOpenOverdue => ChangeKind::HalfOpenOverdue,
                types::ChangeKind::RampStep => ChangeKind::RampStep,
                types::ChangeKind::OverrideEnd => ChangeKind::OverrideEnd,
                types::ChangeKind::CountsClear => ChangeKind::CountsClear,
                types::ChangeKind::VoteEnd => ChangeKind::VoteEnd,
            },
            at_ms: change.at_ms,
        }
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
            probe_failures: information.probe_failures,
            override_in_force: information.override_.map(Into::into),
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
            own: None,
            explanation: information.explanation,
            local: false,
        }))
    }
}
