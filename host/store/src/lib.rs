//! The storage contract of circuitry: two operations, `load` and `swap`, over bytes and versions.
//!
//! A [`Store`] keeps one entry for each circuit. There is no plain write: an entry is replaced only by the one who
//! has seen what it replaces ("replace only if unchanged"), so no update is lost whoever else is writing. The crate
//! moves bytes and versions; it does not know what a circuit breaker is, nor which runtime asks.
//!
//! A store may also push: tell those who [watch](Store::watch) that an entry was replaced. A push only shortens a wait;
//! with every push lost the result is the same, later.
//!
//! What it does *not* do: it does not retry (the caller holds the deadline), does not cache, does not list circuits.
//!
//! - [`store`]: the trait and its values; [`error`]: what can go wrong, sorted by what to do next
//! - [`memory`]: the embedded store, shared inside one process
//! - [`push`]: what a store tells those who watch it, and a bounded queue of it
//! - [`clock`]: where a store without a server takes its time from, and a clock that tests can move
//! - `fault` (feature `fault`): a wrapper that fails on demand
//! - `conformance` (feature `conformance`): the suite that every store passes

pub mod clock;
#[cfg(feature = "conformance")]
pub mod conformance;
pub mod error;
#[cfg(feature = "fault")]
pub mod fault;
pub mod memory;
pub mod push;
pub mod store;

pub use clock::{Clock, ManualClock, SystemClock};
pub use error::StoreError;
pub use memory::MemoryStore;
pub use push::{Push, Watch};
pub use store::{Entry, Loaded, Receipt, Store, Swapped, Version};
