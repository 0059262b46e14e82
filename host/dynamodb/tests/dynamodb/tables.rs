//! The table: created with what was asked for, once; checked; never changed behind somebody's back.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use aws_sdk_dynamodb::types::{
    AttributeDefinition, BillingMode, KeySchemaElement, TableDescription, TableStatus,
    TimeToLiveSpecification, TimeToLiveStatus,
};
use circuitry_dynamodb::{Billing, Creation, DynamoDbStore, Table};
use circuitry_store::{Store, StoreError};

use crate::scripted::{Answer, Scripted};
use crate::server::{client, client_at, new_name, new_table, store_at, stored};

/// A part of a table's key: name, kind and type.
pub(crate) type Key = (&'static str, &'static str, &'static str);

/// A table of somebody else.
pub(crate) async fn create_with_key(keys: &[Key]) -> String {
    let name = new_name();
    let mut create = client().create_table().table_name(&name).billing_mode(BillingMode::PayPerRequest);
    for (key, kind, attribute_type) in keys {
        let definition =
            AttributeDefinition::builder().attribute_name(*key).attribute_type((*attribute_type).into());
        let element = KeySchemaElement::builder().attribute_name(*key).key_type((*kind).into());
        create = create
            .attribute_definitions(definition.build().expect("a definition"))
            .key_schema(element.build().expect("a key"));
    }
    create.send().await.expect("their table");
    name
}

async fn described(table: &str) -> TableDescription {
    client().describe_table().table_name(table).send().await.expect("an answer").table.expect("a table")
}

async fn time_to_live(table: &str) -> (Option<TimeToLiveStatus>, Option<String>) {
    let answer = client().describe_time_to_live().table_name(table).send().await.expect("an answer");
    let described = answer.time_to_live_description.expect("a description");
    (described.time_to_live_status, described.attribute_name)
}

fn other(answer: Result<impl std::fmt::Debug, StoreError>) -> String {
    match answer {
        Err(error @ StoreError::Other { .. }) => error.to_string(),
        other => panic!("this was to be refused: {other:?}"),
    }
}

#[tokio::test]
async fn a_table_is_created_on_demand_unless_asked_otherwise() {
    let name = new_name();
    Table::new(client(), &name).expect("a name").create().await.expect("a table");
    let table = described(&name).await;
    assert_eq!(table.table_status, Some(TableStatus::Active), "it waits until the table can be used");
    let billing = table.billing_mode_summary.and_then(|summary| summary.billing_mode);
    assert_eq!(billing, Some(BillingMode::PayPerRequest));
    assert_eq!(time_to_live(&name).await, (Some(TimeToLiveStatus::Enabled), Some("ttl".to_owned())));
    stored(store_at(client(), &name).swap("circuit", None, b"value", None).await);
}

#[tokio::test]
async fn a_table_has_the_throughput_and_time_to_live_that_were_asked_for() {
    let name = new_name();
    Table::new(client(), &name)
        .expect("a name")
        .billing(Billing::Provisioned { read_units: 7, write_units: 3 })
        .ttl_attribute("delete_at_s")
        .create()
        .await
        .expect("a table");
    let table = described(&name).await;
    let throughput = table.provisioned_throughput.expect("a throughput");
    assert_eq!((throughput.read_capacity_units, throughput.write_capacity_units), (Some(7), Some(3)));
    assert_eq!(time_to_live(&name).await, (Some(TimeToLiveStatus::Enabled), Some("delete_at_s".to_owned())));
}

#[tokio::test]
async fn a_table_is_created_with_its_tags() {
    // DynamoDB Local takes tags and forgets them, so this looks at what is asked for.
    let server = Scripted::start(|asked| {
        let missing = Answer::error(400, "ResourceNotFoundException", "Requested resource not found");
        if asked.operation == "CreateTable" {
            Answer::error(400, "AccessDeniedException", "no")
        } else {
            missing
        }
    })
    .await;
    let table = Table::new(client_at(server.address), "circuits").expect("a name");
    let refused = table.tag("team", "payments").tag("stage", "test").create_if_missing().await;
    assert!(matches!(refused, Err(StoreError::Denied { .. })), "{refused:?}");
    let asked = server.take();
    let operations: Vec<_> = asked.iter().map(|asked| asked.operation.as_str()).collect();
    assert_eq!(operations, ["DescribeTable", "CreateTable"]);
    let request: serde_json::Value = serde_json::from_str(&asked[1].body).expect("a request in JSON");
    let expected =
        serde_json::json!([{ "Key": "team", "Value": "payments" }, { "Key": "stage", "Value": "test" }]);
    assert_eq!(request["Tags"], expected);
}

#[tokio::test]
async fn a_table_that_is_not_there_yet_is_waited_for() {
    let looks = AtomicUsize::new(0);
    let server = Scripted::start(move |asked| match asked.operation.as_str() {
        "DescribeTable" => match looks.fetch_add(1, Ordering::SeqCst) {
            // Missing, and after its creation not seen, then not ready.
            0 | 1 => Answer::error(400, "ResourceNotFoundException", "Requested resource not found"),
            2 => Answer::new(200, description("CREATING")),
            _ => Answer::new(200, description("ACTIVE")),
        },
        "DescribeTimeToLive" => {
            Answer::new(200, r#"{"TimeToLiveDescription":{"TimeToLiveStatus":"DISABLED"}}"#)
        }
        "UpdateTimeToLive" => Answer::error(400, "ValidationException", "TimeToLive is already enabled"),
        _ => Answer::new(200, "{}"),
    })
    .await;
    let table = Table::new(client_at(server.address), "circuits").expect("a name");
    assert_eq!(table.create_if_missing().await.expect("a table"), Creation::Created);
    let operations: Vec<_> = server.take().into_iter().map(|asked| asked.operation).collect();
    let expected = "DescribeTable CreateTable DescribeTable DescribeTable DescribeTable DescribeTimeToLive UpdateTimeToLive";
    assert_eq!(operations.join(" "), expected);
}

#[tokio::test]
async fn a_table_that_is_being_deleted_is_refused() {
    let server = Scripted::start(|_| Answer::new(200, description("DELETING"))).await;
    let table = Table::new(client_at(server.address), "circuits").expect("a name");
    for message in [other(table.check().await), other(table.create_if_missing().await)] {
        assert!(message.contains("circuits") && message.contains("being deleted"), "{message}");
    }
}

/// DescribeTable's answer for a table of ours.
fn description(status: &str) -> String {
    let table = serde_json::json!({
        "TableStatus": status,
        "AttributeDefinitions": [{ "AttributeName": "breaker_name", "AttributeType": "S" }],
        "KeySchema": [{ "AttributeName": "breaker_name", "KeyType": "HASH" }],
    });
    serde_json::json!({ "Table": table }).to_string()
}

#[tokio::test]
async fn create_if_missing_may_be_called_as_often_as_one_likes() {
    let name = new_name();
    let table = Table::new(client(), &name).expect("a name");
    assert_eq!(table.create_if_missing().await.expect("a table"), Creation::Created);
    stored(store_at(client(), &name).swap("circuit", None, b"value", None).await);
    assert_eq!(table.create_if_missing().await.expect("a table"), Creation::Existed);
    // Another billing is not forced on a table that is there.
    let provisioned = table.clone().billing(Billing::Provisioned { read_units: 1, write_units: 1 });
    assert_eq!(provisioned.create_if_missing().await.expect("a table"), Creation::Existed);
    let billing = described(&name).await.billing_mode_summary.and_then(|summary| summary.billing_mode);
    assert_eq!(billing, Some(BillingMode::PayPerRequest));
    let kept = store_at(client(), &name).load("circuit").await.expect("a load").entry;
    assert!(kept.is_some(), "what was in the table is still there");

    let message = other(table.create().await);
    assert!(message.contains(&name) && message.contains("create_if_missing"), "{message}");
}

#[tokio::test]
async fn of_several_that_create_a_table_at_once_one_creates_it_and_all_can_use_it() {
    let name = new_name();
    let creators = (0..8).map(|_| {
        let table = Table::new(client(), &name).expect("a name");
        tokio::spawn(async move { table.create_if_missing().await })
    });
    let mut created = 0;
    for creator in creators.collect::<Vec<_>>() {
        if creator.await.expect("no panic").expect("a table") == Creation::Created {
            created += 1;
        }
    }
    assert_eq!(created, 1);
    Table::new(client(), &name).expect("a name").check().await.expect("the table is as wanted");
}

#[tokio::test]
async fn a_creation_that_was_broken_off_is_completed_by_the_next_call() {
    let name = create_with_key(&[("breaker_name", "HASH", "S")]).await;
    assert_eq!(time_to_live(&name).await.0, Some(TimeToLiveStatus::Disabled));
    let creation = Table::new(client(), &name).expect("a name").create_if_missing().await.expect("a table");
    assert_eq!(creation, Creation::Existed);
    assert_eq!(time_to_live(&name).await, (Some(TimeToLiveStatus::Enabled), Some("ttl".to_owned())));
}

#[tokio::test]
async fn time_to_live_on_another_attribute_is_one_clear_error() {
    let name = create_with_key(&[("breaker_name", "HASH", "S")]).await;
    let theirs =
        TimeToLiveSpecification::builder().attribute_name("theirs").enabled(true).build().expect("theirs");
    client()
        .update_time_to_live()
        .table_name(&name)
        .time_to_live_specification(theirs)
        .send()
        .await
        .expect("it is turned on");
    let message = other(Table::new(client(), &name).expect("a name").create_if_missing().await);
    for part in [name.as_str(), "DescribeTimeToLive", "ttl_attribute(\"theirs\")", "\"ttl\""] {
        assert!(message.contains(part), "{message} does not contain {part}");
    }
    assert_eq!(time_to_live(&name).await.1.as_deref(), Some("theirs"), "it is left as it was");
}

#[tokio::test]
async fn a_table_with_another_key_is_refused_and_left_alone() {
    let name = create_with_key(&[("id", "HASH", "S")]).await;
    let table = Table::new(client(), &name).expect("a name");
    for message in [other(table.check().await), other(table.create_if_missing().await)] {
        for part in [name.as_str(), "DescribeTable", "id HASH (S)", "breaker_name HASH (S)"] {
            assert!(message.contains(part), "{message} does not contain {part}");
        }
    }
    assert_eq!(time_to_live(&name).await.0, Some(TimeToLiveStatus::Disabled));
}

#[tokio::test]
async fn a_table_that_is_as_wanted_passes_the_check() {
    let name = new_table().await;
    Table::new(client(), &name).expect("a name").check().await.expect("it is as wanted");
    let store = DynamoDbStore::connect(client(), &name).await.expect("it is as wanted");
    assert_eq!(store.table(), name);
}

#[tokio::test]
async fn bad_settings_of_a_table_are_refused_with_what_to_change() {
    for name in ["", "ab", "a b", "circuits/x", "circuits\n", "tabelleñ", &"x".repeat(256)] {
        let message = other(Table::new(client(), name));
        assert!(message.contains(&format!("{name:?}")) && message.contains("3 to 255"), "{message}");
    }
    let table = || Table::new(client(), new_name()).expect("a name");
    for (read_units, write_units) in [(0, 1), (1, 0)] {
        let message = other(table().billing(Billing::Provisioned { read_units, write_units }).create().await);
        assert!(message.contains("CreateTable") && message.contains("at least 1"), "{message}");
    }
    for attribute in ["", "breaker_name", "value", "version", "expires_at_ms"] {
        let message = other(table().ttl_attribute(attribute).create_if_missing().await);
        assert!(message.contains("ttl_attribute"), "{message}");
    }
}

#[tokio::test]
async fn a_wait_that_is_over_names_the_table_and_may_be_tried_again() {
    let name = new_name();
    let table = Table::new(client(), &name).expect("a name").wait_at_most(Duration::ZERO);
    match table.create_if_missing().await {
        Err(StoreError::Unavailable { message, .. }) => assert!(message.contains(&name), "{message}"),
        other => panic!("no time was given: {other:?}"),
    }
    table.wait_at_most(Duration::from_secs(60)).create_if_missing().await.expect("a table");
}
