//! [`Table`]: creates the table, waits until it can be used, and checks one that is there.

use std::time::Duration;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::config::retry::RetryConfig;
use aws_sdk_dynamodb::config::timeout::TimeoutConfig;
use aws_sdk_dynamodb::error::{BuildError, ProvideErrorMetadata};
use aws_sdk_dynamodb::types::{
    AttributeDefinition, BillingMode, KeySchemaElement, KeyType, ProvisionedThroughput, ScalarAttributeType,
    TableDescription, TableStatus, Tag, TimeToLiveSpecification, TimeToLiveStatus,
};
use backon::{ExponentialBuilder, Retryable};
use circuitry_store::StoreError;

use crate::DEFAULT_TTL_ATTRIBUTE;
use crate::clock::Call;
use crate::error::{Operation, Request};
use crate::store::{ATTRIBUTES, KEY};

/// How long a new table may take until it can be used, unless set: [`Table::wait_at_most`].
pub const DEFAULT_TABLE_WAIT: Duration = Duration::from_secs(120);
/// One attempt of a request about the table. They are slower than reads and writes, and nobody's work waits for them.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(5);
/// All attempts of one request about the table.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(20);

/// How DynamoDB bills for a table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Billing {
    /// For each request. It takes any load and has no setting.
    #[default]
    OnDemand,
    /// For capacity that is kept ready; requests above it are throttled.
    Provisioned {
        /// Strongly consistent reads of up to 4 KB a second. A load costs one (for each 4 KB).
        read_units: u32,
        /// Writes of up to 1 KB a second. A swap costs one (for each KB), also when it loses the race.
        write_units: u32,
    },
}

/// What [`Table::create_if_missing`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Creation {
    /// The table was missing and has been created.
    Created,
    /// The table was there, or somebody else created it just now.
    Existed,
}

/// Creates the table that a [`DynamoDbStore`](crate::DynamoDbStore) needs, or checks the one that is there.
///
/// The store itself needs none of it: create the table with whatever you create tables with, if its key is right.
///
/// # Example
/// ```no_run
/// use circuitry_dynamodb::{Billing, Table};
///
/// # async fn example(client: aws_sdk_dynamodb::Client) -> Result<(), circuitry_store::StoreError> {
/// let creation = Table::new(client, "circuits")?
///     .billing(Billing::Provisioned { read_units: 50, write_units: 50 })
///     .tag("team", "payments")
///     .create_if_missing()
///     .await?;
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
#[must_use = "a table is not created before `create` or `create_if_missing`"]
pub struct Table {
    client: Client,
    name: String,
    billing: Billing,
    tags: Vec<(String, String)>,
    ttl_attribute: String,
    wait_at_most: Duration,
}

impl Table {
    /// Begins with a table that is billed on demand, without tags, whose time to live is in the attribute `ttl`.
    ///
    /// # Errors
    /// [`StoreError::Other`] when `name` is not 3 to 255 of the characters `a-z A-Z 0-9 _ . -`.
    pub fn new(client: Client, name: impl Into<String>) -> Result<Self, StoreError> {
        let name = name.into();
        check_table_name(&name)?;
        Ok(Self {
            client,
            name,
            billing: Billing::default(),
            tags: Vec::new(),
            ttl_attribute: DEFAULT_TTL_ATTRIBUTE.to_owned(),
            wait_at_most: DEFAULT_TABLE_WAIT,
        })
    }

    /// Sets how the table is billed when it is created.
    pub fn billing(mut self, billing: Billing) -> Self {
        self.billing = billing;
        self
    }

    /// Adds a tag that the table has when it is created.
    pub fn tag(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.tags.push((key.into(), value.into()));
        self
    }

    /// Names the attribute in which DynamoDB looks for the time to delete an item; give the store the same name.
    pub fn ttl_attribute(mut self, name: impl Into<String>) -> Self {
        self.ttl_attribute = name.into();
        self
    }

