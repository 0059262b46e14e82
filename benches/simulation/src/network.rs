//! How long things take: a logarithm that is normally distributed, and waits without memory.

const SAMPLES: usize = 4_096;

/// Lengths that are drawn around a middle.
pub(crate) struct Lengths {
    samples_us: Vec<u64>,
}

impl Lengths {
    /// With a median, and the standard deviation of the logarithm.
    pub(crate) fn new(median_us: u64, spread: f64, random: &mut fastrand::Rng) -> Self {
        let sample = |_| (median_us as f64 * (spread * normal(random)).exp()).round() as u64;
        Self { samples_us: (0..SAMPLES).map(sample).collect() }
    }

    pub(crate) fn draw(&self, random: &mut fastrand::Rng) -> u64 {
        self.samples_us.get(random.usize(..SAMPLES)).copied().unwrap_or_default()
    }
}

/// Box and Muller's.
fn normal(random: &mut fastrand::Rng) -> f64 {
    let radius = (-2.0 * (1.0 - random.f64()).ln()).sqrt();
    radius * (std::f64::consts::TAU * random.f64()).cos()
}

/// A wait until the next of events that come so often a second, whenever the last one came.
pub(crate) fn wait_us(per_second: f64, random: &mut fastrand::Rng) -> u64 {
    (-(1.0 - random.f64()).ln() * 1e6 / per_second).round() as u64
}
