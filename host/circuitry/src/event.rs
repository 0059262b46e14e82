//! What a factory tells: `tracing` events, metrics, and the state-change callback.
//!
//! A refusal is no event: one is a line in a log, ten thousand a second are an outage of their own. They are counted.

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::circuit::Circuit;
use crate::context::Context;
use crate::metering;
use crate::settings::Settings;
use crate::state::{State, Transition};

/// A change of state, as the callback is told.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct StateChange<'a> {
    /// The name given to `breaker_for`.
    pub name: &'a str,
    /// The circuit's name, as it is shared.
    pub circuit: &'a str,
    /// The context of the breaker that first named the circuit in this process.
    pub context: &'a Context,
    /// The state before.
    pub from: State,
    /// The state after.
    pub to: State,
    /// All of it: reason, time, era, generation.
    pub transition: Transition,
    /// Whether it is a record of this process's own that changed: because the store was down, or because a quorum is in force.
    pub local: bool,
}

/// Tells of the transitions that a call made.
pub(crate) fn announce(settings: &Settings, circuit: &Circuit, transitions: &[Transition], local: bool) {
    for transition in transitions {
        tracing::info!(
            circuit = &*circuit.name,
            from = %transition.previous,
            to = %transition.next,
            reason = %transition.reason,
            era = transition.era,
            generation = transition.generation,
            local,
            "circuit changed its state"
        );
        metering::transition(&circuit.base, transition, local);
        circuit.saw_state(transition.next);
        if transition.next == State::Open {
            // Nobody was refused yet, so until when it refuses is not known more exactly.
            circuit.saw_refusal(settings.rules.longest_open_time(), settings.clock.now_ms());
        } else {
            circuit.saw_permit();
        }
        let Some(callback) = &settings.state_change_callback else { continue };
        let change = StateChange {
            name: &circuit.base,
            circuit: &circuit.name,
            context: &circuit.context,
            from: transition.previous,
            to: transition.next,
            transition: *transition,
            local,
        };
        // A listener that panics must not break the call that it listens to.
        if catch_unwind(AssertUnwindSafe(|| callback(&change))).is_err() {
            tracing::error!(circuit = &*circuit.name, "the state-change callback panicked");
        }
    }
}
