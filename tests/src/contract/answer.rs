//! What is answered.

use serde::Serialize;
use wasmtime::component::{ComponentType, Lift, Lower};

use super::{
    Information, Loaded, Override, Probe, Settings, SettingsError, StoreError, Transition, number,
    optional_number,
};

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
    #[component(name = "ramp")]
    Ramp,
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

#[derive(Clone, Copy, Debug, PartialEq, Eq, ComponentType, Lift, Lower, Serialize)]
#[component(enum)]
#[repr(u8)]
#[serde(rename_all = "kebab-case")]
pub enum JudgedBy {
    #[component(name = "fleet")]
    Fleet,
    #[component(name = "node")]
    Node,
    #[component(name = "nobody")]
    Nobody,
}

#[derive(Clone, Copy, Debug, PartialEq, ComponentType, Lift, Lower, Serialize)]
#[component(record)]
#[serde(rename_all = "kebab-case")]
pub struct Permit {
    #[serde(with = "number")]
    pub era: u64,
    pub probe: Option<Probe>,
    #[component(name = "judged-by")]
    pub judged_by: JudgedBy,
    #[component(name = "slow-call-after-ms")]
    #[serde(with = "optional_number")]
    pub slow_call_after_ms: Option<u64>,
    #[component(name = "would-have-refused")]
    pub would_have_refused: Option<Refusal>,
    #[component(name = "grant-until-ms")]
    #[serde(with = "optional_number")]
    pub grant_until_ms: Option<u64>,
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
    #[component(name = "settings-in-force")]
    pub settings_in_force: Option<Settings>,
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
#[component(record)]
#[serde(rename_all = "kebab-case")]
pub struct Voted {
    pub accepted: bool,
    pub votes: u32,
    #[component(name = "already-applied")]
    pub already_applied: bool,
    pub transitions: Vec<Transition>,
}

#[derive(Clone, Debug, PartialEq, ComponentType, Lift, Lower, Serialize)]
#[component(record)]
#[serde(rename_all = "kebab-case")]
pub struct Cleared {
    pub previous: Option<Override>,
    #[component(name = "already-applied")]
    pub already_applied: bool,
    pub transitions: Vec<Transition>,
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

#[allow(clippy::large_enum_variant, reason = "the shape is the one of wit/")]
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
    #[component(name = "voted")]
    Voted(Voted),
    #[component(name = "cleared")]
    Cleared(Cleared),
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
