//! [`Times`]: how two things are compared on a machine that is not ours alone. They take turns, round by round, and their
//! medians are compared: a machine that slows down slows both.

use std::fmt;
use std::future::Future;
use std::time::{Duration, Instant};

/// The times of one thing, one for each round.
#[derive(Debug)]
pub struct Times {
    name: &'static str,
    calls_a_round: u64,
    rounds: Vec<Duration>,
}

impl Times {
    /// No times yet, of what is called `name`.
    pub fn new(name: &'static str) -> Self {
        Self::of_many(name, 1)
    }

    /// The same, where a round is `calls` calls; all figures are of one call.
    pub fn of_many(name: &'static str, calls: u64) -> Self {
        Self { name, calls_a_round: calls.max(1), rounds: Vec::new() }
    }

    /// Times one round.
    pub async fn time<F: Future>(&mut self, round: F) -> F::Output {
        let begun = Instant::now();
        let output = round.await;
        self.rounds.push(begun.elapsed());
        output
    }

    /// Adds a round that was timed elsewhere.
    pub fn add(&mut self, round: Duration) {
        self.rounds.push(round);
    }

    /// What it is called.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// How many rounds there were.
    pub fn rounds(&self) -> usize {
        self.rounds.len()
    }

    /// The median of one call, which a noisy neighbour moves least; zero when there was no round.
    pub fn median(&self) -> Duration {
        self.quantile(0.5)
    }

    /// The same in nanoseconds, with their fractions: a round of many calls tells those too.
    pub fn median_ns(&self) -> f64 {
        self.quantile_ns(0.5)
    }

    /// What `share` of the calls took at most, of one call.
    pub fn quantile(&self, share: f64) -> Duration {
        Duration::from_secs_f64(self.quantile_ns(share) / 1e9)
    }

    fn quantile_ns(&self, share: f64) -> f64 {
        let mut rounds = self.rounds.clone();
        rounds.sort_unstable();
        let index = quantile_index(rounds.len(), share);
        let round = rounds.get(index).copied().unwrap_or_default();
        round.as_secs_f64() * 1e9 / self.calls_a_round as f64
    }

    /// The quartiles of one call in nanoseconds: how far the rounds are apart.
    pub fn quartiles_ns(&self) -> (f64, f64) {
        (self.quantile_ns(0.25), self.quantile_ns(0.75))
    }

    /// How many times as long as `other` it takes, by the medians.
    pub fn ratio(&self, other: &Self) -> f64 {
        self.median_ns() / other.median_ns()
    }
}

/// Where in a sorted list of `count` values is the one that `share` of them do not exceed.
pub fn quantile_index(count: usize, share: f64) -> usize {
    let rank = (count as f64 * share).ceil() as usize;
    rank.clamp(1, count.max(1)) - 1
}

impl fmt::Display for Times {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let microseconds = self.median_ns() / 1e3;
        write!(formatter, "{:<52} {microseconds:>10.3} µs (median of {})", self.name, self.rounds.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_figures_are_of_one_call() {
        let mut times = Times::of_many("a thing", 10);
        for ms in [30, 10, 20] {
            times.add(Duration::from_millis(ms));
        }
        assert_eq!(times.median(), Duration::from_millis(2));
        assert_eq!(times.quantile(1.0), Duration::from_millis(3));
        assert_eq!(times.quartiles_ns(), (1e6, 3e6));
    }

    #[test]
    fn a_quantile_is_a_value_that_was_measured() {
        assert_eq!(quantile_index(100, 0.99), 98);
        assert_eq!(quantile_index(100, 0.5), 49);
        assert_eq!(quantile_index(1, 0.99), 0);
        assert_eq!(quantile_index(0, 0.5), 0);
    }
}
