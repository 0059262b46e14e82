//! The servers: those that all tests share, and a Redis of a test's own that it may disturb.

use std::ffi::OsStr;
use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use aws_sdk_dynamodb::Client;
use circuitry::{Factory, Settings, SettingsBuilder, Store};
use circuitry_dynamodb::{DynamoDbStore, Table, local_client};
use circuitry_redis::RedisStore;
use circuitry_tests::fleet::PATIENT;
use redis::FromRedisValue;
use redis::aio::MultiplexedConnection;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::time::Instant;
use url::Url;

fn variable(name: &str) -> String {
    std::env::var(name)
        .unwrap_or_else(|_| panic!("{name} is not set: run `cargo xtask test`, which starts the servers"))
}

/// The Redis that all tests share, and none may disturb.
pub(crate) fn redis_url() -> String {
    variable("CIRCUITRY_TEST_REDIS_URL")
}

/// Where the URL of a Redis leads to.
pub(crate) fn address_of(redis_url: &str) -> SocketAddr {
    let url = Url::parse(redis_url).expect("a URL");
    let addresses = url.socket_addrs(|| Some(6379)).expect("the address of a server");
    *addresses.first().expect("one address at least")
}

/// The DynamoDB Local that all tests share.
pub(crate) fn dynamodb_client() -> Client {
    local_client(&variable("CIRCUITRY_TEST_DYNAMODB_URL")).expect("an endpoint")
}

/// A name that no other test uses.
pub(crate) fn own_name() -> String {
    format!("fleet-{:016x}", fastrand::u64(..))
}

/// A connection to a Redis, past the store.
pub(crate) async fn plain(redis_url: &str) -> MultiplexedConnection {
    let client = redis::Client::open(redis_url).expect("a URL");
    client.get_multiplexed_async_connection().await.expect("a connection")
}

/// Runs a command, past the store.
pub(crate) async fn run<T: FromRedisValue>(connection: &mut MultiplexedConnection, command: &[&str]) -> T {
    let mut packed = redis::Cmd::new();
    for part in command {
        packed.arg(*part);
    }
    packed.query_async(connection).await.unwrap_or_else(|error| panic!("{command:?}: {error}"))
}

/// A store on the Redis at `redis_url`, with a connection of its own, that a busy machine does not bring down.
pub(crate) async fn redis_store(redis_url: &str, prefix: &str) -> RedisStore {
    let builder = RedisStore::builder().prefix(prefix).operation_timeout(PATIENT);
    builder.connect(redis_url).await.expect("a Redis that answers")
}

/// A place on one of the real servers that a test has for itself.
#[derive(Clone, Debug)]
pub(crate) enum Place {
    Redis { prefix: String },
    DynamoDb { table: String },
}

impl Place {
    pub(crate) fn on_redis() -> Self {
        Self::Redis { prefix: format!("{}:", own_name()) }
    }

    pub(crate) async fn on_dynamodb() -> Self {
        let table = own_name();
        Table::new(dynamodb_client(), &table).expect("a name").create().await.expect("a new table");
        Self::DynamoDb { table }
    }

    /// A handle as another process has one: with connections of its own.
    pub(crate) async fn store(&self) -> Arc<dyn Store> {
        match self {
            Self::Redis { prefix } => Arc::new(redis_store(&redis_url(), prefix).await),
            Self::DynamoDb { table } => {
                let builder = DynamoDbStore::builder(dynamodb_client(), table).operation_timeout(PATIENT);
                Arc::new(builder.connect().await.expect("a table"))
            }
        }
    }

    /// Another worker of the fleet. All that they share is what is stored.
    pub(crate) async fn worker(&self, settings: SettingsBuilder) -> Factory {
        factory(settings.store(self.store().await)).await
    }
}

/// Settings whose timeout a busy machine does not run into.
pub(crate) fn patient() -> SettingsBuilder {
    Settings::builder().consistency(circuitry::Consistency::Strict).store_timeout(PATIENT)
}

pub(crate) async fn factory(settings: SettingsBuilder) -> Factory {
    Factory::new(settings.build().expect("settings that can be used")).await.expect("a factory")
}

/// A Redis of a test's own on a free port of loopback. It ends with the test.
pub(crate) struct OwnRedis {
    port: u16,
    folder: TempDir,
    child: Child,
}

impl OwnRedis {
    pub(crate) async fn start() -> Self {
        // Somebody may take the port between the look and the start; then the server ends and another port is tried.
        for _ in 0..3 {
            let port = free_port();
            let folder = tempfile::tempdir().expect("a folder");
            let child = launch(port, folder.path().as_os_str());
            let mut server = Self { port, folder, child };
            if server.answers().await {
                return server;
            }
        }
        panic!("redis-server does not start; is it installed, and does it run by hand?");
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Lets it stand still: connections stay, and nothing is answered.
    pub(crate) fn stop(&self) {
        self.signal(Signal::STOP);
    }

    /// Lets it go on after [`stop`](Self::stop).
    pub(crate) fn go_on(&self) {
        self.signal(Signal::CONT);
    }

    /// Ends it at once, with all that it has stored.
    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("a process");
        self.child.wait().expect("its end");
    }

    /// Starts it again after [`kill`](Self::kill), on the same port and with nothing stored.
    pub(crate) async fn start_again(&mut self) {
        self.child = launch(self.port, self.folder.path().as_os_str());
        assert!(self.answers().await, "redis-server does not start again");
    }

    async fn answers(&mut self) -> bool {
        let client = redis::Client::open(self.url()).expect("a URL");
        let deadline = Instant::now() + PATIENT;
        while Instant::now() < deadline {
            if let Ok(mut connection) = client.get_multiplexed_async_connection().await {
                // The one that answers must be the one that was started here.
                let info: String = run(&mut connection, &["INFO", "server"]).await;
                return info.contains(&format!("process_id:{}\r", self.child.id()));
            }
            if self.child.try_wait().expect("a process").is_some() {
                return false;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        false
    }

    fn signal(&self, signal: Signal) {
        let id = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).expect("a process's id");
        kill_process(id, signal).expect("a signal to our own process");
    }
}

impl Drop for OwnRedis {
    fn drop(&mut self) {
        // It may be dead already, which is what this is for. A stopped process dies of this too.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn launch(port: u16, folder: &OsStr) -> Child {
    let log = File::create(std::path::Path::new(folder).join("log")).expect("a log");
    Command::new("redis-server")
        .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
        .arg("--dir")
        .arg(folder)
        .stdin(Stdio::null())
        .stdout(log)
        .stderr(Stdio::null())
        .spawn()
        .expect("redis-server starts; is it installed and on PATH?")
}

pub(crate) fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    listener.local_addr().expect("its address").port()
}
