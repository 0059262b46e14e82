//! [`Shared`]: a driver that is polled by whoever waits for what it brings. It knows nothing of Redis.
//!
//! Whoever waits **alone** polls the driver in his own task. Where several wait, and where nobody does, a task polls it, so that
//! nobody waits for another who is not polled.
//!
//! Invariant: **no wake of the driver is lost.** Whoever is woken for it drives, or hands the wake on when he leaves; whoever finds
//! it being driven leaves word, and who drives looks for that after he has let go.
//!
//! Invariant: **nobody waits for a driver that has ended.** A request that is handed over just when the driver ends may lie in the
//! client's queue for as long as anybody has the connection, unseen and unanswered. So whoever waits is woken at the end, and leaves.
//! It ends also with a panic of its own, and with the task: of those that wait the next wake would find nobody who drives.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, PoisonError, TryLockError};
use std::task::{Context, Poll, Wake, Waker};

use crate::sync::atomic::{AtomicBool, Ordering};
use crate::sync::{Mutex, MutexGuard};

/// So often a request looks again at once, before it lets others have their turn.
const ROUNDS_MAX: usize = 4;

/// What brings the answers. It ends when the connection is closed.
pub(crate) type Driver = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A driver, and those who wait for what it brings.
pub(crate) struct Shared {
    /// `None` once it has ended.
    driver: Mutex<Option<Driver>>,
    is_closed: AtomicBool,
    /// Somebody came while another one drove.
    again: AtomicBool,
    waiting: Mutex<Waiting>,
}

/// Who is to be woken when the driver can go on.
struct Waiting {
    requests: Vec<Arc<Request>>,
    task: Option<Waker>,
}

/// One who waits for an answer. His answer wakes him, and so does the driver while he waits alone.
struct Request {
    state: Mutex<RequestState>,
}

#[derive(Default)]
struct RequestState {
    /// Taken by whoever wakes him.
    waker: Option<Waker>,
    /// He is being polled, and looks at the next two before he rests.
    is_polled: bool,
    is_answered: bool,
    /// The driver can go on.
    is_to_drive: bool,
    has_left: bool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Every change under these locks is whole before anything can panic.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    pub(crate) fn new(driver: Driver) -> Self {
        Self {
            driver: Mutex::new(Some(driver)),
            is_closed: AtomicBool::new(false),
            again: AtomicBool::new(false),
            waiting: Mutex::new(Waiting { requests: Vec::new(), task: None }),
        }
    }

    /// Whether the driver has ended.
    pub(crate) fn is_closed(&self) -> bool {
        self.is_closed.load(Ordering::SeqCst)
    }

    /// What is to run in the task.
    pub(crate) fn in_task(self: &Arc<Self>) -> InTask {
        InTask { shared: self.clone() }
    }

    /// Waits for `sent`, which hands a request to the driver when it is polled first; `None` where the driver has ended and left
    /// it unanswered. `sent` is to be ready as soon as its answer is there.
    pub(crate) fn wait<F: Future + Unpin>(self: &Arc<Self>, sent: F) -> Sending<'_, F> {
        let request = Request { state: Mutex::new(RequestState::default()) };
        Sending { shared: self, sent, request: Arc::new(request), is_waiting: false }
    }

    /// Lets the driver go, whose wakers lead back here.
    pub(crate) fn close(&self) {
        drop(lock(&self.driver).take());
    }

    /// Polls the driver until it has nothing to do.
    fn drive(self: &Arc<Self>) {
        // Always by an exchange: whoever finds the lock taken has then left word before the other looks, or sees it free.
        self.again.swap(true, Ordering::AcqRel);
        loop {
            // Dropped when the driver has been let go of, with a panic too.
            let mut ending = Ending { shared: self, is_due: false };
            {
                let mut driver = match self.driver.try_lock() {
                    Ok(driver) => driver,
                    Err(TryLockError::Poisoned(poisoned)) => {
                        let mut driver = poisoned.into_inner();
                        // What has panicked is not polled again.
                        *driver = None;
                        driver
                    }
                    // Who drives will find the word left.
                    Err(TryLockError::WouldBlock) => return,
                };
                if self.again.swap(false, Ordering::AcqRel) {
                    if self.is_closed() {
                        *driver = None;
                    }
                    let waker = Waker::from(self.clone());
                    ending.is_due = true;
                    ending.is_due = driver.as_mut().is_none_or(|driver| {
                        driver.as_mut().poll(&mut Context::from_waker(&waker)).is_ready()
                    });
                    if ending.is_due {
                        *driver = None;
                    }
                }
            }
            drop(ending);
            if !self.again.fetch_or(false, Ordering::AcqRel) {
                return;
            }
        }
    }

    /// Says that the driver has ended, and wakes everybody, once. Whoever comes from now on sees for himself.
    fn tell_end(&self) {
        if self.is_closed.swap(true, Ordering::SeqCst) {
            return;
        }
        let waiting = lock(&self.waiting);
        let (requests, task) = (waiting.requests.clone(), waiting.task.clone());
        drop(waiting);
        requests.iter().for_each(Wake::wake_by_ref);
        if let Some(task) = task {
            task.wake();
        }
    }

    fn leave(self: &Arc<Self>, request: &Arc<Request>) {
        lock(&self.waiting).requests.retain(|other| !Arc::ptr_eq(other, request));
        if request.leave() {
            self.wake_by_ref();
        }
    }
}

