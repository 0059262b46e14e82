//! The core, called as a library. Only tests do: everything else runs the component.
//!
//! - this file: the machine
//! - `settings`, `asked`, `answered`: the types of the contract from and to those of the core

mod answered;
mod asked;
mod settings;

use circuitry_core::{Hooks, Store, decide, exchange, run};

use crate::contract::{Answer, Decision, Failure, Loaded, Request, Settings, SettingsError, TripQuery};
use crate::machine::Machine;
use crate::memory::Memory;
use crate::rules::will_trip;

/// Enums that have the same cases.
macro_rules! same_cases {
    ($($from:ty => $to:ty { $($case:ident),+ })+) => {
        $(impl From<$from> for $to {
            fn from(given: $from) -> Self {
                match given {
                    $(<$from>::$case => Self::$case,)+
                }
            }
        })+
    };
}
use same_cases;

/// The core with a store in memory.
#[derive(Default)]
pub struct NativeMachine {
    memory: Memory,
}

struct Rules;

impl Hooks for Rules {
    fn will_trip(&mut self, query: &exchange::TripQuery<'_>) -> bool {
        will_trip(&TripQuery {
            circuit: query.circuit.into(),
            rule: query.rule.clone().into(),
            failure_count_threshold: query.failure_count_threshold,
            generation: query.generation,
            counts: query.counts.into(),
        })
    }
}

impl Store for Memory {
    fn load(&mut self, circuit: &str) -> Result<exchange::Loaded, exchange::StoreError> {
        Self::load(self, circuit).map(Into::into).map_err(Into::into)
    }

    fn swap(
        &mut self,
        circuit: &str,
        expected: Option<&[u8]>,
        value: &[u8],
        ttl_ms: Option<u64>,
    ) -> Result<exchange::Swapped, exchange::StoreError> {
        Self::swap(self, circuit, expected, value, ttl_ms).map(Into::into).map_err(Into::into)
    }
}

impl Machine for NativeMachine {
    fn check(&mut self, settings: &Settings) -> Result<u64, SettingsError> {
        let settings = circuitry_core::Settings::from(settings.clone());
        settings.check()?;
        Ok(settings.fingerprint())
    }

    fn decide(&mut self, request: &Request, loaded: &Loaded, now_ms: u64) -> Decision {
        match decide(&request.clone().into(), &loaded.clone().into(), now_ms, &mut Rules) {
            Ok(decision) => decision.into(),
            Err(error) => Decision::Done(Answer::Failed(error.into())),
        }
    }

    fn call(
        &mut self,
        request: &Request,
        known: Option<&Loaded>,
        now_ms: u64,
    ) -> Result<(Answer, Loaded), Failure> {
        let known = known.cloned().map(Into::into);
        let (answer, seen) = run(&request.clone().into(), known, now_ms, &mut self.memory, &mut Rules)?;
        Ok((answer.into(), seen.into()))
    }

    fn memory(&mut self) -> &mut Memory {
        &mut self.memory
    }
}

fn all<T, U: From<T>>(items: Vec<T>) -> Vec<U> {
    items.into_iter().map(Into::into).collect()
}
