//! A state of the world, and what can happen in it next.
//!
//! A call goes in four steps (load, decide, swap, answer), and anything may happen between two of them. Two steps are one where
//! nobody can tell the difference: a swap and the arrival of its answer, which changes nothing but its caller.

use circuitry_core::Answer;
use circuitry_core::record::Status;
use circuitry_core::request::Verdict;

use crate::archive::{Archive, Broken, Ruling};
use crate::calls::{Ask, BEGIN_MS, Call, Deed, Late, Named, Offset, Part, Phase, Snap, Stored, Went, offset};
use crate::config::{Beginning, Budget, TICK_MS};
use crate::delivery;

pub(crate) const NODES: usize = 3;
/// The calls after those of the nodes: a person's, and the second run of a call that is made twice.
pub(crate) const PERSON: usize = NODES;
pub(crate) const ECHO: usize = NODES + 1;

/// Versions of a record that was lost are below those of the next.
const LIFE: u16 = 4_096;
/// One short of all that a record remembers, so that the calls of the nodes take it over the border.
const STORM_WRITES: u8 = 31;

pub(crate) type Next = Vec<(Step, World)>;

fn same_version(one: Option<Snap>, other: Option<Snap>) -> bool {
    one.map(|snap| snap.version) == other.map(|snap| snap.version)
}

/// A permit that a node holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Held {
    pub(crate) era: Offset,
    pub(crate) start: u8,
    /// Of a probe: when its lease ends.
    pub(crate) until: Option<Offset>,
    pub(crate) by_node: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Node {
    pub(crate) number: u8,
    pub(crate) starts: u8,
    pub(crate) held: [Option<Held>; 2],
    /// It tripped for itself: in this era, by the outcome of this start.
    pub(crate) votes: Option<(Offset, u8)>,
    /// The entry that it saw last, where it goes by that.
    pub(crate) known: Option<Snap>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct World {
    pub(crate) store: Option<Snap>,
    /// How many records there were before this one.
    life: u8,
    /// The latest era that was ever written.
    pub(crate) latest_era: Offset,
    now: Offset,
    pub(crate) nodes: [Node; NODES],
    pub(crate) calls: [Option<Call>; NODES + 2],
    pub(crate) late: Option<Late>,
    pub(crate) left: Budget,
}

/// What happened. `usize`s are places of calls.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Step {
    Tick,
    RecordLost,
    Storm,
    Crash(u8),
    Begin(u8, Ask),
    BeginTwice(u8, Ask),
    BeginKnowing(u8, Ask),
    /// Loads and decides.
    Load(u8),
    LoadOnly(u8),
    DecideLater(u8),
    /// The swap is stored, and the answer arrives.
    Swap(u8),
    SwapAnswerLost(u8),
    /// All is well, and the call is made again all the same.
    SwapThenRepeat(u8),
    /// No answer comes, and the swap is still under way.
    SwapLate(u8),
    GiveUp(u8),
    LateSwapLands,
}

impl World {
    pub(crate) fn new(archive: &mut Archive) -> Result<Self, Broken> {
        let config = archive.config.clone();
        let node = |slot: u8| Node {
            number: slot + 1,
            // Those who are not there have no start left.
            starts: if slot < config.nodes { 0 } else { config.starts },
            held: [None; 2],
            votes: None,
            known: None,
        };
        let mut world = Self {
            store: None,
            life: 0,
            latest_era: 0,
            now: TICK_MS,
            nodes: [node(0), node(1), node(2)],
            calls: [None; NODES + 2],
            late: None,
            left: config.budget,
        };
        if config.beginning != Beginning::Unknown {
            world.let_strangers_go_first(archive)?;
        }
        Ok(world)
    }

    /// The circuit is tripped, and recovers where it is to begin so.
    fn let_strangers_go_first(&mut self, archive: &mut Archive) -> Result<(), Broken> {
        let settings = archive.config.settings.clone();
        let (mut serial, mut went) = (0, Went::Badly);
        loop {
            let record = self.store.map(|store| archive.record(store.record));
            match record.map(|record| &record.status) {
                Some(Status::Open { .. }) if archive.config.beginning == Beginning::Tripped => return Ok(()),
                Some(Status::Open { expires_at_ms }) => {
                    (self.now, went) = (offset(*expires_at_ms), Went::Well)
                }
                Some(Status::Closed { .. }) if went == Went::Well => return Ok(()),
                _ => {}
            }
            serial += 1;
            let stranger = |ask| Named { node: 150, slot: 0, serial, ask };
            let started = self.ask_alone(stranger(Ask::Start), archive)?;
            let permit = match archive.ruling(started).answer() {
                Some(Answer::Started { verdict: Verdict::Permit(permit), .. }) => *permit,
                _ => return Err("the first start was refused".into()),
            };
            let part =
                Part { era: offset(permit.era), start: serial, is_probe: permit.probe.is_some(), went };
            let ask = match settings.quorum {
                Some(_) if went == Went::Badly => return Err("a quorum does not trip by outcomes".into()),
                _ => Ask::End([Some(part), None]),
            };
            self.ask_alone(stranger(ask), archive)?;
        }
    }

