//! Figures as Markdown.

use std::collections::{BTreeMap, BTreeSet};

use super::Results;
use crate::catalogue::{Bound, Cell, PLANNED, Planned, Unit};
use crate::run::Run;

/// The suites whose figures are in no catalogue: told as they come.
const AS_THEY_COME: [&str; 1] = ["startup"];
const NOT_MEASURED: &str = "not measured";

/// All tables, by the names of their places in the README.
pub(super) fn all(results: &Results) -> BTreeMap<String, String> {
    let mut tables = BTreeMap::new();
    tables.insert("header".to_owned(), header(results));
    tables.insert("judged".to_owned(), judged(results, PLANNED));
    let names: BTreeSet<_> =
        PLANNED.iter().filter_map(|planned| planned.cell).map(|cell| cell.table).collect();
    for name in names {
        tables.insert(name.to_owned(), grid(results, PLANNED, name));
    }
    for suite in AS_THEY_COME {
        tables.insert(suite.to_owned(), as_they_come(results, suite));
    }
    tables
}

/// On what it was measured. Suites that were measured at other times than the rest are named.
fn header(results: &Results) -> String {
    let suites: BTreeSet<_> = PLANNED.iter().map(Planned::suite).chain(AS_THEY_COME).collect();
    let mut groups: Vec<(Run, Vec<&str>)> = Vec::new();
    for (suite, run) in &results.runs {
        // Suites use other servers each; that makes no other run.
        let run = Run { servers: BTreeMap::new(), ..run.clone() };
        match groups.iter_mut().find(|(other, _)| *other == run) {
            Some((_, suites)) => suites.push(suite),
            None => groups.push((run, vec![suite])),
        }
    }
    let mut servers: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for (server, version) in results.runs.values().flat_map(|run| &run.servers) {
        servers.entry(server).or_default().insert(version);
    }
    let is_one = groups.len() == 1;
    let mut text = String::new();
    for (run, suites) in &groups {
        if !is_one {
            text += &format!("**{}:** ", suites.join(", "));
        }
        let crates: Vec<_> = run.crates.iter().map(|(name, version)| format!("{name} {version}")).collect();
        text += &format!(
            "Commit {}, {}. {}, {} cores; {}; {}; {}.\n\n",
            run.commit,
            run.date,
            run.processor,
            run.cores,
            run.kernel,
            run.rustc,
            crates.join(", ")
        );
    }
    if !servers.is_empty() {
        let told: Vec<_> = servers
            .iter()
            .map(|(server, versions)| {
                format!("{server} {}", versions.iter().copied().collect::<Vec<_>>().join(" and "))
            })
            .collect();
        text += &format!("Servers, on loopback: {}.\n\n", told.join(", "));
    }
    let missing: Vec<_> = suites.into_iter().filter(|suite| !results.runs.contains_key(*suite)).collect();
    if !missing.is_empty() {
        text += &format!("Not measured: {}.\n", missing.join(", "));
    }
    text
}

/// What is held to something.
fn judged(results: &Results, planned: &[Planned]) -> String {
    let mut text = String::from("| | measured | must | goal | |\n|---|---|---|---|---|\n");
    for planned in planned {
        let Some((what, bound)) = planned.bound else { continue };
        let sign = if bound.at_most { "≤" } else { "≥" };
        let value = results.figure(planned.id).map(|figure| figure.value);
        text += &format!(
            "| {what} | {} | {sign} {} | {sign} {} | {} |\n",
            value.map_or_else(
                || NOT_MEASURED.to_owned(),
                |value| format!("**{}**", shown(value, planned.unit))
            ),
            shown(bound.must, planned.unit),
            shown(bound.goal, planned.unit),
            value.map_or("", |value| verdict(value, bound)),
        );
    }
    text
}

fn verdict(value: f64, bound: Bound) -> &'static str {
    let meets = |limit: f64| if bound.at_most { value <= limit } else { value >= limit };
    if meets(bound.goal) {
        "goal met"
    } else if meets(bound.must) {
        "must met"
    } else {
        "**must missed**"
    }
}

/// A table of rows and columns, in the order of the catalogue.
fn grid(results: &Results, planned: &[Planned], table: &str) -> String {
    let own: Vec<(&Planned, Cell)> = planned
        .iter()
        .filter_map(|planned| Some((planned, planned.cell.filter(|cell| cell.table == table)?)))
        .collect();
    let rows = in_order(own.iter().map(|(_, cell)| cell.row));
    let columns = in_order(own.iter().map(|(_, cell)| cell.column));
    let mut text = format!("| | {} |\n|---|{}\n", columns.join(" | "), "---|".repeat(columns.len()));
    for row in rows {
        text += &format!("| {row} |");
        for column in &columns {
            let place = own.iter().find(|(_, cell)| cell.row == row && cell.column == *column);
            let cell = match place {
                // There is nothing to measure.
                None => "–".to_owned(),
                Some((planned, _)) => results
                    .figure(planned.id)
                    .map_or_else(|| NOT_MEASURED.to_owned(), |figure| shown(figure.value, planned.unit)),
            };
            text += &format!(" {cell} |");
        }
        text.push('\n');
    }
    text
}

fn in_order<'a>(names: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let mut seen = Vec::new();
    for name in names {
        if !seen.contains(&name) {
            seen.push(name);
        }
    }
    seen
}

/// The figures of a suite as its file has them.
fn as_they_come(results: &Results, suite: &str) -> String {
    let own: Vec<_> = results
        .figures
        .iter()
        .filter_map(|figure| Some((figure.name.strip_prefix(suite)?.strip_prefix('/')?, figure)))
        .collect();
    if own.is_empty() {
        return format!("{NOT_MEASURED}\n");
    }
    let mut text = String::from("| | |\n|---|---|\n");
    for (what, figure) in own {
        let unit = match figure.unit.as_str() {
            "ns" => Unit::Nanoseconds,
            "ratio" => Unit::Ratio,
            "per second" => Unit::PerSecond,
            "bytes" => Unit::Bytes,
            _ => Unit::Count,
        };
        text += &format!("| {what} | {} |\n", shown(figure.value, unit));
    }
    text
}

