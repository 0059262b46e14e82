//! The store on a real Redis Cluster.

mod support;

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use circuitry_redis::RedisStore;
use circuitry_store::Store;
use circuitry_store::conformance::{Harness, run_all};
use support::cluster::TestCluster;
use support::{LosingOneAnswer, own_prefix};

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
}

#[tokio::test(flavor = "multi_thread")]
async fn it_passes_the_conformance_suite() -> Result<()> {
    let cluster = Arc::new(TestCluster::start(0).await?);
    run_all(async || ClusterHarness { cluster: Arc::clone(&cluster), prefix: own_prefix() }).await;
    Ok(())
}
