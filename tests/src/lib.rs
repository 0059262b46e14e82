//! What the suites that cross crates share: one set of vectors and sequences for everything that decides.
//!
//! - [`contract`]: the types of `wit/`, for the component's functions and for JSON
//! - [`fleet`]: what a worker process of the fleet's tests is told, and what it reports
//! - [`keyvalue`]: a host of `wasi:keyvalue` with compare-and-swap
//! - [`machine`]: what decides, as the suites see it, and the round that a host drives itself
//! - [`native`] and [`component`]: the two that there are, the core and the built `circuitry.wasm`
//! - [`memory`]: the store that both are given, with versions that are the same in every run
//! - [`polyglot`]: what a worker of a fleet of several languages is asked, and what it answers
//! - [`rules`]: the trip rules that the vectors name
//! - [`vector`]: the golden vectors of `tests/vectors`

pub mod component;
#[allow(missing_docs, reason = "what each is, is said in wit/")]
pub mod contract;
pub mod fleet;
pub mod keyvalue;
pub mod machine;
pub mod memory;
pub mod native;
pub mod polyglot;
pub mod rules;
pub mod vector;

/// The code in the README, as doctests.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
pub struct Readme;
