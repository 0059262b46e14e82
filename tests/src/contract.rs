//! The types of `wit/`, once: for the component's functions and for the JSON of the vectors.
//!
//! Names in JSON are those of WIT. A number above 2^53 is a text, because not every language reads it as a number.

use serde::{Deserialize, Serialize};
use wasmtime::component::{ComponentType, Lift, Lower};

// ---- the store's values ----

#[derive(Clone, Debug, PartialEq, ComponentType, Lift, Lower)]
#[component(record)]
pub struct Entry {
    pub value: Vec<u8>,
    pub version: Vec<u8>,
}

#[derive(Clone, Debug, PartialEq, ComponentType, Lift, Lower)]
#[component(record)]
pub struct Loaded {
    pub entry: Option<Entry>,
    #[component(name = "now-ms")]
    pub now_ms: Option<u64>,
}

#[derive(Clone, Debug, PartialEq, ComponentType, Lift, Lower)]
#[component(record)]
pub struct Receipt {
    pub version: Vec<u8>,
    #[component(name = "now-ms")]
    pub now_ms: Option<u64>,
}

#[derive(Clone, Debug, PartialEq, ComponentType, Lift, Lower)]
#[component(variant)]
pub enum Swapped {
    #[component(name = "stored")]
    Stored(Receipt),
    #[component(name = "conflict")]
    Conflict(Loaded),
}

#[derive(Clone, Debug, PartialEq, ComponentType, Lift, Lower, Serialize)]
#[component(variant)]
#[serde(rename_all = "kebab-case")]
pub enum StoreError {
    #[component(name = "unavailable")]
    Unavailable(String),
    #[component(name = "unknown")]
    Unknown(String),
    #[component(name = "denied")]
    Denied(String),
    #[component(name = "other")]
    Other(String),
}

// ---- settings ----

#[derive(Clone, Debug, PartialEq, ComponentType, Lift, Lower, Deserialize)]
#[component(record)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct CustomRule {
    pub name: String,
    pub version: u32,
}

#[derive(Clone, Debug, PartialEq, ComponentType, Lift, Lower, Deserialize)]
#[component(variant)]
#[serde(rename_all = "kebab-case")]
pub enum TripRule {
    #[component(name = "consecutive-failures")]
    ConsecutiveFailures,
    #[component(name = "custom")]
    Custom(CustomRule),
}

#[derive(Clone, Debug, PartialEq, ComponentType, Lift, Lower, Deserialize)]
#[component(record)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Settings {
    #[component(name = "failure-count-threshold")]
    #[serde(with = "number")]
    pub failure_count_threshold: u64,
    #[component(name = "close-threshold")]
    pub close_threshold: u32,
    #[component(name = "allow-after-ms")]
    #[serde(with = "number")]
    pub allow_after_ms: u64,
    #[component(name = "cyclic-clear-after-ms")]
    #[serde(with = "optional_number", default)]
    pub cyclic_clear_after_ms: Option<u64>,
    #[component(name = "probe-timeout-ms")]
    #[serde(with = "number")]
    pub probe_timeout_ms: u64,
    #[component(name = "idle-retention-ms")]
    #[serde(with = "number")]
    pub idle_retention_ms: u64,
    #[component(name = "trip-rule")]
    pub trip_rule: TripRule,
}

#[derive(Clone, Debug, PartialEq, ComponentType, Lift, Lower, Serialize)]
#[component(record)]
#[serde(rename_all = "kebab-case")]
pub struct SettingsError {
    pub field: String,
    pub problem: String,
}

// ---- who calls ----

#[derive(Clone, Copy, Debug, PartialEq, ComponentType, Lift, Lower, Deserialize, Serialize)]
#[component(record)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Token {
    #[serde(with = "number")]
    pub node: u64,
    #[serde(with = "number")]
    pub sequence: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, ComponentType, Lift, Lower, Deserialize)]
#[component(record)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Caller {
    #[serde(with = "number")]
    pub node: u64,
    #[serde(with = "number")]
    pub sequence: u64,
    #[component(name = "retry-of")]
    #[serde(with = "optional_number", default)]
    pub retry_of: Option<u64>,
}

// ---- the circuit ----

#[derive(Clone, Copy, Debug, PartialEq, Eq, ComponentType, Lift, Lower, Serialize)]
#[component(enum)]
#[repr(u8)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    #[component(name = "closed")]
    Closed,
    #[component(name = "open")]
    Open,
    #[component(name = "half-open")]
    HalfOpen,
}

