//! A distributed circuit breaker: many processes share one circuit per dependency, tenant or job kind.
//!
//! ```text
//!   your code ──► Breaker ──► circuitry.wasm in wasmtime ──► Store ──► memory, Redis or DynamoDB
//!                               (every decision)              (bytes and versions)
//! ```
//!
//! A [`Factory`] makes a [`Breaker`] for a name and a [`Context`]; [`Breaker::execute`] starts, works and ends. What
//! it does *not* do: it does not retry your work, time it out, or limit its rate.
//!
//! - [`factory`], [`breaker`], [`permit`]: what you call; [`settings`], [`policy`], [`context`]: what you say
//! - [`presets`]: the defaults of other circuit breakers
//! - [`outcome`], [`refusal`], [`state`], [`error`], [`event`]: what you are told
//! - `node`, `starting`, `settling`, `ballot`, `outage`: this process among the fleet's; `runtime`: the component in wasmtime
//! - `bounded`, `view`, `grant`, `coarse`: bounded mode, in which the store is off the call path
//! - [`metering`]: the metrics, with the feature `metrics`

mod ballot;
mod bounded;
pub mod breaker;
mod builder;
mod call;
mod circuit;
mod clock;
mod coarse;
pub mod context;
mod ends;
pub mod error;
pub mod event;
mod exchange;
pub mod factory;
mod finishing;
mod flusher;
mod gathering;
mod grant;
mod loading;
pub mod metering;
mod node;
mod outage;
pub mod outcome;
pub mod permit;
pub mod policy;
pub mod presets;
pub mod refusal;
mod runtime;
pub mod settings;
mod settling;
mod starting;
pub mod state;
mod sync;
mod view;

pub use breaker::{Breaker, Executed};
pub use circuitry_store::{Clock, ManualClock, MemoryStore, Store, StoreError, SystemClock};
pub use context::{Context, default_name};
pub use error::{ComponentError, Error, ExecuteError, FlushError, RecordError, SettingsError, StartError};
pub use event::StateChange;
pub use factory::Factory;
pub use outcome::{Disposition, Expected, Outcome, Settlement, WorkError, default_error_matcher};
pub use permit::Permit;
pub use policy::{Backoff, CircuitSettings, HalfOpenLimit, Overdue, Quorum, Ramp, TripRule, Window};
pub use refusal::{Refusal, RefusalReason};
pub use settings::{Consistency, Settings, SettingsBuilder, StoreFailure, TripInformation};
pub use state::{
    ChangeKind, Counts, Information, NextChange, Override, OverrideKind, Probe, RampPosition, RuleState,
    State, Transition, TransitionReason, Trip, TripKind, Vote,
};
