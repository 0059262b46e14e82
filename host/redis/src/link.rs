//! [`Link`]: the connection, and what replaces it when it is of no use any more.
//!
//! A connection over plain TCP is one of [`driven`], and replaced here when it is closed; one with TLS is the client's connection
//! manager, which makes a new connection by itself. Neither sends anything twice. For both of them:
//! - a connection that is not closed but answers nothing (a stopped server, a lost route) is replaced after a timeout,
//!   and so is one to a server that has become a replica;
//! - behind Sentinel the master is asked for again;
//! - an error from before the request was sent is told from one after it.

mod driven;
mod driving;
mod subscription;

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use redis::aio::{ConnectionLike, ConnectionManager, ConnectionManagerConfig};
use redis::{Client, Cmd, ErrorKind, Pipeline, RedisError, RedisResult, ServerErrorKind, Value};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout, timeout_at};

#[cfg(feature = "cluster")]
use crate::cluster::Cluster;
use crate::error::{Trouble, server_code};
use driven::Driven;
pub(crate) use subscription::Subscription;

/// For so long after a failure a write goes out only behind a read that has shown the way to be good.
const DOUBT: Duration = Duration::from_secs(5);
/// What a script cannot do without: effects replication, and scripts that may ask for the time before they write.
const OLDEST_SERVER: (u64, u64) = (6, 2);

/// Commands that go to the server in one piece, all about one key.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) key: Vec<u8>,
    pub(crate) commands: Vec<Cmd>,
}

impl Request {
    pub(crate) fn one(key: &[u8], command: Cmd) -> Self {
        Self { key: key.to_vec(), commands: vec![command] }
    }

    fn proof(key: &[u8]) -> Self {
        let mut exists = redis::cmd("EXISTS");
        exists.arg(key);
        Self::one(key, exists)
    }

    pub(crate) fn pipeline(&self) -> Pipeline {
        let mut pipeline = Pipeline::with_capacity(self.commands.len());
        for command in &self.commands {
            pipeline.add_command(command.clone());
        }
        pipeline
    }
}

/// Where connections come from.
pub(crate) enum Origin {
    /// The user made it, and only the user can replace it.
    Given(ConnectionManager),
    /// One server, or a name that leads to the one that may write.
    Server(Box<Client>),
    #[cfg(feature = "cluster")]
    Cluster(Box<crate::cluster::Entrance>),
    #[cfg(feature = "sentinel")]
    Sentinel(Box<Sentinels>),
}

/// Two who ask the same sentinels, so that no request waits until a subscription has found its server.
#[cfg(feature = "sentinel")]
pub(crate) struct Sentinels {
    pub(crate) for_requests: tokio::sync::Mutex<redis::sentinel::SentinelClient>,
    pub(crate) for_subscriptions: tokio::sync::Mutex<redis::sentinel::SentinelClient>,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Timeouts {
    /// For an answer.
    pub(crate) operation: Duration,
    /// For a connection to one server.
    pub(crate) connect: Duration,
}

impl Timeouts {
    /// The manager tries once: whoever waits for the connection wants to know now, and the next request tries again.
    fn manager_config(self) -> ConnectionManagerConfig {
        ConnectionManagerConfig::new()
            .set_connection_timeout(Some(self.connect))
            .set_response_timeout(Some(self.operation))
            .set_number_of_retries(0)
    }

    /// Sentinels are asked one after the other, and a cluster's nodes are visited more than once.
    fn attempt(self) -> Duration {
        self.connect.saturating_mul(4)
    }
}

#[derive(Clone)]
enum Connection {
    Single(Driven),
    Managed(ConnectionManager),
    #[cfg(feature = "cluster")]
    Cluster(Cluster),
}

impl Connection {
    async fn send(&mut self, request: &Request) -> RedisResult<Vec<Value>> {
        let answers = match self {
            // One command is the usual case: a pipeline would copy it.
            Self::Single(driven) => match request.commands.as_slice() {
                [command] => vec![driven.send_one(command).await?],
                commands => driven.send_all(&request.pipeline(), commands.len()).await?,
            },
            Self::Managed(manager) => match request.commands.as_slice() {
                [command] => vec![manager.req_packed_command(command).await?],
                commands => manager.req_packed_commands(&request.pipeline(), 0, commands.len()).await?,
            },
            #[cfg(feature = "cluster")]
            Self::Cluster(cluster) => cluster.send(request).await?,
        };
        answers.into_iter().map(Value::extract_error).collect()
    }