impl Wake for Shared {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    /// The driver can go on.
    fn wake_by_ref(self: &Arc<Self>) {
        loop {
            let waiting = lock(&self.waiting);
            if let [alone] = waiting.requests.as_slice() {
                let alone = alone.clone();
                drop(waiting);
                if alone.have_it_drive() {
                    return;
                }
            } else {
                let task = waiting.task.clone();
                drop(waiting);
                if let Some(task) = task {
                    task.wake();
                }
                return;
            }
        }
    }
}

/// A driver that is being polled. It has ended when it says so, and when it panics.
struct Ending<'a> {
    shared: &'a Shared,
    is_due: bool,
}

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        if self.is_due {
            self.shared.tell_end();
        }
    }
}

/// What drives when nobody waits alone. The driver ends with it: where it is dropped before, its runtime has gone, which is the socket's.
pub(crate) struct InTask {
    shared: Arc<Shared>,
}

impl Future for InTask {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        lock(&self.shared.waiting).task = Some(context.waker().clone());
        self.shared.drive();
        if self.shared.is_closed() { Poll::Ready(()) } else { Poll::Pending }
    }
}

impl Drop for InTask {
    fn drop(&mut self) {
        self.shared.tell_end();
        // Lets the driver go; somebody who has it in hand does that when he has polled it.
        self.shared.drive();
    }
}

impl Request {
    /// Begins to be polled.
    fn enter(&self, waker: &Waker) {
        let mut state = lock(&self.state);
        (state.waker, state.is_polled) = (Some(waker.clone()), true);
    }

    /// Ends being polled, if there is nothing more to do.
    fn rest(&self) -> bool {
        let mut state = lock(&self.state);
        state.is_polled = state.is_answered || state.is_to_drive;
        !state.is_polled
    }

    /// Ends being polled, though there is more to do.
    fn pause(&self) {
        lock(&self.state).is_polled = false;
    }

    /// Sees to it that the driver is polled; says `false` where it is too late for that.
    fn have_it_drive(&self) -> bool {
        let mut state = lock(&self.state);
        if state.has_left {
            return false;
        }
        state.is_to_drive = true;
        if !state.is_polled
            && let Some(waker) = state.waker.take()
        {
            drop(state);
            waker.wake();
        }
        true
    }

    /// Leaves; says whether the driver can go on and nobody has polled it for that.
    fn leave(&self) -> bool {
        let mut state = lock(&self.state);
        state.has_left = true;
        state.is_to_drive
    }
}

/// The answer is there.
impl Wake for Request {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let mut state = lock(&self.state);
        state.is_answered = true;
        if !state.is_polled
            && let Some(waker) = state.waker.take()
        {
            drop(state);
            waker.wake();
        }
    }
}

/// A request that is sent, until its answer is there.
pub(crate) struct Sending<'a, F> {
    shared: &'a Arc<Shared>,
    sent: F,
    request: Arc<Request>,
    is_waiting: bool,
}

impl<F: Future + Unpin> Future for Sending<'_, F> {
    type Output = Option<F::Output>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let own = &mut *self;
        own.request.enter(context.waker());
        if !own.is_waiting {
            own.is_waiting = true;
            lock(&own.shared.waiting).requests.push(own.request.clone());
        }
        let waker = Waker::from(own.request.clone());
        for _ in 0..ROUNDS_MAX {
            lock(&own.request.state).is_answered = false;
            let is_closed = own.shared.is_closed();
            // The first time this hands the request to the driver.
            if let Poll::Ready(answer) = Pin::new(&mut own.sent).poll(&mut Context::from_waker(&waker)) {
                return Poll::Ready(Some(answer));
            }
            if is_closed {
                return Poll::Ready(None);
            }
            lock(&own.request.state).is_to_drive = false;
            own.shared.drive();
            if own.request.rest() {
                return Poll::Pending;
            }
        }
        // The runtime wants others to have their turn, and lets nothing in this task come to an end before that.
        own.request.pause();
        context.waker().wake_by_ref();
        Poll::Pending
    }
}

impl<F> Drop for Sending<'_, F> {
    fn drop(&mut self) {
        if self.is_waiting {
            self.shared.leave(&self.request);
        }
    }
}
