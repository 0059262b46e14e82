//! [`DynamoDbStore`]: load and swap as one GetItem and one conditional PutItem.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::error::SdkError;
use aws_sdk_dynamodb::operation::put_item::PutItemError;
use aws_sdk_dynamodb::primitives::Blob;
use aws_sdk_dynamodb::types::{AttributeValue, ReturnValuesOnConditionCheckFailure};
use circuitry_store::store::{check_name, ttl_ms};
use circuitry_store::{Entry, Loaded, Receipt, Store, StoreError, Swapped, Version};

use crate::DynamoDbStoreBuilder;
use crate::clock::{Call, ServerClock};
use crate::error::{Operation, Request};

/// The table's hash key: the circuit's name.
pub(crate) const KEY: &str = "breaker_name";
const VALUE: &str = "value";
const VERSION: &str = "version";
const EXPIRES_AT_MS: &str = "expires_at_ms";
/// The attributes that an item has anyway, so none of them can be DynamoDB's time to live.
pub(crate) const ATTRIBUTES: [&str; 4] = [KEY, VALUE, VERSION, EXPIRES_AT_MS];

/// There is no item, or one of ours whose time is over. The types guard an item that somebody else put there.
const IS_ABSENT: &str = "attribute_not_exists(#key) OR \
    (#expires_at_ms <= :now_ms AND attribute_type(#value, :binary) AND attribute_type(#version, :binary))";
/// The item is the expected one, and its time is not over.
const IS_UNCHANGED: &str = "#version = :expected AND attribute_type(#value, :binary) AND \
    (attribute_not_exists(#expires_at_ms) OR #expires_at_ms > :now_ms)";

/// A store in a DynamoDB table: one item per circuit. Clones share their client and what they know of the clock.
///
/// See the [crate's page](crate) for the table's layout, the permissions and the clock.
///
/// # Example
/// ```no_run
/// use circuitry_dynamodb::DynamoDbStore;
/// use circuitry_store::Store;
///
/// # async fn example(client: aws_sdk_dynamodb::Client) -> Result<(), circuitry_store::StoreError> {
/// let store = DynamoDbStore::connect(client, "circuits").await?;
/// let emails = store.load("emails/acme").await?;
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct DynamoDbStore {
    pub(crate) client: Client,
    pub(crate) clock: Arc<ServerClock>,
    pub(crate) table: String,
    pub(crate) ttl_attribute: String,
}

impl fmt::Debug for DynamoDbStore {
    // The client prints pages, and none of them helps.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("DynamoDbStore")
            .field("table", &self.table)
            .field("ttl_attribute", &self.ttl_attribute)
            .finish_non_exhaustive()
    }
}

impl DynamoDbStore {
    /// Makes a store on `table` with default settings, without asking the server anything.
    ///
    /// # Errors
    /// [`StoreError::Other`] when the table's name is none.
    pub fn new(client: Client, table: impl Into<String>) -> Result<Self, StoreError> {
        Self::builder(client, table).build()
    }

    /// Makes a store on `table` with default settings and checks that the table is there and has the right key.
    ///
    /// It also fetches the credentials and learns the server's time, so that the first call need not. It takes at most
    /// 20 s, whatever the store's timeout is.
    ///
    /// # Errors
    /// [`StoreError::Other`] when the table is missing, being deleted or has another key; it names what to change. Else
    /// what became of the DescribeTable that it sends.
    ///
    /// # Cancel safety
    /// It writes nothing; dropping it has no effect.
    pub async fn connect(client: Client, table: impl Into<String>) -> Result<Self, StoreError> {
        Self::builder(client, table).connect().await
    }

    /// Makes a store on `table` with settings of your own.
    ///
    /// # Example
    /// ```
    /// use circuitry_dynamodb::{DynamoDbStore, local_client};
    /// use std::time::Duration;
    ///
    /// let client = local_client("http://127.0.0.1:8000")?;
    /// let store = DynamoDbStore::builder(client, "circuits").operation_timeout(Duration::from_millis(300)).build()?;
    /// # Ok::<(), circuitry_store::StoreError>(())
    /// ```
    pub fn builder(client: Client, table: impl Into<String>) -> DynamoDbStoreBuilder {
        DynamoDbStoreBuilder::new(client, table.into())
    }

