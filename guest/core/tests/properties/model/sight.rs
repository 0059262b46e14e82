//! What a person is shown, and until when a record matters.

use circuitry_core::TripRule;
use circuitry_core::record::{Counts, Probe, State, Token};
use circuitry_core::request::{ChangeKind, Information, NextChange, RampPosition, RuleState};
use circuitry_core::settings::Settings;

use super::calls::{Calls, leaves_at, look};
use super::{Call, Fate, Hint, Model};
use crate::agreement::explicit;

impl Model {
    /// A circuit of which nothing is stored.
    pub(super) fn nothing(settings: &Settings) -> Self {
        let mut model = Self::new(settings, 0);
        model.stays[0].era = 0;
        model
    }

    /// Custom rules count by their names and versions; who keeps a record how long, and which deployment is newer, is no
    /// difference.
    pub(super) fn differs_from(&self, settings: &Settings) -> bool {
        let alike = Settings { settings_revision: settings.settings_revision, ..self.in_force_for(settings) };
        explicit(&alike) != explicit(settings)
    }

    pub(super) fn in_force_for(&self, settings: &Settings) -> Settings {
        Settings { idle_retention_ms: settings.idle_retention_ms, ..self.in_force.clone() }
    }

    /// As the next start would find it: a phase that has taken too long is over, though nobody has written so. Until somebody
    /// does, that is neither a transition nor an era.
    pub(crate) fn effective(&self, now: u64) -> Self {
        let mut model = self.clone();
        if let (Some(at), true) = (self.overdue_at(), self.is_overdue(now)) {
            let settings = self.in_force.clone();
            let hint = Hint { answer: None, last_trip: None };
            let call = Call { settings: &settings, now, hint: &hint, writes: false };
            model.end_overdue(&call, Token { node: 0, sequence: 0 }, at);
        }
        model
    }

    /// In the core's order and without its words.
    pub(crate) fn show(&self, settings: &Settings, now: u64) -> Information {
        let effective = self.effective(now).show_state(settings, now);
        let (era, generation, transitions) = (self.era(), self.generation, self.last_changes());
        Information { era, generation, transitions, ..effective }
    }

    fn show_state(&self, settings: &Settings, now: u64) -> Information {
        let stay = self.stay();
        let over = stay.until.filter(|until| *until <= now);
        let state = if over.is_some() { State::HalfOpen } else { stay.state };
        let cleared = self.clears_at.is_some_and(|at| at <= now);
        let counts = if cleared { Counts::default() } else { self.counts() };
        let probe = |place: &&super::Place| Probe { id: place.id, deadline_ms: place.deadline };
        let mut probes: Vec<_> = self.places(Fate::Out).iter().map(probe).collect();
        probes.sort_unstable_by_key(|probe| (probe.id.node, probe.id.sequence));
        let ramp = self.ramp_at(now);
        let expires_at_ms = stay
            .until
            .filter(|_| over.is_none())
            .or(self.clears_at.filter(|_| !cleared))
            .or(self.overdue_at());
        Information {
            state,
            era: stay.era,
            generation: self.generation,
            counts,
            since_ms: over.unwrap_or(stay.since),
            expires_at_ms,
            probes,
            probe_successes: self.places(Fate::Succeeded).len() as u32,
            probe_failures: self.places(Fate::Failed).len() as u32,
            override_in_force: self.forced_at(now).cloned(),
            transitions: self.last_changes(),
            revision: self.writes,
            last_trip: self.last_trip,
            trips_in_a_row: self.trips_in_a_row,
            rules: if state == State::Closed { self.rules_at(counts, now) } else { vec![] },
            ramp: ramp
                .map(|(share_per_mille, next_step_at_ms)| RampPosition { share_per_mille, next_step_at_ms }),
            votes: self.live_votes(now),
            next_change: self.changes_ahead(now).first().copied(),
            settings_in_force: self.in_force_for(settings),
            settings_differ: self.differs_from(settings),
            explanation: String::new(),
        }
    }

    /// With a quorum the nodes' own records have windows, this one has none.
    fn calls_in_windows(&self) -> Vec<Calls> {
        if self.in_force.quorum.is_some() { vec![] } else { self.calls_here() }
    }

    fn rules_at(&self, counts: Counts, now: u64) -> Vec<RuleState> {
        let calls = self.calls_in_windows();
        let state = |rule: &TripRule| {
            let (observed, calls) = match rule.windowed() {
                Some(windowed) => {
                    let seen = look(windowed.window, &calls, Some(now));
                    (seen.found(rule) as u64, seen.calls as u64)
                }
                None => (counts.consecutive_failures, counts.total),
            };
            RuleState { rule: rule.clone(), observed, calls }
        };
        self.in_force.trip_rules.iter().map(state).collect()
    }

    /// What time will change, the next one first.
    pub(crate) fn changes_ahead(&self, now: u64) -> Vec<NextChange> {
        let mut ahead: Vec<(ChangeKind, u64)> = vec![];
        ahead.extend(self.stay().until.map(|at| (ChangeKind::HalfOpen, at)));
        ahead.extend(self.places(Fate::Out).iter().map(|place| (ChangeKind::LeaseEnd, place.deadline)));
        ahead.extend(self.overdue_at().map(|at| (ChangeKind::HalfOpenOverdue, at)));
        ahead.extend(self.ramp_at(now).map(|(_, at)| (ChangeKind::RampStep, at)));
        let forced_until = self.forced_at(now).and_then(|forced| forced.until_ms);
        ahead.extend(forced_until.map(|at| (ChangeKind::OverrideEnd, at)));
        ahead.extend(self.clears_at.map(|at| (ChangeKind::CountsClear, at)));
        let window = self.in_force.quorum.map_or(0, |quorum| quorum.window_ms);
        let vote_end = |at: u64| (ChangeKind::VoteEnd, at.saturating_add(window));
        ahead.extend(self.live_votes(now).iter().map(|vote| vote_end(vote.at_ms)));
        ahead.retain(|(_, at)| *at > now);
        ahead.sort_by_key(|(_, at)| *at);
        ahead.into_iter().map(|(kind, at_ms)| NextChange { kind, at_ms }).collect()
    }

    /// Until when something in the record matters; `None` is for ever.
    pub(super) fn matters_until(&self, now: u64) -> Option<u64> {
        let mut times = vec![0];
        times.extend(self.stay().until);
        times.extend(self.clears_at);
        times.extend(self.places(Fate::Out).iter().map(|place| place.deadline));
        if let Some(forced) = self.forced_at(now) {
            times.push(forced.until_ms?);
        }
        if let Some(at) = self.overdue_at() {
            // What follows an overdue phase lasts as long as if somebody had written it then.
            let then = now.max(at);
            times.push(at);
            times.extend(self.effective(then).matters_until(then));
        }
        if let Some(quorum) = self.in_force.quorum {
            times.extend(self.live_votes(now).iter().map(|vote| vote.at_ms.saturating_add(quorum.window_ms)));
        }
        if self.state() == State::Closed {
            times.extend(self.ramp_ends_at(now));
            for windowed in self.in_force.trip_rules.iter().filter_map(TripRule::windowed) {
                times.extend(leaves_at(windowed.window, &self.calls_in_windows(), now));
            }
            // A trip in a row is one until the circuit is healthy.
            if let (Some(backoff), true) = (self.in_force.backoff, self.trips_in_a_row > 0) {
                times.push(self.stay().since.saturating_add(backoff.healthy_after_ms));
            }
        }
        times.into_iter().max()
    }
}
