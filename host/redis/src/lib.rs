#![doc = include_str!("../README.md")]
//!
//! # Pushes
//! Whoever replaces an entry may [announce](circuitry_store::Store::announce) it, and whoever
//! [watches](circuitry_store::Store::watch) hears of it by pub/sub, instead of at the next poll. A push only shortens a
//! wait: with every push lost the result is the same, later.
//!
//! There is one channel for each prefix, and its name is the prefix itself, by default `circuitry:`
//! ([`RedisStore::channel`]); a message is the name of a circuit, as it is. A message that is no circuit's name (empty,
//! over 1,024 bytes, not UTF-8) is dropped. On a cluster the channel lies on the node of its slot: there it is sharded
//! (`SPUBLISH`) if that node is Redis 7 or newer, else `PUBLISH` after an `SPUBLISH` that the node does not know.
//!
//! An announcement is one command on the connection for requests, within the operation's timeout, and is never sent
//! again. Each watch has a connection of its own, which is made again by itself, after pauses of 50 ms to 10 s and up to
//! twice that by chance, when it was lost, when it has not answered for 10 s, when a master was failed over and when the
//! slot has moved. Each time [`Push::Missed`](circuitry_store::Push::Missed) tells that pushes may be lost.
//!
//! A user needs these permissions more; without them there is one warning in the log and there are no pushes:
//!
//! ```text
//! ACL SETUSER worker &circuitry: +publish +subscribe
//! ```
//!
//! On a cluster it is `+spublish +ssubscribe`, before Redis 7 `+publish +subscribe`.
//!
//! # Layout of the crate
//! - this page: configuration, [`RedisStoreBuilder`]
//! - `store`: the adapter, [`RedisStore`]; `swap.lua`: the script, [`SWAP_SCRIPT`]
//! - `address`: what is wrong with a URL
//! - `store/push`: what is published, and the task behind a watch; `link/subscription`: its connection
//! - `link`: the connection for requests, and when it is replaced
//! - `cluster`: requests to a Redis Cluster, sent at most once
//! - `error`: which [`StoreError`] an error is

mod address;
#[cfg(feature = "cluster")]
mod cluster;
mod error;
mod link;
mod store;
mod sync;

use std::fmt;
use std::time::Duration;

use circuitry_store::StoreError;
use redis::aio::ConnectionManager;
use redis::{Client, ClientTlsConfig, ConnectionAddr, ConnectionInfo, RedisResult, TlsCertificates};

pub use store::RedisStore;

use address::Address;
use link::{Link, Origin, Timeouts};

/// The script that a swap runs, for hosts in other languages: they share circuits only if they send this very text.
pub const SWAP_SCRIPT: &str = include_str!("swap.lua");
/// What stands before a circuit's name in its key, unless set: [`RedisStoreBuilder::prefix`].
pub const DEFAULT_PREFIX: &str = "circuitry:";
/// How long a load or a swap may take, unless set: [`RedisStoreBuilder::operation_timeout`].
pub const DEFAULT_OPERATION_TIMEOUT: Duration = Duration::from_secs(1);
/// How long a connection to one server may take, unless set: [`RedisStoreBuilder::connect_timeout`].
pub const DEFAULT_CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// A call that may take longer than this protects nothing.
const LONGEST_TIMEOUT: Duration = Duration::from_secs(60);

/// Settings of a [`RedisStore`]. It ends with one of the methods that connect.
///
/// # Example
/// ```no_run
/// use std::time::Duration;
/// use circuitry_redis::RedisStore;
///
/// # async fn example() -> Result<(), circuitry_store::StoreError> {
/// let store = RedisStore::builder()
///     .prefix("billing:")
///     .operation_timeout(Duration::from_millis(300))
///     .connect("rediss://worker:secret@redis.internal:6380")
///     .await?;
/// # Ok(()) }
/// ```
#[derive(Clone)]
#[must_use = "a builder does nothing until it connects"]
pub struct RedisStoreBuilder {
    prefix: String,
    operation_timeout: Duration,
    connect_timeout: Duration,
    is_lazy: bool,
    root_certificate: Option<Vec<u8>>,
    client_certificate: Option<ClientTlsConfig>,
    #[cfg(feature = "sentinel")]
    data_nodes: Option<String>,
}

