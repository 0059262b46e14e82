//! A second reading of the rules, to compare the core with: slow, naive, and without a line of the core's.
//!
//! It forgets nothing: every stay in a state, every count, every place and every call is in a list, and what a
//! circuit is, is read off the lists each time. The numbers at the comments are those of the rules.

use crate::words::{Ask, Change, Forced, Part, Phase, Plan, Reply, Shown, Tally, Went, Who};

#[derive(Clone, Debug)]
struct Stay {
    phase: Phase,
    era: u64,
    since: u64,
    /// Only open: when it ends.
    until: Option<u64>,
    /// What led to it, and who did it; the first stay has none.
    entered: Option<(Change, Who)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Out,
    Replaced,
    Settled(Went),
}

#[derive(Clone, Debug)]
struct Place {
    era: u64,
    who: Who,
    deadline: u64,
    fate: Fate,
}

#[derive(Clone, Debug)]
struct Call {
    who: Who,
    parts: Vec<(u32, u32)>,
}

/// All that has ever happened to a circuit.
#[derive(Clone, Debug)]
pub(crate) struct Model {
    pub(crate) writes: u64,
    generation: u64,
    stays: Vec<Stay>,
    heard: Vec<(u64, bool, u64)>,
    clears_at: Option<u64>,
    places: Vec<Place>,
    forced: Option<Forced>,
    calls: Vec<Call>,
}

/// An answer, and what is to be stored for it: the new state and how long it lives (`None` is for ever).
pub(crate) struct Step {
    pub(crate) reply: Reply,
    pub(crate) write: Option<(Model, Option<u64>)>,
}

/// Answers `ask` on what is stored (`None`: nothing is) at `now`.
pub(crate) fn step(stored: Option<&Model>, plan: &Plan, ask: &Ask, now: u64) -> Step {
    let mut model = match (stored, ask) {
        (Some(model), _) => model.clone(),
        (None, Ask::Inspect) => return done(Reply::Shown(Box::new(unknown()))),
        // Nothing is known of those eras.
        (None, Ask::End { parts, .. }) => {
            let parts = parts.iter().map(|part| (0, part.times)).collect();
            return done(Reply::Settled { parts, again: false, changes: vec![] });
        }
        (None, Ask::Renew { probes, .. }) => return done(Reply::Renewed(vec![None; probes.len()])),
        // 5.1: closed, generation 0, nothing counted; its era has to exist before a permit goes out.
        (None, Ask::Start { .. } | Ask::Force { .. }) => Model::new(now),
    };
    let mut writes = stored.is_none();
    let reply = match ask {
        Ask::Start { who } => model.start(plan, *who, now, &mut writes),
        Ask::End { who, retry_of, parts } => model.end(plan, *who, *retry_of, parts, now, &mut writes),
        Ask::Renew { era, probes, .. } => model.renew(plan, *era, probes, now, &mut writes),
        Ask::Inspect => Reply::Shown(Box::new(model.show(now))),
        Ask::Force { who, retry_of, forced } => {
            model.force(*who, *retry_of, forced.clone(), now, &mut writes)
        }
    };
    if !writes || matches!(reply, Reply::TooLate | Reply::BadRequest) {
        return done(reply);
    }
    model.writes += 1;
    if model.forced_at(now).is_none() {
        model.forced = None;
    }
    let ttl = model.matters_until(now).map(|until| until.saturating_sub(now).saturating_add(plan.idle));
    Step { reply, write: Some((model, ttl)) }
}

fn done(reply: Reply) -> Step {
    Step { reply, write: None }
}

fn unknown() -> Shown {
    Shown {
        phase: Phase::Closed,
        era: 0,
        generation: 0,
        tally: Tally::default(),
        since: 0,
        expires: None,
        probes: vec![],
        succeeded: 0,
        forced: None,
        changes: vec![],
        writes: 0,
    }
}

