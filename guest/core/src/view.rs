//! What a person is shown: the circuit in its effective state, and why.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;

use crate::circuit::{Circuit, NOBODY};
use crate::explanation::explain;
use crate::record::{Counts, RecordError, State, Status, Vote};
use crate::request::{ChangeKind, Information, NextChange, Request, RuleState};

impl Circuit<'_> {
    /// What the circuit is at this moment, without changing it (rule 9): an open circuit whose time is over reads as
    /// half-open, and a half-open phase that is overdue as what follows it.
    ///
    /// # Errors
    /// Where the settings in force, which an overdue phase asks for, are damaged.
    pub(crate) fn information(&self) -> Result<Box<Information>, RecordError> {
        let mut view = self.clone();
        view.brings_settings = false;
        view.end_overdue(NOBODY)?;
        let record = &view.record;
        let (mut state, mut since_ms, mut expires_at_ms) = (record.status.state(), record.since_ms, None);
        let (mut probes, mut probe_successes, mut probe_failures) = (Vec::new(), 0, 0);
        let (mut rules, mut votes) = (Vec::new(), Vec::new());
        match &record.status {
            Status::Closed { counts_expire_at_ms, windows, votes: cast, .. } => {
                expires_at_ms = counts_expire_at_ms.filter(|at_ms| *at_ms > view.now_ms);
                let seen = view.seen(windows);
                rules = view.settings().rules().iter().map(|rule| RuleState::of(&seen, rule)).collect();
                votes = cast.iter().filter(|vote| view.is_live(vote)).cloned().collect();
            }
            Status::Open { expires_at_ms: at_ms } if *at_ms <= view.now_ms => {
                (state, since_ms) = (State::HalfOpen, *at_ms);
            }
            Status::Open { expires_at_ms: at_ms } => expires_at_ms = Some(*at_ms),
            Status::HalfOpen { probes: out, successes, failures } => {
                expires_at_ms = view.overdue().map(|(at_ms, _)| at_ms);
                (probes, probe_successes, probe_failures) = (out.clone(), *successes, *failures);
            }
        }
        // Also where they are the caller's own: another revision of them may be in force.
        let settings_in_force = match &self.record.in_force {
            Some(in_force) => in_force.settings(self.request.settings.idle_retention_ms)?,
            None => self.settings().clone(),
        };
        let ramp = view.ramp_step().map(|(_, _, position)| position);
        let mut information = Box::new(Information {
            state,
            // Only what is written is an era, a generation or a transition.
            era: self.record.era,
            generation: self.record.generation,
            counts: if view.counts_expired() { Counts::default() } else { record.counts },
            since_ms,
            expires_at_ms,
            probes,
            probe_successes,
            probe_failures,
            override_in_force: self.override_in_force().cloned(),
            transitions: self.record.transitions.clone(),
            revision: self.record.revision,
            last_trip: record.last_trip,
            trips_in_a_row: record.trips_in_a_row,
            rules,
            ramp,
            votes,
            next_change: None,
            settings_in_force,
            settings_differ: self.settings_differ(),
            explanation: String::new(),
        });
        information.next_change = next_change(&information, self.now_ms);
        information.explanation = explain(&information, &self.request.circuit, self.now_ms);
        Ok(information)
    }
}

impl RuleState {
    fn of(seen: &crate::rules::Seen<'_>, rule: &crate::settings::TripRule) -> Self {
        let found = seen.state_of(rule);
        Self { rule: rule.clone(), observed: found.observed, calls: found.calls }
    }

    fn unknown(rule: &crate::settings::TripRule) -> Self {
        Self { rule: rule.clone(), observed: 0, calls: 0 }
    }
}

impl Information {
    /// What is shown where there is no record: a closed circuit of which nothing is known.
    pub(crate) fn unknown(request: &Request, now_ms: u64) -> Box<Self> {
        let mut information = Box::new(Self {
            state: State::Closed,
            era: 0,
            generation: 0,
            counts: Counts::default(),
            since_ms: 0,
            expires_at_ms: None,
            probes: Vec::new(),
            probe_successes: 0,
            probe_failures: 0,
            override_in_force: None,
            transitions: Vec::new(),
            revision: 0,
            last_trip: None,
            trips_in_a_row: 0,
            rules: request.settings.rules().iter().map(RuleState::unknown).collect(),
            ramp: None,
            votes: Vec::new(),
            next_change: None,
            settings_in_force: request.settings.clone(),
            settings_differ: false,
            explanation: String::new(),
        });
        information.explanation = explain(&information, &request.circuit, now_ms);
        information
    }
}

/// The earliest thing that time alone brings.
fn next_change(information: &Information, now_ms: u64) -> Option<NextChange> {
    let quorum_ms = information.settings_in_force.quorum.map_or(0, |quorum| quorum.window_ms);
    let vote_ends = |vote: &Vote| vote.at_ms.saturating_add(quorum_ms);
    let expiry = match information.state {
        State::Open => ChangeKind::HalfOpen,
        State::Closed => ChangeKind::CountsClear,
        State::HalfOpen => ChangeKind::HalfOpenOverdue,
    };
    let changes = [
        (expiry, information.expires_at_ms),
        (
            ChangeKind::LeaseEnd,
            information.probes.iter().map(|probe| probe.deadline_ms).filter(|at_ms| *at_ms > now_ms).min(),
        ),
        (ChangeKind::RampStep, information.ramp.map(|ramp| ramp.next_step_at_ms)),
        (ChangeKind::OverrideEnd, information.override_in_force.as_ref().and_then(|set| set.until_ms)),
        (ChangeKind::VoteEnd, information.votes.iter().map(vote_ends).min()),
    ];
    let dated = changes.into_iter().filter_map(|(kind, at_ms)| Some(NextChange { kind, at_ms: at_ms? }));
    dated.min_by_key(|change| change.at_ms)
}
