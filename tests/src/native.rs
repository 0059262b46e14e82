//! The core, called as a library. Only tests do: everything else runs the component.

use circuitry_core::request::{self as core_request, Operation, RefusalReason as CoreRefusal};
use circuitry_core::{Hooks, Store, decide, exchange, record, run, settings};

use crate::contract::{
    Answer, Caller, Completion, Counts, CustomRule, Decision, Disposition, Entry, Error, Failure,
    Information, Loaded, Outcome, Overridden, Override, OverrideKind, Permit, Probe, RecordError, Refusal,
    RefusalReason, Renewed, Request, Settings, SettingsError, Settled, Started, State, StoreError, Swapped,
    Token, Transition, TransitionReason, TripQuery, TripRule, Verdict, Write,
};
use crate::machine::Machine;
use crate::memory::Memory;
use crate::rules::will_trip;

/// The core with a store in memory.
#[derive(Default)]
pub struct NativeMachine {
    memory: Memory,
}

struct Rules;

impl Hooks for Rules {
    fn will_trip(&mut self, query: &exchange::TripQuery<'_>) -> bool {
        will_trip(&TripQuery {
            circuit: query.circuit.into(),
            rule: CustomRule { name: query.rule.name.clone(), version: query.rule.version },
            failure_count_threshold: query.failure_count_threshold,
            generation: query.generation,
            counts: counts(query.counts),
        })
    }
}

impl Store for Memory {
    fn load(&mut self, circuit: &str) -> Result<exchange::Loaded, exchange::StoreError> {
        Self::load(self, circuit).map(|loaded| core_loaded(&loaded)).map_err(core_store_error)
    }

    fn swap(
        &mut self,
        circuit: &str,
        expected: Option<&[u8]>,
        value: &[u8],
        ttl_ms: Option<u64>,
    ) -> Result<exchange::Swapped, exchange::StoreError> {
        match Self::swap(self, circuit, expected, value, ttl_ms).map_err(core_store_error)? {
            Swapped::Stored(receipt) => {
                Ok(exchange::Swapped::Stored { version: receipt.version, now_ms: receipt.now_ms })
            }
            Swapped::Conflict(fresh) => Ok(exchange::Swapped::Conflict(core_loaded(&fresh))),
        }
    }
}

impl Machine for NativeMachine {
    fn check(&mut self, settings: &Settings) -> Result<u64, SettingsError> {
        let settings = core_settings(settings);
        settings.check().map_err(settings_error)?;
        Ok(settings.fingerprint())
    }

    fn decide(&mut self, request: &Request, loaded: &Loaded, now_ms: u64) -> Decision {
        match decide(&core_request(request), &core_loaded(loaded), now_ms, &mut Rules) {
            Ok(exchange::Decision::Done(given)) => Decision::Done(answer(given)),
            Ok(exchange::Decision::Write(write)) => Decision::Write(Write {
                value: write.value,
                ttl_ms: write.ttl_ms,
                answer_if_stored: answer(write.answer_if_stored),
                based_on: write.based_on,
            }),
            Err(given) => Decision::Done(Answer::Failed(error(given))),
        }
    }

    fn call(
        &mut self,
        request: &Request,
        known: Option<&Loaded>,
        now_ms: u64,
    ) -> Result<(Answer, Loaded), Failure> {
        let known = known.map(core_loaded);
        match run(&core_request(request), known, now_ms, &mut self.memory, &mut Rules) {
            Ok((given, seen)) => Ok((answer(given), loaded(seen))),
            Err(failure) => Err(Failure {
                error: error(failure.error),
                last_seen: failure.last_seen.map(loaded),
                revision: failure.revision,
            }),
        }
    }

    fn memory(&mut self) -> &mut Memory {
        &mut self.memory
    }
}

// ---- into the core's types ----

fn core_loaded(loaded: &Loaded) -> exchange::Loaded {
    let entry = loaded.entry.clone();
    let entry = entry.map(|entry| exchange::Entry { value: entry.value, version: entry.version });
    exchange::Loaded { entry, now_ms: loaded.now_ms }
}

