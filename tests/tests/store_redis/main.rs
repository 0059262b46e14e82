//! The store over Redis as a component, `store-redis.wasm`, in a host with `wasi:sockets`.
//!
//! - [`adapter`]: the component as a store of circuitry
//! - [`suite`]: it passes the suite that every store passes
//! - [`as_the_host`]: what it stores and answers is what the host's adapter stores and answers
//! - [`connection`]: servers that turn it away, drip, or are no Redis, and a host that lets it nowhere

mod adapter;
#[path = "../keyvalue/answers.rs"]
mod answers;
mod as_the_host;
mod connection;
#[allow(dead_code, reason = "the fleet's tests use the rest")]
#[path = "../fleet/servers.rs"]
mod servers;
mod suite;