impl Default for RedisStoreBuilder {
    fn default() -> Self {
        Self {
            prefix: DEFAULT_PREFIX.to_owned(),
            operation_timeout: DEFAULT_OPERATION_TIMEOUT,
            connect_timeout: DEFAULT_CONNECT_TIMEOUT,
            is_lazy: false,
            root_certificate: None,
            client_certificate: None,
            #[cfg(feature = "sentinel")]
            data_nodes: None,
        }
    }
}

impl RedisStoreBuilder {
    /// Sets what stands before a circuit's name in its key. Stores share circuits if they share the prefix.
    pub fn prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = prefix.into();
        self
    }

    /// Bounds a load or a swap, everything included: connection, redirections, answer. More than 0, at most 60 s.
    pub fn operation_timeout(mut self, timeout: Duration) -> Self {
        self.operation_timeout = timeout;
        self
    }

    /// Bounds a connection to one server, its TLS and login included. More than 0, at most 60 s.
    ///
    /// It may be longer than the operation's timeout: a connection is made to its end even when the operation that
    /// began it has given up. It does not hold towards sentinels: the client gives each of them 1 s for the connection
    /// and 500 ms for an answer.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// Lets the methods that connect return at once: the first operation connects. So a process starts, and falls back
    /// to its local rules, while the store is down. What is wrong with the settings is still told at once.
    pub fn lazy(mut self) -> Self {
        self.is_lazy = true;
        self
    }

    /// Trusts servers whose certificate this one has signed, instead of those that the system trusts. PEM, one or
    /// several; for `rediss://`.
    pub fn root_certificate_pem(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.root_certificate = Some(pem.into());
        self
    }

    /// Shows this certificate to the server (mutual TLS). PEM; for `rediss://`.
    pub fn client_certificate_pem(
        mut self,
        certificate: impl Into<Vec<u8>>,
        key: impl Into<Vec<u8>>,
    ) -> Self {
        self.client_certificate =
            Some(ClientTlsConfig { client_cert: certificate.into(), client_key: key.into() });
        self
    }

    /// Sets user, password, database and TLS for the servers that the sentinels name, as the URL
    /// `rediss://user:password@any/0`; its host stands for whatever server they name. Without it: no login, no TLS,
    /// database 0. The sentinels' own URLs are for the sentinels only.
    #[cfg(feature = "sentinel")]
    pub fn data_nodes(mut self, url: impl Into<String>) -> Self {
        self.data_nodes = Some(url.into());
        self
    }

    /// Connects to one server, or to a name that leads to the one that may write.
    ///
    /// # Errors
    /// [`StoreError::Other`] when the URL, a setting or the server's version is wrong, and says what to change;
    /// [`StoreError::Denied`] when the login fails; [`StoreError::Unavailable`] when there is no server.
    ///
    /// # Cancel safety
    /// It writes nothing; dropping it has no effect.
    pub async fn connect(self, url: &str) -> Result<RedisStore, StoreError> {
        self.check()?;
        let address = Address::read(url)?;
        let certificates = self.certificates(&[&address])?;
        let client = client(address.info, certificates).map_err(|error| unusable(&address.place, error))?;
        self.store(Origin::Server(Box::new(client)), address.place).await
    }

    /// Takes a connection that you have made, to share it or because you need a setting that is not here.
    ///
    /// Give it a response timeout and no more than one reconnection attempt at a time. A connection that answers nothing
    /// any more without being closed is not replaced: this store does not know where it leads to. It connects to
    /// nothing, so the server's version is checked with the first operation. For the same reason it cannot subscribe:
    /// it announces transitions to others, and its own [`watch`](circuitry_store::Store::watch) is `None`, so that
    /// whoever uses it polls.
    ///
    /// # Errors
    /// [`StoreError::Other`] that names the setting to change.
    pub fn from_connection_manager(self, manager: ConnectionManager) -> Result<RedisStore, StoreError> {
        self.check()?;
        Ok(self.assemble(Origin::Given(manager), "the given connection".to_owned()))
    }

    /// Connects to a Redis Cluster by the URLs of some of its nodes; the others are learned from them. User, password
    /// and TLS are the same for all nodes, so they have to be the same in all URLs.
    ///
    /// # Errors
    /// Those of [`connect`](Self::connect), and [`StoreError::Other`] when there is no URL or when they differ.
    ///
    /// # Cancel safety
    /// It writes nothing; dropping it has no effect.
    #[cfg(feature = "cluster")]
    pub async fn connect_cluster<U: AsRef<str>>(
        self,
        urls: impl IntoIterator<Item = U>,
    ) -> Result<RedisStore, StoreError> {
        self.check()?;
        let (nodes, place) = addresses(urls)?;
        let place = format!("the cluster of {place}");
        let certificates = self.certificates(&nodes.iter().collect::<Vec<_>>())?;
        let nodes = nodes.into_iter().map(|node| node.info).collect();
        let entrance = cluster::Entrance::new(nodes, certificates, self.timeouts())
            .map_err(|error| unusable(&place, error))?;
        self.store(Origin::Cluster(Box::new(entrance)), place).await
    }

    /// Connects to the master of the name `master`, which the sentinels at these URLs know. After a failover they are
    /// asked again. User, password and TLS in the URLs are those of the sentinels and have to be the same in all; see
    /// [`data_nodes`](Self::data_nodes) for those of the servers.
    ///
    /// # Errors
    /// Those of [`connect`](Self::connect), and [`StoreError::Other`] when there is no URL or when they differ;
    /// [`StoreError::Unavailable`] also when the sentinels know no master of that name that is up.
    ///
    /// # Cancel safety
    /// It writes nothing; dropping it has no effect.
    #[cfg(feature = "sentinel")]
    pub async fn connect_sentinel<U: AsRef<str>>(
        self,
        sentinels: impl IntoIterator<Item = U>,
        master: &str,
    ) -> Result<RedisStore, StoreError> {
        self.check()?;
        let (sentinels, place) = addresses(sentinels)?;
        let place = format!("the master {master:?} of the sentinels {place}");
        let data_nodes = self.data_nodes.as_deref().map(Address::read).transpose()?;
        let certificates = self.certificates(&sentinels.iter().chain(&data_nodes).collect::<Vec<_>>())?;
        let client = || {
            let (sentinels, data_nodes) = (sentinels.clone(), data_nodes.clone());
            let client = sentinel_client(sentinels, master, data_nodes, certificates.clone());
            client.map(tokio::sync::Mutex::new).map_err(|error| unusable(&place, error))
        };
        let sentinels = link::Sentinels { for_requests: client()?, for_subscriptions: client()? };
        self.store(Origin::Sentinel(Box::new(sentinels)), place).await
    }

    fn check(&self) -> Result<(), StoreError> {
        let timeouts =
            [("operation_timeout", self.operation_timeout), ("connect_timeout", self.connect_timeout)];
        for (name, timeout) in timeouts {
            if timeout.is_zero() || timeout > LONGEST_TIMEOUT {
                return Err(StoreError::rejected(format!(
                    "{name} of the Redis store is {timeout:?}; set more than 0 and at most {LONGEST_TIMEOUT:?}"
                )));
            }
        }
        Ok(())
    }

    fn timeouts(&self) -> Timeouts {
        Timeouts { operation: self.operation_timeout, connect: self.connect_timeout }
    }

    /// The certificates, where there is TLS to use them for.
    fn certificates(&self, addresses: &[&Address]) -> Result<Option<TlsCertificates>, StoreError> {
        let has_tls = addresses.iter().any(|address| is_tls(&address.info));
        if has_tls {
            // rustls takes none by itself in a program that was built with two; one that the program chose stays.
            let _ = rustls::crypto::ring::default_provider().install_default();
        }
        if self.root_certificate.is_none() && self.client_certificate.is_none() {
            return Ok(None);
        }
        if !has_tls {
            return Err(StoreError::rejected(
                "the Redis store has a certificate but no TLS to use it for; write the URL with rediss://",
            ));
        }
        Ok(Some(TlsCertificates {
            client_tls: self.client_certificate.clone(),
            root_cert: self.root_certificate.clone(),
        }))
    }

    async fn store(self, origin: Origin, place: String) -> Result<RedisStore, StoreError> {
        let is_lazy = self.is_lazy;
        let store = self.assemble(origin, place);
        if is_lazy { Ok(store) } else { store.connected().await }
    }

    fn assemble(self, origin: Origin, place: String) -> RedisStore {
        RedisStore::new(Link::new(origin, self.timeouts()), self.prefix, place, self.operation_timeout)
    }
}

