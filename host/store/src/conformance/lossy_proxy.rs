//! [`LossyProxy`]: a TCP proxy that loses requests and answers when a test asks.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

/// What becomes of the bytes that arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    /// They are passed on.
    Forward,
    /// They are kept, in both directions.
    Stall,
    /// Requests are passed on, answers are kept.
    HoldAnswers,
    /// There are no connections, and nobody listens.
    Refuse,
}

/// The one request that is lost, or whose answer is.
#[derive(Debug)]
struct Loss {
    /// It is the first request that contains these bytes; none of them means any request.
    containing: Vec<u8>,
    what: Lost,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lost {
    Request,
    Answer,
}

#[derive(Debug)]
struct Shared {
    server: SocketAddr,
    mode: watch::Sender<Mode>,
    /// Counts [`LossyProxy::cut`]: a connection ends when it changes.
    cuts: watch::Sender<u64>,
    /// Counts [`LossyProxy::abandon`]: a connection from before carries nothing any more.
    abandons: watch::Sender<u64>,
    listening: watch::Sender<bool>,
    next_loss: Mutex<Option<Loss>>,
    lost: watch::Sender<usize>,
    accepted: AtomicUsize,
}

impl Shared {
    fn next_loss(&self) -> MutexGuard<'_, Option<Loss>> {
        self.next_loss.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn count_loss(&self) {
        self.lost.send_modify(|lost| *lost += 1);
    }

    /// Waits until bytes may go on; the other end of the channel lives as long as `self`.
    async fn until(&self, open: impl Fn(Mode) -> bool) {
        let _ = self.mode.subscribe().wait_for(|mode| open(*mode)).await;
    }

    /// Waits for ever if connections of that age are abandoned.
    async fn unless_abandoned(&self, age: u64) {
        if *self.abandons.borrow() != age {
            std::future::pending::<()>().await;
        }
    }
}

/// A TCP proxy on loopback in front of a server, which can lose what the network may lose: a request, an answer, a
/// connection, or the way to the server altogether.
///
/// It knows no protocol, so it serves Redis as well as DynamoDB over plain HTTP. It ends when it is dropped, with all
/// of its connections.
///
/// # Example
/// ```
/// use circuitry_store::conformance::LossyProxy;
/// use tokio::io::{AsyncReadExt, AsyncWriteExt};
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// # let server = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
/// # let server_address = server.local_addr()?;
/// # let echo = tokio::spawn(async move {
/// #     let (mut stream, _) = server.accept().await?;
/// #     let (mut from, mut to) = stream.split();
/// #     tokio::io::copy(&mut from, &mut to).await
/// # });
/// let proxy = LossyProxy::start(server_address).await?;
/// let mut client = tokio::net::TcpStream::connect(proxy.address()).await?;
/// proxy.lose_answer_to("SET");
/// client.write_all(b"SET").await?;
/// assert_eq!(client.read(&mut [0; 8]).await?, 0, "the connection ends instead of an answer");
/// assert_eq!(proxy.lost(), 1);
/// # std::io::Result::Ok(()) }).unwrap();
/// ```
#[derive(Debug)]
pub struct LossyProxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    serve: JoinHandle<()>,
}

impl LossyProxy {
    /// Listens on a free port of loopback and forwards each connection to `server`.
    ///
    /// # Errors
    /// When no port can be bound.
    pub async fn start(server: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            server,
            mode: watch::Sender::new(Mode::Forward),
            cuts: watch::Sender::new(0),
            abandons: watch::Sender::new(0),
            listening: watch::Sender::new(true),
            next_loss: Mutex::default(),
            lost: watch::Sender::new(0),
            accepted: AtomicUsize::new(0),
        });
        let serve = tokio::spawn(serve(Arc::clone(&shared), listener, address));
        Ok(Self { address, shared, serve })
    }

    /// Where clients connect.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Forwards the next request that contains `bytes`, and cuts the connection when the server has answered it: the
    /// request was carried out, and the client does not get to know. No bytes at all stand for any request.
    ///
    /// Let one request be under way on that connection: the proxy takes the next bytes from the server for its answer.
    pub fn lose_answer_to(&self, bytes: impl AsRef<[u8]>) {
        *self.shared.next_loss() = Some(Loss { containing: bytes.as_ref().to_vec(), what: Lost::Answer });
    }

    /// Cuts the connection at the next request that contains `bytes`, without forwarding it: it was sent, and is not
    /// carried out. No bytes at all stand for any request.
    pub fn lose_request_with(&self, bytes: impl AsRef<[u8]>) {
        *self.shared.next_loss() = Some(Loss { containing: bytes.as_ref().to_vec(), what: Lost::Request });
    }

    /// Takes [`lose_answer_to`](Self::lose_answer_to) and [`lose_request_with`](Self::lose_request_with) back, where no
    /// such request has come.
    pub fn lose_nothing(&self) {
        *self.shared.next_loss() = None;
    }

    /// How many requests and answers were lost as asked.
    pub fn lost(&self) -> usize {
        *self.shared.lost.borrow()
    }

    /// How many connections clients have made.
    pub fn accepted(&self) -> usize {
        self.shared.accepted.load(Ordering::SeqCst)
    }

    /// Ends every connection there is now; new ones are taken.
    pub fn cut(&self) {
        self.shared.cuts.send_modify(|count| *count = count.wrapping_add(1));
    }

    /// Leaves every connection there is now open, and carries nothing on it any more, as when the other end was moved
    /// away without a word; new connections work.
    pub fn abandon(&self) {
        self.shared.abandons.send_modify(|count| *count = count.wrapping_add(1));
    }

    /// Keeps all bytes from now on, in both directions, as a server or a network does that stands still.
    pub fn stall(&self) {
        self.shared.mode.send_replace(Mode::Stall);
    }

    /// Keeps the answers from now on, while requests go on to the server.
    pub fn hold_answers(&self) {
        self.shared.mode.send_replace(Mode::HoldAnswers);
    }

    /// Ends every connection and listens no more; returns when connections are refused. Cancel safe.
    pub async fn refuse(&self) {
        self.shared.mode.send_replace(Mode::Refuse);
        let _ = self.shared.listening.subscribe().wait_for(|listening| !listening).await;
    }

    /// Forwards again, first what was kept; returns when connections are taken at the same address. Cancel safe.
    pub async fn resume(&self) {
        self.shared.mode.send_replace(Mode::Forward);
        let _ = self.shared.listening.subscribe().wait_for(|listening| *listening).await;
    }
}

