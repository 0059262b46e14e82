//! What is told of a simulation.

use serde::Serialize;

use crate::fleet::Fleet;
use crate::rules::Broken;
use crate::scenario::Mode;
use crate::tally::{BIN_US, Bin};

/// What a fleet did, and what became of it. Rates are a second, lengths microseconds.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// What the run is called.
    pub name: String,
    /// How many processes there were.
    pub processes: u32,
    /// How many pairs of a process and one of its circuits there were.
    pub pairs: u32,
    /// How many circuits somebody uses.
    pub circuits_in_use: u32,
    /// Requests.
    pub requests: Requests,
    /// Commands while all was well.
    pub calm: Commands,
    /// Commands of the whole run.
    pub whole: Totals,
    /// The circuit that most processes use.
    pub hot: Hot,
    /// What became of outcomes.
    pub outcomes: Outcomes,
    /// What became of the incident's circuits.
    pub incident: Incident,
    /// How often circuits of healthy dependencies opened.
    pub false_trips: u32,
    /// How often circuits opened by their rules, failing or healthy; a probe that failed is none.
    pub trips: u32,
    /// Half-open phases.
    pub probes: Probes,
    /// Each tenth of a second: loads, swaps that were stored, conflicts.
    pub timeline: Vec<[u64; 3]>,
}

/// What became of requests.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Requests {
    /// Starts.
    pub attempts: u64,
    /// Starts that were admitted.
    pub permits: u64,
    /// Starts that were refused.
    pub refused: u64,
    /// Starts that waited for the store.
    pub asked: u64,
    /// Requests that never started, because all places of the process were taken.
    pub held_back: u64,
}

/// Commands a second.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Commands {
    /// Loads.
    pub loads: f64,
    /// Swaps that were stored.
    pub stored: f64,
    /// Swaps that lost a race.
    pub conflicts: f64,
    /// The most commands of a tenth of a second, times ten; of the whole run.
    pub peak: f64,
}

impl Commands {
    /// All of them.
    pub fn sum(&self) -> f64 {
        self.loads + self.stored + self.conflicts
    }
}

/// All commands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Totals {
    /// Loads.
    pub loads: u64,
    /// Swaps that were stored.
    pub stored: u64,
    /// Swaps that lost a race.
    pub conflicts: u64,
    /// When the last command was done.
    pub took_us: u64,
}

/// The circuit that most processes use.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Hot {
    /// Its number.
    pub circuit: u32,
    /// How many processes use it.
    pub users: u32,
    /// Commands while all was well.
    pub loads: f64,
    /// Of these, swaps that were stored.
    pub stored: f64,
    /// Of these, swaps that lost a race.
    pub conflicts: f64,
    /// The most commands that any circuit had in a second of the whole run.
    pub busiest_second: u64,
}

/// What became of outcomes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Outcomes {
    /// Work that ended.
    pub issued: u64,
    /// Outcomes that were counted.
    pub accepted: u64,
    /// Outcomes that came too late.
    pub stale: u64,
    /// Outcomes that were not told when the run ended.
    pub waiting: u64,
    /// What the records at the end count in their last generation.
    pub in_records: u64,
    /// From the first outcome of a swap until it was stored: the middle.
    pub told_after_p50_us: u64,
    /// … and what one in a hundred exceeds.
    pub told_after_p99_us: u64,
    /// … and the longest.
    pub told_after_max_us: u64,
}

/// What became of circuits that failed.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Incident {
    /// Circuits on which it showed.
    pub circuits: u32,
    /// Of these, circuits that tripped.
    pub tripped: u32,
    /// How often they tripped.
    pub trips: u32,
    /// Failures that were let through.
    pub failures_let_through: u64,
    /// From the first failure to the trip, by circuits.
    pub trip_after: Percentiles,
    /// From the trip until a process refuses, by processes; before the trip, where it knew itself, is 0.
    pub spread_after: Percentiles,
    /// From the first failure until a process refuses, by processes.
    pub refuse_after: Percentiles,
    /// The same for the failing circuit that most processes use.
    pub hot_refuse_after: Percentiles,
    /// How many processes use that circuit.
    pub hot_users: u32,
    /// How long after the trip the last permit of before it was given.
    pub last_permit_after_us: u64,
    /// Circuits that are closed at the end.
    pub closed_at_the_end: u32,
}

