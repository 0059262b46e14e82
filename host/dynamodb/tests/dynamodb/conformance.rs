//! The suite that every store passes, by the system's clock and by one that is moved.

use std::net::{Ipv4Addr, TcpListener};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_sdk_dynamodb::Client;
use circuitry_dynamodb::DynamoDbStore;
use circuitry_store::conformance::{Harness, LossyProxy};
use circuitry_store::{ManualClock, Store};

use crate::server::{
    PATIENT, ServerTime, address, client, client_at, new_table, system_now_ms, with_interceptor,
};

struct DynamoDb {
    table: String,
    /// The clock of host and server alike; without one, both keep the system's time.
    clock: Option<ManualClock>,
    /// They forward as long as they live.
    proxies: Mutex<Vec<LossyProxy>>,
}

impl DynamoDb {
    async fn new(clock: Option<ManualClock>) -> Self {
        Self { table: new_table().await, clock, proxies: Mutex::default() }
    }

    fn store(&self, client: &Client) -> Arc<dyn Store> {
        let mut builder = DynamoDbStore::builder(client.clone(), &self.table);
        if let Some(clock) = &self.clock {
            let client = with_interceptor(client, ServerTime(clock.clone()));
            builder = DynamoDbStore::builder(client, &self.table).clock(clock.clone());
        }
        Arc::new(builder.operation_timeout(PATIENT).build().expect("a store"))
    }
}

#[async_trait::async_trait]
impl Harness for DynamoDb {
    async fn open(&self) -> Arc<dyn Store> {
        self.store(&client())
    }

    async fn wait_ms(&self, ms: u64) {
        match &self.clock {
            Some(clock) => clock.advance_ms(ms),
            None => tokio::time::sleep(Duration::from_millis(ms)).await,
        }
    }

    async fn open_unreachable(&self) -> Arc<dyn Store> {
        let closed = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let nobody = closed.local_addr().expect("its address");
        drop(closed);
        self.store(&client_at(nobody))
    }

    async fn open_losing_answer(&self) -> Arc<dyn Store> {
        let proxy = LossyProxy::start(address()).await.expect("a proxy");
        let store = self.store(&client_at(proxy.address()));
        proxy.lose_answer_to("DynamoDB_20120810.PutItem");
        self.proxies.lock().expect("no panic before").push(proxy);
        store
    }
}

mod by_the_system_clock {
    use super::DynamoDb;

    circuitry_store::conformance_tests!(DynamoDb::new(None).await);
}

mod by_a_clock_that_is_moved {
    use super::{DynamoDb, ManualClock, system_now_ms};

    circuitry_store::conformance_tests!(DynamoDb::new(Some(ManualClock::at_ms(system_now_ms()))).await);
}
