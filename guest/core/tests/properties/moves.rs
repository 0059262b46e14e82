//! Random plans, clocks and moves.

use proptest::collection::vec;
use proptest::prelude::*;

use crate::words::{Plan, Rule, Went};

/// Far enough from the end of time that eras go on growing; lengths may still reach it.
const CLOCK_END: u64 = u64::MAX - 1_000_000;

/// A jump of a clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Clock(i64);

impl Clock {
    pub(crate) fn after(self, now: u64) -> u64 {
        now.saturating_add_signed(self.0).min(CLOCK_END)
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) open: bool,
    pub(crate) until: Option<Clock>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum What {
    Start,
    /// How many permits back, how it went, how often.
    End(Vec<(usize, Went, u32)>),
    Renew(Vec<usize>),
    Inspect,
    Force(Option<Wanted>),
    /// How many calls back.
    Repeat(usize),
    /// The store loses the entry.
    Lose,
}

#[derive(Clone, Debug)]
pub(crate) struct Move {
    pub(crate) what: What,
    pub(crate) caller: u64,
    pub(crate) plan: usize,
    /// How many writes ago the caller saw the entry.
    pub(crate) behind: usize,
    pub(crate) clock: Clock,
    /// How far the store's own clock is off, where it tells it.
    pub(crate) store_clock: Option<Clock>,
    pub(crate) answer_lost: bool,
}

fn jump() -> impl Strategy<Value = Clock> {
    prop_oneof![
        6 => Just(0),
        6 => 1..50_i64,
        4 => 50..2_000_i64,
        2 => 2_000..100_000_i64,
        2 => -2_000..0_i64,
        1 => -100_000_000..100_000_000_i64,
    ]
    .prop_map(Clock)
}

fn went() -> impl Strategy<Value = Went> {
    prop_oneof![4 => Just(Went::Well), 4 => Just(Went::Badly), 1 => Just(Went::Neither)]
}

fn back() -> impl Strategy<Value = usize> {
    prop_oneof![6 => Just(0_usize), 4 => 0..4_usize, 1 => 0..100_usize]
}

fn times() -> impl Strategy<Value = u32> {
    prop_oneof![20 => 1..4_u32, 4 => 4..40_u32, 1 => Just(65_536)]
}

fn what() -> impl Strategy<Value = What> {
    let until = proptest::option::weighted(0.8, (-100..5_000_i64).prop_map(Clock));
    let wanted = (any::<bool>(), until).prop_map(|(open, until)| Wanted { open, until });
    prop_oneof![
        10 => Just(What::Start),
        12 => vec((back(), went(), times()), 1..5).prop_map(What::End),
        2 => vec(back(), 1..4).prop_map(What::Renew),
        3 => Just(What::Inspect),
        1 => proptest::option::weighted(0.6, wanted).prop_map(What::Force),
        3 => prop_oneof![3 => 0..40_usize, 2 => 40..90_usize].prop_map(What::Repeat),
    ]
}

fn a_move(loses: bool) -> impl Strategy<Value = Move> {
    let what = if loses { prop_oneof![40 => what(), 1 => Just(What::Lose)].boxed() } else { what().boxed() };
    let behind = prop_oneof![7 => Just(0_usize), 2 => 1..3_usize, 1 => 0..6_usize];
    let store_clock = proptest::option::weighted(0.2, jump());
    (what, 1..5_u64, 0..3_usize, behind, jump(), store_clock, proptest::bool::weighted(0.1)).prop_map(
        |(what, caller, plan, behind, clock, store_clock, answer_lost)| Move {
            what,
            caller,
            plan,
            behind,
            clock,
            store_clock,
            answer_lost,
        },
    )
}

/// Sequences of calls on a store that loses nothing.
pub(crate) fn moves() -> impl Strategy<Value = Vec<Move>> {
    vec(a_move(false), 1..120)
}

/// Sequences of calls on a store that sometimes loses the entry.
pub(crate) fn moves_and_losses() -> impl Strategy<Value = Vec<Move>> {
    vec(a_move(true), 1..120)
}

/// When a sequence begins.
pub(crate) fn beginning() -> impl Strategy<Value = u64> {
    prop_oneof![4 => Just(1_800_000_000_000), 1 => 0..5_000_u64, 1 => Just(CLOCK_END - 200_000)]
}

fn bears() -> impl Strategy<Value = u64> {
    prop_oneof![6 => 0..4_u64, 2 => Just(15), 1 => Just(70_000), 1 => Just(u64::MAX), 1 => Just(u64::MAX - 1)]
}

fn length(usual: u64) -> impl Strategy<Value = u64> {
    prop_oneof![1 => Just(1), 12 => usual / 10..usual * 2, 1 => Just(u64::MAX)]
}

pub(crate) fn plan() -> impl Strategy<Value = Plan> {
    let closes_after = prop_oneof![6 => 1..4_u32, 1 => 4..64_u32, 1 => Just(64)];
    let rule = proptest::option::weighted(0.3, proptest::sample::select(&Rule::ALL[..]));
    let clears_after = proptest::option::weighted(0.5, length(3_000));
    (bears(), closes_after, length(2_000), clears_after, length(1_000), length(86_400_000), rule).prop_map(
        |(bears, closes_after, open_for, clears_after, lease, idle, rule)| Plan {
            bears,
            closes_after,
            open_for,
            clears_after,
            lease,
            idle,
            rule,
        },
    )
}

/// Callers that do not agree on the settings, as during a deployment.
pub(crate) fn plans() -> impl Strategy<Value = Vec<Plan>> {
    prop_oneof![2 => vec(plan(), 1..2), 1 => vec(plan(), 2..4)]
}
