//! Random settings, all of which can be used.

use circuitry_core::TripRule;
use circuitry_core::settings::{
    Backoff, HalfOpenLimit, Overdue, Quorum, Ramp, Settings, Window, WindowedRule,
};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use crate::hooks::OwnRule;

fn bears() -> impl Strategy<Value = u64> {
    prop_oneof![6 => 0..4_u64, 2 => Just(15), 1 => Just(70_000), 1 => Just(u64::MAX), 1 => Just(u64::MAX - 1)]
}

pub(crate) fn length(usual: u64) -> BoxedStrategy<u64> {
    prop_oneof![1 => Just(1), 12 => usual / 10..usual * 2, 1 => Just(u64::MAX)].boxed()
}

pub(crate) fn calls_window() -> BoxedStrategy<Window> {
    prop_oneof![2 => Just(1_u32), 10 => 2..12_u32, 3 => 12..200_u32, 1 => Just(1_024)]
        .prop_map(Window::Calls)
        .boxed()
}

fn window_length() -> BoxedStrategy<u64> {
    prop_oneof![
        2 => 1..4_u64,
        4 => 4..60_u64,
        6 => 60..6_000_u64,
        2 => 6_000..200_000_u64,
        1 => prop_oneof![Just(u64::MAX), Just(u64::MAX / 16)],
    ]
    .boxed()
}

pub(crate) fn time_window() -> BoxedStrategy<Window> {
    window_length().prop_map(Window::Time).boxed()
}

/// Half-lives of more than 36 million years have no sixteenths: sixteen times that is over the end of time.
pub(crate) fn decaying_window() -> BoxedStrategy<Window> {
    window_length().prop_map(|half_life| Window::Decaying(half_life.min(u64::MAX / 16))).boxed()
}

/// Which rule over a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Count,
    FailureRate,
    SlowCallRate,
}

pub(crate) fn windowed(kind: Kind, window: BoxedStrategy<Window>) -> BoxedStrategy<TripRule> {
    let minimum = prop_oneof![4 => Just(1_u32), 4 => 2..8_u32, 2 => 8..60_u32];
    let failures = prop_oneof![6 => 1..8_u32, 2 => 8..200_u32, 1 => Just(u32::MAX)];
    let share = prop_oneof![8 => 1..1_001_u32, 2 => Just(500_u32), 1 => Just(1_000_u32), 1 => Just(1_u32)];
    (window, minimum, failures, share)
        .prop_map(move |(window, minimum, failures, share)| {
            // No more can be asked of the last so many calls.
            let most = if let Window::Calls(size) = window { size } else { u32::MAX };
            let rule = |threshold| WindowedRule { threshold, minimum_calls: minimum.min(most), window };
            match kind {
                Kind::Count => TripRule::FailureCount(rule(failures.min(most))),
                Kind::FailureRate => TripRule::FailureRate(rule(share)),
                Kind::SlowCallRate => TripRule::SlowCallRate(rule(share)),
            }
        })
        .boxed()
}

fn rule() -> BoxedStrategy<TripRule> {
    let minimum = prop_oneof![6 => Just(0_u32), 3 => 1..12_u32, 1 => Just(u32::MAX)];
    let kind = prop_oneof![Just(Kind::Count), Just(Kind::FailureRate), Just(Kind::SlowCallRate)];
    let window = || prop_oneof![calls_window(), time_window(), decaying_window()].boxed();
    prop_oneof![
        4 => minimum.prop_map(|minimum_calls| TripRule::ConsecutiveFailures { minimum_calls }),
        6 => kind.prop_flat_map(move |kind| windowed(kind, window())),
    ]
    .boxed()
}

/// At most four rules, at most one of them the user's own; some over the same window.
fn rules() -> BoxedStrategy<Vec<TripRule>> {
    let kinds = [Kind::Count, Kind::FailureRate, Kind::SlowCallRate];
    let several = prop_oneof![calls_window(), time_window(), decaying_window()]
        .prop_flat_map(move |window| kinds.map(|kind| windowed(kind, Just(window).boxed())))
        .prop_map(Vec::from)
        .boxed();
    let rules = prop_oneof![
        1 => Just(vec![]),
        6 => vec(rule(), 1..2),
        3 => vec(rule(), 2..5),
        1 => several,
    ];
    let own = (proptest::sample::select(&OwnRule::ALL[..]), any::<prop::sample::Index>());
    (rules, option::weighted(0.2, own))
        .prop_map(|(mut rules, own)| {
            if let (Some((own, at)), false) = (own, rules.is_empty()) {
                let at = at.index(rules.len());
                rules[at] = TripRule::Custom(own.custom());
            }
            rules
        })
        .boxed()
}

fn ramp() -> BoxedStrategy<Ramp> {
    (proptest::collection::btree_set(1..1_000_u32, 1..=8), length(1_000))
        .prop_map(|(steps, step_ms)| Ramp { steps_per_mille: steps.into_iter().collect(), step_ms })
        .boxed()
}

