//! What is stored under a key: the record with its version, its deadline and its circuit's name.
//!
//! ```text
//! "CRKV" | schema, 1 | version, 16 bytes | deadline, u64 | length, u16, and name | length, u32, and value
//! ```
//!
//! Numbers are big-endian. The deadline is in milliseconds since the Unix epoch; the greatest number means for ever. What a
//! store gives back may be anything: whatever is not an envelope is told from one, and nothing panics.

use alloc::vec::Vec;
use core::fmt;

const MAGIC: [u8; 4] = *b"CRKV";
const SCHEMA: u8 = 1;
const FOR_EVER: u64 = u64::MAX;
/// So many bytes of what is not ours are shown.
const SHOWN_BYTES: usize = 8;

/// The version of a write.
pub(crate) type Version = [u8; 16];

/// What is stored under a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Envelope<'bytes> {
    pub(crate) version: Version,
    /// When the entry ends, in milliseconds since the Unix epoch.
    pub(crate) deadline_ms: Option<u64>,
    pub(crate) circuit: &'bytes str,
    pub(crate) value: &'bytes [u8],
}

/// Why bytes are not an envelope.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum NotAnEnvelope {
    /// Somebody else's bytes.
    Foreign { length: usize, begin: Vec<u8> },
    /// An envelope of a schema that came after this one.
    Newer(u8),
    /// It begins like an envelope, and is none.
    Damaged(&'static str),
}

impl fmt::Display for NotAnEnvelope {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Foreign { length: 0, .. } => {
                formatter.write_str("an empty value, which is no entry of a circuit")
            }
            Self::Foreign { length, begin } => {
                write!(formatter, "{length} bytes that are no entry of a circuit, beginning with ")?;
                begin.iter().try_for_each(|byte| write!(formatter, "{byte:02x}"))
            }
            Self::Newer(schema) => write!(
                formatter,
                "an entry of schema {schema}, and this adapter knows {SCHEMA}: deploy a newer one"
            ),
            Self::Damaged(what) => write!(formatter, "a damaged entry: {what}"),
        }
    }
}

impl<'bytes> Envelope<'bytes> {
    /// Whether the entry is over at `now_ms`.
    pub(crate) fn is_over(&self, now_ms: u64) -> bool {
        self.deadline_ms.is_some_and(|deadline_ms| deadline_ms <= now_ms)
    }

    /// The bytes to store; `None` when name or value are longer than an envelope can say.
    pub(crate) fn encode(&self) -> Option<Vec<u8>> {
        let name_length = u16::try_from(self.circuit.len()).ok()?;
        let value_length = u32::try_from(self.value.len()).ok()?;
        let parts: [&[u8]; 8] = [
            &MAGIC,
            &[SCHEMA],
            &self.version,
            &self.deadline_ms.unwrap_or(FOR_EVER).to_be_bytes(),
            &name_length.to_be_bytes(),
            self.circuit.as_bytes(),
            &value_length.to_be_bytes(),
            self.value,
        ];
        Some(parts.concat())
    }

    /// Reads what a store gave.
    pub(crate) fn decode(bytes: &'bytes [u8]) -> Result<Self, NotAnEnvelope> {
        let foreign = || NotAnEnvelope::Foreign {
            length: bytes.len(),
            begin: bytes.iter().copied().take(SHOWN_BYTES).collect(),
        };
        let mut reader = Reader(bytes);
        if reader.array() != Some(MAGIC) {
            return Err(foreign());
        }
        match reader.array() {
            Some([SCHEMA]) => {}
            Some([schema]) if schema > SCHEMA => return Err(NotAnEnvelope::Newer(schema)),
            _ => return Err(NotAnEnvelope::Damaged("it names no schema")),
        }
        let ends_early = NotAnEnvelope::Damaged("it ends early");
        let Some(envelope) = reader.rest_of_envelope() else { return Err(ends_early) };
        if !reader.0.is_empty() {
            return Err(NotAnEnvelope::Damaged("there are bytes after its end"));
        }
        let (version, deadline_ms, circuit, value) = envelope;
        let circuit = core::str::from_utf8(circuit)
            .map_err(|_| NotAnEnvelope::Damaged("its circuit's name is not UTF-8"))?;
        Ok(Self { version, deadline_ms: Some(deadline_ms).filter(|ms| *ms != FOR_EVER), circuit, value })
    }
}

/// Takes bytes from the front, as long as there are some.
struct Reader<'bytes>(&'bytes [u8]);

