//! Why a state is left, and how long an open time takes.

use circuitry_core::digest::Digest;
use circuitry_core::record::{State, TransitionReason, Trip, TripKind};

use super::Model;
use crate::hooks::CIRCUIT;

/// Why a state is left.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Cause {
    Opens { reason: TransitionReason, found: Found, retry_after: u64 },
    OpenTimeOver,
    Closes(TransitionReason),
}

/// What makes a circuit open.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Found {
    pub(crate) kind: TripKind,
    pub(crate) observed: u64,
    pub(crate) threshold: u64,
    pub(crate) calls: u64,
}

impl Cause {
    pub(crate) fn next(&self) -> State {
        match self {
            Self::Opens { .. } => State::Open,
            Self::OpenTimeOver => State::HalfOpen,
            Self::Closes(_) => State::Closed,
        }
    }

    pub(crate) fn reason(&self) -> TransitionReason {
        match self {
            Self::Opens { reason, .. } | Self::Closes(reason) => *reason,
            Self::OpenTimeOver => TransitionReason::OpenTimeOver,
        }
    }
}

impl Model {
    /// What a transition does to the trips; says when the open time ends, where one begins.
    pub(crate) fn trip(
        &mut self,
        cause: &Cause,
        previous: State,
        closed_for: u64,
        era: u64,
        at: u64,
    ) -> Option<u64> {
        let Cause::Opens { found, retry_after, .. } = *cause else {
            if cause.reason() == TransitionReason::Reset {
                self.trips_in_a_row = 0;
                self.last_trip = None;
            }
            return None;
        };
        let in_a_row = match (previous, &self.in_force.backoff) {
            (State::Closed, None) => false,
            (State::Closed, Some(backoff)) => closed_for < backoff.healthy_after_ms,
            _ => true,
        };
        self.trips_in_a_row = if in_a_row { self.trips_in_a_row + 1 } else { 1 };
        let open_for = self.open_time(era, retry_after);
        let Found { kind, observed, threshold, calls } = found;
        self.last_trip = Some(Trip { kind, observed, threshold, calls, at_ms: at, open_for_ms: open_for });
        Some(at.saturating_add(open_for))
    }

    fn open_time(&self, era: u64, retry_after: u64) -> u64 {
        let settings = &self.in_force;
        let mut open_for = u128::from(settings.allow_after_ms);
        if let Some(backoff) = &settings.backoff {
            for _ in 1..self.trips_in_a_row {
                open_for = (open_for * u128::from(backoff.factor_per_mille)).div_ceil(1_000);
                open_for = open_for.min(u128::from(backoff.max_ms));
            }
        }
        let mut digest = Digest::new();
        digest.text(CIRCUIT);
        digest.number(era);
        let shorter = digest.finish() % (u64::from(settings.jitter_per_mille) + 1);
        open_for -= open_for * u128::from(shorter) / 1_000;
        (open_for as u64).max(retry_after.min(settings.retry_after_max_ms)).max(1)
    }
}
