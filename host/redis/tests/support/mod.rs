//! Real servers for the tests: the one that is there already, and those that a test starts and disturbs itself.

#![allow(dead_code, reason = "each test binary uses its own part of this")]

pub(crate) mod cluster;
pub(crate) mod log;
pub(crate) mod process;
pub(crate) mod sentinel;

use std::future::Future;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use circuitry_redis::{RedisStore, RedisStoreBuilder};
use circuitry_store::conformance::LossyProxy;
use circuitry_store::{Loaded, Receipt, Store, StoreError, Swapped, Version, Watch};
use tokio::time::Instant;
use url::Url;

/// What the README asks for, so that it is what the tests grant.
pub(crate) const PERMISSIONS: &str =
    "+hmget +evalsha +eval +hset +pexpire +persist +exists +time +info +type";
/// What it asks for beside that on a cluster.
pub(crate) const CLUSTER_PERMISSIONS: &str = "+cluster|slots +ping +asking";
/// What it asks for beside that behind sentinels.
pub(crate) const SENTINEL_PERMISSIONS: &str = "+role";

/// What the documentation asks for beside that for pushes.
pub(crate) const PUSH_PERMISSIONS: &str = "&circuitry: +publish +subscribe";
/// What it asks for in their place on a cluster.
pub(crate) const CLUSTER_PUSH_PERMISSIONS: &str = "+spublish +ssubscribe";

/// The server that all tests may use, and none may disturb.
pub(crate) fn server_url() -> String {
    std::env::var("CIRCUITRY_TEST_REDIS_URL").unwrap_or_else(|_| {
        panic!("CIRCUITRY_TEST_REDIS_URL is not set: run `cargo xtask test`, which starts the servers")
    })
}

/// A prefix that no other test uses.
pub(crate) fn own_prefix() -> String {
    format!("circuitry-test-{:016x}:", fastrand::u64(..))
}

/// The builder of a store that shares its circuits with no other test.
pub(crate) fn own_store() -> RedisStoreBuilder {
    RedisStore::builder().prefix(own_prefix())
}

/// Where a URL leads to.
pub(crate) fn address_of(url: &str) -> Result<SocketAddr> {
    let url = Url::parse(url)?;
    let host = url.host_str().context("the URL has no host")?;
    let mut addresses = (host, url.port().unwrap_or(6379)).to_socket_addrs()?;
    addresses.next().with_context(|| format!("{host} has no address"))
}

/// The same URL, through a proxy.
pub(crate) fn through(proxy: &LossyProxy, url: &str) -> Result<String> {
    let mut url = Url::parse(url)?;
    url.set_ip_host(proxy.address().ip()).ok().context("the URL takes no host")?;
    url.set_port(Some(proxy.address().port())).ok().context("the URL takes no port")?;
    Ok(url.into())
}

/// Asks again and again until the answer is there; for what a server does in its own time.
pub(crate) async fn eventually<T, F: Future<Output = Option<T>>>(
    what: &str,
    limit: Duration,
    mut ask: impl FnMut() -> F,
) -> T {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(Instant::now() < deadline, "after {limit:?} it is still not so: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A plain connection, past the store.
pub(crate) async fn plain(url: &str) -> Result<redis::aio::MultiplexedConnection> {
    Ok(redis::Client::open(url)?.get_multiplexed_async_connection().await?)
}

/// Writes over `expected`, or panics.
pub(crate) async fn write(
    store: &RedisStore,
    circuit: &str,
    expected: Option<&Version>,
    value: &[u8],
) -> Receipt {
    match store.swap(circuit, expected, value, None).await {
        Ok(Swapped::Stored(receipt)) => receipt,
        other => panic!("a swap of {circuit:?} on {expected:?} was to be stored: {other:?}"),
    }
}

/// The value that is stored, or `None`.
pub(crate) async fn value(store: &RedisStore, circuit: &str) -> Option<Vec<u8>> {
    match store.load(circuit).await {
        Ok(loaded) => loaded.entry.map(|entry| entry.value),
        Err(error) => panic!("a load of {circuit:?} failed: {error}"),
    }
}

/// A handle whose first swap loses its answer: it tells the proxies which request it is.
///
/// It is known by the key, as other handles may use the same proxies.
pub(crate) struct LosingOneAnswer {
    pub(crate) store: RedisStore,
    pub(crate) proxies: Arc<Vec<LossyProxy>>,
    pub(crate) is_armed: std::sync::atomic::AtomicBool,
}

impl LosingOneAnswer {
    pub(crate) fn new(store: RedisStore, proxies: Arc<Vec<LossyProxy>>) -> Self {
        Self { store, proxies, is_armed: true.into() }
    }
}

#[async_trait::async_trait]
impl Store for LosingOneAnswer {
    async fn load(&self, circuit: &str) -> Result<Loaded, StoreError> {
        self.store.load(circuit).await
    }

    async fn swap(
        &self,
        circuit: &str,
        expected: Option<&Version>,
        value: &[u8],
        ttl: Option<Duration>,
    ) -> Result<Swapped, StoreError> {
        if !self.is_armed.swap(false, std::sync::atomic::Ordering::SeqCst) {
            return self.store.swap(circuit, expected, value, ttl).await;
        }
        let lost = || self.proxies.iter().map(LossyProxy::lost).sum::<usize>();
        let before = lost();
        for proxy in self.proxies.iter() {
            proxy.lose_answer_to(self.store.key(circuit));
        }
        let answer = self.store.swap(circuit, expected, value, ttl).await;
        for proxy in self.proxies.iter() {
            proxy.lose_nothing();
        }
        assert_eq!(lost(), before + 1, "the proxy was to lose one answer");
        answer
    }

    async fn watch(&self) -> Result<Option<Watch>, StoreError> {
        self.store.watch().await
    }

    async fn announce(&self, circuit: &str) -> Result<(), StoreError> {
        self.store.announce(circuit).await
    }
}
