//! All schedules of the code that threads share without waiting for each other: grants, and those who gather for a load.
//!
//! The files are those of `circuitry`, compiled here on loom's atomics and locks: loom runs each test once for every order in
//! which the threads may act, weak memory included, up to the number of preemptions that is named.

#[path = "../../host/circuitry/src/gathering.rs"]
#[allow(dead_code, unreachable_pub, reason = "the crate that it is of uses it")]
mod gathering;
#[path = "../../host/circuitry/src/grant.rs"]
#[allow(dead_code, unreachable_pub, reason = "the crate that it is of uses it")]
mod grant;

/// Loom's, under the names of `host/circuitry/src/sync.rs`.
mod sync {
    pub(crate) mod atomic {
        pub(crate) use loom::sync::atomic::{AtomicBool, AtomicU64, Ordering};
    }
    pub(crate) use loom::sync::{Mutex, MutexGuard};
    /// Loom has none; it is set under a lock in all that is explored here.
    pub(crate) use std::sync::OnceLock;

    pub(crate) use loom::model as explore;
}

use std::sync::Arc;

use gathering::{Gathering, Role};
use grant::{Counted, Grants};
use loom::sync::Mutex;
use loom::sync::atomic::{AtomicU64, Ordering};
use loom::thread;

/// Explores all schedules with at most so many preemptions.
fn all_schedules(preemptions: usize, test: impl Fn() + Sync + Send + 'static) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(preemptions);
    model.check(test);
}

/// The grants of a circuit in a first term of era 1, and the lock of its view.
fn granted() -> Arc<(Grants, Mutex<()>)> {
    let grants = Grants::new();
    grants.begin_term(1);
    grants.give(100, None);
    Arc::new((grants, Mutex::new(())))
}

#[test]
fn a_success_counts_once_in_the_term_of_its_start_or_is_refused() {
    all_schedules(3, || {
        let shared = granted();
        let (collected, later) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let worker = {
            let shared = shared.clone();
            thread::spawn(move || match shared.0.admit(5) {
                Some(term) => (true, shared.0.succeed(term, 0) != Counted::No),
                None => (false, false),
            })
        };
        let changer = {
            let (shared, collected) = (shared.clone(), collected.clone());
            thread::spawn(move || {
                let _view = shared.1.lock().unwrap();
                shared.0.end();
                collected.fetch_add(shared.0.begin_term(2), Ordering::SeqCst);
                shared.0.give(200, None);
            })
        };
        let (admitted, counted) = worker.join().unwrap();
        changer.join().unwrap();
        later.fetch_add(shared.0.collect(), Ordering::SeqCst);
        let (first, second) = (collected.load(Ordering::SeqCst), later.load(Ordering::SeqCst));
        assert_eq!(first + second, u64::from(counted), "none is lost or doubled");
        assert!(admitted || !counted);
    });
}

#[test]
fn a_success_of_a_term_that_is_over_is_never_counted_in_the_next() {
    all_schedules(3, || {
        let shared = granted();
        let term = shared.0.admit(5).unwrap();
        let worker = {
            let shared = shared.clone();
            thread::spawn(move || shared.0.succeed(term, 0))
        };
        let left = shared.0.begin_term(2);
        let counted = worker.join().unwrap();
        assert_eq!(left, u64::from(counted != Counted::No));
        assert_eq!(shared.0.collect(), 0, "the new term has none");
    });
}

#[test]
fn of_two_who_succeed_while_somebody_collects_none_is_lost() {
    all_schedules(2, || {
        let shared = granted();
        let workers: Vec<_> = (0..2)
            .map(|slot| {
                let shared = shared.clone();
                thread::spawn(move || {
                    let term = shared.0.admit(5).unwrap();
                    assert_ne!(shared.0.succeed(term, slot), Counted::No);
                })
            })
            .collect();
        // The second time may find the counter spread.
        let mut collected = shared.0.collect() + shared.0.collect();
        for worker in workers {
            worker.join().unwrap();
        }
        collected += shared.0.collect();
        assert_eq!(collected, 2);
    });
}

#[test]
fn whoever_counts_when_nobody_comes_any_more_is_told_or_seen() {
    all_schedules(3, || {
        let shared = granted();
        shared.0.list();
        let worker = {
            let shared = shared.clone();
            thread::spawn(move || {
                let term = shared.0.admit(5).unwrap();
                shared.0.succeed(term, 0)
            })
        };
        shared.0.unlist();
        let seen = shared.0.has_counted();
        let told = worker.join().unwrap() == Counted::Unlisted;
        assert!(seen || told, "a success that nobody will collect");
    });
}

/// What somebody wants, and by which round it came.
struct Waiter {
    came_at: u64,
    told: Arc<AtomicU64>,
}

fn come(gathering: &Arc<Gathering<Waiter>>, clock: &Arc<AtomicU64>) -> (Role, Arc<AtomicU64>) {
    let told = Arc::new(AtomicU64::new(0));
    let waiter = || Waiter { came_at: clock.fetch_add(1, Ordering::SeqCst), told: told.clone() };
    let role = gathering.come(waiter);
    (role, told)
}

/// Goes from round to round, as the task does.
fn rounds(gathering: &Gathering<Waiter>, clock: &AtomicU64) {
    loop {
        let waiting = gathering.round();
        if waiting.is_empty() {
            return;
        }
        let asked_at = clock.fetch_add(1, Ordering::SeqCst);
        for waiter in waiting {
            assert!(waiter.came_at < asked_at, "it was asked before");
            waiter.told.fetch_add(1, Ordering::SeqCst);
        }
    }
}

#[test]
fn whoever_gathers_is_told_once_of_what_was_asked_after_he_came() {
    all_schedules(2, || {
        let gathering = Arc::new(Gathering::new());
        let clock = Arc::new(AtomicU64::new(1));
        let comers: Vec<_> = (0..3)
            .map(|_| {
                let (gathering, clock) = (gathering.clone(), clock.clone());
                thread::spawn(move || {
                    let (role, told) = come(&gathering, &clock);
                    match role {
                        Role::Alone => {
                            gathering.left();
                            told.fetch_add(1, Ordering::SeqCst);
                        }
                        Role::Begin => rounds(&gathering, &clock),
                        Role::Wait => {}
                    }
                    told
                })
            })
            .collect();
        let told: Vec<_> = comers.into_iter().map(|comer| comer.join().unwrap()).collect();
        for told in told {
            assert_eq!(told.load(Ordering::SeqCst), 1, "each is told once");
        }
        assert!(gathering.round().is_empty());
    });
}
