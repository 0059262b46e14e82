//! `circuitry.wasm` composed with the component of a trip rule: one component that needs a store and nothing else.
//!
//! Once with the default rule that is shipped, once with a rule that somebody wrote in another language.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use circuitry_tests::component::ComponentMachine;
use circuitry_tests::contract::{
    Answer, Caller, Completion, Counts, CustomRule, Decision, EndRequest, Failure, Loaded, Outcome,
    RefusalReason, Request, Settings, Settled, StartRequest, Started, State, StoreError, Swapped, Transition,
    TransitionReason, TripQuery, Verdict,
};
use circuitry_tests::machine::Machine;
use circuitry_tests::memory::Memory;
use serde_json::json;
use wac_graph::types::{ItemKind, Package, Types};
use wac_graph::{CompositionGraph, EncodeOptions};
use wasmtime::component::{Component, ComponentNamedList, Instance, Lift, Linker, Lower};
use wasmtime::{Engine, Store, StoreContextMut};

const BREAKER: &str = "circuitry:breaker/breaker@0.1.0";
const EXCHANGE: &str = "circuitry:breaker/exchange@0.1.0";
const STORE: &str = "circuitry:breaker/store@0.1.0";
const HOOKS: &str = "circuitry:breaker/hooks@0.1.0";

const CIRCUIT: &str = "payments";
const NOW_MS: u64 = 1_800_000_000_000;

#[test]
fn a_composed_component_asks_its_host_for_the_store_only() {
    let load_and_swap = [format!("{STORE}#load"), format!("{STORE}#swap")];
    for rule in [Rule::Default, Rule::HalfOfFour] {
        assert_eq!(imported_functions(&rule.composed()), load_and_swap.clone().into(), "{rule:?}");
    }
    // Alone it asks for a rule too.
    let mut all = BTreeSet::from(load_and_swap);
    all.insert(format!("{HOOKS}#will-trip"));
    assert_eq!(imported_functions(circuitry_component::WASM), all);
}

#[test]
fn the_component_of_a_rule_asks_its_host_for_nothing() {
    for rule in [Rule::Default, Rule::HalfOfFour] {
        assert_eq!(imported_functions(&rule.component()), BTreeSet::new(), "{rule:?}");
    }
}

#[test]
fn a_composed_component_decides_a_custom_rule_by_itself() {
    let mut circuit = Running::composed_with(Rule::Default);
    assert_eq!(circuit.work(Outcome::Failure), []);
    assert_eq!(circuit.work(Outcome::Failure), []);
    let [transition] = circuit.work(Outcome::Failure)[..] else { panic!("the third failure does not trip") };
    assert_eq!(
        (transition.previous, transition.next, transition.reason),
        (State::Closed, State::Open, TransitionReason::Tripped)
    );
    let Verdict::Refusal(refusal) = circuit.start() else { panic!("an open circuit admits") };
    assert_eq!(refusal.reason, RefusalReason::Open);
}

#[test]
fn the_default_rule_trips_over_the_threshold_and_not_at_it() {
    let mut rule = Running::new(&loaded(&Rule::Default.component()));
    let mut trips = |consecutive_failures, failure_count_threshold| {
        let counts = Counts {
            total: u64::MAX,
            total_successes: 0,
            total_failures: u64::MAX,
            consecutive_successes: 0,
            consecutive_failures,
        };
        let query = TripQuery {
            circuit: CIRCUIT.into(),
            rule: CustomRule { name: "of-any-name".into(), version: 1 },
            failure_count_threshold,
            generation: 1,
            counts,
        };
        let (trips,): (bool,) = rule.call(HOOKS, "will-trip", (query,));
        trips
    };
    assert!(!trips(15, 15));
    assert!(trips(16, 15));
    assert!(trips(1, 0));
    assert!(!trips(u64::MAX, u64::MAX));
}

#[test]
fn a_rule_in_any_language_decides_where_it_is_composed() {
    // What the calls came to, and the call that trips by each of the two rules.
    for (outcomes, by_default, by_half_of_four) in [
        ("fff", Some(3), None),
        ("sfff", Some(4), Some(4)),
        ("sfsfsf", None, Some(4)),
        ("sssffsf", None, None),
        ("sssffsff", None, Some(8)),
    ] {
        assert_eq!(tripping_call(Rule::Default, outcomes), by_default, "{outcomes} by the default rule");
        assert_eq!(tripping_call(Rule::HalfOfFour, outcomes), by_half_of_four, "{outcomes} by half of four");
    }
}

