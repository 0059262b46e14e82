//! What the store says and does while the way to the server, or the server, is not well.

mod support;

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::Result;
use circuitry_redis::RedisStore;
use circuitry_store::conformance::LossyProxy;
use circuitry_store::{Store, StoreError, Swapped};
use support::process::{ServerProcess, free_port};
use support::{address_of, eventually, own_prefix, own_store, server_url, through, value, write};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::time::Instant;

const TIMEOUT: Duration = Duration::from_millis(300);
/// What a busy machine may add to a timeout.
const SLACK: Duration = Duration::from_millis(700);
const SOON: Duration = Duration::from_secs(10);

/// One word for an answer.
fn word<T>(answer: &Result<T, StoreError>) -> &'static str {
    match answer {
        Ok(_) => "ok",
        Err(StoreError::Unavailable { .. }) => "unavailable",
        Err(StoreError::Unknown { .. }) => "unknown",
        Err(StoreError::Denied { .. }) => "denied",
        Err(_) => "other",
    }
}

async fn through_proxy(
    builder: circuitry_redis::RedisStoreBuilder,
    url: &str,
) -> Result<(RedisStore, LossyProxy)> {
    let proxy = LossyProxy::start(address_of(url)?).await?;
    let store = builder.connect(&through(&proxy, url)?).await?;
    Ok((store, proxy))
}

/// The answer, and that it came within the timeout.
async fn in_time<T>(answer: impl Future<Output = T>) -> T {
    let begun = Instant::now();
    let answer = answer.await;
    assert!(begun.elapsed() < TIMEOUT + SLACK, "it took {:?}, and {TIMEOUT:?} were allowed", begun.elapsed());
    answer
}

async fn until_it_works(store: &RedisStore) {
    eventually("the store works again", SOON, || async { store.load("works").await.ok() }).await;
}

/// A connection cut after the send: the write may have happened, and happens at most once.
#[tokio::test]
async fn a_swap_whose_answer_or_request_is_lost_is_unknown_and_counted_once_in_1000_runs() -> Result<()> {
    const RUNS: u64 = 1_000;
    let (store, proxy) = through_proxy(own_store(), &server_url()).await?;
    let mut random = fastrand::Rng::with_seed(20_260_101);
    let mut known = None;
    let (mut unknown, mut had_happened) = (0, 0);
    for run in 1..=RUNS {
        // Who writes marks it, so that he knows his own write when he looks for it.
        let mark = random.u64(..);
        let count = |bytes: &[u8]| u64::from_be_bytes(bytes[..8].try_into().expect("8 bytes of count"));
        loop {
            let before: Option<&circuitry_store::Entry> = known.as_ref();
            let next = before.map_or(0, |entry| count(&entry.value)) + 1;
            let value = [next.to_be_bytes(), mark.to_be_bytes()].concat();
            match random.u8(0..4) {
                0 => proxy.lose_answer_to("EVALSHA"),
                1 => proxy.lose_request_with("EVALSHA"),
                _ => proxy.lose_nothing(),
            }
            let swapped = store.swap("count", before.map(|entry| &entry.version), &value, None).await;
            proxy.lose_nothing();
            match swapped {
                Ok(Swapped::Stored(receipt)) => {
                    known = Some(circuitry_store::Entry { value, version: receipt.version });
                    break;
                }
                Ok(Swapped::Conflict(fresh)) => panic!("nobody else writes, yet there is {fresh:?}"),
                Err(StoreError::Unknown { .. }) => {
                    unknown += 1;
                    known = eventually("a load answers", SOON, || async { store.load("count").await.ok() })
                        .await
                        .entry;
                    if known.as_ref().is_some_and(|entry| entry.value == value) {
                        had_happened += 1;
                        break;
                    }
                }
                Err(other) => panic!("run {run}: a lost request or answer is unknown, not {other}"),
            }
        }
        assert_eq!(count(&known.as_ref().expect("just written").value), run, "each run counts once");
    }
    assert!(unknown > 300, "{unknown} of {RUNS} were unknown: the proxy lost too few to show anything");
    assert!(had_happened > 100 && unknown - had_happened > 100, "{had_happened} of {unknown} had happened");
    Ok(())
}

