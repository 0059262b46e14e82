//! The golden vectors of `tests/vectors`: what they look like, and how one is run on a machine.
//!
//! They are the contract that every host keeps to; `tests/vectors/README.md` is their description.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use crate::contract::{
    Answer, Caller, Completion, EndRequest, Failure, InspectRequest, Loaded, Override, OverrideRequest,
    RenewRequest, Request, ResetRequest, Settings, StartRequest, Token, VoteRequest, number, optional_number,
};
use crate::machine::{Machine, call_in_steps};
use crate::memory::Fault;

/// The name of the entry that is none, known from the beginning.
const NOTHING: &str = "nothing";

/// The files of [`folder`] that hold something else.
const NO_VECTORS: [&str; 3] = ["hostile.json", "records.json", "records-schema-1.json"];

/// A sequence of calls with what each is answered.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Vector {
    /// The rule as a sentence; no two vectors have the same.
    pub name: String,
    /// The rule's number in the design.
    pub rule: String,
    /// How the circuit behaves.
    pub settings: Settings,
    /// The calls, in order, all on one circuit.
    pub steps: Vec<Step>,
}

/// A call and what it is answered.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Step {
    /// What is asked.
    pub call: Call,
    /// The caller's time.
    #[serde(with = "number")]
    pub at_ms: u64,
    /// The circuit; `upstream` unless it is given.
    #[serde(default)]
    pub circuit: Option<String>,
    /// Settings of this call alone.
    #[serde(default)]
    pub settings: Option<Settings>,
    /// The entry that the caller saw, by its name; loaded unless it is given.
    #[serde(default)]
    pub seen: Option<String>,
    /// The store's own clock, where it tells it.
    #[serde(default, with = "optional_number")]
    pub store_at_ms: Option<u64>,
    /// Whether loads fail.
    #[serde(default)]
    pub down: bool,
    /// What happens to the swaps of this call, one after another.
    #[serde(default)]
    pub swaps_meet: Vec<Fault>,
    /// The answer, in full or in part.
    #[serde(default)]
    pub answer: Option<Value>,
    /// The failure, in full or in part.
    #[serde(default)]
    pub failure: Option<Value>,
    /// How many loads `breaker` makes for it.
    #[serde(default)]
    pub loads: Option<u32>,
    /// How many swaps it takes.
    #[serde(default)]
    pub swaps: Option<u32>,
    /// The time to live of what was written last; `null` is for ever.
    #[serde(default, deserialize_with = "given")]
    pub ttl_ms: Option<Value>,
    /// A name for what the store holds after the call.
    #[serde(default)]
    pub leaves: Option<String>,
}

/// What is asked.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Call {
    /// `breaker.check`.
    Check {},
    /// `breaker.start`.
    Start {
        /// Who calls.
        caller: Caller,
    },
    /// `breaker.end`.
    End {
        /// Who calls.
        caller: Caller,
        /// What is settled.
        completions: Vec<Completion>,
    },
    /// `breaker.renew`.
    Renew {
        /// Who calls.
        caller: Caller,
        /// The probes' era.
        #[serde(with = "number")]
        era: u64,
        /// The probes.
        probes: Vec<Token>,
    },
    /// `breaker.inspect`.
    Inspect {},
    /// `breaker.set-override`.
    SetOverride {
        /// Who calls.
        caller: Caller,
        /// What is forced, or nothing any more.
        r#override: Option<Override>,
    },
    /// `breaker.vote`.
    Vote {
        /// Who calls.
        caller: Caller,
        /// The era that the node's own circuit was of.
        #[serde(with = "number")]
        era: u64,
        /// The node.
        #[serde(rename = "node-id")]
        node_id: String,
    },
    /// `breaker.reset`.
    Reset {
        /// Who calls.
        caller: Caller,
    },
    /// No call: the store loses the entry.
    Lose {},
}

/// Null is something else than nothing.
fn given<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(deserializer).map(Some)
}

/// Bytes that a store may hold under a circuit's name, and what every call answers then.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Hostile {
    /// What they are.
    pub name: String,
    /// The bytes, in hexadecimal digits.
    pub bytes: String,
    /// The error of each call, in full or in part.
    pub error: Value,
}

