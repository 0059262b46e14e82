//! What is stored for a circuit: [`Record`], and its bytes.
//!
//! The bytes are the three letters `CKT`, one byte with the schema number, and a CBOR map (RFC 8949) with small
//! integers for keys. A field that a later schema adds is a new key with a default, so old bytes go on loading.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use crate::applied::{APPLIED_MAX_BYTES, AppliedCall, AppliedCalls, CALLS_KEPT};
use crate::codec::{Reader, Writer};
use crate::request::{AUTHOR_MAX_BYTES, NODE_ID_MAX_BYTES, PROBES_MAX, REASON_MAX_BYTES};
use crate::settings::{RULE_NAME_MAX_BYTES, Settings, VOTES_MAX};
use crate::window::Windows;

/// The schema that this code writes; it reads this one and the one before.
pub const SCHEMA: u8 = 2;
/// How many transitions are kept.
pub const TRANSITIONS_KEPT: usize = 8;

const MAGIC: [u8; 3] = *b"CKT";
/// More than any settings take.
const SETTINGS_MAX_BYTES: usize = 384 + RULE_NAME_MAX_BYTES;
/// Larger than any record can become; what is longer is not ours.
const RECORD_MAX_BYTES: usize = 64 * 1024;

/// What a circuit does with a start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum State {
    /// Admits.
    Closed,
    /// Refuses.
    Open,
    /// Admits a few probes.
    HalfOpen,
}

/// What has been counted since the generation began; each count stops at its largest value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Counts {
    /// Successes and failures.
    pub total: u64,
    /// Successes.
    pub total_successes: u64,
    /// Failures.
    pub total_failures: u64,
    /// Successes since the last failure.
    pub consecutive_successes: u64,
    /// Failures since the last success.
    pub consecutive_failures: u64,
}

/// Names one call of one process, and the probe that the call was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Token {
    /// The process.
    pub node: u64,
    /// The call.
    pub sequence: u64,
}

/// A place in half-open that was given away: a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Probe {
    /// The token of the start that was given the place.
    pub id: Token,
    /// When the lease ends.
    pub deadline_ms: u64,
}

/// Why a circuit changed its state. Each reason but [`TransitionReason::Reset`] belongs to one transition only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TransitionReason {
    /// closed → open.
    Tripped,
    /// open → half-open.
    OpenTimeOver,
    /// half-open → closed.
    ProbesSucceeded,
    /// half-open → open.
    ProbeFailed,
    /// closed → open.
    VotesReached,
    /// half-open → open.
    HalfOpenOverdueOpened,
    /// half-open → closed.
    HalfOpenOverdueClosed,
    /// any → closed.
    Reset,
}

/// The legal transitions: there is no other.
pub const TRANSITIONS: [(State, State, TransitionReason); 10] = [
    (State::Closed, State::Open, TransitionReason::Tripped),
    (State::Closed, State::Open, TransitionReason::VotesReached),
    (State::Open, State::HalfOpen, TransitionReason::OpenTimeOver),
    (State::HalfOpen, State::Closed, TransitionReason::ProbesSucceeded),
    (State::HalfOpen, State::Open, TransitionReason::ProbeFailed),
    (State::HalfOpen, State::Open, TransitionReason::HalfOpenOverdueOpened),
    (State::HalfOpen, State::Closed, TransitionReason::HalfOpenOverdueClosed),
    (State::Closed, State::Closed, TransitionReason::Reset),
    (State::Open, State::Closed, TransitionReason::Reset),
    (State::HalfOpen, State::Closed, TransitionReason::Reset),
];

/// A change of state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Transition {
    /// The state before.
    pub previous: State,
    /// The state after.
    pub next: State,
    /// Why.
    pub reason: TransitionReason,
    /// When, in store time.
    pub at_ms: u64,
    /// The era that began.
    pub era: u64,
    /// The generation counted from then on.
    pub generation: u64,
    /// The call that did it, so that a repeated one can be told again.
    pub by: Token,
}

