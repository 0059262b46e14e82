//! How long it takes until a factory is there: compiling, compiling and keeping, and with what was kept in a folder.
//!
//! A process makes the built-in component ready once, so the figures are of processes that do nothing else
//! and time themselves; criterion's are of a process that begins anew with each factory.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use circuitry::{Factory, Settings};
use circuitry_benches::{Suite, Times};
use criterion::Criterion;
use tempfile::TempDir;
use tokio::runtime::Runtime;

const ROUNDS: u64 = 100;

/// Begins a process that makes a factory; the time is its own.
fn process(folder: Option<&Path>) -> Duration {
    let ready = env!("CARGO_BIN_EXE_circuitry-bench-ready");
    let output = Command::new(ready).args(folder).output().expect("a process");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let told = String::from_utf8(output.stdout).expect("text");
    Duration::from_nanos(told.trim().parse().expect("nanoseconds"))
}

fn folder() -> TempDir {
    tempfile::tempdir().expect("a folder")
}

fn in_processes_of_their_own(suite: &mut Suite) {
    let kept = folder();
    process(Some(kept.path()));
    let mut compiling = Times::new("compiling");
    let mut keeping = Times::new("compiling and keeping it");
    let mut loading = Times::new("from the folder");
    for _ in 0..suite.times(ROUNDS) {
        compiling.add(process(None));
        keeping.add(process(Some(folder().path())));
        loading.add(process(Some(kept.path())));
    }
    for (times, [p50, p90]) in [
        (&compiling, ["startup/compiling p50", "startup/compiling p90"]),
        (&keeping, ["startup/keeping p50", "startup/keeping p90"]),
        (&loading, ["startup/loading p50", "startup/loading p90"]),
    ] {
        suite.record_times(p50, times);
        suite.record(p90, times.quantile(0.9).as_secs_f64() * 1e9, times.rounds() as u64);
    }
    suite.record_times("startup/ready, compiling", &compiling);
    suite.record_times("startup/ready, from the folder", &loading);
}

/// The last factory of a process takes the engine with it, so each begins with nothing.
async fn factory(folder: Option<PathBuf>) -> Factory {
    let settings = Settings::builder();
    let settings = match folder {
        Some(folder) => settings.component_cache(folder),
        None => settings,
    };
    Factory::new(settings.build().expect("settings")).await.expect("a factory")
}

fn in_one_process(criterion: &mut Criterion) {
    let runtime = Runtime::new().expect("a runtime");
    let kept = folder();
    runtime.block_on(factory(Some(kept.path().into())));
    let mut group = criterion.benchmark_group("make a factory and drop it");
    group.sample_size(20);
    group.bench_function("compiling", |bencher| {
        bencher.to_async(&runtime).iter(|| factory(None));
    });
    group.bench_function("from the folder", |bencher| {
        bencher.to_async(&runtime).iter(|| factory(Some(kept.path().into())));
    });
    let _another = runtime.block_on(factory(None));
    group.bench_function("beside another", |bencher| {
        bencher.to_async(&runtime).iter(|| factory(None));
    });
    group.finish();
}

fn main() {
    let mut suite = Suite::begin("startup");
    let mut criterion = Criterion::default().configure_from_args();
    in_processes_of_their_own(&mut suite);
    in_one_process(&mut criterion);
    suite.finish();
    criterion.final_summary();
}
