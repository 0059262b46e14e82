//! What a decision costs in the hosts of other languages. Each has a program of its own for that, which tells medians of its rounds; the
//! programs take turns here, and the median of what they tell is recorded.
//!
//! `cargo xtask hosts` builds the hosts; where one is missing the suite fails.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use circuitry_benches::suite::workspace;
use circuitry_benches::{Suite, Times};
use criterion::Criterion;
use serde_json::Value;

/// How often each program is run.
const RUNS: u64 = 5;

/// A host, and what its program calls what is measured.
struct Host {
    name: &'static str,
    program: PathBuf,
    script: &'static str,
    /// The fields of a line that have the name of a measure, and its median in microseconds.
    fields: (&'static str, &'static str),
    /// The names of what is recorded as `start`, `start and end` and `execute`.
    measures: [&'static str; 3],
}

const FIGURES: [&str; 3] = ["start", "start and end", "execute"];

fn hosts() -> [Host; 2] {
    [
        Host {
            name: "node",
            program: "node".into(),
            script: "host/js/bench/decision.mjs",
            fields: ("what", "us"),
            measures: [
                "exchange.decide of a start, record in steady use",
                "exchange.decide of a start and of an end",
                "strict execute on the memory store, one after another",
            ],
        },
        Host {
            name: "python",
            program: workspace().join("target/python/bin/python"),
            script: "host/python/bench.py",
            fields: ("measure", "median"),
            measures: [
                "exchange.decide of a start",
                "exchange.decide of a start and of an end",
                "execute on the memory store",
            ],
        },
    ]
}

impl Host {
    /// Runs the program; gives the three figures.
    fn measure(&self) -> [Duration; 3] {
        let output = Command::new(&self.program)
            .arg(workspace().join(self.script))
            .output()
            .unwrap_or_else(|error| panic!("{}: {error}; run `cargo xtask hosts`", self.program.display()));
        let told = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{told}{}", String::from_utf8_lossy(&output.stderr));
        let lines: Vec<Value> =
            told.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect();
        self.measures.map(|measure| {
            let line = lines.iter().find(|line| line[self.fields.0] == measure);
            let us = line.and_then(|line| line[self.fields.1].as_f64());
            let us = us.unwrap_or_else(|| panic!("{} does not tell {measure:?}: {told}", self.script));
            Duration::from_secs_f64(us / 1e6)
        })
    }
}

fn main() {
    let mut suite = Suite::begin("hosts");
    let criterion = Criterion::default().configure_from_args();
    let hosts = hosts();
    let mut times: Vec<_> = hosts.iter().map(|host| (host, FIGURES.map(Times::new))).collect();
    let runs = if suite.is_trial() { 1 } else { RUNS };
    for _ in 0..runs {
        for (host, times) in &mut times {
            for (times, measured) in times.iter_mut().zip(host.measure()) {
                times.add(measured);
            }
        }
    }
    for (host, times) in &times {
        for times in times {
            suite.record_times(&format!("hosts/{} {}", host.name, times.name()), times);
        }
    }
    suite.finish();
    criterion.final_summary();
}