    /// A call without anything between its steps.
    fn ask_alone(&mut self, named: Named, archive: &mut Archive) -> Result<u32, Broken> {
        let ruling = archive.rule(named, None, self.store.map(|store| store.record), self.now)?;
        if let Ruling::Write { record, .. } = *archive.ruling(ruling) {
            self.put(record, archive)?;
        }
        Ok(ruling)
    }

    pub(crate) fn now(&self) -> Offset {
        self.now
    }

    /// All that can happen next.
    pub(crate) fn next(&self, archive: &mut Archive, next: &mut Next) -> Result<(), (Step, Broken)> {
        self.surroundings(archive, next)?;
        for slot in 0..NODES as u8 {
            self.beginnings(slot, archive, next)?;
        }
        self.deeds(archive, next);
        for place in 0..self.calls.len() as u8 {
            self.progress(place, archive, next)?;
        }
        Ok(())
    }

    fn surroundings(&self, archive: &mut Archive, next: &mut Next) -> Result<(), (Step, Broken)> {
        if self.left.ticks > 0 {
            next.push((Step::Tick, self.later()));
            if self.may_lose() {
                next.push((Step::RecordLost, self.lost(archive)));
            }
        }
        if self.left.storms > 0 && self.store.is_some() {
            let mut world = *self;
            world.left.storms -= 1;
            world.storm(archive).map_err(|broken| (Step::Storm, broken))?;
            next.push((Step::Storm, world));
        }
        if let Some(late) = self.late {
            let mut world = *self;
            world.late = None;
            let landed = world.apply(late.named, late.ruling, archive);
            landed.map_err(|broken| (Step::LateSwapLands, broken))?;
            next.push((Step::LateSwapLands, world));
        }
        if self.left.crashes > 0 {
            for slot in 0..usize::from(archive.config.nodes) {
                // A process that never asked for anything is as good as a new one.
                if self.nodes[slot].starts > 0 {
                    next.push((Step::Crash(slot as u8), self.crashed(slot)));
                }
            }
        }
        Ok(())
    }

    fn later(&self) -> World {
        let mut world = *self;
        world.left.ticks -= 1;
        world.now += TICK_MS;
        world
    }

    /// A record is not lost in the millisecond of a transition, nor while a swap is under way that found none: the one would
    /// begin an era that was there, the other bring one back.
    fn may_lose(&self) -> bool {
        let makes = |call: &Call| matches!(call.phase, Phase::Writes { expected: None, .. });
        self.left.losses > 0 && self.store.is_some() && !self.calls.iter().flatten().any(makes)
    }

    fn lost(&self, archive: &Archive) -> World {
        let mut world = self.later();
        world.left.losses -= 1;
        world.life += 1;
        world.store = None;
        world.end_races(archive);
        for call in world.calls.iter_mut().flatten() {
            if let Stored::At { accepted, .. } = call.stored {
                call.stored = Stored::Lost { accepted };
            }
        }
        world
    }

    /// Its permits and its call vanish; who comes back is another process.
    fn crashed(&self, slot: usize) -> World {
        let mut world = *self;
        world.left.crashes -= 1;
        world.calls[slot] = None;
        let node = self.nodes[slot];
        world.nodes[slot] = Node {
            number: node.number + NODES as u8,
            starts: node.starts,
            held: [None; 2],
            votes: None,
            known: None,
        };
        world
    }

    /// Strangers write, almost as often as the record remembers calls.
    fn storm(&mut self, archive: &mut Archive) -> Result<(), Broken> {
        for serial in 0..STORM_WRITES {
            let ask = Ask::Person { deed: 0, until: None };
            self.ask_alone(Named { node: 150, slot: 0, serial, ask }, archive)?;
        }
        Ok(())
    }

    // ---- calls begin ----

