//! From the trip of one process to the first refusal in another, on one Redis: the trip is stored when the callback of the
//! process that made it is called.

use std::process::Stdio;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use circuitry::{Context, Factory, Outcome, State};
use circuitry_benches::processes::{Way, machine_time};
use circuitry_benches::servers::{redis_connection, redis_version};
use circuitry_benches::{Suite, modes, quantile_index};
use criterion::{Criterion, SamplingMode};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::runtime::Runtime;
use tokio::time::{sleep, timeout};

const ROUNDS: u64 = 300;
/// A trip that nobody sees for so long is a defect, and ends the run.
const PATIENCE: Duration = Duration::from_secs(20);

/// This process and the watcher.
struct Fleet {
    factory: Factory,
    /// When trips of this process were stored.
    stored: Receiver<Duration>,
    _watcher: Child,
    to_watcher: ChildStdin,
    from_watcher: Lines<BufReader<ChildStdout>>,
    round: u64,
}

impl Fleet {
    async fn new(way: Way) -> Option<Self> {
        let prefix = format!("bench:{}:{:x}:", std::process::id(), fastrand::u32(..));
        let (sender, stored): (Sender<Duration>, _) = channel();
        let tell = move |settings: circuitry::SettingsBuilder| {
            settings.state_change_callback(move |change| {
                if change.to == State::Open {
                    // Who no longer waits does not want to know.
                    let _ = sender.send(machine_time());
                }
            })
        };
        let factory = way.factory(&prefix, tell).await?;
        let mut watcher = Command::new(env!("CARGO_BIN_EXE_circuitry-bench-watcher"))
            .args([way.to_string(), prefix])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("the watcher starts");
        let to_watcher = watcher.stdin.take().expect("a pipe");
        let from_watcher = BufReader::new(watcher.stdout.take().expect("a pipe")).lines();
        Some(Self { factory, stored, _watcher: watcher, to_watcher, from_watcher, round: 0 })
    }

    async fn heard(&mut self) -> String {
        let line = timeout(PATIENCE, self.from_watcher.next_line()).await.expect("the watcher answers");
        line.expect("a pipe").expect("the watcher lives")
    }

    /// One trip, of a circuit that has not tripped before; gives how long it took to be seen.
    async fn trip(&mut self) -> Duration {
        self.round += 1;
        let circuit = format!("trip {}", self.round);
        let breaker = self.factory.breaker_for(&circuit, &Context::new());
        self.to_watcher.write_all(format!("{circuit}\n").as_bytes()).await.expect("a pipe");
        assert_eq!(self.heard().await, "ready");
        // Wherever the watcher is between two looks.
        sleep(Duration::from_micros(fastrand::u64(5_000..120_000))).await;
        let permit = breaker.start().await.expect("a permit");
        permit.end(Outcome::Failure).await.expect("settled");
        modes::flush(&self.factory).await;
        let stored = self.stored.recv_timeout(PATIENCE).expect("it has tripped");
        let refused = self.heard().await.parse().expect("a time");
        // The watcher may have read it before the answer was here.
        Duration::from_nanos(refused).saturating_sub(stored)
    }
}

fn measure(suite: &mut Suite, criterion: &mut Criterion, runtime: &Runtime, way: Way) {
    let figures: &[(&'static str, f64)] = match way {
        Way::Strict => &[("propagation/strict p50", 0.5), ("propagation/strict p99", 0.99)],
        Way::Polling => &[("propagation/polling p50", 0.5), ("propagation/polling p99", 0.99)],
        Way::Push => &[("propagation/push p50", 0.5), ("propagation/push p99", 0.99)],
    };
    let Some(mut fleet) = runtime.block_on(Fleet::new(way)) else {
        return figures.iter().for_each(|(id, _)| suite.leave_out(id, "this build has no such way"));
    };
    let mut trips: Vec<f64> = Vec::new();
    for _ in 0..suite.times(ROUNDS) {
        trips.push(runtime.block_on(fleet.trip()).as_secs_f64() * 1e9);
    }
    trips.sort_unstable_by(f64::total_cmp);
    for (id, share) in figures {
        suite.record(id, trips[quantile_index(trips.len(), *share)], trips.len() as u64);
    }
    suite.keep_points(&format!("propagation/{way}"), &trips);

    let mut group = criterion.benchmark_group("from a trip in one process to a refusal in another");
    // Trips of one measurement are one after another.
    group.sampling_mode(SamplingMode::Flat).sample_size(10).measurement_time(Duration::from_secs(3));
    group.bench_function(way.to_string(), |bencher| {
        bencher.iter_custom(|trips| {
            (0..trips).map(|_| runtime.block_on(fleet.trip())).sum::<Duration>().max(Duration::from_nanos(1))
        });
    });
    group.finish();
}

fn main() {
    let mut suite = Suite::begin("propagation");
    let mut criterion = Criterion::default().configure_from_args();
    let runtime = Runtime::new().expect("a runtime");
    suite.on("Redis", runtime.block_on(async { redis_version(&mut redis_connection().await).await }));
    for way in Way::ALL {
        measure(&mut suite, &mut criterion, &runtime, way);
    }
    suite.finish();
    criterion.final_summary();
}
