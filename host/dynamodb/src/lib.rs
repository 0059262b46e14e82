#![doc = include_str!("../README.md")]
//!
//! # Layout of the crate
//! - this page: configuration, [`DynamoDbStoreBuilder`] and [`local_client`]
//! - `store`: the adapter, [`DynamoDbStore`]
//! - `table`: [`Table`], which creates and checks the table
//! - `clock`: the host's clock, corrected by the server's
//! - `error`: which [`StoreError`] an error of the SDK is

mod clock;
mod error;
mod store;
mod table;

use std::sync::Arc;
use std::time::Duration;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::config::retry::RetryConfig;
use aws_sdk_dynamodb::config::timeout::TimeoutConfig;
use aws_sdk_dynamodb::config::{BehaviorVersion, Credentials, Region, StalledStreamProtectionConfig};
use circuitry_store::{Clock, StoreError, SystemClock};

pub use store::DynamoDbStore;
pub use table::{Billing, Creation, DEFAULT_TABLE_WAIT, Table};

use clock::{Call, ServerClock};

/// How long a request may take, unless set: [`DynamoDbStoreBuilder::operation_timeout`].
pub const DEFAULT_OPERATION_TIMEOUT: Duration = Duration::from_secs(1);
/// The attribute in which DynamoDB looks for the time to delete an item, unless set.
pub const DEFAULT_TTL_ATTRIBUTE: &str = "ttl";

/// A call that may take longer than this protects nothing.
const LONGEST_TIMEOUT: Duration = Duration::from_secs(60);

/// Settings of a [`DynamoDbStore`], made by [`DynamoDbStore::builder`].
#[derive(Debug)]
#[must_use = "a builder does nothing until `build` or `connect`"]
pub struct DynamoDbStoreBuilder {
    client: Client,
    table: String,
    operation_timeout: Duration,
    ttl_attribute: String,
    clock: Box<dyn Clock>,
}

impl DynamoDbStoreBuilder {
    pub(crate) fn new(client: Client, table: String) -> Self {
        Self {
            client,
            table,
            operation_timeout: DEFAULT_OPERATION_TIMEOUT,
            ttl_attribute: DEFAULT_TTL_ATTRIBUTE.to_owned(),
            clock: Box::new(SystemClock::new()),
        }
    }

    /// Bounds a request, everything included: credentials, connection, answer. More than 0, at most 60 s.
    ///
    /// A load is one request; so is a swap, unless it is a handle's first operation. Half of the time is the most that
    /// a connection may take, so that a server out of reach is told from a slow one.
    pub fn operation_timeout(mut self, timeout: Duration) -> Self {
        self.operation_timeout = timeout;
        self
    }

    /// Names the attribute in which DynamoDB looks for the time to delete an item; give [`Table`] the same name.
    pub fn ttl_attribute(mut self, name: impl Into<String>) -> Self {
        self.ttl_attribute = name.into();
        self
    }

    /// Takes the host's time from `clock`, for tests. It is corrected by the server's `Date` like any other.
    pub fn clock(mut self, clock: impl Clock) -> Self {
        self.clock = Box::new(clock);
        self
    }

    /// Makes the store without asking the server anything.
    ///
    /// # Errors
    /// [`StoreError::Other`] that names the setting to change.
    pub fn build(self) -> Result<DynamoDbStore, StoreError> {
        table::check_table_name(&self.table)?;
        table::check_ttl_attribute(&self.ttl_attribute, &self.table)?;
        if self.operation_timeout.is_zero() || self.operation_timeout > LONGEST_TIMEOUT {
            return Err(StoreError::rejected(format!(
                "operation_timeout of the store on table {:?} is {:?}; set more than 0 and at most {LONGEST_TIMEOUT:?}",
                self.table, self.operation_timeout
            )));
        }
        Ok(DynamoDbStore {
            client: bounded(&self.client, self.operation_timeout),
            clock: Arc::new(ServerClock::new(self.clock, &self.table)),
            table: self.table,
            ttl_attribute: self.ttl_attribute,
        })
    }

    /// Makes the store and checks that the table is there and has the right key; see [`DynamoDbStore::connect`].
    ///
    /// # Errors
    /// Those of [`build`](Self::build) and of [`Table::check`].
    ///
    /// # Cancel safety
    /// It writes nothing; dropping it has no effect.
    pub async fn connect(self) -> Result<DynamoDbStore, StoreError> {
        let store = self.build()?;
        table::check(&store.client, &store.table, Call::new(&store.clock)).await?;
        Ok(store)
    }
}

/// The user's client with our bounds: one attempt, since the caller holds the deadline and a swap that was sent twice
/// would be counted twice; and a time after which it ends.
fn bounded(client: &Client, operation_timeout: Duration) -> Client {
    let config = client.config();
    let given = config.timeout_config();
    let half = operation_timeout / 2;
    let connect_timeout =
        given.and_then(TimeoutConfig::connect_timeout).map_or(half, |given| given.min(half));
    let timeouts = given
        .map_or_else(TimeoutConfig::builder, TimeoutConfig::to_builder)
        .operation_timeout(operation_timeout)
        .connect_timeout(connect_timeout)
        .build();
    let bounded = config
        .to_builder()
        .retry_config(RetryConfig::disabled())
        .timeout_config(timeouts)
        // It watches long downloads; ours are short and bounded as a whole.
        .stalled_stream_protection(StalledStreamProtectionConfig::disabled());
    Client::from_conf(bounded.build())
}

/// Makes a client for a server that does not look at credentials: DynamoDB Local, at `http://127.0.0.1:8000` or so.
///
/// Its credentials are fixed, since DynamoDB Local keeps a separate set of tables for each pair of access key and
/// region. It goes to the server directly, whatever `HTTP_PROXY` says.
///
/// # Errors
/// [`StoreError::Other`] when `endpoint_url` is not an `http` or `https` URL with a host.
///
/// # Example
/// ```
/// let client = circuitry_dynamodb::local_client("http://127.0.0.1:8000")?;
/// assert!(circuitry_dynamodb::local_client("127.0.0.1:8000").is_err());
/// # Ok::<(), circuitry_store::StoreError>(())
/// ```
pub fn local_client(endpoint_url: &str) -> Result<Client, StoreError> {
    let is_url = endpoint_url.parse::<http::Uri>().is_ok_and(|uri| {
        matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some_and(|host| !host.is_empty())
    });
    if !is_url {
        return Err(StoreError::rejected(format!(
            "the endpoint {endpoint_url:?} is no URL of a server; write it like \"http://127.0.0.1:8000\""
        )));
    }
    #[expect(deprecated, reason = "later versions send requests to this host through HTTP_PROXY")]
    let direct = BehaviorVersion::v2025_01_17();
    let config = aws_sdk_dynamodb::Config::builder()
        .behavior_version(direct)
        .region(Region::from_static("us-east-1"))
        .credentials_provider(Credentials::new("local", "local", None, None, "circuitry"))
        .endpoint_url(endpoint_url)
        .build();
    Ok(Client::from_conf(config))
}