/// How a vector is driven.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Through `breaker`.
    Breaker,
    /// Through `exchange.decide`, step by step.
    Exchange,
}

/// The folder of the vectors.
pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("vectors")
}

/// Reads a file of [`folder`].
///
/// # Panics
/// Where it cannot be read, with the place.
pub fn read<T: for<'de> Deserialize<'de>>(file: &str) -> T {
    let path = folder().join(file);
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Every vector, by file.
///
/// # Panics
/// Where one cannot be read.
pub fn vectors() -> Vec<(String, Vector)> {
    let mut files: Vec<String> = fs::read_dir(folder())
        .expect("tests/vectors is a folder")
        .map(|file| file.expect("a file").file_name().into_string().expect("a name"))
        .filter(|file| file.ends_with(".json") && !NO_VECTORS.contains(&file.as_str()))
        .collect();
    files.sort();
    let of = |file: String| read::<Vec<Vector>>(&file).into_iter().map(move |vector| (file.clone(), vector));
    files.into_iter().flat_map(of).collect()
}

/// What the store holds after each vector, by the vector's name and the circuit's.
pub type Records = BTreeMap<String, BTreeMap<String, String>>;

impl Vector {
    /// Runs the vector and gives what is stored after it, in hexadecimal digits, by circuit.
    ///
    /// # Errors
    /// The first step whose answer is another than expected, and how.
    pub fn run(&self, machine: &mut dyn Machine, way: Way) -> Result<BTreeMap<String, String>, String> {
        let mut names = HashMap::from([(NOTHING.to_owned(), Loaded { entry: None, now_ms: None })]);
        for (index, step) in self.steps.iter().enumerate() {
            self.step(step, machine, way, &mut names)
                .map_err(|problem| format!("step {} by {way:?}: {problem}", index + 1))?;
        }
        let entries = machine.memory().entries.iter();
        Ok(entries.map(|(circuit, entry)| (circuit.clone(), hex::encode(&entry.value))).collect())
    }

    fn step(
        &self,
        step: &Step,
        machine: &mut dyn Machine,
        way: Way,
        names: &mut HashMap<String, Loaded>,
    ) -> Result<(), String> {
        let circuit = step.circuit.as_deref().unwrap_or("upstream");
        let settings = step.settings.as_ref().unwrap_or(&self.settings);
        let memory = machine.memory();
        (memory.clock_ms, memory.down) = (step.store_at_ms, step.down);
        memory.faults = step.swaps_meet.iter().copied().collect();
        (memory.loads, memory.swaps) = (0, 0);

        let known = match &step.seen {
            None => None,
            Some(name) => Some(names.get(name).ok_or_else(|| format!("no entry is named {name}"))?),
        };
        let outcome = match request(circuit, settings, &step.call) {
            Some(request) => {
                let answered = match way {
                    Way::Breaker => machine.call(&request, known, step.at_ms),
                    Way::Exchange => call_in_steps(machine, &request, known, step.at_ms),
                };
                last_seen_is_stored(machine, circuit, step, &answered)?;
                answered.map(|(answer, _)| payload(&answer)).map_err(|failure| json(&failure))
            }
            None => match step.call {
                Call::Lose {} => {
                    machine.memory().entries.remove(circuit);
                    return Ok(());
                }
                _ => machine
                    .check(settings)
                    .map(|fingerprint| Value::String(fingerprint.to_string()))
                    .map_err(|error| json(&error)),
            },
        };
        match (&step.answer, &step.failure, &outcome) {
            (Some(expected), None, Ok(answer)) => matches(expected, answer, "answer")?,
            (None, Some(expected), Err(failure)) => matches(expected, failure, "failure")?,
            (None, None, _) => return Err("the step expects neither an answer nor a failure".into()),
            (_, _, other) => return Err(format!("unexpected: {other:?}")),
        }

        let memory = machine.memory();
        if let (Some(loads), Way::Breaker) = (step.loads, way) {
            same("loads", loads, memory.loads)?;
        }
        if let Some(swaps) = step.swaps {
            same("swaps", swaps, memory.swaps)?;
        }
        if let Some(ttl_ms) = &step.ttl_ms {
            matches(ttl_ms, &memory.ttl_ms.map_or(Value::Null, Value::from), "ttl-ms")?;
        }
        if let Some(name) = &step.leaves {
            // Its time is left out: a host keeps that apart.
            names.insert(name.clone(), Loaded { now_ms: None, ..memory.loaded(circuit) });
        }
        Ok(())
    }
}

/// The request, where the call is one.
fn request(circuit: &str, settings: &Settings, call: &Call) -> Option<Request> {
    let (circuit, settings) = (circuit.to_owned(), settings.clone());
    Some(match call {
        Call::Check {} | Call::Lose {} => return None,
        Call::Start { caller } => Request::Start(StartRequest { circuit, settings, caller: *caller }),
        Call::End { caller, completions } => {
            Request::End(EndRequest { circuit, settings, caller: *caller, completions: completions.clone() })
        }
        Call::Renew { caller, era, probes } => {
            let probes = probes.clone();
            Request::Renew(RenewRequest { circuit, settings, caller: *caller, era: *era, probes })
        }
        Call::Inspect {} => Request::Inspect(InspectRequest { circuit, settings }),
        Call::SetOverride { caller, r#override } => {
            let override_ = r#override.clone();
            Request::SetOverride(OverrideRequest { circuit, settings, caller: *caller, override_ })
        }
        Call::Vote { caller, era, node_id } => {
            let node_id = node_id.clone();
            Request::Vote(VoteRequest { circuit, settings, caller: *caller, era: *era, node_id })
        }
        Call::Reset { caller } => Request::Reset(ResetRequest { circuit, settings, caller: *caller }),
    })
}

/// Every answer comes with the entry last seen: what is stored now, unless the call worked on one it was given.
fn last_seen_is_stored(
    machine: &mut dyn Machine,
    circuit: &str,
    step: &Step,
    answered: &Result<(Answer, Loaded), Failure>,
) -> Result<(), String> {
    let memory = machine.memory();
    let Ok((_, seen)) = answered else { return Ok(()) };
    if (step.seen.is_none() || memory.swaps > 0) && *seen != memory.loaded(circuit) {
        return Err(format!("the entry last seen is {seen:?}, stored is {:?}", memory.loaded(circuit)));
    }
    Ok(())
}

fn payload(answer: &Answer) -> Value {
    match answer {
        Answer::Started(started) => json(started),
        Answer::Settled(settled) => json(settled),
        Answer::Renewed(renewed) => json(renewed),
        Answer::Inspected(information) => json(information),
        Answer::Overridden(overridden) => json(overridden),
        Answer::Voted(voted) => json(voted),
        Answer::Cleared(cleared) => json(cleared),
        Answer::Failed(error) => json(error),
    }
}

/// A value as the vectors write it.
///
/// # Panics
/// Never: the types of the contract are all JSON.
pub fn json(value: &impl Serialize) -> Value {
    serde_json::to_value(value).expect("the types of the contract are JSON")
}

fn same(what: &str, expected: u32, found: u32) -> Result<(), String> {
    if expected == found { Ok(()) } else { Err(format!("{what}: expected {expected}, found {found}")) }
}

/// Compares as far as `expected` goes: an object may leave fields out, a list may not.
///
/// # Errors
/// The first difference, with its place.
pub fn matches(expected: &Value, found: &Value, place: &str) -> Result<(), String> {
    let equal = match (expected, found) {
        (Value::Object(fields), Value::Object(values)) => {
            for (name, field) in fields {
                let place = format!("{place}.{name}");
                matches(field, values.get(name).ok_or_else(|| format!("{place} is not there"))?, &place)?;
            }
            true
        }
        (Value::Array(items), Value::Array(values)) if items.len() == values.len() => {
            for (index, (item, value)) in items.iter().zip(values).enumerate() {
                matches(item, value, &format!("{place}[{index}]"))?;
            }
            true
        }
        (Value::Number(number), Value::String(text)) | (Value::String(text), Value::Number(number)) => {
            *text == number.to_string()
        }
        // A text for people: what matters is what it names.
        (Value::String(text), Value::String(value)) if text.starts_with("…") => {
            value.contains(text.trim_matches('…'))
        }
        (expected, found) => expected == found,
    };
    if equal { Ok(()) } else { Err(format!("{place}: expected {expected}, found {found}")) }
}
