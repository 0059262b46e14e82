//! A store of circuitry over `wasi:keyvalue` as a WebAssembly component, to be composed with `circuitry.wasm`.
//!
//! - this file: the exported store, as `wit/store.wit` has it
//! - `bucket`: the host's bucket, clock and randomness
//! - `envelope`: the bytes of an entry; `key`: where they are
//!
//! An entry is replaced by the bucket's own compare-and-swap, and carries a version that was minted for that one write. So
//! it does not matter by what a host compares, a revision or the value itself: no two writes leave the same bytes.
#![cfg_attr(target_family = "wasm", no_std)]

extern crate alloc;

mod bucket;
mod envelope;
mod key;

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use crate::bindings::circuitry::breaker::types::{Entry, Loaded, Receipt, StoreError, Swapped};
use crate::bindings::exports::circuitry::breaker::store::Guest;
use crate::bindings::wasi::keyvalue::atomics::{self, Cas, CasError};
use crate::bindings::wasi::keyvalue::store;
use crate::bucket::{Place, mint, now_ms};
use crate::envelope::Envelope;

#[allow(unreachable_pub, missing_docs, clippy::all, clippy::restriction, reason = "generated from wit/")]
mod bindings {
    wit_bindgen::generate!({
        path: ["../../wit", "wit"],
        world: "circuitry:keyvalue/adapter",
        generate_all,
    });
    use super::Component;
    export!(Component);
}

#[cfg(target_family = "wasm")]
#[global_allocator]
static ALLOCATOR: dlmalloc::GlobalDlmalloc = dlmalloc::GlobalDlmalloc;

/// Reached by no input; if it ever is, the call traps and the instance is gone.
#[cfg(target_family = "wasm")]
#[panic_handler]
fn trap(_: &core::panic::PanicInfo<'_>) -> ! {
    core::arch::wasm32::unreachable()
}

struct Component;

impl Guest for Component {
    fn load(circuit: String) -> Result<Loaded, StoreError> {
        let place = Place::of(&circuit)?;
        let bytes = place.read()?;
        Ok(loaded(place.entry(bytes.as_deref())?))
    }

    fn swap(
        circuit: String,
        expected: Option<Vec<u8>>,
        value: Vec<u8>,
        ttl_ms: Option<u64>,
    ) -> Result<Swapped, StoreError> {
        let place = Place::of(&circuit)?;
        let version = mint()?;
        let cas = place.begin()?;
        let seen = place.current(&cas)?;
        let found = place.entry(seen.as_deref())?.filter(|entry| !entry.is_over(now_ms()));
        if found.as_ref().map(|entry| entry.version.as_slice()) != expected.as_deref() {
            return Ok(Swapped::Conflict(loaded(found)));
        }

        let deadline_ms = ttl_ms.map(|ttl_ms| now_ms().saturating_add(ttl_ms));
        let envelope = Envelope { version, deadline_ms, circuit: &circuit, value: &value };
        let Some(bytes) = envelope.encode() else {
            return Err(StoreError::Other(format!(
                "a value of {} bytes is longer than an entry can be",
                value.len()
            )));
        };
        let attempt = Attempt { place: &place, version: &version, seen: seen.as_deref() };
        match atomics::swap(cas, &bytes) {
            Ok(()) => Ok(attempt.stored()),
            Err(CasError::CasFailed(fresh)) => attempt.lost(&fresh),
            Err(CasError::StoreError(error)) => attempt.failed(error),
        }
    }
}

/// A swap that was sent.
struct Attempt<'a> {
    place: &'a Place<'a>,
    /// The version that it writes.
    version: &'a [u8],
    /// The bytes that it replaces.
    seen: Option<&'a [u8]>,
}

impl Attempt<'_> {
    fn stored(&self) -> Swapped {
        Swapped::Stored(Receipt { version: self.version.to_vec(), now_ms: None })
    }

    /// The bucket says that another write came first, and hands over what is there now.
    fn lost(&self, fresh: &Cas) -> Result<Swapped, StoreError> {
        let bytes = self
            .place
            .current(fresh)
            .map_err(|error| self.unknown("lost, and what won cannot be read", &error))?;
        // Every write leaves bytes of its own, and an entry that is over is not removed.
        if bytes.as_deref() == self.seen {
            return Err(StoreError::Unknown(format!(
                "swap of {}: the bucket says that another write came first, and none did",
                self.place
            )));
        }
        match self.place.entry(bytes.as_deref())? {
            Some(entry) if entry.version == self.version => Ok(self.stored()),
            entry => Ok(Swapped::Conflict(loaded(entry))),
        }
    }

    /// The bucket failed. It may have written before that: if the entry shows the version that nobody else has, it has.
    fn failed(&self, error: store::Error) -> Result<Swapped, StoreError> {
        match self.place.error("swap", error) {
            StoreError::Unavailable(message) => {
                let bytes = self.place.read().unwrap_or_default();
                match self.place.entry(bytes.as_deref()) {
                    Ok(Some(entry)) if entry.version == self.version => Ok(self.stored()),
                    _ => Err(StoreError::Unknown(message)),
                }
            }
            refused => Err(refused),
        }
    }

    fn unknown(&self, what: &str, error: &StoreError) -> StoreError {
        StoreError::Unknown(format!("swap of {}: {what}: {}", self.place, bucket::message(error)))
    }
}

/// What a load answers and a lost race brings; an entry that is over is none. No time is told: a bucket has none, and the
/// host's is not the store's.
fn loaded(entry: Option<Envelope<'_>>) -> Loaded {
    let entry = entry.filter(|entry| !entry.is_over(now_ms()));
    let entry = entry.map(|entry| Entry { value: entry.value.to_vec(), version: entry.version.to_vec() });
    Loaded { entry, now_ms: None }
}
