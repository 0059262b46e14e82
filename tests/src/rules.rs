//! The trip rules that vectors and sequences name. Each host that runs the vectors has the same four.

use crate::contract::TripQuery;

/// The names of the rules.
pub const NAMES: [&str; 4] = ["never", "always", "every-third-failure", "half-of-four"];

/// Answers `will-trip`; a rule of another name never trips.
pub fn will_trip(query: &TripQuery) -> bool {
    let counts = query.counts;
    match query.rule.name.as_str() {
        "always" => true,
        "every-third-failure" => counts.total_failures.is_multiple_of(3),
        "half-of-four" => counts.total >= 4 && counts.total_failures.saturating_mul(2) >= counts.total,
        _ => false,
    }
}
