//! The model's words into the core's, and the core's answers into the model's.

use circuitry_core::record::{Override, OverrideKind, State, Token, Transition, TransitionReason};
use circuitry_core::request::{Caller, Operation, RefusalReason, Verdict};
use circuitry_core::settings::CustomRule;
use circuitry_core::{Answer, Completion, Error, Hooks, Outcome, Request, Settings, TripQuery, TripRule};

use crate::words::{Ask, Change, Forced, Phase, Plan, Reply, Rule, Shown, Tally, Went, Who};

pub(crate) const CIRCUIT: &str = "upstream/tenant";

/// Answers for the rules of the model, by their names.
pub(crate) struct NamedRules;

impl Hooks for NamedRules {
    fn will_trip(&mut self, query: &TripQuery<'_>) -> bool {
        assert_eq!(query.circuit, CIRCUIT);
        let rule = Rule::ALL.into_iter().find(|rule| rule.name() == query.rule.name).unwrap();
        rule.trips(query.counts.total, query.counts.total_failures)
    }
}

pub(crate) fn settings(plan: &Plan) -> Settings {
    Settings {
        failure_count_threshold: plan.bears,
        close_threshold: plan.closes_after,
        allow_after_ms: plan.open_for,
        cyclic_clear_after_ms: plan.clears_after,
        probe_timeout_ms: plan.lease,
        idle_retention_ms: plan.idle,
        trip_rule: match plan.rule {
            None => TripRule::ConsecutiveFailures,
            Some(rule) => TripRule::Custom(CustomRule { name: rule.name().into(), version: 1 }),
        },
    }
}

fn token(who: Who) -> Token {
    Token { node: who.0, sequence: who.1 }
}

fn who(token: Token) -> Who {
    (token.node, token.sequence)
}

pub(crate) fn request(plan: &Plan, ask: &Ask) -> Request {
    let caller = |who: Who, retry_of: Option<u64>| Caller { token: token(who), retry_of };
    let operation = match ask {
        Ask::Start { who } => Operation::Start(caller(*who, None)),
        Ask::End { who, retry_of, parts } => {
            let completions = parts
                .iter()
                .map(|part| Completion {
                    era: part.era,
                    probe: part.probe.map(token),
                    outcome: match part.went {
                        Went::Well => Outcome::Success,
                        Went::Badly => Outcome::Failure,
                        Went::Neither => Outcome::Ignored,
                    },
                    count: part.times,
                })
                .collect();
            Operation::End(caller(*who, *retry_of), completions)
        }
        Ask::Renew { who, era, probes } => Operation::Renew {
            caller: caller(*who, None),
            era: *era,
            probes: probes.iter().copied().map(token).collect(),
        },
        Ask::Inspect => Operation::Inspect,
        Ask::Force { who, retry_of, forced: wanted } => {
            let wanted = wanted.as_ref().map(|forced| Override {
                kind: if forced.open { OverrideKind::ForcedOpen } else { OverrideKind::ForcedClosed },
                author: forced.author.clone(),
                reason: forced.reason.clone(),
                until_ms: forced.until,
            });
            Operation::SetOverride(caller(*who, *retry_of), wanted)
        }
    };
    Request { circuit: CIRCUIT.into(), settings: settings(plan), operation }
}

fn phase(state: State) -> Phase {
    match state {
        State::Closed => Phase::Closed,
        State::Open => Phase::Open,
        State::HalfOpen => Phase::HalfOpen,
    }
}

fn changes(transitions: &[Transition]) -> Vec<Change> {
    let change = |transition: &Transition| Change {
        from: phase(transition.previous),
        to: phase(transition.next),
        why: match transition.reason {
            TransitionReason::Tripped => "tripped",
            TransitionReason::OpenTimeOver => "open-time-over",
            TransitionReason::ProbesSucceeded => "probes-succeeded",
            TransitionReason::ProbeFailed => "probe-failed",
        },
        at: transition.at_ms,
        era: transition.era,
        generation: transition.generation,
    };
    transitions.iter().map(change).collect()
}

fn forced(set: &Override) -> Forced {
    Forced {
        open: set.kind == OverrideKind::ForcedOpen,
        author: set.author.clone(),
        reason: set.reason.clone(),
        until: set.until_ms,
    }
}

/// The core's answer as the model would give it.
pub(crate) fn reply(answer: &Answer) -> Reply {
    match answer {
        Answer::Started { verdict: Verdict::Permit(permit), transitions } => Reply::Permit {
            era: permit.era,
            probe: permit.probe.map(|probe| (who(probe.id), probe.deadline_ms)),
            changes: changes(transitions),
        },
        Answer::Started { verdict: Verdict::Refusal { reason, retry_after_ms }, transitions } => {
            Reply::Refusal {
                why: match reason {
                    RefusalReason::Open => "open",
                    RefusalReason::TooManyRequests => "too-many-requests",
                    RefusalReason::ForcedOpen => "forced-open",
                },
                wait: *retry_after_ms,
                changes: changes(transitions),
            }
        }
        Answer::Settled { dispositions, already_applied, transitions } => Reply::Settled {
            parts: dispositions.iter().map(|part| (part.accepted, part.stale)).collect(),
            again: *already_applied,
            changes: changes(transitions),
        },
        Answer::Renewed(deadlines) => Reply::Renewed(deadlines.clone()),
        Answer::Inspected(information) => {
            let counts = information.counts;
            let mut probes: Vec<_> =
                information.probes.iter().map(|probe| (who(probe.id), probe.deadline_ms)).collect();
            probes.sort_unstable();
            Reply::Shown(Box::new(Shown {
                phase: phase(information.state),
                era: information.era,
                generation: information.generation,
                tally: Tally {
                    all: counts.total,
                    good: counts.total_successes,
                    bad: counts.total_failures,
                    good_run: counts.consecutive_successes,
                    bad_run: counts.consecutive_failures,
                },
                since: information.since_ms,
                expires: information.expires_at_ms,
                probes,
                succeeded: information.probe_successes,
                forced: information.override_in_force.as_ref().map(forced),
                changes: changes(&information.transitions),
                writes: information.revision,
            }))
        }
        Answer::Overridden { previous, already_applied } => {
            Reply::Overridden { before: previous.as_ref().map(forced), again: *already_applied }
        }
    }
}

/// The core's error as the model would give it; there is no other where arguments and bytes are sound.
pub(crate) fn error_reply(error: &Error) -> Option<Reply> {
    match error {
        Error::Forgotten => Some(Reply::TooLate),
        Error::Request(_) => Some(Reply::BadRequest),
        _ => None,
    }
}
