//! The same quantities on the back of an envelope, for a store that is never busy.

use crate::population::Population;
use crate::scenario::{Load, Mode, Scenario};

/// Commands a second, without lost races.
#[derive(Clone, Copy, Debug, Default)]
pub struct Expected {
    /// Loads.
    pub loads: f64,
    /// Swaps.
    pub swaps: f64,
}

impl Expected {
    /// Both.
    pub fn sum(&self) -> f64 {
        self.loads + self.swaps
    }

    fn add(&mut self, other: Self) {
        self.loads += other.loads;
        self.swaps += other.swaps;
    }
}

/// What a pair with requests at random, so many a second, costs while all is well.
///
/// Strict: a load and a swap each. Bounded, with a flush after `F`, a refresh after `R` and work of `W`: each round ends with a
/// swap, which begins the next. Where outcomes come within `F` it takes `F`. Where none does (`e^-λF`) it takes the wait for
/// the next request besides; if that comes after `R`, it costs a load, and the round begins anew.
pub fn expected(per_second: f64, work_us: u64, mode: &Mode) -> Expected {
    match mode {
        Mode::Strict => Expected { loads: per_second, swaps: per_second },
        Mode::Bounded(mode) => {
            let seconds = |length_us: u64| length_us as f64 / 1e6;
            let (flush, work) = (seconds(mode.flush_after_us()), seconds(work_us));
            let until_refresh = seconds(mode.refresh_after_us()) - flush;
            let nothing_in = |length: f64| (-per_second * length).exp();
            let late = nothing_in(until_refresh);
            let in_time =
                (1.0 - late * (1.0 + per_second * until_refresh)) / per_second + (1.0 - late) * work;
            let too_late = late * (until_refresh + nothing_in(work) / per_second + flush);
            let round = flush + nothing_in(flush) * (in_time + too_late);
            Expected { loads: nothing_in(flush) * late / round, swaps: 1.0 / round }
        }
    }
}

/// The sum over the fleet, and that of its most popular circuit.
pub fn expected_of(scenario: &Scenario) -> (Expected, Expected) {
    // The same draws as in the simulation, so the same fleet.
    let mut seeds = fastrand::Rng::with_seed(scenario.seed);
    let population = Population::new(scenario, &mut fastrand::Rng::with_seed(seeds.u64(..)));
    let Load::Open { per_second, .. } = scenario.load else { return Default::default() };
    let hottest =
        (0..scenario.circuits).max_by_key(|circuit| population.users(*circuit).len()).unwrap_or_default();
    let (mut all, mut hot) = (Expected::default(), Expected::default());
    for pair in 0..population.pairs() {
        let own = expected(per_second * population.share(pair), scenario.work_us, &scenario.mode);
        all.add(own);
        if population.circuit(pair) == hottest {
            hot.add(own);
        }
    }
    (all, hot)
}
