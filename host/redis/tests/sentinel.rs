//! The store behind real sentinels.

mod support;

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use circuitry_redis::RedisStore;
use circuitry_store::conformance::{Harness, LossyProxy, run_all};
use circuitry_store::{Store, StoreError, Swapped};
use support::process::ServerProcess;
use support::sentinel::{MASTER, Watched, start_sentinel};
use support::{
    LosingOneAnswer, PERMISSIONS, SENTINEL_PERMISSIONS, address_of, eventually, own_prefix, own_store, value,
    write,
};
use tokio::time::Instant;

const SOON: Duration = Duration::from_secs(10);
/// The sentinels wait half a second before they call a server down, and then elect one that replaces it.
const FAILOVER: Duration = Duration::from_secs(40);
const TIMEOUT: Duration = Duration::from_millis(300);

/// One sentinel that knows the master by the address of a proxy.
struct SentinelHarness {
    sentinel: String,
    proxies: Arc<Vec<LossyProxy>>,
    prefix: String,
}

impl SentinelHarness {
    async fn store(&self) -> RedisStore {
        let builder = RedisStore::builder().prefix(&self.prefix);
        builder.connect_sentinel([&self.sentinel], MASTER).await.expect("the sentinel knows the master")
    }
}

#[async_trait::async_trait]
impl Harness for SentinelHarness {
    async fn open(&self) -> Arc<dyn Store> {
        Arc::new(self.store().await)
    }

    async fn wait_ms(&self, ms: u64) {
        tokio::time::sleep(Duration::from_millis(ms)).await;
    }

    async fn open_unreachable(&self) -> Arc<dyn Store> {
        // The sentinel answers, and there is no such master.
        let store = RedisStore::builder().lazy().connect_sentinel([&self.sentinel], "nobody").await;
        Arc::new(store.expect("a lazy store connects to nothing"))
    }

    async fn open_losing_answer(&self) -> Arc<dyn Store> {
        Arc::new(LosingOneAnswer::new(self.store().await, Arc::clone(&self.proxies)))
    }

