//! DynamoDB Local as the tests use it: clients, tables of their own, and interceptors that count or turn the clock.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::config::interceptors::{
    BeforeDeserializationInterceptorContextMut, BeforeTransmitInterceptorContextRef,
};
use aws_sdk_dynamodb::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_dynamodb::error::BoxError;
use aws_sdk_dynamodb::primitives::{DateTime, DateTimeFormat};
use circuitry_dynamodb::{DynamoDbStore, Table, local_client};
use circuitry_store::{Clock, Entry, Loaded, ManualClock, Receipt, StoreError, Swapped};

/// So long that a loaded machine does not fail a test that is about something else.
pub(crate) const PATIENT: Duration = Duration::from_secs(20);

pub(crate) fn url() -> String {
    std::env::var("CIRCUITRY_TEST_DYNAMODB_URL").unwrap_or_else(|_| {
        panic!("CIRCUITRY_TEST_DYNAMODB_URL is not set: run `cargo xtask test`, which starts the servers")
    })
}

pub(crate) fn address() -> SocketAddr {
    let url = url();
    let address = url.trim_start_matches("http://").trim_end_matches('/');
    address.parse().unwrap_or_else(|_| panic!("{url:?} is not like http://127.0.0.1:8000"))
}

pub(crate) fn client() -> Client {
    local_client(&url()).expect("an endpoint")
}

/// A client that goes through a proxy or to a scripted server.
pub(crate) fn client_at(address: SocketAddr) -> Client {
    local_client(&format!("http://{address}")).expect("an endpoint")
}

pub(crate) fn with_interceptor(client: &Client, interceptor: impl Intercept + 'static) -> Client {
    Client::from_conf(client.config().to_builder().interceptor(interceptor).build())
}

pub(crate) fn new_name() -> String {
    format!("circuits-{:016x}", fastrand::u64(..))
}

/// A table of the test's own.
pub(crate) async fn new_table() -> String {
    let name = new_name();
    Table::new(client(), &name).expect("a name").create().await.expect("a new table");
    name
}

pub(crate) fn store_at(client: Client, table: &str) -> DynamoDbStore {
    DynamoDbStore::builder(client, table).operation_timeout(PATIENT).build().expect("a store")
}

pub(crate) fn system_now_ms() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("a time after 1970");
    u64::try_from(now.as_millis()).expect("a time before the year 584942417")
}

pub(crate) fn stored(swapped: Result<Swapped, StoreError>) -> Receipt {
    match swapped.expect("a swap") {
        Swapped::Stored(receipt) => receipt,
        Swapped::Conflict(loaded) => panic!("the swap lost against {loaded:?}"),
    }
}

pub(crate) fn conflict(swapped: Result<Swapped, StoreError>) -> Loaded {
    match swapped.expect("a swap") {
        Swapped::Conflict(loaded) => loaded,
        Swapped::Stored(receipt) => panic!("the swap was stored: {receipt:?}"),
    }
}

pub(crate) fn present(loaded: Loaded) -> Entry {
    loaded.entry.expect("an entry")
}

/// Counts what a client sends, each attempt for itself.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sent(Arc<AtomicUsize>);

impl Sent {
    /// How many requests were sent since the last time this was asked.
    pub(crate) fn take(&self) -> usize {
        self.0.swap(0, Ordering::SeqCst)
    }
}

impl Intercept for Sent {
    fn name(&self) -> &'static str {
        "sent"
    }

    fn read_before_transmit(
        &self,
        _: &BeforeTransmitInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        self.0.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }
}

/// Makes the real server's answers tell the time of a movable clock.
#[derive(Debug)]
pub(crate) struct ServerTime(pub(crate) ManualClock);

impl Intercept for ServerTime {
    fn name(&self) -> &'static str {
        "server time"
    }

    fn modify_before_deserialization(
        &self,
        context: &mut BeforeDeserializationInterceptorContextMut<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let now = DateTime::from_secs(i64::try_from(self.0.now_ms() / 1_000)?);
        context.response_mut().headers_mut().insert("date", now.fmt(DateTimeFormat::HttpDate)?);
        Ok(())
    }
}
