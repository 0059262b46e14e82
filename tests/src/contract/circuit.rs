//! What a circuit is, and what a person is shown of it.

use serde::{Deserialize, Serialize};
use wasmtime::component::{ComponentType, Lift, Lower};

use super::{Settings, Token, TripRule, number, optional_number};

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
    #[component(name = "votes-reached")]
    VotesReached,
    #[component(name = "half-open-overdue-opened")]
    HalfOpenOverdueOpened,
    #[component(name = "half-open-overdue-closed")]
    HalfOpenOverdueClosed,
    #[component(name = "reset")]
    Reset,
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
    #[component(name = "disabled")]
    Disabled,
    #[component(name = "metrics-only")]
    MetricsOnly,
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
pub struct Vote {
    #[component(name = "node-id")]
    pub node_id: String,
    #[component(name = "at-ms")]
    #[serde(with = "number")]
    pub at_ms: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ComponentType, Lift, Lower, Serialize)]
#[component(enum)]
#[repr(u8)]
#[serde(rename_all = "kebab-case")]
pub enum TripKind {
    #[component(name = "consecutive-failures")]
    ConsecutiveFailures,
    #[component(name = "failure-count")]
    FailureCount,
    #[component(name = "failure-rate")]
    FailureRate,
    #[component(name = "slow-call-rate")]
    SlowCallRate,
    #[component(name = "custom")]
    Custom,
    #[component(name = "probe")]
    Probe,
    #[component(name = "overdue")]
    Overdue,
    #[component(name = "votes")]
    Votes,
}

#[derive(Clone, Copy, Debug, PartialEq, ComponentType, Lift, Lower, Serialize)]
#[component(record)]
#[serde(rename_all = "kebab-case")]
pub struct Trip {
    pub kind: TripKind,
    #[serde(with = "number")]
    pub observed: u64,
    #[serde(with = "number")]
    pub threshold: u64,
    #[serde(with = "number")]
    pub calls: u64,
    #[component(name = "at-ms")]
    #[serde(with = "number")]
    pub at_ms: u64,
    #[component(name = "open-for-ms")]
    #[serde(with = "number")]
    pub open_for_ms: u64,
}

#[derive(Clone, Debug, PartialEq, ComponentType, Lift, Lower, Serialize)]
#[component(record)]
#[serde(rename_all = "kebab-case")]
pub struct RuleState {
    pub rule: TripRule,
    #[serde(with = "number")]
    pub observed: u64,
    #[serde(with = "number")]
    pub calls: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, ComponentType, Lift, Lower, Serialize)]
#[component(record)]
#[serde(rename_all = "kebab-case")]
pub struct RampPosition {
    #[component(name = "share-per-mille")]
    pub share_per_mille: u32,
    #[component(name = "next-step-at-ms")]
    #[serde(with = "number")]
    pub next_step_at_ms: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ComponentType, Lift, Lower, Serialize)]
#[component(enum)]
#[repr(u8)]
#[serde(rename_all = "kebab-case")]
pub enum ChangeKind {
    #[component(name = "half-open")]
    HalfOpen,
    #[component(name = "lease-end")]
    LeaseEnd,
    #[component(name = "half-open-overdue")]
    HalfOpenOverdue,
    #[component(name = "ramp-step")]
    RampStep,
    #[component(name = "override-end")]
    OverrideEnd,
    #[component(name = "counts-clear")]
    CountsClear,
    #[component(name = "vote-end")]
    VoteEnd,
}

#[derive(Clone, Copy, Debug, PartialEq, ComponentType, Lift, Lower, Serialize)]
#[component(record)]
#[serde(rename_all = "kebab-case")]
pub struct NextChange {
    pub kind: ChangeKind,
    #[component(name = "at-ms")]
    #[serde(with = "number")]
    pub at_ms: u64,
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
    #[component(name = "probe-failures")]
    pub probe_failures: u32,
    #[component(name = "override")]
    #[serde(rename = "override")]
    pub override_: Option<Override>,
    pub transitions: Vec<Transition>,
    #[serde(with = "number")]
    pub revision: u64,
    #[component(name = "last-trip")]
    pub last_trip: Option<Trip>,
    #[component(name = "trips-in-a-row")]
    pub trips_in_a_row: u32,
    pub rules: Vec<RuleState>,
    pub ramp: Option<RampPosition>,
    pub votes: Vec<Vote>,
    #[component(name = "next-change")]
    pub next_change: Option<NextChange>,
    #[component(name = "settings-in-force")]
    pub settings_in_force: Settings,
    #[component(name = "settings-differ")]
    pub settings_differ: bool,
    pub explanation: String,
}
