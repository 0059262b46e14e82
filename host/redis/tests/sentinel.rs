//! The store behind real sentinels.

mod support;

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use circuitry_redis::RedisStore;
use circuitry_store::Store;
use circuitry_store::conformance::{Harness, LossyProxy, run_all};
use support::process::ServerProcess;
use support::sentinel::{MASTER, start_sentinel};
use support::{LosingOneAnswer, address_of, own_prefix};

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
