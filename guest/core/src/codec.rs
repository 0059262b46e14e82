//! The bytes of a record: CBOR (RFC 8949), written and read by hand over minicbor's reader and writer of single items.
//!
//! A derived codec took a third of the component. Most of a record is numbers, and one function reads all groups of them: it looks
//! through nested arrays, so it reads what schema 1 nested (`[[node, sequence], deadline]`) and what this one writes flat.

use alloc::string::String;
use alloc::vec::Vec;

use minicbor::data::Type;
use minicbor::{Decoder, Encoder};

use crate::applied::AppliedCalls;
use crate::numbers::Sink;
use crate::record::{
    Counts, InForce, Override, OverrideKind, Probe, Record, State, Status, Token, Transition,
    TransitionReason, Trip, TripKind, Vote,
};
use crate::window::Windows;

/// The keys of the record's map.
mod key {
    pub(super) const REVISION: u64 = 0;
    pub(super) const ERA: u64 = 1;
    pub(super) const GENERATION: u64 = 2;
    pub(super) const SINCE: u64 = 3;
    pub(super) const STATUS: u64 = 4;
    pub(super) const COUNTS: u64 = 5;
    pub(super) const OVERRIDE: u64 = 6;
    pub(super) const TRANSITIONS: u64 = 7;
    pub(super) const APPLIED: u64 = 8;
    pub(super) const IN_FORCE: u64 = 9;
    pub(super) const LAST_TRIP: u64 = 10;
    pub(super) const TRIPS_IN_A_ROW: u64 = 11;
    pub(super) const FORGOTTEN_UNTIL: u64 = 12;
}

/// The keys that every record has, as bits: all of schema 1 but the override.
const REQUIRED: u32 = 0b1_1011_1111;

const STATES: [State; 3] = [State::Closed, State::Open, State::HalfOpen];
const REASONS: [TransitionReason; 8] = [
    TransitionReason::Tripped,
    TransitionReason::OpenTimeOver,
    TransitionReason::ProbesSucceeded,
    TransitionReason::ProbeFailed,
    TransitionReason::VotesReached,
    TransitionReason::HalfOpenOverdueOpened,
    TransitionReason::HalfOpenOverdueClosed,
    TransitionReason::Reset,
];
const OVERRIDES: [OverrideKind; 4] =
    [OverrideKind::ForcedOpen, OverrideKind::ForcedClosed, OverrideKind::Disabled, OverrideKind::MetricsOnly];
const TRIPS: [TripKind; 8] = [
    TripKind::ConsecutiveFailures,
    TripKind::FailureCount,
    TripKind::FailureRate,
    TripKind::SlowCallRate,
    TripKind::Custom,
    TripKind::Probe,
    TripKind::Overdue,
    TripKind::Votes,
];

/// The number of a case in its list.
fn number_of<T: PartialEq>(cases: &[T], case: T) -> u64 {
    cases.iter().position(|other| *other == case).unwrap_or(0) as u64
}

fn case_of<T: Copy>(cases: &[T], number: u64) -> Option<T> {
    cases.get(usize::try_from(number).ok()?).copied()
}

// ---- writing ----

/// Appends items to bytes in memory, which takes every write.
pub(crate) struct Writer {
    encoder: Encoder<Vec<u8>>,
}

impl Sink for Writer {
    fn number(&mut self, number: u64) {
        let _ = self.encoder.u64(number);
    }

    fn text(&mut self, text: &str) {
        let _ = self.encoder.str(text);
    }
}

