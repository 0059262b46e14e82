//! Circuits on Redis as a WebAssembly component: exports `circuitry:breaker/store`, imports `wasi:sockets`.
//!
//! To be composed with `circuitry.wasm`, where a host has no store of its own. What it stores, sends and answers is what
//! the host's adapter (`host/redis`) does, to the byte of the script, so that both share circuits.
//!
//! - [`address`], [`config`]: the server, from the environment
//! - [`resp`], [`answer`]: the protocol, and what answers mean
//! - [`store`]: load and swap over a connection
//! - `link`: the connection, over `wasi:sockets`
//! - this file: the world's exports
#![cfg_attr(target_family = "wasm", no_std)]
#![cfg_attr(
    not(target_family = "wasm"),
    allow(dead_code, reason = "only a component has the exports that use it")
)]

extern crate alloc;

mod address;
mod answer;
mod config;
mod link;
mod resp;
mod store;

use alloc::string::String;
use alloc::vec::Vec;
use core::cell::RefCell;

use wasip2::cli::environment::get_environment;

use crate::answer::Entry;
use crate::bindings::circuitry::breaker::types;
use crate::bindings::exports::circuitry::breaker::store::Guest;
use crate::config::Config;
use crate::link::Socket;
use crate::store::{Loaded, Store, StoreError, Swapped, misconfigured};

#[allow(unreachable_pub, missing_docs, clippy::all, clippy::restriction, reason = "generated from wit/")]
mod bindings {
    wit_bindgen::generate!({
        path: "../../wit",
        inline: "package circuitry:redis-guest; world adapter { export circuitry:breaker/store@0.1.0; }",
        world: "circuitry:redis-guest/adapter",
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

/// The store of this instance, from the first call on: the connection is kept from a load to the swap after it.
struct Kept(RefCell<Option<Result<Store<Socket>, String>>>);

#[allow(unsafe_code, reason = "an instance of a component is entered by one caller at a time")]
/// # Safety
/// A component has one thread.
unsafe impl Sync for Kept {}

static KEPT: Kept = Kept(RefCell::new(None));

fn with_store<T>(
    work: impl FnOnce(&mut Store<Socket>) -> Result<T, StoreError>,
) -> Result<T, types::StoreError> {
    let outcome = match KEPT.0.try_borrow_mut() {
        Ok(mut kept) => match kept.get_or_insert_with(configured) {
            Ok(store) => work(store),
            Err(fault) => Err(misconfigured(fault)),
        },
        Err(_) => Err(misconfigured("the store was called while it was called")),
    };
    outcome.map_err(Into::into)
}

fn configured() -> Result<Store<Socket>, String> {
    let Config { address, prefix, timeout_ms } = Config::read(&get_environment())?;
    let socket = Socket::new(address.host.clone(), address.port);
    Ok(Store::new(socket, address, prefix, timeout_ms))
}

struct Component;

impl Guest for Component {
    fn load(circuit: String) -> Result<types::Loaded, types::StoreError> {
        with_store(|store| store.load(&circuit)).map(Into::into)
    }

    fn swap(
        circuit: String,
        expected: Option<Vec<u8>>,
        value: Vec<u8>,
        ttl_ms: Option<u64>,
    ) -> Result<types::Swapped, types::StoreError> {
        with_store(|store| store.swap(&circuit, expected.as_deref(), &value, ttl_ms)).map(Into::into)
    }
}

impl From<Entry> for types::Entry {
    fn from(entry: Entry) -> Self {
        Self { value: entry.value, version: entry.version }
    }
}

impl From<Loaded> for types::Loaded {
    fn from(loaded: Loaded) -> Self {
        Self { entry: loaded.entry.map(Into::into), now_ms: loaded.now_ms }
    }
}

impl From<Swapped> for types::Swapped {
    fn from(swapped: Swapped) -> Self {
        match swapped {
            Swapped::Stored { version, now_ms } => {
                Self::Stored(types::Receipt { version, now_ms: Some(now_ms) })
            }
            Swapped::Conflict(loaded) => Self::Conflict(loaded.into()),
        }
    }
}

impl From<StoreError> for types::StoreError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Unavailable(text) => Self::Unavailable(text),
            StoreError::Unknown(text) => Self::Unknown(text),
            StoreError::Denied(text) => Self::Denied(text),
            StoreError::Other(text) => Self::Other(text),
        }
    }
}
