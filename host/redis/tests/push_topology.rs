//! Pushes through real clusters, and behind real sentinels.

mod support;

use std::time::Duration;

use anyhow::Result;
use circuitry_redis::RedisStore;
use circuitry_store::{Push, Store, Watch};
use futures_util::{FutureExt, StreamExt};
use support::cluster::TestCluster;
use support::log::Log;
use support::process::ServerProcess;
use support::sentinel::{MASTER, Watched};
use support::{CLUSTER_PERMISSIONS, CLUSTER_PUSH_PERMISSIONS, PERMISSIONS, eventually, own_store};
use tokio::time::{Instant, timeout};

const TIMEOUT: Duration = Duration::from_millis(300);
/// For what comes by itself; sentinels and clusters need some seconds for a failover.
const SOON: Duration = Duration::from_secs(60);

fn changed(circuit: &str) -> Push {
    Push::Changed(circuit.to_owned())
}

async fn watch(store: &RedisStore) -> Watch {
    store.watch().await.expect("a watch never fails").expect("the store pushes")
}

async fn next(watch: &mut Watch) -> Push {
    let push = tokio::time::timeout(SOON, watch.next()).await.expect("a push comes soon");
    push.expect("the watch goes on")
}

/// Announces until it is heard: while the topology changes, a push may be lost, and the watch may say so.
async fn until_heard(watch: &mut Watch, announcer: &RedisStore, circuit: &str) {
    let deadline = Instant::now() + SOON;
    loop {
        assert!(Instant::now() < deadline, "{circuit:?} is announced again and again, and not heard");
        // While nobody is there to take it, it ends within its timeout.
        let _ = announcer.announce(circuit).await;
        if let Ok(push) = timeout(TIMEOUT, watch.next()).await {
            match push.expect("the watch goes on") {
                push if push == changed(circuit) => return,
                push => assert_eq!(push, Push::Missed),
            }
        }
    }
}