impl Writer {
    pub(crate) fn new(bytes: Vec<u8>) -> Self {
        Self { encoder: Encoder::new(bytes) }
    }

    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.encoder.into_writer()
    }

    fn array(&mut self, length: usize) {
        let _ = self.encoder.array(length as u64);
    }

    fn bytes(&mut self, bytes: &[u8]) {
        let _ = self.encoder.bytes(bytes);
    }

    fn nullable(&mut self, number: Option<u64>) {
        match number {
            Some(number) => self.number(number),
            None => {
                let _ = self.encoder.null();
            }
        }
    }

    fn numbers(&mut self, numbers: &[u64]) {
        self.array(numbers.len());
        for number in numbers {
            self.number(*number);
        }
    }

    pub(crate) fn record(&mut self, record: &Record) {
        let options = [record.override_set.is_some(), record.in_force.is_some(), record.last_trip.is_some()];
        let absent = options.into_iter().filter(|is_some| !is_some).count() as u64;
        let _ = self.encoder.map(key::FORGOTTEN_UNTIL.saturating_add(1).saturating_sub(absent));
        for (key, number) in [
            (key::REVISION, record.revision),
            (key::ERA, record.era),
            (key::GENERATION, record.generation),
            (key::SINCE, record.since_ms),
        ] {
            self.number(key);
            self.number(number);
        }
        self.number(key::STATUS);
        self.status(&record.status);
        self.number(key::COUNTS);
        let counts = &record.counts;
        self.numbers(&[
            counts.total,
            counts.total_successes,
            counts.total_failures,
            counts.consecutive_successes,
            counts.consecutive_failures,
        ]);
        if let Some(set) = &record.override_set {
            self.number(key::OVERRIDE);
            self.array(4);
            self.number(number_of(&OVERRIDES, set.kind));
            self.text(&set.author);
            self.text(&set.reason);
            self.nullable(set.until_ms);
        }
        self.number(key::TRANSITIONS);
        self.array(record.transitions.len());
        for transition in &record.transitions {
            self.transition(transition);
        }
        self.number(key::APPLIED);
        self.bytes(record.applied.as_bytes());
        if let Some(in_force) = &record.in_force {
            self.number(key::IN_FORCE);
            self.array(2);
            self.number(in_force.fingerprint);
            self.bytes(&in_force.bytes);
        }
        if let Some(trip) = &record.last_trip {
            self.number(key::LAST_TRIP);
            let kind = number_of(&TRIPS, trip.kind);
            self.numbers(&[kind, trip.observed, trip.threshold, trip.calls, trip.at_ms, trip.open_for_ms]);
        }
        self.number(key::TRIPS_IN_A_ROW);
        self.number(record.trips_in_a_row.into());
        self.number(key::FORGOTTEN_UNTIL);
        self.number(record.forgotten_until);
    }

    fn status(&mut self, status: &Status) {
        self.array(2);
        self.number(number_of(&STATES, status.state()));
        match status {
            Status::Closed { counts_expire_at_ms, windows, votes, ramp_since_ms } => {
                self.array(4);
                self.nullable(*counts_expire_at_ms);
                self.bytes(&windows.bytes);
                self.array(votes.len());
                for vote in votes {
                    self.array(2);
                    self.text(&vote.node_id);
                    self.number(vote.at_ms);
                }
                self.nullable(*ramp_since_ms);
            }
            Status::Open { expires_at_ms } => self.numbers(&[*expires_at_ms]),
            Status::HalfOpen { probes, successes, failures } => {
                self.array(3);
                self.array(probes.len());
                for probe in probes {
                    self.numbers(&[probe.id.node, probe.id.sequence, probe.deadline_ms]);
                }
                self.number((*successes).into());
                self.number((*failures).into());
            }
        }
    }

    fn transition(&mut self, transition: &Transition) {
        self.numbers(&[
            number_of(&STATES, transition.previous),
            number_of(&STATES, transition.next),
            number_of(&REASONS, transition.reason),
            transition.at_ms,
            transition.era,
            transition.generation,
            transition.by.node,
            transition.by.sequence,
        ]);
    }
}

// ---- reading ----

/// Reads items; every method answers `None` where the bytes are something else, and the position says where.
pub(crate) struct Reader<'b> {
    decoder: Decoder<'b>,
}