    /// Bounds the creation as a whole, the wait until the table can be used included.
    pub fn wait_at_most(mut self, wait: Duration) -> Self {
        self.wait_at_most = wait;
        self
    }

    /// Creates the table, waits until it can be used, and turns time to live on.
    ///
    /// # Errors
    /// [`StoreError::Other`] when there is a table of that name, or a setting is not valid; it names what to change.
    /// [`StoreError::Unknown`] when the answer to the creation is missing, [`StoreError::Unavailable`] when the table
    /// cannot be used in time: [`create_if_missing`](Self::create_if_missing) then goes on where this one ended.
    ///
    /// # Cancel safety
    /// Dropping it may leave a table without time to live; `create_if_missing` goes on from there.
    pub async fn create(&self) -> Result<(), StoreError> {
        self.bounded(async {
            if self.send_creation().await? == Creation::Existed {
                let request = Request::new(Operation::CreateTable, &self.name);
                return Err(request.rejected(
                    "there is a table of that name; call `create_if_missing` to use it, or choose another name",
                ));
            }
            self.complete().await
        })
        .await
    }

    /// Creates the table unless it is there, waits until it can be used, and turns time to live on if it is off.
    ///
    /// Call it as often as you like, from as many processes as you like. A table that is there keeps its billing and
    /// tags; its key is checked.
    ///
    /// # Errors
    /// [`StoreError::Other`] when the table has another key or another attribute for time to live, or when a setting is
    /// not valid; it names what to change. Else as for [`create`](Self::create).
    ///
    /// # Cancel safety
    /// Dropping it may leave a table without time to live; the next call goes on from there.
    pub async fn create_if_missing(&self) -> Result<Creation, StoreError> {
        self.bounded(async {
            let creation = match self.describe().await? {
                Some(_) => Creation::Existed,
                None => self.send_creation().await?,
            };
            self.complete().await?;
            Ok(creation)
        })
        .await
    }

    /// Checks that the table is there and that its only key is `breaker_name`, a string hash key. It changes nothing.
    ///
    /// # Errors
    /// [`StoreError::Other`] when the table is missing, being deleted, or has another key: the message has the key that
    /// was found and the one that is wanted.
    ///
    /// # Cancel safety
    /// Dropping it has no effect.
    pub async fn check(&self) -> Result<(), StoreError> {
        check(&self.client, &self.name, Call::without_clock()).await
    }

    async fn bounded<T>(&self, work: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
        check_ttl_attribute(&self.ttl_attribute, &self.name)?;
        tokio::time::timeout(self.wait_at_most, work).await.unwrap_or_else(|elapsed| {
            let request = Request::new(Operation::DescribeTable, &self.name);
            let what = format!("the table cannot be used after {:?}; try again", self.wait_at_most);
            Err(StoreError::unavailable(request.message(what), elapsed))
        })
    }

    async fn describe(&self) -> Result<Option<TableDescription>, StoreError> {
        describe(&self.client, &self.name, Call::without_clock()).await
    }

    async fn send_creation(&self) -> Result<Creation, StoreError> {
        let request = Request::new(Operation::CreateTable, &self.name);
        let built = |error: BuildError| StoreError::other(request.message("a setting is not valid"), error);
        let key = AttributeDefinition::builder()
            .attribute_name(KEY)
            .attribute_type(ScalarAttributeType::S)
            .build()
            .map_err(built)?;
        let hash =
            KeySchemaElement::builder().attribute_name(KEY).key_type(KeyType::Hash).build().map_err(built)?;
        let mut create =
            self.client.create_table().table_name(&self.name).attribute_definitions(key).key_schema(hash);
        create = match self.billing {
            Billing::OnDemand => create.billing_mode(BillingMode::PayPerRequest),
            Billing::Provisioned { read_units, write_units } => {
                if read_units == 0 || write_units == 0 {
                    return Err(request.rejected(format_args!(
                        "provisioned throughput of {read_units} read and {write_units} write units; set at least 1 of \
                         each"
                    )));
                }
                let throughput = ProvisionedThroughput::builder()
                    .read_capacity_units(read_units.into())
                    .write_capacity_units(write_units.into())
                    .build()
                    .map_err(built)?;
                create.billing_mode(BillingMode::Provisioned).provisioned_throughput(throughput)
            }
        };
        for (key, value) in &self.tags {
            create = create.tags(Tag::builder().key(key).value(value).build().map_err(built)?);
        }
        // Sent once: after a lost answer, a second attempt would find our own table and call it somebody else's.
        let once = patient().retry_config(RetryConfig::disabled());
        let call = Call::without_clock();
        match create.customize().config_override(once).interceptor(call.clone()).send().await {
            Ok(_) => Ok(Creation::Created),
            Err(error) if is_in_use(&error) => Ok(Creation::Existed),
            Err(error) => Err(request.failed(call.was_sent(), error)),
        }
    }