async fn sharded_subscribers(node: &ServerProcess, store: &RedisStore) -> Result<i64> {
    let (_, count): (String, i64) = node.run(&["PUBSUB", "SHARDNUMSUB", store.channel()]).await?;
    Ok(count)
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_cluster_pushes_are_sharded_and_go_through_the_node_of_the_channel() -> Result<()> {
    let cluster = TestCluster::start(0).await?;
    let store = own_store().connect_cluster(&cluster.urls()[..1]).await?;
    let other = RedisStore::builder().prefix(store.channel()).connect_cluster(&cluster.urls()[1..]).await?;
    let resp2: Vec<String> = cluster.urls().iter().map(|url| format!("{url}/?protocol=resp2")).collect();
    let resp2 = RedisStore::builder().prefix(store.channel()).connect_cluster(resp2).await?;
    let mut watches = [watch(&store).await, watch(&other).await, watch(&resp2).await];
    let home = cluster.home_of(store.channel()).await?;
    for (index, node) in cluster.nodes.iter().enumerate() {
        assert_eq!(sharded_subscribers(node, &store).await?, if index == home { 3 } else { 0 });
    }
    for announcer in [&store, &other, &resp2] {
        for circuit in ["a", "{b}", "c"] {
            announcer.announce(circuit).await?;
            for watch in &mut watches {
                assert_eq!(next(watch).await, changed(circuit));
            }
        }
    }
    drop(watches);
    eventually("the subscriptions have ended", SOON, || async {
        (sharded_subscribers(&cluster.nodes[home], &store).await.ok()? == 0).then_some(())
    })
    .await;
    Ok(())
}

/// What makes a node as one before Redis 7.
const OLDER: [&str; 6] = ["--rename-command", "SPUBLISH", "", "--rename-command", "SSUBSCRIBE", ""];

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_knows_no_shards_is_used_in_the_plain_way_by_both_sides() -> Result<()> {
    let cluster = TestCluster::start_with(0, &OLDER).await?;
    let store = own_store().connect_cluster(cluster.urls()).await?;
    let other = RedisStore::builder().prefix(store.channel()).connect_cluster(cluster.urls()).await?;
    let mut watch = watch(&store).await;
    for circuit in ["a", "b"] {
        other.announce(circuit).await?;
        assert_eq!(next(&mut watch).await, changed(circuit));
    }
    let home = cluster.home_of(store.channel()).await?;
    cluster.proxies[home].cut();
    assert_eq!(next(&mut watch).await, Push::Missed);
    until_heard(&mut watch, &other, "c").await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscription_follows_its_slot_to_another_node_and_says_that_pushes_may_be_missed() -> Result<()> {
    let cluster = TestCluster::start(0).await?;
    let store = own_store().operation_timeout(TIMEOUT).connect_cluster(cluster.urls()).await?;
    let mut watch = watch(&store).await;
    let slot = cluster.slot_of(store.channel()).await?.to_string();
    let from = cluster.home_of(store.channel()).await?;
    let to = (from + 1) % 3;
    let ids: [String; 2] = [
        cluster.nodes[from].run(&["CLUSTER", "MYID"]).await?,
        cluster.nodes[to].run(&["CLUSTER", "MYID"]).await?,
    ];
    cluster.nodes[to].run::<String>(&["CLUSTER", "SETSLOT", &slot, "IMPORTING", &ids[0]]).await?;
    cluster.nodes[from].run::<String>(&["CLUSTER", "SETSLOT", &slot, "MIGRATING", &ids[1]]).await?;
    // While the slot moves, the channel stays where it was.
    store.announce("meanwhile").await?;
    assert_eq!(next(&mut watch).await, changed("meanwhile"));
    for node in [to, from, (from + 2) % 3] {
        cluster.nodes[node].run::<String>(&["CLUSTER", "SETSLOT", &slot, "NODE", &ids[1]]).await?;
    }
    assert_eq!(next(&mut watch).await, Push::Missed);
    eventually("the subscription is at the new node only", SOON, || async {
        let new = sharded_subscribers(&cluster.nodes[to], &store).await.ok()?;
        let old = sharded_subscribers(&cluster.nodes[from], &store).await.ok()?;
        (new == 1 && old == 0).then_some(())
    })
    .await;
    until_heard(&mut watch, &store, "after").await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscription_at_a_killed_node_goes_over_to_its_replica() -> Result<()> {
    let mut cluster = TestCluster::start(1).await?;
    // The first node is the one with a replica.
    let store = loop {
        let store = own_store().operation_timeout(TIMEOUT).connect_cluster(cluster.urls()).await?;
        if cluster.home_of(store.channel()).await? == 0 {
            break store;
        }
    };
    let mut watch = watch(&store).await;
    store.announce("before").await?;
    assert_eq!(next(&mut watch).await, changed("before"));
    cluster.nodes[0].kill()?;
    assert_eq!(next(&mut watch).await, Push::Missed);
    until_heard(&mut watch, &store, "after").await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_begun_while_the_cluster_is_away_says_missed_when_it_is_back() -> Result<()> {
    let cluster = TestCluster::start(0).await?;
    for proxy in cluster.proxies.iter() {
        proxy.refuse().await;
    }
    let store = own_store().operation_timeout(TIMEOUT).lazy().connect_cluster(cluster.urls()).await?;
    let mut watch = watch(&store).await;
    assert_eq!(watch.next().now_or_never(), None);
    for proxy in cluster.proxies.iter() {
        proxy.resume().await;
    }
    assert_eq!(next(&mut watch).await, Push::Missed);
    until_heard(&mut watch, &store, "circuit").await;
    Ok(())
}

#[tokio::test]
async fn on_a_cluster_the_documented_permissions_are_enough_and_without_them_there_is_one_warning()
-> Result<()> {
    assert!(include_str!("../src/lib.rs").contains(CLUSTER_PUSH_PERMISSIONS));
    let cluster = TestCluster::start(0).await?;
    let set_user = async |more: &str| -> Result<()> {
        let granted = [PERMISSIONS, CLUSTER_PERMISSIONS, more].join(" ");
        for node in &cluster.nodes {
            let user = ["ACL", "SETUSER", "worker", "reset", "on", ">s3cret", "~circuitry:*"];
            let user: Vec<&str> = user.into_iter().chain(granted.split_whitespace()).collect();
            node.run::<String>(&user).await?;
        }
        Ok(())
    };
    let urls: Vec<_> =
        cluster.urls().iter().map(|url| url.replace("redis://", "redis://worker:s3cret@")).collect();
    set_user("").await?;
    let log = Log::begin();
    let store = RedisStore::builder().connect_cluster(urls).await?;
    let mut watch = watch(&store).await;
    for _ in 0..3 {
        store.announce("circuit").await.expect_err("the user may not publish");
    }
    store.load("circuit").await?;
    assert_eq!(log.warnings().len(), 1, "{:?}", log.warnings());
    set_user(&format!("&circuitry: {CLUSTER_PUSH_PERMISSIONS}")).await?;
    assert_eq!(next(&mut watch).await, Push::Missed);
    until_heard(&mut watch, &store, "circuit").await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_failover_behind_sentinels_the_watch_says_missed_and_hears_the_new_master() -> Result<()> {
    let mut watched = Watched::start(&[], &[]).await?;
    let store = own_store().operation_timeout(TIMEOUT).connect_sentinel(watched.urls(), MASTER).await?;
    let mut watch = watch(&store).await;
    store.announce("before").await?;
    assert_eq!(next(&mut watch).await, changed("before"));
    watched.master.kill()?;
    assert_eq!(next(&mut watch).await, Push::Missed);
    until_heard(&mut watch, &store, "after").await;
    let (_, count): (String, i64) = watched.replica.run(&["PUBSUB", "NUMSUB", store.channel()]).await?;
    assert_eq!(count, 1, "it is subscribed at the new master");
    Ok(())
}
