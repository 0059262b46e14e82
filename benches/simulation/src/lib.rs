//! A fleet of thousands of processes on one store, simulated event by event.
//!
//! ```text
//!   arrivals ──► Fleet ── load, swap ──► shards ──► reply      time jumps from event to event
//!                  │                       │
//!                  └── decide (the real state machine) ──┘
//! ```
//!
//! Every decision is one of `circuitry-core`; what is written anew here is what the host library does around it: when it asks
//! the store, what it keeps, what it puts off. The same scenario and seed give the same report. What this does *not* do: it has
//! no outages, no clocks that differ, and no processor time of the processes; a store is a line in front of each shard.
//!
//! - [`scenario`]: what is simulated; [`population`]: who uses which circuit
//! - [`fleet`]: the processes and the loop of events; `pair`: what a process keeps of one circuit; `exchange`: load, decide,
//!   swap; `strict` and `bounded`: when a process asks
//! - `rules`: the state machine, called; `shards`: the store; `network`: how long things take
//! - `tally`: what is counted on the way; [`report`]: what is told of it
//! - [`arithmetic`]: the same quantities on the back of an envelope; [`presets`]: the scenarios that SCALE.md shows

pub mod arithmetic;
mod bounded;
mod exchange;
pub mod fleet;
mod network;
mod pair;
pub mod population;
pub mod presets;
pub mod report;
mod rules;
pub mod scenario;
mod shards;
mod strict;
mod tally;

pub use fleet::simulate;
pub use report::Report;
pub use rules::Broken;
pub use scenario::Scenario;