#[test]
fn a_composed_rule_is_asked_where_the_host_drives_the_steps() {
    for (rule, trips) in [(Rule::Default, true), (Rule::HalfOfFour, false)] {
        let mut circuit = Running::composed_with(rule);
        let Verdict::Permit(permit) = circuit.start() else { panic!("a new circuit refuses") };
        let three_failures = end_request(2, permit.era, Outcome::Failure, 3);
        let loaded = circuit.store.data().loaded(CIRCUIT);
        let (decision,): (Decision,) = circuit.call(EXCHANGE, "decide", (three_failures, loaded, NOW_MS));
        let Decision::Write(write) = decision else { panic!("nothing is counted: {decision:?}") };
        let Answer::Settled(settled) = write.answer_if_stored else { panic!("this is no answer to an end") };
        assert_eq!(settled.transitions.len(), usize::from(trips), "{:?}", settled.transitions);
    }
}

#[test]
fn a_composed_rule_leaves_the_record_that_the_same_rule_of_a_host_leaves() {
    let mut composed = Running::composed_with(Rule::HalfOfFour);
    let mut hosted = ComponentMachine::default();
    let mut verdicts = Vec::new();
    for outcome in outcomes("sffsfs") {
        let request = start_request(composed.next_sequence());
        let answer = composed.ask(&request);
        assert_eq!(hosted.call(&request, None, NOW_MS).expect("an answer").0, answer);
        let Answer::Started(started) = answer else { panic!("this is no answer to a start") };
        verdicts.push(matches!(started.verdict, Verdict::Permit(_)));
        if let Verdict::Permit(permit) = started.verdict {
            let request = end_request(composed.next_sequence(), permit.era, outcome, 1);
            let answer = composed.ask(&request);
            assert_eq!(hosted.call(&request, None, NOW_MS).expect("an answer").0, answer);
        }
        assert_eq!(composed.store.data().entries, hosted.memory().entries);
    }
    // The fifth call trips, being a failure where half of the calls failed already.
    assert_eq!(verdicts, [true, true, true, true, true, false]);
}

/// The components that have a rule.
#[derive(Clone, Copy, Debug)]
enum Rule {
    /// The one that is shipped.
    Default,
    /// One of somebody who writes components by hand.
    HalfOfFour,
}

impl Rule {
    fn component(self) -> Vec<u8> {
        match self {
            Self::Default => circuitry_component::HOOKS_WASM.to_vec(),
            Self::HalfOfFour => {
                wat::parse_str(include_str!("composition/half_of_four.wat")).expect("a component")
            }
        }
    }

    /// `circuitry.wasm` and the component of the rule as one.
    fn composed(self) -> Vec<u8> {
        let mut graph = CompositionGraph::new();
        let mut register = |name, component: &[u8]| {
            let package = Package::from_bytes(name, None, component, graph.types_mut()).expect("a component");
            graph.register_package(package).expect("a name of its own")
        };
        let circuitry = register("circuitry", circuitry_component::WASM);
        let rule = register("rule", &self.component());
        wac_graph::plug(&mut graph, vec![rule], circuitry).expect("the rule has the types of wit/");
        graph.encode(EncodeOptions::default()).expect("one component")
    }

    /// The same in wasmtime. It takes seconds, so once for the test process.
    fn loaded(self) -> &'static Component {
        static DEFAULT: LazyLock<Component> = LazyLock::new(|| loaded(&Rule::Default.composed()));
        static HALF_OF_FOUR: LazyLock<Component> = LazyLock::new(|| loaded(&Rule::HalfOfFour.composed()));
        match self {
            Self::Default => &DEFAULT,
            Self::HalfOfFour => &HALF_OF_FOUR,
        }
    }
}

fn loaded(component: &[u8]) -> Component {
    static ENGINE: LazyLock<Engine> = LazyLock::new(Engine::default);
    Component::new(&ENGINE, component).expect("a component")
}

/// What a component imports that is not a type, by interface.
fn imported_functions(component: &[u8]) -> BTreeSet<String> {
    let mut types = Types::default();
    let package = Package::from_bytes("any", None, component, &mut types).expect("a component");
    let mut functions = BTreeSet::new();
    for (name, import) in &types[package.ty()].imports {
        match import {
            ItemKind::Type(_) => {}
            ItemKind::Instance(interface) => {
                for (item, kind) in &types[*interface].exports {
                    if !matches!(kind, ItemKind::Type(_)) {
                        functions.insert(format!("{name}#{item}"));
                    }
                }
            }
            _ => {
                functions.insert(name.clone());
            }
        }
    }
    functions
}

/// The number of the call that trips the circuit, from 1 on.
fn tripping_call(rule: Rule, calls: &str) -> Option<usize> {
    let mut circuit = Running::composed_with(rule);
    let tripping = outcomes(calls).position(|outcome| !circuit.work(outcome).is_empty());
    tripping.map(|index| index + 1)
}

/// `s` is a success, `f` a failure.
fn outcomes(calls: &str) -> impl Iterator<Item = Outcome> {
    calls.chars().map(|call| if call == 's' { Outcome::Success } else { Outcome::Failure })
}

