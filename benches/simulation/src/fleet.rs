//! The processes, and the loop of events.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::rc::Rc;

use circuitry_core::record::{State, Token};
use circuitry_core::request::Verdict;
use circuitry_core::{Answer, Completion, Outcome};

use crate::exchange::{Exchange, Exchanges};
use crate::network::{Lengths, wait_us};
use crate::pair::Pair;
use crate::population::Population;
use crate::report::Report;
use crate::rules::{Broken, Rules, Stored};
use crate::scenario::{Bounded, Load, Mode, Scenario};
use crate::shards::Shards;
use crate::tally::Tally;

/// What happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Event {
    /// A request comes to a process.
    Arrive(u32),
    /// The command of an exchange comes to the store.
    AtStore(u32),
    /// Its answer comes back.
    Reply(u32),
    /// An exchange goes on after a pause.
    Resume(u32),
    /// Something is due for a pair.
    Timer(u32),
    /// An announcement comes to a pair.
    Push(u32),
}

/// Work that is under way.
struct Work {
    ends_at_us: u64,
    pair: u32,
    era: u64,
    probe: Option<Token>,
}

/// What a process is at.
#[derive(Clone, Copy, Default)]
struct Process {
    /// Requests under way.
    at_once: u32,
    /// Executions that are left to be tried.
    left: u64,
    /// The number of the last call.
    sequence: u64,
}

/// A fleet at a moment.
pub(crate) struct Fleet<'a> {
    pub(crate) scenario: &'a Scenario,
    pub(crate) population: Population,
    pub(crate) now_us: u64,
    events: BinaryHeap<Reverse<(u64, u64, Event)>>,
    scheduled: u64,
    /// All work takes the same time, so it ends in the order in which it began.
    work: VecDeque<Work>,
    processes: Vec<Process>,
    pairs: Vec<Pair>,
    pub(crate) exchanges: Exchanges,
    pub(crate) rules: Rules,
    pub(crate) shards: Shards,
    pub(crate) tally: Tally,
    versions: u64,
    one_way: Lengths,
    push: Option<Lengths>,
    /// Draws are kept apart, so that a way that an announcement takes changes no request.
    requests: fastrand::Rng,
    outcomes: fastrand::Rng,
    pub(crate) network: fastrand::Rng,
    pushes: fastrand::Rng,
}

/// Simulates a scenario to its end: until all requests are done and all outcomes are told, or for as long as it says.
///
/// # Errors
/// [`Broken`], which is a defect of the simulation.
pub fn simulate(scenario: &Scenario) -> Result<Report, Broken> {
    let mut fleet = Fleet::new(scenario);
    fleet.run()?;
    Report::new(&mut fleet)
}

impl<'a> Fleet<'a> {
    fn new(scenario: &'a Scenario) -> Self {
        let mut seeds = fastrand::Rng::with_seed(scenario.seed);
        let mut next = || fastrand::Rng::with_seed(seeds.u64(..));
        let population = Population::new(scenario, &mut next());
        let (requests, outcomes, mut network, mut pushes) = (next(), next(), next(), next());
        let store = &scenario.store;
        let one_way = Lengths::new(store.round_trip_us / 2, store.round_trip_spread, &mut network);
        let push = match &scenario.mode {
            Mode::Bounded(Bounded { push: Some(push), .. }) => {
                Some(Lengths::new(push.latency_us, store.round_trip_spread, &mut pushes))
            }
            _ => None,
        };
        let left = match scenario.load {
            Load::Open { .. } => 0,
            Load::Closed { executions, .. } => executions,
        };
        Self {
            scenario,
            now_us: 0,
            events: BinaryHeap::new(),
            scheduled: 0,
            work: VecDeque::new(),
            processes: vec![Process { left, ..Process::default() }; scenario.processes as usize],
            pairs: (0..population.pairs()).map(|_| Pair::default()).collect(),
            population,
            exchanges: Exchanges::default(),
            rules: Rules::new(&scenario.settings),
            shards: Shards::new(store, scenario.circuits),
            tally: Tally::new(scenario),
            versions: 0,
            one_way,
            push,
            requests,
            outcomes,
            network,
            pushes,
        }
    }