impl Drop for LossyProxy {
    fn drop(&mut self) {
        // The task owns the listener and all connections.
        self.serve.abort();
    }
}

async fn serve(shared: Arc<Shared>, listener: TcpListener, address: SocketAddr) {
    let mut listener = Some(listener);
    let mut connections = JoinSet::new();
    let mut mode = shared.mode.subscribe();
    loop {
        if *mode.borrow_and_update() == Mode::Refuse {
            connections.shutdown().await;
            listener = None;
            shared.listening.send_replace(false);
        } else if let Some(listening) = &listener {
            tokio::select! {
                _ = mode.changed() => {}
                _ = connections.join_next(), if !connections.is_empty() => {}
                accepted = listening.accept() => if let Ok((client, _)) = accepted {
                    shared.accepted.fetch_add(1, Ordering::SeqCst);
                    connections.spawn(carry(Arc::clone(&shared), client));
                },
            }
            continue;
        } else if let Ok(bound) = TcpListener::bind(address).await {
            listener = Some(bound);
            shared.listening.send_replace(true);
            continue;
        }
        // Refusing, or somebody else has the port for a moment.
        tokio::select! {
            _ = mode.changed() => {}
            () = tokio::time::sleep(Duration::from_millis(10)), if *shared.mode.borrow() != Mode::Refuse => {}
        }
    }
}

/// Carries one connection until either end closes it, it is cut, or its loss has come.
async fn carry(shared: Arc<Shared>, client: TcpStream) {
    let mut cuts = shared.cuts.subscribe();
    let age = *shared.abandons.borrow();
    // A stalled server does not take connections either, though the kernel shakes hands for it.
    shared.until(|mode| mode != Mode::Stall).await;
    let Ok(server) = TcpStream::connect(shared.server).await else { return };
    // The proxy is to add no delay of its own; without this it is only slower.
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let losing = AtomicBool::new(false);
    tokio::select! {
        _ = cuts.changed() => {}
        () = carry_requests(&shared, age, from_client, to_server, &losing) => {}
        () = carry_answers(&shared, age, from_server, to_client, &losing) => {}
    }
}

async fn carry_requests(
    shared: &Shared,
    age: u64,
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    losing: &AtomicBool,
) {
    let mut bytes = vec![0; 64 * 1024];
    // The end of what came before, since the bytes looked for may come in two parts.
    let mut tail = Vec::new();
    while let Ok(length @ 1..) = from.read(&mut bytes).await {
        shared.until(|mode| mode != Mode::Stall).await;
        shared.unless_abandoned(age).await;
        match take_loss(shared, &mut tail, &bytes[..length]) {
            Some(Lost::Request) => return shared.count_loss(),
            // Before it is forwarded, or the answer could be faster.
            Some(Lost::Answer) => losing.store(true, Ordering::SeqCst),
            None => {}
        }
        if to.write_all(&bytes[..length]).await.is_err() {
            return;
        }
    }
}

/// Takes the loss that was asked for, if this request is the one.
fn take_loss(shared: &Shared, tail: &mut Vec<u8>, bytes: &[u8]) -> Option<Lost> {
    let mut next = shared.next_loss();
    let wanted = next.as_ref().map_or(0, |loss| loss.containing.len());
    tail.extend_from_slice(bytes);
    let is_meant = next.is_some()
        && (wanted == 0
            || tail.windows(wanted).any(|part| Some(part) == next.as_ref().map(|loss| &*loss.containing)));
    tail.drain(..tail.len().saturating_sub(wanted.saturating_sub(1)));
    if is_meant { next.take().map(|loss| loss.what) } else { None }
}

async fn carry_answers(
    shared: &Shared,
    age: u64,
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    losing: &AtomicBool,
) {
    let mut bytes = vec![0; 64 * 1024];
    while let Ok(length @ 1..) = from.read(&mut bytes).await {
        if losing.load(Ordering::SeqCst) {
            return shared.count_loss();
        }
        shared.until(|mode| mode == Mode::Forward).await;
        shared.unless_abandoned(age).await;
        if to.write_all(&bytes[..length]).await.is_err() {
            return;
        }
    }
}
