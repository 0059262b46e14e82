//! The state machine of circuitry: what a circuit decides, as functions over values.
//!
//! ```text
//!   Request + entry + store time ──► decide ──► Done(answer)
//!                                          └──► Write(bytes, time to live, answer if stored)
//! ```
//!
//! There is no I/O here, no clock and no randomness: time is an argument, the stored record is an argument, and the
//! new record is a result. So a race is an ordering of calls, and a test needs neither threads nor sleeps. What the
//! crate does *not* do: it does not wait, retry after an error, log, or know who is asking beyond a token.
//!
//! - [`request`]: what can be asked and what is answered; [`settings`]: how a circuit behaves
//! - [`exchange`]: [`decide`], one step; [`exchange::run`], the loop over a store
//! - [`circuit`]: the rules, as methods of a circuit at a moment
//! - [`record`]: what is stored, and its bytes; [`applied`]: the calls that it remembers
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod applied;
pub mod circuit;
pub mod exchange;
pub mod record;
pub mod request;
pub mod settings;

pub use exchange::{Decision, Entry, Hooks, Loaded, Store, Swapped, TripQuery, Write, decide, run};
pub use request::{Answer, Caller, Completion, Error, Failure, Outcome, Request};
pub use settings::{Settings, SettingsError, TripRule};
