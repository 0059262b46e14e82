//! Every figure that the README tells: what it is called, where it stands and what it is held to. Suites record by the same
//! names, so what nobody has measured is seen.

/// What a figure counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Nanoseconds; shown in what fits.
    Nanoseconds,
    /// So many times as long, or as many.
    Ratio,
    /// In a second.
    PerSecond,
    /// Of things; fractions are shown.
    Count,
    /// Bytes.
    Bytes,
}

/// What a figure is held to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bound {
    /// Whether less is better.
    pub at_most: bool,
    /// Missing it is a defect.
    pub must: f64,
    /// What we are after.
    pub goal: f64,
}

/// A figure that a suite measures.
#[derive(Clone, Copy, Debug)]
pub struct Planned {
    /// `suite/name`.
    pub id: &'static str,
    /// What it counts.
    pub unit: Unit,
    /// The table it stands in, with its row and column there.
    pub cell: Option<Cell>,
    /// What it is held to, and what it is called where that is told.
    pub bound: Option<(&'static str, Bound)>,
}

/// A place in a table.
#[derive(Clone, Copy, Debug)]
pub struct Cell {
    /// The name between the README's markers.
    pub table: &'static str,
    /// The row.
    pub row: &'static str,
    /// The column.
    pub column: &'static str,
}

impl Planned {
    /// The suite that measures it.
    pub fn suite(&self) -> &'static str {
        self.id.split_once('/').map_or(self.id, |(suite, _)| suite)
    }
}

/// The figure of this name.
pub fn planned(id: &str) -> Option<&'static Planned> {
    PLANNED.iter().find(|planned| planned.id == id)
}

const fn at_most(must: f64, goal: f64) -> Bound {
    Bound { at_most: true, must, goal }
}

const fn at_least(must: f64, goal: f64) -> Bound {
    Bound { at_most: false, must, goal }
}

const fn shown(
    id: &'static str,
    unit: Unit,
    table: &'static str,
    row: &'static str,
    column: &'static str,
) -> Planned {
    Planned { id, unit, cell: Some(Cell { table, row, column }), bound: None }
}

const fn time(id: &'static str, table: &'static str, row: &'static str, column: &'static str) -> Planned {
    shown(id, Unit::Nanoseconds, table, row, column)
}

const fn judged(id: &'static str, unit: Unit, what: &'static str, bound: Bound) -> Planned {
    Planned { id, unit, cell: None, bound: Some((what, bound)) }
}

const BOUNDED: &str = "bounded";
const STRICT: &str = "strict";
const TRIPS: &str = "round-trips";
const PROPAGATION: &str = "propagation";
const DECISION: &str = "decision";
const HOSTS: &str = "hosts";
const POLICIES: &str = "policies";
const MEMORY: &str = "memory";
const STARTUP: &str = "startup";

const ONE: &str = "1 thread, one circuit";
const TWO: &str = "2 threads, one circuit";
const ONE_OF_MANY: &str = "1 thread, 100 circuits";
const TWO_OF_MANY: &str = "2 threads, 100 circuits";

const ON_MEMORY: &str = "`execute`, bounded, memory store";
const ON_REDIS: &str = "`execute`, bounded, Redis";
const RECLOSER: &str = "recloser, async call";
const RECLOSER_SYNC: &str = "recloser, call of a plain function";
const FAILSAFE: &str = "failsafe, async call";
const TOWER: &str = "tower-resilience-circuitbreaker, service call";
const NOTHING: &str = "the no-op alone";
const BY_HAND: &str = "`start` and `end` by hand, bounded, memory store";
const LOOKUP: &str = "looking up a circuit";

const IN_RUST: &str = "Rust, wasmtime";
const IN_NODE: &str = "JavaScript, jco on Node.js";
const IN_PYTHON: &str = "Python, wasmtime";
const START: &str = "a start";
const START_AND_END: &str = "a start and its end";
const EXECUTE: &str = "strict `execute` on the memory store";

const NOW: &str = "time";
const ROW_NATIVE: &str = "start on a closed circuit, native core";

