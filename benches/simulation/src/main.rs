//! `circuitry-simulation`: one run, four processes, the store's capacity, or the whole report.

mod capacity;
mod plots;
mod runs;
mod tables;
mod text;

use std::path::PathBuf;

use anyhow::Result;
use circuitry_simulation::scenario::{Bounded, Mode, Push, Scenario};
use circuitry_simulation::{presets, simulate};
use clap::{Args, Parser, Subcommand, ValueEnum};

#[derive(Parser)]
#[command(about = "A fleet of thousands of processes, simulated on the real state machine")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// A region of the fleet's circuits fails and heals
    Region {
        /// Processes; circuits and shards go along, unless they are given
        #[arg(long, default_value_t = 10_000)]
        processes: u32,
        /// Circuits [default: ten a process]
        #[arg(long)]
        circuits: Option<u32>,
        /// Requests a second, of each process
        #[arg(long, default_value_t = 50.0)]
        requests: f64,
        #[command(flatten)]
        how: How,
    },
    /// All processes use one circuit
    HotKey {
        /// Processes
        #[arg(long, default_value_t = 100)]
        processes: u32,
        #[command(flatten)]
        how: How,
    },
    /// Four processes on one circuit, as the fleet's tests run them for real
    Fleet {
        /// How many tasks of a process execute at once
        #[arg(long, default_value_t = 4)]
        tasks: u32,
        /// How many executions a process tries
        #[arg(long, default_value_t = 1_000)]
        executions: u64,
        /// How long the work takes, in milliseconds
        #[arg(long, default_value_t = 10)]
        work_ms: u64,
        /// How much of it fails
        #[arg(long, default_value_t = 300)]
        failures_per_mille: u32,
        #[command(flatten)]
        how: How,
    },
    /// Measures what one Redis answers, with the real script
    Capacity {
        /// Where it is
        #[arg(long, default_value = "127.0.0.1:6379")]
        address: String,
    },
    /// All runs of SCALE.md: writes its tables, and the plots
    Report {
        /// The folder of SCALE.md and plots/
        #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/.."))]
        folder: PathBuf,
        /// A Redis to measure; without one the table of capacity stays as it is
        #[arg(long)]
        redis: Option<String>,
        /// A tenth of the processes, to see whether it runs
        #[arg(long)]
        small: bool,
    },
}

#[derive(Args)]
struct How {
    /// When a process asks the store
    #[arg(long, value_enum, default_value_t = Name::Bounded)]
    mode: Name,
    /// How old a view may be, in milliseconds
    #[arg(long, default_value_t = 100)]
    max_staleness_ms: u64,
    /// How long outcomes wait, in milliseconds
    #[arg(long, default_value_t = 100)]
    flush_every_ms: u64,
    /// How many of a thousand announcements get lost
    #[arg(long, default_value_t = 0)]
    dropped_per_mille: u32,
    /// Flushes are spread, and come less often where races are lost: what is proposed
    #[arg(long)]
    eased: bool,
    /// Of everything that is drawn
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Prints JSON
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Name {
    Strict,
    Bounded,
    /// Bounded, and transitions are announced
    Push,
}

impl How {
    fn mode(&self) -> Mode {
        let push = Push { dropped_per_mille: self.dropped_per_mille, ..presets::push() };
        let bounded = Bounded {
            max_staleness_us: self.max_staleness_ms * 1_000,
            flush_every_us: self.flush_every_ms * 1_000,
            push: (self.mode == Name::Push).then_some(push),
            ..presets::bounded()
        };
        match self.mode {
            Name::Strict => Mode::Strict,
            _ if self.eased => Mode::Bounded(presets::eased(bounded)),
            _ => Mode::Bounded(bounded),
        }
    }

    fn run(&self, scenario: Scenario) -> Result<()> {
        let scenario = Scenario { mode: self.mode(), seed: self.seed, ..scenario };
        let report = simulate(&scenario)?;
        if self.json {
            println!("{}", serde_json::to_string_pretty(&report)?);
        } else {
            print!("{}", text::describe(&scenario, &report));
        }
        Ok(())
    }
}

fn main() -> Result<()> {
    match Arguments::parse().command {
        Command::Region { processes, circuits, requests, how } => {
            let mut scenario = presets::region_of(processes);
            scenario.circuits = circuits.unwrap_or(scenario.circuits);
            if let circuitry_simulation::scenario::Load::Open { per_second, .. } = &mut scenario.load {
                *per_second = requests;
            }
            how.run(scenario)
        }
        Command::HotKey { processes, how } => how.run(presets::hot_key(processes)),
        Command::Fleet { tasks, executions, work_ms, failures_per_mille, how } => {
            how.run(presets::four_processes(tasks, executions, work_ms * 1_000, failures_per_mille))
        }
        Command::Capacity { address } => {
            print!("{}", capacity::measure(&address)?.table());
            Ok(())
        }
        Command::Report { folder, redis, small } => runs::run(&folder, redis.as_deref(), small),
    }
}
