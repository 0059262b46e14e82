//! What a store as a component answers, as a store of circuitry answers it.

use circuitry_store::{StoreError, Version};
use circuitry_tests::contract::{Loaded, StoreError as WitError, Swapped};

pub(crate) type Answer<T> = Result<T, WitError>;

pub(crate) fn swapped(answer: Answer<Swapped>) -> Result<circuitry_store::Swapped, StoreError> {
    match answer.map_err(error)? {
        Swapped::Stored(receipt) => Ok(circuitry_store::Swapped::Stored(circuitry_store::Receipt {
            version: Version::from_bytes(receipt.version),
            now_ms: receipt.now_ms,
        })),
        Swapped::Conflict(fresh) => Ok(circuitry_store::Swapped::Conflict(loaded(fresh))),
    }
}

pub(crate) fn loaded(loaded: Loaded) -> circuitry_store::Loaded {
    let entry = loaded.entry.map(|entry| circuitry_store::Entry {
        value: entry.value,
        version: Version::from_bytes(entry.version),
    });
    circuitry_store::Loaded { entry, now_ms: loaded.now_ms }
}

pub(crate) fn error(error: WitError) -> StoreError {
    match error {
        WitError::Unavailable(text) => StoreError::unavailable(text, "the host"),
        WitError::Unknown(text) => StoreError::unknown(text, "the host"),
        WitError::Denied(text) => StoreError::denied(text, "the host"),
        WitError::Other(text) => StoreError::rejected(text),
    }
}
