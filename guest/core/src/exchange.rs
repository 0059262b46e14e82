//! The exchange: [`decide`] is one step of load, decide, swap; [`run`] is the loop over a [`Store`].

use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use crate::applied::AppliedCall;
use crate::circuit::Circuit;
use crate::record::{Counts, Override, Record};
use crate::request::{
    AUTHOR_MAX_BYTES, Answer, COMPLETIONS_MAX, Caller, Completion, Disposition, Error, Failure, Information,
    NAME_MAX_BYTES, NODE_ID_MAX_BYTES, Operation, PROBES_MAX, REASON_MAX_BYTES, RUN_MAX, Request,
};
use crate::settings::CustomRule;

/// How many swaps one call tries before it gives the race up.
pub const TRIES_MAX: u32 = 8;
/// A token is kept for so many writes.
const WRITES_REMEMBERED: u64 = 32;

/// What is stored for a circuit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The record's bytes.
    pub value: Vec<u8>,
    /// The version of the write; opaque.
    pub version: Vec<u8>,
}

/// What a load answers, and what a lost race brings.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Loaded {
    /// The entry, if there is one.
    pub entry: Option<Entry>,
    /// The store's own clock, where it tells it.
    pub now_ms: Option<u64>,
}

/// What became of a swap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Swapped {
    /// The value is stored, under this version, at this time.
    Stored {
        /// The version that the entry has now.
        version: Vec<u8>,
        /// The store's own clock, where it tells it.
        now_ms: Option<u64>,
    },
    /// The entry is another than expected, and here it is.
    Conflict(Loaded),
}

/// What went wrong in a store, by what to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreError {
    /// Nothing was written; try later.
    Unavailable(String),
    /// A write may or may not have happened.
    Unknown(String),
    /// Fix the configuration.
    Denied(String),
    /// Retrying does not help.
    Other(String),
}

/// Where records live, as [`run`] sees it.
pub trait Store {
    /// Reads the entry of `circuit`.
    ///
    /// # Errors
    /// As the store says.
    fn load(&mut self, circuit: &str) -> Result<Loaded, StoreError>;

    /// Replaces the entry of `circuit` if its version is still `expected`.
    ///
    /// # Errors
    /// As the store says.
    fn swap(
        &mut self,
        circuit: &str,
        expected: Option<&[u8]>,
        value: &[u8],
        ttl_ms: Option<u64>,
    ) -> Result<Swapped, StoreError>;
}

/// A failure that was just counted on a closed circuit with a custom rule.
#[derive(Clone, Debug)]
pub struct TripQuery<'a> {
    /// The circuit's name.
    pub circuit: &'a str,
    /// The rule's name and version.
    pub rule: &'a CustomRule,
    /// The settings' threshold.
    pub failure_count_threshold: u64,
    /// The circuit's generation.
    pub generation: u64,
    /// The counts, with the failure in them.
    pub counts: Counts,
}

/// Questions to the host.
pub trait Hooks {
    /// Says whether the circuit trips now; pure, for it may be asked again after a lost race.
    fn will_trip(&mut self, query: &TripQuery<'_>) -> bool;
}

/// A write that an answer depends on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    /// The record to store.
    pub value: Vec<u8>,
    /// How long it lives; `None` is for ever.
    pub ttl_ms: Option<u64>,
    /// The answer, once the value is stored.
    pub answer_if_stored: Answer,
    /// The revision that the decision is based on; 0 where there was no record.
    pub based_on: u64,
}

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Nothing to write: this is the answer.
    Done(Answer),
    /// Swap, then answer.
    Write(Write),
}

/// Decides `request` on the entry `loaded`; a later `loaded.now_ms` replaces `now_ms`.
///
/// # Errors
/// Bad arguments, bytes that are no record, or a repeated call that came too late. Nothing is to be written then.
pub fn decide(
    request: &Request,
    loaded: &Loaded,
    now_ms: u64,
    hooks: &mut dyn Hooks,
) -> Result<Decision, Error> {
    check(request)?;
    let now_ms = loaded.now_ms.map_or(now_ms, |store_ms| store_ms.max(now_ms));
    let record = match &loaded.entry {
        Some(entry) => Some(Record::boxed_from_bytes(&entry.value).map_err(Error::Record)?),
        None => None,
    };
    let based_on = record.as_ref().map_or(0, |record| record.revision);
    let mut circuit = match (&request.operation, record) {
        // What an unknown circuit is asked about is not there.
        (Operation::Inspect, None) => {
            return Ok(Decision::Done(Answer::Inspected(Information::unknown(request, now_ms))));
        }
        (Operation::End(_, completions), None) => return Ok(Decision::Done(all_stale(completions))),
        (Operation::Renew { probes, .. }, None) => {
            return Ok(Decision::Done(Answer::Renewed(probes.iter().map(|_| None).collect())));
        }
        (Operation::Vote { .. }, None) => {
            return Ok(Decision::Done(Answer::Voted {
                accepted: false,
                votes: 0,
                already_applied: false,
                transitions: Vec::new(),
            }));
        }
        (_, Some(record)) => Circuit::stored(record, request, now_ms).map_err(Error::Record)?,
        (_, None) => Circuit::unknown(request, now_ms),
    };
    let answer = answer(&mut circuit, &request.operation, hooks)?;
    if circuit.changed { Ok(write(&mut circuit, answer, based_on)) } else { Ok(Decision::Done(answer)) }
}

