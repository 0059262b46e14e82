//! The store's values.

use serde::Serialize;
use wasmtime::component::{ComponentType, Lift, Lower};

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
