//! The scenarios that SCALE.md shows, and the small one that real processes repeat.

use circuitry_core::Settings;

use crate::scenario::{Bounded, Incident, Load, Mode, Push, Scenario, StoreModel};

const MS: u64 = 1_000;
const SECOND: u64 = 1_000_000;

/// Bounded mode as it is by default.
pub fn bounded() -> Bounded {
    Bounded {
        max_staleness_us: 100 * MS,
        flush_every_us: 100 * MS,
        push: None,
        spread_per_mille: 0,
        eases_to_us: None,
    }
}

/// What is proposed for the host: flushes do not come together, and who loses races waits longer.
pub fn eased(mode: Bounded) -> Bounded {
    Bounded { spread_per_mille: 300, eases_to_us: Some(8 * SECOND), ..mode }
}

/// A push that loses nothing.
pub fn push() -> Push {
    Push { dropped_per_mille: 0, latency_us: MS }
}

/// Ten thousand processes and a hundred thousand circuits, of which a third fails for two seconds.
pub fn region() -> Scenario {
    Scenario {
        processes: 10_000,
        circuits: 100_000,
        circuits_per_process: 20,
        zipf_exponent: 0.8,
        load: Load::Open { per_second: 50.0, at_once: 64 },
        work_us: 20 * MS,
        background_failures_per_mille: 20,
        incident: Some(Incident {
            circuits_per_mille: 333,
            failures_per_mille: 900,
            from_us: 1_500 * MS,
            until_us: 3_500 * MS,
        }),
        settings: Settings { close_threshold: 3, allow_after_ms: 1_000, ..Settings::default() },
        mode: Mode::Bounded(bounded()),
        store: StoreModel {
            shards: 64,
            commands_per_second: Some(50_000),
            round_trip_us: 500,
            round_trip_spread: 0.4,
        },
        length_us: 5_500 * MS,
        ends_at_us: Some(6_500 * MS),
        measured_from_us: 500 * MS,
        seed: 1,
    }
}

/// The same with another number of processes; circuits and shards go along.
pub fn region_of(processes: u32) -> Scenario {
    let whole = region();
    let shards = (u64::from(whole.store.shards) * u64::from(processes)).div_ceil(u64::from(whole.processes));
    Scenario {
        processes,
        circuits: processes.saturating_mul(10),
        store: StoreModel { shards: shards.max(1) as u32, ..whole.store },
        ..whole
    }
}

/// So many processes, each busy with the same circuit, which begins to fail.
pub fn hot_key(processes: u32) -> Scenario {
    Scenario {
        processes,
        circuits: 1,
        circuits_per_process: 1,
        load: Load::Open { per_second: 20.0, at_once: 64 },
        incident: Some(Incident {
            circuits_per_mille: 1_000,
            failures_per_mille: 900,
            from_us: 4 * SECOND,
            until_us: 5 * SECOND,
        }),
        store: StoreModel { shards: 1, ..region().store },
        length_us: 7 * SECOND,
        ends_at_us: Some(8 * SECOND),
        measured_from_us: SECOND,
        ..region()
    }
}

/// What four real processes do in the fleet's tests: tasks that execute one circuit over and over, of which so many fail.
pub fn four_processes(tasks: u32, executions: u64, work_us: u64, failures_per_mille: u32) -> Scenario {
    Scenario {
        processes: 4,
        circuits: 1,
        circuits_per_process: 1,
        load: Load::Closed { tasks, executions, pause_us: 5 * MS },
        work_us,
        background_failures_per_mille: failures_per_mille,
        incident: None,
        settings: Settings {
            failure_count_threshold: 4,
            close_threshold: 3,
            allow_after_ms: 50,
            probe_timeout_ms: 120_000,
            ..Settings::default()
        },
        mode: Mode::Strict,
        store: StoreModel {
            shards: 1,
            commands_per_second: None,
            round_trip_us: 300,
            round_trip_spread: 0.5,
        },
        length_us: u64::MAX,
        ends_at_us: None,
        measured_from_us: 0,
        ..region()
    }
}
