//! The golden vectors, on the core and on the built component, through `breaker` and through `exchange`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use circuitry_tests::component::ComponentMachine;
use circuitry_tests::contract::{
    Answer, Caller, Completion, Decision, EndRequest, InspectRequest, Loaded, Outcome, OverrideRequest,
    RenewRequest, Request, ResetRequest, Settings, StartRequest, Token, VoteRequest,
};
use circuitry_tests::machine::Machine;
use circuitry_tests::native::NativeMachine;
use circuitry_tests::vector::{Hostile, Records, Vector, Way, folder, json, matches, read, vectors};
use serde_json::{Value, json};

const RECORDS: &str = "records.json";
/// Never written anew: records that are in stores go on being read.
const OLDEST_RECORDS: &str = "records-schema-1.json";
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
        let numbered =
            vector.rule.split_once('.').map(|(of, rule)| (of.to_owned(), rule.parse::<u32>().ok()));
        rules.insert(numbered.unwrap_or_else(|| panic!("{:?} has no rule's number", vector.name)));
    }
    assert!(names.len() >= 200, "only {} vectors", names.len());
    // 5.12 is about the host's fallback; the core has no part in it but eras, which are 5.8.
    let expected = (1..=13).filter(|rule| *rule != 12).map(|rule| ("5".to_owned(), Some(rule)));
    let policies = (1..=9).map(|rule| ("policies".to_owned(), Some(rule)));
    assert_eq!(rules, expected.chain(policies).collect());
}

/// A comparison that finds no difference would let every vector pass.
#[test]
fn a_wrong_expectation_fails() {
    let found = json(&json!({"a": [1, {"b": "x"}], "c": "18446744073709551615", "d": null}));
    let same = [
        json!({}),
        json!({"a": [1, {}]}),
        json!({"a": [1, {"b": "x"}], "c": 18_446_744_073_709_551_615_u64, "d": null}),
        json!({"c": "…446…"}),
    ];
    let other = [
        json!({"a": [1]}),
        json!({"a": [1, {"b": "y"}]}),
        json!({"a": [1, {"e": null}]}),
        json!({"a": {"b": "x"}}),
        json!({"c": 5}),
        json!({"c": "…447…"}),
        json!({"d": 0}),
        json!({"e": null}),
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
        wrong.steps[step].answer = Some(json!({"at-ms": at_ms}));
        assert!(wrong.run(&mut NativeMachine::default(), Way::Breaker).is_err());
    }
}

