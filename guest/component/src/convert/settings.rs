//! Settings: in from a caller, and out where the record has others.

use circuitry_core::settings;

use super::{all, same_cases};
use crate::bindings::circuitry::breaker::types;

impl From<types::CustomRule> for settings::CustomRule {
    fn from(rule: types::CustomRule) -> Self {
        Self { name: rule.name, version: rule.version }
    }
}

impl From<settings::CustomRule> for types::CustomRule {
    fn from(rule: settings::CustomRule) -> Self {
        Self { name: rule.name, version: rule.version }
    }
}

impl From<types::Window> for settings::Window {
    fn from(window: types::Window) -> Self {
        match window {
            types::Window::Calls(calls) => Self::Calls(calls),
            types::Window::Time(length_ms) => Self::Time(length_ms),
            types::Window::Decaying(half_life_ms) => Self::Decaying(half_life_ms),
        }
    }
}

impl From<settings::Window> for types::Window {
    fn from(window: settings::Window) -> Self {
        match window {
            settings::Window::Calls(calls) => Self::Calls(calls),
            settings::Window::Time(length_ms) => Self::Time(length_ms),
            settings::Window::Decaying(half_life_ms) => Self::Decaying(half_life_ms),
        }
    }
}

impl From<types::WindowedRule> for settings::WindowedRule {
    fn from(rule: types::WindowedRule) -> Self {
        Self { threshold: rule.threshold, minimum_calls: rule.minimum_calls, window: rule.window.into() }
    }
}

impl From<settings::WindowedRule> for types::WindowedRule {
    fn from(rule: settings::WindowedRule) -> Self {
        Self { threshold: rule.threshold, minimum_calls: rule.minimum_calls, window: rule.window.into() }
    }
}

impl From<types::TripRule> for settings::TripRule {
    fn from(rule: types::TripRule) -> Self {
        match rule {
            types::TripRule::ConsecutiveFailures(rule) => {
                Self::ConsecutiveFailures { minimum_calls: rule.minimum_calls }
            }
            types::TripRule::FailureCount(rule) => Self::FailureCount(rule.into()),
            types::TripRule::FailureRate(rule) => Self::FailureRate(rule.into()),
            types::TripRule::SlowCallRate(rule) => Self::SlowCallRate(rule.into()),
            types::TripRule::Custom(rule) => Self::Custom(rule.into()),
        }
    }
}

impl From<settings::TripRule> for types::TripRule {
    fn from(rule: settings::TripRule) -> Self {
        match rule {
            settings::TripRule::ConsecutiveFailures { minimum_calls } => {
                Self::ConsecutiveFailures(types::ConsecutiveRule { minimum_calls })
            }
            settings::TripRule::FailureCount(rule) => Self::FailureCount(rule.into()),
            settings::TripRule::FailureRate(rule) => Self::FailureRate(rule.into()),
            settings::TripRule::SlowCallRate(rule) => Self::SlowCallRate(rule.into()),
            settings::TripRule::Custom(rule) => Self::Custom(rule.into()),
        }
    }
}

impl From<types::Backoff> for settings::Backoff {
    fn from(backoff: types::Backoff) -> Self {
        Self {
            factor_per_mille: backoff.factor_per_mille,
            max_ms: backoff.max_ms,
            healthy_after_ms: backoff.healthy_after_ms,
        }
    }
}

impl From<settings::Backoff> for types::Backoff {
    fn from(backoff: settings::Backoff) -> Self {
        Self {
            factor_per_mille: backoff.factor_per_mille,
            max_ms: backoff.max_ms,
            healthy_after_ms: backoff.healthy_after_ms,
        }
    }
}

same_cases! {
    types::Overdue => settings::Overdue { Opens, Closes }
    settings::Overdue => types::Overdue { Opens, Closes }
}

impl From<types::HalfOpenLimit> for settings::HalfOpenLimit {
    fn from(limit: types::HalfOpenLimit) -> Self {
        Self { after_ms: limit.after_ms, then: limit.then.into() }
    }
}

impl From<settings::HalfOpenLimit> for types::HalfOpenLimit {
    fn from(limit: settings::HalfOpenLimit) -> Self {
        Self { after_ms: limit.after_ms, then: limit.then.into() }
    }
}

impl From<types::Ramp> for settings::Ramp {
    fn from(ramp: types::Ramp) -> Self {
        Self { steps_per_mille: ramp.steps_per_mille, step_ms: ramp.step_ms }
    }
}

impl From<settings::Ramp> for types::Ramp {
    fn from(ramp: settings::Ramp) -> Self {
        Self { steps_per_mille: ramp.steps_per_mille, step_ms: ramp.step_ms }
    }
}

impl From<types::Quorum> for settings::Quorum {
    fn from(quorum: types::Quorum) -> Self {
        Self { votes: quorum.votes, window_ms: quorum.window_ms }
    }
}

impl From<settings::Quorum> for types::Quorum {
    fn from(quorum: settings::Quorum) -> Self {
        Self { votes: quorum.votes, window_ms: quorum.window_ms }
    }
}

impl From<types::Settings> for settings::Settings {
    #[inline(never)]
    fn from(given: types::Settings) -> Self {
        let by_default = Self {
            failure_count_threshold: given.failure_count_threshold,
            close_threshold: given.close_threshold,
            allow_after_ms: given.allow_after_ms,
            cyclic_clear_after_ms: given.cyclic_clear_after_ms,
            probe_timeout_ms: given.probe_timeout_ms,
            idle_retention_ms: given.idle_retention_ms,
            settings_revision: given.settings_revision,
            ..Self::default()
        };
        let Some(policies) = given.policies else { return by_default };
        Self {
            trip_rules: all(policies.trip_rules),
            slow_call_after_ms: policies.slow_call_after_ms,
            backoff: policies.backoff.map(Into::into),
            jitter_per_mille: policies.jitter_per_mille,
            retry_after_max_ms: policies.retry_after_max_ms,
            probes: policies.probes,
            probes_at_once: policies.probes_at_once,
            half_open_limit: policies.half_open_limit.map(Into::into),
            ramp: policies.ramp.map(Into::into),
            quorum: policies.quorum.map(Into::into),
            ..by_default
        }
    }
}

impl From<settings::Settings> for types::Settings {
    #[inline(never)]
    fn from(in_force: settings::Settings) -> Self {
        Self {
            failure_count_threshold: in_force.failure_count_threshold,
            close_threshold: in_force.close_threshold,
            allow_after_ms: in_force.allow_after_ms,
            cyclic_clear_after_ms: in_force.cyclic_clear_after_ms,
            probe_timeout_ms: in_force.probe_timeout_ms,
            idle_retention_ms: in_force.idle_retention_ms,
            settings_revision: in_force.settings_revision,
            policies: (!in_force.has_default_policies()).then(|| types::Policies {
                trip_rules: all(in_force.trip_rules),
                slow_call_after_ms: in_force.slow_call_after_ms,
                backoff: in_force.backoff.map(Into::into),
                jitter_per_mille: in_force.jitter_per_mille,
                retry_after_max_ms: in_force.retry_after_max_ms,
                probes: in_force.probes,
                probes_at_once: in_force.probes_at_once,
                half_open_limit: in_force.half_open_limit.map(Into::into),
                ramp: in_force.ramp.map(Into::into),
                quorum: in_force.quorum.map(Into::into),
            }),
        }
    }
}

impl From<settings::SettingsError> for types::SettingsError {
    fn from(error: settings::SettingsError) -> Self {
        Self { field: error.field.into(), problem: error.problem }
    }
}
