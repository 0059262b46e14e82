//! Pushes through real servers: who hears what, and what happens when the subscription is lost.

mod support;

use std::time::Duration;

use anyhow::{Context, Result};
use circuitry_redis::RedisStore;
use circuitry_store::conformance::LossyProxy;
use circuitry_store::{Push, Store, StoreError, Swapped, Watch};
use futures_util::{FutureExt, StreamExt};
use support::log::Log;
use support::process::{ServerProcess, free_port};
use support::{
    PERMISSIONS, PUSH_PERMISSIONS, address_of, eventually, own_prefix, own_store, server_url, through, write,
};

const TIMEOUT: Duration = Duration::from_millis(300);
/// For what comes by itself, sooner or later, on a busy machine.
const SOON: Duration = Duration::from_secs(30);

fn changed(circuit: &str) -> Push {
    Push::Changed(circuit.to_owned())
}

async fn watch(store: &RedisStore) -> Watch {
    store.watch().await.expect("a watch never fails").expect("the store pushes")
}

async fn next(watch: &mut Watch) -> Push {
    let push = tokio::time::timeout(SOON, watch.next()).await.expect("a push comes soon");
    push.expect("the watch goes on")
}

/// How many clients the server says to be subscribed to the store's channel.
async fn subscribers(server: &ServerProcess, store: &RedisStore) -> Result<i64> {
    let (_, count): (String, i64) = server.run(&["PUBSUB", "NUMSUB", store.channel()]).await?;
    Ok(count)
}

async fn until_subscribers_are(count: i64, server: &ServerProcess, store: &RedisStore) {
    eventually("the server counts the subscribers", SOON, || async {
        (subscribers(server, store).await.ok()? == count).then_some(())
    })
    .await;
}

#[tokio::test]
async fn an_announcement_is_heard_by_all_stores_of_the_prefix_and_by_no_other() -> Result<()> {
    let server = ServerProcess::start::<&str>([]).await?;
    let builder = || RedisStore::builder().prefix("billing:");
    let [one, two] = [builder().connect(&server.url()).await?, builder().connect(&server.url()).await?];
    let resp2 = builder().connect(&format!("{}/?protocol=resp2", server.url())).await?;
    let longer = RedisStore::builder().prefix("billing:eu:").connect(&server.url()).await?;
    let mut watches = [watch(&one).await, watch(&two).await, watch(&resp2).await];
    let mut stranger = watch(&longer).await;
    assert_eq!(one.channel(), "billing:", "the channel is documented to be the prefix");
    assert_eq!(subscribers(&server, &one).await?, 3, "each watch had begun when it was answered");

    for (announcer, circuit) in [(&one, "a"), (&two, "{b} *?[\n"), (&resp2, "eu:c")] {
        announcer.announce(circuit).await?;
        for watch in &mut watches {
            assert_eq!(next(watch).await, changed(circuit));
        }
    }
    longer.announce("c").await?;
    one.announce("last").await?;
    assert_eq!(next(&mut stranger).await, changed("c"));
    for watch in &mut watches {
        assert_eq!(
            next(watch).await,
            changed("last"),
            "another prefix is not heard, though the keys are the same"
        );
    }
    assert_eq!(stranger.next().now_or_never(), None);
    Ok(())
}

#[tokio::test]
async fn an_empty_prefix_has_a_channel_too() -> Result<()> {
    let server = ServerProcess::start::<&str>([]).await?;
    let store = RedisStore::builder().prefix("").connect(&server.url()).await?;
    let mut watch = watch(&store).await;
    store.announce("circuit").await?;
    assert_eq!(next(&mut watch).await, changed("circuit"));
    Ok(())
}

#[tokio::test]
async fn after_the_server_was_killed_and_started_the_watch_says_missed_and_pushes_again() -> Result<()> {
    let mut server = ServerProcess::start::<&str>([]).await?;
    let store = own_store().operation_timeout(TIMEOUT).connect(&server.url()).await?;
    let mut watch = watch(&store).await;
    for round in 0..2 {
        server.kill()?;
        assert!(matches!(store.announce("nobody hears").await, Err(StoreError::Unavailable { .. })));
        server.restart().await?;
        assert_eq!(next(&mut watch).await, Push::Missed, "round {round}");
        eventually("it is announced again", SOON, || async { store.announce("heard").await.ok() }).await;
        assert_eq!(next(&mut watch).await, changed("heard"), "round {round}");
    }
    Ok(())
}