fn answer(circuit: &mut Circuit<'_>, operation: &Operation, hooks: &mut dyn Hooks) -> Result<Answer, Error> {
    Ok(match operation {
        Operation::Start(caller) => {
            let verdict = circuit.start(caller.token).map_err(Error::Record)?;
            let settings_in_force = circuit.settings_differ().then(|| Box::new(circuit.settings().clone()));
            Answer::Started { verdict, transitions: circuit.transitions_by(caller.token), settings_in_force }
        }
        Operation::End(caller, completions) => {
            let applied = circuit.applied(caller.token).map(|call| call.dispositions(completions));
            let already_applied = applied.is_some();
            let dispositions = match applied {
                Some(dispositions) => dispositions,
                None => {
                    check_not_forgotten(circuit, caller)?;
                    circuit.apply(completions, caller.token, hooks).map_err(Error::Record)?
                }
            };
            Answer::Settled {
                dispositions,
                already_applied,
                transitions: circuit.transitions_by(caller.token),
            }
        }
        Operation::Renew { era, probes, .. } => Answer::Renewed(circuit.renew(*era, probes)),
        Operation::Inspect => Answer::Inspected(circuit.information().map_err(Error::Record)?),
        Operation::SetOverride(caller, wanted) => {
            let previous = circuit.override_in_force().cloned();
            let already_applied = circuit.applied(caller.token).is_some();
            if !already_applied {
                check_not_forgotten(circuit, caller)?;
                check_not_over(circuit, wanted.as_ref())?;
                circuit.record.override_set = wanted.clone();
                circuit.remember(&AppliedCall::new(caller.token));
            }
            Answer::Overridden { previous, already_applied }
        }
        Operation::Vote { caller, era, node_id } => {
            let already_applied = circuit.applied(caller.token).is_some();
            let (accepted, votes) = if already_applied {
                (true, circuit.votes_counted(caller.token))
            } else {
                check_not_forgotten(circuit, caller)?;
                circuit.vote(*era, node_id, caller.token).map_err(Error::Record)?
            };
            let transitions = circuit.transitions_by(caller.token);
            Answer::Voted { accepted, votes, already_applied, transitions }
        }
        Operation::Reset(caller) => {
            let previous = circuit.override_in_force().cloned();
            let already_applied = circuit.applied(caller.token).is_some();
            if !already_applied {
                check_not_forgotten(circuit, caller)?;
                circuit.reset(caller.token).map_err(Error::Record)?;
            }
            let transitions = circuit.transitions_by(caller.token);
            Answer::Cleared { previous, already_applied, transitions }
        }
    })
}

fn check_not_over(circuit: &Circuit<'_>, wanted: Option<&Override>) -> Result<(), Error> {
    match wanted.and_then(|wanted| wanted.until_ms) {
        Some(until_ms) if until_ms <= circuit.now_ms => Err(Error::Request(format!(
            "the override's end at {until_ms} ms is over, it is {} ms now: give it a later one or none",
            circuit.now_ms
        ))),
        _ => Ok(()),
    }
}

/// Past so many writes the token of the try with the lost answer may be gone: applying it now might count it twice.
fn check_not_forgotten(circuit: &Circuit<'_>, caller: &Caller) -> Result<(), Error> {
    let remembered = |based_on: u64| {
        circuit.record.revision <= based_on.saturating_add(WRITES_REMEMBERED)
            && based_on >= circuit.record.forgotten_until
    };
    if caller.retry_of.is_none_or(remembered) { Ok(()) } else { Err(Error::Forgotten) }
}

fn write(circuit: &mut Circuit<'_>, answer: Answer, based_on: u64) -> Decision {
    if circuit.override_in_force().is_none() {
        circuit.record.override_set = None;
    }
    circuit.record.revision = circuit.record.revision.saturating_add(1);
    let value = circuit.record.to_bytes();
    Decision::Write(Write { value, ttl_ms: circuit.ttl_ms(), answer_if_stored: answer, based_on })
}

fn all_stale(completions: &[Completion]) -> Answer {
    let stale = |completion: &Completion| Disposition { accepted: 0, stale: completion.count };
    Answer::Settled {
        dispositions: completions.iter().map(stale).collect(),
        already_applied: false,
        transitions: Vec::new(),
    }
}

