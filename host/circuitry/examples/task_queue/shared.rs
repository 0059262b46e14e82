//! What the workers share: the jobs and the circuits, in this process or on a Redis server.

use std::sync::Arc;

use anyhow::{Result, anyhow};
use circuitry::{Context, MemoryStore, Store, default_name};
use circuitry_redis::RedisStore;

use crate::queue::{MemoryQueue, Queue, RedisQueue};

/// The circuits' name: each tenant has one of it.
pub(crate) const CIRCUIT: &str = "mail";

/// The jobs and the circuits.
#[derive(Clone)]
pub(crate) struct Shared {
    pub(crate) queue: Arc<dyn Queue>,
    pub(crate) circuits: Arc<dyn Store>,
    redis: Option<(Arc<RedisQueue>, RedisStore)>,
}

impl Shared {
    /// In this process, for its tasks.
    pub(crate) fn in_memory() -> Self {
        let queue = Arc::new(MemoryQueue::default());
        Self { queue, circuits: Arc::new(MemoryStore::new()), redis: None }
    }

    /// On a server, for all processes that name the same run.
    pub(crate) async fn on_redis(url: &str, run: &str) -> Result<Self> {
        let store = RedisStore::builder().prefix(format!("{run}:circuit:")).connect(url).await;
        // The message has its causes in it; as an error with causes it would tell them again.
        let store = store.map_err(|error| anyhow!("{error}"))?;
        let queue = Arc::new(RedisQueue::connect(url, run).await?);
        let redis = Some((queue.clone(), store.clone()));
        Ok(Self { queue, circuits: Arc::new(store), redis })
    }

    /// Leaves nothing of the run on the server.
    pub(crate) async fn remove(&self, tenants: &[String]) -> Result<()> {
        let Some((queue, store)) = &self.redis else { return Ok(()) };
        let circuits =
            tenants.iter().map(|tenant| store.key(&default_name(CIRCUIT, &Context::tenant(tenant))));
        queue.delete(&circuits.collect::<Vec<_>>()).await
    }
}