/// What a person can force.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OverrideKind {
    /// Every start is refused.
    ForcedOpen,
    /// Every start is admitted and nothing trips.
    ForcedClosed,
    /// Every start is admitted and nothing is counted.
    Disabled,
    /// All goes on as ever, but nobody is refused.
    MetricsOnly,
}

/// A state set by a person.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Override {
    /// What is forced.
    pub kind: OverrideKind,
    /// Who set it.
    pub author: String,
    /// Why.
    pub reason: String,
    /// When it ends; `None`: when somebody takes it away.
    pub until_ms: Option<u64>,
}

/// A node that tripped for itself.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Vote {
    /// The node, as its settings name it.
    pub node_id: String,
    /// When.
    pub at_ms: u64,
}

/// What made a circuit open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TripKind {
    /// A rule.
    ConsecutiveFailures,
    /// A rule.
    FailureCount,
    /// A rule.
    FailureRate,
    /// A rule.
    SlowCallRate,
    /// A rule of the user's own.
    Custom,
    /// A probe that failed.
    Probe,
    /// A half-open phase that took too long.
    Overdue,
    /// Nodes that voted.
    Votes,
}

/// Why a circuit opened last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Trip {
    /// What made it open.
    pub kind: TripKind,
    /// What was found.
    pub observed: u64,
    /// With what it opens.
    pub threshold: u64,
    /// The calls that were looked at.
    pub calls: u64,
    /// When.
    pub at_ms: u64,
    /// How long it opened for.
    pub open_for_ms: u64,
}

/// The settings that every process decides by.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct InForce {
    /// [`Settings::fingerprint`].
    pub fingerprint: u64,
    /// The settings, encoded: read only by who has others.
    pub bytes: Vec<u8>,
}

impl InForce {
    /// Puts `settings` in force.
    pub fn new(settings: &Settings) -> Self {
        Self { fingerprint: settings.fingerprint(), bytes: settings.to_bytes() }
    }

    /// The settings, with an `idle_retention_ms` that everybody says for himself.
    ///
    /// # Errors
    /// [`RecordError`] where they are damaged or cannot be used.
    pub fn settings(&self, idle_retention_ms: u64) -> Result<Settings, RecordError> {
        let Some(settings) = Settings::from_bytes(&self.bytes, idle_retention_ms) else {
            return Err(malformed("the settings in force are damaged"));
        };
        match settings.check() {
            Ok(()) => Ok(settings),
            Err(error) => Err(malformed(format!("the settings in force cannot be used: {}", error.field))),
        }
    }
}

