//! The adapter passes the suite that every store passes, on a real Redis and on connections that lose answers.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use circuitry_store::conformance::{Harness, LossyProxy, conformance_tests};
use circuitry_store::{Loaded, Store, StoreError, Swapped, Version};

use crate::adapter::{Adapter, Setup};
use crate::servers::{address_of, own_name, redis_url};

struct RedisHarness {
    setup: Setup,
    /// Keeps the way open for as long as the rule runs.
    proxies: Mutex<Vec<Arc<LossyProxy>>>,
}

impl RedisHarness {
    fn new() -> Self {
        Self { setup: Setup::new(&redis_url(), &format!("{}:", own_name())), proxies: Mutex::default() }
    }

    async fn open_through_proxy(&self) -> (Adapter, Arc<LossyProxy>) {
        let proxy = LossyProxy::start(address_of(&self.setup.redis_url)).await.expect("a free port");
        let mut url = url::Url::parse(&self.setup.redis_url).expect("a URL");
        url.set_ip_host(proxy.address().ip()).expect("a URL with a host");
        url.set_port(Some(proxy.address().port())).expect("a URL with a port");
        let setup = Setup { redis_url: url.into(), ..self.setup.clone() };
        let proxy = Arc::new(proxy);
        self.proxies.lock().expect("no rule has panicked").push(proxy.clone());
        (setup.start().await, proxy)
    }
}

#[async_trait::async_trait]
impl Harness for RedisHarness {
    async fn open(&self) -> Arc<dyn Store> {
        Arc::new(self.setup.start().await)
    }

    async fn wait_ms(&self, ms: u64) {
        tokio::time::sleep(Duration::from_millis(ms)).await;
    }

    async fn open_unreachable(&self) -> Arc<dyn Store> {
        let (adapter, proxy) = self.open_through_proxy().await;
        adapter.load("while there is a connection").await.expect("a Redis that answers");
        proxy.refuse().await;
        // As with the host's adapter: the first request after a loss may be the one that finds it out.
        adapter.load("the connection is lost").await.expect_err("there is no connection");
        Arc::new(adapter)
    }

    async fn open_losing_answer(&self) -> Arc<dyn Store> {
        let (adapter, proxy) = self.open_through_proxy().await;
        Arc::new(Losing {
            has_lost: AtomicBool::new(false),
            prefix: self.setup.prefix.clone(),
            proxy,
            adapter,
        })
    }
}

/// A handle whose first swap loses its answer.
struct Losing {
    has_lost: AtomicBool,
    prefix: String,
    proxy: Arc<LossyProxy>,
    adapter: Adapter,
}

#[async_trait::async_trait]
impl Store for Losing {
    async fn load(&self, circuit: &str) -> Result<Loaded, StoreError> {
        self.adapter.load(circuit).await
    }

    async fn swap(
        &self,
        circuit: &str,
        expected: Option<&Version>,
        value: &[u8],
        ttl: Option<Duration>,
    ) -> Result<Swapped, StoreError> {
        if self.has_lost.swap(true, Ordering::SeqCst) {
            return self.adapter.swap(circuit, expected, value, ttl).await;
        }
        let before = self.proxy.lost();
        self.proxy.lose_answer_to([&self.prefix, circuit].concat());
        let answer = self.adapter.swap(circuit, expected, value, ttl).await;
        self.proxy.lose_nothing();
        assert_eq!(self.proxy.lost(), before + 1, "the proxy was to lose one answer");
        answer
    }
}

conformance_tests!(RedisHarness::new());
