//! Who uses which circuit: each process draws its circuits, popular ones more often.

use crate::scenario::Scenario;

/// Who uses which circuit. A process and one of its circuits are a *pair*; the pairs of a process follow each other.
#[derive(Debug)]
pub struct Population {
    per_process: u32,
    /// The circuit of each pair.
    circuits: Vec<u32>,
    /// How much of a process' requests go to its first circuits, added up, in order.
    shares: Vec<f64>,
    /// Where in `users` each circuit's pairs begin.
    begins: Vec<u32>,
    users: Vec<u32>,
}

impl Population {
    /// Draws one.
    pub fn new(scenario: &Scenario, random: &mut fastrand::Rng) -> Self {
        let per_process = scenario.circuits_per_process.clamp(1, scenario.circuits.max(1));
        let weights = sums((1..=scenario.circuits).map(|rank| f64::from(rank).powf(-scenario.zipf_exponent)));
        let whole = weights.last().copied().unwrap_or(1.0);
        let mut circuits = Vec::with_capacity(scenario.processes as usize * per_process as usize);
        let mut own: Vec<u32> = Vec::new();
        for _ in 0..scenario.processes {
            own.clear();
            while own.len() < per_process as usize {
                let drawn = place(&weights, random.f64() * whole);
                if !own.contains(&drawn) {
                    own.push(drawn);
                }
            }
            random.shuffle(&mut own);
            circuits.extend_from_slice(&own);
        }
        // The n-th circuit of a process gets an n-th of what its first one does.
        let shares = sums((1..=per_process).map(|rank| 1.0 / f64::from(rank)));
        let (begins, users) = by_circuit(&circuits, scenario.circuits);
        Self { per_process, circuits, shares, begins, users }
    }

    /// How many pairs there are.
    pub fn pairs(&self) -> u32 {
        self.circuits.len() as u32
    }

    /// The circuit of a pair.
    pub fn circuit(&self, pair: u32) -> u32 {
        self.circuits.get(pair as usize).copied().unwrap_or_default()
    }

    /// The process of a pair.
    pub fn process(&self, pair: u32) -> u32 {
        pair / self.per_process
    }

    /// The pairs of a circuit.
    pub fn users(&self, circuit: u32) -> &[u32] {
        let begin = |circuit: usize| self.begins.get(circuit).map_or(0, |begin| *begin as usize);
        self.users.get(begin(circuit as usize)..begin(circuit as usize + 1)).unwrap_or_default()
    }

    /// Draws for which of its circuits a request of a process is.
    pub(crate) fn draw(&self, process: u32, random: &mut fastrand::Rng) -> u32 {
        let whole = self.shares.last().copied().unwrap_or(1.0);
        process * self.per_process + place(&self.shares, random.f64() * whole)
    }

    /// How much of its process' requests a pair gets.
    pub fn share(&self, pair: u32) -> f64 {
        let place = (pair % self.per_process) as usize;
        let whole = self.shares.last().copied().unwrap_or(1.0);
        let before = place.checked_sub(1).and_then(|before| self.shares.get(before)).copied();
        (self.shares.get(place).copied().unwrap_or_default() - before.unwrap_or_default()) / whole
    }
}

fn sums(weights: impl Iterator<Item = f64>) -> Vec<f64> {
    weights
        .scan(0.0, |sum, weight| {
            *sum += weight;
            Some(*sum)
        })
        .collect()
}

fn place(sums: &[f64], drawn: f64) -> u32 {
    sums.partition_point(|sum| *sum <= drawn).min(sums.len().saturating_sub(1)) as u32
}

fn by_circuit(circuits: &[u32], count: u32) -> (Vec<u32>, Vec<u32>) {
    let mut pairs: Vec<u32> = (0..circuits.len() as u32).collect();
    let circuit = |pair: u32| circuits.get(pair as usize).copied().unwrap_or_default();
    pairs.sort_by_key(|pair| circuit(*pair));
    let begins =
        (0..=count).map(|number| pairs.partition_point(|pair| circuit(*pair) < number) as u32).collect();
    (begins, pairs)
}
