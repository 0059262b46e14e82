//! What is counted on the way.

use std::collections::HashMap;

use circuitry_core::Answer;
use circuitry_core::record::{Transition, TransitionReason};
use circuitry_core::request::Disposition;

use crate::scenario::Scenario;

/// Commands are counted by tenths of a second.
pub(crate) const BIN_US: u64 = 100_000;
const SECOND_US: u64 = 1_000_000;

/// The commands of a tenth of a second.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Bin {
    pub(crate) loads: u64,
    pub(crate) stored: u64,
    pub(crate) conflicts: u64,
}

impl Bin {
    pub(crate) fn commands(&self) -> u64 {
        self.loads + self.stored + self.conflicts
    }
}

/// What became of a circuit.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Fate {
    /// Of the incident.
    pub(crate) first_failure_at_us: Option<u64>,
    /// After the first failure of the incident.
    pub(crate) tripped_at_us: Option<u64>,
    trip_era: u64,
    pub(crate) trips: u32,
    pub(crate) half_opens: u32,
    pub(crate) healed: u32,
    /// Commands while all was well.
    pub(crate) calm: Bin,
    /// The second in which the last command was, and how many there were in it.
    second: (u64, u64),
}

pub(crate) struct Tally {
    measured_from_us: u64,
    calm_until_us: u64,
    pub(crate) bins: Vec<Bin>,
    pub(crate) fates: Vec<Fate>,
    /// The most commands of a circuit in a second.
    pub(crate) busiest: u64,
    pub(crate) attempts: u64,
    pub(crate) permits: u64,
    pub(crate) refused: u64,
    pub(crate) held_back: u64,
    /// Starts that waited for the store.
    pub(crate) asked: u64,
    /// Outcomes of work.
    pub(crate) issued: u64,
    pub(crate) accepted: u64,
    pub(crate) stale: u64,
    /// Failures of the incident.
    pub(crate) let_through: u64,
    /// Probes by circuit and phase.
    pub(crate) probes: HashMap<(u32, u64), u32>,
    pub(crate) told_after: Spread,
}

impl Tally {
    pub(crate) fn new(scenario: &Scenario) -> Self {
        Self {
            measured_from_us: scenario.measured_from_us,
            calm_until_us: scenario.incident.as_ref().map_or(scenario.length_us, |it| it.from_us),
            bins: Vec::new(),
            fates: vec![Fate::default(); scenario.circuits as usize],
            busiest: 0,
            attempts: 0,
            permits: 0,
            refused: 0,
            held_back: 0,
            asked: 0,
            issued: 0,
            accepted: 0,
            stale: 0,
            let_through: 0,
            probes: HashMap::new(),
            told_after: Spread::default(),
        }
    }

    // ---- commands at the store ----

    fn command(&mut self, now_us: u64, circuit: u32, count: impl Fn(&mut Bin)) {
        let bin = (now_us / BIN_US) as usize;
        if bin >= self.bins.len() {
            self.bins.resize(bin + 1, Bin::default());
        }
        if let Some(bin) = self.bins.get_mut(bin) {
            count(bin);
        }
        let Some(fate) = self.fates.get_mut(circuit as usize).filter(|_| now_us >= self.measured_from_us)
        else {
            return;
        };
        if now_us < self.calm_until_us {
            count(&mut fate.calm);
        }
        let second = now_us / SECOND_US;
        if fate.second.0 != second {
            fate.second = (second, 0);
        }
        fate.second.1 += 1;
        self.busiest = self.busiest.max(fate.second.1);
    }

    pub(crate) fn loaded(&mut self, now_us: u64, circuit: u32) {
        self.command(now_us, circuit, |bin| bin.loads += 1);
    }

    pub(crate) fn conflicted(&mut self, now_us: u64, circuit: u32) {
        self.command(now_us, circuit, |bin| bin.conflicts += 1);
    }

    pub(crate) fn stored(&mut self, now_us: u64, circuit: u32, answer: &Answer) {
        self.command(now_us, circuit, |bin| bin.stored += 1);
        let (Answer::Started { transitions, .. } | Answer::Settled { transitions, .. }) = answer else {
            return;
        };
        for transition in transitions {
            self.changed(now_us, circuit, transition);
        }
    }

