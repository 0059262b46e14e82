//! What an idle circuit takes in the host: bytes that the allocator has given out, and what the process has resident.
//!
//! The store keeps nothing, so what is measured is this process's own; a record in the store is the store's.

use std::fs;
use std::process::Command;
use std::time::Duration;

use async_trait::async_trait;
use circuitry::{Factory, SettingsBuilder, Store, StoreError};
use circuitry_benches::circuits::{execute, factory, own, usual};
use circuitry_benches::{Suite, modes};
use circuitry_store::{Loaded, Receipt, Swapped, Version};
use criterion::Criterion;
use peak_alloc::PeakAlloc;
use tokio::runtime::Runtime;

#[global_allocator]
static ALLOCATED: PeakAlloc = PeakAlloc;

const CIRCUITS: u64 = 100_000;
const ROOM: usize = 125_000;
/// Until what is only for a circuit in use may have gone.
const IDLE: Duration = Duration::from_secs(2);

/// Says that it stores, and forgets.
struct Forgetful;

#[async_trait]
impl Store for Forgetful {
    async fn load(&self, _: &str) -> Result<Loaded, StoreError> {
        Ok(Loaded { entry: None, now_ms: None })
    }

    async fn swap(
        &self,
        _: &str,
        _: Option<&Version>,
        _: &[u8],
        _: Option<Duration>,
    ) -> Result<Swapped, StoreError> {
        Ok(Swapped::Stored(Receipt { version: Version::mint()?, now_ms: None }))
    }
}

/// Bytes that are given out, and that are resident.
#[derive(Clone, Copy)]
struct Taken {
    allocated: usize,
    resident: usize,
}

impl Taken {
    fn now() -> Self {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kilobytes = line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok());
        let kilobytes: usize = kilobytes.unwrap_or_default();
        Self { allocated: ALLOCATED.current_usage(), resident: kilobytes * 1_024 }
    }

    /// Of each of so many circuits, since `before`: allocated, and resident.
    fn each(self, before: Self, circuits: u64) -> [f64; 2] {
        [(self.allocated, before.allocated), (self.resident, before.resident)]
            .map(|(now, then)| now.saturating_sub(then) as f64 / circuits as f64)
    }
}

/// Uses so many circuits once each, and lets go of their handles.
async fn use_once(factory: &Factory, circuits: u64) {
    for number in 0..circuits {
        execute(&own(factory, &format!("tenant {number:07}"))).await;
    }
}

/// Measures circuits of one mode.
async fn each(settings: SettingsBuilder, circuits: u64) -> [f64; 2] {
    // The engine is the process's and not the circuits'.
    let other = factory(modes::strict(usual()).store(Forgetful)).await;
    execute(&own(&other, "the first")).await;
    let before = Taken::now();
    // The table of circuits is made for a quarter more than there will be: none is to be forgotten.
    let factory = factory(settings.store(Forgetful).max_circuits(ROOM)).await;
    use_once(&factory, circuits).await;
    modes::flush(&factory).await;
    if circuits == CIRCUITS {
        tokio::time::sleep(IDLE).await;
    }
    Taken::now().each(before, circuits)
}

/// Measures in a process of its own: what one mode has given back is not to be used again by the other.
fn each_in_a_process(mode: &str, circuits: u64) -> [f64; 2] {
    let own = std::env::current_exe().expect("its own path");
    let output = Command::new(own).env(MODE, mode).env(HOW_MANY, circuits.to_string()).output();
    let output = output.expect("it runs");
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "measuring {mode} failed: {errors}");
    let mut figures = text.split_whitespace().map(|figure| figure.parse().expect("a number"));
    [(); 2].map(|()| figures.next().expect("two figures"))
}

/// Set in the process that measures.
const MODE: &str = "CIRCUITRY_BENCH_MODE";
const HOW_MANY: &str = "CIRCUITRY_BENCH_CIRCUITS";

fn settings(mode: &str) -> Option<SettingsBuilder> {
    if mode == "bounded" { modes::bounded(usual()) } else { Some(modes::strict(usual())) }
}

fn main() {
    let runtime = Runtime::new().expect("a runtime");
    if let (Ok(mode), Ok(circuits)) = (std::env::var(MODE), std::env::var(HOW_MANY)) {
        let settings = settings(&mode).expect("a mode that there is");
        let [allocated, resident] = runtime.block_on(each(settings, circuits.parse().expect("a number")));
        println!("{allocated} {resident}");
        return;
    }
    let mut suite = Suite::begin("memory");
    let mut criterion = Criterion::default().configure_from_args();
    let circuits = if suite.is_trial() { 50 } else { CIRCUITS };
    let mut by_default = 0.0;
    for (mode, names) in [
        ("strict", ["memory/by the allocator", "memory/resident"]),
        ("bounded", ["memory/bounded, by the allocator", "memory/bounded, resident"]),
    ] {
        if settings(mode).is_none() {
            names.into_iter().for_each(|name| suite.leave_out(name, "this build has no such mode"));
            continue;
        }
        let figures = each_in_a_process(mode, circuits);
        for (name, bytes) in names.into_iter().zip(figures) {
            suite.record(name, bytes, circuits);
        }
        // The last mode that there is is the one of the default settings.
        by_default = figures[0];
    }
    suite.record("memory/idle circuit", by_default, circuits);

    let factory = runtime.block_on(factory(modes::strict(usual()).store(Forgetful)));
    let mut number = 0_u64;
    criterion.bench_function("the first call of a circuit, strict", |bencher| {
        bencher.to_async(&runtime).iter(|| {
            number += 1;
            let breaker = own(&factory, &number.to_string());
            async move { execute(&breaker).await }
        });
    });
    suite.finish();
    criterion.final_summary();
}
