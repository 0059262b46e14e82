//! The store over `wasi:keyvalue`, as a component in a host whose buckets are shared.
//!
//! - `adapter`: `store-keyvalue.wasm` as a store of circuitry; `answers`: what it answers
//! - `suite`: it passes the suite that every store passes
//! - `hostile`: what a host may give that it should not
//! - `lost_answers`: swaps of which a host does not tell the truth, or nothing
//! - `composed`: `breaker-keyvalue.wasm`, on threads and in processes

mod adapter;
mod answers;
mod composed;
mod hostile;
mod lost_answers;
mod suite;
