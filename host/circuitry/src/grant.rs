//! [`Grants`]: the closed path as a few atomic operations.
//!
//! A grant is the component's word that until a time every start of the circuit is admitted and successes need not ask. It is
//! published in one word, which a start loads; a success adds one to a counter, which is collected later.
//!
//! Invariant: **a success counts in the term of its start or not at all.** A *term* is a stay of the circuit in closed as this
//! process knows it, one for each era. Each counter carries the number of its term beside its count, and is changed by
//! compare-and-swap only; so a success of a term that is over finds another number there and is refused, never counted in the
//! next one.
//!
//! Invariant: **what was counted is collected.** Whoever counts looks afterwards whether somebody will come to collect; whoever
//! stops coming says so first, and looks once more.
//!
//! Whoever publishes, collects or begins a term holds the lock of the circuit's view; whoever starts or succeeds holds nothing.
//! When threads meet on the counter it is spread over several, as in Java's `LongAdder` (after Striped64 by Doug Lea).

use crate::sync::OnceLock;
use crate::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// The lower bits of a word are a time or a count, the upper ones the number of a term. So many milliseconds last until the year
/// 2039; a clock beyond that has no grants.
const TERM_SHIFT: u32 = 41;
const LOWER: u64 = (1 << TERM_SHIFT) - 1;
const TERM_MAX: u64 = u64::MAX >> TERM_SHIFT;
/// Over so many counters it is spread.
const SPREAD: usize = 16;

/// The number of a term.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Term(u64);

impl Term {
    fn of(word: u64) -> Self {
        Self(word >> TERM_SHIFT)
    }

    fn with(self, lower: u64) -> u64 {
        self.0 << TERM_SHIFT | lower
    }
}

/// What became of a success.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Counted {
    /// It will be collected.
    Yes,
    /// It is counted, and nobody comes to collect: have the circuit listed.
    Unlisted,
    /// It is not counted: the term is over.
    No,
}

/// A counter on cache lines of its own.
#[derive(Debug)]
#[repr(align(128))]
struct Counter(AtomicU64);

/// A circuit's grant and what was counted under it.
#[derive(Debug)]
pub(crate) struct Grants {
    /// The term, and until when it is granted; 0: it is not.
    word: AtomicU64,
    /// The era that the term is of.
    era: AtomicU64,
    /// Under the grant a call that takes longer is slow; [`u64::MAX`]: none is.
    slow_call_after_ms: AtomicU64,
    count: AtomicU64,
    spread: OnceLock<Box<[Counter]>>,
    /// Threads have met on `count`.
    met: AtomicBool,
    /// Somebody comes to collect.
    listed: AtomicBool,
}

impl Grants {
    pub(crate) fn new() -> Self {
        Self {
            word: AtomicU64::new(0),
            era: AtomicU64::new(0),
            slow_call_after_ms: AtomicU64::new(u64::MAX),
            count: AtomicU64::new(0),
            spread: OnceLock::new(),
            met: AtomicBool::new(false),
            listed: AtomicBool::new(false),
        }
    }

    // ---- those who work ----

    /// Admits a start, if there is a grant at `now_ms`.
    #[inline]
    pub(crate) fn admit(&self, now_ms: u64) -> Option<Term> {
        let word = self.word.load(Ordering::Acquire);
        (now_ms < word & LOWER).then(|| Term::of(word))
    }

    /// The same with the era that the term is of.
    #[inline]
    pub(crate) fn admit_in_era(&self, now_ms: u64) -> Option<(Term, u64)> {
        let term = self.admit(now_ms)?;
        let era = self.era.load(Ordering::Acquire);
        // Who begins a term says so before he says its era. So if that is not the term's, another has begun.
        (self.term() == term).then_some((term, era))
    }

    /// Whether the grant of `term` stands: nothing has ended it yet but perhaps its time.
    pub(crate) fn stands(&self, term: Term) -> bool {
        let word = self.word.load(Ordering::Acquire);
        Term::of(word) == term && word & LOWER > 0
    }

    /// From when on a call under the grant is slow, if any is.
    #[inline]
    pub(crate) fn slow_call_after_ms(&self) -> Option<u64> {
        Some(self.slow_call_after_ms.load(Ordering::Relaxed)).filter(|after_ms| *after_ms < u64::MAX)
    }

    /// Counts a success of `term`. `slot` spreads threads over counters.
    #[inline]
    pub(crate) fn succeed(&self, term: Term, slot: usize) -> Counted {
        let counters = self.spread.get();
        let counter = counters
            .and_then(|counters| counters.get(slot % SPREAD))
            .map_or(&self.count, |counter| &counter.0);
        let mut seen = counter.load(Ordering::Relaxed);
        loop {
            if Term::of(seen) != term || seen & LOWER == LOWER {
                return Counted::No;
            }
            match counter.compare_exchange(seen, seen + 1, Ordering::SeqCst, Ordering::Relaxed) {
                Ok(_) if self.listed.load(Ordering::SeqCst) => return Counted::Yes,
                Ok(_) => return Counted::Unlisted,
                Err(now) => {
                    self.met.store(true, Ordering::Relaxed);
                    seen = now;
                }
            }
        }
    }

    // ---- those who hold the view ----

    /// The present term.
    pub(crate) fn term(&self) -> Term {
        Term::of(self.word.load(Ordering::Relaxed))
    }

    /// The era of the present term; 0 before the first.
    pub(crate) fn era(&self) -> u64 {
        self.era.load(Ordering::Relaxed)
    }