#[derive(Clone, Copy, Debug, PartialEq, ComponentType, Lift, Lower, Serialize)]
#[component(record)]
#[serde(rename_all = "kebab-case")]
pub struct Counts {
    #[serde(with = "number")]
    pub total: u64,
    #[component(name = "total-successes")]
    #[serde(with = "number")]
    pub total_successes: u64,
    #[component(name = "total-failures")]
    #[serde(with = "number")]
    pub total_failures: u64,
    #[component(name = "consecutive-successes")]
    #[serde(with = "number")]
    pub consecutive_successes: u64,
    #[component(name = "consecutive-failures")]
    #[serde(with = "number")]
    pub consecutive_failures: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ComponentType, Lift, Lower, Serialize)]
#[component(enum)]
#[repr(u8)]
#[serde(rename_all = "kebab-case")]
pub enum TransitionReason {
    #[component(name = "tripped")]
    Tripped,
    #[component(name = "open-time-over")]
    OpenTimeOver,
    #[component(name = "probes-succeeded")]
    ProbesSucceeded,
    #[component(name = "probe-failed")]
    ProbeFailed,
}

#[derive(Clone, Copy, Debug, PartialEq, ComponentType, Lift, Lower, Serialize)]
#[component(record)]
#[serde(rename_all = "kebab-case")]
pub struct Transition {
    pub previous: State,
    pub next: State,
    pub reason: TransitionReason,
    #[component(name = "at-ms")]
    #[serde(with = "number")]
    pub at_ms: u64,
    #[serde(with = "number")]
    pub era: u64,
    #[serde(with = "number")]
    pub generation: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ComponentType, Lift, Lower, Deserialize, Serialize)]
#[component(enum)]
#[repr(u8)]
#[serde(rename_all = "kebab-case")]
pub enum OverrideKind {
    #[component(name = "forced-open")]
    ForcedOpen,
    #[component(name = "forced-closed")]
    ForcedClosed,
}

#[derive(Clone, Debug, PartialEq, ComponentType, Lift, Lower, Deserialize, Serialize)]
#[component(record)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Override {
    pub kind: OverrideKind,
    pub author: String,
    pub reason: String,
    #[component(name = "until-ms")]
    #[serde(with = "optional_number", default)]
    pub until_ms: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, ComponentType, Lift, Lower, Serialize)]
#[component(record)]
#[serde(rename_all = "kebab-case")]
pub struct Probe {
    pub id: Token,
    #[component(name = "deadline-ms")]
    #[serde(with = "number")]
    pub deadline_ms: u64,
}

#[derive(Clone, Debug, PartialEq, ComponentType, Lift, Lower, Serialize)]
#[component(record)]
#[serde(rename_all = "kebab-case")]
pub struct Information {
    pub state: State,
    #[serde(with = "number")]
    pub era: u64,
    #[serde(with = "number")]
    pub generation: u64,
    pub counts: Counts,
    #[component(name = "since-ms")]
    #[serde(with = "number")]
    pub since_ms: u64,
    #[component(name = "expires-at-ms")]
    #[serde(with = "optional_number")]
    pub expires_at_ms: Option<u64>,
    pub probes: Vec<Probe>,
    #[component(name = "probe-successes")]
    pub probe_successes: u32,
    #[component(name = "override")]
    #[serde(rename = "override")]
    pub override_: Option<Override>,
    pub transitions: Vec<Transition>,
    #[serde(with = "number")]
    pub revision: u64,
}

// ---- requests ----

#[derive(Clone, Copy, Debug, PartialEq, Eq, ComponentType, Lift, Lower, Deserialize)]
#[component(enum)]
#[repr(u8)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    #[component(name = "success")]
    Success,
    #[component(name = "failure")]
    Failure,
    #[component(name = "ignored")]
    Ignored,
}

#[derive(Clone, Copy, Debug, PartialEq, ComponentType, Lift, Lower, Deserialize)]
#[component(record)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Completion {
    #[serde(with = "number")]
    pub era: u64,
    pub probe: Option<Token>,
    pub outcome: Outcome,
    pub count: u32,
}

#[derive(Clone, Debug, PartialEq, ComponentType, Lift, Lower)]
#[component(record)]
pub struct StartRequest {
    pub circuit: String,
    pub settings: Settings,
    pub caller: Caller,
}