    async fn send_anywhere(&mut self, command: Cmd) -> RedisResult<Value> {
        match self {
            Self::Single(driven) => driven.send_one(&command).await?.extract_error(),
            Self::Managed(manager) => manager.req_packed_command(&command).await?.extract_error(),
            #[cfg(feature = "cluster")]
            Self::Cluster(cluster) => cluster.send_anywhere(command).await?.extract_error(),
        }
    }

    /// To one server; with a task that ends when the connection is closed, where it does not mend itself.
    async fn to(client: Client, timeouts: Timeouts) -> RedisResult<Made> {
        if let Some(connected) = Driven::connect(&client, timeouts.connect).await {
            return connected.map(|(driven, task)| (Self::Single(driven), Some(task)));
        }
        let manager = ConnectionManager::new_with_config(client, timeouts.manager_config()).await?;
        Ok((Self::Managed(manager), None))
    }

    fn is_closed(&self) -> bool {
        matches!(self, Self::Single(driven) if driven.is_closed())
    }
}

/// A connection, and the task that ends when it is closed, where it has one.
type Made = (Connection, Option<JoinHandle<()>>);
/// A connection and its number: who found it bad says which one it was.
type Numbered = (Connection, u64);
/// How an attempt ends, for all who wait for it.
type Outcome = watch::Receiver<Option<RedisResult<Numbered>>>;

/// A task that connects. It runs on the runtime of whoever began it, which may end before it, or may not be polled any more.
struct Attempt {
    number: u64,
    begun: Instant,
    /// The connection that serves until this attempt has ended.
    replaces: Option<u64>,
    outcome: Outcome,
}

impl Attempt {
    /// Whether it can still end, and will in time.
    fn is_alive(&self, limit: Duration) -> bool {
        self.outcome.has_changed().is_ok() && self.begun.elapsed() <= limit
    }
}

#[derive(Default)]
struct State {
    current: Option<Numbered>,
    /// The number of the last connection, and that of the last attempt.
    last: u64,
    last_attempt: u64,
    attempt: Option<Attempt>,
    doubt_until: Option<Instant>,
    /// Since when somebody looks after a connection that a caller gave up on.
    checking: Option<Instant>,
}

/// A connection that is replaced when it is of no use any more. Clones share it.
#[derive(Clone)]
pub(crate) struct Link {
    inner: Arc<Inner>,
}

struct Inner {
    origin: Origin,
    timeouts: Timeouts,
    state: Mutex<State>,
    /// The number of the last connection that has answered a request.
    answered: AtomicU64,
}

impl Link {
    pub(crate) fn new(origin: Origin, timeouts: Timeouts) -> Self {
        let inner = Inner { origin, timeouts, state: Mutex::default(), answered: AtomicU64::new(0) };
        Self { inner: Arc::new(inner) }
    }

    /// Connects, if there is no connection yet.
    pub(crate) async fn connect(&self) -> RedisResult<()> {
        self.connection().await.map(drop)
    }

