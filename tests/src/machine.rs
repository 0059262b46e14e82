//! What decides, as the suites see it.

#![allow(clippy::result_large_err, reason = "the shape of the error is the one of wit/")]

use crate::contract::{
    Answer, Decision, Error, Failure, Loaded, Request, Settings, SettingsError, StoreError, Swapped,
};
use crate::memory::Memory;

/// How often a round is run before the race is given up.
pub const TRIES_MAX: u32 = 8;

/// Something that decides, with a store of its own.
pub trait Machine {
    /// `breaker.check`.
    ///
    /// # Errors
    /// The first setting that cannot be used.
    fn check(&mut self, settings: &Settings) -> Result<u64, SettingsError>;

    /// `exchange.decide`.
    fn decide(&mut self, request: &Request, loaded: &Loaded, now_ms: u64) -> Decision;

    /// The function of `breaker` that the request names, against [`Machine::memory`].
    ///
    /// # Errors
    /// As that function.
    fn call(
        &mut self,
        request: &Request,
        known: Option<&Loaded>,
        now_ms: u64,
    ) -> Result<(Answer, Loaded), Failure>;

    /// The store.
    fn memory(&mut self) -> &mut Memory;
}

/// The same call in steps, as a host does it that cannot block on an import.
///
/// # Errors
/// As [`Machine::call`].
pub fn call_in_steps(
    machine: &mut dyn Machine,
    request: &Request,
    known: Option<&Loaded>,
    now_ms: u64,
) -> Result<(Answer, Loaded), Failure> {
    let circuit = request.circuit();
    let failed = |error, last_seen| Failure { error, last_seen, revision: None };
    let mut now_ms = now_ms;
    let mut unverified = known.is_some();
    let mut seen = match known {
        Some(known) => known.clone(),
        None => machine.memory().load(circuit).map_err(|error| failed(Error::Store(error), None))?,
    };
    for _ in 0..TRIES_MAX {
        // A later time is kept through a conflict that tells none.
        now_ms = now_ms.max(seen.now_ms.unwrap_or(0));
        let write = match machine.decide(request, &seen, now_ms) {
            Decision::Done(Answer::Failed(error)) => return Err(failed(error, Some(seen))),
            Decision::Done(answer) if unverified && denies(&answer) => {
                unverified = false;
                let loaded = machine.memory().load(circuit);
                seen = loaded.map_err(|error| failed(Error::Store(error), Some(seen)))?;
                continue;
            }
            Decision::Done(answer) => return Ok((answer, seen)),
            Decision::Write(write) => write,
        };
        let expected = seen.entry.as_ref().map(|entry| entry.version.as_slice());
        match machine.memory().swap(circuit, expected, &write.value, write.ttl_ms) {
            Ok(Swapped::Stored(receipt)) => {
                let entry = crate::contract::Entry { value: write.value, version: receipt.version };
                return Ok((write.answer_if_stored, Loaded { entry: Some(entry), now_ms: receipt.now_ms }));
            }
            Ok(Swapped::Conflict(fresh)) => {
                unverified = false;
                seen = fresh;
            }
            Err(error) => {
                let revision = matches!(error, StoreError::Unknown(_)).then_some(write.based_on);
                return Err(Failure { error: Error::Store(error), last_seen: Some(seen), revision });
            }
        }
    }
    Err(failed(Error::Contention, Some(seen)))
}

/// Whether a newer entry may grant what the answer denies.
fn denies(answer: &Answer) -> bool {
    match answer {
        Answer::Settled(settled) => settled.dispositions.iter().any(|disposition| disposition.stale > 0),
        Answer::Renewed(renewed) => renewed.deadlines.iter().any(Option::is_none),
        Answer::Voted(voted) => !voted.accepted,
        _ => false,
    }
}

impl Request {
    /// The circuit that the request is about.
    pub fn circuit(&self) -> &str {
        match self {
            Self::Start(start) => &start.circuit,
            Self::End(end) => &end.circuit,
            Self::Renew(renew) => &renew.circuit,
            Self::Inspect(inspect) => &inspect.circuit,
            Self::SetOverride(set) => &set.circuit,
            Self::Vote(vote) => &vote.circuit,
            Self::Reset(reset) => &reset.circuit,
        }
    }
}