#[tokio::test]
async fn a_watch_begun_while_there_is_no_server_says_missed_when_there_is_one() -> Result<()> {
    let port = free_port()?;
    let builder = own_store().operation_timeout(TIMEOUT).lazy();
    let store = builder.connect(&format!("redis://127.0.0.1:{port}")).await?;
    let mut watch = watch(&store).await;
    assert_eq!(watch.next().now_or_never(), None);
    let _server = ServerProcess::start_on::<&str>(port, []).await?;
    assert_eq!(next(&mut watch).await, Push::Missed);
    eventually("it is announced", SOON, || async { store.announce("circuit").await.ok() }).await;
    assert_eq!(next(&mut watch).await, changed("circuit"));
    Ok(())
}

#[tokio::test]
async fn a_watch_does_not_wait_longer_than_the_timeout_for_a_server_that_stands_still() -> Result<()> {
    let server = ServerProcess::start::<&str>([]).await?;
    let store = own_store().operation_timeout(TIMEOUT).connect(&server.url()).await?;
    server.freeze()?;
    // The first attempt goes on for longer than the timeout: it ends with the answer of the thawed server.
    let mut watch = tokio::time::timeout(SOON, watch(&store)).await.context("it waits for ever")?;
    assert_eq!(watch.next().now_or_never(), None);
    server.thaw()?;
    assert_eq!(next(&mut watch).await, Push::Missed, "it has begun after it was answered");
    Ok(())
}

#[tokio::test]
async fn a_subscription_that_the_server_ends_is_made_again_and_requests_go_on_meanwhile() -> Result<()> {
    let server = ServerProcess::start::<&str>([]).await?;
    let store = own_store().connect(&server.url()).await?;
    let mut watch = watch(&store).await;
    let mut known = write(&store, "circuit", None, b"0").await;
    for round in 0..3 {
        let killed: i64 = server.run(&["CLIENT", "KILL", "TYPE", "pubsub"]).await?;
        assert_eq!(killed, 1, "the subscription has a connection of its own");
        known = write(&store, "circuit", Some(&known.version), b"1").await;
        assert_eq!(next(&mut watch).await, Push::Missed, "round {round}");
        store.announce("heard").await?;
        assert_eq!(next(&mut watch).await, changed("heard"), "round {round}");
    }
    Ok(())
}

/// A route that is lost without a word: nothing tells, so the store asks. Only the clock of the timers is moved.
#[tokio::test]
async fn a_subscription_that_carries_nothing_any_more_is_found_out_and_a_quiet_one_is_kept() -> Result<()> {
    for protocol in ["resp2", "resp3"] {
        let proxy = LossyProxy::start(address_of(&server_url())?).await?;
        let url = format!("{}?protocol={protocol}", through(&proxy, &server_url())?);
        let store = own_store().operation_timeout(TIMEOUT).connect(&url).await?;
        let mut watch = watch(&store).await;
        let connections = proxy.accepted();
        for _ in 0..3 {
            pass(Duration::from_secs(11)).await;
            store.announce("heard").await?;
            assert_eq!(next(&mut watch).await, changed("heard"), "a quiet subscription is no dead one");
        }
        assert_eq!(proxy.accepted(), connections, "nothing was connected anew");

        proxy.abandon();
        pass(Duration::from_secs(11)).await;
        assert_eq!(next(&mut watch).await, Push::Missed);
        eventually("it is announced again", SOON, || async { store.announce("heard").await.ok() }).await;
        assert_eq!(next(&mut watch).await, changed("heard"));
    }
    Ok(())
}

/// Moves the clock of the timers, while no answer is awaited.
async fn pass(time: Duration) {
    tokio::time::pause();
    tokio::time::advance(time).await;
    tokio::time::resume();
}

#[tokio::test]
async fn a_dropped_watch_ends_its_subscription_and_no_other() -> Result<()> {
    let server = ServerProcess::start::<&str>([]).await?;
    let store = own_store().connect(&server.url()).await?;
    let (dropped, mut kept) = (watch(&store).await, watch(&store).await);
    until_subscribers_are(2, &server, &store).await;
    drop(dropped);
    until_subscribers_are(1, &server, &store).await;
    store.announce("circuit").await?;
    assert_eq!(next(&mut kept).await, changed("circuit"));

    // A watch outlives the handle that began it.
    let other = RedisStore::builder().prefix(store.channel()).connect(&server.url()).await?;
    drop(store);
    other.announce("circuit").await?;
    assert_eq!(next(&mut kept).await, changed("circuit"));
    drop(kept);
    until_subscribers_are(0, &server, &other).await;
    Ok(())
}

