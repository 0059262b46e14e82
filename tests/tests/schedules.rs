//! All schedules of the code that threads share without waiting for each other: grants, those who gather for a load, and those who
//! drive a connection to Redis.
//!
//! The files are those of the crates, compiled here on loom's atomics and locks: loom runs each test once for every order in
//! which the threads may act, weak memory included, up to the number of preemptions that is named.

#[path = "../../host/circuitry/src/gathering.rs"]
#[allow(dead_code, unreachable_pub, reason = "the crate that it is of uses it")]
mod gathering;
#[path = "../../host/circuitry/src/grant.rs"]
#[allow(dead_code, unreachable_pub, reason = "the crate that it is of uses it")]
mod grant;

#[path = "../../host/redis/src/link/driving.rs"]
#[allow(dead_code, unreachable_pub, reason = "the crate that it is of uses it")]
mod driving;

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

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Poll, Waker};

use gathering::{Gathering, Role};
use grant::{Counted, Grants};
use loom::future::block_on;
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
fn whoever_is_told_the_era_is_told_that_of_his_term() {
    all_schedules(3, || {
        let shared = granted();
        let first = shared.0.admit(5).unwrap();
        let worker = {
            let shared = shared.clone();
            thread::spawn(move || shared.0.admit_in_era(5))
        };
        shared.0.begin_term(2);
        shared.0.give(200, None);
        let second = shared.0.admit(5).unwrap();
        if let Some((term, era)) = worker.join().unwrap() {
            assert!((term, era) == (first, 1) || (term, era) == (second, 2), "{term:?} of {era}");
        }
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

/// A connection: what requests have given to the driver, what the server has got, what it has answered, and who is to be told.
#[derive(Default)]
struct Wire {
    given: Vec<usize>,
    sent: Vec<usize>,
    answers: Vec<usize>,
    is_answered: [bool; 2],
    wakers: [Option<Waker>; 2],
    driver: Option<Waker>,
    server: Option<Waker>,
    task: Option<Waker>,
    is_over: bool,
}

type SharedWire = Arc<Mutex<Wire>>;

fn wake(waker: Option<Waker>) {
    if let Some(waker) = waker {
        waker.wake();
    }
}

/// A request, as the client makes it: polled first it is given to the driver, then it waits for its answer.
fn request(wire: &SharedWire, number: usize) -> impl Future<Output = ()> + Unpin + use<> {
    let (wire, mut is_given) = (wire.clone(), false);
    poll_fn(move |context| {
        let mut state = wire.lock().unwrap();
        if state.is_answered[number] {
            return Poll::Ready(());
        }
        state.wakers[number] = Some(context.waker().clone());
        if !is_given {
            is_given = true;
            state.given.push(number);
            let driver = state.driver.take();
            drop(state);
            wake(driver);
        }
        Poll::Pending
    })
}

fn driver(wire: &SharedWire) -> driving::Driver {
    let wire = wire.clone();
    Box::pin(poll_fn(move |context| {
        let mut state = wire.lock().unwrap();
        state.driver = Some(context.waker().clone());
        let given = std::mem::take(&mut state.given);
        let server = if given.is_empty() { None } else { state.server.take() };
        state.sent.extend(given);
        let mut told = vec![server];
        for number in std::mem::take(&mut state.answers) {
            state.is_answered[number] = true;
            told.push(state.wakers[number].take());
        }
        drop(state);
        told.into_iter().for_each(wake);
        Poll::Pending
    }))
}

/// Answers what it has got, until all is over.
fn server(wire: &SharedWire) -> impl Future<Output = ()> + use<> {
    let wire = wire.clone();
    poll_fn(move |context| {
        let mut state = wire.lock().unwrap();
        if state.is_over {
            return Poll::Ready(());
        }
        state.server = Some(context.waker().clone());
        let sent = std::mem::take(&mut state.sent);
        let driver = if sent.is_empty() { None } else { state.driver.take() };
        state.answers.extend(sent);
        drop(state);
        wake(driver);
        Poll::Pending
    })
}

/// The task that drives when nobody waits alone, until all is over.
fn task(wire: &SharedWire, shared: &Arc<driving::Shared>) -> impl Future<Output = ()> + use<> {
    let (wire, mut task) = (wire.clone(), shared.in_task());
    poll_fn(move |context| {
        let mut state = wire.lock().unwrap();
        if state.is_over {
            return Poll::Ready(());
        }
        state.task = Some(context.waker().clone());
        drop(state);
        Pin::new(&mut task).poll(context)
    })
}

/// Ends the server and the task.
fn end(wire: &SharedWire) {
    let mut state = wire.lock().unwrap();
    state.is_over = true;
    let (server, task) = (state.server.take(), state.task.take());
    drop(state);
    wake(server);
    wake(task);
}

/// Where nobody serves the wire, the driver answers by itself when it is polled once more.
fn echo(wire: &SharedWire) -> driving::Driver {
    let (wire, mut driver) = (wire.clone(), driver(wire));
    Box::pin(poll_fn(move |context| {
        let polled = driver.as_mut().poll(context);
        let mut state = wire.lock().unwrap();
        let sent = std::mem::take(&mut state.sent);
        let is_more = !sent.is_empty();
        state.answers.extend(sent);
        drop(state);
        if is_more {
            context.waker().wake_by_ref();
        }
        polled
    }))
}

/// A driver that ends when all is over, and leaves unanswered what it has been given by then. The client's queue is closed with it,
/// but who had a place in it already still puts his request there: see [`late_request`].
fn closing(wire: &SharedWire) -> driving::Driver {
    let wire = wire.clone();
    Box::pin(poll_fn(move |context| {
        let mut state = wire.lock().unwrap();
        if !state.is_over {
            state.driver = Some(context.waker().clone());
            return Poll::Pending;
        }
        let mut told = Vec::new();
        for number in std::mem::take(&mut state.given) {
            state.is_answered[number] = true;
            told.push(state.wakers[number].take());
        }
        drop(state);
        told.into_iter().for_each(wake);
        Poll::Ready(())
    }))
}

/// A request, as the client makes it: first it has a place in the queue, and then it is put there.
fn late_request(wire: &SharedWire, number: usize) -> impl Future<Output = ()> + Unpin + use<> {
    let (wire, mut request) = (wire.clone(), request(wire, number));
    let mut has_place = false;
    poll_fn(move |context| {
        if !has_place {
            if wire.lock().unwrap().is_over {
                return Poll::Ready(());
            }
            has_place = true;
        }
        Pin::new(&mut request).poll(context)
    })
}

/// The wakers lead back to it.
fn take_apart(wire: &SharedWire, shared: &driving::Shared) {
    shared.close();
    let all = std::mem::take(&mut *wire.lock().unwrap());
    drop(all);
}

#[test]
fn whoever_waits_alone_on_a_connection_is_answered() {
    all_schedules(2, || {
        let wire = SharedWire::default();
        let shared = Arc::new(driving::Shared::new(driver(&wire)));
        let (tasks, servers) = (task(&wire, &shared), server(&wire));
        let others = [thread::spawn(move || block_on(tasks)), thread::spawn(move || block_on(servers))];
        block_on(shared.wait(request(&wire, 0)));
        end(&wire);
        others.into_iter().for_each(|other| other.join().unwrap());
        take_apart(&wire, &shared);
    });
}

#[test]
fn whoever_waits_on_a_connection_is_answered_though_another_leaves() {
    all_schedules(2, || {
        let wire = SharedWire::default();
        let shared = Arc::new(driving::Shared::new(echo(&wire)));
        let tasks = task(&wire, &shared);
        let tasks = thread::spawn(move || block_on(tasks));
        let leaver = {
            let (shared, wire) = (shared.clone(), wire.clone());
            thread::spawn(move || {
                block_on(poll_fn(|context| {
                    // Polled once, then dropped.
                    let _ = Pin::new(&mut shared.wait(request(&wire, 1))).poll(context);
                    Poll::Ready(())
                }));
            })
        };
        block_on(shared.wait(request(&wire, 0)));
        leaver.join().unwrap();
        end(&wire);
        tasks.join().unwrap();
        take_apart(&wire, &shared);
    });
}

#[test]
fn whoever_comes_to_a_connection_that_is_just_closed_does_not_wait_for_it() {
    all_schedules(2, || {
        let wire = SharedWire::default();
        let shared = Arc::new(driving::Shared::new(closing(&wire)));
        let tasks = {
            let (wire, mut task) = (wire.clone(), shared.in_task());
            poll_fn(move |context| {
                wire.lock().unwrap().task = Some(context.waker().clone());
                Pin::new(&mut task).poll(context)
            })
        };
        let tasks = thread::spawn(move || block_on(tasks));
        let closer = {
            let wire = wire.clone();
            thread::spawn(move || {
                let mut state = wire.lock().unwrap();
                state.is_over = true;
                let driver = state.driver.take();
                drop(state);
                wake(driver);
            })
        };
        block_on(shared.wait(late_request(&wire, 0)));
        [closer, tasks].into_iter().for_each(|other| other.join().unwrap());
        take_apart(&wire, &shared);
    });
}

#[test]
fn whoever_waits_on_a_connection_whose_task_is_lost_does_not_wait_for_it() {
    all_schedules(2, || {
        let wire = SharedWire::default();
        // The server never answers.
        let shared = Arc::new(driving::Shared::new(driver(&wire)));
        let mut task = shared.in_task();
        let runtime = thread::spawn(move || {
            block_on(poll_fn(|context| {
                // Polled once, then dropped with its runtime.
                let _ = Pin::new(&mut task).poll(context);
                Poll::Ready(())
            }));
            drop(task);
        });
        let other = {
            let (shared, wire) = (shared.clone(), wire.clone());
            thread::spawn(move || block_on(shared.wait(request(&wire, 1))))
        };
        assert_eq!(block_on(shared.wait(request(&wire, 0))), None);
        assert_eq!(other.join().unwrap(), None);
        runtime.join().unwrap();
        take_apart(&wire, &shared);
    });
}
