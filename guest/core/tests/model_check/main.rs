//! An exhaustive model check of the real core: every order of loads, decisions, swaps and answers of up to three nodes, with lost
//! and repeated calls, crashes, a clock that goes on at any moment, and a record that vanishes.
//!
//! A search goes through all states of a small world, breadth first, and asks in each:
//! 1. no more probes are out than may be at once, and none beyond the number of a phase;
//! 2. no outcome counts in another era than its own, and none twice;
//! 3. there is a way out to closed;
//! 4. a transition is announced once, by the caller whose swap made it;
//! 5. no era repeats, and every transition is a legal one;
//! 6. the core takes every record that it wrote.

#![allow(
    dead_code,
    clippy::panic,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "the core has no panics; its tests may. Some fields are read by the story of a broken promise only"
)]

mod archive;
mod calls;
mod config;
mod delivery;
mod identity;
mod mixing;
mod recovery;
mod rules;
mod search;
mod world;

use circuitry_core::Settings;
use circuitry_core::record::OverrideKind;
use circuitry_core::settings::{Backoff, HalfOpenLimit, Overdue, Quorum, Ramp};

use crate::calls::{Deed, Went};
use crate::config::{Beginning, Budget, Config};
use crate::search::explore;

/// Trips at the first failure, opens for a tick, and lends a probe its place for one and a half.
fn settings() -> Settings {
    Settings { failure_count_threshold: 0, allow_after_ms: 100, probe_timeout_ms: 150, ..Settings::default() }
}

/// Goes through all states, and none breaks a rule. They are not fewer than there were, and all that should happen did.
fn holds(name: &str, config: &Config, states_min: usize, expected: &[&str]) {
    let found = explore(name, config, false).unwrap_or_else(|broken| panic!("{name}: {broken}"));
    for kind in expected {
        assert!(found.reached.contains(kind), "{name}: nothing was {kind}, but {:?}", found.reached);
    }
    assert!(found.states.len() >= states_min, "{name}: {} states are too few", found.states.len());
}

fn default_rule() -> Config {
    Config::new(settings())
}

fn counting() -> Config {
    let settings = Settings { failure_count_threshold: 1, cyclic_clear_after_ms: Some(150), ..settings() };
    let config = Config::new(settings);
    Config {
        nodes: 2,
        starts: 3,
        held: 2,
        outcomes: vec![Went::Well, Went::Badly, Went::Neither],
        budget: Budget { ticks: 2, starts: 4, crashes: 0, losses: 0, ..config.budget },
        ..config
    }
}

fn known_entries() -> Config {
    let config = Config::new(settings());
    Config {
        nodes: 3,
        goes_by_known: true,
        budget: Budget { ticks: 2, starts: 4, faults: 1, crashes: 0, losses: 1, ..config.budget },
        ..config
    }
}

fn probes(at_once: u32) -> Config {
    let settings =
        Settings { close_threshold: 2, probes: Some(3), probes_at_once: Some(at_once), ..settings() };
    let config = Config::new(settings);
    Config {
        beginning: Beginning::Tripped,
        outcomes: vec![Went::Well, Went::Badly, Went::Neither],
        budget: Budget { renewals: 1, losses: 0, starts: if at_once > 1 { 3 } else { 4 }, ..config.budget },
        ..config
    }
}

fn clock_behind() -> Config {
    let config = probes(2);
    Config { behind_ms: 100, budget: Budget { crashes: 0, starts: 3, ..config.budget }, nodes: 2, ..config }
}

fn quorum() -> Config {
    let settings = Settings { quorum: Some(Quorum { votes: 2, window_ms: 150 }), ..settings() };
    let config = Config::new(settings);
    Config { budget: Budget { starts: 3, ..config.budget }, ..config }
}

fn half_open_limit(then: Overdue) -> Config {
    let settings = Settings {
        backoff: Some(Backoff { factor_per_mille: 2_000, max_ms: 300, healthy_after_ms: 150 }),
        half_open_limit: Some(HalfOpenLimit { after_ms: 150, then }),
        probe_timeout_ms: 250,
        ..settings()
    };
    let config = Config::new(settings);
    Config {
        beginning: Beginning::Tripped,
        nodes: 2,
        budget: Budget { ticks: 5, starts: 3, losses: 0, ..config.budget },
        ..config
    }
}

