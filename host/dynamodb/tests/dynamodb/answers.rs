//! How answers are sorted that DynamoDB Local does not give: throttling, failing servers, refused access.

use circuitry_dynamodb::DynamoDbStore;
use circuitry_store::{Store, StoreError, Swapped, Version};
use serde_json::{Value, json};

use crate::scripted::{Answer, Asked, Scripted};
use crate::server::{PATIENT, client_at, conflict, store_at, stored};

/// What an error is, without its text.
fn kind(error: &StoreError) -> &'static str {
    match error {
        StoreError::Unavailable { .. } => "Unavailable",
        StoreError::Unknown { .. } => "Unknown",
        StoreError::Denied { .. } => "Denied",
        StoreError::Other { .. } => "Other",
        _ => "new",
    }
}

/// A server that answers the load of `first` well and all others by the script, and a store that it has answered, so
/// that a swap is one request.
async fn store_on(script: impl Fn(&Asked) -> Answer + Send + Sync + 'static) -> (Scripted, DynamoDbStore) {
    let server = Scripted::start(move |asked| match asked.body.contains("\"first\"") {
        true => Answer::new(200, "{}"),
        false => script(asked),
    })
    .await;
    let store = store_at(client_at(server.address), "circuits");
    store.load("first").await.expect("a load");
    server.take();
    (server, store)
}

#[tokio::test]
async fn each_error_of_dynamodb_is_sorted_by_what_to_do_next() {
    let cases = [
        (400, "ProvisionedThroughputExceededException", "Unavailable", "Unavailable"),
        (400, "RequestLimitExceeded", "Unavailable", "Unavailable"),
        (400, "ThrottlingException", "Unavailable", "Unavailable"),
        (400, "LimitExceededException", "Unavailable", "Unavailable"),
        (400, "TransactionConflictException", "Unavailable", "Unavailable"),
        (400, "ReplicatedWriteConflictException", "Unavailable", "Unavailable"),
        (429, "SomethingNew", "Unavailable", "Unavailable"),
        (400, "RequestExpired", "Unavailable", "Unavailable"),
        (408, "SomethingNew", "Unavailable", "Unknown"),
        (500, "InternalServerError", "Unavailable", "Unknown"),
        (500, "SomethingNew", "Unavailable", "Unknown"),
        (503, "ServiceUnavailable", "Unavailable", "Unknown"),
        (400, "AccessDeniedException", "Denied", "Denied"),
        (400, "UnrecognizedClientException", "Denied", "Denied"),
        (400, "InvalidSignatureException", "Denied", "Denied"),
        (400, "ExpiredTokenException", "Denied", "Denied"),
        (400, "MissingAuthenticationTokenException", "Denied", "Denied"),
        (403, "IncompleteSignatureException", "Denied", "Denied"),
        (400, "ResourceNotFoundException", "Other", "Other"),
        (400, "ValidationException", "Other", "Other"),
        (400, "ItemCollectionSizeLimitExceededException", "Other", "Other"),
        (400, "SomethingNew", "Other", "Other"),
    ];
    for (status, code, load_is, swap_is) in cases {
        let (server, store) = store_on(move |_| Answer::error(status, code, "in the server's words")).await;
        let load = store.load("circuit").await.expect_err(code);
        assert_eq!(server.take().len(), 1, "a load is not repeated after {code}");
        let swap = store.swap("circuit", None, b"value", None).await.expect_err(code);
        assert_eq!(server.take().len(), 1, "a swap is not repeated after {code}");
        assert_eq!((kind(&load), kind(&swap)), (load_is, swap_is), "{status} {code}");
        for (error, operation) in [(load, "load (GetItem)"), (swap, "swap (PutItem)")] {
            let text = error.to_string();
            for part in [operation, "\"circuits\"", code, "in the server's words"] {
                assert!(text.contains(part), "{text} does not contain {part}");
            }
            assert!(std::error::Error::source(&error).is_some(), "the SDK's error is kept");
        }
    }
}

#[tokio::test]
async fn a_signature_that_is_late_is_the_clocks_fault_and_may_be_tried_again() {
    for message in
        ["Signature expired: 20260101T000000Z is now earlier than …", "Signature not yet current: …"]
    {
        let (_server, store) =
            store_on(move |_| Answer::error(400, "InvalidSignatureException", message)).await;
        let error = store.swap("circuit", None, b"value", None).await.expect_err(message);
        assert_eq!(kind(&error), "Unavailable", "{error}");
        assert!(error.to_string().contains("clock"), "{error} does not say what is wrong");
    }
}

#[tokio::test]
async fn an_answer_that_cannot_be_read_does_not_say_what_became_of_a_swap() {
    for (status, body) in [(200, "{\"Item\": [what"), (200, "<html>"), (502, "<html>"), (500, "")] {
        let (_server, store) = store_on(move |_| Answer::new(status, body)).await;
        let load = store.load("circuit").await.expect_err(body);
        assert_eq!(kind(&load), "Unavailable", "{status} {body:?}: {load}");
        let swap = store.swap("circuit", None, b"value", None).await;
        match (swap, body) {
            // The SDK does not look into the answer to a PutItem from which it needs nothing.
            (Ok(Swapped::Stored(_)), "<html>") if status == 200 => {}
            (Err(error), _) => assert_eq!(kind(&error), "Unknown", "{status} {body:?}: {error}"),
            (other, _) => panic!("{status} {body:?}: {other:?}"),
        }
    }
}

fn failed_condition(item: Option<Value>) -> Answer {
    let mut body = json!({
        "__type": "com.amazonaws.dynamodb.v20120810#ConditionalCheckFailedException",
        "message": "The conditional request failed",
    });
    if let Some(item) = item {
        body["Item"] = item;
    }
    Answer::new(400, body.to_string())
}

