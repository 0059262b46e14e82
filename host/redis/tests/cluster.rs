//! The store on a real Redis Cluster.

mod support;

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use circuitry_redis::{RedisStore, RedisStoreBuilder};
use circuitry_store::conformance::{Harness, run_all};
use circuitry_store::{Store, StoreError, Swapped};
use support::cluster::TestCluster;
use support::process::ServerProcess;
use support::{
    CLUSTER_PERMISSIONS, LosingOneAnswer, PERMISSIONS, eventually, own_prefix, own_store, value, write,
};
use tokio::time::Instant;

const SOON: Duration = Duration::from_secs(10);

struct ClusterHarness {
    cluster: Arc<TestCluster>,
    prefix: String,
}

impl ClusterHarness {
    async fn store(&self) -> RedisStore {
        let builder = RedisStore::builder().prefix(&self.prefix);
        builder.connect_cluster(self.cluster.urls()).await.expect("the cluster is there")
    }
}

#[async_trait::async_trait]
impl Harness for ClusterHarness {
    async fn open(&self) -> Arc<dyn Store> {
        Arc::new(self.store().await)
    }

    async fn wait_ms(&self, ms: u64) {
        tokio::time::sleep(Duration::from_millis(ms)).await;
    }

    async fn open_unreachable(&self) -> Arc<dyn Store> {
        let nobody = support::process::free_port().expect("there is a free port");
        let builder = RedisStore::builder().lazy();
        let store = builder.connect_cluster([format!("redis://127.0.0.1:{nobody}")]).await;
        Arc::new(store.expect("a lazy store connects to nothing"))
    }

    async fn open_losing_answer(&self) -> Arc<dyn Store> {
        Arc::new(LosingOneAnswer::new(self.store().await, Arc::clone(&self.cluster.proxies)))
    }