impl fmt::Debug for RedisStoreBuilder {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Without the certificates and the URL of the data nodes, which have secrets in them.
        formatter
            .debug_struct("RedisStoreBuilder")
            .field("prefix", &self.prefix)
            .field("operation_timeout", &self.operation_timeout)
            .field("connect_timeout", &self.connect_timeout)
            .field("is_lazy", &self.is_lazy)
            .finish_non_exhaustive()
    }
}

fn unusable(place: &str, error: redis::RedisError) -> StoreError {
    StoreError::other(format!("the settings for {place} are not usable: {error}"), error)
}

fn is_tls(info: &ConnectionInfo) -> bool {
    matches!(info.addr(), ConnectionAddr::TcpTls { .. })
}

fn client(info: ConnectionInfo, certificates: Option<TlsCertificates>) -> RedisResult<Client> {
    match certificates {
        Some(certificates) => Client::build_with_tls(info, certificates),
        None => Client::open(info),
    }
}

/// Reads URLs that lead to one system, and says how to name it.
#[cfg(any(feature = "cluster", feature = "sentinel"))]
fn addresses<U: AsRef<str>>(urls: impl IntoIterator<Item = U>) -> Result<(Vec<Address>, String), StoreError> {
    let mut addresses = Vec::new();
    for url in urls {
        addresses.push(Address::read(url.as_ref())?);
    }
    let Some(first) = addresses.first() else {
        return Err(StoreError::rejected("the list of Redis URLs is empty; name at least one server"));
    };
    for other in &addresses {
        let (one, two) = (first.info.redis_settings(), other.info.redis_settings());
        let is_same = one.username() == two.username()
            && one.password() == two.password()
            && one.db() == two.db()
            && one.protocol() == two.protocol()
            && is_tls(&first.info) == is_tls(&other.info);
        if !is_same {
            return Err(StoreError::rejected(format!(
                "the Redis URLs {} and {} differ in user, password, database, protocol or TLS; write them alike",
                first.place, other.place
            )));
        }
    }
    let places: Vec<&str> = addresses.iter().map(|address| address.place.as_str()).collect();
    let place = places.join(", ");
    Ok((addresses, place))
}

