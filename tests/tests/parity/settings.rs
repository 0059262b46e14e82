//! Random settings: mostly such as can be used, each field now and then such as cannot.
//!
//! The larger strategies are boxed: one within the other they are too much for the stack of a test.

use circuitry_tests::contract::{
    Backoff, ConsecutiveRule, CustomRule, HalfOpenLimit, Overdue, Policies, Quorum, Ramp, Settings, TripRule,
    Window, WindowedRule,
};
use circuitry_tests::rules;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

pub(crate) fn length() -> impl Strategy<Value = u64> + Clone {
    prop_oneof![300 => 1..20_000_u64, 1 => Just(0), 9 => Just(u64::MAX)]
}

fn per_mille() -> impl Strategy<Value = u32> {
    prop_oneof![100 => 1..=1_000_u32, 1 => Just(0), 1 => Just(1_001)]
}

/// A window that has room for so many calls, and the least of these.
fn window(room: u32) -> impl Strategy<Value = Window> {
    let calls = prop_oneof![20 => room..room + 12, 4 => room..100, 1 => 1_000..1_027_u32];
    prop_oneof![
        3 => calls.prop_map(Window::Calls),
        2 => length().prop_map(Window::Time),
        2 => length().prop_map(Window::Decaying),
    ]
}

fn windowed(threshold: impl Strategy<Value = u32> + 'static) -> BoxedStrategy<WindowedRule> {
    let minimum_calls = prop_oneof![100 => 1..6_u32, 1 => Just(0), 1 => Just(u32::MAX)];
    (threshold, minimum_calls, window(5))
        .prop_map(|(threshold, minimum_calls, window)| WindowedRule { threshold, minimum_calls, window })
        .boxed()
}

fn rule() -> BoxedStrategy<TripRule> {
    let count = prop_oneof![100 => 1..6_u32, 1 => Just(0), 1 => Just(u32::MAX)];
    let minimum_calls = prop_oneof![3 => Just(0), 2 => 1..8_u32, 1 => any::<u32>()];
    prop_oneof![
        3 => minimum_calls.prop_map(|minimum_calls| TripRule::ConsecutiveFailures(ConsecutiveRule { minimum_calls })),
        2 => windowed(count).prop_map(TripRule::FailureCount),
        2 => windowed(per_mille()).prop_map(TripRule::FailureRate),
        2 => windowed(per_mille()).prop_map(TripRule::SlowCallRate),
    ]
    .boxed()
}

fn custom() -> impl Strategy<Value = TripRule> {
    let name = prop_oneof![40 => select(&rules::NAMES[..]).prop_map(String::from), 1 => "[a-z]{0,70}"];
    (name, any::<u32>()).prop_map(|(name, version)| TripRule::Custom(CustomRule { name, version }))
}

/// One to four, of which one may be custom; now and then none, five, or two that are custom.
fn trip_rules() -> BoxedStrategy<Vec<TripRule>> {
    let alone = prop_oneof![rule(), custom()].prop_map(|rule| vec![rule]);
    let any_of = (vec(rule(), 1..4), option::of(custom())).prop_map(|(mut rules, custom)| {
        rules.extend(custom);
        rules
    });
    let wrong = prop_oneof![Just(vec![]), vec(rule(), 5), vec(custom(), 2)];
    prop_oneof![50 => alone, 50 => any_of, 1 => wrong].boxed()
}

/// So many per mille, and how much longer than the first open time the longest is.
fn backoff() -> impl Strategy<Value = (u32, u64, u64)> {
    let factor =
        prop_oneof![100 => 1_000..4_000_u32, 3 => Just(100_000), 1 => 0..1_000_u32, 1 => Just(100_001)];
    (factor, prop_oneof![10 => 0..200_000_u64, 1 => Just(u64::MAX)], length())
}

