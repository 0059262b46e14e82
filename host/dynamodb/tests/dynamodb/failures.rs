//! Lost answers, standing servers, missing tables: on the real server, through a proxy where something must get lost.

use std::future;
use std::net::{Ipv4Addr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime};

use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::future::ProvideCredentials as Provided;
use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::config::{BehaviorVersion, Credentials, ProvideCredentials, Region};
use aws_sdk_dynamodb::types::AttributeValue;
use circuitry_dynamodb::{DynamoDbStore, local_client};
use circuitry_store::conformance::LossyProxy;
use circuitry_store::{Store, StoreError, Version};

use crate::server::{
    PATIENT, Sent, address, client, client_at, new_name, new_table, present, store_at, stored, url,
    with_interceptor,
};
use crate::tables::{Key, create_with_key};

/// A store behind a proxy, which counts what it sends and has heard the server.
async fn behind_proxy(table: &str, timeout: Duration) -> (LossyProxy, Sent, DynamoDbStore) {
    let proxy = LossyProxy::start(address()).await.expect("a proxy");
    let sent = Sent::default();
    let client = with_interceptor(&client_at(proxy.address()), sent.clone());
    let store =
        DynamoDbStore::builder(client, table).operation_timeout(timeout).connect().await.expect("a store");
    sent.take();
    (proxy, sent, store)
}

fn names(error: &StoreError, operation: &str, table: &str) {
    let text = error.to_string();
    assert!(text.contains(operation) && text.contains(table), "{text} does not name {operation} and {table}");
}

#[tokio::test]
async fn a_swap_whose_answer_is_lost_is_unknown_and_a_load_tells_the_truth() {
    let table = new_table().await;
    let (proxy, sent, store) = behind_proxy(&table, PATIENT).await;

    proxy.lose_answer_to("PutItem");
    let error = store.swap("circuit", None, b"written", None).await.expect_err("the answer is lost");
    assert!(matches!(error, StoreError::Unknown { .. }), "{error:?}");
    names(&error, "swap (PutItem)", &table);
    assert_eq!((proxy.lost(), sent.take()), (1, 1), "it was sent once");
    let written = present(store.load("circuit").await.expect("a load"));
    assert_eq!(written.value, b"written", "it was written");

    proxy.lose_request_with("PutItem");
    let error =
        store.swap("circuit", Some(&written.version), b"not written", None).await.expect_err("it is lost");
    assert!(matches!(error, StoreError::Unknown { .. }), "{error:?}");
    assert_eq!(present(store.load("circuit").await.expect("a load")), written, "it was not written");
}

#[tokio::test]
async fn a_load_whose_answer_is_lost_is_unavailable_and_not_repeated() {
    let table = new_table().await;
    let (proxy, sent, store) = behind_proxy(&table, PATIENT).await;
    proxy.lose_answer_to("GetItem");
    let error = store.load("circuit").await.expect_err("the answer is lost");
    assert!(matches!(error, StoreError::Unavailable { .. }), "{error:?}");
    names(&error, "load (GetItem)", &table);
    assert_eq!(sent.take(), 1, "whoever calls holds the deadline");
}

#[tokio::test]
async fn an_operation_on_a_server_that_stands_still_ends_at_its_timeout() {
    let table = new_table().await;
    let (proxy, _, store) = behind_proxy(&table, Duration::from_millis(200)).await;
    proxy.stall();
    let begun = Instant::now();
    let swap = store.swap("circuit", None, b"value", None).await.expect_err("no answer");
    assert!(matches!(swap, StoreError::Unknown { .. }), "it was sent: {swap:?}");
    let load = store.load("circuit").await.expect_err("no answer");
    assert!(matches!(load, StoreError::Unavailable { .. }), "{load:?}");
    assert!(begun.elapsed() < PATIENT / 2, "two operations of 200 ms took {:?}", begun.elapsed());
    names(&swap, "swap (PutItem)", &table);
    names(&load, "load (GetItem)", &table);
}

