//! [`AppliedCalls`]: the last calls that wrote, so that a repeated one is known.
//!
//! They are most of a record, and a decision looks for one of them or adds one. So they are stored, and kept, as one
//! string of bytes that is walked through, instead of being taken apart and put together by each decision.
//!
//! A call is: the node and the sequence of its token (8 bytes each, little endian), a head, the bits of the stale
//! completions, and where a transition cut a run in two, its index (2 bytes) and how many of it were accepted (4). The
//! head's lower six bits are the number of bytes with bits, its seventh says whether there is a cut.

use alloc::vec::Vec;

use crate::record::Token;
use crate::request::{COMPLETIONS_MAX, Completion, Disposition};

/// How many calls are kept.
pub const CALLS_KEPT: usize = 32;
/// The most bytes of calls that are kept; 32 calls without stale outcomes take 544, each with a cut 736.
pub const APPLIED_MAX_BYTES: usize = 768;

const STALE_BYTES: u8 = 0b0011_1111;
const HAS_CUT: u8 = 0b0100_0000;
/// What a head can be.
const HEAD_BITS: u8 = 0b0111_1111;

/// A call that wrote, with what it was answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppliedCall {
    /// The call.
    pub token: Token,
    /// One bit for each completion, set where it was wholly stale; zero bytes at the end are left out.
    pub stale: Vec<u8>,
    /// The completion that a transition cut in two, and how many of it were accepted.
    pub cut: Option<(u16, u32)>,
}

impl AppliedCall {
    /// A call of which all completions were accepted, or that had none.
    pub fn new(token: Token) -> Self {
        Self { token, stale: Vec::new(), cut: None }
    }

    pub(crate) fn set_stale(&mut self, index: u16) {
        let (byte, bit) = (usize::from(index / 8), index % 8);
        if self.stale.len() <= byte {
            self.stale.resize(byte.saturating_add(1), 0);
        }
        if let Some(bits) = self.stale.get_mut(byte) {
            *bits |= 1 << bit;
        }
    }

    fn is_stale(&self, index: u16) -> bool {
        self.stale.get(usize::from(index / 8)).is_some_and(|bits| bits & (1 << (index % 8)) != 0)
    }

    /// What became of each of `completions`, as it was when the call was applied.
    pub(crate) fn dispositions(&self, completions: &[Completion]) -> Vec<Disposition> {
        let ruled = |(index, completion): (u16, &Completion)| {
            let accepted = match self.cut {
                Some((cut, accepted)) if cut == index => accepted.min(completion.count),
                _ if self.is_stale(index) => 0,
                _ => completion.count,
            };
            Disposition { accepted, stale: completion.count.saturating_sub(accepted) }
        };
        (0_u16..).zip(completions).map(ruled).collect()
    }
}

/// The last calls that wrote, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct AppliedCalls {
    bytes: Vec<u8>,
}

impl AppliedCalls {
    /// The call that `token` names, if it is among them.
    pub fn find(&self, token: Token) -> Option<AppliedCall> {
        let mut rest = self.bytes.as_slice();
        while let Some((call, after)) = View::first(rest) {
            if call.token == token {
                return Some(call.to_call());
            }
            rest = after;
        }
        None
    }

    /// Adds `call`; drops the oldest beyond [`CALLS_KEPT`] calls and [`APPLIED_MAX_BYTES`] bytes. Says how many are left
    /// where it dropped one for its bytes.
    pub fn push(&mut self, call: &AppliedCall) -> Option<usize> {
        self.append(call);
        self.trim()
    }

    /// Drops the oldest beyond [`CALLS_KEPT`] calls and [`APPLIED_MAX_BYTES`] bytes, as [`AppliedCalls::push`] does.
    pub(crate) fn trim(&mut self) -> Option<usize> {
        let mut calls = self.len();
        let mut for_its_bytes = false;
        while calls > CALLS_KEPT || self.bytes.len() > APPLIED_MAX_BYTES {
            for_its_bytes |= calls <= CALLS_KEPT;
            let rest = View::first(&self.bytes).map_or(0, |(_, rest)| rest.len());
            let first = self.bytes.len().saturating_sub(rest);
            self.bytes.drain(..first);
            calls = calls.saturating_sub(1);
        }
        for_its_bytes.then_some(calls)
    }

