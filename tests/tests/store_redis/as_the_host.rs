//! What the component stores and answers is what the host's adapter, `circuitry-redis`, stores and answers.

use std::time::Duration;

use circuitry_redis::RedisStore;
use circuitry_store::{Receipt, Store, StoreError, Swapped, Version};
use circuitry_tests::fleet::PATIENT;

use crate::adapter::Setup;
use crate::servers::{OwnRedis, free_port, own_name, plain, redis_store, redis_url, run};

async fn write(
    store: &dyn Store,
    expected: Option<&Version>,
    value: &[u8],
    ttl: Option<Duration>,
) -> Receipt {
    match store.swap("payments", expected, value, ttl).await {
        Ok(Swapped::Stored(receipt)) => receipt,
        other => panic!("nobody else writes, yet: {other:?}"),
    }
}

#[tokio::test]
async fn both_share_circuits() {
    let (url, prefix) = (redis_url(), format!("{}:", own_name()));
    let (component, host) = (Setup::new(&url, &prefix).start().await, redis_store(&url, &prefix).await);
    let mut redis = plain(&url).await;
    let key = format!("{prefix}payments");
    let mut version = None;
    for round in 0..3_u8 {
        for (writer, reader) in [(&component as &dyn Store, &host as &dyn Store), (&host, &component)] {
            // Without a time to live in the first round, with one later.
            let ttl = (round > 0).then_some(Duration::from_secs(1_000));
            let receipt = write(writer, version.as_ref(), &[round], ttl).await;
            let entry = reader.load("payments").await.expect("a Redis that answers").entry;
            let entry = entry.expect("it was written");
            assert_eq!((entry.value, &entry.version), (vec![round], &receipt.version));
            let left_s: i64 = run(&mut redis, &["TTL", &key]).await;
            assert!(if round == 0 { left_s == -1 } else { (900..=1_000).contains(&left_s) }, "{left_s} s");
            version = Some(receipt.version);
        }
    }
    let mut fields: Vec<String> = run(&mut redis, &["HKEYS", &key]).await;
    fields.sort();
    assert_eq!(fields, ["value", "version"]);
}

/// The name of an error's variant.
fn kind<T: std::fmt::Debug>(answer: &Result<T, StoreError>) -> &'static str {
    match answer {
        Err(StoreError::Unavailable { .. }) => "unavailable",
        Err(StoreError::Unknown { .. }) => "unknown",
        Err(StoreError::Denied { .. }) => "denied",
        Err(StoreError::Other { .. }) => "other",
        other => panic!("it is to fail: {other:?}"),
    }
}

/// Loads and swaps by both, on connections of their own, and holds the errors to `wanted`.
async fn assert_fails_alike(url: &str, wanted: &str, part: &str) {
    let prefix = "circuitry:";
    let component = Setup::new(url, prefix).start().await;
    let host = RedisStore::builder().prefix(prefix).operation_timeout(PATIENT).lazy().connect(url).await;
    let host = host.expect("a lazy store");
    for (name, store) in [("host", &host as &dyn Store), ("component", &component)] {
        let loaded = store.load("payments").await;
        assert_eq!(kind(&loaded), wanted, "{url}, load of the {name}: {loaded:?}");
        let swapped = store.swap("payments", None, b"value", None).await;
        assert_eq!(kind(&swapped), wanted, "{url}, swap of the {name}: {swapped:?}");
        for text in [loaded.map(drop), swapped.map(drop)].map(|answer| format!("{answer:?}")) {
            assert!(!text.contains("s3cret"), "{name}: {text}");
            assert!(name == "host" || text.contains(part), "{part:?} is not in: {text}");
        }
    }
}

#[tokio::test]
async fn both_fail_alike() {
    let redis = OwnRedis::start().await;
    let (url, mut redis_itself) = (redis.url(), plain(&redis.url()).await);
    let host = url.trim_start_matches("redis://");
    assert_fails_alike(&format!("redis://127.0.0.1:{}", free_port()), "unavailable", "no connection").await;
    assert_fails_alike(&format!("{url}/99"), "other", "DB index is out of range").await;
    // With the newer protocol, which the component does not speak, such a server takes any password.
    let password = format!("redis://:s3cret@{host}/?protocol=resp2");
    assert_fails_alike(&password, "denied", "without any password configured").await;

    for (write, part) in [
        (&["SET", "circuitry:payments", "somebody's"][..], "a string"),
        (&["RPUSH", "circuitry:payments", "somebody's"], "a list"),
        (&["HSET", "circuitry:payments", "other", "field"], "a hash without the fields"),
    ] {
        let _: i64 = run(&mut redis_itself, &["DEL", "circuitry:payments"]).await;
        let _: redis::Value = run(&mut redis_itself, write).await;
        assert_fails_alike(&url, "other", part).await;
    }
    let _: i64 = run(&mut redis_itself, &["DEL", "circuitry:payments"]).await;

    let user = ["ACL", "SETUSER", "worker", "reset", "on", ">s3cret", "~circuitry:*", "+info", "+time"];
    let _: String = run(&mut redis_itself, &user).await;
    assert_fails_alike(&format!("redis://worker:s3cret@{host}"), "denied", "NOPERM").await;
    assert_fails_alike(&format!("redis://nobody:s3cret@{host}"), "denied", "WRONGPASS").await;
    let _: String = run(&mut redis_itself, &["CONFIG", "SET", "requirepass", "right"]).await;
    assert_fails_alike(&url, "denied", "NOAUTH").await;
}