    async fn open_apart(&self) -> Option<Arc<dyn Store>> {
        let store = own_store().connect_cluster(self.cluster.urls()).await;
        Some(Arc::new(store.expect("the cluster is there")))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn it_passes_the_conformance_suite() -> Result<()> {
    let cluster = Arc::new(TestCluster::start(0).await?);
    run_all(async || ClusterHarness { cluster: Arc::clone(&cluster), prefix: own_prefix() }).await;
    Ok(())
}

/// A circuit whose key lies on this node.
async fn circuit_on(cluster: &TestCluster, store: &RedisStore, node: usize) -> Result<String> {
    for number in 0.. {
        let circuit = format!("circuit {number}");
        if cluster.home_of(&store.key(&circuit)).await? == node {
            return Ok(circuit);
        }
    }
    unreachable!("a third of all names lies on each node")
}

async fn connect(cluster: &TestCluster, builder: RedisStoreBuilder) -> Result<RedisStore> {
    Ok(builder.connect_cluster(cluster.urls()).await?)
}

#[tokio::test(flavor = "multi_thread")]
async fn circuits_lie_on_all_nodes_and_braces_only_choose_the_node() -> Result<()> {
    let cluster = TestCluster::start(0).await?;
    // One node is enough to begin with; the others are learned.
    let store = own_store().connect_cluster(&cluster.urls()[1..2]).await?;
    for node in 0..3 {
        let circuit = circuit_on(&cluster, &store, node).await?;
        write(&store, &circuit, None, b"1").await;
        let keys: i64 = cluster.nodes[node].run(&["EXISTS", &store.key(&circuit)]).await?;
        assert_eq!(keys, 1, "{circuit} is on node {node}");
    }
    let homes = [cluster.slot_of(&store.key("{a}1")).await?, cluster.slot_of(&store.key("{a}2")).await?];
    assert_eq!(homes[0], homes[1]);
    write(&store, "{a}1", None, b"1").await;
    assert_eq!(store.load("{a}2").await?.entry, None, "they are two circuits all the same");
    Ok(())
}

/// Moves a slot in the way that `redis-cli --cluster reshard` does, and uses a circuit of it all the while.
#[tokio::test(flavor = "multi_thread")]
async fn a_circuit_is_followed_while_its_slot_moves_to_another_node() -> Result<()> {
    let cluster = TestCluster::start(0).await?;
    let store = connect(&cluster, own_store()).await?;
    let circuit = circuit_on(&cluster, &store, 0).await?;
    let (key, slot) = (store.key(&circuit), cluster.slot_of(&store.key(&circuit)).await?.to_string());
    let (from, to) = (&cluster.nodes[0], &cluster.nodes[1]);
    let ids: [String; 2] = [from.run(&["CLUSTER", "MYID"]).await?, to.run(&["CLUSTER", "MYID"]).await?];
    // A slot with nothing in it begins to move: what is created now is created there (ASK).
    to.run::<String>(&["CLUSTER", "SETSLOT", &slot, "IMPORTING", &ids[0]]).await?;
    from.run::<String>(&["CLUSTER", "SETSLOT", &slot, "MIGRATING", &ids[1]]).await?;
    assert_eq!(store.load(&circuit).await?.entry, None);
    let first = write(&store, &circuit, None, b"1").await;
    assert_eq!(
        from.run::<i64>(&["CLUSTER", "COUNTKEYSINSLOT", &slot]).await?,
        0,
        "it was created on the other node"
    );
    assert_eq!(value(&store, &circuit).await.as_deref(), Some(&b"1"[..]));
    let second = write(&store, &circuit, Some(&first.version), b"2").await;
    let conflict = store.swap(&circuit, Some(&first.version), b"late", None).await?;
    assert!(matches!(conflict, Swapped::Conflict(_)), "{conflict:?}");

    // The slot has moved: MOVED.
    for node in [to, from, &cluster.nodes[2]] {
        node.run::<String>(&["CLUSTER", "SETSLOT", &slot, "NODE", &ids[1]]).await?;
    }
    write(&store, &circuit, Some(&second.version), b"3").await;
    assert_eq!(value(&store, &circuit).await.as_deref(), Some(&b"3"[..]));
    let on_the_new_one: i64 = to.run(&["EXISTS", &key]).await?;
    assert_eq!(on_the_new_one, 1);
    Ok(())
}

/// The new node has no slots yet, so the client knows nothing of it.
#[tokio::test(flavor = "multi_thread")]
async fn a_circuit_is_followed_to_a_node_that_has_just_joined() -> Result<()> {
    let mut cluster = TestCluster::start(0).await?;
    let store = connect(&cluster, own_store()).await?;
    cluster.join().await?;
    let joined = &cluster.nodes[3];
    let circuit = circuit_on(&cluster, &store, 0).await?;
    let slot = cluster.slot_of(&store.key(&circuit)).await?.to_string();
    let ids: [String; 2] =
        [cluster.nodes[0].run(&["CLUSTER", "MYID"]).await?, joined.run(&["CLUSTER", "MYID"]).await?];
    joined.run::<String>(&["CLUSTER", "SETSLOT", &slot, "IMPORTING", &ids[0]]).await?;
    cluster.nodes[0].run::<String>(&["CLUSTER", "SETSLOT", &slot, "MIGRATING", &ids[1]]).await?;
    let receipt = write(&store, &circuit, None, b"1").await;
    write(&store, &circuit, Some(&receipt.version), b"2").await;
    assert_eq!(cluster.nodes[0].run::<i64>(&["CLUSTER", "COUNTKEYSINSLOT", &slot]).await?, 0);
    Ok(())
}

/// A node that stands still is failed over by the cluster; the circuits of the others do not wait for that.
#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_node_is_left_for_its_replica_and_other_circuits_go_on_meanwhile() -> Result<()> {
    let cluster = TestCluster::start(1).await?;
    for node in &cluster.nodes {
        // Otherwise the cluster itself takes nothing any more until all slots are served again.
        node.run::<String>(&["CONFIG", "SET", "cluster-require-full-coverage", "no"]).await?;
    }
    let timeout = Duration::from_millis(300);
    let store = connect(&cluster, own_store().operation_timeout(timeout)).await?;
    let (sick, well) = (circuit_on(&cluster, &store, 0).await?, circuit_on(&cluster, &store, 1).await?);
    let sick_before = write(&store, &sick, None, b"1").await;
    let mut well_version = write(&store, &well, None, b"1").await.version;
    until_replicated(&cluster.nodes[0]).await;

    cluster.nodes[0].freeze()?;
    let begun = Instant::now();
    let mut waits = Vec::new();
    let sick_after = loop {
        assert!(begun.elapsed() < Duration::from_secs(30), "the replica's place is not found");
        if let Ok(loaded) = store.load(&sick).await {
            break loaded.entry;
        }
        let asked = Instant::now();
        well_version = write(&store, &well, Some(&well_version), b"2").await.version;
        waits.push(asked.elapsed());
    };
    assert!(!waits.is_empty(), "the frozen node answered");
    assert!(waits.iter().all(|wait| *wait < timeout), "others waited too: {waits:?}");
    let entry = sick_after.expect("the replica has it");
    assert_eq!(entry.version, sick_before.version);
    write(&store, &sick, Some(&entry.version), b"2").await;
    cluster.nodes[0].thaw()?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_node_is_left_for_its_replica() -> Result<()> {
    let mut cluster = TestCluster::start(1).await?;
    let store = connect(&cluster, own_store().operation_timeout(Duration::from_millis(300))).await?;
    let circuit = circuit_on(&cluster, &store, 0).await?;
    let before = write(&store, &circuit, None, b"1").await;
    until_replicated(&cluster.nodes[0]).await;

    cluster.nodes[0].kill()?;
    let swapped = store.swap(&circuit, Some(&before.version), b"2", None).await;
    assert!(
        matches!(swapped, Err(StoreError::Unavailable { .. } | StoreError::Unknown { .. })),
        "nobody can write it now: {swapped:?}"
    );
    let entry = eventually("the replica took over", Duration::from_secs(30), || async {
        store.load(&circuit).await.ok()?.entry
    })
    .await;
    assert_eq!(
        entry.version, before.version,
        "the swap that failed was not carried out, and the entry is there"
    );
    let swapped = eventually("the replica can be written", Duration::from_secs(30), || async {
        store.swap(&circuit, Some(&entry.version), b"3", None).await.ok()
    })
    .await;
    assert!(matches!(swapped, Swapped::Stored(_)), "{swapped:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_that_is_gone_is_unavailable_and_is_used_again_when_it_is_back() -> Result<()> {
    let cluster = TestCluster::start(0).await?;
    let store = connect(&cluster, own_store().operation_timeout(Duration::from_millis(300))).await?;
    let first = write(&store, "circuit", None, b"1").await;
    for proxy in cluster.proxies.iter() {
        proxy.refuse().await;
    }
    for attempt in 0..5 {
        let loaded = store.load("circuit").await;
        assert!(matches!(loaded, Err(StoreError::Unavailable { .. })), "{loaded:?}");
        let swapped = store.swap("circuit", Some(&first.version), b"2", None).await;
        assert!(matches!(swapped, Err(StoreError::Unavailable { .. })), "attempt {attempt}: {swapped:?}");
    }
    for proxy in cluster.proxies.iter() {
        proxy.resume().await;
    }
    eventually("it works again", SOON, || async { store.load("circuit").await.ok() }).await;
    write(&store, "circuit", Some(&first.version), b"3").await;
    Ok(())
}

/// The cluster client would send it again by itself, and count it twice.
#[tokio::test(flavor = "multi_thread")]
async fn a_swap_whose_answer_or_request_is_lost_is_unknown_and_counted_once() -> Result<()> {
    const RUNS: u64 = 200;
    let cluster = TestCluster::start(0).await?;
    let store = connect(&cluster, own_store()).await?;
    let proxy = &cluster.proxies[cluster.home_of(&store.key("count")).await?];
    let number = |bytes: &[u8]| u64::from_be_bytes(bytes.try_into().expect("8 bytes"));
    let mut unknown = 0;
    for run in 1..=RUNS {
        let known =
            eventually("a load answers", SOON, || async { store.load("count").await.ok() }).await.entry;
        assert_eq!(known.as_ref().map_or(0, |entry| number(&entry.value)), run - 1, "each run counts once");
        match run % 4 {
            0 => proxy.lose_answer_to("EVALSHA"),
            1 => proxy.lose_request_with("EVALSHA"),
            _ => {}
        }
        let mut known = known;
        loop {
            let swapped = store
                .swap("count", known.as_ref().map(|entry| &entry.version), &run.to_be_bytes(), None)
                .await;
            match swapped {
                Ok(Swapped::Stored(_)) => break,
                Ok(Swapped::Conflict(fresh)) => {
                    panic!("run {run}: nobody else writes, yet there is {fresh:?}")
                }
                Err(StoreError::Unknown { .. }) => unknown += 1,
                Err(StoreError::Unavailable { .. }) => {}
                Err(error) => panic!("run {run}: {error}"),
            }
            known =
                eventually("a load answers", SOON, || async { store.load("count").await.ok() }).await.entry;
            if known.as_ref().is_some_and(|entry| number(&entry.value) == run) {
                break;
            }
        }
    }
    assert!(unknown >= RUNS / 2 - 1, "{unknown} were unknown");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_is_denied_by_a_cluster_too() -> Result<()> {
    let cluster = TestCluster::start(0).await?;
    for node in &cluster.nodes {
        node.run::<String>(&["CONFIG", "SET", "requirepass", "s3cret"]).await?;
    }
    let with = |login: &str| {
        let urls: Vec<_> =
            cluster.urls().iter().map(|url| url.replace("redis://", &format!("redis://{login}"))).collect();
        async move { own_store().connect_cluster(urls).await }
    };
    write(&with(":s3cret@").await?, "circuit", None, b"1").await;
    for login in [":wrong@", ""] {
        let refused = with(login).await;
        assert!(matches!(refused, Err(StoreError::Denied { .. })), "{refused:?}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_cluster_a_user_needs_a_few_permissions_more() -> Result<()> {
    let cluster = TestCluster::start(0).await?;
    let granted = [PERMISSIONS, " ", CLUSTER_PERMISSIONS].concat();
    for node in &cluster.nodes {
        let user = ["ACL", "SETUSER", "worker", "on", ">s3cret", "~circuitry:*"];
        node.run::<String>(&user.into_iter().chain(granted.split(' ')).collect::<Vec<_>>()).await?;
    }
    let urls: Vec<_> =
        cluster.urls().iter().map(|url| url.replace("redis://", "redis://worker:s3cret@")).collect();
    let store = RedisStore::builder().connect_cluster(urls).await?;
    let circuit = circuit_on(&cluster, &store, 0).await?;
    assert_eq!(store.load(&circuit).await?.entry, None);
    let slot = cluster.slot_of(&store.key(&circuit)).await?.to_string();
    let ids: [String; 2] = [
        cluster.nodes[0].run(&["CLUSTER", "MYID"]).await?,
        cluster.nodes[1].run(&["CLUSTER", "MYID"]).await?,
    ];
    cluster.nodes[1].run::<String>(&["CLUSTER", "SETSLOT", &slot, "IMPORTING", &ids[0]]).await?;
    cluster.nodes[0].run::<String>(&["CLUSTER", "SETSLOT", &slot, "MIGRATING", &ids[1]]).await?;
    write(&store, &circuit, None, b"1").await;
    Ok(())
}

/// When it cannot learn the slots, the client of a cluster gives the error of that to all whose answer is not there yet.
#[tokio::test(flavor = "multi_thread")]
async fn a_swap_under_way_is_unknown_when_the_slots_cannot_be_learned_for_another_request() -> Result<()> {
    let cluster = TestCluster::start(0).await?;
    let granted = [PERMISSIONS, " ", CLUSTER_PERMISSIONS].concat();
    for node in &cluster.nodes {
        let user = ["ACL", "SETUSER", "worker", "on", ">s3cret", "~circuitry*"];
        node.run::<String>(&user.into_iter().chain(granted.split(' ')).collect::<Vec<_>>()).await?;
    }
    let urls: Vec<_> =
        cluster.urls().iter().map(|url| url.replace("redis://", "redis://worker:s3cret@")).collect();
    let store = own_store().operation_timeout(SOON).connect_cluster(urls).await?;
    let (circuit, other) = (circuit_on(&cluster, &store, 0).await?, circuit_on(&cluster, &store, 1).await?);
    let first = write(&store, &circuit, None, b"1").await;

    let node = &cluster.nodes[0];
    node.run::<String>(&["CLIENT", "PAUSE", "60000", "WRITE"]).await?;
    let swap = {
        let (store, circuit) = (store.clone(), circuit.clone());
        tokio::spawn(async move { store.swap(&circuit, Some(&first.version), b"2", None).await })
    };
    // How many bytes wait at the server, if a request does.
    let waiting = async || -> Option<u64> {
        let clients: String = node.run(&["CLIENT", "LIST"]).await.ok()?;
        let client = clients.lines().find(|line| line.contains(" flags=b "))?;
        client.split(' ').find_map(|field| field.strip_prefix("qbuf="))?.parse().ok()
    };
    let alone = eventually("the swap waits at the server", SOON, &waiting).await;

    // The slot of the other circuit moves, and nobody is told where to.
    let slot = cluster.slot_of(&store.key(&other)).await?.to_string();
    let id: String = cluster.nodes[2].run(&["CLUSTER", "MYID"]).await?;
    for node in &cluster.nodes {
        node.run::<String>(&["ACL", "SETUSER", "worker", "-cluster|slots"]).await?;
    }
    for node in [&cluster.nodes[2], &cluster.nodes[1]] {
        node.run::<String>(&["CLUSTER", "SETSLOT", &slot, "NODE", &id]).await?;
    }
    let load = {
        let (store, other) = (store.clone(), other.clone());
        tokio::spawn(async move { store.load(&other).await })
    };
    eventually("the slots are asked for behind it", SOON, || async {
        waiting().await.filter(|waiting| *waiting > alone)
    })
    .await;
    node.run::<String>(&["CLIENT", "UNPAUSE"]).await?;
    let (swapped, loaded) = (swap.await?, load.await?);
    assert!(matches!(swapped, Err(StoreError::Unknown { .. })), "{swapped:?}");
    let stored: String = node.run(&["HGET", &store.key(&circuit), "value"]).await?;
    assert_eq!(stored, "2", "it was carried out");
    assert!(matches!(loaded, Err(StoreError::Unavailable { .. })), "{loaded:?}");

    // The client is let go of, which would ask for the slots without a pause.
    let asked = async || -> Result<Vec<String>> {
        let mut asked = Vec::new();
        for node in &cluster.nodes {
            let statistics: String = node.run(&["INFO", "commandstats"]).await?;
            let slots = statistics.lines().find(|line| line.starts_with("cmdstat_cluster|slots:"));
            asked.push(slots.unwrap_or_default().to_owned());
        }
        Ok(asked)
    };
    eventually("nobody asks for the slots any more", SOON, || async {
        let before = asked().await.ok()?;
        tokio::time::sleep(Duration::from_millis(100)).await;
        (before == asked().await.ok()?).then_some(())
    })
    .await;
    let loaded = store.load(&other).await;
    assert!(matches!(loaded, Err(StoreError::Denied { .. })), "it cannot be connected anew: {loaded:?}");
    Ok(())
}

/// What the servers say themselves of a request is told as what it is.
#[tokio::test(flavor = "multi_thread")]
async fn on_a_cluster_too_a_node_that_refuses_a_swap_is_believed() -> Result<()> {
    let cluster = TestCluster::start(0).await?;
    let granted = [PERMISSIONS, " ", CLUSTER_PERMISSIONS].concat();
    for node in &cluster.nodes {
        let user = ["ACL", "SETUSER", "worker", "on", ">s3cret", "~circuitry*"];
        node.run::<String>(&user.into_iter().chain(granted.split(' ')).collect::<Vec<_>>()).await?;
    }
    let urls: Vec<_> =
        cluster.urls().iter().map(|url| url.replace("redis://", "redis://worker:s3cret@")).collect();
    let store = own_store().connect_cluster(urls).await?;
    let first = write(&store, "circuit", None, b"1").await;
    for node in &cluster.nodes {
        node.run::<String>(&["CONFIG", "SET", "maxmemory", "1"]).await?;
    }
    let full = store.swap("circuit", Some(&first.version), b"2", None).await;
    assert!(matches!(full, Err(StoreError::Unavailable { .. })), "{full:?}");
    for node in &cluster.nodes {
        node.run::<String>(&["CONFIG", "SET", "maxmemory", "0"]).await?;
        node.run::<String>(&["ACL", "SETUSER", "worker", "-hset"]).await?;
    }
    let denied = store.swap("circuit", Some(&first.version), b"2", None).await;
    assert!(matches!(denied, Err(StoreError::Denied { .. })), "{denied:?}");
    assert_eq!(value(&store, "circuit").await.as_deref(), Some(&b"1"[..]));
    Ok(())
}

#[tokio::test]
async fn urls_that_are_none_or_differ_are_refused() {
    let refused = |urls: &[&str]| {
        let urls: Vec<String> = urls.iter().map(|url| (*url).to_owned()).collect();
        async move {
            match own_store().lazy().connect_cluster(urls).await {
                Err(error @ StoreError::Other { .. }) => error.to_string(),
                other => panic!("it is to be Other: {other:?}"),
            }
        }
    };
    assert!(refused(&[]).await.contains("name at least one"));
    for other in
        ["redis://:other@b", "rediss://:one@b", "redis://b", "redis://:one@b/2", "redis://:one@b?protocol=2"]
    {
        let message = refused(&["redis://:one@a", other]).await;
        assert!(message.contains("redis://a") && message.contains("differ"), "{message}");
    }
    assert!(refused(&["redis://a", "nonsense"]).await.contains("malformed"));
    assert!(refused(&["unix:/run/redis.sock"]).await.contains("unix socket"));
}

/// Everything that the master has written is on its replica.
async fn until_replicated(master: &ServerProcess) {
    eventually("the replica has all", SOON, || async {
        let info: String = master.run(&["INFO", "replication"]).await.ok()?;
        let written =
            info.lines().find_map(|line| line.strip_prefix("master_repl_offset:"))?.trim().to_owned();
        info.contains(&format!("offset={written},")).then_some(())
    })
    .await;
}