/// The state with what belongs to it alone.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Status {
    /// Admits.
    Closed {
        /// When the counts read as zero.
        counts_expire_at_ms: Option<u64>,
        /// The calls that the rules look at.
        windows: Windows,
        /// Nodes that tripped for themselves, the last one to vote last.
        votes: Vec<Vote>,
        /// When the ramp's first step began.
        ramp_since_ms: Option<u64>,
    },
    /// Refuses.
    Open {
        /// When the open time ends.
        expires_at_ms: u64,
    },
    /// Admits a few probes.
    HalfOpen {
        /// The places given away, in the order of their starts.
        probes: Vec<Probe>,
        /// How many probes of this phase have succeeded.
        successes: u32,
        /// How many probes of this phase have failed.
        failures: u32,
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
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Record {
    /// How often the record was written.
    pub revision: u64,
    /// Marks this stay in this state.
    pub era: u64,
    /// Counts the resets of the counts.
    pub generation: u64,
    /// When the state was entered.
    pub since_ms: u64,
    /// The state.
    pub status: Status,
    /// The counts.
    pub counts: Counts,
    /// The override, which may be over.
    pub override_set: Option<Override>,
    /// The last transitions, oldest first.
    pub transitions: Vec<Transition>,
    /// The last calls that wrote, oldest first.
    pub applied: AppliedCalls,
    /// The settings in force; records of schema 1 have none.
    pub in_force: Option<InForce>,
    /// Why the circuit opened last.
    pub last_trip: Option<Trip>,
    /// How many trips there were since the circuit was healthy.
    pub trips_in_a_row: u32,
    /// Applied calls of this revision or a lower one may be missing from `applied`, for want of room.
    pub forgotten_until: u64,
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
    /// What an unknown circuit begins with: closed, nothing counted.
    pub(crate) fn beginning(era: u64, since_ms: u64) -> Self {
        let windows = Windows::default();
        Self {
            revision: 0,
            era,
            generation: 0,
            since_ms,
            status: Status::Closed {
                counts_expire_at_ms: None,
                windows,
                votes: Vec::new(),
                ramp_since_ms: None,
            },
            counts: Counts::default(),
            override_set: None,
            transitions: Vec::new(),
            applied: AppliedCalls::default(),
            in_force: None,
            last_trip: None,
            trips_in_a_row: 0,
            forgotten_until: 0,
        }
    }

    /// Reads stored bytes.
    ///
    /// # Errors
    /// [`RecordError`], which says what the bytes are instead of a record that this code can use.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, RecordError> {
        Self::boxed_from_bytes(bytes).map(|record| *record)
    }

    /// The same, where it stays: a record is large, and a decision hands it on several times.
    pub(crate) fn boxed_from_bytes(bytes: &[u8]) -> Result<Box<Self>, RecordError> {
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
            1 | SCHEMA => {}
            0 => return Err(malformed("there is no schema 0")),
            newer => return Err(RecordError::NewerSchema(u32::from(newer))),
        }
        let mut reader = Reader::new(body);
        let mut record = Box::new(Self::beginning(0, 0));
        let Some(()) = reader.record(&mut record) else {
            return Err(malformed(format!("it is damaged near byte {} of its body", reader.position())));
        };
        if reader.position() != body.len() {
            return Err(malformed("there are bytes after the end of the record"));
        }
        if schema < SCHEMA && record.applied.check().is_some() {
            // Schema 1 had more room for them.
            record.forget(record.revision);
        }
        record.check_bounds()?;
        Ok(record)
    }

    /// The bytes to store.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(1_024);
        bytes.extend_from_slice(&MAGIC);
        bytes.push(SCHEMA);
        let mut writer = Writer::new(bytes);
        writer.record(self);
        writer.into_bytes()
    }

    /// Drops remembered calls that are too many or too large; the newest is of `revision`.
    fn forget(&mut self, revision: u64) {
        if let Some(kept) = self.applied.trim() {
            // Each of those kept was written by a revision of its own; what was dropped was older.
            self.forgotten_until = self.forgotten_until.max(revision.saturating_sub(kept as u64));
        }
    }

    /// Remembers a call that the next revision writes.
    pub(crate) fn remember(&mut self, call: &AppliedCall) {
        self.applied.append(call);
        self.forget(self.revision.saturating_add(1));
    }

    fn check_bounds(&self) -> Result<(), RecordError> {
        let (probes, votes, node_id) = match &self.status {
            Status::HalfOpen { probes, .. } => (probes.len(), 0, 0),
            Status::Closed { votes, .. } => {
                (0, votes.len(), votes.iter().map(|vote| vote.node_id.len()).max().unwrap_or(0))
            }
            Status::Open { .. } => (0, 0, 0),
        };
        let (author, reason) =
            self.override_set.as_ref().map_or((0, 0), |set| (set.author.len(), set.reason.len()));
        let Some(applied) = self.applied.check() else {
            return Err(malformed("the applied calls are damaged"));
        };
        let sizes = [
            ("probes", probes, PROBES_MAX),
            ("votes", votes, VOTES_MAX as usize),
            ("bytes of a node's id", node_id, NODE_ID_MAX_BYTES),
            ("transitions", self.transitions.len(), TRANSITIONS_KEPT),
            ("applied calls", applied, CALLS_KEPT),
            ("bytes of applied calls", self.applied.size(), APPLIED_MAX_BYTES),
            (
                "bytes of settings",
                self.in_force.as_ref().map_or(0, |in_force| in_force.bytes.len()),
                SETTINGS_MAX_BYTES,
            ),
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
