//! What the suites share: how two things are compared on a machine that is not ours alone.

use std::fmt;
use std::future::Future;
use std::time::{Duration, Instant};

/// The times of one thing, one for each round.
#[derive(Debug)]
pub struct Times {
    name: &'static str,
    rounds: Vec<Duration>,
}

impl Times {
    /// No times yet, of what is called `name`.
    pub fn new(name: &'static str) -> Self {
        Self { name, rounds: Vec::new() }
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

    /// The median, which a noisy neighbour moves least.
    pub fn median(&self) -> Duration {
        let mut rounds = self.rounds.clone();
        rounds.sort_unstable();
        rounds.get(rounds.len() / 2).copied().unwrap_or_default()
    }

    /// How many times as long as `other` it takes, by the medians.
    pub fn ratio(&self, other: &Self) -> f64 {
        self.median().as_secs_f64() / other.median().as_secs_f64()
    }
}

impl fmt::Display for Times {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let microseconds = self.median().as_secs_f64() * 1e6;
        write!(formatter, "{:<44} {microseconds:>9.2} µs (median of {})", self.name, self.rounds.len())
    }
}

/// The Redis that the suites run on.
///
/// # Panics
/// Where none is named: a bench without its server measures nothing.
pub fn redis_url() -> String {
    std::env::var("CIRCUITRY_TEST_REDIS_URL")
        .expect("CIRCUITRY_TEST_REDIS_URL is not set: run `cargo xtask bench`, which starts the servers")
}
