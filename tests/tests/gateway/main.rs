//! The gateway as it is shipped, `gateway-redis.wasm`, under a stock `wasmtime serve`: in front of an upstream that fails in every
//! way, on a real Redis, with a Rust worker on the same circuits.
//!
//! - [`client`], [`upstream`], [`process`]: who asks, who answers, and what stands between them
//! - [`circuits`]: what is counted, and that workers share it
//! - [`messages`]: what is passed on, and what becomes of bodies
//! - [`hostile`]: input that nobody sends who means well
//! - [`outages`]: a store that is down, stands still, or answers nonsense
//! - [`load`]: the gateway under many connections
//! - [`readmes`]: the commands in the READMEs

mod circuits;
mod client;
mod hostile;
mod load;
mod messages;
mod outages;
mod process;
mod readmes;
#[allow(dead_code, reason = "the fleet's tests use the rest")]
#[path = "../fleet/servers.rs"]
mod servers;
mod upstream;
