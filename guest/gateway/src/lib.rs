//! A `wasi:http` proxy as a WebAssembly component: each upstream, or each tenant of one, stands behind a circuit that it shares
//! with workers of any kind. README.md says how to run it.
//!
//! - [`config`], [`variables`], [`upstream`]: what the environment says, and which server a request goes to
//! - [`circuit`], [`headers`]: the name of its circuit, and which headers go on
//! - `guard`: the circuit, asked through `circuitry:breaker`; `settling` settles an outcome, `attempts` says when to try again, `clock`
//!   has the store's time, `settings` the settings
//! - `proxy`: one request; `pipe` moves a body, `wait` waits, `answer` has the gateway's own answers, `log` its lines
#![cfg_attr(target_family = "wasm", no_std)]
#![cfg_attr(
    not(target_family = "wasm"),
    allow(dead_code, reason = "only a component has the exports that use it")
)]

extern crate alloc;

mod answer;
mod attempts;
mod circuit;
mod clock;
mod config;
mod guard;
mod headers;
mod log;
mod pipe;
mod proxy;
mod settings;
mod settling;
mod upstream;
mod variables;
mod wait;

use wasip2::cli::environment::get_environment;
use wasip2::http::types::{IncomingRequest, Method, ResponseOutparam};

use crate::answer::Own;
use crate::config::Config;

#[allow(unreachable_pub, missing_docs, clippy::all, clippy::restriction, reason = "generated from wit/")]
mod bindings {
    wit_bindgen::generate!({
        path: "../../wit",
        inline: "package circuitry:gateway-guest; world gateway { \
                 import circuitry:breaker/store@0.1.0; import circuitry:breaker/breaker@0.1.0; \
                 import circuitry:breaker/exchange@0.1.0; }",
        world: "circuitry:gateway-guest/gateway",
        generate_all,
    });
}

#[allow(
    unreachable_pub,
    unsafe_code,
    missing_docs,
    clippy::all,
    clippy::restriction,
    reason = "generated from WASI"
)]
mod export {
    use super::Gateway;
    wasip2::http::proxy::export!(Gateway);
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

struct Gateway;

impl wasip2::exports::http::incoming_handler::Guest for Gateway {
    fn handle(request: IncomingRequest, out: ResponseOutparam) {
        match Config::read(&get_environment()) {
            Ok(config) => proxy::serve(&config, request, out),
            Err(fault) => {
                log::line(&fault);
                Own::Misconfigured.send(out, matches!(request.method(), Method::Head));
            }
        }
    }
}