#[tokio::test]
async fn a_load_whose_answer_is_lost_is_unavailable_and_never_an_absent_entry() -> Result<()> {
    let (store, proxy) = through_proxy(own_store(), &server_url()).await?;
    write(&store, "circuit", None, b"there").await;
    for _ in 0..5 {
        proxy.lose_answer_to("HMGET");
        assert_eq!(word(&store.load("circuit").await), "unavailable");
        let found =
            eventually("the connection is made anew", SOON, || async { store.load("circuit").await.ok() });
        assert_eq!(found.await.entry.map(|entry| entry.value).as_deref(), Some(&b"there"[..]));
    }
    assert_eq!(proxy.lost(), 5);
    Ok(())
}

#[tokio::test]
async fn a_server_out_of_reach_is_unavailable_to_swaps_too_once_it_is_known() -> Result<()> {
    let (store, proxy) = through_proxy(own_store(), &server_url()).await?;
    write(&store, "circuit", None, b"1").await;
    proxy.refuse().await;
    assert_eq!(word(&store.load("circuit").await), "unavailable");
    for _ in 0..5 {
        assert_eq!(
            word(&store.swap("circuit", None, b"2", None).await),
            "unavailable",
            "nothing can be sent"
        );
    }
    proxy.resume().await;
    until_it_works(&store).await;
    assert_eq!(value(&store, "circuit").await.as_deref(), Some(&b"1"[..]));
    Ok(())
}

/// The connection is lost while nobody uses it: the next swap is not sent into it.
#[tokio::test]
async fn a_loss_of_an_idle_connection_is_noticed_before_the_next_swap() -> Result<()> {
    let (store, proxy) = through_proxy(own_store(), &server_url()).await?;
    write(&store, "circuit", None, b"1").await;
    for round in 1..=5 {
        let connections = proxy.accepted();
        proxy.cut();
        eventually("it is connected anew without a request", SOON, || async {
            (proxy.accepted() > connections).then_some(())
        })
        .await;
        assert_eq!(word(&store.swap("circuit", None, b"2", None).await), "ok", "round {round}");
    }
    Ok(())
}

#[tokio::test]
async fn a_frozen_server_is_unknown_to_a_swap_and_unavailable_to_a_load_within_the_timeout() -> Result<()> {
    let server = ServerProcess::start::<&str>([]).await?;
    let store = own_store().operation_timeout(TIMEOUT).connect(&server.url()).await?;
    let first = write(&store, "circuit", None, b"1").await;

    server.freeze()?;
    let sent = in_time(store.swap("circuit", Some(&first.version), b"2", None)).await;
    assert_eq!(word(&sent), "unknown", "it was sent, and the server may yet carry it out");
    // From now on it is known that there is no way, so nothing is sent that could be carried out late.
    for _ in 0..3 {
        assert_eq!(word(&in_time(store.load("circuit")).await), "unavailable");
        let swapped = in_time(store.swap("circuit", Some(&first.version), b"3", None)).await;
        assert_eq!(word(&swapped), "unavailable");
    }

    server.thaw()?;
    until_it_works(&store).await;
    let after = value(&store, "circuit").await;
    assert!(
        matches!(after.as_deref(), Some(b"1" | b"2")),
        "only the unknown one may have happened: {after:?}"
    );
    let entry = store.load("circuit").await?.entry.expect("it is there");
    write(&store, "circuit", Some(&entry.version), b"4").await;
    Ok(())
}

#[tokio::test]
async fn a_connection_that_carries_nothing_any_more_is_replaced_after_a_timeout() -> Result<()> {
    let (store, proxy) = through_proxy(own_store().operation_timeout(TIMEOUT), &server_url()).await?;
    write(&store, "circuit", None, b"1").await;
    proxy.abandon();
    assert_eq!(word(&in_time(store.load("circuit")).await), "unavailable");
    assert_eq!(word(&in_time(store.load("circuit")).await), "ok", "the next one has a connection of its own");
    assert_eq!(proxy.accepted(), 2);

    proxy.abandon();
    // Sixteen find out at once, and one connection is made for all.
    let mut together = tokio::task::JoinSet::new();
    for _ in 0..16 {
        let store = store.clone();
        together.spawn(async move { word(&in_time(store.load("circuit")).await) });
    }
    assert_eq!(together.join_all().await, ["unavailable"; 16]);
    until_it_works(&store).await;
    assert_eq!(proxy.accepted(), 3);
    Ok(())
}