    fn beginnings(&self, slot: u8, archive: &mut Archive, next: &mut Next) -> Result<(), (Step, Broken)> {
        let (starts, held_max, outcomes) =
            (archive.config.starts, archive.config.held, archive.config.outcomes.clone());
        let node = self.nodes[usize::from(slot)];
        if self.calls[usize::from(slot)].is_some() {
            return Ok(());
        }
        let held: Vec<Held> = node.held.iter().flatten().copied().collect();
        if node.starts < starts && self.left.starts > 0 && held.len() < usize::from(held_max) {
            let mut world = *self;
            world.left.starts -= 1;
            world.nodes[usize::from(slot)].starts += 1;
            world.begin(slot, node.starts + 1, Ask::Start, archive, next)?;
        }
        for (index, permit) in held.iter().enumerate() {
            for went in &outcomes {
                let part = Part {
                    era: permit.era,
                    start: permit.start,
                    is_probe: permit.until.is_some(),
                    went: *went,
                };
                let mut world = *self;
                world.nodes[usize::from(slot)].held = [held.get(1 - index).copied(), None];
                if permit.by_node && *went == Went::Badly {
                    world.nodes[usize::from(slot)].votes = Some((permit.era, permit.start));
                }
                world.begin(slot, permit.start, Ask::End([Some(part), None]), archive, next)?;
                // Both at once, the other one with each outcome too.
                if let (0, Some(other)) = (index, held.get(1)) {
                    for went in &outcomes {
                        let is_probe = other.until.is_some();
                        let second = Part { era: other.era, start: other.start, is_probe, went: *went };
                        let mut world = *self;
                        world.nodes[usize::from(slot)].held = [None; 2];
                        world.begin(
                            slot,
                            permit.start,
                            Ask::End([Some(part), Some(second)]),
                            archive,
                            next,
                        )?;
                    }
                }
            }
            if permit.until.is_some() && self.left.renewals > 0 {
                let mut world = *self;
                world.left.renewals -= 1;
                let ask = Ask::Renew { era: permit.era, start: permit.start };
                world.begin(slot, permit.start, ask, archive, next)?;
            }
        }
        if let Some((era, start)) = node.votes {
            let mut world = *self;
            world.nodes[usize::from(slot)].votes = None;
            world.begin(slot, start, Ask::Vote { era }, archive, next)?;
        }
        Ok(())
    }

    /// A call begins, and loads at once: to wait with that is to begin later.
    fn begin(
        mut self,
        slot: u8,
        serial: u8,
        ask: Ask,
        archive: &mut Archive,
        next: &mut Next,
    ) -> Result<(), (Step, Broken)> {
        let node = self.nodes[usize::from(slot)];
        let call = Call::new(Named { node: node.number, slot, serial, ask });
        self.calls[usize::from(slot)] = Some(call);
        self.load(slot, Step::Begin(slot, ask), archive, next)?;
        if node.known.is_some() {
            let mut world = self;
            let step = Step::BeginKnowing(slot, ask);
            world.decide(slot, node.known, false, archive).map_err(|broken| (step, broken))?;
            next.push((step, world));
        }
        if self.left.faults > 0 && self.calls[ECHO].is_none() && archive.config.budget.storms == 0 {
            self.left.faults -= 1;
            self.calls[ECHO] = Some(call);
            self.load(slot, Step::BeginTwice(slot, ask), archive, next)?;
        }
        Ok(())
    }

    fn deeds(&self, archive: &Archive, next: &mut Next) {
        if self.left.deeds == 0 || self.calls[PERSON].is_some() {
            return;
        }
        let now = self.now;
        for (deed, what) in (0..).zip(&archive.config.deeds) {
            let until = match what {
                Deed::Force(_, Some(for_ms)) => Some(now + for_ms),
                Deed::Force(_, None) | Deed::Release | Deed::Reset => None,
            };
            let ask = Ask::Person { deed, until };
            let named = Named { node: 100, slot: PERSON as u8, serial: self.left.deeds, ask };
            let mut world = *self;
            world.left.deeds -= 1;
            world.calls[PERSON] = Some(Call::new(named));
            // It matters when it was begun, for that says when it ends.
            next.push((Step::Begin(PERSON as u8, ask), world));
        }
    }

    // ---- calls go on ----

