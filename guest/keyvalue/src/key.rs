//! The key of a circuit: its prefix and its name, in characters that every store takes.
//!
//! Letters, digits, `-` and `_` stand for themselves, every other byte of the name is `=` and two hexadecimal digits:
//! `emails/acme` is `emails=2Facme`. A name that comes to more than [`PLAIN_MAX_BYTES`] so is `==` and its SHA-256 in
//! hexadecimal digits instead. No two names have the same key. A store may yet mix two keys up, for example by the case of
//! their letters; therefore the name itself stands in the entry, and is compared.

use alloc::string::String;
use core::fmt::{Arguments, Write};

use sha2::{Digest, Sha256};

/// The longest encoded name that stands in a key as it is. Some stores take keys of 250 bytes.
const PLAIN_MAX_BYTES: usize = 128;

const ESCAPE: char = '=';

/// The key of `circuit` under `prefix`.
pub(crate) fn key(prefix: &str, circuit: &str) -> String {
    let mut key = String::from(prefix);
    let plain = escaped(circuit);
    if plain.len() <= PLAIN_MAX_BYTES {
        key.push_str(&plain);
    } else {
        key.push(ESCAPE);
        key.push(ESCAPE);
        Sha256::digest(circuit).iter().for_each(|byte| push(&mut key, format_args!("{byte:02x}")));
    }
    key
}

fn escaped(circuit: &str) -> String {
    let mut plain = String::with_capacity(circuit.len());
    for byte in circuit.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' => plain.push(char::from(byte)),
            _ => push(&mut plain, format_args!("{ESCAPE}{byte:02X}")),
        }
    }
    plain
}

fn push(text: &mut String, formatted: Arguments<'_>) {
    // A text takes whatever is written to it.
    let _ = text.write_fmt(formatted);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The name that `key` gives back, where it is not a digest.
    fn unescaped(key: &str) -> Option<Vec<u8>> {
        let mut bytes = Vec::new();
        let mut rest = key;
        while let Some(first) = rest.chars().next() {
            rest = &rest[first.len_utf8()..];
            if first == ESCAPE {
                bytes.push(u8::from_str_radix(rest.get(..2)?, 16).ok()?);
                rest = &rest[2..];
            } else {
                bytes.push(u8::try_from(u32::from(first)).ok()?);
            }
        }
        Some(bytes)
    }

    #[test]
    fn a_usual_name_can_be_read_in_its_key() {
        assert_eq!(key("circuitry.", "emails/acme"), "circuitry.emails=2Facme");
        assert_eq!(key("", "Größe_1-a"), "Gr=C3=B6=C3=9Fe_1-a");
        assert_eq!(key("p", "=2F.\0"), "p=3D2F=2E=00");
    }

    #[test]
    fn a_long_name_is_a_digest_in_its_key() {
        let longest_plain = "x".repeat(PLAIN_MAX_BYTES);
        assert_eq!(key("", &longest_plain), longest_plain);
        let digest = key("circuitry.", &"x".repeat(PLAIN_MAX_BYTES + 1));
        let hexadecimal = digest.strip_prefix("circuitry.==").expect("the mark of a digest");
        assert_eq!(hexadecimal.len(), 64);
        assert_ne!(digest, key("circuitry.", &"x".repeat(PLAIN_MAX_BYTES + 2)));
        // 43 characters that need an escape are as long as that.
        assert!(key("", &"/".repeat(43)).starts_with("=="));
    }

    proptest! {
        #[test]
        fn no_two_names_have_the_same_key(one in "\\PC{1,50}", other in "\\PC{1,50}") {
            prop_assert_eq!(key("p.", &one) == key("p.", &other), one == other);
        }

        #[test]
        fn the_name_comes_back_from_a_key_that_is_no_digest(name in any::<String>()) {
            let key = key("", &name);
            if !key.starts_with("==") {
                prop_assert_eq!(unescaped(&key), Some(name.into_bytes()));
            }
        }

        #[test]
        fn a_key_is_short_and_of_characters_that_every_store_takes(name in any::<String>()) {
            let key = key("", &name);
            prop_assert!(key.len() <= PLAIN_MAX_BYTES, "{} bytes", key.len());
            let usual = |byte: u8| byte.is_ascii_alphanumeric() || b"-_=".contains(&byte);
            prop_assert!(key.bytes().all(usual), "{key}");
        }
    }
}
