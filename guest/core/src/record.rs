//! What is stored for a circuit: [`Record`], and its bytes.
//!
//! The bytes are the three letters `CKT`, one byte with the schema number, and a CBOR map (RFC 8949) with small
//! integers for keys. A field that a later schema adds is a new key with a default, so old bytes go on loading.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use minicbor::{Decode, Encode};

use crate::applied::{AppliedCalls, CALLS_KEPT, STALE_BYTES_MAX};
use crate::request::{AUTHOR_MAX_BYTES, PROBES_MAX, REASON_MAX_BYTES};

/// The schema that this code writes; it reads this one and the one before.
pub const SCHEMA: u8 = 1;
/// How many transitions are kept.
pub const TRANSITIONS_KEPT: usize = 8;

const MAGIC: [u8; 3] = *b"CKT";
/// Larger than any record can become; what is longer is not ours.
const RECORD_MAX_BYTES: usize = 64 * 1024;

/// What a circuit does with a start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Encode, Decode)]
#[cbor(index_only)]
pub enum State {
    /// Admits.
    #[n(0)]
    Closed,
    /// Refuses.
    #[n(1)]
    Open,
    /// Admits a few probes.
    #[n(2)]
    HalfOpen,
}

/// What has been counted since the generation began; each count stops at its largest value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Encode, Decode)]
pub struct Counts {
    /// Successes and failures.
    #[n(0)]
    pub total: u64,
    /// Successes.
    #[n(1)]
    pub total_successes: u64,
    /// Failures.
    #[n(2)]
    pub total_failures: u64,
    /// Successes since the last failure.
    #[n(3)]
    pub consecutive_successes: u64,
    /// Failures since the last success.
    #[n(4)]
    pub consecutive_failures: u64,
}

/// Names one call of one process, and the probe that the call was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Encode, Decode)]
pub struct Token {
    /// The process.
    #[n(0)]
    pub node: u64,
    /// The call.
    #[n(1)]
    pub sequence: u64,
}

/// A place in half-open that was given away: a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Encode, Decode)]
pub struct Probe {
    /// The token of the start that was given the place.
    #[n(0)]
    pub id: Token,
    /// When the lease ends.
    #[n(1)]
    pub deadline_ms: u64,
}

/// Why a circuit changed its state. Each reason belongs to one transition only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Encode, Decode)]
#[cbor(index_only)]
pub enum TransitionReason {
    /// closed → open.
    #[n(0)]
    Tripped,
    /// open → half-open.
    #[n(1)]
    OpenTimeOver,
    /// half-open → closed.
    #[n(2)]
    ProbesSucceeded,
    /// half-open → open.
    #[n(3)]
    ProbeFailed,
}

/// The legal transitions: there is no other.
pub const TRANSITIONS: [(State, State, TransitionReason); 4] = [
    (State::Closed, State::Open, TransitionReason::Tripped),
    (State::Open, State::HalfOpen, TransitionReason::OpenTimeOver),
    (State::HalfOpen, State::Closed, TransitionReason::ProbesSucceeded),
    (State::HalfOpen, State::Open, TransitionReason::ProbeFailed),
];

/// A change of state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Encode, Decode)]
pub struct Transition {
    /// The state before.
    #[n(0)]
    pub previous: State,
    /// The state after.
    #[n(1)]
    pub next: State,
    /// Why.
    #[n(2)]
    pub reason: TransitionReason,
    /// When, in store time.
    #[n(3)]
    pub at_ms: u64,
    /// The era that began.
    #[n(4)]
    pub era: u64,
    /// The generation counted from then on.
    #[n(5)]
    pub generation: u64,
    /// The call that did it, so that a repeated one can be told again.
    #[n(6)]
    pub by: Token,
}

/// What a person can force.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Encode, Decode)]
#[cbor(index_only)]
pub enum OverrideKind {
    /// Every start is refused.
    #[n(0)]
    ForcedOpen,
    /// Every start is admitted and nothing trips.
    #[n(1)]
    ForcedClosed,
}

/// A state set by a person.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Encode, Decode)]
pub struct Override {
    /// What is forced.
    #[n(0)]
    pub kind: OverrideKind,
    /// Who set it.
    #[n(1)]
    pub author: String,
    /// Why.
    #[n(2)]
    pub reason: String,
    /// When it ends; `None`: when somebody takes it away.
    #[n(3)]
    pub until_ms: Option<u64>,
}