    pub(crate) fn append(&mut self, call: &AppliedCall) {
        self.bytes.extend_from_slice(&call.token.node.to_le_bytes());
        self.bytes.extend_from_slice(&call.token.sequence.to_le_bytes());
        let stale = call.stale.get(..usize::from(STALE_BYTES).min(call.stale.len())).unwrap_or_default();
        let bits = u8::try_from(stale.len()).unwrap_or(STALE_BYTES);
        self.bytes.push(if call.cut.is_some() { bits | HAS_CUT } else { bits });
        self.bytes.extend_from_slice(stale);
        if let Some((index, accepted)) = call.cut {
            self.bytes.extend_from_slice(&index.to_le_bytes());
            self.bytes.extend_from_slice(&accepted.to_le_bytes());
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.views().count()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// All of them, oldest first.
    pub fn to_vec(&self) -> Vec<AppliedCall> {
        self.views().map(|call| call.to_call()).collect()
    }

    fn views(&self) -> impl Iterator<Item = View<'_>> {
        let mut rest = self.bytes.as_slice();
        core::iter::from_fn(move || {
            let (call, after) = View::first(rest)?;
            rest = after;
            Some(call)
        })
    }

    /// The calls of stored bytes, unread.
    pub(crate) fn from_bytes(bytes: Vec<u8>) -> Self {
        Self { bytes }
    }

    /// The bytes to store.
    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// How many bytes they take.
    pub fn size(&self) -> usize {
        self.bytes.len()
    }

    /// How many there are, where the bytes are calls from beginning to end as this code writes them.
    pub(crate) fn check(&self) -> Option<usize> {
        let (mut rest, mut calls) = (self.bytes.as_slice(), 0_usize);
        while !rest.is_empty() {
            let head = rest.get(HEAD_AT)?;
            let stale = usize::from(head & STALE_BYTES);
            if head & !HEAD_BITS != 0 || stale > STALE_BYTES_MAX {
                return None;
            }
            let cut = if head & HAS_CUT != 0 { CUT_BYTES } else { 0 };
            rest = rest.get(HEAD_AT.saturating_add(1).saturating_add(stale).saturating_add(cut)..)?;
            calls = calls.saturating_add(1);
        }
        Some(calls)
    }
}

/// Where a call's head is: after its token.
const HEAD_AT: usize = 16;
/// The bytes of a cut.
const CUT_BYTES: usize = 6;
/// The most bytes of stale bits that a call can need.
const STALE_BYTES_MAX: usize = COMPLETIONS_MAX / 8;

impl From<Vec<AppliedCall>> for AppliedCalls {
    fn from(calls: Vec<AppliedCall>) -> Self {
        let mut applied = Self::default();
        for call in &calls {
            applied.append(call);
        }
        applied
    }
}

/// A call within the bytes.
struct View<'a> {
    token: Token,
    stale: &'a [u8],
    cut: Option<(u16, u32)>,
}

impl<'a> View<'a> {
    /// The first call and what follows it; `None` at the end, and where the bytes are no call.
    fn first(bytes: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let (node, bytes) = bytes.split_first_chunk::<8>()?;
        let (sequence, bytes) = bytes.split_first_chunk::<8>()?;
        let (head, bytes) = bytes.split_first()?;
        if head & !HEAD_BITS != 0 {
            return None;
        }
        let (stale, mut rest) = bytes.split_at_checked(usize::from(head & STALE_BYTES))?;
        let mut cut = None;
        if head & HAS_CUT != 0 {
            let (index, after) = rest.split_first_chunk::<2>()?;
            let (accepted, after) = after.split_first_chunk::<4>()?;
            cut = Some((u16::from_le_bytes(*index), u32::from_le_bytes(*accepted)));
            rest = after;
        }
        let token = Token { node: u64::from_le_bytes(*node), sequence: u64::from_le_bytes(*sequence) };
        Some((Self { token, stale, cut }, rest))
    }

    fn to_call(&self) -> AppliedCall {
        AppliedCall { token: self.token, stale: self.stale.to_vec(), cut: self.cut }
    }
}
