//! What the boundary of the component costs: typed calls from Rust into wasmtime and back, with nothing of the host around
//! them, on an engine that interrupts guests as the host's does.

use std::hint::black_box;
use std::time::{Duration, Instant};

use circuitry_benches::{Suite, Times};
use criterion::Criterion;
use wasmtime::component::{Component, HasSelf, Linker, TypedFunc};
use wasmtime::{Config, Engine, Store};

mod bindings {
    #![allow(missing_docs, unreachable_pub, clippy::all, reason = "generated code")]
    wasmtime::component::bindgen!({ path: "../wit", world: "circuitry" });
}
use bindings::Circuitry;
use bindings::circuitry::breaker::{hooks, store, types};
use bindings::exports::circuitry::breaker::exchange;

const BEGIN_MS: u64 = 1_800_000_000_000;
const ROUNDS: u64 = 400;
const CALLS_A_ROUND: u64 = 1_000;
/// The least that a component can do: the floor of every call.
const ADDS: &str = r#"
(component
  (core module $adds
    (func (export "add") (param i64 i64) (result i64) (i64.add (local.get 0) (local.get 1))))
  (core instance $instance (instantiate $adds))
  (func (export "add") (param "a" u64) (param "b" u64) (result u64) (canon lift (core func $instance "add"))))
"#;

/// A host without a store: what is called here asks for none.
struct Host;

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

fn engine() -> Engine {
    let mut config = Config::new();
    config.epoch_interruption(true);
    Engine::new(&config).expect("an engine")
}

fn store_on(engine: &Engine) -> Store<Host> {
    let mut store = Store::new(engine, Host);
    store.set_epoch_deadline(u64::MAX / 2);
    store
}

/// The component that adds.
struct Adder {
    store: Store<Host>,
    add: TypedFunc<(u64, u64), (u64,)>,
}

impl Adder {
    fn new(engine: &Engine) -> Self {
        let component = Component::new(engine, wat::parse_str(ADDS).expect("a component")).expect("it loads");
        let mut store = store_on(engine);
        let instance = Linker::new(engine).instantiate(&mut store, &component).expect("an instance");
        let add = instance.get_typed_func(&mut store, "add").expect("a function");
        Self { store, add }
    }

    fn call(&mut self) -> u64 {
        let (sum,) = self.add.call(&mut self.store, (black_box(1), black_box(2))).expect("a sum");
        sum
    }
}

/// The component of the product.
struct Machine {
    store: Store<Host>,
    guest: Circuitry,
}

impl Machine {
    fn new(engine: &Engine) -> Self {
        let component = Component::new(engine, circuitry_component::WASM).expect("the component loads");
        let mut linker = Linker::new(engine);
        Circuitry::add_to_linker::<_, HasSelf<_>>(&mut linker, |host| host).expect("the imports fit");
        let mut store = store_on(engine);
        let guest = Circuitry::instantiate(&mut store, &component, &linker).expect("an instance");
        Self { store, guest }
    }

    fn check(&mut self, settings: &types::Settings) -> u64 {
        let checked = self.guest.circuitry_breaker_breaker().call_check(&mut self.store, settings);
        checked.expect("it does not trap").expect("settings")
    }

    fn decide(&mut self, request: &exchange::Request, loaded: &types::Loaded) -> exchange::Decision {
        let exchange = self.guest.circuitry_breaker_exchange();
        exchange.call_decide(&mut self.store, request, loaded, BEGIN_MS + 1).expect("it does not trap")
    }

    /// A record in steady use: as many tokens in it as it keeps.
    fn steady(&mut self) -> types::Loaded {
        let mut loaded = types::Loaded { entry: None, now_ms: None };
        let ends = (2..100).map(end);
        for request in std::iter::once(start("emails/acme".into(), 1)).chain(ends) {
            let exchange::Decision::Write(write) = self.decide(&request, &loaded) else {
                panic!("it writes")
            };
            let entry = types::Entry { value: write.value, version: vec![0; 16] };
            loaded = types::Loaded { entry: Some(entry), now_ms: None };
        }
        loaded
    }
}

fn settings() -> types::Settings {
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
}

