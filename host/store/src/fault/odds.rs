//! How often an operation fails by chance.

use std::time::Duration;

use super::{Fault, Plan};

/// How often an operation fails by chance: parts of a thousand, of which each operation draws at most one failure.
///
/// # Example
/// ```
/// use circuitry_store::fault::Odds;
/// let odds = Odds { lost_answer: 100, unavailable: 50, ..Odds::default() }; // 10 % and 5 %
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Odds {
    /// [`Fault::Unavailable`], per mille.
    pub unavailable: u16,
    /// [`Fault::LostAnswer`], per mille.
    pub lost_answer: u16,
    /// [`Fault::Denied`], per mille.
    pub denied: u16,
    /// [`Fault::Other`], per mille.
    pub other: u16,
    /// [`Fault::Garbage`] of 16 random bytes, per mille.
    pub garbage: u16,
    /// [`Fault::Delay`], per mille; drawn apart, so an operation may be late and fail as well.
    pub delay: u16,
    /// The longest delay that is drawn; the shortest is a millisecond.
    pub delay_at_most: Duration,
    /// [`Fault::LostPush`], per mille of the announcements, which draw nothing else; 1,000 loses every push.
    pub lost_push: u16,
    /// [`Fault::HeldPush`], per mille of the announcements.
    pub held_push: u16,
    /// [`Fault::DoubledPush`], per mille of the announcements.
    pub doubled_push: u16,
}

impl Odds {
    fn of_failure(&self) -> [u16; 5] {
        [self.unavailable, self.lost_answer, self.denied, self.other, self.garbage]
    }

    fn of_push(&self) -> [u16; 3] {
        [self.lost_push, self.held_push, self.doubled_push]
    }
}

/// Odds with what they are drawn from.
pub(super) struct Chance {
    odds: Odds,
    random: fastrand::Rng,
    /// Of its own, so that announcements change nothing of what loads and swaps draw.
    random_of_pushes: fastrand::Rng,
}

impl Chance {
    /// Panics when the odds are above certainty.
    pub(super) fn new(odds: Odds, seed: u64) -> Self {
        let sum: u32 = odds.of_failure().into_iter().map(u32::from).sum();
        assert!(sum <= 1000, "the odds of the failures add up to {sum} per mille; leave at most 1000");
        let of_push: u32 = odds.of_push().into_iter().map(u32::from).sum();
        assert!(of_push <= 1000, "the odds of the pushes add up to {of_push} per mille; leave at most 1000");
        assert!(odds.delay <= 1000, "the odds of a delay are {} per mille; leave at most 1000", odds.delay);
        Self {
            odds,
            random: fastrand::Rng::with_seed(seed),
            random_of_pushes: fastrand::Rng::with_seed(!seed),
        }
    }

    /// Always draws the same count of numbers for the same odds, so that a seed gives one sequence of faults.
    pub(super) fn plan(&mut self) -> Plan {
        let (odds, random) = (&self.odds, &mut self.random);
        let late = random.u16(0..1000) < odds.delay;
        let longest_ms = u64::try_from(odds.delay_at_most.as_millis()).unwrap_or(u64::MAX).max(1);
        let delay = Duration::from_millis(random.u64(1..=longest_ms));
        let garbage = random.u128(..).to_be_bytes();
        let faults = [
            Fault::Unavailable,
            Fault::LostAnswer,
            Fault::Denied,
            Fault::Other,
            Fault::Garbage(garbage.to_vec()),
        ];
        Plan { delay: late.then_some(delay), fault: draw(odds.of_failure(), faults, random) }
    }

    pub(super) fn plan_push(&mut self) -> Plan {
        let faults = [Fault::LostPush, Fault::HeldPush, Fault::DoubledPush];
        Plan { delay: None, fault: draw(self.odds.of_push(), faults, &mut self.random_of_pushes) }
    }
}

/// Draws at most one of the faults, each by its odds per mille.
fn draw<const N: usize>(odds: [u16; N], faults: [Fault; N], random: &mut fastrand::Rng) -> Option<Fault> {
    let drawn = random.u16(0..1000);
    let mut below = 0;
    odds.into_iter().zip(faults).find_map(|(odds, fault)| {
        below += odds;
        (drawn < below).then_some(fault)
    })
}
