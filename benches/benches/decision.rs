//! What a decision costs without a network: in the native core, and through wasmtime on the memory store.

use circuitry::{Context, Factory, Outcome, Settings};
use circuitry_core::exchange::{Entry, Hooks, TripQuery};
use circuitry_core::record::Token;
use circuitry_core::request::Operation;
use circuitry_core::{Caller, Completion, Decision, Loaded, Request, decide};
use criterion::{Criterion, criterion_group, criterion_main};
use tokio::runtime::Runtime;

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

fn native(criterion: &mut Criterion) {
    let loaded = steady();
    let bytes = loaded.entry.as_ref().map_or(0, |entry| entry.value.len());
    let mut group =
        criterion.benchmark_group(format!("decision in the native core, record of {bytes} bytes"));
    let start = request(Operation::Start(caller(1_000)));
    group.bench_function("start, closed", |bencher| {
        bencher.iter(|| decide(&start, &loaded, 1_000_001, &mut NoHooks));
    });
    let end = end(1_000);
    group.bench_function("end, success", |bencher| {
        bencher.iter(|| decide(&end, &loaded, 1_000_001, &mut NoHooks));
    });
    group.finish();
}

fn whole(criterion: &mut Criterion) {
    let runtime = Runtime::new().expect("a runtime");
    let breaker = runtime.block_on(async {
        let settings = Settings::builder()
            .consistency(circuitry::Consistency::Strict)
            .failure_count_threshold(u64::MAX)
            .build()
            .expect("settings");
        let factory = Factory::new(settings).await.expect("a factory");
        factory.breaker_for("emails", &Context::tenant("acme"))
    });
    let mut group = criterion.benchmark_group("strict on the memory store, in wasmtime");
    group.bench_function("start, closed, dropped", |bencher| {
        bencher.to_async(&runtime).iter(|| async { breaker.start().await.map(drop) });
    });
    group.bench_function("start and end, success", |bencher| {
        bencher.to_async(&runtime).iter(|| async {
            let permit = breaker.start().await.expect("a permit");
            permit.end(Outcome::Success).await
        });
    });
    group.finish();
}

criterion_group!(benches, native, whole);
criterion_main!(benches);