    fn progress(&self, place: u8, archive: &mut Archive, next: &mut Next) -> Result<(), (Step, Broken)> {
        let Some(call) = self.calls[usize::from(place)] else { return Ok(()) };
        match call.phase {
            Phase::Ready => {
                self.load(place, Step::Load(place), archive, next)?;
                if call.retry_of.is_some() {
                    let mut world = *self;
                    world.calls[usize::from(place)] = None;
                    next.push((Step::GiveUp(place), world));
                }
            }
            Phase::Loaded { seen } => {
                let mut world = *self;
                let step = Step::DecideLater(place);
                world.decide(place, seen, true, archive).map_err(|broken| (step, broken))?;
                next.push((step, world));
            }
            Phase::Writes { expected, ruling, .. } => {
                self.swaps(place, call, expected, ruling, archive, next)?
            }
        }
        Ok(())
    }

    /// Loads and decides; where a later decision on the same entry would be another one that needs no swap, also loads only.
    fn load(
        &self,
        place: u8,
        step: Step,
        archive: &mut Archive,
        next: &mut Next,
    ) -> Result<(), (Step, Broken)> {
        let mut world = *self;
        if archive.config.in_small_steps {
            // A call that has just begun loads in a step of its own.
            if matches!(step, Step::Load(_)) {
                world.set_phase(place, Phase::Loaded { seen: self.store });
            }
            next.push((step, world));
            return Ok(());
        }
        world.decide(place, self.store, true, archive).map_err(|broken| (step, broken))?;
        next.push((step, world));
        let mut later = *self;
        while later.left.ticks > 0 {
            later = World { calls: self.calls, nodes: self.nodes, ..later.later() };
            later.decide(place, self.store, true, archive).map_err(|broken| (step, broken))?;
            if later.calls[usize::from(place)].is_none() && (later.nodes != world.nodes) {
                let mut holding = *self;
                holding.set_phase(place, Phase::Loaded { seen: self.store });
                next.push((Step::LoadOnly(place), holding));
                break;
            }
        }
        Ok(())
    }

    fn set_phase(&mut self, place: u8, phase: Phase) {
        if let Some(call) = &mut self.calls[usize::from(place)] {
            call.phase = phase;
        }
    }

    /// `verified`: whether the entry was loaded for this call.
    fn decide(
        &mut self,
        place: u8,
        seen: Option<Snap>,
        verified: bool,
        archive: &mut Archive,
    ) -> Result<(), Broken> {
        let Some(call) = self.calls[usize::from(place)] else { unreachable!("it is under way") };
        let is_behind = call.named.slot + 1 == archive.config.nodes;
        let now = if is_behind { self.now - archive.config.behind_ms } else { self.now };
        let number = archive.rule(call.named, call.retry_of, seen.map(|seen| seen.record), now)?;
        delivery::check_repeated(archive, &call, seen, number)?;
        match archive.ruling(number) {
            // What was seen last may be older than the permit.
            Ruling::Done(answer) if !verified && delivery::denies(answer) => {
                self.decide(place, self.store, true, archive)?;
            }
            Ruling::Done(_) | Ruling::Failed(_) => self.deliver(place, call, number, seen, archive),
            Ruling::Write { .. } => {
                let is_doomed = !same_version(seen, self.store) && !archive.config.in_small_steps;
                let phase = if is_doomed {
                    Phase::Ready
                } else {
                    Phase::Writes { expected: seen, ruling: number, decided_at: now }
                };
                self.set_phase(place, phase);
            }
        }
        Ok(())
    }

    fn swaps(
        &self,
        place: u8,
        call: Call,
        expected: Option<Snap>,
        ruling: u32,
        archive: &Archive,
        next: &mut Next,
    ) -> Result<(), (Step, Broken)> {
        let Ruling::Write { based_on, .. } = *archive.ruling(ruling) else { unreachable!("it writes") };
        let retry = Call {
            retry_of: Some(call.retry_of.unwrap_or(based_on).min(based_on)),
            phase: Phase::Ready,
            ..call
        };

        if !same_version(self.store, expected) {
            self.conflict(place, retry, next);
            return Ok(());
        }
        let mut after = *self;
        after.apply(call.named, ruling, archive).map_err(|broken| (Step::Swap(place), broken))?;
        let stored = after.calls[usize::from(place)].map_or(Stored::No, |call| call.stored);
        let mut answered = after;
        answered.deliver(place, call, ruling, after.store, archive);
        next.push((Step::Swap(place), answered));
        if self.left.faults > 0 {
            let unanswered = Call { stored, ..retry };
            if usize::from(place) != ECHO && answered.calls[ECHO].is_none() {
                answered.left.faults -= 1;
                answered.calls[ECHO] = Some(unanswered);
                next.push((Step::SwapThenRepeat(place), answered));
            }
            after.left.faults -= 1;
            after.calls[usize::from(place)] = Some(unanswered);
            next.push((Step::SwapAnswerLost(place), after));
            if self.late.is_none() {
                let mut world = *self;
                world.left.faults -= 1;
                world.late = Some(Late { named: call.named, expected, ruling });
                world.calls[usize::from(place)] = Some(retry);
                next.push((Step::SwapLate(place), world));
            }
        }
        Ok(())
    }

