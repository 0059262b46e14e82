//! The tables of SCALE.md, between its markers, and the timeline as CSV.

use std::fmt::Write as _;

use anyhow::{Context, Result};
use circuitry_simulation::arithmetic::expected_of;

use crate::capacity::Capacity;
use crate::runs::{Done, Table};
use crate::text::{length, number, percentiles};

/// Puts the tables into the page.
pub(crate) fn write(page: &str, commit: &str, done: &[Done], redis: Option<&Capacity>) -> Result<String> {
    let of = |table| done.iter().filter(move |done| done.run.table == table).collect::<Vec<_>>();
    let seconds: f64 = done.iter().map(|done| done.took_s).sum();
    let slowest = done.iter().map(|done| done.took_s).fold(0.0, f64::max);
    let commit = format!(
        "Commit {commit}; {} runs, {seconds:.0} s of processor time in all, the longest {slowest:.0} s.\n",
        done.len()
    );
    let mut page = between(page, "commit", &commit)?;
    page = between(&page, "region", &region(&of(Table::Region)))?;
    page = between(&page, "arithmetic", &arithmetic(&of(Table::Region)))?;
    page = between(&page, "staleness", &staleness(&of(Table::Staleness)))?;
    page = between(&page, "hot-key", &hot_key(&of(Table::HotKey)))?;
    if let Some(redis) = redis {
        page = between(&page, "capacity", &redis.table())?;
    }
    Ok(page)
}

/// Replaces what is between the markers of a name.
fn between(page: &str, name: &str, text: &str) -> Result<String> {
    let (begin, end) = (format!("<!-- begin {name} -->\n"), format!("<!-- end {name} -->"));
    let missing = || format!("SCALE.md has no markers of {name}");
    let (before, rest) = page.split_once(&begin).with_context(missing)?;
    let (_, after) = rest.split_once(&end).with_context(missing)?;
    Ok(format!("{before}{begin}{text}{end}{after}"))
}

/// What stands in a row of a column.
type Cell<'a> = &'a dyn Fn(&Done) -> String;

/// A table whose columns are runs.
fn columns(done: &[&Done], rows: &[(&str, Cell<'_>)]) -> String {
    let mut text = String::from("| |");
    for done in done {
        let _ = write!(text, " {} |", done.run.series);
    }
    text.push_str("\n|---|");
    text.push_str(&"---|".repeat(done.len()));
    text.push('\n');
    for (name, cell) in rows {
        let _ = write!(text, "| {name} |");
        for done in done {
            let _ = write!(text, " {} |", cell(done));
        }
        text.push('\n');
    }
    text
}

fn share(part: u64, whole: u64) -> String {
    format!("{:.1} %", part as f64 * 100.0 / whole.max(1) as f64)
}

fn region(done: &[&Done]) -> String {
    columns(
        done,
        &[
            ("requests a second that got through, of those that came", &|done| {
                let requests = &done.report.requests;
                share(requests.attempts, requests.attempts + requests.held_back)
            }),
            ("starts that waited for the store", &|done| {
                share(done.report.requests.asked, done.report.requests.attempts)
            }),
            ("**loads a second**, all well", &|done| number(done.report.calm.loads)),
            ("**swaps a second** that were stored, all well", &|done| number(done.report.calm.stored)),
            ("**conflicts a second**, all well", &|done| number(done.report.calm.conflicts)),
            ("commands a second, peak of the run", &|done| number(done.report.calm.peak)),
            ("hottest circuit: processes", &|done| done.report.hot.users.to_string()),
            ("… loads + swaps + conflicts a second, all well", &|done| {
                let hot = &done.report.hot;
                format!("{} + {} + {}", number(hot.loads), number(hot.stored), number(hot.conflicts))
            }),
            ("… busiest second of any circuit", &|done| number(done.report.hot.busiest_second as f64)),
            ("an outcome is stored after (50 / 99 / 100 %)", &|done| {
                let outcomes = &done.report.outcomes;
                format!(
                    "{} / {} / {}",
                    length(outcomes.told_after_p50_us),
                    length(outcomes.told_after_p99_us),
                    length(outcomes.told_after_max_us)
                )
            }),
            ("circuits that failed / tripped", &|done| {
                format!("{} / {}", done.report.incident.circuits, done.report.incident.tripped)
            }),
            ("first failure → trip, by circuit (50 / 99 / 100 %)", &|done| {
                percentiles(&done.report.incident.trip_after)
            }),
            ("trip → a process refuses (50 / 99 / 100 %)", &|done| {
                percentiles(&done.report.incident.spread_after)
            }),
            ("first failure → a process refuses (50 / 99 / 100 %)", &|done| {
                percentiles(&done.report.incident.refuse_after)
            }),
            ("… on the most used failing circuit", &|done| {
                percentiles(&done.report.incident.hot_refuse_after)
            }),
            ("failures let through", &|done| number(done.report.incident.failures_let_through as f64)),
            ("trips of a failing circuit, on average", &|done| {
                let incident = &done.report.incident;
                format!("{:.2}", f64::from(incident.trips) / f64::from(incident.tripped.max(1)))
            }),
            ("false trips", &|done| done.report.false_trips.to_string()),
            ("probes sent / allowed; most in one phase", &|done| {
                let probes = &done.report.probes;
                format!("{} / {}; {}", probes.sent, probes.allowed, probes.most_of_a_phase)
            }),
            ("outcomes: accepted + stale + still waiting a second after the last request", &|done| {
                let outcomes = &done.report.outcomes;
                let of = |count: u64| number(count as f64);
                format!("{} + {} + {}", of(outcomes.accepted), of(outcomes.stale), of(outcomes.waiting))
            }),
        ],
    )
}

fn arithmetic(done: &[&Done]) -> String {
    let mut text = String::from(
        "| | loads a second: arithmetic | simulated | swaps a second: arithmetic | simulated, stored | … with lost races | hottest circuit, swaps: arithmetic | simulated, stored |\n|---|---|---|---|---|---|---|---|\n",
    );
    for done in done {
        let (all, hot) = expected_of(&done.run.scenario);
        let (calm, found) = (&done.report.calm, &done.report.hot);
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} | {} | {} | {} | {} |",
            done.run.series,
            number(all.loads),
            number(calm.loads),
            number(all.swaps),
            number(calm.stored),
            number(calm.stored + calm.conflicts),
            number(hot.swaps),
            number(found.stored)
        );
    }
    text
}

