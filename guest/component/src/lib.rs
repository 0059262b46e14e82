//! circuitry as a WebAssembly component: bindings to [`circuitry_core`], and nothing that decides.
//!
//! - this file: the world's exports, each one call into the core
//! - [`store`]: the imported store and hooks, as the core sees them
//! - [`convert`]: the types of `wit/` from and to those of the core
#![cfg_attr(target_family = "wasm", no_std)]

extern crate alloc;

mod convert;
mod store;

use alloc::string::String;
use alloc::vec::Vec;

use circuitry_core::request::Operation;
use circuitry_core::{Request, decide, run};

use crate::bindings::circuitry::breaker::types;
use crate::bindings::exports::circuitry::breaker::{breaker, exchange};
use crate::convert::{answer_from_core, failure_from_core, wrong_answer};
use crate::store::{ImportedHooks, ImportedStore};

#[allow(unreachable_pub, missing_docs, clippy::all, clippy::restriction, reason = "generated from wit/")]
mod bindings {
    wit_bindgen::generate!({
        path: "../../wit",
        world: "circuitry",
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

/// Runs one operation and takes the answer of its kind out.
#[allow(clippy::result_large_err, reason = "the shape of the error is the one of wit/")]
fn call<T>(
    circuit: String,
    settings: types::Settings,
    operation: Operation,
    known: Option<types::Loaded>,
    now_ms: u64,
    take: impl FnOnce(exchange::Answer) -> Option<T>,
) -> Result<(T, types::Loaded), types::Failure> {
    let request = Request { circuit, settings: settings.into(), operation };
    let (answer, seen) = answer(&request, known, now_ms)?;
    match take(answer) {
        Some(answer) => Ok((answer, seen)),
        None => Err(wrong_answer()),
    }
}

/// Apart from [`call`], of which there is one for each kind of answer.
#[inline(never)]
#[allow(clippy::result_large_err, reason = "the shape of the error is the one of wit/")]
fn answer(
    request: &Request,
    known: Option<types::Loaded>,
    now_ms: u64,
) -> Result<(exchange::Answer, types::Loaded), types::Failure> {
    match run(request, known.map(Into::into), now_ms, &mut ImportedStore, &mut ImportedHooks) {
        Ok((answer, seen)) => Ok((answer_from_core(answer), seen.into())),
        Err(failure) => Err(failure_from_core(failure)),
    }
}

impl breaker::Guest for Component {
    fn check(settings: types::Settings) -> Result<breaker::Fingerprint, types::SettingsError> {
        let settings = circuitry_core::Settings::from(settings);
        settings.check()?;
        Ok(settings.fingerprint())
    }

    fn start(
        circuit: String,
        settings: types::Settings,
        caller: types::Caller,
        known: Option<types::Loaded>,
        now_ms: u64,
    ) -> Result<(types::Started, types::Loaded), types::Failure> {
        call(circuit, settings, Operation::Start(caller.into()), known, now_ms, |answer| match answer {
            exchange::Answer::Started(started) => Some(started),
            _ => None,
        })
    }

    fn end(
        circuit: String,
        settings: types::Settings,
        caller: types::Caller,
        known: Option<types::Loaded>,
        completions: Vec<types::Completion>,
        now_ms: u64,
    ) -> Result<(types::Settled, types::Loaded), types::Failure> {
        let completions = completions.into_iter().map(Into::into).collect();
        call(circuit, settings, Operation::End(caller.into(), completions), known, now_ms, |answer| {
            match answer {
                exchange::Answer::Settled(settled) => Some(settled),
                _ => None,
            }
        })
    }

    fn renew(
        circuit: String,
        settings: types::Settings,
        caller: types::Caller,
        known: Option<types::Loaded>,
        era: u64,
        probes: Vec<types::Token>,
        now_ms: u64,
    ) -> Result<(types::Renewed, types::Loaded), types::Failure> {
        let probes = probes.into_iter().map(Into::into).collect();
        let operation = Operation::Renew { caller: caller.into(), era, probes };
        call(circuit, settings, operation, known, now_ms, |answer| match answer {
            exchange::Answer::Renewed(renewed) => Some(renewed),
            _ => None,
        })
    }

    fn inspect(
        circuit: String,
        settings: types::Settings,
        known: Option<types::Loaded>,
        now_ms: u64,
    ) -> Result<(types::Information, types::Loaded), types::Failure> {
        call(circuit, settings, Operation::Inspect, known, now_ms, |answer| match answer {
            exchange::Answer::Inspected(information) => Some(information),
            _ => None,
        })
    }

    fn set_override(
        circuit: String,
        settings: types::Settings,
        caller: types::Caller,
        known: Option<types::Loaded>,
        wanted: Option<types::Override>,
        now_ms: u64,
    ) -> Result<(types::Overridden, types::Loaded), types::Failure> {
        let operation = Operation::SetOverride(caller.into(), wanted.map(Into::into));
        call(circuit, settings, operation, known, now_ms, |answer| match answer {
            exchange::Answer::Overridden(overridden) => Some(overridden),
            _ => None,
        })
    }

    fn vote(
        circuit: String,
        settings: types::Settings,
        caller: types::Caller,
        known: Option<types::Loaded>,
        era: u64,
        node_id: String,
        now_ms: u64,
    ) -> Result<(types::Voted, types::Loaded), types::Failure> {
        let operation = Operation::Vote { caller: caller.into(), era, node_id };
        call(circuit, settings, operation, known, now_ms, |answer| match answer {
            exchange::Answer::Voted(voted) => Some(voted),
            _ => None,
        })
    }

    fn reset(
        circuit: String,
        settings: types::Settings,
        caller: types::Caller,
        known: Option<types::Loaded>,
        now_ms: u64,
    ) -> Result<(types::Cleared, types::Loaded), types::Failure> {
        call(circuit, settings, Operation::Reset(caller.into()), known, now_ms, |answer| match answer {
            exchange::Answer::Cleared(cleared) => Some(cleared),
            _ => None,
        })
    }
}

impl exchange::Guest for Component {
    fn decide(request: exchange::Request, loaded: types::Loaded, now_ms: u64) -> exchange::Decision {
        match decide(&request.into(), &loaded.into(), now_ms, &mut ImportedHooks) {
            Ok(decision) => decision.into(),
            Err(error) => exchange::Decision::Done(exchange::Answer::Failed(error.into())),
        }
    }
}
