//! `circuitry.wasm`, the state machine of circuitry as a WebAssembly component, with its digest and its WIT.
//!
//! A component of WASI 0.2 that needs no WASI import: it imports functions from `circuitry:breaker/store` and
//! `circuitry:breaker/hooks` only, so any component-model host can load it. The file is committed and rebuilt from
//! source by the project's tests, which compare the bytes; `circuitry.wasm.builder` names the compiler they are of.
//!
//! ```
//! assert_eq!(&circuitry_component::WASM[..4], b"\0asm");
//! println!("{} bytes, SHA-256 {}", circuitry_component::WASM.len(), circuitry_component::SHA256);
//! ```

/// The component's bytes.
pub const WASM: &[u8] = include_bytes!("../circuitry.wasm");

/// The SHA-256 of [`WASM`], in hexadecimal.
pub const SHA256: &str = include_str!("../circuitry.wasm.sha256").split_at(64).0;

/// `rustc -vV` of the compiler that built [`WASM`].
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

#[cfg(test)]
mod tests {
    use sha2::{Digest, Sha256};

    #[test]
    fn the_digest_is_the_one_of_the_bytes() {
        assert_eq!(super::SHA256, hex::encode(Sha256::digest(super::WASM)));
    }
}