/// Says whether the arguments are within their bounds.
fn check(request: &Request) -> Result<(), Error> {
    let length = request.circuit.len();
    if !(1..=NAME_MAX_BYTES).contains(&length) {
        return Err(Error::CircuitName(format!(
            "the name has {length} bytes: give it 1 to {NAME_MAX_BYTES}"
        )));
    }
    request.settings.check().map_err(Error::Settings)?;
    match &request.operation {
        Operation::Start(_) | Operation::Inspect | Operation::Reset(_) => Ok(()),
        Operation::Vote { node_id, .. } => {
            check_size("bytes of the node's id", node_id.len(), 1, NODE_ID_MAX_BYTES)
        }
        Operation::End(_, completions) => check_completions(completions),
        Operation::Renew { probes, .. } => check_size("probes", probes.len(), 1, PROBES_MAX),
        Operation::SetOverride(_, None) => Ok(()),
        Operation::SetOverride(_, Some(wanted)) => {
            check_size("bytes of the override's author", wanted.author.len(), 0, AUTHOR_MAX_BYTES)?;
            check_size("bytes of the override's reason", wanted.reason.len(), 0, REASON_MAX_BYTES)
        }
    }
}

fn check_completions(completions: &[Completion]) -> Result<(), Error> {
    check_size("completions", completions.len(), 1, COMPLETIONS_MAX)?;
    for (index, completion) in completions.iter().enumerate() {
        let most = if completion.probe.is_some() { 1 } else { RUN_MAX };
        if !(1..=most).contains(&completion.count) {
            return Err(Error::Request(format!(
                "completion {index} has a count of {}: give it 1 to {most}",
                completion.count
            )));
        }
    }
    Ok(())
}

fn check_size(what: &str, size: usize, least: usize, most: usize) -> Result<(), Error> {
    if (least..=most).contains(&size) {
        Ok(())
    } else {
        Err(Error::Request(format!("{size} {what}: give {least} to {most}")))
    }
}

/// Whether the answer denies the caller something that a newer entry may grant: an outcome or a place.
fn denies(answer: &Answer) -> bool {
    match answer {
        Answer::Settled { dispositions, .. } => dispositions.iter().any(|disposition| disposition.stale > 0),
        Answer::Renewed(deadlines) => deadlines.iter().any(Option::is_none),
        Answer::Voted { accepted, .. } => !accepted,
        Answer::Started { .. }
        | Answer::Inspected(_)
        | Answer::Overridden { .. }
        | Answer::Cleared { .. } => false,
    }
}

/// Runs `request` against `store`: load unless `known`, decide, swap; again with what a lost race brought, and with a
/// loaded entry where `known` denies something and no swap has shown that it is current.
///
/// Answers with the entry last seen.
///
/// # Errors
/// [`Failure`], with the entry last seen and, where a swap's fate is unknown, the revision it was based on.
pub fn run(
    request: &Request,
    known: Option<Loaded>,
    now_ms: u64,
    store: &mut dyn Store,
    hooks: &mut dyn Hooks,
) -> Result<(Answer, Loaded), Failure> {
    let failed = |error, last_seen| Failure { error, last_seen, revision: None };
    // A bad argument costs no load.
    check(request).map_err(|error| failed(error, known.clone()))?;
    let mut unverified = known.is_some();
    let mut seen = match known {
        Some(known) => known,
        None => store.load(&request.circuit).map_err(|error| failed(Error::Store(error), None))?,
    };
    let mut now_ms = now_ms;
    for _ in 0..TRIES_MAX {
        now_ms = seen.now_ms.map_or(now_ms, |store_ms| store_ms.max(now_ms));
        let write = match decide(request, &seen, now_ms, hooks) {
            Err(error) => return Err(failed(error, Some(seen))),
            Ok(Decision::Done(answer)) if unverified && denies(&answer) => {
                // No swap has shown that the entry is still the one in the store, and an older one may not know this
                // permit yet.
                unverified = false;
                seen =
                    store.load(&request.circuit).map_err(|error| failed(Error::Store(error), Some(seen)))?;
                continue;
            }
            Ok(Decision::Done(answer)) => return Ok((answer, seen)),
            Ok(Decision::Write(write)) => write,
        };
        let expected = seen.entry.as_ref().map(|entry| entry.version.as_slice());
        match store.swap(&request.circuit, expected, &write.value, write.ttl_ms) {
            Ok(Swapped::Stored { version, now_ms: stored_ms }) => {
                let entry = Entry { value: write.value, version };
                return Ok((write.answer_if_stored, Loaded { entry: Some(entry), now_ms: stored_ms }));
            }
            Ok(Swapped::Conflict(fresh)) => {
                unverified = false;
                seen = fresh;
            }
            Err(error) => {
                let unknown = matches!(error, StoreError::Unknown(_));
                let revision = unknown.then_some(write.based_on);
                return Err(Failure { error: Error::Store(error), last_seen: Some(seen), revision });
            }
        }
    }
    Err(failed(Error::Contention, Some(seen)))
}
