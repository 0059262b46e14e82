//! What is in the table, what a load and a swap cost, and items that are not ours.

use std::collections::HashMap;
use std::time::Duration;

use aws_sdk_dynamodb::primitives::Blob;
use aws_sdk_dynamodb::types::AttributeValue;
use circuitry_dynamodb::DynamoDbStore;
use circuitry_store::{ManualClock, Store, StoreError, Version};

use crate::server::{
    PATIENT, Sent, ServerTime, client, conflict, new_table, present, store_at, stored, system_now_ms,
    with_interceptor,
};

type Item = HashMap<String, AttributeValue>;

async fn item(table: &str, circuit: &str) -> Option<Item> {
    let get =
        client().get_item().table_name(table).key("breaker_name", AttributeValue::S(circuit.to_owned()));
    get.consistent_read(true).send().await.expect("an answer").item
}

async fn put(table: &str, item: Item) {
    client().put_item().table_name(table).set_item(Some(item)).send().await.expect("it is put");
}

#[tokio::test]
async fn an_item_has_the_documented_attributes() {
    let table = new_table().await;
    let clock = ManualClock::at_ms(system_now_ms() / 1_000 * 1_000 + 1);
    let client = with_interceptor(&client(), ServerTime(clock.clone()));
    let store = DynamoDbStore::builder(client, &table)
        .clock(clock.clone())
        .ttl_attribute("delete_at_s")
        .operation_timeout(PATIENT)
        .build()
        .expect("a store");

    let receipt = stored(store.swap("mortal", None, b"record", Some(Duration::from_millis(5_500))).await);
    let now_ms = receipt.now_ms.expect("the store tells its time");
    let expected: Item = [
        ("breaker_name", AttributeValue::S("mortal".to_owned())),
        ("value", AttributeValue::B(Blob::new("record"))),
        ("version", AttributeValue::B(Blob::new(receipt.version.as_bytes()))),
        ("expires_at_ms", AttributeValue::N((now_ms + 5_500).to_string())),
        // Rounded up: 5.501 s after a full second.
        ("delete_at_s", AttributeValue::N((now_ms / 1_000 + 6).to_string())),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into();
    assert_eq!(item(&table, "mortal").await, Some(expected));

    stored(store.swap("mortal", Some(&receipt.version), b"record", None).await);
    let immortal = item(&table, "mortal").await.expect("an item");
    let mut attributes: Vec<_> = immortal.keys().map(String::as_str).collect();
    attributes.sort_unstable();
    assert_eq!(attributes, ["breaker_name", "value", "version"], "what does not expire has no time to live");
}

#[tokio::test]
async fn a_load_and_a_swap_cost_one_round_trip_and_a_lost_race_no_extra_read() {
    let table = new_table().await;
    let sent = Sent::default();
    let store = DynamoDbStore::builder(with_interceptor(&client(), sent.clone()), &table)
        .operation_timeout(PATIENT)
        .connect()
        .await
        .expect("a store");
    sent.take();

    let first = stored(store.swap("circuit", None, b"1", None).await);
    assert_eq!(sent.take(), 1, "a swap that is stored");
    store.load("circuit").await.expect("a load");
    assert_eq!(sent.take(), 1, "a load");
    let brought = present(conflict(store.swap("circuit", None, b"2", None).await));
    assert_eq!((brought.version, brought.value), (first.version, b"1".to_vec()));
    assert_eq!(sent.take(), 1, "a swap that loses the race");
}

#[tokio::test]
async fn an_expired_item_that_is_not_deleted_is_absent_for_load_and_swap_alike() {
    let table = new_table().await;
    let clock = ManualClock::at_ms(system_now_ms());
    let client_of_time = with_interceptor(&client(), ServerTime(clock.clone()));
    let store = DynamoDbStore::builder(client_of_time, &table)
        .clock(clock.clone())
        .operation_timeout(PATIENT)
        .build()
        .expect("a store");

    let ttl = Duration::from_secs(60);
    let old = stored(store.swap("circuit", None, b"old", Some(ttl)).await).version;
    clock.advance_ms(59_999);
    assert!(store.load("circuit").await.expect("a load").entry.is_some(), "a millisecond is left");
    clock.advance_ms(1);
    assert!(item(&table, "circuit").await.is_some(), "DynamoDB has not deleted it");
    assert_eq!(store.load("circuit").await.expect("a load").entry, None);
    assert_eq!(conflict(store.swap("circuit", Some(&old), b"late", Some(ttl)).await).entry, None);
    let new = stored(store.swap("circuit", None, b"new", Some(ttl)).await).version;
    assert_eq!(present(store.load("circuit").await.expect("a load")).version, new);
}

#[tokio::test]
async fn a_foreign_item_under_our_key_is_an_error_and_is_not_overwritten() {
    let table = new_table().await;
    let store = store_at(client(), &table);
    let binary = || AttributeValue::B(Blob::new("0123456789abcdef"));
    let text = || AttributeValue::S("somebody else's".to_owned());
    let long_ago = || AttributeValue::N("1".to_owned());
    let foreign: [(&str, Vec<(&str, AttributeValue)>); 6] = [
        ("value", vec![]),
        ("value", vec![("owner", text()), ("expires_at_ms", long_ago())]),
        ("value", vec![("value", text()), ("version", binary())]),
        ("version", vec![("value", binary())]),
        ("version", vec![("value", binary()), ("version", text()), ("expires_at_ms", long_ago())]),
        ("expires_at_ms", vec![("value", binary()), ("version", binary()), ("expires_at_ms", text())]),
    ];
    for (index, (wrong, attributes)) in foreign.into_iter().enumerate() {
        let circuit = format!("foreign {index} \"{{}}");
        let mut theirs: Item = attributes.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        theirs.insert("breaker_name".to_owned(), AttributeValue::S(circuit.clone()));
        put(&table, theirs.clone()).await;

        let never_written = Version::from_bytes(*b"never written!!!");
        let load = store.load(&circuit).await.map(drop);
        let create = store.swap(&circuit, None, b"ours", None).await.map(drop);
        let replace = store.swap(&circuit, Some(&never_written), b"ours", None).await.map(drop);
        for (operation, answer) in
            [("load (GetItem)", load), ("swap (PutItem)", create), ("swap (PutItem)", replace)]
        {
            let Err(StoreError::Other { message, .. }) = &answer else {
                panic!("a {operation} over a foreign item answers {answer:?}")
            };
            for part in [operation, &table, &format!("{circuit:?}"), &format!("{wrong:?}")] {
                assert!(message.contains(part), "{message} does not name {part}");
            }
        }
        assert_eq!(item(&table, &circuit).await, Some(theirs), "nothing was overwritten");
    }
}

#[tokio::test]
async fn a_value_above_dynamodbs_limit_is_one_clear_error() {
    let table = new_table().await;
    let store = store_at(client(), &table);
    let first = stored(store.swap("circuit", None, b"short", None).await);
    let answer = store.swap("circuit", Some(&first.version), &vec![0; 400 * 1024], None).await;
    let Err(StoreError::Other { message, .. }) = answer else { panic!("{answer:?}") };
    assert!(message.contains("swap (PutItem)") && message.contains(&table), "{message}");
    assert!(message.contains("400 KB"), "{message}");
    assert_eq!(present(store.load("circuit").await.expect("a load")).version, first.version);
}

#[tokio::test]
async fn bad_settings_are_refused_with_the_name_of_what_to_change() {
    let builder = || DynamoDbStore::builder(client(), "circuits");
    let refused = [
        ("table name", DynamoDbStore::new(client(), "no")),
        ("table name", DynamoDbStore::new(client(), "circuits; DROP")),
        ("table name", DynamoDbStore::new(client(), "x".repeat(256))),
        ("operation_timeout", builder().operation_timeout(Duration::ZERO).build()),
        ("operation_timeout", builder().operation_timeout(Duration::from_secs(61)).build()),
        ("ttl_attribute", builder().ttl_attribute("").build()),
        ("ttl_attribute", builder().ttl_attribute("x".repeat(256)).build()),
        ("ttl_attribute", builder().ttl_attribute("expires_at_ms").build()),
    ];
    for (setting, answer) in refused {
        match answer {
            Err(StoreError::Other { message, .. }) => assert!(message.contains(setting), "{message}"),
            other => panic!("a bad {setting} gives {other:?}"),
        }
    }
    for endpoint in ["", "127.0.0.1:8000", "localhost", "ftp://127.0.0.1", "http://", "http://a b"] {
        let answer = circuitry_dynamodb::local_client(endpoint).map(drop);
        assert!(matches!(answer, Err(StoreError::Other { .. })), "{endpoint:?} gives {answer:?}");
    }
}

#[tokio::test]
async fn the_longest_names_that_are_taken_work() {
    let table =
        format!("{}{}", crate::server::new_name(), "x".repeat(230)).chars().take(255).collect::<String>();
    circuitry_dynamodb::Table::new(client(), &table).expect("a name").create().await.expect("a table");
    let store = store_at(client(), &table);
    stored(store.swap(&"n".repeat(1_024), None, b"value", Some(Duration::from_secs(60))).await);
}
