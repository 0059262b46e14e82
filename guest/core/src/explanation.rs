//! What [`Information`] says, in a short paragraph for a person who was just woken up.

use alloc::format;
use alloc::string::String;
use core::fmt::Write;

use crate::record::{OverrideKind, State, Trip, TripKind};
use crate::request::Information;
use crate::settings::Overdue;

/// A circuit's name may have a thousand bytes; nobody reads that many.
const NAME_SHOWN_CHARS: usize = 80;

/// A length of time in the largest unit that says something.
fn length(ms: u64) -> String {
    let (value, unit) = match ms {
        0..1_000 => return format!("{ms} ms"),
        1_000..120_000 => {
            let tenths = ms.saturating_add(50) / 100;
            return match tenths % 10 {
                0 => format!("{} s", tenths / 10),
                tenth => format!("{}.{tenth} s", tenths / 10),
            };
        }
        120_000..7_200_000 => (ms / 60_000, "min"),
        7_200_000..172_800_000 => (ms / 3_600_000, "h"),
        _ => (ms / 86_400_000, "days"),
    };
    format!("{value} {unit}")
}

/// A share per mille as a percentage.
fn percent(per_mille: u64) -> String {
    match per_mille % 10 {
        0 => format!("{} %", per_mille / 10),
        tenth => format!("{}.{tenth} %", per_mille / 10),
    }
}

fn several(number: u64, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

fn cause(trip: &Trip) -> String {
    let Trip { kind, observed, threshold, calls, .. } = trip;
    let (failures, calls_seen) = (several(*observed, "failure"), several(*calls, "call"));
    match kind {
        TripKind::ConsecutiveFailures => format!("{failures} in a row, {threshold} trip"),
        TripKind::FailureCount => format!("{failures} among {calls_seen}, {threshold} trip"),
        TripKind::FailureRate => {
            format!("{} of {calls_seen} failed, {} trip", percent(*observed), percent(*threshold))
        }
        TripKind::SlowCallRate => {
            format!("{} of {calls_seen} slow, {} trip", percent(*observed), percent(*threshold))
        }
        TripKind::Custom => format!("the custom rule said so after {failures} in a row"),
        TripKind::Probe => format!("{observed} of {} failed", several(*calls, "probe")),
        TripKind::Overdue => format!("half-open took longer than {}", length(*threshold)),
        TripKind::Votes => format!("{} voted, {threshold} trip", several(*observed, "node")),
    }
}

/// Writes the paragraph. Writing to a text cannot fail.
pub(crate) fn explain(information: &Information, circuit: &str, now_ms: u64) -> String {
    let mut text = String::new();
    let name: String = circuit.chars().take(NAME_SHOWN_CHARS).collect();
    let mark = if name.len() < circuit.len() { "…" } else { "" };
    let _ = write!(text, "Circuit {name}{mark} is ");
    if information.revision == 0 {
        text.push_str("closed: nothing is stored for it.");
        return text;
    }
    let ago = |at_ms: u64| length(now_ms.saturating_sub(at_ms));
    let left = |at_ms: u64| length(at_ms.saturating_sub(now_ms));
    match information.state {
        State::Closed => text.push_str("closed"),
        State::Open => text.push_str("open"),
        State::HalfOpen => text.push_str("half-open"),
    }
    let _ = write!(text, " since {}", ago(information.since_ms));
    if let (State::Open, Some(until_ms)) = (information.state, information.expires_at_ms) {
        let _ = write!(text, ", for another {}", left(until_ms));
    }
    match (&information.last_trip, information.state) {
        (None, _) => text.push('.'),
        (Some(trip), State::Closed) => {
            let _ = write!(text, ". It opened last {} ago: {}.", ago(trip.at_ms), cause(trip));
        }
        (Some(trip), _) => {
            let _ = write!(text, ", because {}", cause(trip));
            if information.trips_in_a_row > 1 {
                let _ = write!(text, " (trip {} in a row)", information.trips_in_a_row);
            }
            text.push('.');
        }
    }
    state_details(&mut text, information, now_ms);
    if let Some(set) = &information.override_in_force {
        let does = match set.kind {
            OverrideKind::ForcedOpen => "Every start is refused",
            OverrideKind::ForcedClosed => "Every start is admitted and nothing trips",
            OverrideKind::Disabled => "Every start is admitted and nothing is counted",
            OverrideKind::MetricsOnly => "Nobody is refused",
        };
        let until = set
            .until_ms
            .map_or_else(|| "until it is taken away".into(), |at_ms| format!("for another {}", left(at_ms)));
        let _ = write!(text, " {does} {until}, by {}: {}.", or_nobody(&set.author), or_none(&set.reason));
    }
    if information.settings_differ {
        text.push_str(" The settings in force are not those of this process.");
    }
    text
}

fn or_nobody(author: &str) -> &str {
    if author.is_empty() { "an unnamed person" } else { author }
}

fn or_none(reason: &str) -> &str {
    if reason.is_empty() { "no reason given" } else { reason }
}

fn state_details(text: &mut String, information: &Information, now_ms: u64) {
    let left = |at_ms: u64| length(at_ms.saturating_sub(now_ms));
    let settings = &information.settings_in_force;
    match information.state {
        State::Closed => {
            let counts = &information.counts;
            let _ = write!(
                text,
                " Calls counted: {}, failed: {}, the last {} in a row.",
                counts.total, counts.total_failures, counts.consecutive_failures
            );
            if let Some(ramp) = &information.ramp {
                let share = percent(ramp.share_per_mille.into());
                let _ =
                    write!(text, " It admits {share} of the starts, more in {}.", left(ramp.next_step_at_ms));
            }
            if let Some(quorum) = &settings.quorum {
                let _ = write!(text, " Votes: {} of {}.", information.votes.len(), quorum.votes);
            }
        }
        State::Open => text.push_str(" The first start after that is a probe."),
        State::HalfOpen => {
            let _ = write!(
                text,
                " Probes that succeeded: {} of {}, failed: {}, out: {}.",
                information.probe_successes,
                settings.close_threshold,
                information.probe_failures,
                information.probes.len()
            );
            if let (Some(limit), Some(at_ms)) = (&settings.half_open_limit, information.expires_at_ms) {
                let then = match limit.then {
                    Overdue::Opens => "opens",
                    Overdue::Closes => "closes",
                };
                let _ = write!(text, " If they take longer than {} it {then}.", left(at_ms));
            }
        }
    }
}