#[tokio::test]
async fn a_dead_connection_is_replaced_also_for_callers_whose_patience_is_shorter_than_the_timeout()
-> Result<()> {
    let (store, proxy) = through_proxy(own_store().operation_timeout(TIMEOUT), &server_url()).await?;
    write(&store, "circuit", None, b"1").await;
    proxy.abandon();
    let hurried = || tokio::time::timeout(TIMEOUT / 4, store.load("circuit"));
    assert!(hurried().await.is_err(), "the connection carries nothing");
    eventually("a hurried caller has his answer", SOON, || async { hurried().await.ok()?.ok() }).await;
    Ok(())
}

#[tokio::test]
async fn a_caller_who_leaves_takes_no_other_answer_along() -> Result<()> {
    let store = own_store().connect(&server_url()).await?;
    write(&store, "circuit", None, b"1").await;
    let mut stays = tokio::task::JoinSet::new();
    for index in 0..200_u32 {
        let store = store.clone();
        stays.spawn(async move {
            let load = store.load("circuit");
            // Every other one leaves when it has sent, or before, as it happens.
            if index % 2 == 0 {
                let _ = tokio::time::timeout(Duration::from_micros(u64::from(index)), load).await;
                return None;
            }
            Some(word(&load.await))
        });
    }
    let answers: Vec<_> = stays.join_all().await.into_iter().flatten().collect();
    assert_eq!(answers, ["ok"; 100]);
    Ok(())
}

#[tokio::test]
async fn a_server_that_is_killed_and_started_again_is_used_again() -> Result<()> {
    let mut server = ServerProcess::start(["--appendonly", "yes", "--appendfsync", "always"]).await?;
    let store = own_store().operation_timeout(TIMEOUT).connect(&server.url()).await?;
    let mut receipt = write(&store, "circuit", None, b"0").await;
    for round in 1..=3_u8 {
        server.kill()?;
        assert_eq!(word(&in_time(store.load("circuit")).await), "unavailable");
        let swapped = in_time(store.swap("circuit", Some(&receipt.version), b"never", None)).await;
        assert_eq!(word(&swapped), "unavailable");
        server.restart().await?;
        until_it_works(&store).await;
        // It has the entry from its file, and does not know the script any more.
        receipt = write(&store, "circuit", Some(&receipt.version), &[round]).await;
        assert_eq!(value(&store, "circuit").await.as_deref(), Some(&[round][..]));
    }
    Ok(())
}

#[tokio::test]
async fn a_lazy_store_works_as_soon_as_there_is_a_server() -> Result<()> {
    let port = free_port()?;
    let builder = own_store().operation_timeout(TIMEOUT).lazy();
    let store = builder.connect(&format!("redis://127.0.0.1:{port}")).await?;
    assert_eq!(word(&in_time(store.load("circuit")).await), "unavailable");
    assert_eq!(word(&in_time(store.swap("circuit", None, b"1", None)).await), "unavailable");
    let _server = ServerProcess::start_on::<&str>(port, []).await?;
    until_it_works(&store).await;
    write(&store, "circuit", None, b"1").await;
    Ok(())
}

#[tokio::test]
async fn connecting_to_nobody_is_unavailable_and_says_where() -> Result<()> {
    let port = free_port()?;
    let refused = RedisStore::connect(&format!("redis://user:s3cret@127.0.0.1:{port}/3")).await;
    assert_eq!(word(&refused), "unavailable");
    let message = refused.expect_err("nobody is there").to_string();
    assert!(message.contains(&format!("redis://127.0.0.1:{port}/3")), "{message}");
    assert!(!message.contains("s3cret"), "{message}");
    Ok(())
}

/// A server that takes connections and says nothing does not hold anybody up for longer than the timeouts.
#[tokio::test]
async fn connecting_to_somebody_mute_ends_in_time() -> Result<()> {
    let mute = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("redis://{}", mute.local_addr()?);
    let begun = Instant::now();
    let refused = own_store().connect_timeout(TIMEOUT).connect(&url).await;
    assert_eq!(word(&refused), "unavailable");
    assert!(begun.elapsed() < TIMEOUT + SLACK, "{:?}", begun.elapsed());

    let store = own_store().operation_timeout(TIMEOUT).lazy().connect(&url).await?;
    assert_eq!(
        word(&in_time(store.swap("circuit", None, b"1", None)).await),
        "unavailable",
        "nothing was sent"
    );
    Ok(())
}