    /// Sends a request and waits for its answers until `deadline`. It is sent at most once.
    pub(crate) async fn send(&self, request: &Request, deadline: Instant) -> Result<Vec<Value>, Trouble> {
        let connection = timeout_at(deadline, self.connection()).await;
        let (mut connection, number) =
            connection.map_err(|_| Trouble::NoTimeToConnect)?.map_err(Trouble::NoConnection)?;
        let watched = Watched { link: self, request, number, is_settled: false };
        let answer = timeout_at(deadline, connection.send(request)).await;
        watched.settle();
        match answer {
            Ok(Ok(answers)) => {
                if self.inner.answered.load(Ordering::Relaxed) != number {
                    self.inner.answered.store(number, Ordering::Relaxed);
                }
                Ok(answers)
            }
            Ok(Err(error)) => {
                self.look_into(&error, &connection, number);
                Err(trouble(error, &connection))
            }
            Err(_) => {
                self.give_up_on(number);
                Err(Trouble::NoAnswer)
            }
        }
    }

    /// Makes sure, for a while after a failure, that the way to the key's server is good before something is written.
    ///
    /// Without it a write into a dead connection would be *unknown* although nobody has got it.
    pub(crate) async fn prove(&self, key: &[u8], deadline: Instant) -> Result<(), Trouble> {
        let is_in_doubt = self.state().doubt_until.is_some_and(|until| Instant::now() < until);
        if is_in_doubt {
            self.send(&Request::proof(key), deadline).await.map_err(Trouble::before_the_write)?;
        }
        Ok(())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.inner.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn doubt(&self) {
        self.state().doubt_until = Some(Instant::now() + DOUBT);
    }

    /// Gives the connection, or waits for the attempt that is under way, or begins one.
    async fn connection(&self) -> RedisResult<Numbered> {
        // The second time it is an attempt on our own runtime, unless somebody else was faster.
        for _ in 0..2 {
            let mut outcome = {
                let mut state = self.state();
                if let Some(current) = state.current.take_if(|(connection, _)| connection.is_closed()) {
                    tracing::debug!(number = current.1, "the connection was closed");
                }
                if let Some(current) = &state.current {
                    return Ok(current.clone());
                }
                self.attempt(&mut state)
            };
            if let Ok(Some(outcome)) = outcome.wait_for(Option::is_some).await.as_deref() {
                return outcome.clone();
            }
            tracing::debug!("the runtime that carried the attempt to connect is gone");
        }
        Err(io::Error::new(io::ErrorKind::Interrupted, "the attempt to connect was given up").into())
    }

    /// The attempt that is under way, or a new one. It is a task, so that no caller who leaves takes it along; only his runtime does.
    fn attempt(&self, state: &mut State) -> Outcome {
        let limit = self.inner.timeouts.attempt();
        if let Some(attempt) = state.attempt.as_ref().filter(|attempt| attempt.is_alive(limit)) {
            return attempt.outcome.clone();
        }
        let (sender, outcome) = watch::channel(None);
        state.last_attempt += 1;
        let number = state.last_attempt;
        let replaces = state.current.as_ref().map(|(_, current)| *current);
        state.attempt = Some(Attempt { number, begun: Instant::now(), replaces, outcome: outcome.clone() });
        let link = self.clone();
        tokio::spawn(async move {
            let made = match timeout(limit, link.make()).await {
                Ok(made) => made,
                Err(_) => Err(no_connection_within(limit)),
            };
            let outcome = link.end_attempt(number, made);
            match &outcome {
                Ok((_, number)) => tracing::debug!(number, "connected"),
                Err(error) => tracing::debug!(%error, "could not connect"),
            }
            sender.send_replace(Some(outcome));
        });
        outcome
    }

    /// Puts the connection that an attempt has made in its place.
    fn end_attempt(&self, number: u64, made: RedisResult<Made>) -> RedisResult<Numbered> {
        // Let go of after the state.
        let _replaced;
        let mut state = self.state();
        let awaited = state.attempt.take_if(|attempt| attempt.number == number);
        match made {
            Ok((connection, task)) => {
                if let (None, Some(current)) = (&awaited, &state.current) {
                    // It was late, and another one has connected meanwhile.
                    _replaced = Some(connection);
                    return Ok(current.clone());
                }
                state.last += 1;
                let numbered = (connection, state.last);
                _replaced = state.current.replace(numbered.clone()).map(|(replaced, _)| replaced);
                if let Some(task) = task {
                    self.replace_when_closed(task, state.last);
                }
                Ok(numbered)
            }
            Err(error) => {
                // A cluster's client that cannot learn the slots tries it again without a pause, for as long as anybody has it.
                let of = awaited.and_then(|attempt| attempt.replaces);
                let useless = state.current.take_if(|(_, current)| Some(*current) == of);
                _replaced = useless.map(|(useless, _)| useless);
                Err(error)
            }
        }
    }

    /// So that the next request finds another one, and is not sent into a connection that is none.
    fn replace_when_closed(&self, task: JoinHandle<()>, number: u64) {
        let inner = Arc::downgrade(&self.inner);
        tokio::spawn(async move {
            // Whether it has ended or panicked.
            let _ = task.await;
            let Some(inner) = inner.upgrade() else { return };
            // A server that lets everybody in and closes at once is left alone until somebody asks for something.
            let is_of_use = inner.answered.load(Ordering::Relaxed) == number;
            let link = Self { inner };
            if is_of_use {
                link.replace(number);
            } else {
                let gone = link.state().current.take_if(|(_, current)| *current == number);
                drop(gone);
            }
        });
    }

    /// Makes a connection and checks the server's version.
    async fn make(&self) -> RedisResult<Made> {
        let timeouts = self.inner.timeouts;
        let (mut connection, task) = match &self.inner.origin {
            Origin::Given(manager) => (Connection::Managed(manager.clone()), None),
            Origin::Server(client) => Connection::to(Client::clone(client), timeouts).await?,
            #[cfg(feature = "cluster")]
            Origin::Cluster(entrance) => (Connection::Cluster(entrance.connect().await?), None),
            #[cfg(feature = "sentinel")]
            Origin::Sentinel(sentinels) => {
                let master = sentinels.for_requests.lock().await.async_get_client().await?;
                Connection::to(master, timeouts).await?
            }
        };
        let mut info = redis::cmd("INFO");
        info.arg("server");
        let info: String = redis::from_redis_value(connection.send_anywhere(info).await?)?;
        check_version(&info)?;
        Ok((connection, task))
    }

    /// Replaces the connection with this number; if another one has taken its place already, that one stays.
    fn replace(&self, number: u64) {
        let mut state = self.state();
        if state.current.as_ref().is_none_or(|(_, current)| *current != number) {
            return;
        }
        match &self.inner.origin {
            // Nobody here knows where it leads to.
            Origin::Given(_) => return,
            // One bad node is no reason to cut off the others: the old connection serves until the attempt has ended.
            #[cfg(feature = "cluster")]
            Origin::Cluster(_) => {}
            _ => state.current = None,
        }
        self.attempt(&mut state);
    }

    /// Replaces a connection on which no answer came in time.
    fn give_up_on(&self, number: u64) {
        tracing::debug!(number, "no answer in time; the connection is replaced");
        self.doubt();
        self.replace(number);
    }

    /// Decides what an error means for the connection.
    fn look_into(&self, error: &RedisError, connection: &Connection, number: u64) {
        let is_answer = server_code(error).is_some();
        if !is_answer {
            self.doubt();
        }
        let is_useless = match error.kind() {
            // The manager and the cluster client mend a dropped connection; but a master that is gone is asked for anew.
            ErrorKind::Io if error.is_connection_dropped() => {
                matches!(connection, Connection::Single(_)) || self.is_behind_sentinel()
            }
            ErrorKind::ClusterConnectionNotFound => false,
            // It has become a replica: the name, or the sentinels, now lead to another server.
            ErrorKind::Server(ServerErrorKind::ReadOnly) => true,
            // It was restarted with other users, or they have changed.
            _ if matches!(server_code(error).as_deref(), Some("NOAUTH" | "WRONGPASS")) => true,
            // The manager keeps a failed login for ever.
            _ => !is_answer,
        };
        if is_useless {
            tracing::debug!(%error, "the connection is replaced");
            self.replace(number);
        }
    }

    fn is_behind_sentinel(&self) -> bool {
        match &self.inner.origin {
            #[cfg(feature = "sentinel")]
            Origin::Sentinel(_) => true,
            _ => false,
        }
    }

    /// Looks after a connection that a caller gave up on before our own timeout: is it dead, or was he in a hurry?
    ///
    /// Without it a caller whose patience is shorter than our timeout would wait on a dead connection for ever.
    fn check(&self, request: &Request, number: u64) {
        let Ok(runtime) = Handle::try_current() else { return };
        let Some(checking) = Checking::begin(self) else { return };
        let (link, proof) = (self.clone(), Request::proof(&request.key));
        runtime.spawn(async move {
            let _checking = checking;
            let current = link.state().current.clone();
            if let Some((mut connection, current)) = current.filter(|(_, current)| *current == number) {
                match timeout(link.inner.timeouts.operation, connection.send(&proof)).await {
                    Ok(Ok(_)) => {}
                    Ok(Err(error)) => link.look_into(&error, &connection, current),
                    Err(_) => link.give_up_on(current),
                }
            }
        });
    }
}

/// Somebody looks after a connection, one at a time. The runtime that carries him may end before him, or may not be polled any more.
struct Checking {
    link: Link,
    since: Instant,
}

impl Checking {
    fn begin(link: &Link) -> Option<Self> {
        let limit = link.inner.timeouts.operation.saturating_mul(2);
        let (mut state, since) = (link.state(), Instant::now());
        if state.checking.is_some_and(|other| other.elapsed() <= limit) {
            return None;
        }
        state.checking = Some(since);
        Some(Self { link: link.clone(), since })
    }
}

impl Drop for Checking {
    fn drop(&mut self) {
        self.link.state().checking.take_if(|since| *since == self.since);
    }
}

/// A request that was sent. Dropped before its end, it has the connection checked.
struct Watched<'a> {
    link: &'a Link,
    request: &'a Request,
    number: u64,
    is_settled: bool,
}

impl Watched<'_> {
    fn settle(mut self) {
        self.is_settled = true;
    }
}