fn core_store_error(error: StoreError) -> exchange::StoreError {
    match error {
        StoreError::Unavailable(text) => exchange::StoreError::Unavailable(text),
        StoreError::Unknown(text) => exchange::StoreError::Unknown(text),
        StoreError::Denied(text) => exchange::StoreError::Denied(text),
        StoreError::Other(text) => exchange::StoreError::Other(text),
    }
}

fn core_settings(given: &Settings) -> settings::Settings {
    settings::Settings {
        failure_count_threshold: given.failure_count_threshold,
        close_threshold: given.close_threshold,
        allow_after_ms: given.allow_after_ms,
        cyclic_clear_after_ms: given.cyclic_clear_after_ms,
        probe_timeout_ms: given.probe_timeout_ms,
        idle_retention_ms: given.idle_retention_ms,
        trip_rule: match &given.trip_rule {
            TripRule::ConsecutiveFailures => settings::TripRule::ConsecutiveFailures,
            TripRule::Custom(rule) => settings::TripRule::Custom(settings::CustomRule {
                name: rule.name.clone(),
                version: rule.version,
            }),
        },
    }
}

fn core_token(token: Token) -> record::Token {
    record::Token { node: token.node, sequence: token.sequence }
}

fn core_caller(caller: Caller) -> core_request::Caller {
    let token = record::Token { node: caller.node, sequence: caller.sequence };
    core_request::Caller { token, retry_of: caller.retry_of }
}

fn core_completion(completion: &Completion) -> core_request::Completion {
    core_request::Completion {
        era: completion.era,
        probe: completion.probe.map(core_token),
        outcome: match completion.outcome {
            Outcome::Success => core_request::Outcome::Success,
            Outcome::Failure => core_request::Outcome::Failure,
            Outcome::Ignored => core_request::Outcome::Ignored,
        },
        count: completion.count,
    }
}

fn core_override(wanted: &Override) -> record::Override {
    record::Override {
        kind: match wanted.kind {
            OverrideKind::ForcedOpen => record::OverrideKind::ForcedOpen,
            OverrideKind::ForcedClosed => record::OverrideKind::ForcedClosed,
        },
        author: wanted.author.clone(),
        reason: wanted.reason.clone(),
        until_ms: wanted.until_ms,
    }
}

fn core_request(request: &Request) -> core_request::Request {
    let (settings, operation) = match request {
        Request::Start(ask) => (&ask.settings, Operation::Start(core_caller(ask.caller))),
        Request::End(ask) => {
            let completions = ask.completions.iter().map(core_completion).collect();
            (&ask.settings, Operation::End(core_caller(ask.caller), completions))
        }
        Request::Renew(ask) => {
            let probes = ask.probes.iter().copied().map(core_token).collect();
            (&ask.settings, Operation::Renew { caller: core_caller(ask.caller), era: ask.era, probes })
        }
        Request::Inspect(ask) => (&ask.settings, Operation::Inspect),
        Request::SetOverride(ask) => {
            let wanted = ask.override_.as_ref().map(core_override);
            (&ask.settings, Operation::SetOverride(core_caller(ask.caller), wanted))
        }
    };
    core_request::Request { circuit: request.circuit().into(), settings: core_settings(settings), operation }
}

// ---- out of the core's types ----

fn loaded(seen: exchange::Loaded) -> Loaded {
    let entry = seen.entry.map(|entry| Entry { value: entry.value, version: entry.version });
    Loaded { entry, now_ms: seen.now_ms }
}

fn token(token: record::Token) -> Token {
    Token { node: token.node, sequence: token.sequence }
}

fn probe(probe: record::Probe) -> Probe {
    Probe { id: token(probe.id), deadline_ms: probe.deadline_ms }
}

fn counts(counts: record::Counts) -> Counts {
    Counts {
        total: counts.total,
        total_successes: counts.total_successes,
        total_failures: counts.total_failures,
        consecutive_successes: counts.consecutive_successes,
        consecutive_failures: counts.consecutive_failures,
    }
}

fn state(state: record::State) -> State {
    match state {
        record::State::Closed => State::Closed,
        record::State::Open => State::Open,
        record::State::HalfOpen => State::HalfOpen,
    }
}

