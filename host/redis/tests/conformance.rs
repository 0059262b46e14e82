//! The store passes the suite on a real server, and on connections that lose answers.

mod support;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use circuitry_redis::RedisStore;
use circuitry_store::Store;
use circuitry_store::conformance::{Harness, LossyProxy, conformance_tests};
use support::{LosingOneAnswer, address_of, own_prefix, server_url, through};

struct RedisHarness {
    url: String,
    prefix: String,
    /// Keeps the way open for as long as the rule runs.
    proxies: Mutex<Vec<Arc<Vec<LossyProxy>>>>,
}

impl RedisHarness {
    fn new(url: String) -> Self {
        Self { url, prefix: own_prefix(), proxies: Mutex::default() }
    }

    async fn open_through_proxy(&self) -> (RedisStore, Arc<Vec<LossyProxy>>) {
        let address = address_of(&self.url).expect("the server has an address");
        let proxy = LossyProxy::start(address).await.expect("there is a free port");
        let url = through(&proxy, &self.url).expect("the URL can lead through a proxy");
        let store =
            RedisStore::builder().prefix(&self.prefix).connect(&url).await.expect("the server is there");
        let proxies = Arc::new(vec![proxy]);
        self.proxies.lock().expect("no rule has panicked").push(Arc::clone(&proxies));
        (store, proxies)
    }
}

#[async_trait::async_trait]
impl Harness for RedisHarness {
    async fn open(&self) -> Arc<dyn Store> {
        let store = RedisStore::builder().prefix(&self.prefix).connect(&self.url).await;
        Arc::new(store.expect("the server is there"))
    }

    async fn wait_ms(&self, ms: u64) {
        tokio::time::sleep(Duration::from_millis(ms)).await;
    }

    async fn open_unreachable(&self) -> Arc<dyn Store> {
        let (store, proxies) = self.open_through_proxy().await;
        proxies[0].refuse().await;
        // The first request after a loss may be the one that finds it out, and a swap would be unknown then.
        store.load("the connection is lost").await.expect_err("there is no connection");
        Arc::new(store)
    }

    async fn open_losing_answer(&self) -> Arc<dyn Store> {
        let (store, proxies) = self.open_through_proxy().await;
        Arc::new(LosingOneAnswer::new(store, proxies))
    }

    async fn open_apart(&self) -> Option<Arc<dyn Store>> {
        let store = RedisStore::builder().prefix(own_prefix()).connect(&self.url).await;
        Some(Arc::new(store.expect("the server is there")))
    }
}

conformance_tests!(RedisHarness::new(server_url()));

/// The older protocol, which some proxies in front of Redis know only.
mod with_resp2 {
    use super::*;

    fn url() -> String {
        let mut url = url::Url::parse(&server_url()).expect("the URL of the tests is one");
        url.query_pairs_mut().append_pair("protocol", "resp2");
        url.into()
    }

    conformance_tests!(RedisHarness::new(url()));
}

/// A handle on a connection that the user made.
mod on_a_given_connection {
    use redis::aio::ConnectionManagerConfig;

    use super::*;

    struct GivenHarness(RedisHarness);

    impl GivenHarness {
        async fn open_at(&self, url: &str) -> RedisStore {
            let config = ConnectionManagerConfig::new()
                .set_number_of_retries(0)
                .set_response_timeout(Some(Duration::from_millis(500)));
            let client = redis::Client::open(url).expect("the URL of the tests is one");
            let manager =
                client.get_connection_manager_with_config(config).await.expect("the server is there");
            let builder = RedisStore::builder().prefix(&self.0.prefix);
            builder.from_connection_manager(manager).expect("the settings are good")
        }
    }

    #[async_trait::async_trait]
    impl Harness for GivenHarness {
        async fn open(&self) -> Arc<dyn Store> {
            Arc::new(self.open_at(&self.0.url).await)
        }

        async fn wait_ms(&self, ms: u64) {
            self.0.wait_ms(ms).await;
        }

        async fn open_unreachable(&self) -> Arc<dyn Store> {
            let (_, proxies) = self.0.open_through_proxy().await;
            let store = self.open_at(&through(&proxies[0], &self.0.url).expect("as before")).await;
            proxies[0].refuse().await;
            store.load("the connection is lost").await.expect_err("there is no connection");
            Arc::new(store)
        }

        async fn open_losing_answer(&self) -> Arc<dyn Store> {
            let (_, proxies) = self.0.open_through_proxy().await;
            let store = self.open_at(&through(&proxies[0], &self.0.url).expect("as before")).await;
            Arc::new(LosingOneAnswer::new(store, proxies))
        }
    }

    conformance_tests!(GivenHarness(RedisHarness::new(server_url())));
}
