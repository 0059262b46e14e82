//! The golden vectors, on the core and on the built component, through `breaker` and through `exchange`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use circuitry_tests::component::ComponentMachine;
use circuitry_tests::contract::{
    Answer, Completion, Decision, EndRequest, InspectRequest, Loaded, Outcome, OverrideRequest, RenewRequest,
    Request, StartRequest, Token,
};
use circuitry_tests::machine::Machine;
use circuitry_tests::native::NativeMachine;
use circuitry_tests::vector::{Hostile, Records, Vector, Way, folder, json, matches, read, vectors};

const RECORDS: &str = "records.json";
/// Set to anything, it writes what is pinned instead of comparing with it.
const BLESS: &str = "CIRCUITRY_BLESS";

/// Runs every vector and says all that differ.
fn run_all(way: Way, new: fn() -> Box<dyn Machine>) {
    let pinned: Records = read(RECORDS);
    let mut problems = Vec::new();
    for (file, vector) in vectors() {
        match vector.run(&mut *new(), way) {
            Err(problem) => problems.push(format!("{file}, {:?}: {problem}", vector.name)),
            Ok(records) if pinned.get(&vector.name) != Some(&records) => {
                problems.push(format!("{file}, {:?}: the record's bytes differ: {records:?}", vector.name));
            }
            Ok(_) => {}
        }
    }
    assert!(problems.is_empty(), "{} vectors fail:\n{}", problems.len(), problems.join("\n"));
}

fn native() -> Box<dyn Machine> {
    Box::new(NativeMachine::default())
}

fn component() -> Box<dyn Machine> {
    Box::new(ComponentMachine::default())
}

#[test]
fn the_core_keeps_to_the_vectors_through_breaker() {
    run_all(Way::Breaker, native);
}

#[test]
fn the_core_keeps_to_the_vectors_through_exchange() {
    run_all(Way::Exchange, native);
}

#[test]
fn the_component_keeps_to_the_vectors_through_breaker() {
    run_all(Way::Breaker, component);
}

#[test]
fn the_component_keeps_to_the_vectors_through_exchange() {
    run_all(Way::Exchange, component);
}

/// Other hosts compare their records with these bytes, so a change of them is a change of the format.
#[test]
fn the_pinned_records_are_those_of_the_vectors() {
    let records: Records = vectors()
        .into_iter()
        .map(|(file, vector)| match vector.run(&mut NativeMachine::default(), Way::Breaker) {
            Ok(records) => (vector.name, records),
            Err(problem) => panic!("{file}, {:?}: {problem}", vector.name),
        })
        .collect();
    if std::env::var_os(BLESS).is_some() {
        let text = serde_json::to_string_pretty(&records).unwrap() + "\n";
        fs::write(folder().join(RECORDS), text).unwrap();
    }
    assert_eq!(read::<Records>(RECORDS), records, "if the change is meant, run the test with {BLESS}=1");
}

#[test]
fn every_vector_has_a_name_of_its_own_and_the_number_of_a_rule() {
    let mut names = BTreeMap::new();
    let mut rules = BTreeSet::new();
    for (file, vector) in vectors() {
        assert!(!vector.steps.is_empty(), "{:?} has no steps", vector.name);
        if let Some(other) = names.insert(vector.name.clone(), file.clone()) {
            panic!("{:?} is in {other} and in {file}", vector.name);
        }
        rules.insert(vector.rule.strip_prefix("5.").and_then(|rule| rule.parse::<u32>().ok()));
    }
    assert!(names.len() >= 45, "only {} vectors", names.len());
    // 5.12 is about the host's fallback; the core has no part in it but eras, which are 5.8.
    assert_eq!(rules, (1..=13).filter(|rule| *rule != 12).map(Some).collect());
}

/// A comparison that finds no difference would let every vector pass.
#[test]
fn a_wrong_expectation_fails() {
    let found = json(&serde_json::json!({"a": [1, {"b": "x"}], "c": "18446744073709551615", "d": null}));
    let same = [
        serde_json::json!({}),
        serde_json::json!({"a": [1, {}]}),
        serde_json::json!({"a": [1, {"b": "x"}], "c": 18_446_744_073_709_551_615_u64, "d": null}),
        serde_json::json!({"c": "…446…"}),
    ];
    let other = [
        serde_json::json!({"a": [1]}),
        serde_json::json!({"a": [1, {"b": "y"}]}),
        serde_json::json!({"a": [1, {"e": null}]}),
        serde_json::json!({"a": {"b": "x"}}),
        serde_json::json!({"c": 5}),
        serde_json::json!({"c": "…447…"}),
        serde_json::json!({"d": 0}),
        serde_json::json!({"e": null}),
    ];
    for expected in same {
        assert_eq!(matches(&expected, &found, "it"), Ok(()));
    }
    for expected in other {
        assert!(matches(&expected, &found, "it").is_err(), "{expected}");
    }
    let (_, vector) = &vectors()[0];
    for (step, at_ms) in vector.steps.iter().enumerate().map(|(step, old)| (step, old.at_ms)) {
        let mut wrong = vector.clone();
        wrong.steps[step].answer = Some(serde_json::json!({"at-ms": at_ms}));
        assert!(wrong.run(&mut NativeMachine::default(), Way::Breaker).is_err());
    }
}

/// One request of each kind.
fn requests(vector: &Vector) -> [Request; 5] {
    let (circuit, settings) = ("upstream".to_owned(), vector.settings.clone());
    let token = Token { node: 1, sequence: 1 };
    let caller = circuitry_tests::contract::Caller { node: 1, sequence: 2, retry_of: None };
    let completions = vec![Completion { era: 1, probe: None, outcome: Outcome::Failure, count: 1 }];
    [
        Request::Start(StartRequest { circuit: circuit.clone(), settings: settings.clone(), caller }),
        Request::End(EndRequest {
            circuit: circuit.clone(),
            settings: settings.clone(),
            caller,
            completions,
        }),
        Request::Renew(RenewRequest {
            circuit: circuit.clone(),
            settings: settings.clone(),
            caller,
            era: 1,
            probes: vec![token],
        }),
        Request::Inspect(InspectRequest { circuit: circuit.clone(), settings: settings.clone() }),
        Request::SetOverride(OverrideRequest { circuit, settings, caller, override_: None }),
    ]
}

#[test]
fn bytes_that_are_no_record_are_an_error_of_every_call_and_stay_as_they_are() {
    let (_, vector) = &vectors()[0];
    let hostile: Vec<Hostile> = read("hostile.json");
    assert!(hostile.len() >= 12);
    for new in [native, component] {
        for Hostile { name, bytes, error } in &hostile {
            let mut machine = new();
            machine.memory().put("upstream", hex::decode(bytes).unwrap());
            let before = machine.memory().entries.clone();
            for request in requests(vector) {
                let loaded: Loaded = machine.memory().loaded("upstream");
                let Decision::Done(Answer::Failed(found)) = machine.decide(&request, &loaded, 1_000_000)
                else {
                    panic!("{name}: {request:?} was decided")
                };
                matches(error, &json(&found), name).unwrap();
                let failure = machine.call(&request, None, 1_000_000).unwrap_err();
                assert_eq!((failure.error, failure.last_seen), (found, Some(loaded)), "{name}");
            }
            assert_eq!(machine.memory().entries, before, "{name}: something was written");
        }
    }
}