#[tokio::test]
async fn a_dropped_watch_tries_no_more() -> Result<()> {
    let proxy = LossyProxy::start(address_of(&server_url())?).await?;
    let store = own_store().lazy().connect(&through(&proxy, &server_url())?).await?;
    proxy.refuse().await;
    drop(watch(&store).await);
    let connections = proxy.accepted();
    proxy.resume().await;
    pass(Duration::from_secs(60)).await;
    store.load("circuit").await?;
    let _next = watch(&store).await;
    assert_eq!(
        proxy.accepted(),
        connections + 2,
        "those of the load and of the next watch are the only ones"
    );
    Ok(())
}

#[tokio::test]
async fn a_message_that_is_no_circuits_name_is_dropped() -> Result<()> {
    let server = ServerProcess::start::<&str>([]).await?;
    for protocol in ["resp2", "resp3"] {
        let store = own_store().connect(&format!("{}/?protocol={protocol}", server.url())).await?;
        let mut watch = watch(&store).await;
        let mut plain = server.plain().await?;
        let (longest, accents) = ("x".repeat(1024), "é".repeat(513));
        let garbage: [&[u8]; 6] =
            [b"", b"\xff\xfe", b"circuit\xc3", &[b'x'; 1025], &vec![b'x'; 3_000_000], accents.as_bytes()];
        for message in garbage {
            redis::cmd("PUBLISH").arg(store.channel()).arg(message).exec_async(&mut plain).await?;
        }
        store.announce(&longest).await?;
        assert_eq!(next(&mut watch).await, changed(&longest), "{protocol}");
        for name in [String::new(), "x".repeat(1025)] {
            assert!(matches!(store.announce(&name).await, Err(StoreError::Other { .. })));
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_watcher_who_does_not_read_is_told_that_pushes_are_missed() -> Result<()> {
    let server = ServerProcess::start::<&str>([]).await?;
    let store = own_store().connect(&server.url()).await?;
    let (mut slow, mut quick) = (watch(&store).await, watch(&store).await);
    for number in 0..1_000 {
        let circuit = format!("{number}");
        store.announce(&circuit).await?;
        assert_eq!(next(&mut quick).await, changed(&circuit));
    }
    assert_eq!(next(&mut slow).await, Push::Missed);
    Ok(())
}

/// Makes the user `worker` anew with these permissions.
async fn set_user(server: &ServerProcess, permissions: &str) -> Result<()> {
    let user = ["ACL", "SETUSER", "worker", "reset", "on", ">s3cret", "~circuitry:*"];
    server.run::<String>(&user.into_iter().chain(permissions.split(' ')).collect::<Vec<_>>()).await?;
    Ok(())
}

/// How often clients have sent this command, also where it was refused.
async fn calls(server: &ServerProcess, command: &str) -> Result<u64> {
    let info: String = server.run(&["INFO", "commandstats"]).await?;
    let figures =
        info.lines().find_map(|line| line.strip_prefix(&format!("cmdstat_{command}:"))).unwrap_or_default();
    let count = |name: &str| -> u64 {
        figures.split(',').find_map(|figure| figure.trim().strip_prefix(name)?.parse().ok()).unwrap_or(0)
    };
    Ok(count("calls=") + count("rejected_calls="))
}

#[tokio::test]
async fn the_documented_permissions_are_enough_to_announce_and_to_watch() -> Result<()> {
    let documentation = include_str!("../src/lib.rs");
    assert!(
        documentation.contains(PUSH_PERMISSIONS),
        "other permissions than {PUSH_PERMISSIONS} are documented"
    );
    let server = ServerProcess::start::<&str>([]).await?;
    set_user(&server, &[PERMISSIONS, PUSH_PERMISSIONS].join(" ")).await?;
    let url = format!("redis://worker:s3cret@127.0.0.1:{}", server.port);
    let log = Log::begin();
    let store = RedisStore::connect(&url).await?;
    let mut watch = watch(&store).await;
    store.announce("circuit").await?;
    assert_eq!(next(&mut watch).await, changed("circuit"));
    pass(Duration::from_secs(11)).await;
    store.announce("circuit").await?;
    assert_eq!(next(&mut watch).await, changed("circuit"), "to ask whether it is alive needs no more");
    assert_eq!(log.warnings(), Vec::<String>::new());
    Ok(())
}

#[tokio::test]
async fn a_user_without_the_channel_gets_one_warning_and_no_pushes_and_the_store_works() -> Result<()> {
    let server = ServerProcess::start::<&str>([]).await?;
    set_user(&server, PERMISSIONS).await?;
    let url = format!("redis://worker:s3cret@127.0.0.1:{}", server.port);
    let log = Log::begin();
    let store = RedisStore::builder().connect(&url).await?;
    let mut watch = watch(&store).await;
    for _ in 0..3 {
        match store.announce("circuit").await {
            Err(error @ StoreError::Denied { .. }) => assert!(!error.to_string().contains("s3cret")),
            other => panic!("the user may not publish: {other:?}"),
        }
        write(&store, &format!("circuit {}", fastrand::u64(..)), None, b"1").await;
    }
    eventually("it has tried again and again", SOON, || async {
        (calls(&server, "subscribe").await.ok()? >= 3).then_some(())
    })
    .await;
    assert_eq!(watch.next().now_or_never(), None);
    let warnings = log.warnings();
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(warnings[0].contains("circuitry:") && warnings[0].contains("permissions"), "{warnings:?}");
    assert!(!warnings[0].contains("s3cret"));

    // Granted later, it needs no restart.
    set_user(&server, &[PERMISSIONS, PUSH_PERMISSIONS].join(" ")).await?;
    assert_eq!(next(&mut watch).await, Push::Missed);
    eventually("it may publish", SOON, || async { store.announce("circuit").await.ok() }).await;
    assert_eq!(next(&mut watch).await, changed("circuit"));
    // Taken away again, the server ends the subscription, and nothing new is said.
    set_user(&server, PERMISSIONS).await?;
    until_subscribers_are(0, &server, &store).await;
    assert_eq!(log.warnings().len(), 1);
    store.load("circuit").await?;
    Ok(())
}

#[tokio::test]
async fn an_announcement_never_keeps_a_swap_waiting_and_ends_within_the_timeout() -> Result<()> {
    let proxy = LossyProxy::start(address_of(&server_url())?).await?;
    let store = own_store().operation_timeout(TIMEOUT).connect(&through(&proxy, &server_url())?).await?;
    let mut known = write(&store, "circuit", None, b"0").await;
    for lost in 0..5 {
        proxy.lose_answer_to("PUBLISH");
        let announced = store.announce("circuit").await;
        assert!(matches!(announced, Err(StoreError::Unavailable { .. })), "{announced:?}");
        assert_eq!(proxy.lost(), lost + 1, "it was sent once and not again");
        // Nothing is owed to it: the swap goes through, on the connection that is made anew.
        let swapped = eventually("it is connected anew", SOON, || async {
            store.swap("circuit", Some(&known.version), b"1", None).await.ok()
        });
        let Swapped::Stored(receipt) = swapped.await else { panic!("nobody else writes it") };
        known = receipt;
    }
    proxy.stall();
    let begun = tokio::time::Instant::now();
    assert!(matches!(store.announce("circuit").await, Err(StoreError::Unavailable { .. })));
    assert!(begun.elapsed() < TIMEOUT + Duration::from_millis(700), "it took {:?}", begun.elapsed());
    proxy.resume().await;
    Ok(())
}

#[tokio::test]
async fn on_a_given_connection_there_is_no_watch_and_announcements_reach_others() -> Result<()> {
    let prefix = own_prefix();
    let manager = redis::Client::open(server_url())?.get_connection_manager().await?;
    let given = RedisStore::builder().prefix(&prefix).from_connection_manager(manager)?;
    assert!(given.watch().await?.is_none(), "nobody knows where it leads to");
    let store = RedisStore::builder().prefix(&prefix).connect(&server_url()).await?;
    let mut watch = watch(&store).await;
    given.announce("circuit").await?;
    assert_eq!(next(&mut watch).await, changed("circuit"));
    Ok(())
}
