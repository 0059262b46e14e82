//! The imported store and hooks, as the core sees them.

use circuitry_core::exchange::{Hooks, Loaded, Store, StoreError, Swapped, TripQuery};

use crate::bindings::circuitry::breaker::{hooks, store};

/// The store that the host supplies.
pub(crate) struct ImportedStore;

impl Store for ImportedStore {
    fn load(&mut self, circuit: &str) -> Result<Loaded, StoreError> {
        store::load(circuit).map(Into::into).map_err(Into::into)
    }

    fn swap(
        &mut self,
        circuit: &str,
        expected: Option<&[u8]>,
        value: &[u8],
        ttl_ms: Option<u64>,
    ) -> Result<Swapped, StoreError> {
        store::swap(circuit, expected, value, ttl_ms).map(Into::into).map_err(Into::into)
    }
}

/// The host's answers to questions.
pub(crate) struct ImportedHooks;

impl Hooks for ImportedHooks {
    fn will_trip(&mut self, query: &TripQuery<'_>) -> bool {
        hooks::will_trip(&hooks::TripQuery {
            circuit: query.circuit.into(),
            rule: query.rule.clone().into(),
            failure_count_threshold: query.failure_count_threshold,
            generation: query.generation,
            counts: query.counts.into(),
        })
    }
}
