//! What the suites share. Nothing here judges: suites measure and record, the report tells.
//!
//! - [`Times`], [`threads`]: rounds that take turns, on one or more threads
//! - [`catalogue`]: every figure that is told, with what it is held to
//! - [`Suite`], [`run`]: what was measured, on what, and the files that it goes to
//! - [`report`]: those files into the README's tables and plots
//! - [`circuits`], [`modes`], [`peers`]: what is measured
//! - [`processes`]: two processes of one fleet
//! - [`servers`]: where the servers are, and what they count

pub mod catalogue;
pub mod circuits;
pub mod modes;
pub mod peers;
pub mod processes;
pub mod report;
pub mod run;
pub mod servers;
pub mod suite;
pub mod threads;
mod times;

pub use suite::Suite;
pub use times::{Times, quantile_index};
