//! Settling of one outcome: the round of `circuitry:breaker/exchange`, driven here.
//!
//! `breaker.end` is the same round without a pause between two swaps. Requests that end together would try and try; here those who lose
//! a race wait a little, so that most swaps are stored.

use crate::attempts::{Attempts, lowest};
use crate::bindings::circuitry::breaker::exchange::{Answer, Decision, EndRequest, Request, decide};
use crate::bindings::circuitry::breaker::store;
use crate::bindings::circuitry::breaker::types::{Entry, Error, Loaded, StoreError, Swapped};
use crate::clock::StoreClock;
use crate::log::failed;

/// No outcome is given up soon because others write too: it takes so many store timeouts at most.
const PATIENCE: u64 = 8;

/// Settles `request`, based on the entry `known` where there is one. It is applied once, however often it has to be sent.
pub(crate) fn settle(
    mut request: EndRequest,
    mut known: Option<Loaded>,
    mut clock: StoreClock,
    timeout_ms: u64,
) {
    let circuit = request.circuit.clone();
    let mut attempts = Attempts::new(timeout_ms.saturating_mul(PATIENCE));
    // Whether the entry is of this call: what was seen before it may be older than the permit.
    let mut is_fresh = false;
    loop {
        let loaded = match known.take() {
            Some(loaded) => loaded,
            None => match store::load(&circuit) {
                Ok(loaded) => {
                    is_fresh = true;
                    clock.learn(loaded.now_ms);
                    loaded
                }
                Err(error) => {
                    let error = Error::Store(error);
                    if attempts.again(&error) {
                        continue;
                    }
                    return failed(&circuit, "outcome", &error);
                }
            },
        };
        let write = match decide(&Request::End(request.clone()), &loaded, clock.now_ms()) {
            Decision::Write(write) => write,
            Decision::Done(Answer::Failed(error)) => return failed(&circuit, "outcome", &error),
            // It denies that the permit is of the present era; that is to be seen on the present record.
            Decision::Done(_) if !is_fresh => continue,
            Decision::Done(_) => return,
        };
        let expected = loaded.entry.as_ref().map(|entry: &Entry| entry.version.as_slice());
        let error = match store::swap(&circuit, expected, &write.value, write.ttl_ms) {
            Ok(Swapped::Stored(_)) => return,
            Ok(Swapped::Conflict(fresh)) => {
                is_fresh = true;
                clock.learn(fresh.now_ms);
                known = Some(fresh);
                if attempts.again_after_a_race() {
                    continue;
                }
                return failed(&circuit, "outcome", &Error::Contention);
            }
            Err(error) => error,
        };
        if matches!(error, StoreError::Unknown(_)) {
            request.caller.retry_of = lowest(request.caller.retry_of, Some(write.based_on));
        }
        let error = Error::Store(error);
        if !attempts.again(&error) {
            return failed(&circuit, "outcome", &error);
        }
    }
}
