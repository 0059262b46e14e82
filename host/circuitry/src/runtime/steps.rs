//! A call in steps: the component decides, the host asks the store.
//!
//! This is the loop that `wit/exchange.wit` describes. Starts and ends go this way: no instance waits for the store, and a
//! decision without a fiber costs less than a tenth of the other way. Votes do too, so that none is lost because the instances
//! are taken; and a look at an entry in hand, which asks no store.

use std::sync::Arc;

use super::asking::Trouble;
use super::bindings::exports::circuitry::breaker::exchange::{self, Decision};
use super::{Answered, Decided, Runtime, Write, asking};
use crate::call::{Answer, Call, Failure, Operation, Problem};
use crate::error::ComponentError;
use crate::settings::Hook;
use circuitry_store::store::check_name;
use circuitry_store::{Entry, Loaded, Store, StoreError, Swapped, Version};

/// How many swaps a call tries before it gives the race up; the same number as in the component.
const TRIES_MAX: u32 = 8;

/// Whether a call goes in steps.
pub(super) fn goes_in_steps(call: &Call) -> bool {
    match call.operation {
        Operation::Start(_) | Operation::End(_) | Operation::Vote { .. } => true,
        Operation::Inspect => call.known.is_some(),
        Operation::Renew { .. } | Operation::SetOverride(_) | Operation::Reset => false,
    }
}

/// The call as the component is asked, if there is a single step for it.
fn request(call: &Call) -> Option<exchange::Request> {
    let circuit = call.circuit.to_string();
    let settings = (&*call.rules).into();
    let caller = call.into();
    match &call.operation {
        Operation::Start(_) => {
            Some(exchange::Request::Start(exchange::StartRequest { circuit, settings, caller }))
        }
        Operation::End(completions) => {
            let completions = completions.iter().copied().map(Into::into).collect();
            Some(exchange::Request::End(exchange::EndRequest { circuit, settings, caller, completions }))
        }
        Operation::Vote { era, node_id } => {
            let node_id = node_id.to_string();
            Some(exchange::Request::Vote(exchange::VoteRequest {
                circuit,
                settings,
                caller,
                era: *era,
                node_id,
            }))
        }
        Operation::Inspect => {
            Some(exchange::Request::Inspect(exchange::InspectRequest { circuit, settings }))
        }
        Operation::Renew { .. } | Operation::SetOverride(_) | Operation::Reset => None,
    }
}

/// Whether the answer denies the caller something that a newer entry may grant.
fn denies(answer: &Answer) -> bool {
    match answer {
        Answer::Settled { rulings, .. } => rulings.iter().any(|ruling| ruling.stale > 0),
        Answer::Voted { accepted, .. } => !accepted,
        _ => false,
    }
}

/// The generated types are large, so they live in [`decide`] and not across an await.
pub(super) async fn run(
    runtime: &Runtime,
    store: &dyn Store,
    hook: Option<&Arc<Hook>>,
    call: &mut Call,
) -> Result<Answered, Failure> {
    let failed = |problem, last_seen| Failure { problem, last_seen, revision: None };
    check(call).map_err(|problem| failed(problem, None))?;
    let (known, deadline) = (call.known.take(), call.deadline);
    let mut unverified = known.is_some();
    let mut seen = match known {
        Some(known) => known,
        None => load(store, call).await.map_err(|trouble| failed(trouble.into(), None))?,
    };
    for _ in 0..TRIES_MAX {
        call.now_ms = seen.now_ms.map_or(call.now_ms, |store_ms| store_ms.max(call.now_ms));
        let decided = match decide(runtime, hook, call, &seen) {
            Ok(decided) => decided,
            Err(problem) => return Err(failed(problem, Some(seen))),
        };
        let write = match decided {
            Decided::Done(answer) => {
                if unverified && denies(&answer) {
                    // No swap has shown that the entry is still the one in the store.
                    unverified = false;
                    seen = load(store, call).await.map_err(|trouble| failed(trouble.into(), Some(seen)))?;
                    continue;
                }
                return Ok(Answered { answer, seen, replaced: None });
            }
            Decided::Write(write) => write,
        };
        let expected = seen.entry.as_ref().map(|entry| &entry.version);
        let swapped =
            asking::swap(store, &call.circuit, expected, &write.value, write.ttl_ms, deadline).await;
        match swapped {
            Ok(Swapped::Stored(receipt)) => {
                let answer = match write.answer_if_stored {
                    Ok(answer) => answer,
                    Err(problem) => return Err(failed(problem, Some(seen))),
                };
                let replaced = seen.entry.map(|entry| entry.version);
                let seen = stored(write.value, receipt.version, receipt.now_ms);
                return Ok(Answered { answer, seen, replaced });
            }
            Ok(Swapped::Conflict(fresh)) => {
                unverified = false;
                seen = fresh;
            }
            Err(trouble) => {
                let revision = trouble.is_unknown().then_some(write.based_on);
                return Err(Failure { problem: trouble.into(), last_seen: Some(seen), revision });
            }
        }
    }
    Err(failed(Problem::Contention, Some(seen)))
}

async fn load(store: &dyn Store, call: &Call) -> Result<Loaded, Trouble> {
    asking::load(store, &call.circuit, call.deadline).await
}

/// What is wrong with an argument, without whose rule it is.
fn told(error: &StoreError) -> String {
    match error {
        StoreError::Other { message, .. } => message.clone(),
        error => error.to_string(),
    }
}

fn stored(value: Vec<u8>, version: Version, now_ms: Option<u64>) -> Loaded {
    Loaded { entry: Some(Entry { value, version }), now_ms }
}

/// Takes the decision of a call that asks no store on the entry `seen`.
pub(super) fn decide_on(
    runtime: &Runtime,
    hook: Option<&Arc<Hook>>,
    call: &Call,
    seen: &Loaded,
) -> Result<Decided, Problem> {
    check(call)?;
    decide(runtime, hook, call, seen)
}

/// The component would say so too, but only of an entry.
fn check(call: &Call) -> Result<(), Problem> {
    check_name(&call.circuit).map_err(|error| Problem::Argument(told(&error)))
}

fn decide(
    runtime: &Runtime,
    hook: Option<&Arc<Hook>>,
    call: &Call,
    seen: &Loaded,
) -> Result<Decided, Problem> {
    let Some(request) = request(call) else {
        return Err(Problem::Component(ComponentError::Trapped(
            "it was asked for what is no single step".into(),
        )));
    };
    match runtime.decide(hook, &request, seen, call.now_ms).map_err(Problem::Component)? {
        Decision::Done(answer) => Ok(Decided::Done(Result::from(answer)?)),
        Decision::Write(exchange::Write { value, ttl_ms, based_on, answer_if_stored, .. }) => {
            let answer_if_stored = Result::from(answer_if_stored);
            Ok(Decided::Write(Write { value, ttl_ms, based_on, answer_if_stored }))
        }
    }
}
