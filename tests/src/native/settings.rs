//! Settings, both ways.

use circuitry_core::settings;

use super::{all, same_cases};
use crate::contract;

impl From<contract::CustomRule> for settings::CustomRule {
    fn from(rule: contract::CustomRule) -> Self {
        Self { name: rule.name, version: rule.version }
    }
}

impl From<settings::CustomRule> for contract::CustomRule {
    fn from(rule: settings::CustomRule) -> Self {
        Self { name: rule.name, version: rule.version }
    }
}

impl From<contract::Window> for settings::Window {
    fn from(window: contract::Window) -> Self {
        match window {
            contract::Window::Calls(calls) => Self::Calls(calls),
            contract::Window::Time(length_ms) => Self::Time(length_ms),
            contract::Window::Decaying(half_life_ms) => Self::Decaying(half_life_ms),
        }
    }
}

impl From<settings::Window> for contract::Window {
    fn from(window: settings::Window) -> Self {
        match window {
            settings::Window::Calls(calls) => Self::Calls(calls),
            settings::Window::Time(length_ms) => Self::Time(length_ms),
            settings::Window::Decaying(half_life_ms) => Self::Decaying(half_life_ms),
        }
    }
}

impl From<contract::WindowedRule> for settings::WindowedRule {
    fn from(rule: contract::WindowedRule) -> Self {
        Self { threshold: rule.threshold, minimum_calls: rule.minimum_calls, window: rule.window.into() }
    }
}

impl From<settings::WindowedRule> for contract::WindowedRule {
    fn from(rule: settings::WindowedRule) -> Self {
        Self { threshold: rule.threshold, minimum_calls: rule.minimum_calls, window: rule.window.into() }
    }
}

impl From<contract::TripRule> for settings::TripRule {
    fn from(rule: contract::TripRule) -> Self {
        match rule {
            contract::TripRule::ConsecutiveFailures(rule) => {
                Self::ConsecutiveFailures { minimum_calls: rule.minimum_calls }
            }
            contract::TripRule::FailureCount(rule) => Self::FailureCount(rule.into()),
            contract::TripRule::FailureRate(rule) => Self::FailureRate(rule.into()),
            contract::TripRule::SlowCallRate(rule) => Self::SlowCallRate(rule.into()),
            contract::TripRule::Custom(rule) => Self::Custom(rule.into()),
        }
    }
}

impl From<settings::TripRule> for contract::TripRule {
    fn from(rule: settings::TripRule) -> Self {
        match rule {
            settings::TripRule::ConsecutiveFailures { minimum_calls } => {
                Self::ConsecutiveFailures(contract::ConsecutiveRule { minimum_calls })
            }
            settings::TripRule::FailureCount(rule) => Self::FailureCount(rule.into()),
            settings::TripRule::FailureRate(rule) => Self::FailureRate(rule.into()),
            settings::TripRule::SlowCallRate(rule) => Self::SlowCallRate(rule.into()),
            settings::TripRule::Custom(rule) => Self::Custom(rule.into()),
        }
    }
}

impl From<contract::Backoff> for settings::Backoff {
    fn from(backoff: contract::Backoff) -> Self {
        Self {
            factor_per_mille: backoff.factor_per_mille,
            max_ms: backoff.max_ms,
            healthy_after_ms: backoff.healthy_after_ms,
        }
    }
}

impl From<settings::Backoff> for contract::Backoff {
    fn from(backoff: settings::Backoff) -> Self {
        Self {
            factor_per_mille: backoff.factor_per_mille,
            max_ms: backoff.max_ms,
            healthy_after_ms: backoff.healthy_after_ms,
        }
    }
}

same_cases! {
    contract::Overdue => settings::Overdue { Opens, Closes }
    settings::Overdue => contract::Overdue { Opens, Closes }
}

impl From<contract::HalfOpenLimit> for settings::HalfOpenLimit {
    fn from(limit: contract::HalfOpenLimit) -> Self {
        Self { after_ms: limit.after_ms, then: limit.then.into() }
    }
}

impl From<settings::HalfOpenLimit> for contract::HalfOpenLimit {
    fn from(limit: settings::HalfOpenLimit) -> Self {
        Self { after_ms: limit.after_ms, then: limit.then.into() }
    }
}

impl From<contract::Ramp> for settings::Ramp {
    fn from(ramp: contract::Ramp) -> Self {
        Self { steps_per_mille: ramp.steps_per_mille, step_ms: ramp.step_ms }
    }
}

impl From<settings::Ramp> for contract::Ramp {
    fn from(ramp: settings::Ramp) -> Self {
        Self { steps_per_mille: ramp.steps_per_mille, step_ms: ramp.step_ms }
    }
}

impl From<contract::Quorum> for settings::Quorum {
    fn from(quorum: contract::Quorum) -> Self {
        Self { votes: quorum.votes, window_ms: quorum.window_ms }
    }
}

impl From<settings::Quorum> for contract::Quorum {
    fn from(quorum: settings::Quorum) -> Self {
        Self { votes: quorum.votes, window_ms: quorum.window_ms }
    }
}

impl From<contract::Settings> for settings::Settings {
    fn from(given: contract::Settings) -> Self {
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

impl From<settings::Settings> for contract::Settings {
    fn from(in_force: settings::Settings) -> Self {
        Self {
            failure_count_threshold: in_force.failure_count_threshold,
            close_threshold: in_force.close_threshold,
            allow_after_ms: in_force.allow_after_ms,
            cyclic_clear_after_ms: in_force.cyclic_clear_after_ms,
            probe_timeout_ms: in_force.probe_timeout_ms,
            idle_retention_ms: in_force.idle_retention_ms,
            settings_revision: in_force.settings_revision,
            policies: (!in_force.has_default_policies()).then(|| contract::Policies {
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

impl From<settings::SettingsError> for contract::SettingsError {
    fn from(error: settings::SettingsError) -> Self {
        Self { field: error.field.into(), problem: error.problem }
    }
}