/// A figure as people read it.
pub(super) fn shown(value: f64, unit: Unit) -> String {
    match unit {
        Unit::Nanoseconds => {
            let size = value.abs();
            let (scaled, name) = if size < 1e3 {
                (value, "ns")
            } else if size < 1e6 {
                (value / 1e3, "µs")
            } else {
                (value / 1e6, "ms")
            };
            format!("{} {name}", three_digits(scaled))
        }
        // As many as tell a met bound from a missed one.
        Unit::Ratio => format!("{value:.3}").trim_end_matches('0').trim_end_matches('.').to_owned() + "×",
        Unit::PerSecond => format!("{}/s", grouped(value)),
        Unit::Bytes => format!("{} B", grouped(value)),
        Unit::Count if value.fract() == 0.0 => grouped(value),
        Unit::Count => format!("{value:.2}"),
    }
}

fn three_digits(value: f64) -> String {
    let decimals = match value.abs() {
        size if size >= 100.0 => 0,
        size if size >= 10.0 => 1,
        _ => 2,
    };
    let text = format!("{value:.decimals$}");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

/// A whole number with its thousands apart.
fn grouped(value: f64) -> String {
    let digits = format!("{:.0}", value.abs());
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    if value < -0.5 { format!("-{text}") } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HELD: Planned = Planned {
        id: "suite/ratio",
        unit: Unit::Ratio,
        cell: None,
        bound: Some(("the ratio", Bound { at_most: true, must: 1.15, goal: 1.05 })),
    };

    fn measured(id: &str, value: f64) -> Results {
        let mut results = Results::default();
        let line = format!(r#"{{"figure":{{"name":"{id}","unit":"ratio","value":{value},"samples":3}}}}"#);
        results.add("suite", &line).unwrap();
        results
    }

    fn row(results: &Results) -> String {
        judged(results, &[HELD]).lines().nth(2).unwrap().to_owned()
    }

    #[test]
    fn a_figure_that_nobody_has_measured_is_told_as_that() {
        let row = row(&Results::default());
        assert_eq!(row, "| the ratio | not measured | ≤ 1.15× | ≤ 1.05× |  |");
        let every = all(&Results::default());
        assert!(!every["judged"].contains("met") && every["judged"].contains(NOT_MEASURED));
        for (name, table) in every.iter().filter(|(name, _)| *name != "header") {
            assert!(table.contains(NOT_MEASURED), "{name}: {table}");
        }
        assert!(every["header"].starts_with("Not measured: "), "{}", every["header"]);
    }

    #[test]
    fn a_must_that_is_missed_is_shown_as_missed() {
        assert_eq!(
            row(&measured("suite/ratio", 1.151)),
            "| the ratio | **1.151×** | ≤ 1.15× | ≤ 1.05× | **must missed** |"
        );
        assert!(row(&measured("suite/ratio", 1.15)).ends_with("| must met |"));
        assert!(row(&measured("suite/ratio", 1.05)).ends_with("| goal met |"));
        let least = Bound { at_most: false, must: 10.0, goal: 20.0 };
        assert_eq!(
            [9.0, 10.0, 20.0].map(|value| verdict(value, least)),
            ["**must missed**", "must met", "goal met"]
        );
    }

    #[test]
    fn a_cell_that_is_not_there_to_be_measured_is_empty() {
        let cell = |row, column| Some(Cell { table: "t", row, column });
        let planned = [
            Planned { id: "suite/a", cell: cell("r1", "c1"), bound: None, ..HELD },
            Planned { id: "suite/b", cell: cell("r2", "c2"), bound: None, ..HELD },
        ];
        let table = grid(&measured("suite/b", 2.0), &planned, "t");
        assert_eq!(table, "| | c1 | c2 |\n|---|---|---|\n| r1 | not measured | – |\n| r2 | – | 2× |\n");
    }

    #[test]
    fn suites_that_were_measured_at_other_commits_are_named() {
        let mut results = Results::default();
        let run = |commit: &str| {
            format!(
                r#"{{"run":{{"commit":"{commit}","date":"2026-01-02","processor":"p","cores":2,"kernel":"k","rustc":"r","crates":{{}},"servers":{{"Redis":"7"}}}}}}"#
            )
        };
        results.add("strict", &run("aaa")).unwrap();
        assert!(
            header(&results).starts_with("Commit aaa, 2026-01-02. p, 2 cores; k; r"),
            "{}",
            header(&results)
        );
        results.add("memory", &run("bbb + changes")).unwrap();
        let header = header(&results);
        assert!(header.contains("**memory:** Commit bbb + changes"), "{header}");
        assert!(header.contains("**strict:** Commit aaa"), "{header}");
        assert!(header.contains("Servers, on loopback: Redis 7."), "{header}");
    }

    #[test]
    fn figures_are_shown_with_three_digits() {
        let shown = |value| shown(value, Unit::Nanoseconds);
        assert_eq!(
            [4.04, 25e6, 1234.0, 160_520.0, 0.9].map(shown),
            ["4.04 ns", "25 ms", "1.23 µs", "161 µs", "0.9 ns"]
        );
        assert_eq!(super::shown(79_500.4, Unit::PerSecond), "79,500/s");
        assert_eq!(super::shown(2.0, Unit::Count), "2");
        assert_eq!(super::shown(2.005, Unit::Count), "2.00");
    }
}
