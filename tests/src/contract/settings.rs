//! How a circuit behaves.

use serde::{Deserialize, Serialize};
use wasmtime::component::{ComponentType, Lift, Lower};

use super::{number, optional_number};

#[derive(Clone, Debug, PartialEq, ComponentType, Lift, Lower, Deserialize, Serialize)]
#[component(record)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct CustomRule {
    pub name: String,
    pub version: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, ComponentType, Lift, Lower, Deserialize, Serialize)]
#[component(variant)]
#[serde(rename_all = "kebab-case")]
pub enum Window {
    #[component(name = "calls")]
    Calls(u32),
    #[component(name = "time")]
    Time(#[serde(with = "number")] u64),
    #[component(name = "decaying")]
    Decaying(#[serde(with = "number")] u64),
}

#[derive(Clone, Copy, Debug, PartialEq, ComponentType, Lift, Lower, Deserialize, Serialize)]
#[component(record)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct WindowedRule {
    pub threshold: u32,
    #[component(name = "minimum-calls")]
    pub minimum_calls: u32,
    pub window: Window,
}

#[derive(Clone, Copy, Debug, PartialEq, ComponentType, Lift, Lower, Deserialize, Serialize)]
#[component(record)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct ConsecutiveRule {
    #[component(name = "minimum-calls")]
    pub minimum_calls: u32,
}

#[derive(Clone, Debug, PartialEq, ComponentType, Lift, Lower, Deserialize, Serialize)]
#[component(variant)]
#[serde(rename_all = "kebab-case")]
pub enum TripRule {
    #[component(name = "consecutive-failures")]
    ConsecutiveFailures(ConsecutiveRule),
    #[component(name = "failure-count")]
    FailureCount(WindowedRule),
    #[component(name = "failure-rate")]
    FailureRate(WindowedRule),
    #[component(name = "slow-call-rate")]
    SlowCallRate(WindowedRule),
    #[component(name = "custom")]
    Custom(CustomRule),
}

#[derive(Clone, Copy, Debug, PartialEq, ComponentType, Lift, Lower, Deserialize, Serialize)]
#[component(record)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Backoff {
    #[component(name = "factor-per-mille")]
    pub factor_per_mille: u32,
    #[component(name = "max-ms")]
    #[serde(with = "number")]
    pub max_ms: u64,
    #[component(name = "healthy-after-ms")]
    #[serde(with = "number")]
    pub healthy_after_ms: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ComponentType, Lift, Lower, Deserialize, Serialize)]
#[component(enum)]
#[repr(u8)]
#[serde(rename_all = "kebab-case")]
pub enum Overdue {
    #[component(name = "opens")]
    Opens,
    #[component(name = "closes")]
    Closes,
}

#[derive(Clone, Copy, Debug, PartialEq, ComponentType, Lift, Lower, Deserialize, Serialize)]
#[component(record)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct HalfOpenLimit {
    #[component(name = "after-ms")]
    #[serde(with = "number")]
    pub after_ms: u64,
    pub then: Overdue,
}

#[derive(Clone, Debug, PartialEq, ComponentType, Lift, Lower, Deserialize, Serialize)]
#[component(record)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Ramp {
    #[component(name = "steps-per-mille")]
    pub steps_per_mille: Vec<u32>,
    #[component(name = "step-ms")]
    #[serde(with = "number")]
    pub step_ms: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, ComponentType, Lift, Lower, Deserialize, Serialize)]
#[component(record)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Quorum {
    pub votes: u32,
    #[component(name = "window-ms")]
    #[serde(with = "number")]
    pub window_ms: u64,
}

/// What is left out of a vector's policies is by default.
fn retry_after_max_ms() -> u64 {
    600_000
}

#[derive(Clone, Debug, PartialEq, ComponentType, Lift, Lower, Deserialize, Serialize)]
#[component(record)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Policies {
    #[component(name = "trip-rules")]
    #[serde(default)]
    pub trip_rules: Vec<TripRule>,
    #[component(name = "slow-call-after-ms")]
    #[serde(with = "optional_number", default)]
    pub slow_call_after_ms: Option<u64>,
    #[serde(default)]
    pub backoff: Option<Backoff>,
    #[component(name = "jitter-per-mille")]
    #[serde(default)]
    pub jitter_per_mille: u32,
    #[component(name = "retry-after-max-ms")]
    #[serde(with = "number", default = "retry_after_max_ms")]
    pub retry_after_max_ms: u64,
    #[serde(default)]
    pub probes: Option<u32>,
    #[component(name = "probes-at-once")]
    #[serde(default)]
    pub probes_at_once: Option<u32>,
    #[component(name = "half-open-limit")]
    #[serde(default)]
    pub half_open_limit: Option<HalfOpenLimit>,
    #[serde(default)]
    pub ramp: Option<Ramp>,
    #[serde(default)]
    pub quorum: Option<Quorum>,
}

#[derive(Clone, Debug, PartialEq, ComponentType, Lift, Lower, Deserialize, Serialize)]
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
    #[serde(default)]
    pub policies: Option<Policies>,
    #[component(name = "settings-revision")]
    #[serde(with = "number", default)]
    pub settings_revision: u64,
}

#[derive(Clone, Debug, PartialEq, ComponentType, Lift, Lower, Serialize)]
#[component(record)]
#[serde(rename_all = "kebab-case")]
pub struct SettingsError {
    pub field: String,
    pub problem: String,
}
