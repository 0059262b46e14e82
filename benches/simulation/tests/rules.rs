//! What holds in every simulated fleet, on small ones.

use circuitry_core::Settings;
use circuitry_simulation::scenario::{Bounded, Incident, Load, Mode, Push, Scenario, StoreModel};
use circuitry_simulation::{Report, arithmetic, presets, simulate};

const MS: u64 = 1_000;

/// Fifty processes on two hundred circuits, of which a third fails for a second.
fn small(mode: Mode) -> Scenario {
    Scenario {
        processes: 50,
        circuits: 200,
        circuits_per_process: 8,
        load: Load::Open { per_second: 60.0, at_once: 64 },
        incident: Some(Incident {
            circuits_per_mille: 333,
            failures_per_mille: 900,
            from_us: 1_000 * MS,
            until_us: 2_000 * MS,
        }),
        settings: Settings { close_threshold: 3, allow_after_ms: 500, ..Settings::default() },
        mode,
        store: StoreModel { shards: 4, ..presets::region().store },
        length_us: 3_500 * MS,
        ends_at_us: None,
        measured_from_us: 200 * MS,
        ..presets::region()
    }
}

fn bounded() -> Mode {
    Mode::Bounded(presets::bounded())
}

fn pushed(dropped_per_mille: u32) -> Mode {
    Mode::Bounded(Bounded { push: Some(Push { dropped_per_mille, ..presets::push() }), ..presets::bounded() })
}

fn eased() -> Mode {
    Mode::Bounded(presets::eased(presets::bounded()))
}

fn every_mode() -> [Mode; 4] {
    [Mode::Strict, bounded(), pushed(0), eased()]
}

fn run(scenario: &Scenario) -> Report {
    simulate(scenario).expect("a simulation without defects")
}

#[test]
fn the_same_seed_gives_the_same_report() {
    for mode in every_mode() {
        assert_eq!(run(&small(mode.clone())), run(&small(mode)));
    }
}

#[test]
fn another_seed_gives_another_report() {
    let other = Scenario { seed: 2, ..small(bounded()) };
    assert_ne!(run(&small(bounded())), run(&other));
}

#[test]
fn of_outcomes_that_never_trip_the_records_have_each_one_once() {
    for mode in every_mode() {
        let settings = Settings { failure_count_threshold: u64::MAX, ..Settings::default() };
        let report = run(&Scenario { settings, incident: None, ..small(mode) });
        let outcomes = &report.outcomes;
        assert_eq!(outcomes.stale, 0, "{report:#?}");
        assert_eq!(outcomes.in_records, outcomes.issued, "{report:#?}");
        assert_eq!(outcomes.accepted, outcomes.issued, "{report:#?}");
    }
}

#[test]
fn of_outcomes_that_trip_and_heal_each_is_accepted_or_stale() {
    for mode in every_mode() {
        let report = run(&small(mode));
        assert!(report.incident.trips > 0 && report.outcomes.stale > 0, "{report:#?}");
        assert_eq!(report.outcomes.accepted + report.outcomes.stale, report.outcomes.issued, "{report:#?}");
        let requests = &report.requests;
        assert_eq!(requests.permits, report.outcomes.issued, "{report:#?}");
        assert_eq!(requests.permits + requests.refused, requests.attempts, "{report:#?}");
    }
}

#[test]
fn a_half_open_phase_never_sends_more_probes_than_it_may() {
    for mode in every_mode() {
        let report = run(&small(mode));
        assert!(report.probes.phases > 10, "{report:#?}");
        assert_eq!(report.probes.most_of_a_phase, 3, "all places are used, and no more: {report:#?}");
    }
}

#[test]
fn a_healthy_circuit_does_not_open() {
    for mode in every_mode() {
        assert_eq!(run(&small(mode)).false_trips, 0);
    }
}

#[test]
fn pushes_that_are_all_lost_change_nothing() {
    let without = run(&small(bounded()));
    let lost = run(&small(pushed(1_000)));
    assert_eq!(Report { name: without.name.clone(), ..lost }, without);
}

#[test]
fn a_push_is_a_hint_and_the_states_at_the_end_are_the_same_without() {
    // Long enough for each circuit to be probed.
    let long = |mode| Scenario { length_us: 8_000 * MS, ..small(mode) };
    let (with, without) = (run(&long(pushed(0))), run(&long(pushed(1_000))));
    for report in [&with, &without] {
        assert_eq!(report.incident.closed_at_the_end, report.incident.circuits, "{report:#?}");
    }
    assert!(with.incident.spread_after.p99_us < without.incident.spread_after.p99_us / 4);
}

#[test]
fn every_process_refuses_within_the_staleness_and_a_round_trip_of_the_trip() {
    for max_staleness_us in [20 * MS, 100 * MS, 400 * MS] {
        for push in [None, Some(presets::push())] {
            let mode = Bounded { max_staleness_us, push, ..presets::bounded() };
            let report = run(&small(Mode::Bounded(mode)));
            // The longest of round trips that are half a millisecond in the middle.
            let bound_us = max_staleness_us + 5 * MS;
            assert!(report.incident.tripped > 10, "{report:#?}");
            assert!(report.incident.spread_after.max_us <= bound_us, "{report:#?}");
            assert!(report.incident.last_permit_after_us <= bound_us, "{report:#?}");
        }
    }
}

#[test]
fn in_strict_mode_every_process_refuses_within_a_round_trip_of_the_trip() {
    let report = run(&small(Mode::Strict));
    assert!(report.incident.last_permit_after_us <= 5 * MS, "{report:#?}");
}

#[test]
fn without_an_incident_strict_mode_costs_a_load_a_start_and_at_most_a_swap_an_end() {
    let calm = Scenario { incident: None, ..small(Mode::Strict) };
    let report = run(&calm);
    let first_swaps = u64::from(report.circuits_in_use);
    assert_eq!(report.whole.loads, report.requests.attempts);
    assert!(report.whole.stored <= report.outcomes.issued + first_swaps, "{report:#?}");
}

#[test]
fn the_arithmetic_is_right_to_a_tenth_where_the_store_is_not_busy() {
    // Pairs that are used often, now and then, and seldom.
    for per_second in [20.0, 100.0, 800.0] {
        for mode in [Mode::Strict, bounded()] {
            let calm = Scenario {
                incident: None,
                work_us: 5 * MS,
                load: Load::Open { per_second, at_once: 1_000 },
                // The first start on each circuit writes, and is not of steady use.
                length_us: 8_000 * MS,
                measured_from_us: 5_000 * MS,
                // Races would come on top.
                zipf_exponent: 0.0,
                circuits: 4_000,
                ..small(mode)
            };
            let report = run(&calm);
            let (all, _) = arithmetic::expected_of(&calm);
            let swaps = report.calm.stored + report.calm.conflicts;
            let within = |found: f64, expected: f64| (found - expected).abs() <= 0.1 * expected + 20.0;
            assert!(within(swaps, all.swaps), "{swaps} swaps, {} expected", all.swaps);
            assert!(within(report.calm.loads, all.loads), "{all:?} expected: {report:#?}");
        }
    }
}