impl<'b> Reader<'b> {
    pub(crate) fn new(bytes: &'b [u8]) -> Self {
        Self { decoder: Decoder::new(bytes) }
    }

    pub(crate) fn position(&self) -> usize {
        self.decoder.position()
    }

    pub(crate) fn number(&mut self) -> Option<u64> {
        self.decoder.u64().ok()
    }

    pub(crate) fn small(&mut self) -> Option<u32> {
        u32::try_from(self.number()?).ok()
    }

    /// The length of a list that has at most so many items.
    pub(crate) fn length(&mut self, most: usize) -> Option<usize> {
        usize::try_from(self.number()?).ok().filter(|length| *length <= most)
    }

    /// What [`Sink::option`] wrote.
    pub(crate) fn option(&mut self) -> Option<Option<u64>> {
        match self.number()? {
            0 => Some(None),
            1 => Some(Some(self.number()?)),
            _ => None,
        }
    }

    pub(crate) fn text(&mut self) -> Option<&'b str> {
        self.decoder.str().ok()
    }

    fn bytes(&mut self) -> Option<Vec<u8>> {
        Some(self.decoder.bytes().ok()?.to_vec())
    }

    fn array(&mut self) -> Option<u64> {
        self.decoder.array().ok()?
    }

    fn nullable(&mut self) -> Option<Option<u64>> {
        if self.decoder.datatype().ok()? == Type::Null {
            self.decoder.null().ok()?;
            return Some(None);
        }
        self.number().map(Some)
    }

    /// Fills `numbers` from an array of exactly so many, however it is nested.
    fn numbers<const N: usize>(&mut self) -> Option<[u64; N]> {
        let mut numbers = [0; N];
        self.fill(&mut numbers)?;
        Some(numbers)
    }

    fn fill(&mut self, numbers: &mut [u64]) -> Option<()> {
        let mut free = numbers.iter_mut();
        let mut left = self.array()?;
        while let Some(after) = left.checked_sub(1) {
            left = after;
            if self.decoder.datatype().ok()? == Type::Array {
                left = left.checked_add(self.array()?)?;
            } else {
                *free.next()? = self.number()?;
            }
        }
        free.next().is_none().then_some(())
    }

    /// Reads items as long as there are, without trust in how many the bytes announce.
    fn list<T>(&mut self, mut item: impl FnMut(&mut Self) -> Option<T>) -> Option<Vec<T>> {
        let mut items = Vec::new();
        for _ in 0..self.array()? {
            items.push(item(self)?);
        }
        Some(items)
    }

    /// Reads a record into one that has just begun. Every field that schema 1 had must be there.
    pub(crate) fn record(&mut self, record: &mut Record) -> Option<()> {
        let mut found = 0_u32;
        for _ in 0..self.decoder.map().ok()?? {
            let key = self.number()?;
            match key {
                key::REVISION => record.revision = self.number()?,
                key::ERA => record.era = self.number()?,
                key::GENERATION => record.generation = self.number()?,
                key::SINCE => record.since_ms = self.number()?,
                key::STATUS => record.status = self.status()?,
                key::COUNTS => record.counts = self.counts()?,
                key::OVERRIDE => record.override_set = Some(self.override_set()?),
                key::TRANSITIONS => record.transitions = self.list(Self::transition)?,
                key::APPLIED => record.applied = AppliedCalls::from_bytes(self.bytes()?),
                key::IN_FORCE => record.in_force = Some(self.in_force()?),
                key::LAST_TRIP => record.last_trip = Some(self.trip()?),
                key::TRIPS_IN_A_ROW => record.trips_in_a_row = self.small()?,
                key::FORGOTTEN_UNTIL => record.forgotten_until = self.number()?,
                // Of a later version that wrote the same schema.
                _ => self.skip()?,
            }
            found |= u32::try_from(key).ok().and_then(|key| 1_u32.checked_shl(key)).unwrap_or(0);
        }
        (found & REQUIRED == REQUIRED).then_some(())
    }

    /// Passes over an item of the kinds that records are made of.
    fn skip(&mut self) -> Option<()> {
        let mut left = 1_u64;
        while let Some(after) = left.checked_sub(1) {
            left = after;
            match self.decoder.datatype().ok()? {
                Type::Bytes => drop(self.decoder.bytes().ok()?),
                Type::String => drop(self.text()?),
                Type::Array => left = left.checked_add(self.array()?)?,
                Type::Map => left = left.checked_add(self.decoder.map().ok()??.checked_mul(2)?)?,
                _ => drop(self.nullable()?),
            }
        }
        Some(())
    }

    fn status(&mut self) -> Option<Status> {
        if self.array()? != 2 {
            return None;
        }
        let state = case_of(&STATES, self.number()?)?;
        if state == State::Open {
            let [expires_at_ms] = self.numbers()?;
            return Some(Status::Open { expires_at_ms });
        }
        // Schema 1 had fewer, and none at the end that was null.
        let fields = self.array()?;
        if state == State::HalfOpen {
            let probes = self.list(Self::probe)?;
            let successes = self.small()?;
            let failures = if fields > 2 { self.small()? } else { 0 };
            return (2..=3).contains(&fields).then_some(Status::HalfOpen { probes, successes, failures });
        }
        let counts_expire_at_ms = if fields > 0 { self.nullable()? } else { None };
        let bytes = if fields > 1 { self.bytes()? } else { Vec::new() };
        let votes = if fields > 2 { self.list(Self::vote)? } else { Vec::new() };
        let ramp_since_ms = if fields > 3 { self.nullable()? } else { None };
        let windows = Windows { bytes };
        (fields <= 4).then_some(Status::Closed { counts_expire_at_ms, windows, votes, ramp_since_ms })
    }

    fn counts(&mut self) -> Option<Counts> {
        let [total, total_successes, total_failures, consecutive_successes, consecutive_failures] =
            self.numbers()?;
        Some(Counts { total, total_successes, total_failures, consecutive_successes, consecutive_failures })
    }

    fn override_set(&mut self) -> Option<Override> {
        let fields = self.array()?;
        let kind = case_of(&OVERRIDES, self.number()?)?;
        let (author, reason) = (String::from(self.text()?), String::from(self.text()?));
        let until_ms = if fields > 3 { self.nullable()? } else { None };
        (3..=4).contains(&fields).then_some(Override { kind, author, reason, until_ms })
    }

    fn transition(&mut self) -> Option<Transition> {
        let [previous, next, reason, at_ms, era, generation, node, sequence] = self.numbers()?;
        Some(Transition {
            previous: case_of(&STATES, previous)?,
            next: case_of(&STATES, next)?,
            reason: case_of(&REASONS, reason)?,
            at_ms,
            era,
            generation,
            by: Token { node, sequence },
        })
    }

    fn probe(&mut self) -> Option<Probe> {
        let [node, sequence, deadline_ms] = self.numbers()?;
        Some(Probe { id: Token { node, sequence }, deadline_ms })
    }

    fn vote(&mut self) -> Option<Vote> {
        if self.array()? != 2 {
            return None;
        }
        Some(Vote { node_id: String::from(self.text()?), at_ms: self.number()? })
    }

    fn in_force(&mut self) -> Option<InForce> {
        if self.array()? != 2 {
            return None;
        }
        Some(InForce { fingerprint: self.number()?, bytes: self.bytes()? })
    }

    fn trip(&mut self) -> Option<Trip> {
        let [kind, observed, threshold, calls, at_ms, open_for_ms] = self.numbers()?;
        Some(Trip { kind: case_of(&TRIPS, kind)?, observed, threshold, calls, at_ms, open_for_ms })
    }
}
