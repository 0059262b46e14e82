//! What a user of the library can rely on, in one process on the memory store. Each test is a rule.
//!
//! Time is tokio's paused time where it passes at all: it jumps to the next deadline, so nothing is waited for.

mod bounded;
mod events;
mod explanations;
mod flushes;
mod log;
mod many_circuits;
mod outages;
mod overrides;
mod permits;
mod permits_under_a_grant;
mod policies;
mod presets;
mod quorum;
mod quorum_outages;
mod ramp;
mod runtimes;
mod settings;
mod settings_in_force;
mod settlings;
mod slow_calls;
mod start_up;
mod strict;
mod world;
