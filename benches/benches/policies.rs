//! What policies cost: the pure decision of the component as it was before there were any, kept in `fixtures`, against the
//! present one in the same run; and what each rule adds.
//!
//! Both run in wasmtime, through `exchange.decide`, by the default rule, on a record in steady use.

use std::hint::black_box;
use std::time::{Duration, Instant};

use circuitry_benches::{Suite, Times};
use criterion::{BenchmarkId, Criterion};
use wasmtime::component::{Component, HasSelf, Linker};
use wasmtime::{Engine, Store};

const BEFORE: &[u8] = include_bytes!("../fixtures/before-policies/circuitry.wasm");
const BEGIN_MS: u64 = 1_800_000_000_000;
const ROUNDS: u64 = 400;
const CALLS_A_ROUND: u64 = 1_000;

/// A host without a store: `exchange` asks for none.
struct Host;

macro_rules! component {
    ($name:ident, $wit:literal, settings: $settings:item, completion: $completion:expr) => {
        mod $name {
            use super::*;

            mod bindings {
                #![allow(missing_docs, unreachable_pub, clippy::all, reason = "generated code")]
                wasmtime::component::bindgen!({ path: $wit, world: "circuitry" });
            }
            use bindings::Circuitry;
            use bindings::circuitry::breaker::{hooks, store};
            pub(crate) use bindings::circuitry::breaker::types;
            use bindings::exports::circuitry::breaker::exchange;

            impl types::Host for Host {}

            impl store::Host for Host {
                fn load(&mut self, _: String) -> Result<types::Loaded, types::StoreError> {
                    Err(types::StoreError::Other("nothing is loaded here".into()))
                }

                fn swap(
                    &mut self,
                    _: String,
                    _: Option<Vec<u8>>,
                    _: Vec<u8>,
                    _: Option<u64>,
                ) -> Result<types::Swapped, types::StoreError> {
                    Err(types::StoreError::Other("nothing is stored here".into()))
                }
            }

            impl hooks::Host for Host {
                fn will_trip(&mut self, _: hooks::TripQuery) -> bool {
                    false
                }
            }

            $settings

            /// An instance, the settings it decides by, and a record in steady use.
            pub(crate) struct Machine {
                store: Store<Host>,
                guest: Circuitry,
                settings: types::Settings,
                loaded: types::Loaded,
                era: u64,
            }

            impl Machine {
                pub(crate) fn new(wasm: &[u8], settings: types::Settings) -> Self {
                    let engine = Engine::default();
                    let component = Component::new(&engine, wasm).expect("the component loads");
                    let mut linker = Linker::new(&engine);
                    Circuitry::add_to_linker::<_, HasSelf<_>>(&mut linker, |host| host).expect("the imports fit");
                    let mut store = Store::new(&engine, Host);
                    let guest = Circuitry::instantiate(&mut store, &component, &linker).expect("an instance");
                    let loaded = types::Loaded { entry: None, now_ms: None };
                    let mut machine = Self { store, guest, settings, loaded, era: BEGIN_MS + 1 };
                    machine.keep(machine.start_request(1));
                    for sequence in 2..100 {
                        machine.keep(machine.end_request(sequence));
                    }
                    machine
                }

                pub(crate) fn record_bytes(&self) -> usize {
                    self.loaded.entry.as_ref().map_or(0, |entry| entry.value.len())
                }

                fn start_request(&self, sequence: u64) -> exchange::Request {
                    exchange::Request::Start(exchange::StartRequest {
                        circuit: "emails/acme".into(),
                        settings: self.settings.clone(),
                        caller: types::Caller { node: 0x5eed_5eed_5eed_5eed, sequence, retry_of: None },
                    })
                }

                fn end_request(&self, sequence: u64) -> exchange::Request {
                    let completion: fn(u64) -> types::Completion = $completion;
                    exchange::Request::End(exchange::EndRequest {
                        circuit: "emails/acme".into(),
                        settings: self.settings.clone(),
                        caller: types::Caller { node: 0x5eed_5eed_5eed_5eed, sequence, retry_of: None },
                        completions: vec![completion(self.era)],
                    })
                }

                fn decide(&mut self, request: &exchange::Request) -> exchange::Decision {
                    let exchange = self.guest.circuitry_breaker_exchange();
                    exchange
                        .call_decide(&mut self.store, request, &self.loaded, BEGIN_MS + 1)
                        .expect("the component does not trap")
                }

                fn keep(&mut self, request: exchange::Request) {
                    let exchange::Decision::Write(write) = self.decide(&request) else { panic!("it writes") };
                    let entry = types::Entry { value: write.value, version: vec![0; 16] };
                    self.loaded = types::Loaded { entry: Some(entry), now_ms: None };
                }

                /// The time that so many starts and so many ends take.
                pub(crate) fn time(&mut self, calls: u64) -> (Duration, Duration) {
                    let (start, end) = (self.start_request(1_000), self.end_request(1_000));
                    let begun = Instant::now();
                    for _ in 0..calls {
                        black_box(self.decide(&start));
                    }
                    let started = begun.elapsed();
                    for _ in 0..calls {
                        black_box(self.decide(&end));
                    }
                    (started, begun.elapsed() - started)
                }
            }
        }
    };
}