fn every_policy() -> types::Settings {
    let window = types::Window::Calls(100);
    let windowed = types::WindowedRule { threshold: 500, minimum_calls: 10, window };
    let policies = types::Policies {
        trip_rules: vec![
            types::TripRule::ConsecutiveFailures(types::ConsecutiveRule { minimum_calls: 0 }),
            types::TripRule::FailureRate(windowed),
            types::TripRule::SlowCallRate(windowed),
        ],
        slow_call_after_ms: Some(1_000),
        backoff: Some(types::Backoff { factor_per_mille: 2_000, max_ms: 600_000, healthy_after_ms: 60_000 }),
        jitter_per_mille: 100,
        retry_after_max_ms: 600_000,
        probes: Some(1),
        probes_at_once: Some(1),
        half_open_limit: Some(types::HalfOpenLimit { after_ms: 60_000, then: types::Overdue::Opens }),
        ramp: Some(types::Ramp { steps_per_mille: vec![100, 500], step_ms: 1_000 }),
        quorum: None,
    };
    types::Settings { policies: Some(policies), ..settings() }
}

fn caller(sequence: u64) -> types::Caller {
    types::Caller { node: 0x5eed_5eed_5eed_5eed, sequence, retry_of: None }
}

fn start(circuit: String, sequence: u64) -> exchange::Request {
    exchange::Request::Start(exchange::StartRequest {
        circuit,
        settings: settings(),
        caller: caller(sequence),
    })
}

fn end(sequence: u64) -> exchange::Request {
    let completion = types::Completion {
        era: BEGIN_MS + 1,
        probe: None,
        outcome: types::Outcome::Success,
        slow: false,
        count: 1,
        retry_after_ms: None,
    };
    exchange::Request::End(exchange::EndRequest {
        circuit: "emails/acme".into(),
        settings: settings(),
        caller: caller(sequence),
        completions: vec![completion],
    })
}

/// What is measured, and what it needs.
struct Calls {
    adder: Adder,
    machine: Machine,
    settings: [types::Settings; 2],
    nothing: types::Loaded,
    steady: types::Loaded,
    start: exchange::Request,
    end: exchange::Request,
    /// The start with a name that is 1,000 bytes longer.
    long_start: exchange::Request,
}

/// What each is called in the catalogue; the last is not there, it is measured for its difference.
const NAMES: [&str; 7] = [
    "boundary/call",
    "boundary/check",
    "boundary/check, policies",
    "boundary/rust start and end",
    "boundary/decide, steady",
    "boundary/decide, no record",
    "the same, name longer by 1,000 bytes",
];

impl Calls {
    fn new() -> Self {
        let engine = engine();
        let mut machine = Machine::new(&engine);
        Self {
            adder: Adder::new(&engine),
            steady: machine.steady(),
            machine,
            settings: [settings(), every_policy()],
            nothing: types::Loaded { entry: None, now_ms: None },
            start: start("emails/acme".into(), 1_000),
            end: end(1_000),
            long_start: start(format!("emails/{}", "a".repeat(1_004)), 1_000),
        }
    }

    fn call(&mut self, index: usize) {
        match index {
            0 => drop(black_box(self.adder.call())),
            1 => drop(black_box(self.machine.check(&self.settings[0]))),
            2 => drop(black_box(self.machine.check(&self.settings[1]))),
            3 => {
                drop(black_box(self.machine.decide(&self.start, &self.steady)));
                drop(black_box(self.machine.decide(&self.end, &self.steady)));
            }
            4 => drop(black_box(self.machine.decide(&self.start, &self.steady))),
            5 => drop(black_box(self.machine.decide(&self.start, &self.nothing))),
            _ => drop(black_box(self.machine.decide(&self.long_start, &self.nothing))),
        }
    }

    fn time(&mut self, index: usize, calls: u64) -> Duration {
        let begun = Instant::now();
        for _ in 0..calls {
            self.call(index);
        }
        begun.elapsed()
    }
}

fn main() {
    let mut suite = Suite::begin("boundary");
    let mut criterion = Criterion::default().configure_from_args();
    let mut calls = Calls::new();
    let mut group = criterion.benchmark_group("the boundary of the component");
    for (index, name) in NAMES.into_iter().enumerate() {
        let name = name.trim_start_matches("boundary/");
        group.bench_function(name, |bencher| bencher.iter_custom(|many| calls.time(index, many)));
    }
    group.finish();

    let many = if suite.is_trial() { 10 } else { CALLS_A_ROUND };
    let mut times = NAMES.map(|name| Times::of_many(name, many));
    for _ in 0..suite.times(ROUNDS) {
        for (index, times) in times.iter_mut().enumerate() {
            times.add(calls.time(index, many));
        }
    }
    let [measured @ .., steady, short, long] = &times;
    for times in measured.iter().chain([steady, short]) {
        suite.record_times(times.name(), times);
    }
    // Beside the other hosts.
    suite.record_times("boundary/rust start", steady);
    suite.record("boundary/kilobyte", long.median_ns() - short.median_ns(), long.rounds() as u64);
    suite.finish();
    criterion.final_summary();
}
