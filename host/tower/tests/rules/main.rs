//! What a user of the middlewares can rely on. Each test is a rule.
//!
//! Circuits are in memory and their clock is moved by hand; where time passes in a middleware it is tokio's paused time. Only
//! `reqwest` and `proxy` go over sockets.

mod bodies;
mod classification;
mod garbage;
// Of the example, with their own tests.
#[path = "../../examples/reverse_proxy/download.rs"]
mod download;
#[path = "../../examples/reverse_proxy/headers.rs"]
mod headers;
mod keys;
mod layer;
mod patience;
mod proxy;
mod readiness;
mod refusals;
mod reqwest;
#[path = "../../examples/reverse_proxy/upload.rs"]
mod upload;
mod upstream;
mod world;
