//! Who calls, what is asked, and what is asked of the host.

use serde::{Deserialize, Serialize};
use wasmtime::component::{ComponentType, Lift, Lower};

use super::{Counts, CustomRule, Override, Settings, number, optional_number};

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
    #[serde(default)]
    pub slow: bool,
    pub count: u32,
    #[component(name = "retry-after-ms")]
    #[serde(with = "optional_number", default)]
    pub retry_after_ms: Option<u64>,
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
#[component(record)]
pub struct VoteRequest {
    pub circuit: String,
    pub settings: Settings,
    pub caller: Caller,
    pub era: u64,
    #[component(name = "node-id")]
    pub node_id: String,
}

#[derive(Clone, Debug, PartialEq, ComponentType, Lift, Lower)]
#[component(record)]
pub struct ResetRequest {
    pub circuit: String,
    pub settings: Settings,
    pub caller: Caller,
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
    #[component(name = "vote")]
    Vote(VoteRequest),
    #[component(name = "reset")]
    Reset(ResetRequest),
}

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
