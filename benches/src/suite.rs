//! [`Suite`]: what a suite has measured, and where that goes: a file of JSON lines for the report.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::catalogue::{self, Unit};
use crate::run::Run;
use crate::times::Times;

/// A line of a results file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Line {
    /// The first line: on what it was measured.
    Run(Run),
    /// A figure.
    Figure(Figure),
    /// All values behind a figure, for a plot.
    Points {
        /// Whose.
        name: String,
        /// In the unit of the figure.
        values: Vec<f64>,
    },
}

/// One figure.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Figure {
    /// `suite/name`.
    pub name: String,
    /// In which `value` is.
    pub unit: String,
    /// The figure.
    pub value: f64,
    /// How many rounds, or calls, it is the median or the mean of.
    pub samples: u64,
    /// The quartiles of the rounds, where it is a median.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quartiles: Option<(f64, f64)>,
    /// What it is held to: `<=` or `>=`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held_to: Option<String>,
    /// Missing it is a defect.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub must: Option<f64>,
    /// What we are after.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub goal: Option<f64>,
}

/// A suite that runs.
#[derive(Debug)]
pub struct Suite {
    name: &'static str,
    is_trial: bool,
    servers: BTreeMap<String, String>,
    lines: Vec<Line>,
    left_out: BTreeMap<&'static str, String>,
}

impl Suite {
    /// Begins. `cargo bench` measures; `cargo test --bench`, `-- --test` and a build without optimization only try whether
    /// everything runs, and leave the results of others alone.
    pub fn begin(name: &'static str) -> Self {
        let given = |wanted: &str| std::env::args().any(|argument| argument == wanted);
        let is_trial = !given("--bench") || given("--test") || given("--list") || cfg!(debug_assertions);
        Self { name, is_trial, servers: BTreeMap::new(), lines: Vec::new(), left_out: BTreeMap::new() }
    }

    /// Whether everything is to run once, and nothing is measured.
    pub fn is_trial(&self) -> bool {
        self.is_trial
    }

    /// How often to do something that is done `full` times for a figure.
    pub fn times(&self, full: u64) -> u64 {
        if self.is_trial { full.min(2) } else { full }
    }

    /// Tells the version of a server that was measured with.
    pub fn on(&mut self, server: &str, version: String) {
        self.servers.insert(server.to_owned(), version);
    }

    /// Records a figure.
    ///
    /// # Panics
    /// Where the catalogue does not have it.
    pub fn record(&mut self, id: &str, value: f64, samples: u64) {
        self.record_figure(id, value, samples, None);
    }

    /// Records the median of a call.
    ///
    /// # Panics
    /// As [`Suite::record`].
    pub fn record_times(&mut self, id: &str, times: &Times) {
        let samples = times.rounds() as u64;
        self.record_figure(id, times.median_ns(), samples, Some(times.quartiles_ns()));
    }

    fn record_figure(&mut self, id: &str, value: f64, samples: u64, quartiles: Option<(f64, f64)>) {
        let planned = catalogue::planned(id).unwrap_or_else(|| panic!("the catalogue has no figure {id:?}"));
        assert_eq!(planned.suite(), self.name, "{id:?} is another suite's");
        let unit = unit_name(planned.unit);
        let bound = planned.bound.map(|(_, bound)| bound);
        println!("{id:<58} {value:>14.3} {unit} (of {samples})");
        self.lines.push(Line::Figure(Figure {
            name: id.to_owned(),
            unit: unit.to_owned(),
            value,
            samples,
            quartiles,
            held_to: bound.map(|bound| if bound.at_most { "<=" } else { ">=" }.to_owned()),
            must: bound.map(|bound| bound.must),
            goal: bound.map(|bound| bound.goal),
        }));
    }

    /// Keeps the values behind a figure.
    pub fn keep_points(&mut self, name: &str, values: &[f64]) {
        self.lines.push(Line::Points { name: name.to_owned(), values: values.to_vec() });
    }

    /// Says why a figure is left out. The report then shows that it was not measured.
    pub fn leave_out(&mut self, id: &'static str, why: &str) {
        self.left_out.insert(id, why.to_owned());
    }

    /// Writes what was measured. A suite that did not come to its end leaves nothing.
    ///
    /// # Panics
    /// Where a figure was neither recorded nor left out, or the file cannot be written.
    pub fn finish(self) {
        let has = |id: &str| {
            self.lines.iter().any(|line| matches!(line, Line::Figure(figure) if figure.name == id))
                || self.left_out.contains_key(id)
        };
        let own = catalogue::PLANNED.iter().filter(|planned| planned.suite() == self.name);
        let missing: Vec<_> = own.map(|planned| planned.id).filter(|id| !has(id)).collect();
        assert!(missing.is_empty(), "neither measured nor left out: {missing:?}");
        for (id, why) in &self.left_out {
            println!("{id:<58} not measured: {why}");
        }
        if self.is_trial {
            return;
        }
        let mut lines = vec![Line::Run(Run::look(self.servers))];
        lines.extend(self.lines);
        let path = results_folder().join(format!("{}.jsonl", self.name));
        write(&path, &lines);
    }
}

/// How a unit is called in a results file.
pub fn unit_name(unit: Unit) -> &'static str {
    match unit {
        Unit::Nanoseconds => "ns",
        Unit::Ratio => "ratio",
        Unit::PerSecond => "per second",
        Unit::Count => "count",
        Unit::Bytes => "bytes",
    }
}

/// Where the suites leave their results.
pub fn results_folder() -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
    target.unwrap_or_else(|| workspace().join("target")).join("circuitry-bench")
}

/// The folder of the workspace.
pub fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("."))
}

fn write(path: &Path, lines: &[Line]) {
    let mut text = String::new();
    for line in lines {
        text += &serde_json::to_string(line).expect("numbers and texts");
        text.push('\n');
    }
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).expect("a folder for the results");
    }
    fs::write(path, text).expect("the results are written");
}