/// All of them, in the order of the tables.
pub const PLANNED: &[Planned] = &[
    judged(
        "bounded/one thread, against recloser",
        Unit::Ratio,
        "bounded `execute`, no-op, closed, 1 thread, against recloser's call",
        at_most(2.0, 1.0),
    ),
    judged(
        "bounded/two threads, against recloser",
        Unit::Ratio,
        "the same, 2 threads on one circuit",
        at_most(0.5, 0.2),
    ),
    judged(
        "round_trips/a million bounded calls",
        Unit::Count,
        "one million bounded calls in 10 s, store operations",
        at_most(250.0, 210.0),
    ),
    judged(
        "strict/redis, against its commands",
        Unit::Ratio,
        "strict `execute` on Redis, one after another, against its own two commands sent bare",
        at_most(1.15, 1.05),
    ),
    judged(
        "strict/dynamodb, against its requests",
        Unit::Ratio,
        "strict `execute` on DynamoDB Local, against a bare GetItem and conditional PutItem",
        at_most(1.15, 1.05),
    ),
    judged(
        "strict/64 tasks",
        Unit::PerSecond,
        "strict on Redis, 64 tasks on one circuit, exact totals, executes a second",
        at_least(30_000.0, 100_000.0),
    ),
    judged(
        "propagation/push p99",
        Unit::Nanoseconds,
        "a trip is seen by another process, Redis push, 99th percentile",
        at_most(25e6, 5e6),
    ),
    judged("memory/idle circuit", Unit::Bytes, "an idle circuit in the host", at_most(1_000.0, 300.0)),
    judged(
        "startup/ready, from the folder",
        Unit::Nanoseconds,
        "a process has a factory, with `component_cache`",
        at_most(5e6, 5e6),
    ),
    judged(
        "startup/ready, compiling",
        Unit::Nanoseconds,
        "a process has a factory, without it",
        at_most(150e6, 150e6),
    ),
    // The bounded mode and its peers.
    time("bounded/memory 1", BOUNDED, ON_MEMORY, ONE),
    time("bounded/memory 2", BOUNDED, ON_MEMORY, TWO),
    time("bounded/memory 1 of many", BOUNDED, ON_MEMORY, ONE_OF_MANY),
    time("bounded/memory 2 of many", BOUNDED, ON_MEMORY, TWO_OF_MANY),
    time("bounded/redis 1", BOUNDED, ON_REDIS, ONE),
    time("bounded/redis 2", BOUNDED, ON_REDIS, TWO),
    time("bounded/redis 1 of many", BOUNDED, ON_REDIS, ONE_OF_MANY),
    time("bounded/redis 2 of many", BOUNDED, ON_REDIS, TWO_OF_MANY),
    time("bounded/by hand 1", BOUNDED, BY_HAND, ONE),
    time("bounded/by hand 2", BOUNDED, BY_HAND, TWO),
    time("bounded/lookup 1", BOUNDED, LOOKUP, ONE),
    time("bounded/lookup 2", BOUNDED, LOOKUP, TWO),
    time("bounded/lookup 1 of many", BOUNDED, LOOKUP, ONE_OF_MANY),
    time("bounded/lookup 2 of many", BOUNDED, LOOKUP, TWO_OF_MANY),
    time("bounded/recloser 1", BOUNDED, RECLOSER, ONE),
    time("bounded/recloser 2", BOUNDED, RECLOSER, TWO),
    time("bounded/recloser 1 of many", BOUNDED, RECLOSER, ONE_OF_MANY),
    time("bounded/recloser 2 of many", BOUNDED, RECLOSER, TWO_OF_MANY),
    time("bounded/recloser sync 1", BOUNDED, RECLOSER_SYNC, ONE),
    time("bounded/recloser sync 2", BOUNDED, RECLOSER_SYNC, TWO),
    time("bounded/failsafe 1", BOUNDED, FAILSAFE, ONE),
    time("bounded/failsafe 2", BOUNDED, FAILSAFE, TWO),
    time("bounded/tower 1", BOUNDED, TOWER, ONE),
    time("bounded/tower 2", BOUNDED, TOWER, TWO),
    time("bounded/nothing 1", BOUNDED, NOTHING, ONE),
    time("bounded/nothing 2", BOUNDED, NOTHING, TWO),
    // The strict mode, one after another.
    time("strict/redis read", STRICT, "one bare read", "Redis"),
    time("strict/dynamodb read", STRICT, "one bare read", "DynamoDB Local"),
    time("strict/redis bare", STRICT, "its own two operations, bare", "Redis"),
    time("strict/dynamodb bare", STRICT, "its own two operations, bare", "DynamoDB Local"),
    time("strict/memory adapter", STRICT, "load and swap through the adapter", "memory"),
    time("strict/redis adapter", STRICT, "load and swap through the adapter", "Redis"),
    time("strict/dynamodb adapter", STRICT, "load and swap through the adapter", "DynamoDB Local"),
    time("strict/memory execute", STRICT, "`execute`", "memory"),
    time("strict/redis execute", STRICT, "`execute`", "Redis"),
    time("strict/dynamodb execute", STRICT, "`execute`", "DynamoDB Local"),
    shown("strict/redis, against a read", Unit::Ratio, STRICT, "`execute` / one bare read", "Redis"),
    shown(
        "strict/dynamodb, against a read",
        Unit::Ratio,
        STRICT,
        "`execute` / one bare read",
        "DynamoDB Local",
    ),
    // Round trips, by the servers' counters.
    shown("round_trips/redis closed", Unit::Count, TRIPS, "`execute`, closed", "Redis: commands"),
    shown("round_trips/redis closed, reads", Unit::Count, TRIPS, "`execute`, closed", "Redis: messages read"),
    shown("round_trips/dynamodb closed", Unit::Count, TRIPS, "`execute`, closed", "DynamoDB: requests"),
    shown("round_trips/redis open", Unit::Count, TRIPS, "refused, open", "Redis: commands"),
    shown("round_trips/redis open, reads", Unit::Count, TRIPS, "refused, open", "Redis: messages read"),
    shown("round_trips/dynamodb open", Unit::Count, TRIPS, "refused, open", "DynamoDB: requests"),
    shown("round_trips/redis probe", Unit::Count, TRIPS, "`execute`, a probe that closes", "Redis: commands"),
    shown(
        "round_trips/redis probe, reads",
        Unit::Count,
        TRIPS,
        "`execute`, a probe that closes",
        "Redis: messages read",
    ),
    shown(
        "round_trips/dynamodb probe",
        Unit::Count,
        TRIPS,
        "`execute`, a probe that closes",
        "DynamoDB: requests",
    ),
    // From the trip of one process to the refusal of another.
    time("propagation/strict p50", PROPAGATION, "strict: every start reads", "median"),
    time("propagation/strict p99", PROPAGATION, "strict: every start reads", "99th percentile"),
    time("propagation/polling p50", PROPAGATION, "bounded, by polling", "median"),
    time("propagation/polling p99", PROPAGATION, "bounded, by polling", "99th percentile"),
    time("propagation/push p50", PROPAGATION, "bounded, Redis push", "median"),
    // Decisions.
    time("boundary/call", DECISION, "a call of a component that adds two numbers", NOW),
    time("boundary/check", DECISION, "`breaker.check` of default settings", NOW),
    time("boundary/check, policies", DECISION, "`breaker.check` of settings with every policy", NOW),
    time("boundary/decide, no record", DECISION, "`exchange.decide` of a start without a record", NOW),
    time("boundary/decide, steady", DECISION, "`exchange.decide` of a start, record in steady use", NOW),
    time("boundary/kilobyte", DECISION, "1,000 bytes more to lower into the component", NOW),
    time("decision/native start", DECISION, ROW_NATIVE, NOW),
    time("decision/native end", DECISION, "end with a success, native core", NOW),
    time("decision/memory start", DECISION, "strict start on the memory store, in wasmtime", NOW),
    time("decision/memory execute", DECISION, "strict start and end on the memory store, in wasmtime", NOW),
    // The same decisions in each host.
    time("boundary/rust start", HOSTS, IN_RUST, START),
    time("boundary/rust start and end", HOSTS, IN_RUST, START_AND_END),
    time("decision/rust execute", HOSTS, IN_RUST, EXECUTE),
    time("hosts/node start", HOSTS, IN_NODE, START),
    time("hosts/node start and end", HOSTS, IN_NODE, START_AND_END),
    time("hosts/node execute", HOSTS, IN_NODE, EXECUTE),
    time("hosts/python start", HOSTS, IN_PYTHON, START),
    time("hosts/python start and end", HOSTS, IN_PYTHON, START_AND_END),
    time("hosts/python execute", HOSTS, IN_PYTHON, EXECUTE),
    // What policies cost.
    time("policies/before start", POLICIES, "start on a closed circuit", "before"),
    time("policies/now start", POLICIES, "start on a closed circuit", "now"),
    shown("policies/start", Unit::Ratio, POLICIES, "start on a closed circuit", "now / before"),
    time("policies/before end", POLICIES, "end with a success", "before"),
    time("policies/now end", POLICIES, "end with a success", "now"),
    shown("policies/end", Unit::Ratio, POLICIES, "end with a success", "now / before"),
    // Memory.
    shown("memory/by the allocator", Unit::Bytes, MEMORY, "strict", "allocated"),
    shown("memory/resident", Unit::Bytes, MEMORY, "strict", "resident"),
    shown("memory/bounded, by the allocator", Unit::Bytes, MEMORY, "bounded", "allocated"),
    shown("memory/bounded, resident", Unit::Bytes, MEMORY, "bounded", "resident"),
    // Start-up.
    time("startup/loading p50", STARTUP, "the compiled component is in the folder", "median"),
    time("startup/loading p90", STARTUP, "the compiled component is in the folder", "90th percentile"),
    time("startup/compiling p50", STARTUP, "it is compiled", "median"),
    time("startup/compiling p90", STARTUP, "it is compiled", "90th percentile"),
    time("startup/keeping p50", STARTUP, "it is compiled and kept", "median"),
    time("startup/keeping p90", STARTUP, "it is compiled and kept", "90th percentile"),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn no_two_figures_have_a_name_or_a_place_in_common() {
        let names: BTreeSet<_> = PLANNED.iter().map(|planned| planned.id).collect();
        let cells = PLANNED.iter().filter_map(|planned| planned.cell);
        let cells: Vec<_> = cells.map(|cell| (cell.table, cell.row, cell.column)).collect();
        assert_eq!(names.len(), PLANNED.len());
        assert_eq!(cells.iter().collect::<BTreeSet<_>>().len(), cells.len());
    }

    #[test]
    fn every_figure_stands_somewhere_and_names_its_suite() {
        for planned in PLANNED {
            assert!(planned.cell.is_some() || planned.bound.is_some(), "{}", planned.id);
            assert!(planned.id.contains('/'), "{}", planned.id);
        }
    }

    #[test]
    fn a_goal_is_never_easier_than_its_must() {
        for (what, bound) in PLANNED.iter().filter_map(|planned| planned.bound) {
            assert!(
                if bound.at_most { bound.goal <= bound.must } else { bound.goal >= bound.must },
                "{what}"
            );
        }
    }
}