    fn run(&mut self) -> Result<(), Broken> {
        for process in 0..self.scenario.processes {
            match self.scenario.load {
                Load::Open { per_second, .. } => self.arrive_next(process, per_second),
                Load::Closed { tasks, .. } => {
                    (0..tasks).for_each(|_| self.schedule(0, Event::Arrive(process)));
                }
            }
        }
        loop {
            let event_at_us = self.events.peek().map(|Reverse((at_us, ..))| *at_us);
            match (self.work.front().map(|work| work.ends_at_us), event_at_us) {
                (None, None) => return Ok(()),
                (Some(ends_at_us), event_at_us) if event_at_us.is_none_or(|at_us| ends_at_us <= at_us) => {
                    self.now_us = ends_at_us;
                    if let Some(work) = self.work.pop_front() {
                        self.ended(&work)?;
                    }
                }
                _ => {
                    let Some(Reverse((at_us, _, event))) = self.events.pop() else { return Ok(()) };
                    if self.scenario.ends_at_us.is_some_and(|ends_at_us| at_us > ends_at_us) {
                        return Ok(());
                    }
                    self.now_us = at_us;
                    self.happens(event)?;
                }
            }
        }
    }

    fn happens(&mut self, event: Event) -> Result<(), Broken> {
        match event {
            Event::Arrive(process) => self.arrived(process),
            Event::AtStore(number) => self.at_store(number),
            Event::Reply(number) => self.replied(number),
            Event::Resume(number) => self.go_on(number),
            Event::Push(pair) => self.heard(pair),
            Event::Timer(pair) => {
                let now_us = self.now_us;
                let own = self.pair(pair);
                if own.timer_at_us != Some(now_us) {
                    return Ok(());
                }
                own.timer_at_us = None;
                let Mode::Bounded(mode) = &self.scenario.mode else { return Ok(()) };
                self.maintain(pair, mode)
            }
        }
    }

    // ---- requests ----

    fn arrive_next(&mut self, process: u32, per_second: f64) {
        let at_us = self.now_us + wait_us(per_second, &mut self.requests);
        if at_us < self.scenario.length_us {
            self.schedule(at_us, Event::Arrive(process));
        }
    }

    fn arrived(&mut self, process: u32) -> Result<(), Broken> {
        let Some(own) = self.processes.get_mut(process as usize) else { return Ok(()) };
        match self.scenario.load {
            Load::Open { per_second, at_once } => {
                let is_full = own.at_once >= at_once;
                own.at_once += u32::from(!is_full);
                self.arrive_next(process, per_second);
                if is_full {
                    self.tally.held_back += 1;
                    return Ok(());
                }
            }
            Load::Closed { .. } => {
                let Some(left) = own.left.checked_sub(1) else { return Ok(()) };
                own.left = left;
            }
        }
        let pair = self.population.draw(process, &mut self.requests);
        self.tally.attempts += 1;
        match &self.scenario.mode {
            Mode::Strict => self.start_strictly(pair),
            Mode::Bounded(mode) => self.start_bounded(pair, mode),
        }
    }

    /// So many requests of a process are done, the last one after a pause.
    pub(crate) fn finished(&mut self, process: u32, requests: u64, pause_us: u64) {
        match self.scenario.load {
            Load::Open { .. } => {
                if let Some(own) = self.processes.get_mut(process as usize) {
                    own.at_once = own.at_once.saturating_sub(requests as u32);
                }
            }
            Load::Closed { .. } => {
                (0..requests).for_each(|_| self.schedule(self.now_us + pause_us, Event::Arrive(process)));
            }
        }
    }

    // ---- answers to starts, and what follows them ----

    pub(crate) fn answer(&mut self, pair: u32, verdict: &Verdict) {
        match verdict {
            Verdict::Permit(permit) => self.permit(pair, permit.era, permit.probe.map(|probe| probe.id)),
            Verdict::Refusal(_) => self.refused(pair),
        }
    }

    pub(crate) fn permit(&mut self, pair: u32, era: u64, probe: Option<Token>) {
        let circuit = self.population.circuit(pair);
        self.tally.permit(circuit, era, probe.is_some());
        if self.tally.is_before_the_trip(circuit, era) {
            let now_us = self.now_us;
            let own = self.pair(pair);
            own.last_permit_at_us = Some(now_us);
            own.refuses_at_us = None;
        }
        let ends_at_us = self.now_us + self.scenario.work_us;
        self.work.push_back(Work { ends_at_us, pair, era, probe });
    }

    pub(crate) fn refused(&mut self, pair: u32) {
        self.tally.refused += 1;
        let pause_us = match self.scenario.load {
            Load::Open { .. } => 0,
            Load::Closed { pause_us, .. } => pause_us,
        };
        self.finished(self.population.process(pair), 1, pause_us);
    }