#[tokio::test]
async fn a_swap_that_finds_no_connection_is_unavailable() {
    let table = new_table().await;
    let (proxy, _, store) = behind_proxy(&table, PATIENT).await;
    proxy.refuse().await;
    let mut last = store.swap("circuit", None, b"value", None).await.expect_err("nobody listens");
    if matches!(last, StoreError::Unknown { .. }) {
        // The connection that had been kept was found dead only when it was written to; the next one is refused.
        last = store.swap("circuit", None, b"value", None).await.expect_err("nobody listens");
    }
    assert!(matches!(last, StoreError::Unavailable { .. }), "nothing was sent: {last:?}");
    names(&last, "swap (PutItem)", &table);

    proxy.resume().await;
    stored(store.swap("circuit", None, b"value", None).await);
}

#[tokio::test]
async fn a_connection_that_does_not_come_about_leaves_time_to_say_so() {
    // The kernel takes the connection, and nobody answers the TLS handshake.
    let silent = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let url = format!("https://{}", silent.local_addr().expect("its address"));
    let store = DynamoDbStore::builder(local_client(&url).expect("an endpoint"), "circuits")
        .operation_timeout(Duration::from_secs(4))
        .build()
        .expect("a store");
    let error = store.load("circuit").await.expect_err("no connection");
    assert!(matches!(error, StoreError::Unavailable { .. }), "{error:?}");
    assert!(error.to_string().contains("connect timeout occurred after 2s"), "{error}");
}

#[tokio::test]
async fn an_https_endpoint_is_spoken_to_in_tls() {
    let url = format!("https://{}", address());
    let store = store_at(local_client(&url).expect("an endpoint"), "circuits");
    let error = store.load("circuit").await.expect_err("DynamoDB Local speaks no TLS");
    assert!(matches!(error, StoreError::Unavailable { .. }), "{error:?}");
    assert!(error.to_string().contains("corrupt message"), "rustls does not complain of plain text: {error}");
}

#[tokio::test]
async fn a_missing_table_is_one_clear_error() {
    let table = new_name();
    let version = Version::from_bytes(*b"0123456789abcdef");
    let store = store_at(client(), &table);
    let answers = [
        ("load (GetItem)", store.load("circuit").await.map(drop)),
        // No write goes out before the table has answered a read.
        ("load (GetItem)", store.swap("circuit", None, b"value", None).await.map(drop)),
        ("load (GetItem)", store.swap("circuit", Some(&version), b"value", None).await.map(drop)),
        ("DescribeTable", DynamoDbStore::connect(client(), &table).await.map(drop)),
    ];
    for (operation, answer) in answers {
        let error = answer.expect_err("there is no table");
        assert!(matches!(error, StoreError::Other { .. }), "{error:?}");
        names(&error, operation, &table);
        assert!(error.to_string().contains("Table::create_if_missing"), "{error} does not say what to do");
    }
}

#[tokio::test]
async fn a_table_with_another_key_is_one_clear_error_and_nothing_is_overwritten() {
    let schemas: [(&str, &[Key]); 4] = [
        ("id HASH (S)", &[("id", "HASH", "S")]),
        ("breaker_name HASH (N)", &[("breaker_name", "HASH", "N")]),
        ("breaker_name HASH (B)", &[("breaker_name", "HASH", "B")]),
        (
            "breaker_name HASH (S), version RANGE (B)",
            &[("breaker_name", "HASH", "S"), ("version", "RANGE", "B")],
        ),
    ];
    for (found, keys) in schemas {
        let table = create_with_key(keys).await;
        let mut put =
            client().put_item().table_name(&table).item("value", AttributeValue::S("theirs".to_owned()));
        for (key, _, kind) in keys {
            let value = match *kind {
                "S" => AttributeValue::S("circuit".to_owned()),
                "N" => AttributeValue::N("1".to_owned()),
                _ => AttributeValue::B(aws_sdk_dynamodb::primitives::Blob::new("circuit")),
            };
            put = put.item(*key, value);
        }
        put.send().await.expect("their item");
        let before = client().scan().table_name(&table).send().await.expect("their items").items;

        let error = DynamoDbStore::connect(client(), &table).await.expect_err("another key");
        assert!(matches!(error, StoreError::Other { .. }), "{error:?}");
        names(&error, "DescribeTable", &table);
        for part in [found, "breaker_name HASH (S)"] {
            assert!(error.to_string().contains(part), "{error} does not name {part}");
        }

        let store = store_at(client(), &table);
        let load = store.load("circuit").await.map(drop);
        let swap = store.swap("circuit", None, b"ours", None).await.map(drop);
        for (operation, answer) in [("load", load), ("swap", swap)] {
            let Err(error) = answer else { panic!("a {operation} on the key {found} succeeds") };
            assert!(matches!(error, StoreError::Other { .. }), "{error:?}");
            // A swap reads first, as long as the table has not answered.
            names(&error, "load (GetItem)", &table);
            assert!(error.to_string().contains("breaker_name"), "{error} does not name the key");
        }
        let after = client().scan().table_name(&table).send().await.expect("their items").items;
        assert_eq!(after, before, "nothing was written");
    }
}

