//! The simulated fleet of `benches/simulation`, held to four real processes on a real Redis: the same load, and about the same
//! commands and trips. SCALE.md rests on it.
//!
//! Counts are compared, not times, and of what hangs on how often the circuit trips, which is chance, the share: how many swaps
//! a permit costs, how many trips a thousand permits bring. How many races are lost hangs on how long a command takes beside the
//! work; the work is long, so that a busy machine changes little.

use circuitry::TransitionReason;
use circuitry_simulation::{Report, Scenario, presets, simulate};
use circuitry_tests::fleet::{Load, Task, Work};

use crate::processes::{run_fleet, sum};
use crate::round_trips::Commands;
use crate::servers::{OwnRedis, own_name, plain};
use crate::turns::alone;

const TASKS: u32 = 4;
const EXECUTIONS: u64 = 3_000;
const WORK_MS: u64 = 20;
const FAILURES_PER_MILLE: u32 = 350;
const SEEDS: u64 = 5;

/// What is compared.
#[derive(Debug)]
struct Counted {
    attempts: f64,
    refused: f64,
    loads: f64,
    /// With those that lost a race.
    swaps: f64,
    trips: f64,
}

impl Counted {
    fn of(report: &Report) -> Self {
        Self {
            attempts: report.requests.attempts as f64,
            refused: report.requests.refused as f64,
            loads: report.whole.loads as f64,
            swaps: (report.whole.stored + report.whole.conflicts) as f64,
            trips: f64::from(report.trips),
        }
    }

    /// The mean of several runs.
    fn simulated(scenario: impl Fn(u64) -> Scenario) -> Self {
        let runs: Vec<_> = (1..=SEEDS)
            .map(|seed| Self::of(&simulate(&scenario(seed)).expect("a simulation without defects")))
            .collect();
        let mean = |part: fn(&Self) -> f64| runs.iter().map(part).sum::<f64>() / runs.len() as f64;
        Self {
            attempts: mean(|run| run.attempts),
            refused: mean(|run| run.refused),
            loads: mean(|run| run.loads),
            swaps: mean(|run| run.swaps),
            trips: mean(|run| run.trips),
        }
    }

    /// Four processes, and what Redis says that they have sent.
    async fn real() -> Self {
        let redis = OwnRedis::start().await;
        let mut server = plain(&redis.url()).await;
        Commands::reset(&mut server).await;
        let load = Load {
            tasks: TASKS.into(),
            executions: EXECUTIONS,
            work_ms: WORK_MS,
            failures_per_mille: FAILURES_PER_MILLE,
            ignored_per_mille: 0,
            lease_log: None,
            seed: 0,
        };
        // The settings of `presets::four_processes`.
        let task = Task {
            redis_url: redis.url(),
            prefix: format!("{}:", own_name()),
            circuit: "jobs".into(),
            bounded: false,
            failure_count_threshold: 4,
            close_threshold: 3,
            allow_after_ms: 50,
            probe_timeout_ms: 120_000,
            work: Work::Execute(load),
        };
        let sum = sum(&run_fleet(task).await);
        assert_eq!(sum.unsettled, 0);
        let commands = Commands::since_reset(&mut server).await;
        let trips = sum.changes.iter().filter(|change| change.is_by(TransitionReason::Tripped)).count();
        Self {
            attempts: sum.attempts as f64,
            refused: sum.refused as f64,
            loads: commands.sent("hmget") as f64,
            swaps: commands.of("evalsha") as f64,
            trips: trips as f64,
        }
    }
}

/// Neither is more than so many times the other.
fn assert_like(what: &str, real: f64, simulated: f64, times: f64) {
    let alike = real <= simulated * times && simulated <= real * times;
    assert!(alike, "{what}: {real} in real processes, {simulated} simulated");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_strict_mode_four_real_processes_send_and_trip_as_the_simulated_ones() {
    let _turn = alone().await;
    let simulated = Counted::simulated(|seed| {
        let preset = presets::four_processes(TASKS, EXECUTIONS, WORK_MS * 1_000, FAILURES_PER_MILLE);
        Scenario { seed, ..preset }
    });
    let real = Counted::real().await;
    println!("real: {real:?}\nsimulated: {simulated:?}");

    assert_eq!(real.attempts, simulated.attempts);
    // A start is a load, and so is a late outcome that looks again before it is stale. Starts of a process that come at the same time
    // share one, which is not simulated: those are fewer here, but never under one for all tasks of a process.
    assert!(real.loads <= simulated.loads * 1.05, "loads: {} in real processes, {simulated:?}", real.loads);
    let shared_by_all = real.attempts / f64::from(TASKS);
    assert!(real.loads >= shared_by_all, "loads: {} of {} starts", real.loads, real.attempts);
    let permits = |counted: &Counted| counted.attempts - counted.refused;
    let share = |part: f64, counted: &Counted| part * 1_000.0 / permits(counted);
    assert_like(
        "swaps a thousand permits",
        share(real.swaps, &real),
        share(simulated.swaps, &simulated),
        1.5,
    );
    assert_like(
        "trips a thousand permits",
        share(real.trips, &real),
        share(simulated.trips, &simulated),
        2.5,
    );
}

// Bounded mode is to be compared here in the same way, with `mode: Mode::Bounded(presets::bounded())` in the scenario and the
// same consistency in the workers' settings; loads and swaps are then what differs from strict mode.
