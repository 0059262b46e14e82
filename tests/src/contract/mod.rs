//! The types of `wit/`, once: for the component's functions and for the JSON of the vectors.
//!
//! Names in JSON are those of WIT. A number above 2^53 is a text, because not every language reads it as a number.
//!
//! - [`store`]: the store's values
//! - [`settings`], [`circuit`]: how a circuit behaves, and what it is
//! - [`request`], [`answer`]: what is asked, by whom, and what is answered

pub mod answer;
pub mod circuit;
pub mod request;
pub mod settings;
pub mod store;

pub use answer::*;
pub use circuit::*;
pub use request::*;
pub use settings::*;
pub use store::*;

/// Numbers of 64 bits in JSON.
pub mod number {
    use serde::{Deserialize, Deserializer, Serializer};

    /// Every number up to here is exact in every language.
    const EXACT: u64 = 1 << 53;

    #[derive(Deserialize)]
    #[serde(untagged)]
    pub(super) enum Written {
        Number(u64),
        Text(String),
    }

    impl Written {
        pub(super) fn read<E: serde::de::Error>(self) -> Result<u64, E> {
            match self {
                Self::Number(number) => Ok(number),
                Self::Text(text) => text.parse().map_err(E::custom),
            }
        }
    }

    pub fn serialize<S: Serializer>(number: &u64, serializer: S) -> Result<S::Ok, S::Error> {
        if *number > EXACT {
            serializer.serialize_str(&number.to_string())
        } else {
            serializer.serialize_u64(*number)
        }
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
        Written::deserialize(deserializer)?.read()
    }
}

/// The same where there may be none.
pub mod optional_number {
    use serde::ser::SerializeSeq;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::number::{self, Written};

    struct Number(u64);

    impl Serialize for Number {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            number::serialize(&self.0, serializer)
        }
    }

    pub fn serialize<S: Serializer>(number: &Option<u64>, serializer: S) -> Result<S::Ok, S::Error> {
        number.map(Number).serialize(serializer)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
        Option::<Written>::deserialize(deserializer)?.map(Written::read).transpose()
    }

    pub(super) fn each<S: Serializer>(numbers: &[Option<u64>], serializer: S) -> Result<S::Ok, S::Error> {
        let mut list = serializer.serialize_seq(Some(numbers.len()))?;
        for number in numbers {
            list.serialize_element(&number.map(Number))?;
        }
        list.end()
    }
}
