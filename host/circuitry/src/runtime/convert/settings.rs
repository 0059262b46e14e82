//! Settings, there and back: the settings in force may be another process's.

use std::time::Duration;

use crate::policy::{
    Backoff, CircuitSettings, HalfOpenLimit, Overdue, Quorum, Ramp, TripRule, Window, whole_ms,
};
use crate::runtime::bindings::circuitry::breaker::{hooks, types};
use crate::settings::TripInformation;

impl From<Window> for types::Window {
    fn from(window: Window) -> Self {
        match window {
            Window::Calls(calls) => Self::Calls(calls),
            Window::Time(length) => Self::Time(whole_ms(length)),
            Window::Decaying(half_life) => Self::Decaying(whole_ms(half_life)),
        }
    }
}

impl From<types::Window> for Window {
    fn from(window: types::Window) -> Self {
        match window {
            types::Window::Calls(calls) => Self::Calls(calls),
            types::Window::Time(length_ms) => Self::Time(Duration::from_millis(length_ms)),
            types::Window::Decaying(half_life_ms) => Self::Decaying(Duration::from_millis(half_life_ms)),
        }
    }
}

impl From<&TripRule> for types::TripRule {
    fn from(rule: &TripRule) -> Self {
        let windowed = |threshold: u32, window: Window, minimum_calls: u32| types::WindowedRule {
            threshold,
            minimum_calls,
            window: window.into(),
        };
        match rule {
            TripRule::ConsecutiveFailures { minimum_calls } => {
                Self::ConsecutiveFailures(types::ConsecutiveRule { minimum_calls: *minimum_calls })
            }
            TripRule::FailureCount { failures, window, minimum_calls } => {
                Self::FailureCount(windowed(*failures, *window, *minimum_calls))
            }
            TripRule::FailureRate { per_mille, window, minimum_calls } => {
                Self::FailureRate(windowed(*per_mille, *window, *minimum_calls))
            }
            TripRule::SlowCallRate { per_mille, window, minimum_calls } => {
                Self::SlowCallRate(windowed(*per_mille, *window, *minimum_calls))
            }
            TripRule::Custom { name, version } => {
                Self::Custom(types::CustomRule { name: name.clone(), version: *version })
            }
        }
    }
}

impl From<types::TripRule> for TripRule {
    fn from(rule: types::TripRule) -> Self {
        match rule {
            types::TripRule::ConsecutiveFailures(rule) => {
                Self::ConsecutiveFailures { minimum_calls: rule.minimum_calls }
            }
            types::TripRule::FailureCount(types::WindowedRule { threshold, minimum_calls, window }) => {
                Self::FailureCount { failures: threshold, window: window.into(), minimum_calls }
            }
            types::TripRule::FailureRate(types::WindowedRule { threshold, minimum_calls, window }) => {
                Self::FailureRate { per_mille: threshold, window: window.into(), minimum_calls }
            }
            types::TripRule::SlowCallRate(types::WindowedRule { threshold, minimum_calls, window }) => {
                Self::SlowCallRate { per_mille: threshold, window: window.into(), minimum_calls }
            }
            types::TripRule::Custom(rule) => Self::Custom { name: rule.name, version: rule.version },
        }
    }
}

impl From<&CircuitSettings> for types::Settings {
    fn from(given: &CircuitSettings) -> Self {
        Self {
            failure_count_threshold: given.failure_count_threshold,
            close_threshold: given.close_threshold,
            allow_after_ms: whole_ms(given.allow_after),
            cyclic_clear_after_ms: given.cyclic_clear_after.map(whole_ms),
            probe_timeout_ms: whole_ms(given.probe_timeout),
            idle_retention_ms: whole_ms(given.idle_retention),
            policies: (!given.has_default_policies()).then(|| given.into()),
            settings_revision: given.settings_revision,
        }
    }
}

impl From<&CircuitSettings> for types::Policies {
    fn from(given: &CircuitSettings) -> Self {
        Self {
            trip_rules: given.trip_rules.iter().map(Into::into).collect(),
            slow_call_after_ms: given.slow_call_after.map(whole_ms),
            backoff: given.backoff.map(|backoff| types::Backoff {
                factor_per_mille: backoff.factor_per_mille,
                max_ms: whole_ms(backoff.max),
                healthy_after_ms: whole_ms(backoff.healthy_after),
            }),
            jitter_per_mille: given.jitter_per_mille,
            retry_after_max_ms: whole_ms(given.retry_after_max),
            probes: given.probes,
            probes_at_once: given.probes_at_once,
            half_open_limit: given.half_open_limit.map(|limit| types::HalfOpenLimit {
                after_ms: whole_ms(limit.after),
                then: match limit.then {
                    Overdue::Opens => types::Overdue::Opens,
                    Overdue::Closes => types::Overdue::Closes,
                },
            }),
            ramp: given.ramp.as_ref().map(|ramp| types::Ramp {
                steps_per_mille: ramp.steps_per_mille.clone(),
                step_ms: whole_ms(ramp.step),
            }),
            quorum: given
                .quorum
                .map(|quorum| types::Quorum { votes: quorum.votes, window_ms: whole_ms(quorum.window) }),
        }
    }
}

impl From<types::Settings> for CircuitSettings {
    fn from(settings: types::Settings) -> Self {
        let length = Duration::from_millis;
        let by_default = Self {
            failure_count_threshold: settings.failure_count_threshold,
            close_threshold: settings.close_threshold,
            allow_after: length(settings.allow_after_ms),
            cyclic_clear_after: settings.cyclic_clear_after_ms.map(length),
            probe_timeout: length(settings.probe_timeout_ms),
            idle_retention: length(settings.idle_retention_ms),
            settings_revision: settings.settings_revision,
            ..Self::by_default()
        };
        let Some(policies) = settings.policies else { return by_default };
        Self {
            trip_rules: match super::all(policies.trip_rules) {
                none if none.is_empty() => by_default.trip_rules,
                rules => rules,
            },
            slow_call_after: policies.slow_call_after_ms.map(length),
            backoff: policies.backoff.map(|backoff| Backoff {
                factor_per_mille: backoff.factor_per_mille,
                max: length(backoff.max_ms),
                healthy_after: length(backoff.healthy_after_ms),
            }),
            jitter_per_mille: policies.jitter_per_mille,
            retry_after_max: length(policies.retry_after_max_ms),
            probes: policies.probes,
            probes_at_once: policies.probes_at_once,
            half_open_limit: policies.half_open_limit.map(|limit| HalfOpenLimit {
                after: length(limit.after_ms),
                then: match limit.then {
                    types::Overdue::Opens => Overdue::Opens,
                    types::Overdue::Closes => Overdue::Closes,
                },
            }),
            ramp: policies
                .ramp
                .map(|ramp| Ramp { steps_per_mille: ramp.steps_per_mille, step: length(ramp.step_ms) }),
            quorum: policies
                .quorum
                .map(|quorum| Quorum { votes: quorum.votes, window: length(quorum.window_ms) }),
            ..by_default
        }
    }
}

impl From<hooks::TripQuery> for TripInformation {
    fn from(query: hooks::TripQuery) -> Self {
        Self {
            circuit: query.circuit,
            failure_count_threshold: query.failure_count_threshold,
            generation: query.generation,
            counts: query.counts.into(),
        }
    }
}
