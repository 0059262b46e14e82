//! How suites ask for a mode of consistency. This is the one place that says how.

use std::time::Duration;

use circuitry::{Consistency, Factory, SettingsBuilder};
use circuitry_redis::{RedisStore, RedisStoreBuilder};
use redis::aio::{ConnectionManager, ConnectionManagerConfig};

/// Every start reads, every end writes.
pub fn strict(settings: SettingsBuilder) -> SettingsBuilder {
    settings.consistency(Consistency::Strict)
}

/// The bounded mode by default settings; `None` in a build that has none, so that nothing is measured in its name.
pub fn bounded(settings: SettingsBuilder) -> Option<SettingsBuilder> {
    Some(settings.consistency(Consistency::default()))
}

/// A Redis that tells of trips itself; `None` in a build that has none.
///
/// # Panics
/// Where there is no Redis.
pub async fn with_push(store: RedisStoreBuilder, url: &str) -> Option<RedisStore> {
    Some(store.connect(url).await.expect("a Redis"))
}

/// A Redis that is only asked: through a connection of the user's, where a store does not listen.
///
/// # Panics
/// Where there is no Redis.
pub async fn without_push(store: RedisStoreBuilder, url: &str) -> RedisStore {
    let client = redis::Client::open(url).expect("a URL");
    let config = ConnectionManagerConfig::new().set_response_timeout(Some(Duration::from_secs(1)));
    let manager = ConnectionManager::new_with_config(client, config.set_number_of_retries(1)).await;
    store.from_connection_manager(manager.expect("a connection")).expect("a store")
}

/// Settles what the bounded mode holds back.
///
/// # Panics
/// Where the store is down.
pub async fn flush(factory: &Factory) {
    factory.flush().await.expect("a store that answers");
}