fn transitions(transitions: Vec<record::Transition>) -> Vec<Transition> {
    let transition = |transition: record::Transition| Transition {
        previous: state(transition.previous),
        next: state(transition.next),
        reason: match transition.reason {
            record::TransitionReason::Tripped => TransitionReason::Tripped,
            record::TransitionReason::OpenTimeOver => TransitionReason::OpenTimeOver,
            record::TransitionReason::ProbesSucceeded => TransitionReason::ProbesSucceeded,
            record::TransitionReason::ProbeFailed => TransitionReason::ProbeFailed,
        },
        at_ms: transition.at_ms,
        era: transition.era,
        generation: transition.generation,
    };
    transitions.into_iter().map(transition).collect()
}

fn override_(set: record::Override) -> Override {
    Override {
        kind: match set.kind {
            record::OverrideKind::ForcedOpen => OverrideKind::ForcedOpen,
            record::OverrideKind::ForcedClosed => OverrideKind::ForcedClosed,
        },
        author: set.author,
        reason: set.reason,
        until_ms: set.until_ms,
    }
}

fn information(information: core_request::Information) -> Information {
    Information {
        state: state(information.state),
        era: information.era,
        generation: information.generation,
        counts: counts(information.counts),
        since_ms: information.since_ms,
        expires_at_ms: information.expires_at_ms,
        probes: information.probes.into_iter().map(probe).collect(),
        probe_successes: information.probe_successes,
        override_: information.override_in_force.map(override_),
        transitions: transitions(information.transitions),
        revision: information.revision,
    }
}

fn verdict(verdict: core_request::Verdict) -> Verdict {
    match verdict {
        core_request::Verdict::Permit(permit) => {
            Verdict::Permit(Permit { era: permit.era, probe: permit.probe.map(probe) })
        }
        core_request::Verdict::Refusal { reason, retry_after_ms } => Verdict::Refusal(Refusal {
            reason: match reason {
                CoreRefusal::Open => RefusalReason::Open,
                CoreRefusal::TooManyRequests => RefusalReason::TooManyRequests,
                CoreRefusal::ForcedOpen => RefusalReason::ForcedOpen,
            },
            retry_after_ms,
        }),
    }
}

fn answer(answer: core_request::Answer) -> Answer {
    match answer {
        core_request::Answer::Started { verdict: given, transitions: made } => {
            Answer::Started(Started { verdict: verdict(given), transitions: transitions(made) })
        }
        core_request::Answer::Settled { dispositions, already_applied, transitions: made } => {
            let disposition =
                |part: core_request::Disposition| Disposition { accepted: part.accepted, stale: part.stale };
            let dispositions = dispositions.into_iter().map(disposition).collect();
            Answer::Settled(Settled { dispositions, already_applied, transitions: transitions(made) })
        }
        core_request::Answer::Renewed(deadlines) => Answer::Renewed(Renewed { deadlines }),
        core_request::Answer::Inspected(shown) => Answer::Inspected(information(shown)),
        core_request::Answer::Overridden { previous, already_applied } => {
            Answer::Overridden(Overridden { previous: previous.map(override_), already_applied })
        }
    }
}

fn settings_error(error: settings::SettingsError) -> SettingsError {
    SettingsError { field: error.field.into(), problem: error.problem }
}

fn error(error: core_request::Error) -> Error {
    match error {
        core_request::Error::CircuitName(problem) => Error::CircuitName(problem),
        core_request::Error::Settings(error) => Error::Settings(settings_error(error)),
        core_request::Error::Request(problem) => Error::Request(problem),
        core_request::Error::Record(record::RecordError::Malformed(problem)) => {
            Error::StoredRecord(RecordError::Malformed(problem))
        }
        core_request::Error::Record(record::RecordError::NewerSchema(schema)) => {
            Error::StoredRecord(RecordError::NewerSchema(schema))
        }
        core_request::Error::Store(exchange::StoreError::Unavailable(text)) => {
            Error::Store(StoreError::Unavailable(text))
        }
        core_request::Error::Store(exchange::StoreError::Unknown(text)) => {
            Error::Store(StoreError::Unknown(text))
        }
        core_request::Error::Store(exchange::StoreError::Denied(text)) => {
            Error::Store(StoreError::Denied(text))
        }
        core_request::Error::Store(exchange::StoreError::Other(text)) => {
            Error::Store(StoreError::Other(text))
        }
        core_request::Error::Contention => Error::Contention,
        core_request::Error::Forgotten => Error::Forgotten,
    }
}
