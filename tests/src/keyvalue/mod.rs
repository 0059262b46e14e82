//! A host of `wasi:keyvalue@0.2.0-draft2`, the draft with compare-and-swap, whose buckets all instances share.
//!
//! - [`buckets`]: where the values are: in memory, or on a Redis for several processes
//! - [`host`]: the interfaces of WASI that a component of the keyvalue adapter imports
//! - [`breaker`]: the composed breaker in it, as a program of a user calls it

pub mod breaker;
pub mod buckets;
pub mod host;

use serde::{Deserialize, Serialize};

/// What a worker process is told, as JSON in its first argument.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Task {
    /// The file of the composed breaker.
    pub component: String,
    /// The Redis of the buckets.
    pub redis_url: String,
    /// The bucket.
    pub bucket: String,
    /// The circuit.
    pub circuit: String,
    /// The number of the process in its tokens.
    pub node: u64,
    /// The circuit opens with the failure that comes after so many in a row.
    pub failures: u64,
    /// How often to work; each tenth time it fails.
    pub executions: u64,
}

/// What it says at its end, as a line of JSON.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Report {
    /// Successes that were counted.
    pub successes: u64,
    /// Failures that were counted.
    pub failures: u64,
    /// Starts that were refused.
    pub refused: u64,
}
