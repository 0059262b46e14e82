//! The settings of the configuration as those of `circuitry:breaker`.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use crate::bindings::circuitry::breaker::types::{
    ConsecutiveRule, Policies, Settings, TripRule, Window, WindowedRule,
};
use crate::config::CircuitSettings;

/// The variable that a setting comes from.
pub(crate) fn variable(field: &str) -> String {
    let field = field.rsplit('.').next().unwrap_or_default().replace('-', "_").to_ascii_uppercase();
    format!("CIRCUITRY_{field}")
}

/// What the gateway brings.
pub(crate) fn settings(circuit: &CircuitSettings) -> Settings {
    let mut trip_rules = Vec::new();
    if let Some(rate) = circuit.failure_rate {
        let (threshold, minimum_calls) = (rate.per_mille, rate.minimum_calls);
        let window = Window::Time(rate.window_ms);
        trip_rules.push(TripRule::ConsecutiveFailures(ConsecutiveRule { minimum_calls: 0 }));
        trip_rules.push(TripRule::FailureRate(WindowedRule { threshold, minimum_calls, window }));
    }
    let policies = circuit.has_policies().then_some(Policies {
        trip_rules,
        slow_call_after_ms: circuit.slow_call_after_ms,
        backoff: None,
        jitter_per_mille: circuit.jitter_per_mille,
        retry_after_max_ms: circuit.retry_after_max_ms,
        probes: None,
        probes_at_once: None,
        half_open_limit: None,
        ramp: None,
        quorum: None,
    });
    Settings {
        failure_count_threshold: circuit.failure_count_threshold,
        close_threshold: circuit.close_threshold,
        allow_after_ms: circuit.allow_after_ms,
        cyclic_clear_after_ms: circuit.cyclic_clear_after_ms,
        probe_timeout_ms: circuit.probe_timeout_ms,
        idle_retention_ms: circuit.idle_retention_ms,
        policies,
        settings_revision: circuit.settings_revision,
    }
}