/// One request of each kind.
fn requests(vector: &Vector) -> [Request; 7] {
    let (circuit, settings) = ("upstream".to_owned(), vector.settings.clone());
    let token = Token { node: 1, sequence: 1 };
    let caller = Caller { node: 1, sequence: 2, retry_of: None };
    let completions = vec![Completion {
        era: 1,
        probe: None,
        outcome: Outcome::Failure,
        slow: true,
        count: 1,
        retry_after_ms: None,
    }];
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
        Request::SetOverride(OverrideRequest {
            circuit: circuit.clone(),
            settings: settings.clone(),
            caller,
            override_: None,
        }),
        Request::Vote(VoteRequest {
            circuit: circuit.clone(),
            settings: settings.clone(),
            caller,
            era: 1,
            node_id: "n1".into(),
        }),
        Request::Reset(ResetRequest { circuit, settings, caller }),
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

/// What `inspect` shows of a record of schema 1 at the time its state was entered, read from the bytes without the core.
fn shown_of_schema_1(bytes: &[u8]) -> Value {
    const STATES: [&str; 3] = ["closed", "open", "half-open"];
    const REASONS: [&str; 4] = ["tripped", "open-time-over", "probes-succeeded", "probe-failed"];
    const KINDS: [&str; 2] = ["forced-open", "forced-closed"];
    let name = |names: &[&str], number: &Value| names[number.as_u64().unwrap() as usize].to_owned();

    let body = bytes.strip_prefix(b"CKT\x01").expect("a record of schema 1");
    let fields: BTreeMap<u8, ciborium::Value> = ciborium::from_reader(body).unwrap();
    let field = |key: u8| fields[&key].deserialized::<Value>().unwrap();
    let list = |list: &Value, item: &dyn Fn(&Value) -> Value| -> Vec<Value> {
        list.as_array().unwrap().iter().map(item).collect()
    };
    // An option that is none at the end of a list is left out; an index beyond the end is null.
    let (status, counts) = (field(4), field(5));
    let state = name(&STATES, &status[0]);
    let (expires_at_ms, probes, successes) = match state.as_str() {
        "half-open" => (json!(null), status[1][0].clone(), status[1][1].clone()),
        _ => (status[1][0].clone(), json!([]), json!(0)),
    };
    let probe = |probe: &Value| json!({"id": {"node": probe[0][0], "sequence": probe[0][1]}, "deadline-ms": probe[1]});
    let transition = |made: &Value| {
        json!({
            "previous": name(&STATES, &made[0]), "next": name(&STATES, &made[1]), "reason": name(&REASONS, &made[2]),
            "at-ms": made[3], "era": made[4], "generation": made[5],
        })
    };
    let forced = fields.contains_key(&6).then(|| field(6)).map(
        |set| json!({"kind": name(&KINDS, &set[0]), "author": set[1], "reason": set[2], "until-ms": set[3]}),
    );
    json!({
        "state": state, "era": field(1), "generation": field(2), "since-ms": field(3), "revision": field(0),
        "counts": {
            "total": counts[0], "total-successes": counts[1], "total-failures": counts[2],
            "consecutive-successes": counts[3], "consecutive-failures": counts[4],
        },
        "expires-at-ms": expires_at_ms,
        "probes": list(&probes, &probe), "probe-successes": successes, "probe-failures": 0,
        "override": forced, "transitions": list(&field(7), &transition),
        "last-trip": null, "trips-in-a-row": 0, "ramp": null, "votes": [], "settings-differ": false,
    })
}

/// A newer fleet takes over the circuits of an older one where they are.
#[test]
fn the_oldest_record_bytes_still_load() {
    let settings: Settings = serde_json::from_value(json!({
        "failure-count-threshold": 2, "close-threshold": 1, "allow-after-ms": 60_000, "probe-timeout-ms": 10_000,
        "idle-retention-ms": 86_400_000,
    }))
    .unwrap();
    let records: Records = read(OLDEST_RECORDS);
    for new in [native, component] {
        let mut seen = BTreeMap::<String, u32>::new();
        for (name, bytes) in
            records.iter().flat_map(|(name, circuits)| circuits.values().map(move |bytes| (name, bytes)))
        {
            let bytes = hex::decode(bytes).unwrap();
            let expected = shown_of_schema_1(&bytes);
            let since_ms = expected["since-ms"].as_u64().unwrap();
            let mut machine = new();
            machine.memory().put("upstream", bytes.clone());

            let ask = InspectRequest { circuit: "upstream".into(), settings: settings.clone() };
            let (answer, _) = machine.call(&Request::Inspect(ask), None, since_ms).expect(name);
            let Answer::Inspected(information) = answer else { panic!("{name}: {answer:?}") };
            matches(&expected, &json(&information), name).unwrap();

            // Later than any open time or override of theirs.
            let caller = Caller { node: 1_000, sequence: 1, retry_of: None };
            let ask = StartRequest { circuit: "upstream".into(), settings: settings.clone(), caller };
            machine.call(&Request::Start(ask), None, since_ms.saturating_add(1_000_000)).expect(name);
            let stored = &machine.memory().entries["upstream"].value;
            let wrote = if *stored == bytes { "kept" } else { "wrote" };
            if wrote == "wrote" {
                assert_eq!(stored[..4], *b"CKT\x02", "{name}");
            }
            let forced = if expected["override"].is_null() { "" } else { ", forced" };
            let state = expected["state"].as_str().unwrap();
            *seen.entry(format!("{state}{forced}, {wrote}")).or_default() += 1;
        }
        for state in
            ["closed, kept", "closed, forced, kept", "open, wrote", "open, forced, wrote", "half-open, wrote"]
        {
            assert!(seen.contains_key(state), "no record that is {state}: {seen:?}");
        }
    }
}

/// Schema 1 kept 32 calls whatever their sizes; the file above has none with more than a few bytes.
#[test]
fn a_record_of_schema_1_that_remembers_the_largest_calls_still_loads() {
    const CALLS: u64 = 32;
    let call = |sequence: u64| {
        // The token, 32 bytes of bits, and these: all completions were stale but the first.
        let head = [1_u64.to_le_bytes().as_slice(), &sequence.to_le_bytes(), &[32, 0b1111_1110]].concat();
        [head, vec![0xff; 31]].concat()
    };
    let value = |value: Value| ciborium::Value::serialized(&value).unwrap();
    let calls = ciborium::Value::Bytes((1..=CALLS).flat_map(call).collect());
    let fields = BTreeMap::from([
        (0, value(json!(CALLS))),
        (1, value(json!(1_000_000))),
        (2, value(json!(0))),
        (3, value(json!(1_000_000))),
        (4, value(json!([0, []]))),
        (5, value(json!([CALLS, CALLS, 0, CALLS, 0]))),
        (7, value(json!([]))),
        (8, calls),
    ]);
    let mut bytes = b"CKT\x01".to_vec();
    ciborium::into_writer(&fields, &mut bytes).unwrap();
    let (_, Vector { settings, .. }) = vectors().swap_remove(0);
    let circuit = || "upstream".to_owned();
    for new in [native, component] {
        let mut machine = new();
        machine.memory().put("upstream", bytes.clone());
        let ask = InspectRequest { circuit: circuit(), settings: settings.clone() };
        let (answer, _) = machine.call(&Request::Inspect(ask), None, 1_000_001).unwrap();
        let Answer::Inspected(information) = answer else { panic!("{answer:?}") };
        assert_eq!((information.revision, information.counts.total), (CALLS, CALLS));

        // The last of them, again.
        let caller = Caller { node: 1, sequence: CALLS, retry_of: Some(CALLS - 1) };
        let one = Completion {
            era: 1_000_000,
            probe: None,
            outcome: Outcome::Success,
            slow: false,
            count: 1,
            retry_after_ms: None,
        };
        let ask = EndRequest {
            circuit: circuit(),
            settings: settings.clone(),
            caller,
            completions: vec![one; 256],
        };
        let (answer, _) = machine.call(&Request::End(ask), None, 1_000_002).unwrap();
        let Answer::Settled(settled) = answer else { panic!("{answer:?}") };
        assert!(settled.already_applied);
        assert_eq!(settled.dispositions.iter().map(|disposition| disposition.stale).sum::<u32>(), 255);
    }
}

/// One name of a breaker, and of which circuit it is by default.
#[derive(serde::Deserialize)]
struct Named {
    name: String,
    context: BTreeMap<String, String>,
    circuit: String,
}

#[test]
fn breakers_have_the_circuits_that_the_list_of_names_says() {
    let list: Vec<Named> = read("names/circuits.json");
    for named in &list {
        let context = named
            .context
            .iter()
            .fold(circuitry::Context::new(), |context, (key, value)| context.with(key, value));
        assert_eq!(circuitry::default_name(&named.name, &context), named.circuit);
    }
    assert!(!list.is_empty());
}