    /// The table's name.
    pub fn table(&self) -> &str {
        &self.table
    }

    fn request(&self, operation: Operation) -> Request<'_> {
        Request::new(operation, &self.table)
    }

    /// The item as it is now. One whose time is over is absent, whether or not DynamoDB has deleted it.
    fn loaded(&self, request: Request<'_>, circuit: &str, item: Option<&Item>) -> Result<Loaded, StoreError> {
        let now_ms = self.clock.now_ms();
        let row =
            item.map(|item| Row::read(item).map_err(|foreign| foreign.told(request, circuit))).transpose()?;
        let entry =
            row.filter(|row| row.expires_at_ms.is_none_or(|at_ms| at_ms > now_ms)).map(|row| row.entry);
        Ok(Loaded { entry, now_ms: Some(now_ms) })
    }

    /// No write before the table has answered a read or a connect: a host's clock that is minutes off must not take a
    /// live entry for an expired one, and a table whose key merely looks like ours must not get an item.
    async fn hear_the_table(&self, circuit: &str) -> Result<(), StoreError> {
        if !self.clock.is_heard() {
            self.load(circuit).await?;
        }
        Ok(())
    }
}

#[async_trait::async_trait]
impl Store for DynamoDbStore {
    async fn load(&self, circuit: &str) -> Result<Loaded, StoreError> {
        check_name(circuit)?;
        let request = self.request(Operation::Load);
        let call = Call::new(&self.clock);
        let answer = self
            .client
            .get_item()
            .table_name(&self.table)
            .key(KEY, AttributeValue::S(circuit.to_owned()))
            .consistent_read(true)
            .customize()
            .interceptor(call.clone())
            .send()
            .await
            .map_err(|error| request.failed(call.was_sent(), error))?;
        self.loaded(request, circuit, answer.item.as_ref())
    }

    async fn swap(
        &self,
        circuit: &str,
        expected: Option<&Version>,
        value: &[u8],
        ttl: Option<Duration>,
    ) -> Result<Swapped, StoreError> {
        check_name(circuit)?;
        // Minted before anything is sent, so that a conflict which shows it is known to be our own write.
        let version = Version::mint()?;
        self.hear_the_table(circuit).await?;
        let request = self.request(Operation::Swap);
        let now_ms = self.clock.now_ms();

        let mut put = self
            .client
            .put_item()
            .table_name(&self.table)
            .item(KEY, AttributeValue::S(circuit.to_owned()))
            .item(VALUE, binary(value))
            .item(VERSION, binary(version.as_bytes()))
            .expression_attribute_names("#value", VALUE)
            .expression_attribute_names("#version", VERSION)
            .expression_attribute_names("#expires_at_ms", EXPIRES_AT_MS)
            .expression_attribute_values(":now_ms", number(now_ms))
            .expression_attribute_values(":binary", AttributeValue::S("B".to_owned()))
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld);
        if let Some(ttl) = ttl {
            let expires_at_ms = now_ms.saturating_add(ttl_ms(ttl));
            put = put
                .item(EXPIRES_AT_MS, number(expires_at_ms))
                // Rounded up, so that DynamoDB deletes nothing before its time.
                .item(&self.ttl_attribute, number(expires_at_ms.div_ceil(1_000)));
        }
        put = match expected {
            None => put.condition_expression(IS_ABSENT).expression_attribute_names("#key", KEY),
            Some(expected) => put
                .condition_expression(IS_UNCHANGED)
                .expression_attribute_values(":expected", binary(expected.as_bytes())),
        };

