//! What a decision costs without a network: in the native core, and through wasmtime on the memory store.

use std::hint::black_box;
use std::time::{Duration, Instant};

use circuitry::{Breaker, Outcome};
use circuitry_benches::circuits::{factory, own, usual};
use circuitry_benches::{Suite, Times, modes};
use circuitry_core::exchange::{Entry, Hooks, TripQuery};
use circuitry_core::record::Token;
use circuitry_core::request::Operation;
use circuitry_core::{Caller, Completion, Decision, Loaded, Request, decide};
use criterion::Criterion;
use tokio::runtime::Runtime;

const ROUNDS: u64 = 400;
const CALLS_A_ROUND: u64 = 1_000;

struct NoHooks;

impl Hooks for NoHooks {
    fn will_trip(&mut self, _: &TripQuery<'_>) -> bool {
        false
    }
}

fn request(operation: Operation) -> Request {
    Request {
        circuit: "emails/acme".into(),
        settings: circuitry_core::Settings {
            failure_count_threshold: u64::MAX,
            close_threshold: 1,
            allow_after_ms: 60_000,
            cyclic_clear_after_ms: None,
            probe_timeout_ms: 30_000,
            idle_retention_ms: 86_400_000,
            ..circuitry_core::Settings::default()
        },
        operation,
    }
}

fn caller(sequence: u64) -> Caller {
    Caller { token: Token { node: 0x5eed_5eed_5eed_5eed, sequence }, retry_of: None }
}

fn end(sequence: u64) -> Request {
    let completion = Completion {
        era: 1_000_000,
        probe: None,
        outcome: circuitry_core::Outcome::Success,
        slow: false,
        count: 1,
        retry_after_ms: None,
    };
    request(Operation::End(caller(sequence), vec![completion]))
}

/// A record in steady use: as many tokens in it as it keeps.
fn steady() -> Loaded {
    let mut loaded = Loaded::default();
    let mut requests = vec![request(Operation::Start(caller(1)))];
    requests.extend((2..100).map(end));
    for request in requests {
        let decision = decide(&request, &loaded, 1_000_000, &mut NoHooks).expect("a decision");
        let Decision::Write(write) = decision else { panic!("it writes") };
        loaded = Loaded { entry: Some(Entry { value: write.value, version: vec![0; 16] }), now_ms: None };
    }
    loaded
}

/// The native core: a start and an end, on a record in steady use.
struct Native {
    loaded: Loaded,
    requests: [Request; 2],
}

impl Native {
    fn decide(&self, index: usize) {
        drop(black_box(decide(&self.requests[index], &self.loaded, 1_000_001, &mut NoHooks)));
    }

    fn time(&self, index: usize, calls: u64) -> Duration {
        let begun = Instant::now();
        for _ in 0..calls {
            self.decide(index);
        }
        begun.elapsed()
    }
}

async fn start(breaker: &Breaker) {
    drop(breaker.start().await.expect("a permit"));
}

async fn start_and_end(breaker: &Breaker) {
    let permit = breaker.start().await.expect("a permit");
    permit.end(Outcome::Success).await.expect("settled");
}

fn criterion_figures(criterion: &mut Criterion, runtime: &Runtime, native: &Native, breaker: &Breaker) {
    let bytes = native.loaded.entry.as_ref().map_or(0, |entry| entry.value.len());
    let mut group =
        criterion.benchmark_group(format!("decision in the native core, record of {bytes} bytes"));
    group.bench_function("start, closed", |bencher| bencher.iter(|| native.decide(0)));
    group.bench_function("end, success", |bencher| bencher.iter(|| native.decide(1)));
    group.finish();
    let mut group = criterion.benchmark_group("strict on the memory store, in wasmtime");
    group.bench_function("start, closed, dropped", |bencher| {
        bencher.to_async(runtime).iter(|| start(breaker));
    });
    group.bench_function("start and end, success", |bencher| {
        bencher.to_async(runtime).iter(|| start_and_end(breaker));
    });
    group.finish();
}

async fn turns(suite: &mut Suite, native: &Native, breaker: &Breaker) {
    let calls = if suite.is_trial() { 10 } else { CALLS_A_ROUND };
    let names =
        ["decision/native start", "decision/native end", "decision/memory start", "decision/memory execute"];
    let mut times = names.map(|name| Times::of_many(name, calls));
    for _ in 0..suite.times(ROUNDS) {
        let [native_start, native_end, starts, executes] = &mut times;
        native_start.add(native.time(0, calls));
        native_end.add(native.time(1, calls));
        starts
            .time(async {
                for _ in 0..calls {
                    start(breaker).await
                }
            })
            .await;
        executes
            .time(async {
                for _ in 0..calls {
                    start_and_end(breaker).await
                }
            })
            .await;
    }
    for times in &times {
        suite.record_times(times.name(), times);
    }
    // Beside the other hosts.
    let [.., executes] = &times;
    suite.record_times("decision/rust execute", executes);
}

fn main() {
    let mut suite = Suite::begin("decision");
    let mut criterion = Criterion::default().configure_from_args();
    let runtime = Runtime::new().expect("a runtime");
    let breaker = runtime.block_on(async {
        let settings = modes::strict(usual()).failure_count_threshold(u64::MAX);
        own(&factory(settings).await, "emails")
    });
    let native =
        Native { loaded: steady(), requests: [request(Operation::Start(caller(1_000))), end(1_000)] };
    criterion_figures(&mut criterion, &runtime, &native, &breaker);
    runtime.block_on(turns(&mut suite, &native, &breaker));
    suite.finish();
    criterion.final_summary();
}