impl Model {
    fn new(now: u64) -> Self {
        let first = Stay { phase: Phase::Closed, era: now.max(1), since: now, until: None, entered: None };
        Self {
            writes: 0,
            generation: 0,
            stays: vec![first],
            heard: vec![],
            clears_at: None,
            places: vec![],
            forced: None,
            calls: vec![],
        }
    }

    fn stay(&self) -> &Stay {
        self.stays.last().unwrap()
    }

    pub(crate) fn phase(&self) -> Phase {
        self.stay().phase
    }

    pub(crate) fn era(&self) -> u64 {
        self.stay().era
    }

    fn held(&self) -> Vec<&Place> {
        self.places.iter().filter(|place| place.era == self.era() && place.fate == Fate::Out).collect()
    }

    fn succeeded(&self) -> u32 {
        let well = |place: &&Place| place.era == self.era() && place.fate == Fate::Settled(Went::Well);
        if self.phase() == Phase::HalfOpen { self.places.iter().filter(well).count() as u32 } else { 0 }
    }

    fn tally(&self) -> Tally {
        let mut tally = Tally::default();
        for (_, good, times) in self.heard.iter().filter(|(generation, ..)| *generation == self.generation) {
            tally.all += times;
            if *good {
                tally.good += times;
                tally.good_run += times;
                tally.bad_run = 0;
            } else {
                tally.bad += times;
                tally.bad_run += times;
                tally.good_run = 0;
            }
        }
        tally
    }

    fn hear(&mut self, good: bool, times: u64) {
        self.heard.push((self.generation, good, times));
    }

    fn forced_at(&self, now: u64) -> Option<&Forced> {
        self.forced.as_ref().filter(|forced| forced.until.is_none() || forced.until > Some(now))
    }

    fn changes_by(&self, who: Who) -> Vec<Change> {
        let (changes, by): (Vec<Change>, Vec<Who>) = self.last_changes().into_iter().unzip();
        changes.into_iter().zip(by).filter(|(_, by)| *by == who).map(|(change, _)| change).collect()
    }

    fn last_changes(&self) -> Vec<(Change, Who)> {
        let all: Vec<_> = self.stays.iter().filter_map(|stay| stay.entered).collect();
        all[all.len().saturating_sub(8)..].to_vec()
    }

    /// 5.11
    fn matters_until(&self, now: u64) -> Option<u64> {
        let mut times = vec![0];
        times.extend(self.stay().until);
        times.extend(self.clears_at.filter(|_| self.phase() == Phase::Closed));
        times.extend(self.held().iter().map(|place| place.deadline));
        if let Some(forced) = self.forced_at(now) {
            times.push(forced.until?);
        }
        times.into_iter().max()
    }

    // ---- 5.5 and 5.6 ----

    fn start(&mut self, plan: &Plan, who: Who, now: u64, writes: &mut bool) -> Reply {
        if let Some(forced) = self.forced_at(now) {
            let wait = forced.until.map_or(plan.open_for, |until| until - now);
            return match forced.open {
                true => Reply::Refusal { why: "forced-open", wait, changes: self.changes_by(who) },
                false => self.permit(who, None),
            };
        }
        if let Some(until) = self.stay().until {
            if now < until {
                return Reply::Refusal { why: "open", wait: until - now, changes: self.changes_by(who) };
            }
            self.enter(plan, Phase::HalfOpen, "open-time-over", who, now);
            *writes = true;
        }
        if self.phase() == Phase::Closed {
            return self.permit(who, None);
        }
        // Only with settings that were lowered meanwhile.
        if self.succeeded() >= plan.closes_after {
            self.enter(plan, Phase::Closed, "probes-succeeded", who, now);
            *writes = true;
            return self.permit(who, None);
        }
        if let Some(own) = self.held().into_iter().find(|place| place.who == who) {
            return self.permit(who, Some((who, own.deadline)));
        }
        let room = plan.closes_after - self.succeeded();
        let held = self.held().len() as u32;
        let running: Vec<u64> =
            self.held().iter().map(|place| place.deadline).filter(|deadline| *deadline > now).collect();
        if running.len() as u32 >= room {
            let wait = (running.iter().min().unwrap() - now).max(100);
            return Reply::Refusal { why: "too-many-requests", wait, changes: self.changes_by(who) };
        }
        if held >= room {
            let era = self.era();
            let out = |place: &&mut Place| place.era == era && place.fate == Fate::Out;
            let oldest = self.places.iter_mut().filter(out).min_by_key(|place| place.deadline);
            oldest.unwrap().fate = Fate::Replaced;
        }
        let deadline = now.saturating_add(plan.lease);
        self.places.push(Place { era: self.era(), who, deadline, fate: Fate::Out });
        *writes = true;
        self.permit(who, Some((who, deadline)))
    }