/// How lengths are spread.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Percentiles {
    /// Half of them are no longer.
    pub p50_us: u64,
    /// 99 of a hundred are no longer.
    pub p99_us: u64,
    /// The longest.
    pub max_us: u64,
}

impl Percentiles {
    fn of(mut lengths: Vec<u64>) -> Self {
        lengths.sort_unstable();
        let at = |percent: usize| {
            let place = (lengths.len() * percent).div_ceil(100).saturating_sub(1);
            lengths.get(place).copied().unwrap_or_default()
        };
        Self { p50_us: at(50), p99_us: at(99), max_us: at(100) }
    }
}

/// Half-open phases.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Probes {
    /// How many phases there were.
    pub phases: u32,
    /// How many probes were sent.
    pub sent: u32,
    /// How many all phases together allow.
    pub allowed: u32,
    /// The most of one phase.
    pub most_of_a_phase: u32,
}

impl Report {
    pub(crate) fn new(fleet: &mut Fleet<'_>) -> Result<Self, Broken> {
        let incident = incident(fleet)?;
        let (tally, population, scenario) = (&fleet.tally, &fleet.population, fleet.scenario);
        let begin = (scenario.measured_from_us / BIN_US) as usize;
        let end = scenario.incident.as_ref().map_or(scenario.length_us, |it| it.from_us) / BIN_US;
        let seconds = (end as usize).saturating_sub(begin).max(1) as f64 * BIN_US as f64 / 1e6;
        let calm = sum(tally.bins.get(begin..(end as usize).min(tally.bins.len())).unwrap_or_default());
        let whole = sum(&tally.bins);
        let measured = tally.bins.iter().skip(begin).map(Bin::commands);
        let hottest =
            (0..scenario.circuits).max_by_key(|circuit| population.users(*circuit).len()).unwrap_or_default();
        let fate = tally.fates.get(hottest as usize).copied().unwrap_or_default();
        let mut in_records = 0;
        for (_, stored) in fleet.shards.all() {
            in_records += stored.record()?.map_or(0, |record| record.counts.total);
        }
        let phases: u32 = tally.fates.iter().map(|fate| fate.half_opens).sum();
        let in_the_incident = |circuit: u32| scenario.incident.as_ref().is_some_and(|it| it.hits(circuit));
        Ok(Self {
            name: match &scenario.mode {
                Mode::Strict => "strict".into(),
                Mode::Bounded(bounded) if bounded.push.is_some() => "bounded + push".into(),
                Mode::Bounded(_) => "bounded".into(),
            },
            processes: scenario.processes,
            pairs: population.pairs(),
            circuits_in_use: count(0..scenario.circuits, |circuit| !population.users(*circuit).is_empty()),
            requests: Requests {
                attempts: tally.attempts,
                permits: tally.permits,
                refused: tally.refused,
                asked: tally.asked,
                held_back: tally.held_back,
            },
            calm: Commands {
                loads: calm.loads as f64 / seconds,
                stored: calm.stored as f64 / seconds,
                conflicts: calm.conflicts as f64 / seconds,
                peak: measured.max().unwrap_or_default() as f64 * 1e6 / BIN_US as f64,
            },
            whole: Totals {
                loads: whole.loads,
                stored: whole.stored,
                conflicts: whole.conflicts,
                took_us: fleet.now_us,
            },
            hot: Hot {
                circuit: hottest,
                users: population.users(hottest).len() as u32,
                loads: fate.calm.loads as f64 / seconds,
                stored: fate.calm.stored as f64 / seconds,
                conflicts: fate.calm.conflicts as f64 / seconds,
                busiest_second: tally.busiest,
            },
            outcomes: Outcomes {
                issued: tally.issued,
                accepted: tally.accepted,
                stale: tally.stale,
                waiting: tally.issued - tally.accepted - tally.stale,
                in_records,
                told_after_p50_us: tally.told_after.per_mille(500),
                told_after_p99_us: tally.told_after.per_mille(990),
                told_after_max_us: tally.told_after.most(),
            },
            incident,
            false_trips: (0..)
                .zip(&tally.fates)
                .filter(|(circuit, _)| !in_the_incident(*circuit))
                .map(|(_, fate)| fate.trips)
                .sum(),
            trips: tally.fates.iter().map(|fate| fate.trips).sum(),
            probes: Probes {
                phases,
                sent: tally.probes.values().sum(),
                allowed: phases * fleet.rules.settings().probes(),
                most_of_a_phase: tally.probes.values().copied().max().unwrap_or_default(),
            },
            timeline: tally.bins.iter().map(|bin| [bin.loads, bin.stored, bin.conflicts]).collect(),
        })
    }
}

