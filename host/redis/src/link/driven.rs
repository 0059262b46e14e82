//! [`Driven`]: a connection that is driven by whoever waits on it.
//!
//! The client splits a connection in two: a handle, which takes requests, and a *driver*, a future that writes them to the socket
//! and reads the answers. Run as a task of its own, the driver costs every request a change of threads on its way out. Here
//! whoever waits **alone** polls the driver in his own task. Where several wait, and where nobody does, a task polls it, so that
//! nobody waits for another who is not polled, and a connection that is closed is noticed at once.
//!
//! Invariant: **no wake of the driver is lost.** Whoever is woken for it drives, or hands the wake on when he leaves; whoever finds
//! it being driven leaves word, and who drives looks for that after he has let go.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::{AsyncConnectionConfig, Client, Cmd, ConnectionAddr, Pipeline, RedisFuture, RedisResult, Value};
use tokio::net::TcpStream;
use tokio::task::{AbortHandle, JoinHandle};
use tokio::time::timeout;

use super::no_connection_within;

/// So often a request looks again at once, before it lets others have their turn.
const ROUNDS_MAX: usize = 4;

type Driver = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A connection that is driven by whoever waits on it. Clones share it; the last one closes it.
#[derive(Clone)]
pub(super) struct Driven {
    connection: MultiplexedConnection,
    shared: Arc<Shared>,
    _task: Arc<Task>,
}

struct Shared {
    /// `None` once it has ended: the connection is closed.
    driver: Mutex<Option<Driver>>,
    is_closed: AtomicBool,
    /// Somebody came while another one drove.
    again: AtomicBool,
    waiting: Mutex<Waiting>,
}

/// Who is to be woken when the driver can go on.
#[derive(Default)]
struct Waiting {
    requests: Vec<Arc<Request>>,
    task: Option<Waker>,
}

/// One who waits for an answer. His answer wakes him, and so does the driver while he waits alone.
#[derive(Default)]
struct Request {
    state: Mutex<RequestState>,
}

#[derive(Default)]
struct RequestState {
    /// Taken by whoever wakes him.
    waker: Option<Waker>,
    /// He is being polled, and looks at the next two before he leaves.
    is_polled: bool,
    is_answered: bool,
    /// The driver can go on.
    is_to_drive: bool,
    has_left: bool,
}

/// The task, which ends with the connection.
struct Task {
    shared: Arc<Shared>,
    abort: AbortHandle,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Every change under these locks is whole before anything can panic.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Driven {
    /// Connects, where the address is one of plain TCP; `None` where it is another. The task ends when the connection is closed,
    /// and is aborted when nobody has it any more.
    pub(super) async fn connect(
        client: &Client,
        within: Duration,
    ) -> Option<RedisResult<(Self, JoinHandle<()>)>> {
        let info = client.get_connection_info();
        let ConnectionAddr::Tcp(host, port) = info.addr() else { return None };
        let connecting = async {
            let stream = TcpStream::connect((host.as_str(), *port)).await?;
            stream.set_nodelay(true)?;
            // Whoever sends has a deadline of his own.
            let config = AsyncConnectionConfig::new().set_response_timeout(None);
            MultiplexedConnection::new_with_config(info.redis_settings(), stream, config).await
        };
        let connected =
            timeout(within, connecting).await.unwrap_or_else(|_| Err(no_connection_within(within)));
        Some(connected.map(|(connection, driver)| Self::new(connection, Box::pin(driver))))
    }

    fn new(connection: MultiplexedConnection, driver: Driver) -> (Self, JoinHandle<()>) {
        let shared = Arc::new(Shared {
            driver: Mutex::new(Some(driver)),
            is_closed: AtomicBool::new(false),
            again: AtomicBool::new(false),
            waiting: Mutex::default(),
        });
        let own = shared.clone();
        let task = tokio::spawn(poll_fn(move |context| {
            lock(&own.waiting).task = Some(context.waker().clone());
            own.drive();
            if own.is_closed() { Poll::Ready(()) } else { Poll::Pending }
        }));
        let own_task = Arc::new(Task { shared: shared.clone(), abort: task.abort_handle() });
        (Self { connection, shared, _task: own_task }, task)
    }

    /// Whether the connection is known to be closed.
    pub(super) fn is_closed(&self) -> bool {
        self.shared.is_closed()
    }

    pub(super) async fn send_one(&mut self, command: &Cmd) -> RedisResult<Value> {
        Sending::new(&self.shared, self.connection.req_packed_command(command)).await
    }

    pub(super) async fn send_all(&mut self, commands: &Pipeline, answers: usize) -> RedisResult<Vec<Value>> {
        Sending::new(&self.shared, self.connection.req_packed_commands(commands, 0, answers)).await
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.abort.abort();
        // Its wakers lead back to it.
        drop(lock(&self.shared.driver).take());
    }
}

impl Shared {
    fn is_closed(&self) -> bool {
        self.is_closed.load(Ordering::SeqCst)
    }

    /// Polls the driver until it has nothing to do.
    fn drive(self: &Arc<Self>) {
        self.again.store(true, Ordering::SeqCst);
        loop {
            {
                let mut driver = match self.driver.try_lock() {
                    Ok(driver) => driver,
                    Err(TryLockError::Poisoned(poisoned)) => {
                        self.driver.clear_poison();
                        let mut driver = poisoned.into_inner();
                        // What has panicked is not polled again.
                        *driver = None;
                        driver
                    }
                    // Who drives will find the word left.
                    Err(TryLockError::WouldBlock) => return,
                };
                if self.again.swap(false, Ordering::SeqCst) {
                    let waker = Waker::from(self.clone());
                    let ended = driver.as_mut().is_none_or(|driver| {
                        driver.as_mut().poll(&mut Context::from_waker(&waker)).is_ready()
                    });
                    if ended {
                        *driver = None;
                        self.is_closed.store(true, Ordering::SeqCst);
                    }
                }
            }
            if !self.again.load(Ordering::SeqCst) {
                return;
            }
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
        state.is_to_drive = !state.has_left;
        if !state.is_polled
            && let Some(waker) = state.waker.take()
        {
            drop(state);
            waker.wake();
            return true;
        }
        state.is_to_drive
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
struct Sending<'a, T> {
    shared: &'a Arc<Shared>,
    sent: RedisFuture<'a, T>,
    request: Arc<Request>,
    is_waiting: bool,
}

impl<'a, T> Sending<'a, T> {
    fn new(shared: &'a Arc<Shared>, sent: RedisFuture<'a, T>) -> Self {
        Self { shared, sent, request: Arc::default(), is_waiting: false }
    }
}

impl<T> Future for Sending<'_, T> {
    type Output = RedisResult<T>;

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
            // The first time this hands the request to the driver.
            if let Poll::Ready(answer) = own.sent.as_mut().poll(&mut Context::from_waker(&waker)) {
                return Poll::Ready(answer);
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

impl<T> Drop for Sending<'_, T> {
    fn drop(&mut self) {
        if self.is_waiting {
            self.shared.leave(&self.request);
        }
    }
}