fn staleness(done: &[&Done]) -> String {
    let mut text = String::from(
        "| `max_staleness` | mode | commands a second | of these conflicts | starts that waited | trip → a process refuses (50 / 99 / 100 %) | first failure → a process refuses (50 %) | failures let through |\n|---|---|---|---|---|---|---|---|\n",
    );
    for done in done {
        let Done { run, report, .. } = done;
        let _ = writeln!(
            text,
            "| {} ms | {} | {} | {} | {} | {} | {} | {} |",
            run.x,
            run.series,
            number(report.calm.sum()),
            number(report.calm.conflicts),
            share(report.requests.asked, report.requests.attempts),
            percentiles(&report.incident.spread_after),
            length(report.incident.refuse_after.p50_us),
            number(report.incident.failures_let_through as f64)
        );
    }
    text
}

fn hot_key(done: &[&Done]) -> String {
    let mut text = String::from(
        "| processes | mode | requests got through | loads + stored + conflicts a second | an outcome is stored after (50 / 99 %) | first failure → trip | … → a process refuses (50 / 99 / 100 %) |\n|---|---|---|---|---|---|---|\n",
    );
    for done in done {
        let Done { run, report, .. } = done;
        let requests = &report.requests;
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} + {} + {} | {} / {} | {} | {} |",
            run.x,
            run.series,
            share(requests.attempts, requests.attempts + requests.held_back),
            number(report.hot.loads),
            number(report.hot.stored),
            number(report.hot.conflicts),
            length(report.outcomes.told_after_p50_us),
            length(report.outcomes.told_after_p99_us),
            if report.incident.tripped > 0 {
                length(report.incident.trip_after.p50_us)
            } else {
                "never".into()
            },
            if report.incident.tripped > 0 {
                percentiles(&report.incident.refuse_after)
            } else {
                "–".into()
            }
        );
    }
    text
}

/// The commands of each tenth of a second of the region's runs.
pub(crate) fn timeline(done: &[Done]) -> String {
    let mut text = String::from("mode,second,loads,stored,conflicts\n");
    for done in done.iter().filter(|done| done.run.table == Table::Region) {
        for (bin, [loads, stored, conflicts]) in (0_u32..).zip(&done.report.timeline) {
            let second = f64::from(bin) / 10.0;
            let series = done.run.series.replace(',', ";");
            let _ = writeln!(text, "{series},{second:.1},{loads},{stored},{conflicts}");
        }
    }
    text
}
