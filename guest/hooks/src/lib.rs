//! The default trip rule as a WebAssembly component of the world `trip-hooks`, to be composed with `circuitry.wasm`
//! where a host has no hooks of its own. Also where to begin with a rule of one's own.
#![cfg_attr(target_family = "wasm", no_std)]

use crate::bindings::exports::circuitry::breaker::hooks::{Guest, TripQuery};

#[allow(unreachable_pub, missing_docs, clippy::all, clippy::restriction, reason = "generated from wit/")]
mod bindings {
    wit_bindgen::generate!({
        path: "../../wit",
        world: "trip-hooks",
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
    /// The rule `consecutive-failures`, under whatever name it is asked for.
    fn will_trip(query: TripQuery) -> bool {
        query.counts.consecutive_failures > query.failure_count_threshold
    }
}