    /// Publishes a grant for the present term.
    pub(crate) fn give(&self, until_ms: u64, slow_call_after_ms: Option<u64>) {
        if until_ms <= LOWER {
            self.slow_call_after_ms.store(slow_call_after_ms.unwrap_or(u64::MAX), Ordering::Relaxed);
            self.word.store(self.term().with(until_ms), Ordering::Release);
        }
    }

    /// Ends the grant. Successes of the term still count.
    pub(crate) fn end(&self) {
        self.word.store(self.term().with(0), Ordering::Release);
    }

    /// Begins a term of `era`, without a grant; says how many successes of the one before had not been collected.
    pub(crate) fn begin_term(&self, era: u64) -> u64 {
        let before = self.term();
        let term = Term(if before.0 == TERM_MAX { 0 } else { before.0 + 1 });
        self.word.store(term.with(0), Ordering::Release);
        self.era.store(era, Ordering::Release);
        self.take(term)
    }

    /// Takes the successes of the present term that were counted since the last time.
    pub(crate) fn collect(&self) -> u64 {
        let term = self.term();
        let counted = self.take(term);
        if self.met.load(Ordering::Relaxed) && self.spread.get().is_none() {
            let counters = (0..SPREAD).map(|_| Counter(AtomicU64::new(term.with(0))));
            // Who still counts on the first one is collected too.
            let _ = self.spread.set(counters.collect());
        }
        counted
    }

    /// Whether there is something to collect.
    pub(crate) fn has_counted(&self) -> bool {
        self.counters().any(|counter| counter.load(Ordering::SeqCst) & LOWER > 0)
    }

    fn take(&self, term: Term) -> u64 {
        let counts = self.counters().map(|counter| counter.swap(term.with(0), Ordering::SeqCst) & LOWER);
        counts.fold(0, u64::saturating_add)
    }

    fn counters(&self) -> impl Iterator<Item = &AtomicU64> {
        let spread =
            self.spread.get().into_iter().flat_map(|counters| counters.iter().map(|counter| &counter.0));
        std::iter::once(&self.count).chain(spread)
    }

    /// Says that somebody comes to collect; answers whether somebody did before.
    pub(crate) fn list(&self) -> bool {
        self.listed.swap(true, Ordering::SeqCst)
    }

    /// Whether somebody comes to collect.
    pub(crate) fn is_listed(&self) -> bool {
        self.listed.load(Ordering::SeqCst)
    }

    /// Says that nobody comes any more. Look for what was counted after that.
    pub(crate) fn unlist(&self) {
        self.listed.store(false, Ordering::SeqCst);
    }
}

/// A number for each thread, so that threads count on different counters.
#[inline]
pub(crate) fn slot() -> usize {
    use std::cell::Cell;
    use std::sync::atomic::AtomicUsize;
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        /// [`usize::MAX`]: none yet.
        static SLOT: Cell<usize> = const { Cell::new(usize::MAX) };
    }
    let slot = SLOT.get();
    if slot < usize::MAX {
        return slot;
    }
    let slot = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    SLOT.set(slot);
    slot
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sync::explore;

    #[test]
    fn a_grant_admits_until_its_time_and_not_after() {
        explore(|| {
            let grants = Grants::new();
            assert_eq!(grants.admit(0), None);
            grants.give(100, None);
            assert!(grants.admit(99).is_some());
            assert_eq!((grants.admit(100), grants.admit_in_era(100)), (None, None));
            grants.end();
            assert_eq!(grants.admit(0), None);
        });
    }

    #[test]
    fn a_success_counts_after_the_grant_but_not_after_the_term() {
        explore(|| {
            let grants = Grants::new();
            let before = grants.begin_term(7);
            grants.give(100, None);
            let term = grants.admit(1).unwrap();
            assert_eq!((grants.admit_in_era(1), grants.stands(term)), (Some((term, 7)), true));
            grants.end();
            assert!(!grants.stands(term));
            assert_eq!((before, grants.succeed(term, 0)), (0, Counted::Unlisted));
            assert_eq!((grants.begin_term(9), grants.succeed(term, 0)), (1, Counted::No));
            assert_eq!(grants.collect(), 0);
        });
    }

    #[test]
    fn a_time_beyond_its_bits_is_no_grant() {
        explore(|| {
            let grants = Grants::new();
            grants.give(u64::MAX, None);
            assert_eq!(grants.admit(u64::MAX - 1), None);
            grants.give(LOWER, None);
            assert!(grants.admit(LOWER - 1).is_some());
        });
    }

    #[test]
    fn terms_begin_again_after_the_last_number() {
        explore(|| {
            let grants = Grants::new();
            grants.word.store(Term(TERM_MAX).with(7), Ordering::SeqCst);
            grants.begin_term(1);
            assert_eq!(grants.term(), Term(0));
        });
    }

    #[test]
    fn a_spread_counter_loses_nothing() {
        explore(|| {
            let grants = Grants::new();
            grants.list();
            grants.give(100, None);
            let term = grants.admit(1).unwrap();
            assert_eq!(grants.succeed(term, 3), Counted::Yes);
            grants.met.store(true, Ordering::SeqCst);
            assert_eq!(grants.collect(), 1);
            for slot in 0..40 {
                assert_eq!(grants.succeed(term, slot), Counted::Yes);
            }
            assert!(grants.has_counted());
            assert_eq!(grants.begin_term(3), 40);
            assert_eq!(grants.succeed(term, 5), Counted::No);
        });
    }
}