    fn permit(&self, who: Who, probe: Option<(Who, u64)>) -> Reply {
        Reply::Permit { era: self.era(), probe, changes: self.changes_by(who) }
    }

    fn renew(&mut self, plan: &Plan, era: u64, probes: &[Who], now: u64, writes: &mut bool) -> Reply {
        let current = era == self.era();
        let mut deadlines = vec![];
        for probe in probes {
            let own = |place: &&mut Place| place.era == era && place.who == *probe && place.fate == Fate::Out;
            deadlines.push(self.places.iter_mut().find(own).filter(|_| current).map(|place| {
                let deadline = now.saturating_add(plan.lease);
                *writes |= deadline > place.deadline;
                place.deadline = place.deadline.max(deadline);
                place.deadline
            }));
        }
        Reply::Renewed(deadlines)
    }

    // ---- 5.2, 5.3, 5.7 and 5.8 ----

    fn end(
        &mut self,
        plan: &Plan,
        who: Who,
        retry_of: Option<u64>,
        parts: &[Part],
        now: u64,
        writes: &mut bool,
    ) -> Reply {
        if let Some(call) = self.remembered(who) {
            return Reply::Settled { parts: call.parts.clone(), again: true, changes: self.changes_by(who) };
        }
        if self.too_late(retry_of) {
            return Reply::TooLate;
        }
        let settled: Vec<(u32, u32)> = parts
            .iter()
            .map(|part| {
                let accepted = self.settle(plan, who, part, now, writes);
                (accepted, part.times - accepted)
            })
            .collect();
        if *writes {
            self.calls.push(Call { who, parts: settled.clone() });
        }
        Reply::Settled { parts: settled, again: false, changes: self.changes_by(who) }
    }

    fn settle(&mut self, plan: &Plan, who: Who, part: &Part, now: u64, writes: &mut bool) -> u32 {
        if part.era != self.era() {
            return 0;
        }
        match (self.phase(), part.probe) {
            (Phase::Closed, None) if part.went == Went::Neither => part.times,
            (Phase::Closed, None) => {
                *writes = true;
                if self.clears_at.is_some_and(|at| at <= now) {
                    self.generation += 1;
                    self.clears_at = None;
                }
                if self.clears_at.is_none() {
                    self.clears_at = plan.clears_after.map(|after| now.saturating_add(after));
                }
                if part.went == Went::Well {
                    self.hear(true, part.times.into());
                    return part.times;
                }
                self.fail(plan, who, part.times, now)
            }
            (Phase::HalfOpen, Some(probe)) => {
                let era = self.era();
                let own =
                    |place: &&mut Place| place.era == era && place.who == probe && place.fate == Fate::Out;
                let Some(place) = self.places.iter_mut().find(own) else { return 0 };
                place.fate = Fate::Settled(part.went);
                *writes = true;
                match part.went {
                    Went::Neither => {}
                    Went::Well => {
                        self.hear(true, 1);
                        if self.succeeded() >= plan.closes_after {
                            self.enter(plan, Phase::Closed, "probes-succeeded", who, now);
                        }
                    }
                    Went::Badly => {
                        self.hear(false, 1);
                        self.enter(plan, Phase::Open, "probe-failed", who, now);
                    }
                }
                1
            }
            // From a forced-closed override.
            (Phase::Open | Phase::HalfOpen, None) => part.times,
            (Phase::Open | Phase::Closed, Some(_)) => 0,
        }
    }