/// The state with what belongs to it alone.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Encode, Decode)]
pub enum Status {
    /// Admits.
    #[n(0)]
    Closed {
        /// When the counts read as zero.
        #[n(0)]
        counts_expire_at_ms: Option<u64>,
    },
    /// Refuses.
    #[n(1)]
    Open {
        /// When the open time ends.
        #[n(0)]
        expires_at_ms: u64,
    },
    /// Admits a few probes.
    #[n(2)]
    HalfOpen {
        /// The places given away, in the order of their starts.
        #[n(0)]
        probes: Vec<Probe>,
        /// How many probes of this phase have succeeded.
        #[n(1)]
        successes: u32,
    },
}

impl Status {
    /// The state alone.
    pub fn state(&self) -> State {
        match self {
            Self::Closed { .. } => State::Closed,
            Self::Open { .. } => State::Open,
            Self::HalfOpen { .. } => State::HalfOpen,
        }
    }
}

/// What is stored for a circuit.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Encode, Decode)]
#[cbor(map)]
pub struct Record {
    /// How often the record was written.
    #[n(0)]
    pub revision: u64,
    /// Marks this stay in this state.
    #[n(1)]
    pub era: u64,
    /// Counts the resets of the counts.
    #[n(2)]
    pub generation: u64,
    /// When the state was entered.
    #[n(3)]
    pub since_ms: u64,
    /// The state.
    #[n(4)]
    pub status: Status,
    /// The counts.
    #[n(5)]
    pub counts: Counts,
    /// The override, which may be over.
    #[n(6)]
    pub override_set: Option<Override>,
    /// The last transitions, oldest first.
    #[n(7)]
    pub transitions: Vec<Transition>,
    /// The last calls that wrote, oldest first.
    #[n(8)]
    pub applied: AppliedCalls,
}

/// Stored bytes that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RecordError {
    /// Not a record, or a damaged one.
    Malformed(String),
    /// A record of a newer schema.
    NewerSchema(u32),
}

fn malformed(problem: impl Into<String>) -> RecordError {
    RecordError::Malformed(problem.into())
}

impl Record {
    /// Reads stored bytes.
    ///
    /// # Errors
    /// [`RecordError`], which says what the bytes are instead of a record that this code can use.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, RecordError> {
        if bytes.len() > RECORD_MAX_BYTES {
            return Err(malformed(format!("{} bytes are more than any record has", bytes.len())));
        }
        let Some((&[c, k, t, schema], body)) = bytes.split_first_chunk::<4>() else {
            return Err(malformed(format!("{} bytes are too few for a record", bytes.len())));
        };
        if [c, k, t] != MAGIC {
            return Err(malformed("the bytes do not begin with \"CKT\", so something else was stored here"));
        }
        match schema {
            SCHEMA => {}
            0 => return Err(malformed("there is no schema 0")),
            newer => return Err(RecordError::NewerSchema(u32::from(newer))),
        }
        let mut decoder = minicbor::Decoder::new(body);
        // The library's error would bring its formatting, three kilobytes of the component.
        let Ok(record) = decoder.decode::<Self>() else {
            return Err(malformed(format!("it is damaged near byte {} of its body", decoder.position())));
        };
        if decoder.position() != body.len() {
            return Err(malformed("there are bytes after the end of the record"));
        }
        record.check_bounds()?;
        Ok(record)
    }

    /// The bytes to store.
    ///
    /// # Errors
    /// None in practice: memory takes every write. It is an error and not a panic all the same, because the guest has
    /// no panics.
    pub fn to_bytes(&self) -> Result<Vec<u8>, RecordError> {
        let mut bytes = Vec::with_capacity(512);
        bytes.extend_from_slice(&MAGIC);
        bytes.push(SCHEMA);
        minicbor::encode(self, &mut bytes).map_err(|_| malformed("the record cannot be encoded"))?;
        Ok(bytes)
    }

    fn check_bounds(&self) -> Result<(), RecordError> {
        let probes = match &self.status {
            Status::HalfOpen { probes, .. } => probes.len(),
            Status::Closed { .. } | Status::Open { .. } => 0,
        };
        let (author, reason) =
            self.override_set.as_ref().map_or((0, 0), |set| (set.author.len(), set.reason.len()));
        let Some(stale) = self.applied.most_stale_bytes() else {
            return Err(malformed("the applied calls are damaged"));
        };
        let sizes = [
            ("probes", probes, PROBES_MAX),
            ("transitions", self.transitions.len(), TRANSITIONS_KEPT),
            ("applied calls", self.applied.len(), CALLS_KEPT),
            ("bytes of stale bits", stale, STALE_BYTES_MAX),
            ("bytes of an override's author", author, AUTHOR_MAX_BYTES),
            ("bytes of an override's reason", reason, REASON_MAX_BYTES),
        ];
        for (what, size, most) in sizes {
            if size > most {
                return Err(malformed(format!("{size} {what} are over the bound of {most}")));
            }
        }
        Ok(())
    }
}
