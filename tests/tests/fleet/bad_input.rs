//! What is under our names and not ours, tables with another key, addresses that lead nowhere: one clear error each,
//! and nothing is overwritten.

use std::collections::BTreeMap;
use std::sync::Arc;

use aws_sdk_dynamodb::primitives::Blob;
use aws_sdk_dynamodb::types::{
    AttributeDefinition, AttributeValue, BillingMode, KeySchemaElement, KeyType, ScalarAttributeType,
};
use circuitry::{Breaker, Context, Factory, Outcome, Override, OverrideKind, Store};
use circuitry_dynamodb::{DynamoDbStore, Table, local_client};
use circuitry_redis::RedisStore;

use crate::servers::{
    Place, dynamodb_client, factory, free_port, own_name, patient, plain, redis_store, redis_url, run,
};
use crate::turns::together;

/// A record of the schema after ours, as a newer version may write it.
fn of_a_newer_schema() -> Vec<u8> {
    let mut record = b"CKT".to_vec();
    record.push(circuitry_core::record::SCHEMA + 1);
    record.extend_from_slice(b"whatever comes then");
    record
}

/// Asks for everything that can be asked of a circuit; every time the error must name what to do.
async fn assert_each_call_fails_naming(breaker: &Breaker, factory: &Factory, remedy: &str) {
    let forced = Override {
        kind: OverrideKind::ForcedOpen,
        author: "ann".into(),
        reason: "maintenance".into(),
        until_ms: None,
    };
    let mut ran = false;
    let executed = breaker
        .execute(|| {
            ran = true;
            async { Ok::<_, std::io::Error>(()) }
        })
        .await;
    let errors = [
        breaker.start().await.expect_err("an error").to_string(),
        executed.expect_err("an error").to_string(),
        breaker.information().await.expect_err("an error").to_string(),
        breaker.set_override(Some(forced)).await.expect_err("an error").to_string(),
        breaker.set_override(None).await.expect_err("an error").to_string(),
    ];
    for error in errors {
        assert!(error.contains("jobs/acme"), "it names the circuit: {error}");
        assert!(error.contains(remedy), "it names what to change: {error}");
        assert!(!error.contains('\n'), "it is one line: {error}");
    }
    assert!(!ran, "the work does not run");
    assert!(!factory.is_store_down(), "the store is up, whatever is stored there");
}

fn jobs(factory: &Factory) -> Breaker {
    factory.breaker_for("jobs", &Context::tenant("acme"))
}