fn ramp() -> Config {
    let settings = Settings {
        failure_count_threshold: 1,
        ramp: Some(Ramp { steps_per_mille: vec![300, 600], step_ms: 150 }),
        ..settings()
    };
    let config = Config::new(settings);
    Config {
        beginning: Beginning::Recovered,
        starts: 3,
        nodes: 2,
        budget: Budget { ticks: 3, starts: 4, losses: 0, ..config.budget },
        ..config
    }
}

fn person() -> Config {
    let config = Config::new(settings());
    let deeds = vec![
        Deed::Force(OverrideKind::ForcedOpen, Some(150)),
        Deed::Force(OverrideKind::ForcedOpen, None),
        Deed::Force(OverrideKind::ForcedClosed, None),
        Deed::Force(OverrideKind::Disabled, Some(150)),
        Deed::Force(OverrideKind::MetricsOnly, None),
        Deed::Release,
        Deed::Reset,
    ];
    Config {
        deeds,
        nodes: 2,
        budget: Budget { deeds: 2, starts: 2, ticks: 2, crashes: 0, losses: 0, ..config.budget },
        ..config
    }
}

fn storm() -> Config {
    let config = Config::new(settings());
    Config {
        deeds: vec![Deed::Release],
        nodes: 2,
        budget: Budget { storms: 1, ticks: 2, faults: 2, losses: 0, ..config.budget },
        ..config
    }
}

fn two_deployments() -> Config {
    let settings = Settings { close_threshold: 2, ..settings() };
    let other =
        Settings { close_threshold: 1, failure_count_threshold: 1, settings_revision: 1, ..settings.clone() };
    let config = Config::new(settings);
    Config { other_settings: Some(other), nodes: 2, budget: Budget { crashes: 0, ..config.budget }, ..config }
}

#[test]
fn by_the_default_rule_three_nodes_keep_every_promise() {
    let reached =
        ["tripped", "open time over", "probes succeeded", "probe failed", "stale", "too many requests"];
    holds("default rule", &default_rule(), 1_000_000, &reached);
}

#[test]
fn counts_that_are_cleared_in_between_lose_and_double_no_outcome() {
    holds("cyclic clear", &counting(), 10_000, &["tripped", "already applied"]);
}

#[test]
fn calls_that_begin_with_an_old_entry_keep_every_promise() {
    holds("known entries", &known_entries(), 100_000, &["tripped", "stale", "already applied"]);
}

#[test]
fn with_one_probe_at_once_of_three_there_is_never_another() {
    let reached = ["probes succeeded", "probe failed", "lease lost", "lease prolonged", "too many requests"];
    holds("one probe at once", &probes(1), 100_000, &reached);
}

#[test]
fn with_two_probes_at_once_of_three_there_are_never_more() {
    holds(
        "two probes at once",
        &probes(2),
        100_000,
        &["probes succeeded", "probe failed", "lease prolonged"],
    );
}

#[test]
fn a_node_whose_clock_is_behind_breaks_no_promise() {
    holds("a clock behind", &clock_behind(), 10_000, &["probe failed", "stale"]);
}

#[test]
fn two_votes_of_three_nodes_trip_and_one_does_not() {
    holds("quorum", &quorum(), 100_000, &["votes reached", "probes succeeded"]);
}

#[test]
fn a_half_open_phase_with_a_limit_always_ends() {
    holds("opens when overdue", &half_open_limit(Overdue::Opens), 10_000, &["overdue opened"]);
    holds("closes when overdue", &half_open_limit(Overdue::Closes), 10_000, &["overdue closed"]);
}

#[test]
fn a_ramp_steps_back_and_comes_to_an_end() {
    holds("ramp", &ramp(), 10_000, &["tripped"]);
}

#[test]
fn what_a_person_sets_and_resets_in_between_breaks_no_promise() {
    holds("overrides and resets", &person(), 100_000, &["forced open", "reset", "tripped"]);
}

#[test]
fn a_call_repeated_after_more_writes_than_are_remembered_is_not_applied_again() {
    holds("many writes", &storm(), 100_000, &["forgotten"]);
}

#[test]
fn two_deployments_with_other_settings_decide_by_those_in_force() {
    holds("two deployments", &two_deployments(), 10_000, &["tripped", "probes succeeded"]);
}