    fn fail(&mut self, plan: &Plan, who: Who, times: u32, now: u64) -> u32 {
        let forced_closed = self.forced_at(now).is_some_and(|forced| !forced.open);
        let before = self.tally();
        for one in 1..=u64::from(times) {
            let trips = match plan.rule {
                None => before.bad_run + one > plan.bears,
                Some(rule) => !forced_closed && rule.trips(before.all + one, before.bad + one),
            };
            if trips && !forced_closed {
                self.hear(false, one);
                self.enter(plan, Phase::Open, "tripped", who, now);
                return one as u32;
            }
        }
        self.hear(false, times.into());
        times
    }

    /// 5.4, 5.7, and what an era is.
    fn enter(&mut self, plan: &Plan, phase: Phase, why: &'static str, by: Who, now: u64) {
        let from = self.phase();
        let era = (self.era() + 1).max(now);
        if why == "tripped" || why == "probes-succeeded" {
            self.generation += 1;
        }
        self.clears_at = match phase {
            Phase::Closed => plan.clears_after.map(|after| now.saturating_add(after)),
            Phase::Open | Phase::HalfOpen => None,
        };
        let change = Change { from, to: phase, why, at: now, era, generation: self.generation };
        let until = (phase == Phase::Open).then(|| now.saturating_add(plan.open_for));
        self.stays.push(Stay { phase, era, since: now, until, entered: Some((change, by)) });
    }

    // ---- repeated calls ----

    fn remembered(&self, who: Who) -> Option<&Call> {
        self.calls.iter().rev().take(32).find(|call| call.who == who)
    }

    /// More than 32 writes since the try whose answer was lost.
    fn too_late(&self, retry_of: Option<u64>) -> bool {
        retry_of.is_some_and(|based_on| self.writes > based_on.saturating_add(32))
    }

    fn force(
        &mut self,
        who: Who,
        retry_of: Option<u64>,
        forced: Option<Forced>,
        now: u64,
        writes: &mut bool,
    ) -> Reply {
        let before = self.forced_at(now).cloned();
        if self.remembered(who).is_some() {
            return Reply::Overridden { before, again: true };
        }
        if self.too_late(retry_of) {
            return Reply::TooLate;
        }
        if forced.as_ref().and_then(|forced| forced.until).is_some_and(|until| until <= now) {
            return Reply::BadRequest;
        }
        self.forced = forced;
        self.calls.push(Call { who, parts: vec![] });
        *writes = true;
        Reply::Overridden { before, again: false }
    }

    // ---- 5.9 ----

    pub(crate) fn show(&self, now: u64) -> Shown {
        let stay = self.stay();
        let over = stay.until.filter(|until| *until <= now);
        let cleared = self.clears_at.is_some_and(|at| at <= now);
        let mut probes: Vec<(Who, u64)> =
            self.held().iter().map(|place| (place.who, place.deadline)).collect();
        probes.sort_unstable();
        Shown {
            phase: if over.is_some() { Phase::HalfOpen } else { stay.phase },
            era: stay.era,
            generation: self.generation,
            tally: if cleared { Tally::default() } else { self.tally() },
            since: over.unwrap_or(stay.since),
            expires: stay.until.filter(|_| over.is_none()).or(self.clears_at.filter(|_| !cleared)),
            probes,
            succeeded: self.succeeded(),
            forced: self.forced_at(now).cloned(),
            changes: self.last_changes().into_iter().map(|(change, _)| change).collect(),
            writes: self.writes,
        }
    }
}
