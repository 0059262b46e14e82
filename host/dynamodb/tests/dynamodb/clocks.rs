//! Hosts whose clocks are minutes off.

use std::io;
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

use circuitry_dynamodb::DynamoDbStore;
use circuitry_store::{ManualClock, Store};
use tracing_subscriber::fmt::MakeWriter;

use crate::server::{
    PATIENT, Sent, ServerTime, client, conflict, new_table, present, stored, system_now_ms, with_interceptor,
};

const MINUTE_MS: u64 = 60_000;

/// A store on a host that shows `host` and a server that shows `server`.
fn store(table: &str, host: &ManualClock, server: &ManualClock) -> DynamoDbStore {
    DynamoDbStore::builder(with_interceptor(&client(), ServerTime(server.clone())), table)
        .clock(host.clone())
        .operation_timeout(PATIENT)
        .build()
        .expect("a store")
}

#[tokio::test]
async fn a_host_minutes_off_keeps_the_servers_time() {
    let table = new_table().await;
    let server_at_ms = system_now_ms();
    for host_at_ms in [server_at_ms - 10 * MINUTE_MS, server_at_ms + 10 * MINUTE_MS, 0] {
        let host = ManualClock::at_ms(host_at_ms);
        // This is DynamoDB Local's own `Date`.
        let store = DynamoDbStore::builder(client(), &table)
            .clock(host.clone())
            .operation_timeout(PATIENT)
            .connect()
            .await
            .expect("a store");
        let told_ms = store.load("circuit").await.expect("a load").now_ms.expect("its time");
        let off_ms = told_ms.abs_diff(system_now_ms());
        assert!(off_ms < MINUTE_MS, "by a host at {host_at_ms} it tells {told_ms}, which is {off_ms} off");
    }
}

#[tokio::test]
async fn a_host_two_seconds_off_keeps_its_own_time() {
    let table = new_table().await;
    let server = ManualClock::at_ms(system_now_ms() / 1_000 * 1_000);
    for host_at_ms in [server_now(&server) - 2_000, server_now(&server) + 2_000] {
        let host = ManualClock::at_ms(host_at_ms);
        let told_ms = store(&table, &host, &server).load("circuit").await.expect("a load").now_ms;
        assert_eq!(told_ms, Some(host_at_ms), "the header's whole seconds must not make the time jitter");
    }
}

fn server_now(clock: &ManualClock) -> u64 {
    circuitry_store::Clock::now_ms(clock)
}

#[tokio::test]
async fn entries_age_alike_on_hosts_with_clocks_minutes_apart() {
    let table = new_table().await;
    let server = ManualClock::at_ms(system_now_ms() / 1_000 * 1_000);
    let behind = ManualClock::at_ms(server_now(&server) - 10 * MINUTE_MS);
    let ahead = ManualClock::at_ms(server_now(&server) + 10 * MINUTE_MS);
    let (one, other) = (store(&table, &behind, &server), store(&table, &ahead, &server));

    // Both begin with a swap, so neither has heard of the server's time before.
    let ttl = Some(Duration::from_millis(MINUTE_MS));
    let written = stored(one.swap("circuit", None, b"one", ttl).await);
    let brought = present(conflict(other.swap("circuit", None, b"other", ttl).await));
    assert_eq!(brought.version, written.version, "a live entry is not overwritten by a clock that is ahead");

    for clock in [&server, &behind, &ahead] {
        clock.advance_ms(MINUTE_MS - 1_000);
    }
    for store in [&one, &other] {
        assert!(store.load("circuit").await.expect("a load").entry.is_some(), "a second is left");
    }
    for clock in [&server, &behind, &ahead] {
        clock.advance_ms(2_000);
    }
    for store in [&one, &other] {
        assert_eq!(store.load("circuit").await.expect("a load").entry, None, "its minute is over");
    }
}

#[tokio::test]
async fn only_a_first_swap_asks_for_the_time_before_it_writes() {
    let table = new_table().await;
    let sent = Sent::default();
    let client = with_interceptor(&client(), sent.clone());
    let store = DynamoDbStore::builder(client, &table).operation_timeout(PATIENT).build().expect("a store");
    let first = stored(store.swap("circuit", None, b"1", None).await);
    assert_eq!(sent.take(), 2, "a read for the time, and the write");
    stored(store.swap("circuit", Some(&first.version), b"2", None).await);
    assert_eq!(sent.take(), 1, "the write");
}

#[tokio::test]
async fn a_departure_of_the_clock_is_one_warning() {
    let table = new_table().await;
    let server = ManualClock::at_ms(system_now_ms() / 1_000 * 1_000);
    let host = ManualClock::at_ms(server_now(&server));
    let store = store(&table, &host, &server);
    let log = Log::of_the_process();
    let told = |levels: &[&str], when: &str| {
        let text = log.text();
        let lines = text.lines().filter(|line| line.contains(&table));
        let found: Vec<_> = lines.filter_map(|line| line.split_whitespace().nth(1)).collect();
        assert_eq!(found, levels, "{when}: {text}");
    };

    store.load("circuit").await.expect("a load");
    told(&[], "the clocks agree");
    host.advance_ms(5 * MINUTE_MS);
    for _ in 0..3 {
        store.load("circuit").await.expect("a load");
        conflict(store.swap("circuit", Some(&circuitry_store::Version::from_bytes(*b"0")), b"", None).await);
    }
    told(&["WARN"], "the host is five minutes ahead");
    server.advance_ms(5 * MINUTE_MS);
    store.load("circuit").await.expect("a load");
    told(&["WARN", "INFO"], "they agree again");
    host.advance_ms(5 * MINUTE_MS);
    store.load("circuit").await.expect("a load");
    told(&["WARN", "INFO", "WARN"], "the second departure");
}

/// What this crate has told.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    /// All tests of the process write into it: what one thread alone listens to, `tracing` may think that nobody does.
    fn of_the_process() -> Self {
        static LOG: LazyLock<Log> = LazyLock::new(|| {
            let log = Log::default();
            let told = tracing_subscriber::fmt().with_env_filter("circuitry_dynamodb=info").with_ansi(false);
            tracing::subscriber::set_global_default(told.with_writer(log.clone()).finish())
                .expect("the only one");
            tracing::callsite::rebuild_interest_cache();
            log
        });
        LOG.clone()
    }

    fn text(&self) -> String {
        String::from_utf8(self.0.lock().expect("no panic before").clone()).expect("text")
    }
}

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("no panic before").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}
