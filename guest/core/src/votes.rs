//! Votes: with a quorum each node decides for itself, and so many nodes for the fleet.

use alloc::string::String;
use alloc::vec::Vec;

use crate::applied::AppliedCall;
use crate::circuit::{Circuit, Next, drop_first};
use crate::record::{OverrideKind, RecordError, Status, Token, TransitionReason, TripKind, Vote};
use crate::rules::Finding;
use crate::settings::VOTES_MAX;

impl Circuit<'_> {
    /// A vote lives for the quorum's window; one from further ahead than that was a clock's mistake.
    pub(crate) fn is_live(&self, vote: &Vote) -> bool {
        let window_ms = self.settings().quorum.map_or(0, |quorum| quorum.window_ms);
        vote.at_ms.abs_diff(self.now_ms) < window_ms
    }

    /// Counts the vote of a node; says whether it counts and how many are live.
    pub(crate) fn vote(&mut self, era: u64, node_id: &str, token: Token) -> Result<(bool, u32), RecordError> {
        let Some(quorum) = self.settings().quorum else { return Ok((false, 0)) };
        let forced = self.forced();
        let counts = era == self.record.era && forced != Some(OverrideKind::Disabled);
        let Status::Closed { votes, .. } = &self.record.status else { return Ok((false, 0)) };
        let mut live: Vec<Vote> = votes.iter().filter(|vote| self.is_live(vote)).cloned().collect();
        if !counts {
            return Ok((false, u32::try_from(live.len()).unwrap_or(u32::MAX)));
        }
        // A clock that is behind does not shorten a vote.
        let cast_ms = live.iter().find(|vote| vote.node_id == node_id).map_or(0, |vote| vote.at_ms);
        live.retain(|vote| vote.node_id != node_id);
        let own = Vote { node_id: String::from(node_id), at_ms: self.now_ms.max(cast_ms) };
        let place = live.partition_point(|vote| vote.at_ms <= own.at_ms);
        live.insert(place, own);
        drop_first(&mut live, VOTES_MAX as usize);
        let number = u32::try_from(live.len()).unwrap_or(u32::MAX);
        if let Status::Closed { votes, .. } = &mut self.record.status {
            *votes = live;
        }
        if number >= quorum.votes && forced != Some(OverrideKind::ForcedClosed) {
            let found = Finding {
                kind: TripKind::Votes,
                observed: number.into(),
                threshold: quorum.votes.into(),
                calls: 0,
            };
            let next = Next::Open { found, retry_after_ms: None };
            self.enter(next, TransitionReason::VotesReached, self.now_ms, token)?;
        }
        self.remember(&AppliedCall::new(token));
        Ok((true, number))
    }

    /// How many votes a vote that was counted before found; those that live now where it did not trip.
    pub(crate) fn votes_counted(&self, token: Token) -> u32 {
        let tripped = self.record.transitions.iter().find(|transition| transition.by == token);
        if let (Some(transition), Some(trip)) = (tripped, self.record.last_trip)
            && (trip.kind, trip.at_ms) == (TripKind::Votes, transition.at_ms)
        {
            return u32::try_from(trip.observed).unwrap_or(u32::MAX);
        }
        let Status::Closed { votes, .. } = &self.record.status else { return 0 };
        u32::try_from(votes.iter().filter(|vote| self.is_live(vote)).count()).unwrap_or(u32::MAX)
    }
}
