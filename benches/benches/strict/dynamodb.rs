//! The requests of a strict call on DynamoDB, sent bare by the same SDK client: the same items and the same conditions.

use std::time::Duration;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::config::StalledStreamProtectionConfig;
use aws_sdk_dynamodb::config::retry::RetryConfig;
use aws_sdk_dynamodb::config::timeout::TimeoutConfig;
use aws_sdk_dynamodb::operation::put_item::builders::PutItemFluentBuilder;
use aws_sdk_dynamodb::primitives::Blob;
use aws_sdk_dynamodb::types::{AttributeValue, ReturnValuesOnConditionCheckFailure};
use circuitry_store::Version;

use crate::VALUE_BYTES;

pub(crate) struct Bare {
    client: Client,
    table: String,
    circuit: String,
    version: Vec<u8>,
}

impl Bare {
    pub(crate) async fn new(client: Client, table: &str) -> Self {
        // As lean as the adapter's own: it sends once, and within a second.
        let timeouts = TimeoutConfig::builder().operation_timeout(Duration::from_secs(1)).build();
        let config =
            client.config().to_builder().retry_config(RetryConfig::disabled()).timeout_config(timeouts);
        let lean = config.stalled_stream_protection(StalledStreamProtectionConfig::disabled());
        let client = Client::from_conf(lean.build());
        let circuit = "bench/bare".to_owned();
        let version = Version::mint().expect("randomness").into_bytes();
        let bare = Self { client, table: table.to_owned(), circuit, version };
        bare.put(&bare.version).send().await.expect("stored");
        bare
    }

    /// One bare read.
    pub(crate) async fn read(&self) {
        let answer = self
            .client
            .get_item()
            .table_name(&self.table)
            .key("breaker_name", AttributeValue::S(self.circuit.clone()))
            .consistent_read(true)
            .send()
            .await
            .expect("an answer");
        assert!(answer.item.is_some());
    }

    /// What a call sends.
    pub(crate) async fn load_and_swap(&mut self) {
        self.read().await;
        let next = Version::mint().expect("randomness").into_bytes();
        self.put(&next)
            .condition_expression(
                "#version = :expected AND attribute_type(#value, :binary) AND \
                 (attribute_not_exists(#expires_at_ms) OR #expires_at_ms > :now_ms)",
            )
            .expression_attribute_names("#value", "value")
            .expression_attribute_names("#version", "version")
            .expression_attribute_names("#expires_at_ms", "expires_at_ms")
            .expression_attribute_values(":now_ms", number(1_800_000_000_000))
            .expression_attribute_values(":binary", AttributeValue::S("B".to_owned()))
            .expression_attribute_values(":expected", binary(&self.version))
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
            .send()
            .await
            .expect("stored");
        self.version = next;
    }

    fn put(&self, version: &[u8]) -> PutItemFluentBuilder {
        self.client
            .put_item()
            .table_name(&self.table)
            .item("breaker_name", AttributeValue::S(self.circuit.clone()))
            .item("value", binary(&[b'x'; VALUE_BYTES]))
            .item("version", binary(version))
            .item("expires_at_ms", number(1_900_000_000_000))
            .item("ttl", number(1_900_000_000))
    }
}

fn binary(bytes: &[u8]) -> AttributeValue {
    AttributeValue::B(Blob::new(bytes))
}

fn number(number: u64) -> AttributeValue {
    AttributeValue::N(number.to_string())
}