/// A host's strict call runs on whatever runtime its caller has, and takes the attempt to connect along when that ends.
#[test]
fn an_attempt_to_connect_whose_runtime_has_ended_holds_nobody_up() -> Result<()> {
    let server = Runtime::new()?;
    let (store, proxy) = server.block_on(async {
        let proxy = LossyProxy::start(address_of(&server_url())?).await?;
        let store = own_store().operation_timeout(TIMEOUT).lazy();
        let store = store.connect(&through(&proxy, &server_url())?).await?;
        proxy.stall();
        anyhow::Ok((store, proxy))
    })?;
    for _ in 0..3 {
        let hurried = Runtime::new()?;
        let load = async { tokio::time::timeout(TIMEOUT / 4, store.load("circuit")).await };
        assert!(hurried.block_on(load).is_err(), "the server is mute");
    }
    // Who waits for the attempt of another begins one of his own when that is gone.
    let begun = Runtime::new()?;
    let begins = begun.block_on(async { tokio::time::timeout(TIMEOUT / 4, store.load("circuit")).await });
    assert!(begins.is_err(), "the server is mute");
    let waits = {
        let store = store.clone();
        server.spawn(async move { word(&store.load("circuit").await) })
    };
    drop(begun);
    server.block_on(async {
        assert_eq!(waits.await?, "unavailable", "as long as it is mute");
        proxy.resume().await;
        until_it_works(&store).await;
        write(&store, "circuit", None, b"1").await;
        Ok(())
    })
}

/// A runtime of one thread carries nothing on when its owner does something else.
#[test]
fn an_attempt_to_connect_whose_runtime_stands_still_holds_nobody_up_for_long() -> Result<()> {
    let server = Runtime::new()?;
    let (store, proxy) = server.block_on(async {
        let proxy = LossyProxy::start(address_of(&server_url())?).await?;
        let store = own_store().operation_timeout(TIMEOUT).connect_timeout(TIMEOUT / 4).lazy();
        let store = store.connect(&through(&proxy, &server_url())?).await?;
        proxy.stall();
        anyhow::Ok((store, proxy))
    })?;
    let still = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let hurried = async { tokio::time::timeout(TIMEOUT / 8, store.load("circuit")).await };
    assert!(still.block_on(hurried).is_err(), "the server is mute");
    server.block_on(async {
        proxy.resume().await;
        until_it_works(&store).await;
    });
    let connections = proxy.accepted();
    // The late attempt ends, and nobody connects once more.
    still.block_on(until_it_works(&store));
    server.block_on(until_it_works(&store));
    assert_eq!(proxy.accepted(), connections);
    Ok(())
}

/// He has begun to look after the connection, and his runtime ended meanwhile.
#[test]
fn a_dead_connection_is_replaced_though_he_who_looked_after_it_is_gone() -> Result<()> {
    let server = Runtime::new()?;
    let (store, proxy) = server.block_on(async {
        let (store, proxy) = through_proxy(own_store().operation_timeout(TIMEOUT), &server_url()).await?;
        write(&store, "circuit", None, b"1").await;
        proxy.abandon();
        anyhow::Ok((store, proxy))
    })?;
    let hurried = || tokio::time::timeout(TIMEOUT / 4, store.load("circuit"));
    let gone = Runtime::new()?;
    assert!(gone.block_on(async { hurried().await }).is_err(), "the connection carries nothing");
    drop(gone);
    server.block_on(async {
        assert!(hurried().await.is_err(), "the connection carries nothing");
        eventually("a hurried caller has his answer", SOON, || async { hurried().await.ok()?.ok() }).await;
    });
    assert_eq!(proxy.accepted(), 2);
    Ok(())
}

