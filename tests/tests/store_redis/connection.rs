//! Servers that turn the component away, drip, or are no Redis, and a host that lets it nowhere.

use std::time::Duration;

use circuitry_store::{Store, StoreError, Swapped};
use circuitry_tests::fleet::PATIENT;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use crate::adapter::{Adapter, Setup};
use crate::servers::{OwnRedis, free_port, own_name, plain, redis_url, run};

/// A short timeout of the store, where it is to be run into.
const SHORT: Duration = Duration::from_millis(300);

const TIME: &[u8] = b"*2\r\n$10\r\n1700000000\r\n$1\r\n0\r\n";

/// What a server of a test's own does with a connection, after each message that comes.
#[derive(Clone, Copy)]
enum Deed {
    Say(&'static [u8]),
    SayAndClose(&'static [u8]),
    /// An answer byte by byte, which takes many minutes.
    Drip,
}

/// A server that does so with each message of a connection in turn, and with the last of `deeds` for ever. It ends with the test.
async fn server(deeds: &'static [Deed]) -> (String, JoinHandle<()>) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
    let url = format!("redis://{}", listener.local_addr().expect("its address"));
    let serve = tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream, deeds));
        }
    });
    (url, serve)
}

async fn serve(mut stream: TcpStream, deeds: &[Deed]) -> std::io::Result<()> {
    let mut asked = [0; 65_536];
    let mut at = 0;
    while stream.read(&mut asked).await? > 0 {
        match deeds[at.min(deeds.len() - 1)] {
            Deed::Say(bytes) => stream.write_all(bytes).await?,
            Deed::SayAndClose(bytes) => return stream.write_all(bytes).await,
            Deed::Drip => {
                stream.write_all(b"$1000000\r\n").await?;
                loop {
                    stream.write_all(b"x").await?;
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            }
        }
        at += 1;
    }
    Ok(())
}

async fn at(url: &str, timeout: Duration) -> Adapter {
    Setup { timeout, ..Setup::new(url, &format!("{}:", own_name())) }.start().await
}

async fn swap(adapter: &Adapter) -> Result<Swapped, StoreError> {
    adapter.swap("payments", None, b"value", None).await
}

#[tokio::test]
async fn a_server_that_drips_takes_no_more_time_than_one_that_is_silent() {
    let (url, _server) = server(&[Deed::Drip]).await;
    let loaded = at(&url, SHORT).await.load("payments").await;
    let Err(StoreError::Unavailable { message, .. }) = &loaded else { panic!("{loaded:?}") };
    assert!(message.contains("no answer in time"), "{message}");

    let (url, _server) = server(&[Deed::Say(TIME), Deed::Drip]).await;
    let swapped = swap(&at(&url, SHORT).await).await;
    let Err(StoreError::Unknown { message, .. }) = &swapped else { panic!("{swapped:?}") };
    assert!(message.contains("no answer in time"), "{message}");
}

#[tokio::test]
async fn what_a_server_says_before_it_closes_is_told() {
    const FULL: &[Deed] = &[Deed::SayAndClose(b"-ERR max number of clients reached\r\n")];
    const PROTECTED: &[Deed] = &[Deed::SayAndClose(b"-DENIED Redis is running in protected mode\r\n")];
    let (url, _server) = server(FULL).await;
    let adapter = at(&url, PATIENT).await;
    for answer in [adapter.load("payments").await.map(drop), swap(&adapter).await.map(drop)] {
        let Err(StoreError::Unavailable { message, .. }) = &answer else { panic!("{answer:?}") };
        assert!(message.contains("max number of clients"), "{message}");
    }
    let (url, _server) = server(PROTECTED).await;
    let adapter = at(&url, PATIENT).await;
    for answer in [adapter.load("payments").await.map(drop), swap(&adapter).await.map(drop)] {
        let Err(StoreError::Other { message, .. }) = &answer else { panic!("{answer:?}") };
        assert!(message.contains("protected mode"), "{message}");
    }
}

#[tokio::test]
async fn a_full_redis_says_so() {
    let redis = OwnRedis::start().await;
    let mut first = plain(&redis.url()).await;
    let _: String = run(&mut first, &["CONFIG", "SET", "maxclients", "1"]).await;
    let adapter = at(&redis.url(), PATIENT).await;
    for answer in [adapter.load("payments").await.map(drop), swap(&adapter).await.map(drop)] {
        let Err(StoreError::Unavailable { message, .. }) = &answer else { panic!("{answer:?}") };
        assert!(message.contains("max number of clients"), "{message}");
    }
}

#[tokio::test]
async fn whoever_is_no_redis_is_told_from_nobody() {
    const HTTP: &[u8] = b"HTTP/1.1 400 Bad Request\r\n\r\n";
    let (url, _server) = server(&[Deed::SayAndClose(HTTP)]).await;
    let adapter = at(&url, PATIENT).await;
    for answer in [adapter.load("payments").await.map(drop), swap(&adapter).await.map(drop)] {
        let Err(StoreError::Other { message, .. }) = &answer else { panic!("{answer:?}") };
        assert!(message.contains("not one of Redis"), "{message}");
    }
    // A write that was sent may have been carried out, whatever is answered.
    let (url, _server) = server(&[Deed::Say(TIME), Deed::Say(HTTP)]).await;
    let swapped = swap(&at(&url, PATIENT).await).await;
    assert!(matches!(swapped, Err(StoreError::Unknown { .. })), "{swapped:?}");
}

#[tokio::test]
async fn a_master_that_has_become_a_replica_is_left_for_a_new_connection() {
    let redis = OwnRedis::start().await;
    let adapter = at(&redis.url(), PATIENT).await;
    let Ok(Swapped::Stored(receipt)) = swap(&adapter).await else { panic!("nobody else writes") };
    let swap = async || adapter.swap("payments", Some(&receipt.version), b"next", None).await;
    let mut redis_itself = plain(&redis.url()).await;
    let _: String = run(&mut redis_itself, &["REPLICAOF", "127.0.0.1", &free_port().to_string()]).await;
    let before = connections(&mut redis_itself).await;
    let swapped = swap().await;
    assert!(matches!(swapped, Err(StoreError::Unavailable { .. })), "{swapped:?}");
    assert_eq!(connections(&mut redis_itself).await, before, "it has asked over the connection that it had");
    let _: String = run(&mut redis_itself, &["REPLICAOF", "NO", "ONE"]).await;
    let swapped = swap().await;
    assert!(matches!(swapped, Ok(Swapped::Stored(_))), "{swapped:?}");
    assert_eq!(connections(&mut redis_itself).await, before + 1);
    assert!(adapter.load("payments").await.is_ok());
    assert_eq!(connections(&mut redis_itself).await, before + 1, "a connection that is good is kept");
}

/// How many the server has ever taken.
async fn connections(redis: &mut redis::aio::MultiplexedConnection) -> u64 {
    let info: String = run(redis, &["INFO", "stats"]).await;
    let line = info.lines().find_map(|line| line.strip_prefix("total_connections_received:"));
    line.and_then(|number| number.trim().parse().ok()).expect("a number")
}

#[tokio::test]
async fn a_name_is_looked_up_where_the_host_allows_it() {
    let mut url = url::Url::parse(&redis_url()).expect("a URL");
    url.set_host(Some("localhost")).expect("a URL with a host");
    let setup = Setup::new(url.as_str(), &format!("{}:", own_name()));
    assert!(setup.start().await.load("payments").await.is_ok());

    let forbidden = Setup { may_look_up: false, ..setup.clone() }.start().await;
    for answer in [forbidden.load("payments").await.map(drop), swap(&forbidden).await.map(drop)] {
        let Err(StoreError::Denied { message, .. }) = &answer else { panic!("{answer:?}") };
        assert!(message.contains("-S allow-ip-name-lookup"), "{message}");
    }
}

#[tokio::test]
async fn a_host_that_is_no_name_is_a_fault_of_the_configuration() {
    let loaded = at("redis://two words", PATIENT).await.load("payments").await;
    let Err(StoreError::Other { message, .. }) = &loaded else { panic!("{loaded:?}") };
    assert!(message.contains("CIRCUITRY_REDIS_URL"), "{message}");
}

#[tokio::test]
async fn a_host_that_lets_it_not_connect_is_named() {
    let setup = Setup { may_connect: false, ..Setup::new(&redis_url(), "circuitry:") };
    let loaded = setup.start().await.load("payments").await;
    let Err(StoreError::Denied { message, .. }) = &loaded else { panic!("{loaded:?}") };
    assert!(message.contains("-S inherit-network"), "{message}");
}
