//! The bucket of `wasi:keyvalue` that the host gives, and its clock and randomness.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use crate::bindings::circuitry::breaker::types::StoreError;
use crate::bindings::wasi::cli::environment::get_environment;
use crate::bindings::wasi::clocks::wall_clock;
use crate::bindings::wasi::keyvalue::atomics::Cas;
use crate::bindings::wasi::keyvalue::store::{self, Bucket, Error};
use crate::bindings::wasi::random::random::get_random_bytes;
use crate::envelope::{Envelope, Version};
use crate::key::key;

/// The bucket's name.
const BUCKET: Variable = Variable { name: "CIRCUITRY_KEYVALUE_BUCKET", default: "default" };
/// What every key begins with.
const PREFIX: Variable = Variable { name: "CIRCUITRY_KEYVALUE_PREFIX", default: "circuitry." };
/// So that a key stays below the 250 bytes that some stores take.
const PREFIX_MAX_BYTES: usize = 64;

/// The most bytes that a circuit's name may have.
const NAME_MAX_BYTES: usize = 1024;

/// So much of a host's message is passed on.
const MESSAGE_MAX_BYTES: usize = 512;

/// A variable of the environment, and its value where it is not set.
struct Variable {
    name: &'static str,
    default: &'static str,
}

impl Variable {
    fn of(&self, environment: &[(String, String)]) -> String {
        // Of equal ones the last counts, as in the other components.
        let set = environment.iter().rfind(|(name, _)| name == self.name);
        set.map_or(self.default, |(_, value)| value).into()
    }
}

/// Where an entry is, for messages too.
struct Address {
    bucket: String,
    key: String,
}

impl fmt::Display for Address {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "the key {:?} in the bucket {:?}", self.key, self.bucket)
    }
}

impl Address {
    /// What the host's `error` means for an `operation` here, if it was one that writes nothing.
    fn error(&self, operation: &str, error: Error) -> StoreError {
        match error {
            Error::NoSuchStore => StoreError::Other(format!(
                "{operation} of {self}: the host has no such bucket; set {} to the name of one that it has",
                BUCKET.name
            )),
            Error::AccessDenied => StoreError::Denied(format!(
                "{operation} of {self}: the host gives this component no access to the bucket; grant it there"
            )),
            Error::Other(text) => {
                StoreError::Unavailable(format!("{operation} of {self}: the host says: {}", shortened(&text)))
            }
        }
    }
}

/// The place of one circuit's entry in an open bucket. It outlives every handle that it gives.
pub(crate) struct Place<'circuit> {
    circuit: &'circuit str,
    address: Address,
    bucket: Bucket,
}

impl fmt::Display for Place<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.address.fmt(formatter)
    }
}

impl<'circuit> Place<'circuit> {
    /// Opens the bucket.
    pub(crate) fn of(circuit: &'circuit str) -> Result<Self, StoreError> {
        check_name(circuit)?;
        let environment = get_environment();
        let prefix = PREFIX.of(&environment);
        if prefix.len() > PREFIX_MAX_BYTES {
            return Err(StoreError::Other(format!(
                "{} has {} bytes; shorten it to at most {PREFIX_MAX_BYTES}",
                PREFIX.name,
                prefix.len()
            )));
        }
        let address = Address { bucket: BUCKET.of(&environment), key: key(&prefix, circuit) };
        let bucket = store::open(&address.bucket).map_err(|error| address.error("open", error))?;
        Ok(Self { circuit, address, bucket })
    }

    /// The bytes under the key.
    pub(crate) fn read(&self) -> Result<Option<Vec<u8>>, StoreError> {
        self.bucket.get(&self.address.key).map_err(|error| self.error("load", error))
    }

    /// Begins a compare-and-swap.
    pub(crate) fn begin(&self) -> Result<Cas, StoreError> {
        Cas::new(&self.bucket, &self.address.key).map_err(|error| self.error("swap", error))
    }

    /// The bytes that `cas` is about to replace.
    pub(crate) fn current(&self, cas: &Cas) -> Result<Option<Vec<u8>>, StoreError> {
        cas.current().map_err(|error| self.error("swap", error))
    }

    /// What the host's `error` means for an `operation` that writes nothing.
    pub(crate) fn error(&self, operation: &str, error: Error) -> StoreError {
        self.address.error(operation, error)
    }

