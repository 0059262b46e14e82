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
//! - `circuit`: the states and how one becomes another; `admission`: who is let in while it recovers; `outcomes`: what becomes
//!   of ended work; `rules`: when it trips, `opening`: for how long; `votes`: of nodes; `view`: what a person is shown, and
//!   `explanation` in words
//! - [`record`]: what is stored; `codec` and `numbers`: its bytes; in it [`window`]: the calls that the rules look at, and [`applied`]: the
//!   calls that it remembers
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod admission;
pub mod applied;
mod circuit;
mod codec;
pub mod digest;
pub mod exchange;
mod explanation;
mod numbers;
mod opening;
mod outcomes;
pub mod record;
pub mod request;
mod rules;
pub mod settings;
mod view;
mod votes;
pub mod window;

pub use exchange::{Decision, Entry, Hooks, Loaded, Store, Swapped, TripQuery, Write, decide, run};
pub use request::{Answer, Caller, Completion, Error, Failure, Outcome, Request};
pub use settings::{Settings, SettingsError, TripRule};