    /// Waits until the table can be used, checks its key, and turns time to live on.
    async fn complete(&self) -> Result<(), StoreError> {
        let backoff = ExponentialBuilder::default()
            .with_min_delay(Duration::from_millis(50))
            .with_max_delay(Duration::from_secs(5))
            .with_jitter()
            // `bounded` ends it.
            .without_max_times();
        let request = Request::new(Operation::DescribeTable, &self.name);
        let look = || async {
            // A table that was created just now may not be seen yet.
            let description = self.describe().await.map_err(Wait::Failed)?.ok_or(Wait::NotYet)?;
            check_description(request, &description).map_err(Wait::Failed)?;
            if description.table_status() == Some(&TableStatus::Creating) {
                Err(Wait::NotYet)
            } else {
                Ok(())
            }
        };
        match look.retry(backoff).when(|wait| matches!(wait, Wait::NotYet)).await {
            Ok(()) => self.turn_time_to_live_on().await,
            Err(Wait::Failed(error)) => Err(error),
            Err(Wait::NotYet) => Err(StoreError::Unavailable {
                message: request.message("the table cannot be used yet; try again"),
                source: None,
            }),
        }
    }

    async fn turn_time_to_live_on(&self) -> Result<(), StoreError> {
        let request = Request::new(Operation::DescribeTimeToLive, &self.name);
        let call = Call::without_clock();
        let answer = self
            .client
            .describe_time_to_live()
            .table_name(&self.name)
            .customize()
            .config_override(patient())
            .interceptor(call.clone())
            .send()
            .await
            .map_err(|error| request.failed(call.was_sent(), error))?;
        let found = answer.time_to_live_description();
        match found.and_then(|found| found.time_to_live_status()) {
            Some(TimeToLiveStatus::Enabled | TimeToLiveStatus::Enabling) => {
                let attribute = found.and_then(|found| found.attribute_name()).unwrap_or_default();
                if attribute == self.ttl_attribute {
                    return Ok(());
                }
                Err(request.rejected(format_args!(
                    "time to live is on for the attribute {attribute:?}, not {:?}; set `ttl_attribute({attribute:?})` \
                     here and on the store",
                    self.ttl_attribute
                )))
            }
            Some(TimeToLiveStatus::Disabling) => Err(StoreError::Unavailable {
                message: request.message("time to live is just being turned off; try again in an hour"),
                source: None,
            }),
            _ => self.send_time_to_live().await,
        }
    }

    async fn send_time_to_live(&self) -> Result<(), StoreError> {
        let request = Request::new(Operation::UpdateTimeToLive, &self.name);
        let specification = TimeToLiveSpecification::builder()
            .attribute_name(&self.ttl_attribute)
            .enabled(true)
            .build()
            .map_err(|error| StoreError::other(request.message("a setting is not valid"), error))?;
        let call = Call::without_clock();
        let sent = self
            .client
            .update_time_to_live()
            .table_name(&self.name)
            .time_to_live_specification(specification)
            .customize()
            .config_override(patient())
            .interceptor(call.clone())
            .send()
            .await;
        match sent {
            Ok(_) => Ok(()),
            // Somebody else was faster.
            Err(error) if error.message().is_some_and(|message| message.contains("already enabled")) => {
                Ok(())
            }
            Err(error) => Err(request.failed(call.was_sent(), error)),
        }
    }
}

