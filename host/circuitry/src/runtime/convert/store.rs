//! The store's values.

use circuitry_store::{Entry, Loaded, StoreError, Swapped, Version};

use crate::runtime::bindings::circuitry::breaker::types;

impl From<Loaded> for types::Loaded {
    fn from(loaded: Loaded) -> Self {
        let entry = loaded
            .entry
            .map(|entry| types::Entry { value: entry.value, version: entry.version.into_bytes() });
        Self { entry, now_ms: loaded.now_ms }
    }
}

impl From<types::Loaded> for Loaded {
    fn from(loaded: types::Loaded) -> Self {
        let entry = loaded
            .entry
            .map(|entry| Entry { value: entry.value, version: Version::from_bytes(entry.version) });
        Self { entry, now_ms: loaded.now_ms }
    }
}

impl From<Swapped> for types::Swapped {
    fn from(swapped: Swapped) -> Self {
        match swapped {
            Swapped::Stored(receipt) => {
                Self::Stored(types::Receipt { version: receipt.version.into_bytes(), now_ms: receipt.now_ms })
            }
            Swapped::Conflict(loaded) => Self::Conflict(loaded.into()),
        }
    }
}

impl From<&StoreError> for types::StoreError {
    fn from(error: &StoreError) -> Self {
        let text = error.to_string();
        match error {
            StoreError::Unavailable { .. } => Self::Unavailable(text),
            StoreError::Unknown { .. } => Self::Unknown(text),
            StoreError::Denied { .. } => Self::Denied(text),
            _ => Self::Other(text),
        }
    }
}
