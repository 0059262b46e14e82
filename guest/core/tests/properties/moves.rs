//! Random clocks and moves.

use circuitry_core::Outcome;
use circuitry_core::record::OverrideKind;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

/// Far enough from the end of time that eras go on growing; lengths may still reach it.
const CLOCK_END: u64 = u64::MAX - 1_000_000;

/// A jump of a clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Clock(pub(crate) i64);

impl Clock {
    pub(crate) fn after(self, now: u64) -> u64 {
        now.saturating_add_signed(self.0).min(CLOCK_END)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) kind: OverrideKind,
    pub(crate) until: Option<Clock>,
}

/// An ended permit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ended {
    /// How many permits back.
    pub(crate) back: usize,
    pub(crate) outcome: Outcome,
    pub(crate) slow: bool,
    pub(crate) times: u32,
    pub(crate) retry_after: Option<u64>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum What {
    Start,
    End(Vec<Ended>),
    Renew(Vec<usize>),
    Inspect,
    Force(Option<Wanted>),
    /// How many permits back its era is, and which node it is.
    Vote(usize, usize),
    Reset,
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

pub(crate) fn jump() -> impl Strategy<Value = Clock> {
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

pub(crate) fn outcome() -> impl Strategy<Value = Outcome> {
    prop_oneof![4 => Just(Outcome::Success), 4 => Just(Outcome::Failure), 1 => Just(Outcome::Ignored)]
}

fn back() -> impl Strategy<Value = usize> {
    prop_oneof![6 => Just(0_usize), 4 => 0..4_usize, 1 => 0..100_usize]
}

pub(crate) fn times() -> impl Strategy<Value = u32> {
    prop_oneof![40 => 1..4_u32, 8 => 4..40_u32, 1 => Just(65_536)]
}

pub(crate) fn ended() -> impl Strategy<Value = Ended> {
    let retry_after = option::weighted(0.1, prop_oneof![4 => 0..10_000_u64, 1 => Just(u64::MAX)]);
    (back(), outcome(), proptest::bool::weighted(0.3), times(), retry_after).prop_map(
        |(back, outcome, slow, times, retry_after)| Ended { back, outcome, slow, times, retry_after },
    )
}

/// A few, and sometimes as many as the record can hardly remember.
fn endings() -> impl Strategy<Value = Vec<Ended>> {
    prop_oneof![30 => vec(ended(), 1..5), 1 => vec(ended(), 200..257)]
}

fn override_kind() -> impl Strategy<Value = OverrideKind> {
    use OverrideKind::{Disabled, ForcedClosed, ForcedOpen, MetricsOnly};
    proptest::sample::select(&[ForcedOpen, ForcedClosed, Disabled, MetricsOnly][..])
}

fn what() -> impl Strategy<Value = What> {
    let until = option::weighted(0.8, (-100..5_000_i64).prop_map(Clock));
    let wanted = (override_kind(), until).prop_map(|(kind, until)| Wanted { kind, until });
    prop_oneof![
        20 => Just(What::Start),
        24 => endings().prop_map(What::End),
        4 => vec(back(), 1..4).prop_map(What::Renew),
        4 => Just(What::Inspect),
        2 => option::weighted(0.6, wanted).prop_map(What::Force),
        4 => (back(), 0..6_usize).prop_map(|(back, node)| What::Vote(back, node)),
        1 => Just(What::Reset),
        6 => prop_oneof![3 => 0..40_usize, 2 => 40..90_usize].prop_map(What::Repeat),
    ]
}

fn a_move(loses: bool) -> BoxedStrategy<Move> {
    let what = if loses { prop_oneof![60 => what(), 1 => Just(What::Lose)].boxed() } else { what().boxed() };
    let behind = prop_oneof![7 => Just(0_usize), 2 => 1..3_usize, 1 => 0..6_usize];
    let store_clock = option::weighted(0.2, jump());
    (what, 1..5_u64, 0..3_usize, behind, jump(), store_clock, proptest::bool::weighted(0.1))
        .prop_map(|(what, caller, plan, behind, clock, store_clock, answer_lost)| Move {
            what,
            caller,
            plan,
            behind,
            clock,
            store_clock,
            answer_lost,
        })
        .boxed()
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