/// Puts something under our key, and looks whether it stays as it is.
async fn what_is_under_our_redis_key_stays(put: &[&[u8]], remedy: &str) {
    let prefix = format!("{}:", own_name());
    let key = format!("{prefix}jobs/acme");
    let mut server = plain(&redis_url()).await;
    let mut command = redis::Cmd::new();
    command.arg(put[0]).arg(&key);
    for argument in &put[1..] {
        command.arg(*argument);
    }
    command.query_async::<redis::Value>(&mut server).await.expect("put");
    let before: Vec<u8> = run(&mut server, &["DUMP", &key]).await;

    let factory = factory(patient().store(redis_store(&redis_url(), &prefix).await)).await;
    assert_each_call_fails_naming(&jobs(&factory), &factory, remedy).await;
    let after: Vec<u8> = run(&mut server, &["DUMP", &key]).await;
    assert_eq!(after, before, "what was put there is as it was");
    assert_eq!(run::<i64>(&mut server, &["PTTL", &key]).await, -1, "and it does not expire");

    // The same prefix serves other circuits.
    let other = factory.breaker_for("jobs", &Context::tenant("other"));
    other.start().await.expect("a permit").end(Outcome::Success).await.expect("settled");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_a_key_of_another_type_is_left_alone() {
    let _turn = together().await;
    what_is_under_our_redis_key_stays(&[b"SET", b"something else"], "give the store a prefix").await;
    what_is_under_our_redis_key_stays(&[b"RPUSH", b"a", b"b"], "give the store a prefix").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_a_hash_that_is_no_entry_is_left_alone() {
    let _turn = together().await;
    what_is_under_our_redis_key_stays(&[b"HSET", b"name", b"ann"], "give the store a prefix").await;
    what_is_under_our_redis_key_stays(&[b"HSET", b"version", b"7"], "give the store a prefix").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_foreign_bytes_in_an_entry_are_left_alone() {
    let _turn = together().await;
    for value in [&b"{\"state\":\"open\"}"[..], b"", b"\xff\xfe\0", b"CKT", b"CKT\x01\xa8"] {
        let put = [&b"HSET"[..], b"version", b"7", b"value", value];
        what_is_under_our_redis_key_stays(&put, "remove it, or give this factory a prefix").await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_a_record_of_a_newer_schema_is_left_alone() {
    let _turn = together().await;
    let newer = of_a_newer_schema();
    let put = [&b"HSET"[..], b"version", b"7", b"value", &newer];
    what_is_under_our_redis_key_stays(&put, "deploy a newer circuitry here too").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_a_record_that_becomes_foreign_while_work_runs_is_left_alone() {
    let _turn = together().await;
    let prefix = format!("{}:", own_name());
    let factory = factory(patient().store(redis_store(&redis_url(), &prefix).await)).await;
    let permit = jobs(&factory).start().await.expect("a permit");
    let mut server = plain(&redis_url()).await;
    let key = format!("{prefix}jobs/acme");
    let mut write = redis::cmd("HSET");
    write.arg(&key).arg("version").arg("of a newer one").arg("value").arg(of_a_newer_schema());
    write.query_async::<i64>(&mut server).await.expect("written");
    let before: Vec<u8> = run(&mut server, &["DUMP", &key]).await;
    let error = permit.end(Outcome::Failure).await.expect_err("an error").to_string();
    assert!(error.contains("deploy a newer circuitry here too"), "{error}");
    let after: Vec<u8> = run(&mut server, &["DUMP", &key]).await;
    assert_eq!(after, before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_a_wrong_url_is_told_when_the_store_is_made() {
    let _turn = together().await;
    let nobody = format!("redis://127.0.0.1:{}", free_port());
    let wrong = [
        ("127.0.0.1:6379", "write it like redis://"),
        ("http://127.0.0.1:6379", "begins with http:"),
        ("redis://127.0.0.1:6379/first", "Invalid database number"),
        (nobody.as_str(), nobody.as_str()),
    ];
    for (url, remedy) in wrong {
        let error = RedisStore::connect(url).await.expect_err("an error").to_string();
        assert!(error.contains(remedy), "{url}: {error}");
    }
}

type Item = BTreeMap<String, AttributeValue>;

async fn item(table: &str) -> Item {
    let key = AttributeValue::S("jobs/acme".into());
    let get = dynamodb_client().get_item().table_name(table).key("breaker_name", key).consistent_read(true);
    get.send().await.expect("a table").item.expect("an item").into_iter().collect()
}

/// Puts something under our key, and looks whether it stays as it is.
async fn what_is_under_our_dynamodb_key_stays(put: &[(&str, AttributeValue)], remedy: &str) {
    let place = Place::on_dynamodb().await;
    let Place::DynamoDb { table } = &place else { panic!("a table") };
    let key = AttributeValue::S("jobs/acme".into());
    let mut request = dynamodb_client().put_item().table_name(table).item("breaker_name", key);
    for (name, value) in put {
        request = request.item(*name, value.clone());
    }
    request.send().await.expect("put");
    let before = item(table).await;

    let factory = place.worker(patient()).await;
    assert_each_call_fails_naming(&jobs(&factory), &factory, remedy).await;
    assert_eq!(item(table).await, before, "what was put there is as it was");

    // The same table serves other circuits.
    let other = factory.breaker_for("jobs", &Context::tenant("other"));
    other.start().await.expect("a permit").end(Outcome::Success).await.expect("settled");
}

fn binary(bytes: &[u8]) -> AttributeValue {
    AttributeValue::B(Blob::new(bytes))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dynamodb_an_item_that_is_no_entry_is_left_alone() {
    let _turn = together().await;
    let text = AttributeValue::S("something else".into());
    let remedy = "use a table of your own for circuits";
    what_is_under_our_dynamodb_key_stays(&[("name", text.clone())], remedy).await;
    let mixed = [("version", binary(b"7")), ("value", text)];
    what_is_under_our_dynamodb_key_stays(&mixed, remedy).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dynamodb_foreign_bytes_in_an_entry_are_left_alone() {
    let _turn = together().await;
    for value in [&b"{\"state\":\"open\"}"[..], b"\xff\xfe\0", b"CKT\x01\xa8"] {
        let put = [("version", binary(b"7")), ("value", binary(value))];
        what_is_under_our_dynamodb_key_stays(&put, "remove it, or").await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dynamodb_a_record_of_a_newer_schema_is_left_alone() {
    let _turn = together().await;
    let put = [("version", binary(b"7")), ("value", binary(&of_a_newer_schema()))];
    what_is_under_our_dynamodb_key_stays(&put, "deploy a newer circuitry here too").await;
}

/// A table whose hash key has `name`, and a sort key if asked for.
async fn table_with_key(name: &str, sort: Option<&str>) -> String {
    let table = own_name();
    let mut create =
        dynamodb_client().create_table().table_name(&table).billing_mode(BillingMode::PayPerRequest);
    for (name, kind) in [(Some(name), KeyType::Hash), (sort, KeyType::Range)] {
        let Some(name) = name else { continue };
        let definition =
            AttributeDefinition::builder().attribute_name(name).attribute_type(ScalarAttributeType::S);
        let key = KeySchemaElement::builder().attribute_name(name).key_type(kind);
        create = create
            .attribute_definitions(definition.build().expect("a definition"))
            .key_schema(key.build().expect("a key"));
    }
    create.send().await.expect("a new table");
    table
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dynamodb_a_table_with_another_key_is_refused_and_gets_no_item() {
    let _turn = together().await;
    for (name, sort) in [("id", None), ("breaker_name", Some("at"))] {
        let table = table_with_key(name, sort).await;
        // Both who looks at the table first, and who does not.
        let connected = DynamoDbStore::connect(dynamodb_client(), &table).await;
        let error = connected.expect_err("an error").to_string();
        assert!(error.contains(&table) && error.contains("choose another table"), "{error}");
        let helped = Table::new(dynamodb_client(), &table).expect("a name").create_if_missing().await;
        let error = helped.expect_err("an error").to_string();
        assert!(error.contains(&table) && error.contains("choose another table"), "{error}");

        let store: Arc<dyn Store> = Arc::new(DynamoDbStore::new(dynamodb_client(), &table).expect("a name"));
        let breaker = jobs(&factory(patient().store(store)).await);
        let error = breaker.start().await.expect_err("an error").to_string();
        assert!(error.contains(&table), "it names the table: {error}");
        let items = dynamodb_client().scan().table_name(&table).send().await.expect("a table");
        assert_eq!(items.count, 0, "nothing was written");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dynamodb_a_missing_table_and_a_wrong_endpoint_are_told_when_the_store_is_made() {
    let _turn = together().await;
    let missing = own_name();
    let error = DynamoDbStore::connect(dynamodb_client(), &missing).await.expect_err("an error").to_string();
    assert!(error.contains(&missing) && error.contains("Table::create_if_missing"), "{error}");
    let error = local_client("127.0.0.1:8000").expect_err("an error").to_string();
    assert!(error.contains("write it like \"http://127.0.0.1:8000\""), "{error}");
    let error = DynamoDbStore::new(dynamodb_client(), "no/table").expect_err("an error").to_string();
    assert!(error.contains("use 3 to 255 of the characters"), "{error}");
}
