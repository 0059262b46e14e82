//! `circuitry.wasm`, the state machine of circuitry as a WebAssembly component, with its digest and its WIT; and
//! `hooks.wasm`, the default trip rule as a component to compose with it.
//!
//! Components of WASI 0.2 that need no WASI import: the first imports functions from `circuitry:breaker/store` and
//! `circuitry:breaker/hooks` only, the second none, so any component-model host can load them. Composed into one, with a
//! component of the world `trip-hooks` that is ours or your own, they import functions from `store` only:
//!
//! ```sh
//! wac plug circuitry.wasm --plug hooks.wasm --output composed.wasm
//! ```
//!
//! The files are committed and rebuilt from source by the project's tests, which compare the bytes;
//! `circuitry.wasm.builder` names the compiler they are of.
//!
//! ```
//! assert_eq!(&circuitry_component::WASM[..4], b"\0asm");
//! println!("{} bytes, SHA-256 {}", circuitry_component::WASM.len(), circuitry_component::SHA256);
//! ```

/// The bytes of `circuitry.wasm`, a component of the world `circuitry`.
pub const WASM: &[u8] = include_bytes!("../circuitry.wasm");

/// The SHA-256 of [`WASM`], in hexadecimal.
pub const SHA256: &str = include_str!("../circuitry.wasm.sha256").split_at(64).0;

/// The bytes of `hooks.wasm`, a component of the world `trip-hooks`: whatever custom rule it is asked for, a circuit trips
/// when its consecutive failures are over `failure-count-threshold`.
pub const HOOKS_WASM: &[u8] = include_bytes!("../hooks.wasm");

/// The SHA-256 of [`HOOKS_WASM`], in hexadecimal.
pub const HOOKS_SHA256: &str = include_str!("../hooks.wasm.sha256").split_at(64).0;

/// `rustc -vV` of the compiler that built [`WASM`] and [`HOOKS_WASM`].
pub const BUILDER: &str = include_str!("../circuitry.wasm.builder");

/// The package `circuitry:breaker` in WIT: each file's name and text.
pub const WIT: [(&str, &str); 6] = [
    ("world.wit", include_str!("../wit/world.wit")),
    ("types.wit", include_str!("../wit/types.wit")),
    ("store.wit", include_str!("../wit/store.wit")),
    ("hooks.wit", include_str!("../wit/hooks.wit")),
    ("breaker.wit", include_str!("../wit/breaker.wit")),
    ("exchange.wit", include_str!("../wit/exchange.wit")),
];

/// The program in the README, as a doctest.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
pub struct Readme;

#[cfg(test)]
mod tests {
    use sha2::{Digest, Sha256};

    #[test]
    fn the_digests_are_those_of_the_bytes() {
        assert_eq!(super::SHA256, hex::encode(Sha256::digest(super::WASM)));
        assert_eq!(super::HOOKS_SHA256, hex::encode(Sha256::digest(super::HOOKS_WASM)));
    }
}
