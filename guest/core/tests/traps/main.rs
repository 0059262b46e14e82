//! What real breakers got wrong, each as a test whose name is the rule. Races are orderings of calls; time is moved.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "the core has no panics; its tests may"
)]

mod bounds;
mod counting;
mod fleet;
mod grants;
mod half_open;
mod people;
mod races;
mod recovery;
mod repeats;
mod time;
mod windows;