    fn changed(&mut self, now_us: u64, circuit: u32, transition: &Transition) {
        let Some(fate) = self.fates.get_mut(circuit as usize) else { return };
        match transition.reason {
            TransitionReason::Tripped => {
                fate.trips += 1;
                if fate.first_failure_at_us.is_some() && fate.tripped_at_us.is_none() {
                    (fate.tripped_at_us, fate.trip_era) = (Some(now_us), transition.era);
                }
            }
            TransitionReason::OpenTimeOver => fate.half_opens += 1,
            TransitionReason::ProbesSucceeded => fate.healed += 1,
            _ => {}
        }
    }

    // ---- requests ----

    pub(crate) fn permit(&mut self, circuit: u32, era: u64, is_probe: bool) {
        self.permits += 1;
        if is_probe {
            *self.probes.entry((circuit, era)).or_default() += 1;
        }
    }

    pub(crate) fn ended(&mut self, now_us: u64, circuit: u32, failed: bool, in_incident: bool) {
        self.issued += 1;
        if failed && in_incident {
            self.let_through += 1;
            if let Some(fate) = self.fates.get_mut(circuit as usize) {
                fate.first_failure_at_us.get_or_insert(now_us);
            }
        }
    }

    pub(crate) fn settled(&mut self, dispositions: &[Disposition], after_us: u64) {
        for disposition in dispositions {
            self.accepted += u64::from(disposition.accepted);
            self.stale += u64::from(disposition.stale);
        }
        self.told_after.add(after_us);
    }

    // ---- the incident ----

    fn fate(&self, circuit: u32) -> Option<&Fate> {
        self.fates.get(circuit as usize)
    }

    /// Whether the incident has shown on the circuit.
    pub(crate) fn is_in_trouble(&self, circuit: u32) -> bool {
        self.fate(circuit).is_some_and(|fate| fate.first_failure_at_us.is_some())
    }

    pub(crate) fn tripped_at_us(&self, circuit: u32) -> Option<u64> {
        self.fate(circuit).and_then(|fate| fate.tripped_at_us)
    }

    /// Whether a permit of this era is of before the incident's trip, which may be still to come.
    pub(crate) fn is_before_the_trip(&self, circuit: u32, era: u64) -> bool {
        self.is_in_trouble(circuit)
            && self.fate(circuit).is_some_and(|fate| fate.tripped_at_us.is_none() || era < fate.trip_era)
    }
}

/// How lengths of time are spread, to an eighth of their own length.
#[derive(Clone, Debug, Default)]
pub(crate) struct Spread {
    counts: Vec<u64>,
    all: u64,
    most: u64,
}

impl Spread {
    pub(crate) fn add(&mut self, length_us: u64) {
        let place = place(length_us);
        if place >= self.counts.len() {
            self.counts.resize(place + 1, 0);
        }
        if let Some(count) = self.counts.get_mut(place) {
            *count += 1;
        }
        self.all += 1;
        self.most = self.most.max(length_us);
    }

    /// The length that so many of a thousand do not exceed.
    pub(crate) fn per_mille(&self, per_mille: u64) -> u64 {
        let wanted = (self.all * per_mille).div_ceil(1_000);
        let mut seen = 0;
        for (place, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= wanted && seen > 0 {
                return length(place).min(self.most);
            }
        }
        self.most
    }

    pub(crate) fn most(&self) -> u64 {
        self.most
    }
}

/// Lengths below eight each have a place, the others eight for each power of two.
fn place(length_us: u64) -> usize {
    if length_us < 8 {
        return length_us as usize;
    }
    let power = length_us.ilog2() - 3;
    ((power + 1) * 8) as usize + ((length_us >> power) & 7) as usize
}

/// The longest length of a place.
fn length(place: usize) -> u64 {
    if place < 8 {
        return place as u64;
    }
    let power = place / 8 - 1;
    ((8 + (place % 8) as u64 + 1) << power) - 1
}