    async fn open_apart(&self) -> Option<Arc<dyn Store>> {
        let store = own_store().connect_sentinel([&self.sentinel], MASTER).await;
        Some(Arc::new(store.expect("the sentinel knows the master")))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn it_passes_the_conformance_suite() -> Result<()> {
    let server = ServerProcess::start::<&str>([]).await?;
    let proxy = LossyProxy::start(address_of(&server.url())?).await?;
    let sentinel = start_sentinel(proxy.address().port(), 1, &[]).await?;
    let proxies = Arc::new(vec![proxy]);
    run_all(async || SentinelHarness {
        sentinel: sentinel.url(),
        proxies: Arc::clone(&proxies),
        prefix: own_prefix(),
    })
    .await;
    Ok(())
}

/// Everything that was written is on the replica, so that a failover loses none of it.
async fn until_replicated(watched: &Watched) {
    eventually("the replica has all", SOON, || async {
        let info: String = watched.master.run(&["INFO", "replication"]).await.ok()?;
        let written =
            info.lines().find_map(|line| line.strip_prefix("master_repl_offset:"))?.trim().to_owned();
        info.contains(&format!("offset={written},")).then_some(())
    })
    .await;
}

fn number(value: &[u8]) -> u64 {
    u64::from_be_bytes(value.try_into().expect("8 bytes"))
}

/// Counts one up, whatever comes in between, and tells whether it had to find out what became of a write.
async fn count_up(store: &RedisStore) -> u64 {
    let deadline = Instant::now() + FAILOVER;
    let mut doubted = None;
    loop {
        assert!(Instant::now() < deadline, "after {FAILOVER:?} nothing can be counted");
        let Ok(loaded) = store.load("count").await else { continue };
        let known = loaded.entry;
        let now = known.as_ref().map_or(0, |entry| number(&entry.value));
        if doubted == Some(now) {
            return now;
        }
        let next = now + 1;
        match store.swap("count", known.as_ref().map(|entry| &entry.version), &next.to_be_bytes(), None).await
        {
            Ok(Swapped::Stored(_)) => return next,
            Err(StoreError::Unknown { .. }) => doubted = Some(next),
            // Nobody else counts: this is our own write of before, seen late.
            Ok(Swapped::Conflict(_)) | Err(StoreError::Unavailable { .. }) => {}
            Err(error) => panic!("counting failed: {error}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_failover_the_store_writes_to_the_new_master_and_no_update_is_lost() -> Result<()> {
    let mut watched = Watched::start(&[], &[]).await?;
    let store = own_store().operation_timeout(TIMEOUT).connect_sentinel(watched.urls(), MASTER).await?;
    for expected in 1..=20 {
        assert_eq!(count_up(&store).await, expected);
    }
    let kept = write(&store, "kept", None, b"replicated").await;
    until_replicated(&watched).await;

    watched.master.kill()?;
    let swapped = store.swap("kept", Some(&kept.version), b"never", None).await;
    assert!(
        matches!(swapped, Err(StoreError::Unavailable { .. } | StoreError::Unknown { .. })),
        "there is no master: {swapped:?}"
    );
    for expected in 21..=40 {
        assert_eq!(count_up(&store).await, expected, "an update is lost or counted twice");
    }
    let role: (String, i64, Vec<redis::Value>) = watched.replica.run(&["ROLE"]).await?;
    assert_eq!(role.0, "master", "the replica was promoted");
    let entry = store.load("kept").await?.entry.context("a replicated entry is there after the failover")?;
    assert_eq!((entry.value.as_slice(), &entry.version), (&b"replicated"[..], &kept.version));
    write(&store, "kept", Some(&kept.version), b"after").await;

    // The old master comes back, still a master until the sentinels have got round to it, and nobody writes to it.
    watched.master.restart().await?;
    assert_eq!(count_up(&store).await, 41);
    Ok(())
}

/// A frozen master holds its connections; the store must not wait on them when another one has taken over.
#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_master_is_left_for_the_new_one_and_a_demoted_one_too() -> Result<()> {
    let watched = Watched::start(&[], &[]).await?;
    let store = own_store().operation_timeout(TIMEOUT).connect_sentinel(watched.urls(), MASTER).await?;
    assert_eq!(count_up(&store).await, 1);
    until_replicated(&watched).await;
    watched.master.freeze()?;
    assert_eq!(count_up(&store).await, 2);
    let on_the_new_one: i64 = watched.replica.run(&["EXISTS", &store.key("count")]).await?;
    assert_eq!(on_the_new_one, 1);
    watched.master.thaw()?;

    // Back again, by order: the store is connected to a server that is a replica from one moment to the next.
    eventually("the old master is a replica", FAILOVER, || async {
        let info: String = watched.master.run(&["INFO", "replication"]).await.ok()?;
        info.contains("master_link_status:up").then_some(())
    })
    .await;
    eventually("the sentinel fails over by order", FAILOVER, || async {
        watched.sentinels[0].run::<String>(&["SENTINEL", "FAILOVER", MASTER]).await.ok()
    })
    .await;
    eventually("the old master is master again", FAILOVER, || async {
        let info: String = watched.master.run(&["INFO", "replication"]).await.ok()?;
        info.contains("role:master").then_some(())
    })
    .await;
    eventually("the store writes to it", FAILOVER, || async {
        count_up(&store).await;
        let written: Option<Vec<u8>> =
            watched.master.run(&["HGET", &store.key("count"), "value"]).await.ok()?;
        let seen = store.load("count").await.ok()?.entry?.value;
        (written.as_ref() == Some(&seen)).then_some(())
    })
    .await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn sentinels_and_servers_have_logins_of_their_own() -> Result<()> {
    let server = ServerProcess::start(["--requirepass", "data-s3cret"]).await?;
    let with_login = format!("sentinel auth-pass {MASTER} data-s3cret\nrequirepass sentinel-s3cret");
    let sentinel = start_sentinel(server.port, 1, &[&with_login]).await?;
    let url = |login: &str| format!("redis://{login}127.0.0.1:{}", sentinel.port);
    let connect = |sentinel_login: &str, data_nodes: Option<&str>| {
        let builder = match data_nodes {
            Some(url) => own_store().data_nodes(url),
            None => own_store(),
        };
        let url = url(sentinel_login);
        async move { builder.connect_sentinel([url], MASTER).await }
    };
    let store = connect(":sentinel-s3cret@", Some("redis://:data-s3cret@any/3")).await?;
    write(&store, "circuit", None, b"1").await;
    let in_database_3 = "redis://:data-s3cret@127.0.0.1:".to_owned() + &format!("{}/3", server.port);
    let direct = RedisStore::builder().prefix(store.key("")).connect(&in_database_3).await?;
    assert_eq!(value(&direct, "circuit").await.as_deref(), Some(&b"1"[..]));

    for (sentinel_login, data_nodes) in [
        (":wrong@", Some("redis://:data-s3cret@any")),
        ("", Some("redis://:data-s3cret@any")),
        (":sentinel-s3cret@", Some("redis://:wrong@any")),
        (":sentinel-s3cret@", None),
    ] {
        match connect(sentinel_login, data_nodes).await {
            Err(error @ StoreError::Denied { .. }) => {
                assert!(!error.to_string().contains("s3cret"), "{error}")
            }
            other => panic!("sentinel {sentinel_login:?}, servers {data_nodes:?}: {other:?}"),
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn behind_sentinels_a_user_needs_one_permission_more() -> Result<()> {
    let server = ServerProcess::start::<&str>([]).await?;
    let sentinel = start_sentinel(server.port, 1, &[]).await?;
    let granted = [PERMISSIONS, " ", SENTINEL_PERMISSIONS].concat();
    let user = ["ACL", "SETUSER", "worker", "on", ">s3cret", "~circuitry:*"];
    server.run::<String>(&user.into_iter().chain(granted.split(' ')).collect::<Vec<_>>()).await?;
    let builder = RedisStore::builder().data_nodes("redis://worker:s3cret@any");
    let store = builder.connect_sentinel([sentinel.url()], MASTER).await?;
    assert_eq!(store.load("circuit").await?.entry, None);
    write(&store, "circuit", None, b"1").await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_no_sentinel_knows_is_told_and_one_sentinel_that_is_up_is_enough() -> Result<()> {
    let server = ServerProcess::start::<&str>([]).await?;
    let sentinel = start_sentinel(server.port, 1, &[]).await?;
    match RedisStore::builder().connect_sentinel([sentinel.url()], "typo").await {
        Err(error @ StoreError::Unavailable { .. }) => {
            assert!(error.to_string().contains("\"typo\""), "{error}")
        }
        other => panic!("nobody knows it: {other:?}"),
    }
    let nobody = format!("redis://127.0.0.1:{}", support::process::free_port()?);
    let store = own_store().connect_sentinel([&nobody, &sentinel.url()], MASTER).await?;
    write(&store, "circuit", None, b"1").await;

    // A server that is no sentinel says so.
    match RedisStore::builder().connect_sentinel([server.url()], MASTER).await {
        Err(error) => assert!(error.to_string().contains("sentinel"), "{error}"),
        Ok(_) => panic!("a plain server was taken for a sentinel"),
    }
    Ok(())
}