        let call = Call::new(&self.clock);
        let Err(error) = put.customize().interceptor(call.clone()).send().await else {
            return Ok(Swapped::Stored(Receipt { version, now_ms: Some(self.clock.now_ms()) }));
        };
        let stands = match &error {
            SdkError::ServiceError(answer) => match answer.err() {
                PutItemError::ConditionalCheckFailedException(lost) => lost.item(),
                _ => return Err(request.failed(call.was_sent(), error)),
            },
            _ => return Err(request.failed(call.was_sent(), error)),
        };
        if stands.is_none() && expected.is_none() {
            // Something stands in the way, so this server does not tell what: an answer of its absence would be a lie.
            return Err(request.rejected(
                "the server does not return the item that failed the condition; use DynamoDB Local 1.25 or later",
            ));
        }
        if stands.and_then(|item| bytes(item, VERSION)) == Some(version.as_bytes()) {
            // Something between us and the table sent it twice, and the first was stored.
            return Ok(Swapped::Stored(Receipt { version, now_ms: Some(self.clock.now_ms()) }));
        }
        Ok(Swapped::Conflict(self.loaded(request, circuit, stands)?))
    }
}

type Item = HashMap<String, AttributeValue>;

/// One of our items.
struct Row {
    entry: Entry,
    expires_at_ms: Option<u64>,
}

/// An item that we did not write: the attribute that shows it.
struct Foreign(&'static str);

impl Row {
    fn read(item: &Item) -> Result<Self, Foreign> {
        let value = bytes(item, VALUE).ok_or(Foreign(VALUE))?;
        let version = bytes(item, VERSION).ok_or(Foreign(VERSION))?;
        let expires_at_ms = match item.get(EXPIRES_AT_MS) {
            None => None,
            Some(AttributeValue::N(number)) => Some(instant_ms(number).ok_or(Foreign(EXPIRES_AT_MS))?),
            Some(_) => return Err(Foreign(EXPIRES_AT_MS)),
        };
        let entry = Entry { value: value.to_vec(), version: Version::from_bytes(version) };
        Ok(Self { entry, expires_at_ms })
    }
}

impl Foreign {
    fn told(self, request: Request<'_>, circuit: &str) -> StoreError {
        request.rejected(format_args!(
            "the item with {KEY} {circuit:?} is not one of circuitry's: its attribute {:?} is missing or of another \
             type. Nothing was written; delete the item, or use a table of your own for circuits",
            self.0
        ))
    }
}

/// A number as DynamoDB tells it, as an instant that is over for us when it is over for the conditions: those compare numbers of any
/// kind with whole milliseconds.
fn instant_ms(number: &str) -> Option<u64> {
    let (whole, has_rest) = match number.split_once('.') {
        Some((whole, _)) => (whole, true),
        None => (number, false),
    };
    if let Some(magnitude) = whole.strip_prefix('-') {
        return is_digits(magnitude).then_some(0);
    }
    let at_ms = is_digits(whole).then(|| whole.parse().unwrap_or(u64::MAX))?;
    Some(at_ms.saturating_add(u64::from(has_rest)))
}

fn is_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

fn bytes<'a>(item: &'a Item, attribute: &str) -> Option<&'a [u8]> {
    item.get(attribute)?.as_b().ok().map(Blob::as_ref)
}

fn binary(bytes: &[u8]) -> AttributeValue {
    AttributeValue::B(Blob::new(bytes))
}

fn number(number: u64) -> AttributeValue {
    AttributeValue::N(number.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_of_any_kind_is_over_when_it_is_over_for_the_conditions() {
        let read = [
            ("0", Some(0)),
            ("1800000000000", Some(1_800_000_000_000)),
            ("1.5", Some(2)),
            ("-1", Some(0)),
            ("-0.5", Some(0)),
            ("99999999999999999999999999999999999999", Some(u64::MAX)),
            ("", None),
            ("-", None),
            ("ten", None),
        ];
        for (number, at_ms) in read {
            assert_eq!(instant_ms(number), at_ms, "{number:?}");
        }
    }
}
