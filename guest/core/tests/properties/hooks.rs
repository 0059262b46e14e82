//! Rules of the user's own, as pure functions of the counts.

use circuitry_core::record::Counts;
use circuitry_core::settings::CustomRule;
use circuitry_core::{Hooks, TripQuery};

/// The circuit of all random sequences.
pub(crate) const CIRCUIT: &str = "upstream/tenant";

/// A rule that a host supplies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OwnRule {
    Never,
    Always,
    EveryThirdFailure,
    HalfOfFour,
}

impl OwnRule {
    pub(crate) const ALL: [Self; 4] = [Self::Never, Self::Always, Self::EveryThirdFailure, Self::HalfOfFour];

    pub(crate) fn custom(self) -> CustomRule {
        let name = match self {
            // As long as a name may be.
            Self::Never => "never-by-a-name-as-long-as-the-one-of-a-rule-can-be-sixty-four-b",
            Self::Always => "always",
            Self::EveryThirdFailure => "every-third-failure",
            Self::HalfOfFour => "half-of-four",
        };
        CustomRule { name: name.into(), version: 1 }
    }

    pub(crate) fn named(name: &str) -> Self {
        Self::ALL.into_iter().find(|rule| rule.custom().name == name).unwrap()
    }

    pub(crate) fn trips(self, counts: Counts) -> bool {
        let (all, bad) = (counts.total, counts.total_failures);
        match self {
            Self::Never => false,
            Self::Always => true,
            Self::EveryThirdFailure => bad.is_multiple_of(3),
            Self::HalfOfFour => all >= 4 && bad.saturating_mul(2) >= all,
        }
    }
}

/// Answers for these rules, by their names.
pub(crate) struct NamedRules;

impl Hooks for NamedRules {
    fn will_trip(&mut self, query: &TripQuery<'_>) -> bool {
        assert_eq!(query.circuit, CIRCUIT);
        OwnRule::named(&query.rule.name).trips(query.counts)
    }
}

/// A damaged record may name any rule.
pub(crate) struct NamedOrNever;

impl Hooks for NamedOrNever {
    fn will_trip(&mut self, query: &TripQuery<'_>) -> bool {
        let known = OwnRule::ALL.into_iter().find(|rule| rule.custom().name == query.rule.name);
        known.is_some_and(|rule| rule.trips(query.counts))
    }
}