/// A server that lets everybody in and closes at once is not asked again and again by those who want nothing.
#[tokio::test]
async fn a_connection_that_was_of_no_use_is_made_again_only_for_a_request() -> Result<()> {
    let (url, accepted) = pretend("redis_version:7.0.0\r\n", true).await?;
    let store = own_store().operation_timeout(TIMEOUT).connect(&url).await?;
    let again = async {
        while accepted.load(Ordering::SeqCst) < 5 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(tokio::time::timeout(TIMEOUT, again).await.is_err(), "nobody has asked for anything");
    assert_eq!(word(&in_time(store.load("circuit")).await), "unavailable");
    assert!(accepted.load(Ordering::SeqCst) >= 2, "the load has connected again");
    Ok(())
}

/// Answers every command of a connection's beginning as a server of some other version would.
async fn pretend_to_be(info: &'static str) -> Result<String> {
    Ok(pretend(info, false).await?.0)
}

/// The same, and closes each connection after that, if asked to; with the number of connections.
async fn pretend(info: &'static str, is_closing: bool) -> Result<(String, Arc<AtomicUsize>)> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("redis://{}/?protocol=resp2", listener.local_addr()?);
    let accepted = Arc::new(AtomicUsize::new(0));
    let counted = accepted.clone();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            counted.fetch_add(1, Ordering::SeqCst);
            tokio::spawn(async move {
                let mut bytes = [0; 4096];
                while let Ok(length @ 1..) = stream.read(&mut bytes).await {
                    let text = String::from_utf8_lossy(&bytes[..length]).to_uppercase();
                    let setups = text.matches("SETINFO").count();
                    let mut answers = "+OK\r\n".repeat(setups);
                    let is_begun = text.contains("INFO\r\n$6\r\nSERVER");
                    if is_begun {
                        answers.push_str(&format!("${}\r\n{info}\r\n", info.len()));
                    }
                    if stream.write_all(answers.as_bytes()).await.is_err() || (is_begun && is_closing) {
                        break;
                    }
                }
            });
        }
    });
    Ok((url, accepted))
}

#[tokio::test]
async fn a_server_that_is_too_old_is_refused_with_its_version() -> Result<()> {
    let url = pretend_to_be("# Server\r\nredis_version:6.0.16\r\nredis_mode:standalone\r\n").await?;
    let refused = own_store().connect(&url).await;
    assert_eq!(word(&refused), "other");
    let message = refused.expect_err("it is too old").to_string();
    assert!(message.contains("it is Redis 6.0.16; run 6.2 or newer"), "{message}");
    for info in ["redis_version:6.2.0\r\n", "redis_version:255.255.255\r\n", "some_compatible_server:1\r\n"] {
        own_store().connect(&pretend_to_be(info).await?).await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_replica_does_not_take_a_swap_and_does_when_it_is_promoted() -> Result<()> {
    let master = ServerProcess::start::<&str>([]).await?;
    let of = format!("127.0.0.1 {}", master.port);
    let replica = ServerProcess::start(["--replicaof", &of, "--repl-diskless-sync-delay", "0"]).await?;
    eventually("the replica follows", SOON, || async {
        let info: String = replica.run(&["INFO", "replication"]).await.ok()?;
        info.contains("master_link_status:up").then_some(())
    })
    .await;
    let store = own_store().connect(&replica.url()).await?;
    let refused = store.swap("circuit", None, b"1", None).await;
    assert_eq!(word(&refused), "unavailable", "{refused:?}");
    assert_eq!(value(&store, "circuit").await, None);

    replica.run::<String>(&["REPLICAOF", "NO", "ONE"]).await?;
    write(&store, "circuit", None, b"1").await;
    Ok(())
}

/// Each of these is the server's own word that it has not written.
#[tokio::test]
async fn a_server_that_cannot_write_now_is_unavailable_and_the_entry_stays() -> Result<()> {
    let server = ServerProcess::start::<&str>([]).await?;
    let store = own_store().connect(&server.url()).await?;
    let first = write(&store, "circuit", None, b"1").await;
    for (setting, bad, good) in [("maxmemory", "1", "0"), ("min-replicas-to-write", "1", "0")] {
        server.run::<String>(&["CONFIG", "SET", setting, bad]).await?;
        let refused = store.swap("circuit", Some(&first.version), b"2", Some(Duration::from_secs(60))).await;
        assert_eq!(word(&refused), "unavailable", "{setting}: {refused:?}");
        assert_eq!(value(&store, "circuit").await.as_deref(), Some(&b"1"[..]), "{setting}");
        server.run::<String>(&["CONFIG", "SET", setting, good]).await?;
    }
    write(&store, "circuit", Some(&first.version), b"2").await;
    Ok(())
}

#[tokio::test]
async fn a_script_that_was_flushed_is_sent_again() -> Result<()> {
    let server = ServerProcess::start::<&str>([]).await?;
    let store = RedisStore::builder().prefix(own_prefix()).connect(&server.url()).await?;
    let mut receipt = write(&store, "circuit", None, b"0").await;
    for round in 1..=3_u8 {
        server.run::<String>(&["SCRIPT", "FLUSH"]).await?;
        receipt = write(&store, "circuit", Some(&receipt.version), &[round]).await;
        let conflict = store.swap("circuit", None, b"late", None).await?;
        assert!(matches!(conflict, Swapped::Conflict(_)), "{conflict:?}");
    }
    Ok(())
}