impl Drop for Watched<'_> {
    fn drop(&mut self) {
        if !self.is_settled {
            self.link.check(self.request, self.number);
        }
    }
}

/// What an error of a request says about the request.
fn trouble(error: RedisError, connection: &Connection) -> Trouble {
    match connection {
        // The manager was reconnecting and was turned away, or could not log in; it has sent nothing.
        Connection::Managed(_)
            if error.is_connection_refusal() || error.kind() == ErrorKind::AuthenticationFailed =>
        {
            Trouble::NoConnection(error)
        }
        // The cluster client gives the failure of one node's connection to requests that were sent to another.
        _ => Trouble::Answer(error),
    }
}

fn no_connection_within(limit: Duration) -> RedisError {
    RedisError::from(io::Error::new(io::ErrorKind::TimedOut, format!("no connection within {limit:?}")))
}

/// Refuses a server that is too old. One that does not tell a version (a compatible server) is taken at its word.
fn check_version(info: &str) -> RedisResult<()> {
    let Some(version) = info.lines().find_map(|line| line.strip_prefix("redis_version:")) else {
        return Ok(());
    };
    let version = version.trim();
    let mut parts = version.split('.').map_while(|part| part.parse::<u64>().ok());
    match (parts.next(), parts.next()) {
        (Some(major), Some(minor)) if (major, minor) < OLDEST_SERVER => {
            let (major, minor) = OLDEST_SERVER;
            let detail = format!("it is Redis {version}; run {major}.{minor} or newer");
            Err(RedisError::from((ErrorKind::InvalidClientConfig, "the server is too old", detail)))
        }
        _ => Ok(()),
    }
}