fn limit() -> BoxedStrategy<HalfOpenLimit> {
    (length(1_500), prop_oneof![Just(Overdue::Opens), Just(Overdue::Closes)])
        .prop_map(|(after_ms, then)| HalfOpenLimit { after_ms, then })
        .boxed()
}

/// How it opens, and how it recovers.
#[derive(Clone, Debug)]
struct Recovery {
    backoff: Option<(u32, u64, u64)>,
    jitter_per_mille: u32,
    retry_after_max_ms: u64,
    probes: (u32, Option<u32>, Option<u32>),
    half_open_limit: Option<HalfOpenLimit>,
    ramp: Option<Ramp>,
}

fn recovery() -> BoxedStrategy<Recovery> {
    let factor = prop_oneof![Just(1_000_u32), 1_001..4_000_u32, Just(100_000_u32)];
    let backoff = option::weighted(0.4, (factor, length(10_000), prop_oneof![Just(0), length(5_000)]));
    let jitter = prop_oneof![2 => Just(0_u32), 1 => 1..1_001_u32, 1 => Just(1_000)];
    let retry_after = prop_oneof![2 => Just(0_u64), 2 => length(5_000)];
    let closes_after = prop_oneof![6 => 1..4_u32, 1 => 4..64_u32, 1 => Just(64)];
    let probes = closes_after.prop_flat_map(|least| {
        let most = prop_oneof![3 => least..=(least + 3).min(64), 1 => least..=64];
        (Just(least), option::weighted(0.5, most)).prop_flat_map(|(least, probes)| {
            let at_once = option::weighted(0.4, 1..=probes.unwrap_or(least));
            (Just(least), Just(probes), at_once)
        })
    });
    (backoff, jitter, retry_after, probes, option::weighted(0.4, limit()), option::weighted(0.4, ramp()))
        .prop_map(|(backoff, jitter_per_mille, retry_after_max_ms, probes, half_open_limit, ramp)| Recovery {
            backoff,
            jitter_per_mille,
            retry_after_max_ms,
            probes,
            half_open_limit,
            ramp,
        })
        .boxed()
}

fn quorum() -> BoxedStrategy<Quorum> {
    (prop_oneof![4 => 1..4_u32, 1 => Just(32)], length(3_000))
        .prop_map(|(votes, window_ms)| Quorum { votes, window_ms })
        .boxed()
}

/// Boxed, as its parts are: unboxed they do not fit on the stack of a test's thread.
pub(crate) fn plan() -> BoxedStrategy<Settings> {
    let clears_after = option::weighted(0.4, length(3_000));
    let times = (length(2_000), clears_after, length(1_000), length(86_400_000));
    let slow = option::weighted(0.5, length(300));
    (bears(), times, rules(), slow, recovery(), option::weighted(0.15, quorum()), 0..3_u64)
        .prop_map(
            |(
                bears,
                (allow_after_ms, clears_after, lease, idle),
                trip_rules,
                slow,
                recovery,
                quorum,
                revision,
            )| {
                let minds_slow = trip_rules.iter().any(|rule| matches!(rule, TripRule::SlowCallRate(_)));
                let backoff = recovery.backoff.map(|(factor_per_mille, more, healthy_after_ms)| {
                    let max_ms = allow_after_ms.saturating_add(more);
                    Backoff { factor_per_mille, max_ms, healthy_after_ms }
                });
                let (close_threshold, probes, probes_at_once) = recovery.probes;
                Settings {
                    failure_count_threshold: bears,
                    close_threshold,
                    allow_after_ms,
                    cyclic_clear_after_ms: clears_after,
                    probe_timeout_ms: lease,
                    idle_retention_ms: idle,
                    trip_rules,
                    slow_call_after_ms: if minds_slow { slow.or(Some(100)) } else { slow },
                    backoff,
                    jitter_per_mille: recovery.jitter_per_mille,
                    retry_after_max_ms: recovery.retry_after_max_ms,
                    probes,
                    probes_at_once,
                    half_open_limit: recovery.half_open_limit,
                    ramp: recovery.ramp,
                    quorum,
                    settings_revision: revision,
                }
            },
        )
        .boxed()
}

/// Callers that do not agree on the settings, as during a deployment; some differ in nothing but its number.
pub(crate) fn plans() -> BoxedStrategy<Vec<Settings>> {
    let renumbered = (plan(), vec((0..3_u64, length(86_400_000)), 1..3)).prop_map(|(plan, others)| {
        let other = |(settings_revision, idle_retention_ms)| Settings {
            settings_revision,
            idle_retention_ms,
            ..plan.clone()
        };
        std::iter::once(plan.clone()).chain(others.into_iter().map(other)).collect()
    });
    prop_oneof![4 => vec(plan(), 1..2), 2 => vec(plan(), 2..4), 1 => renumbered].boxed()
}