fn ramp() -> impl Strategy<Value = Ramp> {
    let steps = prop_oneof![
        60 => proptest::collection::btree_set(1..1_000_u32, 1..9).prop_map(|steps| steps.into_iter().collect()),
        1 => vec(0..1_002_u32, 0..10),
    ];
    (steps, length()).prop_map(|(steps_per_mille, step_ms)| Ramp { steps_per_mille, step_ms })
}

fn quorum() -> impl Strategy<Value = Quorum> {
    let votes = prop_oneof![60 => 1..4_u32, 3 => Just(32), 1 => Just(0), 1 => Just(33)];
    (votes, length()).prop_map(|(votes, window_ms)| Quorum { votes, window_ms })
}

fn half_open_limit() -> impl Strategy<Value = HalfOpenLimit> {
    (length(), select(&[Overdue::Opens, Overdue::Closes][..]))
        .prop_map(|(after_ms, then)| HalfOpenLimit { after_ms, then })
}

/// How many more probes there are than are needed, and how many of these at once.
fn probes() -> impl Strategy<Value = (Option<u32>, Option<u32>)> {
    (
        option::of(prop_oneof![60 => 0..4_u32, 1 => Just(64)]),
        option::of(prop_oneof![60 => 1..3_u32, 1 => 0..70_u32]),
    )
}

/// Settings that a process brings.
pub(crate) fn settings() -> BoxedStrategy<Settings> {
    let threshold = prop_oneof![8 => 0..4_u64, 1 => Just(u64::MAX)];
    let close_threshold = prop_oneof![100 => 1..4_u32, 1 => 0..70_u32];
    let first = (threshold, close_threshold, length(), option::of(length()), length(), length());
    let opening = (
        option::weighted(0.4, backoff()),
        prop_oneof![3 => Just(0), 3 => 1..=1_000_u32, 1 => Just(1_000)],
        prop_oneof![1 => Just(0), 1 => length()],
    );
    let half_open = (probes(), option::weighted(0.4, half_open_limit()));
    let slow = (trip_rules(), option::weighted(0.5, length()), proptest::bool::weighted(0.02));
    let closed = (
        option::weighted(0.4, ramp()),
        option::weighted(0.35, quorum()),
        0..3_u64,
        proptest::bool::weighted(0.15),
    );
    (first, opening, half_open, slow, closed)
        .prop_map(
            |(
                (failure_count_threshold, close_threshold, allow_after_ms, clear, probe_timeout_ms, idle),
                (backoff, jitter_per_mille, retry_after_max_ms),
                ((more_probes, probes_at_once), half_open_limit),
                (trip_rules, slow, may_lack_slow),
                (ramp, quorum, settings_revision, plain),
            )| {
                let needs_slow = trip_rules.iter().any(|rule| matches!(rule, TripRule::SlowCallRate(_)));
                let probes = more_probes.map(|more| close_threshold.saturating_add(more));
                let room = probes.unwrap_or(close_threshold);
                Settings {
                    failure_count_threshold,
                    close_threshold,
                    allow_after_ms,
                    cyclic_clear_after_ms: clear,
                    probe_timeout_ms,
                    idle_retention_ms: idle,
                    policies: (!plain).then(|| Policies {
                        slow_call_after_ms: if needs_slow && !may_lack_slow {
                            slow.or(Some(500))
                        } else {
                            slow
                        },
                        trip_rules,
                        backoff: backoff.map(|(factor_per_mille, longer_ms, healthy_after_ms)| Backoff {
                            factor_per_mille,
                            max_ms: allow_after_ms.saturating_add(longer_ms),
                            healthy_after_ms,
                        }),
                        jitter_per_mille,
                        retry_after_max_ms,
                        probes,
                        probes_at_once: probes_at_once
                            .map(|at_once| if at_once < 3 { at_once.min(room) } else { at_once }),
                        half_open_limit,
                        ramp,
                        quorum,
                    }),
                    settings_revision,
                }
            },
        )
        .boxed()
}
