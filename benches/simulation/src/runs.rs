//! All runs of SCALE.md, side by side; then its tables, the plots and the figures.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Mutex;
use std::thread;

use anyhow::{Context, Result, anyhow, bail};
use circuitry_simulation::scenario::{Bounded, Mode, Scenario};
use circuitry_simulation::{Report, presets, simulate};
use cpu_time::ThreadTime;

use crate::{capacity, plots, tables};

/// At once; a run is one thread.
const THREADS: usize = 3;
const MS: u64 = 1_000;

/// A run with its place on the page.
pub(crate) struct Run {
    /// Which table.
    pub(crate) table: Table,
    /// Which line of the plot, or which column.
    pub(crate) series: &'static str,
    /// Where on the line: milliseconds or processes.
    pub(crate) x: u64,
    pub(crate) scenario: Scenario,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Table {
    Region,
    Staleness,
    HotKey,
}

/// A run and what came of it.
pub(crate) struct Done {
    pub(crate) run: Run,
    pub(crate) report: Report,
    /// Processor time: how long it takes hangs on the neighbours.
    pub(crate) took_s: f64,
}

fn push(bounded: Bounded) -> Bounded {
    Bounded { push: Some(presets::push()), ..bounded }
}

fn times(max_staleness_ms: u64, flush_every_ms: u64) -> Bounded {
    Bounded {
        max_staleness_us: max_staleness_ms * MS,
        flush_every_us: flush_every_ms * MS,
        ..presets::bounded()
    }
}

fn runs(small: bool) -> Vec<Run> {
    let part = if small { 10 } else { 1 };
    let mut runs = Vec::new();
    let plain = presets::bounded;
    let region = [
        ("strict", Mode::Strict),
        ("bounded", Mode::Bounded(plain())),
        ("bounded + push", Mode::Bounded(push(plain()))),
        ("eased", Mode::Bounded(presets::eased(plain()))),
        ("eased + push", Mode::Bounded(presets::eased(push(plain())))),
        ("eased + push, 2 s / 1 s", Mode::Bounded(presets::eased(push(times(2_000, 1_000))))),
    ];
    for (series, mode) in region {
        let scenario = Scenario { mode, ..presets::region_of(10_000 / part) };
        runs.push(Run { table: Table::Region, series, x: 0, scenario });
    }
    for x in [10, 20, 50, 100, 200, 500, 1_000] {
        for (series, mode) in [("bounded", times(x, 100)), ("bounded + push", push(times(x, 100)))] {
            let mode = Mode::Bounded(mode);
            let scenario = Scenario { mode, ..presets::region_of(1_000 / part) };
            runs.push(Run { table: Table::Staleness, series, x, scenario });
        }
    }
    for processes in [10, 30, 100, 300, 1_000, 3_000] {
        let modes = [
            ("strict", Mode::Strict),
            ("bounded", Mode::Bounded(plain())),
            ("bounded + push, 2 s / 1 s", Mode::Bounded(push(times(2_000, 1_000)))),
            ("eased", Mode::Bounded(presets::eased(plain()))),
            ("eased + push, 2 s / 1 s", Mode::Bounded(presets::eased(push(times(2_000, 1_000))))),
        ];
        for (series, mode) in modes {
            let processes = (processes / part).max(1);
            let scenario = Scenario { mode, ..presets::hot_key(processes) };
            runs.push(Run { table: Table::HotKey, series, x: processes.into(), scenario });
        }
    }
    runs
}

/// Runs it all, and writes.
pub(crate) fn run(folder: &Path, redis: Option<&str>, small: bool) -> Result<()> {
    let commit = commit()?;
    let redis = redis.map(capacity::measure).transpose()?;
    let waiting = Mutex::new(runs(small));
    let done = Mutex::new(Vec::new());
    thread::scope(|scope| {
        let work = || -> Result<()> {
            loop {
                let next = waiting.lock().map_err(|_| anyhow!("another run panicked"))?.pop();
                let Some(run) = next else { return Ok(()) };
                let begun = ThreadTime::now();
                let report = simulate(&run.scenario)?;
                let took_s = begun.elapsed().as_secs_f64();
                eprintln!("{:?} {} {}: {took_s:.1} s", run.table, run.series, run.x);
                done.lock().map_err(|_| anyhow!("another run panicked"))?.push(Done { run, report, took_s });
            }
        };
        let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(work)).collect();
        for thread in threads {
            match thread.join() {
                Ok(worked) => worked?,
                Err(_) => bail!("a run panicked"),
            }
        }
        Ok(())
    })?;
    let mut done = done.into_inner().map_err(|_| anyhow!("a run panicked"))?;
    // In the order in which they were planned, whoever was done first.
    let order = runs(small);
    done.sort_by_key(|done| {
        order
            .iter()
            .position(|run| (run.table, run.series, run.x) == (done.run.table, done.run.series, done.run.x))
    });
    let plots = folder.join("plots");
    fs::create_dir_all(&plots)?;
    plots::draw(&plots, &done)?;
    fs::write(plots.join("scale.json"), figures(&commit, &done)?)?;
    fs::write(plots.join("scale-timeline.csv"), tables::timeline(&done))?;
    let page = folder.join("SCALE.md");
    let text = fs::read_to_string(&page).with_context(|| format!("no {}", page.display()))?;
    fs::write(&page, tables::write(&text, &commit, &done, redis.as_ref())?)?;
    Ok(())
}

/// All reports without their timelines.
fn figures(commit: &str, done: &[Done]) -> Result<String> {
    let reports = done.iter().map(|done| {
        let mut report = serde_json::to_value(&done.report)?;
        if let Some(fields) = report.as_object_mut() {
            fields.remove("timeline");
        }
        Ok(serde_json::json!({
            "table": format!("{:?}", done.run.table),
            "series": done.run.series,
            "x": done.run.x,
            "report": report,
        }))
    });
    let reports = reports.collect::<Result<Vec<_>>>()?;
    Ok(serde_json::to_string_pretty(&serde_json::json!({ "commit": commit, "runs": reports }))? + "\n")
}

/// The commit that is measured, with a word where the code is another.
fn commit() -> Result<String> {
    let git = |arguments: &[&str]| -> Result<String> {
        let output = Command::new("git").current_dir(env!("CARGO_MANIFEST_DIR")).args(arguments).output()?;
        Ok(String::from_utf8(output.stdout)?.trim().to_owned())
    };
    let commit = git(&["rev-parse", "--short", "HEAD"])?;
    let changed = git(&["status", "--porcelain", "--", ".", "../../guest/core"])?;
    Ok(if changed.is_empty() { commit } else { format!("{commit} with changes") })
}
