//! What a user of the library can rely on, in one process on the memory store. Each test is a rule.
//!
//! Time is tokio's paused time where it passes at all: it jumps to the next deadline, so nothing is waited for.

mod events;
mod outages;
mod permits;
mod runtimes;
mod settings;
mod settlings;
mod world;