#[derive(Clone, Debug, PartialEq, ComponentType, Lift, Lower)]
#[component(record)]
pub struct EndRequest {
    pub circuit: String,
    pub settings: Settings,
    pub caller: Caller,
    pub completions: Vec<Completion>,
}

#[derive(Clone, Debug, PartialEq, ComponentType, Lift, Lower)]
#[component(record)]
pub struct RenewRequest {
    pub circuit: String,
    pub settings: Settings,
    pub caller: Caller,
    pub era: u64,
    pub probes: Vec<Token>,
}

#[derive(Clone, Debug, PartialEq, ComponentType, Lift, Lower)]
#[component(record)]
pub struct InspectRequest {
    pub circuit: String,
    pub settings: Settings,
}

#[derive(Clone, Debug, PartialEq, ComponentType, Lift, Lower)]
#[component(record)]
pub struct OverrideRequest {
    pub circuit: String,
    pub settings: Settings,
    pub caller: Caller,
    #[component(name = "override")]
    pub override_: Option<Override>,
}

#[derive(Clone, Debug, PartialEq, ComponentType, Lift, Lower)]
#[component(variant)]
pub enum Request {
    #[component(name = "start")]
    Start(StartRequest),
    #[component(name = "end")]
    End(EndRequest),
    #[component(name = "renew")]
    Renew(RenewRequest),
    #[component(name = "inspect")]
    Inspect(InspectRequest),
    #[component(name = "set-override")]
    SetOverride(OverrideRequest),
}

// ---- answers ----

#[derive(Clone, Copy, Debug, PartialEq, ComponentType, Lift, Lower, Serialize)]
#[component(record)]
#[serde(rename_all = "kebab-case")]
pub struct Permit {
    #[serde(with = "number")]
    pub era: u64,
    pub probe: Option<Probe>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ComponentType, Lift, Lower, Serialize)]
#[component(enum)]
#[repr(u8)]
#[serde(rename_all = "kebab-case")]
pub enum RefusalReason {
    #[component(name = "open")]
    Open,
    #[component(name = "too-many-requests")]
    TooManyRequests,
    #[component(name = "forced-open")]
    ForcedOpen,
}

#[derive(Clone, Copy, Debug, PartialEq, ComponentType, Lift, Lower, Serialize)]
#[component(record)]
#[serde(rename_all = "kebab-case")]
pub struct Refusal {
    pub reason: RefusalReason,
    #[component(name = "retry-after-ms")]
    #[serde(with = "number")]
    pub retry_after_ms: u64,
}

#[derive(Clone, Debug, PartialEq, ComponentType, Lift, Lower, Serialize)]
#[component(variant)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    #[component(name = "permit")]
    Permit(Permit),
    #[component(name = "refusal")]
    Refusal(Refusal),
}

#[derive(Clone, Debug, PartialEq, ComponentType, Lift, Lower, Serialize)]
#[component(record)]
#[serde(rename_all = "kebab-case")]
pub struct Started {
    pub verdict: Verdict,
    pub transitions: Vec<Transition>,
}

#[derive(Clone, Copy, Debug, PartialEq, ComponentType, Lift, Lower, Serialize)]
#[component(record)]
#[serde(rename_all = "kebab-case")]
pub struct Disposition {
    pub accepted: u32,
    pub stale: u32,
}

#[derive(Clone, Debug, PartialEq, ComponentType, Lift, Lower, Serialize)]
#[component(record)]
#[serde(rename_all = "kebab-case")]
pub struct Settled {
    pub dispositions: Vec<Disposition>,
    #[component(name = "already-applied")]
    pub already_applied: bool,
    pub transitions: Vec<Transition>,
}

#[derive(Clone, Debug, PartialEq, ComponentType, Lift, Lower, Serialize)]
#[component(record)]
#[serde(rename_all = "kebab-case")]
pub struct Renewed {
    #[serde(serialize_with = "optional_number::each")]
    pub deadlines: Vec<Option<u64>>,
}

#[derive(Clone, Debug, PartialEq, ComponentType, Lift, Lower, Serialize)]
#[component(record)]
#[serde(rename_all = "kebab-case")]
pub struct Overridden {
    pub previous: Option<Override>,
    #[component(name = "already-applied")]
    pub already_applied: bool,
}

#[derive(Clone, Debug, PartialEq, ComponentType, Lift, Lower, Serialize)]
#[component(variant)]
#[serde(rename_all = "kebab-case")]
pub enum RecordError {
    #[component(name = "malformed")]
    Malformed(String),
    #[component(name = "newer-schema")]
    NewerSchema(u32),
}

