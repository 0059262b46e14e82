//! What people and nodes say: overrides, resets, votes; and the calls that are repeated.

use circuitry_core::Answer;
use circuitry_core::record::{Override, OverrideKind, State, Token, TransitionReason, TripKind, Vote};
use circuitry_core::request::Caller;

use super::opening::{Cause, Found};
use super::{Call, Model, Reply, Told};

impl Model {
    // ---- repeated calls ----

    fn tell(&mut self, id: Token, votes: u32) {
        let revision = self.writes + 1;
        self.told.push(Told { id, dispositions: vec![], votes, bytes: 17, revision });
    }

    /// Of the last 32 calls that wrote, those for which there is room: the newest ones in 768 bytes.
    fn kept(&self) -> usize {
        let mut room: usize = 768;
        let mut kept = 0;
        for told in self.told.iter().rev().take(32) {
            let Some(left) = room.checked_sub(told.bytes) else { break };
            room = left;
            kept += 1;
        }
        kept
    }

    pub(super) fn remembered(&self, id: Token) -> Option<&Told> {
        self.told.iter().rev().take(self.kept()).find(|told| told.id == id)
    }

    /// Whether any call was ever dropped for want of room.
    pub(super) fn dropped_for_room(&self) -> bool {
        let among_32 =
            |last: usize| self.told[..=last].iter().rev().take(32).map(|told| told.bytes).sum::<usize>();
        (0..self.told.len()).any(|last| among_32(last) > 768)
    }

    /// More than 32 writes since the try whose answer was lost, or a call dropped that came after it.
    pub(super) fn too_late(&self, caller: &Caller) -> bool {
        let dropped = &self.told[..self.told.len() - self.kept()];
        caller.retry_of.is_some_and(|based_on| {
            self.writes > based_on.saturating_add(32) || dropped.iter().any(|told| told.revision > based_on)
        })
    }

    // ---- overrides and resets ----

    pub(super) fn force(&mut self, call: &mut Call<'_>, caller: &Caller, wanted: Option<&Override>) -> Reply {
        let previous = self.forced_at(call.now).cloned();
        if self.remembered(caller.token).is_some() {
            return Reply::Answer(Answer::Overridden { previous, already_applied: true });
        }
        if self.too_late(caller) {
            return Reply::Forgotten;
        }
        if wanted.and_then(|wanted| wanted.until_ms).is_some_and(|until| until <= call.now) {
            return Reply::BadRequest;
        }
        self.forced = wanted.cloned();
        self.tell(caller.token, 0);
        call.writes = true;
        Reply::Answer(Answer::Overridden { previous, already_applied: false })
    }

    pub(super) fn reset(&mut self, call: &mut Call<'_>, caller: &Caller) -> Reply {
        let (id, previous) = (caller.token, self.forced_at(call.now).cloned());
        if self.remembered(id).is_some() {
            let transitions = self.changes_by(id);
            return Reply::Answer(Answer::Cleared { previous, already_applied: true, transitions });
        }
        if self.too_late(caller) {
            return Reply::Forgotten;
        }
        self.enter(call, &Cause::Closes(TransitionReason::Reset), id, call.now);
        self.forced = None;
        self.tell(id, 0);
        call.writes = true;
        let transitions = self.changes_by(id);
        Reply::Answer(Answer::Cleared { previous, already_applied: false, transitions })
    }

    // ---- votes ----

    /// The last vote of each node in this stay, while it lives; oldest first.
    pub(super) fn live_votes(&self, now: u64) -> Vec<Vote> {
        let Some(quorum) = self.in_force.quorum.filter(|_| self.state() == State::Closed) else {
            return vec![];
        };
        let here: Vec<&Vote> =
            self.votes.iter().filter(|(era, _)| *era == self.era()).map(|(_, vote)| vote).collect();
        let is_last = |at: usize| here[at + 1..].iter().all(|later| later.node_id != here[at].node_id);
        let lives = |at: &usize| is_last(*at) && here[*at].at_ms.abs_diff(now) < quorum.window_ms;
        let mut live: Vec<Vote> = (0..here.len()).filter(lives).map(|at| here[at].clone()).collect();
        live.sort_by_key(|vote| vote.at_ms);
        live
    }

    pub(super) fn vote(&mut self, call: &mut Call<'_>, caller: &Caller, era: u64, node_id: &str) -> Reply {
        let (id, now) = (caller.token, call.now);
        let live = |model: &Self| model.live_votes(now).len() as u32;
        if let Some(first) = self.remembered(id).map(|told| told.votes) {
            let transitions = self.changes_by(id);
            // Those that opened it, as it was told; else those that live now.
            let votes = if transitions.is_empty() { live(self) } else { first };
            return Reply::Answer(Answer::Voted {
                accepted: true,
                votes,
                already_applied: true,
                transitions,
            });
        }
        if self.too_late(caller) {
            return Reply::Forgotten;
        }
        let quorum = self.in_force.quorum.filter(|_| {
            era == self.era()
                && self.state() == State::Closed
                && self.forced_as(now) != Some(OverrideKind::Disabled)
        });
        let live_votes = self.live_votes(now);
        let Some(quorum) = quorum else {
            let (votes, transitions) = (live(self), vec![]);
            return Reply::Answer(Answer::Voted {
                accepted: false,
                votes,
                already_applied: false,
                transitions,
            });
        };
        // A vote that is over when another comes stays over, should the clock go back.
        // One that comes again is prolonged, never shortened.
        let own = live_votes.iter().find(|vote| vote.node_id == node_id);
        let at_ms = own.map_or(now, |vote| vote.at_ms.max(now));
        self.votes = live_votes.into_iter().map(|vote| (era, vote)).collect();
        self.votes.push((era, Vote { node_id: node_id.into(), at_ms }));
        call.writes = true;
        let votes = live(self);
        self.tell(id, votes);
        if votes >= quorum.votes && self.forced_as(now) != Some(OverrideKind::ForcedClosed) {
            let (observed, threshold) = (votes.into(), quorum.votes.into());
            let found = Found { kind: TripKind::Votes, observed, threshold, calls: 0 };
            let cause = Cause::Opens { reason: TransitionReason::VotesReached, found, retry_after: 0 };
            self.enter(call, &cause, id, now);
        }
        let transitions = self.changes_by(id);
        Reply::Answer(Answer::Voted { accepted: true, votes, already_applied: false, transitions })
    }
}