fn request(asked: &Asked) -> Value {
    serde_json::from_str(&asked.body).expect("a request in JSON")
}

#[tokio::test]
async fn a_conflict_that_shows_our_own_version_is_stored() {
    // Something on the way sends the request twice: the answer is that of the second, which finds the first.
    let (server, store) = store_on(|asked| match asked.operation.as_str() {
        "PutItem" => failed_condition(Some(request(asked)["Item"].clone())),
        _ => Answer::new(200, "{}"),
    })
    .await;
    for (expected, ttl) in
        [(None, None), (Some(Version::from_bytes(*b"before")), Some(std::time::Duration::ZERO))]
    {
        let receipt = stored(store.swap("circuit", expected.as_ref(), b"value", ttl).await);
        let sent = server.take();
        let base64 = request(&sent[0])["Item"]["version"]["B"].as_str().expect("a version").to_owned();
        assert_eq!(base64.len(), receipt.version.as_bytes().len().div_ceil(3) * 4, "16 bytes in base64");
    }
}

#[tokio::test]
async fn a_failed_condition_is_a_conflict_and_never_a_throttle() {
    let (_server, store) = store_on(|asked| match asked.operation.as_str() {
        "PutItem" => failed_condition(Some(json!({
            "breaker_name": { "S": "circuit" },
            "value": { "B": "d29u" },
            "version": { "B": "dmVyc2lvbg==" },
        }))),
        _ => Answer::new(200, "{}"),
    })
    .await;
    let brought =
        conflict(store.swap("circuit", None, b"value", None).await).entry.expect("the entry that won");
    assert_eq!(
        (brought.value.as_slice(), brought.version.as_bytes()),
        (b"won".as_slice(), b"version".as_slice())
    );
}

#[tokio::test]
async fn a_server_that_hides_the_item_in_the_way_is_not_read_as_absence() {
    let (_server, store) = store_on(|asked| match asked.operation.as_str() {
        "PutItem" => failed_condition(None),
        _ => Answer::new(200, "{}"),
    })
    .await;
    let error = store.swap("circuit", None, b"value", None).await.expect_err("an entry nobody shows");
    assert_eq!(kind(&error), "Other", "{error}");
    assert!(error.to_string().contains("1.25"), "{error} does not say what to change");
    // With a version, no item is what an item that was removed looks like.
    let gone = Version::from_bytes(*b"gone");
    assert_eq!(conflict(store.swap("circuit", Some(&gone), b"value", None).await).entry, None);
}

#[tokio::test]
async fn a_name_is_a_value_and_never_a_part_of_an_expression() {
    let (server, store) = store_on(|_| Answer::new(200, "{}")).await;
    let circuit = "x OR attribute_exists(#value) \"} {";
    store.load(circuit).await.expect("a load");
    stored(store.swap(circuit, None, b"value", None).await);
    stored(store.swap(circuit, Some(&Version::from_bytes(*b"v")), b"value", None).await);
    let asked = server.take();
    assert_eq!(asked.len(), 3);
    for asked in asked {
        let mut request = request(&asked);
        for holder in ["Key", "Item"] {
            if let Some(name) = request.get_mut(holder).and_then(|holder| holder.get_mut("breaker_name")) {
                assert_eq!(name.take(), json!({ "S": circuit }));
            }
        }
        assert!(!request.to_string().contains("attribute_exists(#value)"), "{request}");
    }
}

#[tokio::test]
async fn a_load_is_consistent_and_a_swap_asks_for_the_item_in_the_way() {
    let (server, store) = store_on(|_| Answer::new(200, "{}")).await;
    store.load("circuit").await.expect("a load");
    stored(store.swap("circuit", None, b"value", None).await);
    let asked = server.take();
    assert_eq!(request(&asked[0])["ConsistentRead"], json!(true));
    assert_eq!(request(&asked[1])["ReturnValuesOnConditionCheckFailure"], json!("ALL_OLD"));
}

#[tokio::test]
async fn a_date_that_a_cache_has_kept_or_that_is_none_is_not_believed() {
    let answers = [
        Answer::new(200, "{}"),
        Answer::new(200, "{}").header("Date", "the day before yesterday"),
        Answer::new(200, "{}").header("Date", "Thu, 01 Jan 2015 00:00:00 GMT").header("Age", "600"),
    ];
    for answer in answers {
        let scripted = answer.clone();
        let server = Scripted::start(move |_| scripted.clone()).await;
        let clock = circuitry_store::ManualClock::at_ms(1_800_000_000_000);
        let store = DynamoDbStore::builder(client_at(server.address), "circuits")
            .clock(clock)
            .operation_timeout(PATIENT)
            .build()
            .expect("a store");
        let now_ms = store.load("circuit").await.expect("a load").now_ms;
        assert_eq!(now_ms, Some(1_800_000_000_000), "{answer:?}");
    }
}

#[tokio::test]
async fn a_date_minutes_off_corrects_the_time_of_errors_too() {
    let server = Scripted::start(|asked| match asked.body.contains("refused") {
        true => Answer::error(400, "ThrottlingException", "slow down")
            .header("Date", "Fri, 15 Jan 2027 08:10:00 GMT"),
        false => Answer::new(200, "{}"),
    })
    .await;
    let clock = circuitry_store::ManualClock::at_ms(1_800_000_000_000); // 08:00:00
    let store = DynamoDbStore::builder(client_at(server.address), "circuits")
        .clock(clock)
        .operation_timeout(PATIENT)
        .build()
        .expect("a store");
    store.load("refused").await.expect_err("throttled");
    let now_ms = store.load("circuit").await.expect("a load").now_ms;
    assert_eq!(now_ms, Some(1_800_000_600_499), "ten minutes later, in the middle of the second");
}