fn count<T>(items: impl Iterator<Item = T>, which: impl Fn(&T) -> bool) -> u32 {
    items.filter(which).count() as u32
}

fn sum(bins: &[Bin]) -> Bin {
    bins.iter().fold(Bin::default(), |sum, bin| Bin {
        loads: sum.loads + bin.loads,
        stored: sum.stored + bin.stored,
        conflicts: sum.conflicts + bin.conflicts,
    })
}

fn incident(fleet: &mut Fleet<'_>) -> Result<Incident, Broken> {
    let (mut trip_after, mut spread_after, mut refuse_after) = (Vec::new(), Vec::new(), Vec::new());
    let (mut hot_refuse_after, mut hot_users) = (Vec::new(), 0);
    let (mut circuits, mut tripped, mut trips, mut closed, mut last_permit_after_us) = (0, 0, 0, 0, 0);
    for circuit in 0..fleet.scenario.circuits {
        let Some(fate) = fleet.tally.fates.get(circuit as usize).copied() else { continue };
        let Some(failed_at_us) = fate.first_failure_at_us else { continue };
        circuits += 1;
        trips += fate.trips;
        let record = fleet.shards.load(circuit).record()?;
        closed += u32::from(
            record.is_none_or(|record| record.status.state() == circuitry_core::record::State::Closed),
        );
        let Some(tripped_at_us) = fate.tripped_at_us else { continue };
        tripped += 1;
        trip_after.push(tripped_at_us.saturating_sub(failed_at_us));
        let users = fleet.population.users(circuit).to_vec();
        let mut own = Vec::with_capacity(users.len());
        for pair in users {
            let would_have_asked_at_us = fleet.would_have_asked_at_us(pair);
            let known = fleet.pair(pair);
            let last_permit_at_us = known.last_permit_at_us.unwrap_or_default();
            let refuses_at_us = known.refuses_at_us.unwrap_or(would_have_asked_at_us).max(last_permit_at_us);
            last_permit_after_us = last_permit_at_us.saturating_sub(tripped_at_us).max(last_permit_after_us);
            spread_after.push(refuses_at_us.saturating_sub(tripped_at_us));
            own.push(refuses_at_us.saturating_sub(failed_at_us));
        }
        if own.len() > hot_users {
            hot_users = own.len();
            hot_refuse_after.clone_from(&own);
        }
        refuse_after.append(&mut own);
    }
    Ok(Incident {
        circuits,
        tripped,
        trips,
        failures_let_through: fleet.tally.let_through,
        trip_after: Percentiles::of(trip_after),
        spread_after: Percentiles::of(spread_after),
        refuse_after: Percentiles::of(refuse_after),
        hot_refuse_after: Percentiles::of(hot_refuse_after),
        hot_users: hot_users as u32,
        last_permit_after_us,
        closed_at_the_end: closed,
    })
}