    /// The entry that `bytes` are, alive or over. What is not an entry of this circuit is an error: it stays as it is.
    pub(crate) fn entry<'bytes>(
        &self,
        bytes: Option<&'bytes [u8]>,
    ) -> Result<Option<Envelope<'bytes>>, StoreError> {
        let Some(bytes) = bytes else { return Ok(None) };
        let envelope = Envelope::decode(bytes).map_err(|what| {
            StoreError::Other(format!(
                "{self} has {what}; it is left as it is. Remove it, or set {} to a prefix that nobody else uses",
                PREFIX.name
            ))
        })?;
        if envelope.circuit != self.circuit {
            return Err(StoreError::Other(format!(
                "{self} has the entry of another circuit than {:?}; it is left as it is. Set {} to a prefix that nobody \
                 else uses, and use a bucket that tells upper from lower case",
                self.circuit, PREFIX.name
            )));
        }
        Ok(Some(envelope))
    }
}

fn check_name(circuit: &str) -> Result<(), StoreError> {
    match circuit.len() {
        0 => Err(StoreError::Other("the circuit's name is empty; give it 1 to 1024 bytes".into())),
        length if length > NAME_MAX_BYTES => Err(StoreError::Other(format!(
            "the circuit's name has {length} bytes; shorten it to at most {NAME_MAX_BYTES}"
        ))),
        _ => Ok(()),
    }
}

/// A version that no other write has.
pub(crate) fn mint() -> Result<Version, StoreError> {
    let bytes = get_random_bytes(Version::default().len() as u64);
    <Version>::try_from(bytes).map_err(|bytes| {
        StoreError::Other(format!(
            "the host gave {} random bytes for a version instead of {}",
            bytes.len(),
            Version::default().len()
        ))
    })
}

/// The host's time, in milliseconds since the Unix epoch.
pub(crate) fn now_ms() -> u64 {
    const MS_IN_S: u64 = 1_000;
    const NS_IN_MS: u32 = 1_000_000;
    let now = wall_clock::now();
    now.seconds.saturating_mul(MS_IN_S).saturating_add((now.nanoseconds / NS_IN_MS).into())
}

/// The text of an error.
pub(crate) fn message(error: &StoreError) -> &str {
    match error {
        StoreError::Unavailable(text)
        | StoreError::Unknown(text)
        | StoreError::Denied(text)
        | StoreError::Other(text) => text,
    }
}

fn shortened(text: &str) -> &str {
    text.get(..text.floor_char_boundary(MESSAGE_MAX_BYTES)).unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(name: &str, value: &str) -> Vec<(String, String)> {
        vec![("PATH".into(), "/bin".into()), (name.into(), value.into())]
    }

    #[test]
    fn a_variable_that_is_set_counts_even_where_it_is_empty() {
        assert_eq!(BUCKET.of(&environment("CIRCUITRY_KEYVALUE_BUCKET", "mine")), "mine");
        assert_eq!(BUCKET.of(&environment("CIRCUITRY_KEYVALUE_BUCKET", "")), "");
        assert_eq!(BUCKET.of(&environment("CIRCUITRY_KEYVALUE_PREFIX", "mine")), "default");
        assert_eq!(PREFIX.of(&environment("CIRCUITRY_KEYVALUE_PREFIX", "")), "");
        assert_eq!(PREFIX.of(&[]), "circuitry.");
    }

    #[test]
    fn of_equal_variables_the_last_counts() {
        let twice = ["one.", "two."].map(|value| environment("CIRCUITRY_KEYVALUE_PREFIX", value)).concat();
        assert_eq!(PREFIX.of(&twice), "two.");
    }

    #[test]
    fn the_longest_prefix_and_name_make_a_key_below_250_bytes() {
        let longest = key(&"p".repeat(PREFIX_MAX_BYTES), &"x".repeat(NAME_MAX_BYTES));
        assert!(longest.len() < 250, "{} bytes", longest.len());
    }

    #[test]
    fn a_long_message_is_cut_between_characters() {
        assert_eq!(shortened("short"), "short");
        let cut = shortened(&"é".repeat(MESSAGE_MAX_BYTES)).len();
        assert_eq!(cut, MESSAGE_MAX_BYTES);
        assert_eq!(shortened(&format!("x{}", "é".repeat(MESSAGE_MAX_BYTES))).len(), MESSAGE_MAX_BYTES - 1);
    }

    #[test]
    fn an_error_says_where_why_and_what_to_do() {
        let address = Address { bucket: "b".into(), key: "circuitry.a".into() };
        let of = |error| address.error("load", error);
        assert!(
            matches!(of(Error::NoSuchStore), StoreError::Other(text) if text.contains("CIRCUITRY_KEYVALUE_BUCKET"))
        );
        assert!(matches!(of(Error::AccessDenied), StoreError::Denied(text) if text.contains("grant it")));
        assert!(matches!(of(Error::Other("reset".into())), StoreError::Unavailable(text)
                if text == r#"load of the key "circuitry.a" in the bucket "b": the host says: reset"#));
    }
}