/// Credentials that are asked for at every call, and come the first `come` times.
#[derive(Debug)]
struct Fickle {
    asked: Arc<AtomicUsize>,
    come: usize,
    then: Then,
}

#[derive(Clone, Copy, Debug)]
enum Then {
    Missing,
    Failing,
    Hanging,
}

impl ProvideCredentials for Fickle {
    fn provide_credentials<'a>(&'a self) -> Provided<'a>
    where
        Self: 'a,
    {
        if self.asked.fetch_add(1, Ordering::SeqCst) < self.come {
            // Expired at once, so that they are asked for anew.
            let credentials = Credentials::new("local", "local", None, Some(SystemTime::now()), "test");
            return Provided::ready(Ok(credentials));
        }
        match self.then {
            Then::Missing => Provided::ready(Err(CredentialsError::not_loaded("there are none"))),
            Then::Failing => Provided::ready(Err(CredentialsError::provider_error("STS answered 503"))),
            Then::Hanging => Provided::new(future::pending()),
        }
    }
}

#[tokio::test]
async fn credentials_that_are_missing_are_denied_and_slow_ones_unavailable() {
    let table = new_table().await;
    let cases = [
        (Then::Missing, true, PATIENT),
        (Then::Failing, false, PATIENT),
        (Then::Hanging, false, Duration::from_secs(2)),
    ];
    for (then, is_denied, timeout) in cases {
        let fickle = Fickle { asked: Arc::default(), come: 1, then };
        let config = client().config().to_builder().credentials_provider(fickle).build();
        let sent = Sent::default();
        let store =
            DynamoDbStore::builder(with_interceptor(&Client::from_conf(config), sent.clone()), &table)
                .operation_timeout(timeout)
                .build()
                .expect("a store");
        // It learns the server's time, so that the swap below is the first to find no credentials.
        store.load("circuit").await.expect("a load with the first credentials");
        sent.take();

        let swap = store.swap("circuit", None, b"value", None).await.expect_err("no credentials");
        let load = store.load("circuit").await.expect_err("no credentials");
        for error in [swap, load] {
            match &error {
                StoreError::Denied { .. } => assert!(is_denied, "{then:?}: {error:?}"),
                StoreError::Unavailable { .. } => assert!(!is_denied, "{then:?}: {error:?}"),
                _ => panic!("{then:?}: {error:?}"),
            }
            assert!(error.to_string().contains(&table), "{error}");
        }
        assert_eq!(sent.take(), 0, "nothing leaves without credentials");
    }
}

#[tokio::test]
async fn a_client_without_credentials_or_region_is_told_what_it_lacks() {
    let table = new_table().await;
    let without_credentials = aws_sdk_dynamodb::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::from_static("us-east-1"))
        .endpoint_url(url())
        .build();
    let error =
        store_at(Client::from_conf(without_credentials), &table).load("circuit").await.expect_err("unsigned");
    assert!(matches!(error, StoreError::Denied { .. }), "{error:?}");
    names(&error, "load (GetItem)", &table);
    assert!(error.to_string().contains("credentials"), "{error}");

    let without_region = aws_sdk_dynamodb::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .credentials_provider(Credentials::new("local", "local", None, None, "test"))
        .build();
    let error =
        store_at(Client::from_conf(without_region), &table).load("circuit").await.expect_err("no endpoint");
    assert!(matches!(error, StoreError::Other { .. }), "{error:?}");
    names(&error, "load (GetItem)", &table);
    assert!(error.to_string().to_lowercase().contains("region"), "{error}");
}