enum Wait {
    NotYet,
    Failed(StoreError),
}

/// What requests about the table get, whatever the client is set to: they may be sent twice.
fn patient() -> aws_sdk_dynamodb::config::Builder {
    let timeouts = TimeoutConfig::builder()
        .connect_timeout(ATTEMPT_TIMEOUT)
        .operation_attempt_timeout(ATTEMPT_TIMEOUT)
        .operation_timeout(REQUEST_TIMEOUT)
        .build();
    aws_sdk_dynamodb::Config::builder().retry_config(RetryConfig::standard()).timeout_config(timeouts)
}

/// The table, or `None` when it is missing.
async fn describe(client: &Client, table: &str, call: Call) -> Result<Option<TableDescription>, StoreError> {
    let request = Request::new(Operation::DescribeTable, table);
    let describe = client.describe_table().table_name(table).customize().config_override(patient());
    match describe.interceptor(call.clone()).send().await {
        Ok(answer) => Ok(answer.table),
        Err(error)
            if error.as_service_error().is_some_and(|error| error.is_resource_not_found_exception()) =>
        {
            Ok(None)
        }
        Err(error) => Err(request.failed(call.was_sent(), error)),
    }
}

/// Checks that the table is there and has the right key.
pub(crate) async fn check(client: &Client, table: &str, call: Call) -> Result<(), StoreError> {
    let request = Request::new(Operation::DescribeTable, table);
    match describe(client, table, call).await? {
        Some(description) => check_description(request, &description),
        None => Err(request.rejected(
            "there is no such table; create it with `Table::create_if_missing`, or correct its name, region or endpoint",
        )),
    }
}

fn check_description(request: Request<'_>, description: &TableDescription) -> Result<(), StoreError> {
    let definitions = description.attribute_definitions();
    let keys = description.key_schema().iter().map(|key| {
        let definition =
            definitions.iter().find(|definition| definition.attribute_name() == key.attribute_name());
        let attribute_type = definition.map_or("?", |definition| definition.attribute_type().as_str());
        format!("{} {} ({attribute_type})", key.attribute_name(), key.key_type().as_str())
    });
    let found = keys.collect::<Vec<_>>().join(", ");
    let wanted = format!("{KEY} HASH (S)");
    if found != wanted {
        return Err(request.rejected(format_args!(
            "its key is {found}, and circuitry needs {wanted}; choose another table. Nothing was written"
        )));
    }
    if description.table_status() == Some(&TableStatus::Deleting) {
        return Err(request.rejected("the table is being deleted; wait for its end and create it again"));
    }
    Ok(())
}

fn is_in_use<E: ProvideErrorMetadata>(error: &E) -> bool {
    error.code() == Some("ResourceInUseException")
}

/// Says whether `name` can be a table: 3 to 255 of the characters that DynamoDB takes.
pub(crate) fn check_table_name(name: &str) -> Result<(), StoreError> {
    let is_taken = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-');
    if (3..=255).contains(&name.len()) && name.bytes().all(is_taken) {
        return Ok(());
    }
    Err(StoreError::rejected(format!(
        "the table name {name:?} is not valid; use 3 to 255 of the characters a-z A-Z 0-9 _ . -"
    )))
}

/// Says whether `name` can be the attribute for time to live: one that has no other meaning.
pub(crate) fn check_ttl_attribute(name: &str, table: &str) -> Result<(), StoreError> {
    if (1..=255).contains(&name.len()) && !ATTRIBUTES.contains(&name) {
        return Ok(());
    }
    Err(StoreError::rejected(format!(
        "ttl_attribute of table {table:?} is {name:?}; use a name of 1 to 255 bytes that is none of {ATTRIBUTES:?}"
    )))
}