    fn ended(&mut self, work: &Work) -> Result<(), Broken> {
        let circuit = self.population.circuit(work.pair);
        let incident = self.scenario.incident.as_ref().filter(|incident| {
            (incident.from_us..incident.until_us).contains(&self.now_us) && incident.hits(circuit)
        });
        let failures_per_mille = incident
            .map_or(self.scenario.background_failures_per_mille, |incident| incident.failures_per_mille);
        let failed = self.outcomes.u32(0..1_000) < failures_per_mille;
        self.tally.ended(self.now_us, circuit, failed, incident.is_some());
        let completion = Completion {
            era: work.era,
            probe: work.probe,
            outcome: if failed { Outcome::Failure } else { Outcome::Success },
            slow: false,
            count: 1,
            retry_after_ms: None,
        };
        match &self.scenario.mode {
            Mode::Strict => self.end_strictly(work.pair, completion),
            Mode::Bounded(mode) => {
                self.finished(self.population.process(work.pair), 1, 0);
                self.end_bounded(work.pair, completion, mode)
            }
        }
    }

    // ---- the store ----

    /// A pair has seen an entry that was asked for at that time.
    pub(crate) fn saw(&mut self, pair: u32, seen: &Rc<Stored>, asked_at_us: u64) -> Result<(), Broken> {
        let circuit = self.population.circuit(pair);
        if self.tally.is_in_trouble(circuit)
            && self.pair(pair).refuses_at_us.is_none()
            && let Some(record) = seen.record()?
            && (record.generation > 0 || record.status.state() != State::Closed)
        {
            self.learned(pair);
        }
        let early_per_mille = match &self.scenario.mode {
            Mode::Bounded(mode) if mode.spread_per_mille > 0 => self.network.u32(..mode.spread_per_mille),
            _ => 0,
        };
        let own = self.pair(pair);
        own.early_per_mille = early_per_mille;
        own.rebase(seen.clone(), asked_at_us);
        Ok(())
    }

    /// A pair refuses from now on, or did already because it would have asked.
    pub(crate) fn learned(&mut self, pair: u32) {
        let circuit = self.population.circuit(pair);
        if !self.tally.is_in_trouble(circuit) || self.pair(pair).refuses_at_us.is_some() {
            return;
        }
        self.pair(pair).refuses_at_us = Some(self.now_us.min(self.would_have_asked_at_us(pair)));
    }

    /// From when on a start would have been refused although the process has not seen the trip: it would have asked. Never
    /// where there was no trip.
    pub(crate) fn would_have_asked_at_us(&mut self, pair: u32) -> u64 {
        let circuit = self.population.circuit(pair);
        let Some(tripped_at_us) = self.tally.tripped_at_us(circuit) else { return u64::MAX };
        let Mode::Bounded(mode) = &self.scenario.mode else { return tripped_at_us };
        let own = self.pair(pair);
        match own.base {
            Some(_) => tripped_at_us.max(own.base_at_us + mode.max_staleness_us),
            None => tripped_at_us,
        }
    }

    pub(crate) fn finish(
        &mut self,
        number: u32,
        exchange: Exchange,
        answer: Option<Answer>,
    ) -> Result<(), Broken> {
        self.exchanges.end(number);
        match &self.scenario.mode {
            Mode::Strict => self.finish_strictly(exchange, answer),
            Mode::Bounded(mode) => self.finish_bounded(exchange, answer, mode),
        }
    }

    /// Tells everybody else who uses the circuit.
    pub(crate) fn announce(&mut self, pair: u32, mode: &Bounded) {
        let (Some(push), Some(lengths)) = (&mode.push, &self.push) else { return };
        for other in self.population.users(self.population.circuit(pair)) {
            if *other == pair || self.pushes.u32(0..1_000) < push.dropped_per_mille {
                continue;
            }
            self.scheduled += 1;
            let at_us = self.now_us + lengths.draw(&mut self.pushes);
            self.events.push(Reverse((at_us, self.scheduled, Event::Push(*other))));
        }
    }

    // ---- small ones ----

    pub(crate) fn is_bounded(&self) -> bool {
        matches!(self.scenario.mode, Mode::Bounded(_))
    }

    pub(crate) fn schedule(&mut self, at_us: u64, event: Event) {
        self.scheduled += 1;
        self.events.push(Reverse((at_us, self.scheduled, event)));
    }

    pub(crate) fn pair(&mut self, pair: u32) -> &mut Pair {
        // A pair's number is one of the population's, which there are as many of.
        &mut self.pairs[pair as usize]
    }

    pub(crate) fn next_token(&mut self, pair: u32) -> Token {
        let process = self.population.process(pair);
        let Some(own) = self.processes.get_mut(process as usize) else {
            return Token { node: 0, sequence: 0 };
        };
        own.sequence += 1;
        Token { node: u64::from(process) + 1, sequence: own.sequence }
    }

    pub(crate) fn next_version(&mut self) -> u64 {
        self.versions += 1;
        self.versions
    }

    pub(crate) fn draw_one_way(&mut self) -> u64 {
        self.one_way.draw(&mut self.network)
    }
}