component!(
    before,
    "fixtures/before-policies/wit",
    settings: pub(crate) fn settings() -> types::Settings {
        types::Settings {
            failure_count_threshold: u64::MAX,
            close_threshold: 1,
            allow_after_ms: 60_000,
            cyclic_clear_after_ms: None,
            probe_timeout_ms: 30_000,
            idle_retention_ms: 86_400_000,
            trip_rule: types::TripRule::ConsecutiveFailures,
        }
    },
    completion: |era| types::Completion { era, probe: None, outcome: types::Outcome::Success, count: 1 }
);

component!(
    now,
    "../wit",
    settings: pub(crate) fn settings() -> types::Settings {
        types::Settings {
            failure_count_threshold: u64::MAX,
            close_threshold: 1,
            allow_after_ms: 60_000,
            cyclic_clear_after_ms: None,
            probe_timeout_ms: 30_000,
            idle_retention_ms: 86_400_000,
            policies: None,
            settings_revision: 0,
        }
    },
    completion: |era| types::Completion {
        era,
        probe: None,
        outcome: types::Outcome::Success,
        slow: false,
        count: 1,
        retry_after_ms: None,
    }
);

impl now::types::Policies {
    /// By default but for the rules.
    fn tripping_by(trip_rules: Vec<now::types::TripRule>) -> Self {
        Self {
            trip_rules,
            slow_call_after_ms: None,
            backoff: None,
            jitter_per_mille: 0,
            retry_after_max_ms: 600_000,
            probes: None,
            probes_at_once: None,
            half_open_limit: None,
            ramp: None,
            quorum: None,
        }
    }
}

/// Rounds in turns, so that a machine that slows down slows both.
fn compare(suite: &mut Suite) {
    let calls = if suite.is_trial() { 10 } else { CALLS_A_ROUND };
    let mut before = before::Machine::new(BEFORE, before::settings());
    let mut now = now::Machine::new(circuitry_component::WASM, now::settings());
    let names =
        [["policies/before start", "policies/before end"], ["policies/now start", "policies/now end"]];
    let mut times = names.map(|names| names.map(|name| Times::of_many(name, calls)));
    for _ in 0..suite.times(ROUNDS) {
        for (times, (start, end)) in times.iter_mut().zip([before.time(calls), now.time(calls)]) {
            let [starts, ends] = times;
            starts.add(start);
            ends.add(end);
        }
    }
    println!("records of {} and {} bytes", before.record_bytes(), now.record_bytes());
    let [[before_start, before_end], [now_start, now_end]] = times;
    for times in [&before_start, &now_start, &before_end, &now_end] {
        suite.record_times(times.name(), times);
    }
    suite.record("policies/start", now_start.ratio(&before_start), now_start.rounds() as u64);
    suite.record("policies/end", now_end.ratio(&before_end), now_end.rounds() as u64);
}

fn rules(criterion: &mut Criterion) {
    use now::types::{ConsecutiveRule, TripRule, Window, WindowedRule};
    let rate =
        |window| vec![TripRule::FailureRate(WindowedRule { threshold: 1_000, minimum_calls: 1_000, window })];
    let all = [
        ("consecutive failures", vec![TripRule::ConsecutiveFailures(ConsecutiveRule { minimum_calls: 0 })]),
        (
            "rate of the last 100 calls",
            vec![TripRule::FailureRate(WindowedRule {
                threshold: 1_000,
                minimum_calls: 100,
                window: Window::Calls(100),
            })],
        ),
        ("rate of the last 1,024 calls", rate(Window::Calls(1_024))),
        ("rate of the last minute", rate(Window::Time(60_000))),
        ("rate, decaying", rate(Window::Decaying(60_000))),
        (
            "any of four windows",
            [Window::Calls(1_024), Window::Calls(1_000), Window::Time(60_000), Window::Decaying(60_000)]
                .into_iter()
                .flat_map(rate)
                .collect(),
        ),
    ];
    let mut group = criterion.benchmark_group("end with a success, decided in wasmtime");
    for (name, trip_rules) in all {
        let mut machine = now::Machine::new(
            circuitry_component::WASM,
            now::types::Settings {
                policies: Some(now::types::Policies::tripping_by(trip_rules)),
                ..now::settings()
            },
        );
        group.bench_function(
            BenchmarkId::from_parameter(format!("{name}, record of {} bytes", machine.record_bytes())),
            |bencher| {
                bencher.iter_custom(|calls| machine.time(calls).1);
            },
        );
    }
    group.finish();
}

fn main() {
    let mut suite = Suite::begin("policies");
    let mut criterion = Criterion::default().configure_from_args();
    rules(&mut criterion);
    compare(&mut suite);
    suite.finish();
    criterion.final_summary();
}
