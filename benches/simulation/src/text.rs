//! A report as text.

use std::fmt::Write as _;

use circuitry_simulation::report::Percentiles;
use circuitry_simulation::{Report, Scenario, arithmetic};

/// A length of time for people.
pub(crate) fn length(length_us: u64) -> String {
    match length_us {
        0..1_000 => format!("{length_us} µs"),
        1_000..10_000 => format!("{:.1} ms", length_us as f64 / 1e3),
        10_000..1_000_000 => format!("{} ms", length_us / 1_000),
        _ => format!("{:.1} s", length_us as f64 / 1e6),
    }
}

/// A number with thousands apart.
pub(crate) fn number(number: f64) -> String {
    let digits = format!("{:.0}", number.max(0.0));
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Half, 99 of a hundred, all.
pub(crate) fn percentiles(lengths: &Percentiles) -> String {
    format!("{} / {} / {}", length(lengths.p50_us), length(lengths.p99_us), length(lengths.max_us))
}

/// All of a report but the timeline.
pub(crate) fn describe(scenario: &Scenario, report: &Report) -> String {
    let Report { requests, calm, hot, outcomes, incident, probes, whole, .. } = report;
    let (expected, expected_hot) = arithmetic::expected_of(scenario);
    let lines = [
        ("mode", report.name.clone()),
        (
            "processes",
            format!(
                "{}, {} pairs, {} circuits in use",
                report.processes, report.pairs, report.circuits_in_use
            ),
        ),
        (
            "starts",
            format!(
                "{} ({} admitted, {} refused, {} waited for the store), {} requests held back",
                requests.attempts, requests.permits, requests.refused, requests.asked, requests.held_back
            ),
        ),
        (
            "commands a second while all is well",
            format!(
                "{} loads, {} swaps, {} conflicts; without races {} loads and {} swaps expected",
                number(calm.loads),
                number(calm.stored),
                number(calm.conflicts),
                number(expected.loads),
                number(expected.swaps)
            ),
        ),
        ("the most in a tenth of a second, times ten", number(calm.peak)),
        (
            "commands in all",
            format!(
                "{} loads, {} swaps, {} conflicts in {}",
                whole.loads,
                whole.stored,
                whole.conflicts,
                length(whole.took_us)
            ),
        ),
        (
            "the hottest circuit",
            format!(
                "{} users; {} loads, {} swaps, {} conflicts a second ({} and {} expected without races); a circuit's busiest second had {}",
                hot.users,
                number(hot.loads),
                number(hot.stored),
                number(hot.conflicts),
                number(expected_hot.loads),
                number(expected_hot.swaps),
                hot.busiest_second
            ),
        ),
        (
            "outcomes",
            format!(
                "{} ended, {} accepted, {} stale, {} still waiting, {} in the records; told after {} / {} / {}",
                outcomes.issued,
                outcomes.accepted,
                outcomes.stale,
                outcomes.waiting,
                outcomes.in_records,
                length(outcomes.told_after_p50_us),
                length(outcomes.told_after_p99_us),
                length(outcomes.told_after_max_us)
            ),
        ),
        (
            "incident",
            format!(
                "{} circuits failed, {} tripped, {} trips, {} failures let through, {} closed at the end",
                incident.circuits,
                incident.tripped,
                incident.trips,
                incident.failures_let_through,
                incident.closed_at_the_end
            ),
        ),
        ("first failure to trip, 50 / 99 / 100 %", percentiles(&incident.trip_after)),
        ("trip to refusal, of processes", percentiles(&incident.spread_after)),
        ("first failure to refusal, of processes", percentiles(&incident.refuse_after)),
        (
            "  of the most used failing circuit",
            format!("{} of {} processes", percentiles(&incident.hot_refuse_after), incident.hot_users),
        ),
        ("last permit after the trip", length(incident.last_permit_after_us)),
        ("false trips", report.false_trips.to_string()),
        ("trips in all", report.trips.to_string()),
        (
            "probes",
            format!(
                "{} in {} half-open phases, which allow {}; at most {} in one",
                probes.sent, probes.phases, probes.allowed, probes.most_of_a_phase
            ),
        ),
    ];
    let mut text = String::new();
    for (name, value) in lines {
        // Writing to a text does not fail.
        let _ = writeln!(text, "{name:44} {value}");
    }
    text
}