#[derive(Clone, Debug, PartialEq, ComponentType, Lift, Lower, Serialize)]
#[component(variant)]
#[serde(rename_all = "kebab-case")]
pub enum Error {
    #[component(name = "circuit-name")]
    CircuitName(String),
    #[component(name = "settings")]
    Settings(SettingsError),
    #[component(name = "request")]
    Request(String),
    #[component(name = "stored-record")]
    StoredRecord(RecordError),
    #[component(name = "store")]
    Store(StoreError),
    #[component(name = "contention")]
    Contention,
    #[component(name = "forgotten")]
    Forgotten,
}

#[derive(Clone, Debug, PartialEq, ComponentType, Lift, Lower, Serialize)]
#[component(record)]
#[serde(rename_all = "kebab-case")]
pub struct Failure {
    pub error: Error,
    #[component(name = "last-seen")]
    #[serde(skip)]
    pub last_seen: Option<Loaded>,
    #[serde(with = "optional_number")]
    pub revision: Option<u64>,
}

#[derive(Clone, Debug, PartialEq, ComponentType, Lift, Lower, Serialize)]
#[component(variant)]
#[serde(rename_all = "kebab-case")]
pub enum Answer {
    #[component(name = "started")]
    Started(Started),
    #[component(name = "settled")]
    Settled(Settled),
    #[component(name = "renewed")]
    Renewed(Renewed),
    #[component(name = "inspected")]
    Inspected(Information),
    #[component(name = "overridden")]
    Overridden(Overridden),
    #[component(name = "failed")]
    Failed(Error),
}

#[derive(Clone, Debug, PartialEq, ComponentType, Lift, Lower)]
#[component(record)]
pub struct Write {
    pub value: Vec<u8>,
    #[component(name = "ttl-ms")]
    pub ttl_ms: Option<u64>,
    #[component(name = "answer-if-stored")]
    pub answer_if_stored: Answer,
    #[component(name = "based-on")]
    pub based_on: u64,
}

#[derive(Clone, Debug, PartialEq, ComponentType, Lift, Lower)]
#[component(variant)]
pub enum Decision {
    #[component(name = "done")]
    Done(Answer),
    #[component(name = "write")]
    Write(Write),
}

// ---- questions ----

#[derive(Clone, Debug, PartialEq, ComponentType, Lift, Lower)]
#[component(record)]
pub struct TripQuery {
    pub circuit: String,
    pub rule: CustomRule,
    #[component(name = "failure-count-threshold")]
    pub failure_count_threshold: u64,
    pub generation: u64,
    pub counts: Counts,
}

/// Numbers of 64 bits in JSON.
pub mod number {
    use serde::{Deserialize, Deserializer, Serializer};

    /// Every number up to here is exact in every language.
    const EXACT: u64 = 1 << 53;

    #[derive(Deserialize)]
    #[serde(untagged)]
    pub(super) enum Written {
        Number(u64),
        Text(String),
    }

    impl Written {
        pub(super) fn read<E: serde::de::Error>(self) -> Result<u64, E> {
            match self {
                Self::Number(number) => Ok(number),
                Self::Text(text) => text.parse().map_err(E::custom),
            }
        }
    }

    pub fn serialize<S: Serializer>(number: &u64, serializer: S) -> Result<S::Ok, S::Error> {
        if *number > EXACT {
            serializer.serialize_str(&number.to_string())
        } else {
            serializer.serialize_u64(*number)
        }
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
        Written::deserialize(deserializer)?.read()
    }
}

/// The same where there may be none.
pub mod optional_number {
    use serde::ser::SerializeSeq;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::number::{self, Written};

    struct Number(u64);

    impl Serialize for Number {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            number::serialize(&self.0, serializer)
        }
    }

    pub fn serialize<S: Serializer>(number: &Option<u64>, serializer: S) -> Result<S::Ok, S::Error> {
        number.map(Number).serialize(serializer)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
        Option::<Written>::deserialize(deserializer)?.map(Written::read).transpose()
    }

    pub(super) fn each<S: Serializer>(numbers: &[Option<u64>], serializer: S) -> Result<S::Ok, S::Error> {
        let mut list = serializer.serialize_seq(Some(numbers.len()))?;
        for number in numbers {
            list.serialize_element(&number.map(Number))?;
        }
        list.end()
    }
}