/// A custom rule alone. The name is the one by which the component's host of the tests knows half of four.
fn settings() -> Settings {
    serde_json::from_value(json!({
        "failure-count-threshold": 2,
        "close-threshold": 1,
        "allow-after-ms": 60_000,
        "probe-timeout-ms": 30_000,
        "idle-retention-ms": 86_400_000,
        "policies": { "trip-rules": [{ "custom": { "name": "half-of-four", "version": 1 } }] },
    }))
    .expect("settings")
}

fn caller(sequence: u64) -> Caller {
    Caller { node: 1, sequence, retry_of: None }
}

fn start_request(sequence: u64) -> Request {
    Request::Start(StartRequest { circuit: CIRCUIT.into(), settings: settings(), caller: caller(sequence) })
}

fn end_request(sequence: u64, era: u64, outcome: Outcome, count: u32) -> Request {
    let completion = Completion { era, probe: None, outcome, slow: false, count, retry_after_ms: None };
    Request::End(EndRequest {
        circuit: CIRCUIT.into(),
        settings: settings(),
        caller: caller(sequence),
        completions: vec![completion],
    })
}

/// A component in wasmtime, with a store in memory and nothing else.
struct Running {
    store: Store<Memory>,
    instance: Instance,
    sequence: u64,
}

impl Running {
    fn new(component: &Component) -> Self {
        let mut store = Store::new(component.engine(), Memory::default());
        let instance = store_only(component.engine()).instantiate(&mut store, component);
        Self { store, instance: instance.expect("it needs a store and nothing else"), sequence: 0 }
    }

    fn composed_with(rule: Rule) -> Self {
        Self::new(rule.loaded())
    }

    fn call<P, R>(&mut self, interface: &str, name: &str, parameters: P) -> R
    where
        P: ComponentNamedList + Lower,
        R: ComponentNamedList + Lift + 'static,
    {
        let interface = self.instance.get_export_index(&mut self.store, None, interface);
        let function = self.instance.get_export_index(&mut self.store, interface.as_ref(), name);
        let function = function.unwrap_or_else(|| panic!("{name} is not exported"));
        let function = self.instance.get_typed_func::<P, R>(&mut self.store, function);
        let function = function.unwrap_or_else(|error| panic!("{name} has other types than wit/: {error:?}"));
        function.call(&mut self.store, parameters).unwrap_or_else(|trap| panic!("{name} trapped: {trap:?}"))
    }

    fn next_sequence(&mut self) -> u64 {
        self.sequence += 1;
        self.sequence
    }

    /// The answer of `breaker` to a start or an end.
    fn ask(&mut self, request: &Request) -> Answer {
        let known = None::<Loaded>;
        match request {
            Request::Start(ask) => {
                let parameters = (&*ask.circuit, &ask.settings, ask.caller, known, NOW_MS);
                let (answer,): (Result<(Started, Loaded), Failure>,) =
                    self.call(BREAKER, "start", parameters);
                Answer::Started(answer.expect("an answer").0)
            }
            Request::End(ask) => {
                let parameters = (&*ask.circuit, &ask.settings, ask.caller, known, &*ask.completions, NOW_MS);
                let (answer,): (Result<(Settled, Loaded), Failure>,) = self.call(BREAKER, "end", parameters);
                Answer::Settled(answer.expect("an answer").0)
            }
            other => panic!("this is neither a start nor an end: {other:?}"),
        }
    }

    fn start(&mut self) -> Verdict {
        let request = start_request(self.next_sequence());
        let Answer::Started(started) = self.ask(&request) else { panic!("this is no answer to a start") };
        started.verdict
    }

    /// One call that comes to `outcome`, and what it changed.
    fn work(&mut self, outcome: Outcome) -> Vec<Transition> {
        let Verdict::Permit(permit) = self.start() else { panic!("the circuit refuses") };
        let request = end_request(self.next_sequence(), permit.era, outcome, 1);
        let Answer::Settled(settled) = self.ask(&request) else { panic!("this is no answer to an end") };
        settled.transitions
    }
}

/// What a host supplies that has a store and no hooks.
fn store_only(engine: &Engine) -> Linker<Memory> {
    type Swap = (String, Option<Vec<u8>>, Vec<u8>, Option<u64>);
    let mut linker = Linker::new(engine);
    let mut store = linker.instance(STORE).expect("an interface");
    let load =
        |mut host: StoreContextMut<'_, Memory>, (circuit,): (String,)| Ok((host.data_mut().load(&circuit),));
    store.func_wrap("load", load).expect("a function");
    let swap = |mut host: StoreContextMut<'_, Memory>, (circuit, expected, value, ttl_ms): Swap| {
        let swapped: Result<Swapped, StoreError> =
            host.data_mut().swap(&circuit, expected.as_deref(), &value, ttl_ms);
        Ok((swapped,))
    };
    store.func_wrap("swap", swap).expect("a function");
    linker
}