impl<'bytes> Reader<'bytes> {
    fn take(&mut self, length: usize) -> Option<&'bytes [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn array<const LENGTH: usize>(&mut self) -> Option<[u8; LENGTH]> {
        self.take(LENGTH)?.try_into().ok()
    }

    /// Version, deadline, name and value.
    fn rest_of_envelope(&mut self) -> Option<(Version, u64, &'bytes [u8], &'bytes [u8])> {
        let version = self.array()?;
        let deadline_ms = u64::from_be_bytes(self.array()?);
        let name_length = u16::from_be_bytes(self.array()?);
        let name = self.take(name_length.into())?;
        let value_length = u32::from_be_bytes(self.array()?);
        let value = self.take(usize::try_from(value_length).ok()?)?;
        Some((version, deadline_ms, name, value))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bytes_of(circuit: &str, value: &[u8], deadline_ms: Option<u64>) -> Vec<u8> {
        Envelope { version: [7; 16], deadline_ms, circuit, value }.encode().expect("it is short enough")
    }

    #[test]
    fn the_layout_is_the_one_that_the_module_tells() {
        let bytes = bytes_of("ab", b"xyz", Some(258));
        let expected = [
            b"CRKV\x01".as_slice(),
            &[7; 16],
            &[0, 0, 0, 0, 0, 0, 1, 2],
            &[0, 2],
            b"ab",
            &[0, 0, 0, 3],
            b"xyz",
        ];
        assert_eq!(bytes, expected.concat());
    }

    #[test]
    fn an_entry_is_over_at_its_deadline_and_not_before() {
        let envelope = Envelope { version: [0; 16], deadline_ms: Some(1_000), circuit: "a", value: b"" };
        assert!(!envelope.is_over(999));
        assert!(envelope.is_over(1_000));
        assert!(!Envelope { deadline_ms: None, ..envelope }.is_over(u64::MAX));
    }

    #[test]
    fn the_greatest_deadline_is_for_ever() {
        let bytes = bytes_of("a", b"", Some(u64::MAX));
        assert_eq!(Envelope::decode(&bytes).expect("an envelope").deadline_ms, None);
    }

    #[test]
    fn what_is_not_ours_is_told_from_what_is_damaged_and_from_what_is_newer() {
        let ours = bytes_of("a", b"value", None);
        let newer = [b"CRKV\x02".as_slice(), &ours[5..]].concat();
        let trailing = [ours.as_slice(), b"x"].concat();
        let not_utf8 = [&ours[..31], b"\xff", &ours[32..]].concat();
        for (bytes, message) in [
            (b"".as_slice(), "an empty value, which is no entry of a circuit"),
            (b"hello, world", "12 bytes that are no entry of a circuit, beginning with 68656c6c6f2c2077"),
            (b"CRK", "3 bytes that are no entry of a circuit, beginning with 43524b"),
            (b"CRKV", "a damaged entry: it names no schema"),
            (b"CRKV\0", "a damaged entry: it names no schema"),
            (&newer, "an entry of schema 2, and this adapter knows 1: deploy a newer one"),
            (&trailing, "a damaged entry: there are bytes after its end"),
            (&not_utf8, "a damaged entry: its circuit's name is not UTF-8"),
        ] {
            let error = Envelope::decode(bytes).expect_err("no envelope");
            assert_eq!(error.to_string(), message);
        }
        for length in 5..ours.len() {
            assert_eq!(Envelope::decode(&ours[..length]), Err(NotAnEnvelope::Damaged("it ends early")));
        }
    }

    #[test]
    fn a_name_that_no_envelope_can_hold_is_not_cut() {
        let circuit = "x".repeat(usize::from(u16::MAX) + 1);
        assert_eq!(
            Envelope { version: [0; 16], deadline_ms: None, circuit: &circuit, value: b"" }.encode(),
            None
        );
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            version: Version,
            deadline_ms in prop::option::of(0..u64::MAX),
            circuit in any::<String>(),
            value: Vec<u8>,
        ) {
            let envelope = Envelope { version, deadline_ms, circuit: &circuit, value: &value };
            let bytes = envelope.encode().expect("it is short enough");
            prop_assert_eq!(Envelope::decode(&bytes), Ok(envelope));
        }

        #[test]
        fn no_bytes_panic(bytes: Vec<u8>) {
            let _ = Envelope::decode(&bytes).map_err(|error| error.to_string());
        }

        /// Of all that differ in one byte and are taken for envelopes, each is another one.
        #[test]
        fn a_damaged_envelope_is_never_the_same_one(at: prop::sample::Index, by in 1..=u8::MAX, value: Vec<u8>) {
            let mut bytes = bytes_of("circuit", &value, Some(1));
            let original = bytes.clone();
            let at = at.index(bytes.len());
            bytes[at] ^= by;
            if let Ok(envelope) = Envelope::decode(&bytes) {
                prop_assert_ne!(Ok(envelope), Envelope::decode(&original));
            }
        }
    }
}
