//! A Redis Cluster of a test's own: three masters, and replicas if asked for.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use circuitry_store::conformance::LossyProxy;

use super::eventually;
use super::process::{ServerProcess, free_port};

const SLOTS: u16 = 16_384;
const MASTERS: u16 = 3;

pub(crate) struct TestCluster {
    /// Three masters, then the replicas.
    pub(crate) nodes: Vec<ServerProcess>,
    /// One before each node. The nodes tell clients the proxies' addresses, so all clients pass through them.
    pub(crate) proxies: Arc<Vec<LossyProxy>>,
}

impl TestCluster {
    pub(crate) async fn start(replicas: usize) -> Result<Self> {
        Self::start_with(replicas, &[]).await
    }

    /// Starts nodes with more arguments.
    pub(crate) async fn start_with(replicas: usize, more: &[&str]) -> Result<Self> {
        let (mut nodes, mut proxies) = (Vec::new(), Vec::new());
        for _ in 0..usize::from(MASTERS) + replicas {
            let (node, proxy) = start_node(more).await?;
            nodes.push(node);
            proxies.push(proxy);
        }
        let cluster = Self { nodes, proxies: Arc::new(proxies) };
        cluster.form().await?;
        Ok(cluster)
    }

    /// Adds a node without slots, and waits until it takes part.
    pub(crate) async fn join(&mut self) -> Result<()> {
        let (node, proxy) = start_node(&[]).await?;
        self.introduce(&self.nodes[0], &node).await?;
        self.nodes.push(node);
        Arc::get_mut(&mut self.proxies).context("the proxies are in use")?.push(proxy);
        self.until_known_to_all().await;
        self.until_it_is_up().await;
        Ok(())
    }

    async fn form(&self) -> Result<()> {
        let (masters, replicas) = self.nodes.split_at(usize::from(MASTERS));
        for (index, node) in (0..).zip(masters) {
            let (first, last) = (SLOTS / MASTERS * index, SLOTS / MASTERS * (index + 1) - 1);
            let last = if index + 1 == MASTERS { SLOTS - 1 } else { last };
            let slots = ["CLUSTER", "ADDSLOTSRANGE", &first.to_string(), &last.to_string()];
            node.run::<String>(&slots).await?;
        }
        // Different epochs from the start, or two masters settle who yields in the middle of a test.
        for (epoch, node) in (1..).zip(&self.nodes) {
            node.run::<String>(&["CLUSTER", "SET-CONFIG-EPOCH", &epoch.to_string()]).await?;
        }
        for node in &self.nodes[1..] {
            self.introduce(&self.nodes[0], node).await?;
        }
        self.until_known_to_all().await;
        let first = self.nodes[0].run::<String>(&["CLUSTER", "MYID"]).await?;
        for replica in replicas {
            replica.run::<String>(&["CLUSTER", "REPLICATE", &first]).await?;
        }
        self.until_it_is_up().await;
        for replica in replicas {
            eventually("the replica follows", Duration::from_secs(20), || async {
                let info: String = replica.run(&["INFO", "replication"]).await.ok()?;
                info.contains("master_link_status:up").then_some(())
            })
            .await;
        }
        Ok(())
    }

    /// Lets `known` meet `new`.
    pub(crate) async fn introduce(&self, known: &ServerProcess, new: &ServerProcess) -> Result<()> {
        let bus_port: Vec<String> = new.run(&["CONFIG", "GET", "cluster-port"]).await?;
        let meet = ["CLUSTER", "MEET", "127.0.0.1", &new.port.to_string(), &bus_port[1]];
        known.run::<String>(&meet).await?;
        Ok(())
    }

    async fn until_known_to_all(&self) {
        let count = format!("cluster_known_nodes:{}", self.nodes.len());
        eventually("all nodes know each other", Duration::from_secs(20), || self.all_say(&count)).await;
    }

    async fn until_it_is_up(&self) {
        eventually("the cluster is up", Duration::from_secs(20), || self.all_say("cluster_state:ok")).await;
    }

    async fn all_say(&self, line: &str) -> Option<()> {
        for node in &self.nodes {
            let info: String = node.run(&["CLUSTER", "INFO"]).await.ok()?;
            if !info.lines().any(|said| said.trim() == line) {
                return None;
            }
        }
        Some(())
    }

    /// The URLs of the masters, through the proxies.
    pub(crate) fn urls(&self) -> Vec<String> {
        self.proxies.iter().map(|proxy| format!("redis://{}", proxy.address())).collect()
    }

    /// Which node a key belongs to, as all nodes were told in the beginning.
    pub(crate) async fn home_of(&self, key: &str) -> Result<usize> {
        let slot = self.slot_of(key).await?;
        Ok(usize::from((slot / (SLOTS / MASTERS)).min(MASTERS - 1)))
    }

    pub(crate) async fn slot_of(&self, key: &str) -> Result<u16> {
        self.nodes[0].run(&["CLUSTER", "KEYSLOT", key]).await
    }
}

/// Starts a node that belongs to no cluster yet, and the proxy whose address it tells clients.
async fn start_node(more: &[&str]) -> Result<(ServerProcess, LossyProxy)> {
    let (port, bus_port) = (free_port()?, free_port()?);
    let proxy = LossyProxy::start((Ipv4Addr::LOCALHOST, port).into()).await?;
    let (announced, bus) = (proxy.address().port().to_string(), bus_port.to_string());
    let arguments = [
        ["--cluster-enabled", "yes"],
        ["--cluster-port", &bus],
        ["--cluster-announce-ip", "127.0.0.1"],
        ["--cluster-announce-port", &announced],
        ["--cluster-announce-bus-port", &bus],
        ["--cluster-node-timeout", "1000"],
        ["--appendonly", "no"],
    ];
    let arguments = arguments.as_flattened().iter().chain(more);
    Ok((ServerProcess::start_on(port, arguments).await?, proxy))
}