#[cfg(feature = "sentinel")]
fn sentinel_client(
    sentinels: Vec<Address>,
    master: &str,
    data_nodes: Option<Address>,
    certificates: Option<TlsCertificates>,
) -> RedisResult<redis::sentinel::SentinelClient> {
    use redis::sentinel::{SentinelClientBuilder, SentinelServerType};

    let own = sentinels.first().map(|sentinel| sentinel.info.clone());
    let addresses = sentinels.into_iter().map(|sentinel| sentinel.info.addr().clone());
    let mut builder = SentinelClientBuilder::new(addresses, master, SentinelServerType::Master)?;
    if let Some(own) = own {
        let settings = own.redis_settings();
        builder = builder.set_client_to_sentinel_protocol(settings.protocol());
        if let Some(username) = settings.username() {
            builder = builder.set_client_to_sentinel_username(username);
        }
        if let Some(password) = settings.password() {
            builder = builder.set_client_to_sentinel_password(password);
        }
        if let Some(certificates) = certificates.clone().filter(|_| is_tls(&own)) {
            builder = builder.set_client_to_sentinel_certificates(certificates);
        }
    }
    let data_nodes = match data_nodes {
        Some(data_nodes) => data_nodes.info,
        None => redis::IntoConnectionInfo::into_connection_info("redis://any/?protocol=resp3")?,
    };
    let settings = data_nodes.redis_settings();
    builder = builder.set_client_to_redis_protocol(settings.protocol()).set_client_to_redis_db(settings.db());
    if let Some(username) = settings.username() {
        builder = builder.set_client_to_redis_username(username);
    }
    if let Some(password) = settings.password() {
        builder = builder.set_client_to_redis_password(password);
    }
    if is_tls(&data_nodes) {
        builder = builder.set_client_to_redis_tls_mode(redis::TlsMode::Secure);
        if let Some(certificates) = certificates {
            builder = builder.set_client_to_redis_certificates(certificates);
        }
    }
    builder.build()
}
