//! What is simulated. Lengths of time are microseconds, shares are per mille.

use circuitry_core::Settings;

/// A fleet, its load, its store and what befalls it.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// How many processes there are.
    pub processes: u32,
    /// How many circuits there are.
    pub circuits: u32,
    /// How many circuits each process uses.
    pub circuits_per_process: u32,
    /// How uneven the circuits are: the n-th one is drawn with a weight of n to the power of minus this.
    pub zipf_exponent: f64,
    /// What the processes do.
    pub load: Load,
    /// How long the work behind a permit takes.
    pub work_us: u64,
    /// How much of the work fails where nothing is wrong.
    pub background_failures_per_mille: u32,
    /// What goes wrong.
    pub incident: Option<Incident>,
    /// How circuits behave.
    pub settings: Settings,
    /// When a process asks the store.
    pub mode: Mode,
    /// The store.
    pub store: StoreModel,
    /// How long requests come in.
    pub length_us: u64,
    /// What is under way then is finished until here; `None`: however long that takes.
    pub ends_at_us: Option<u64>,
    /// From when on rates are measured.
    pub measured_from_us: u64,
    /// Of everything that is drawn.
    pub seed: u64,
}

/// What the processes do.
#[derive(Clone, Debug)]
pub enum Load {
    /// Requests come to each process at random, whatever became of those before.
    Open {
        /// How many a second, in a process.
        per_second: f64,
        /// How many may be under way in a process; what comes beyond is held back, and counted.
        at_once: u32,
    },
    /// So many tasks in each process execute over and over.
    Closed {
        /// How many execute at once.
        tasks: u32,
        /// How many executions the tasks of a process try together.
        executions: u64,
        /// How long a task waits that was refused.
        pause_us: u64,
    },
}

/// A region's dependencies fail for a while.
#[derive(Clone, Debug)]
pub struct Incident {
    /// How many of the circuits.
    pub circuits_per_mille: u32,
    /// How much of their work fails.
    pub failures_per_mille: u32,
    /// When it begins.
    pub from_us: u64,
    /// When it is over.
    pub until_us: u64,
}

impl Incident {
    /// Whether the circuit is in the region; spread evenly over the uneven ones.
    pub fn hits(&self, circuit: u32) -> bool {
        let spread = u64::from(circuit).wrapping_mul(617) % 1_000;
        spread < u64::from(self.circuits_per_mille)
    }
}

/// When a process asks the store.
#[derive(Clone, Debug)]
pub enum Mode {
    /// Each start is a load, each end a swap; ends of a circuit that wait for each other go together.
    Strict,
    /// Starts are answered from what was seen a moment ago, outcomes are told together.
    Bounded(Bounded),
}

/// How old a view may be, and how long outcomes wait.
#[derive(Clone, Debug)]
pub struct Bounded {
    /// A start is answered from a view that is no older.
    pub max_staleness_us: u64,
    /// Outcomes wait so long, from when on the view was asked for.
    pub flush_every_us: u64,
    /// Whether who made a transition announces it.
    pub push: Option<Push>,
    /// Not in the host: flushes and looks are due earlier by up to so much of their time, at random, so that processes which saw
    /// something at the same moment do not all come back at the same moment.
    pub spread_per_mille: u32,
    /// Not in the host: a process that loses races puts its outcomes off, for longer each time, up to so long.
    pub eases_to_us: Option<u64>,
}

impl Bounded {
    /// A circuit in use is looked at again when its view has this age.
    pub fn refresh_after_us(&self) -> u64 {
        self.max_staleness_us / 4 * 3
    }

    /// Outcomes that wait are told when the view has this age.
    pub fn flush_after_us(&self) -> u64 {
        self.flush_every_us.min(self.refresh_after_us())
    }
}

/// How announcements travel.
#[derive(Clone, Debug)]
pub struct Push {
    /// How many of a thousand get lost.
    pub dropped_per_mille: u32,
    /// How long one takes, in the middle.
    pub latency_us: u64,
}

/// The store: a number of shards, each answering one command after the other.
#[derive(Clone, Debug)]
pub struct StoreModel {
    /// How many shards share the circuits.
    pub shards: u32,
    /// How many commands a second a shard answers; `None`: any number.
    pub commands_per_second: Option<u64>,
    /// The round trip without any waiting, in the middle.
    pub round_trip_us: u64,
    /// How uneven round trips are: the standard deviation of their logarithm.
    pub round_trip_spread: f64,
}
