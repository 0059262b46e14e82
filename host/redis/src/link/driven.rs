//! [`Driven`]: a connection that is driven by whoever waits on it.
//!
//! The client splits a connection in two: a handle, which takes requests, and a *driver*, a future that writes them to the socket
//! and reads the answers. Run as a task of its own, the driver costs every request a change of threads on its way out. Here
//! [`driving`](super::driving) says who polls it; a task is left for when nobody waits, so that a connection that is closed is
//! noticed at once.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::select_ok;
use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::{AsyncConnectionConfig, Client, Cmd, ConnectionAddr, Pipeline, RedisError, RedisResult, Value};
use tokio::net::{TcpStream, lookup_host};
use tokio::task::coop::unconstrained;
use tokio::task::{AbortHandle, JoinHandle};
use tokio::time::timeout;

use super::driving::{Driver, Shared};
use super::no_connection_within;

/// A connection that is driven by whoever waits on it. Clones share it; the last one closes it.
#[derive(Clone)]
pub(super) struct Driven {
    connection: MultiplexedConnection,
    shared: Arc<Shared>,
    _task: Arc<Task>,
}

/// The task, which ends with the connection.
struct Task {
    shared: Arc<Shared>,
    abort: AbortHandle,
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
            let stream = connect_to_any(lookup_host((host.as_str(), *port)).await?).await?;
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
        let shared = Arc::new(Shared::new(driver));
        let task = tokio::spawn(shared.in_task());
        let own_task = Arc::new(Task { shared: shared.clone(), abort: task.abort_handle() });
        (Self { connection, shared, _task: own_task }, task)
    }

    /// Whether the connection is known to be closed.
    pub(super) fn is_closed(&self) -> bool {
        self.shared.is_closed()
    }

    pub(super) async fn send_one(&mut self, command: &Cmd) -> RedisResult<Value> {
        let sent = unconstrained(self.connection.req_packed_command(command));
        self.shared.wait(sent).await.unwrap_or_else(|| Err(closed()))
    }

    pub(super) async fn send_all(&mut self, commands: &Pipeline, answers: usize) -> RedisResult<Vec<Value>> {
        let sent = unconstrained(self.connection.req_packed_commands(commands, 0, answers));
        self.shared.wait(sent).await.unwrap_or_else(|| Err(closed()))
    }
}

/// Connects to the address that answers first: one that leads nowhere does not use up the time of the others.
async fn connect_to_any(addresses: impl Iterator<Item = SocketAddr>) -> io::Result<TcpStream> {
    let connecting: Vec<_> = addresses.map(|address| Box::pin(TcpStream::connect(address))).collect();
    if connecting.is_empty() {
        return Err(io::Error::new(io::ErrorKind::NotFound, "the host has no address"));
    }
    Ok(select_ok(connecting).await?.0)
}

/// The same error as the client's own.
fn closed() -> RedisError {
    io::Error::new(io::ErrorKind::BrokenPipe, "the connection was closed").into()
}

impl Drop for Task {
    fn drop(&mut self) {
        self.abort.abort();
        self.shared.close();
    }
}

#[cfg(test)]
mod tests {
    use std::future::{Future, pending, poll_fn};
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::pin::pin;
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
    use std::task::{Context, Poll, Wake, Waker};

    use tokio::net::{TcpListener, TcpSocket};

    use super::*;

    const SOON: Duration = Duration::from_secs(10);

    #[tokio::test]
    async fn of_all_addresses_the_one_that_answers_is_taken_though_another_leads_nowhere() {
        // Its queue is full and nobody accepts, so whoever comes is not answered.
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let nowhere = socket.listen(1).unwrap();
        let mut queue = Vec::new();
        // Some systems refuse it instead.
        while let Ok(Ok(connected)) =
            timeout(Duration::from_millis(100), TcpStream::connect(nowhere.local_addr().unwrap())).await
        {
            queue.push(connected);
        }
        let real = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addresses = [nowhere.local_addr().unwrap(), real.local_addr().unwrap()];
        // The system gives up on the first one only after minutes.
        let stream = timeout(SOON, connect_to_any(addresses.into_iter())).await.unwrap().unwrap();
        assert_eq!(stream.peer_addr().unwrap(), addresses[1]);
    }

    #[tokio::test]
    async fn a_host_without_addresses_is_an_error() {
        let nobody = connect_to_any(std::iter::empty()).await;
        assert_eq!(nobody.unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[derive(Default)]
    struct Wakes(AtomicUsize);

    impl Wake for Wakes {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[test]
    fn whoever_waits_is_told_when_the_driver_panics_in_the_hands_of_another() {
        let is_bad = Arc::new(AtomicBool::new(false));
        let driver = {
            let is_bad = is_bad.clone();
            poll_fn(move |_| {
                assert!(!is_bad.load(Ordering::SeqCst), "as the test wants it");
                Poll::Pending
            })
        };
        let shared = Arc::new(Shared::new(Box::pin(driver)));
        let mut waits = pin!(shared.wait(pending::<()>()));
        let wakes = Arc::new(Wakes::default());
        let waker = Waker::from(wakes.clone());
        assert!(waits.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());

        is_bad.store(true, Ordering::SeqCst);
        let mut another = Box::pin(shared.wait(pending::<()>()));
        let panicked =
            catch_unwind(AssertUnwindSafe(|| another.as_mut().poll(&mut Context::from_waker(Waker::noop()))));
        assert!(panicked.is_err());
        assert!(shared.is_closed());
        assert!(wakes.0.load(Ordering::SeqCst) > 0, "nobody has woken him");
        assert_eq!(waits.as_mut().poll(&mut Context::from_waker(&waker)), Poll::Ready(None));
    }

    #[test]
    fn whoever_waits_is_told_when_the_runtime_of_the_connection_ends() {
        let shared = Arc::new(Shared::new(Box::pin(pending())));
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let task = runtime.spawn(shared.in_task());
        runtime.block_on(tokio::task::yield_now());
        let wakes = Arc::new(Wakes::default());
        let waker = Waker::from(wakes.clone());
        let mut waits = [Box::pin(shared.wait(pending::<()>())), Box::pin(shared.wait(pending()))];
        for wait in &mut waits {
            assert!(wait.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        }
        let before = wakes.0.load(Ordering::SeqCst);
        drop(runtime);
        assert!(task.is_finished());
        assert_eq!(wakes.0.load(Ordering::SeqCst), before + 2, "both are woken");
        for wait in &mut waits {
            assert_eq!(wait.as_mut().poll(&mut Context::from_waker(&waker)), Poll::Ready(None));
        }
    }
}