    /// A lost race brings the fresh entry, unless the answer is lost too.
    fn conflict(&self, place: u8, retry: Call, next: &mut Next) {
        let mut world = *self;
        world.set_phase(place, Phase::Loaded { seen: self.store });
        next.push((Step::Swap(place), world));
        if self.left.faults > 0 {
            let mut world = *self;
            world.left.faults -= 1;
            world.calls[usize::from(place)] = Some(retry);
            next.push((Step::SwapAnswerLost(place), world));
        }
    }

    /// No call is under way.
    pub(crate) fn is_at_rest(&self) -> bool {
        self.calls.iter().all(Option::is_none)
    }

    /// A call gets its answer, which rests on the entry `seen`.
    fn deliver(&mut self, place: u8, call: Call, ruling: u32, seen: Option<Snap>, archive: &Archive) {
        self.calls[usize::from(place)] = None;
        let Some(node) = self.nodes.get_mut(usize::from(place)) else { return };
        if archive.config.goes_by_known {
            node.known = seen;
        }
        if let Some(answer) = archive.ruling(ruling).answer() {
            delivery::deliver(node, &call.named, answer);
        }
    }

    /// A swap is stored: every run of the call was applied by that.
    fn apply(&mut self, named: Named, ruling: u32, archive: &Archive) -> Result<(), Broken> {
        let Ruling::Write { record, answer, .. } = archive.ruling(ruling) else { unreachable!("it writes") };
        self.put(*record, archive)?;
        let Some(Snap { version, .. }) = self.store else { unreachable!("it was put") };
        let accepted = crate::rules::accepted(answer) > 0;
        for call in self.calls.iter_mut().flatten().filter(|call| call.named == named) {
            if let Stored::At { accepted: true, .. } | Stored::Lost { accepted: true } = call.stored
                && accepted
            {
                return Err(format!("property 2: the outcomes of {named:?} were counted twice"));
            }
            call.stored = Stored::At { version, ruling, accepted };
        }
        Ok(())
    }

    fn put(&mut self, number: u32, archive: &Archive) -> Result<(), Broken> {
        let record = archive.record(number);
        let era = offset(record.era);
        if self.store.is_none() && era <= self.latest_era {
            return Err(format!("property 5: the era {era} was there before the record got lost"));
        }
        let version = u16::from(self.life) * LIFE + u16::try_from(record.revision).unwrap();
        self.latest_era = era;
        self.store = Some(Snap { record: number, version });
        self.end_races(archive);
        Ok(())
    }

    /// What expects another version than the present one never lands. A swap that is a conflict brings what is there then, as a
    /// load would; so its call is one that is about to load.
    fn end_races(&mut self, archive: &Archive) {
        self.late = None;
        if archive.config.in_small_steps {
            return;
        }
        for call in self.calls.iter_mut().flatten() {
            if matches!(call.phase, Phase::Writes { .. }) {
                call.phase = Phase::Ready;
            }
        }
    }

    // ---- what must hold at any moment ----

    /// Property 1, as the nodes see it: whoever holds a place knows its lease, and nobody else is given it before that ends.
    pub(crate) fn check_places(&self, archive: &Archive) -> Result<(), Broken> {
        let Some(store) = self.store else { return Ok(()) };
        let record = archive.record(store.record);
        let Status::HalfOpen { probes, successes, failures } = &record.status else { return Ok(()) };
        let now = self.now;
        let mut out = 0;
        for node in &self.nodes {
            for held in node.held.iter().flatten() {
                let is_running = held.until.is_some_and(|until| until > now);
                if !is_running || BEGIN_MS + u64::from(held.era) != record.era {
                    continue;
                }
                let is_there = probes.iter().any(|place| {
                    (place.id.node, place.id.sequence) == (node.number.into(), held.start.into())
                });
                if !is_there {
                    return Err(format!("property 1: {held:?} runs without a place: {record:?}"));
                }
                out += 1;
            }
        }
        let (probes_max, at_once) = archive.limits(store.record);
        if out > at_once || out + successes + failures > probes_max {
            return Err(format!("property 1: {out} probes are out: {record:?}"));
        }
        Ok(())
    }
}
