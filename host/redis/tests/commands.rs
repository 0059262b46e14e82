//! What an operation costs, counted by the server.

mod support;

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Result;
use circuitry_redis::RedisStore;
use circuitry_store::{Store, Swapped};
use support::process::ServerProcess;
use support::{eventually, own_store, write};

/// How often each command has run, those inside of the script included.
async fn counts(server: &ServerProcess) -> Result<BTreeMap<String, u64>> {
    let info: String = server.run(&["INFO", "commandstats"]).await?;
    let mut counts = BTreeMap::new();
    for line in info.lines() {
        let Some((command, figures)) =
            line.strip_prefix("cmdstat_").and_then(|rest| rest.split_once(":calls="))
        else {
            continue;
        };
        let calls = figures.split(',').next().unwrap_or_default().parse()?;
        counts.insert(command.to_owned(), calls);
    }
    Ok(counts)
}

/// What the server runs for an operation, without what connections and this counting cost.
async fn cost<T>(
    server: &ServerProcess,
    operation: impl Future<Output = T>,
) -> Result<(T, BTreeMap<String, u64>)> {
    let before = counts(server).await?;
    let answer = operation.await;
    let mut cost = counts(server).await?;
    for (command, calls) in &mut cost {
        *calls -= before.get(command).copied().unwrap_or(0);
    }
    cost.retain(|command, calls| *calls > 0 && command != "info" && !command.starts_with("client|"));
    Ok((answer, cost))
}

fn of(commands: &[(&str, u64)]) -> BTreeMap<String, u64> {
    commands.iter().map(|(command, calls)| ((*command).to_owned(), *calls)).collect()
}

/// A server and a store that knows the server's time and whose script the server knows.
async fn warm() -> Result<(ServerProcess, RedisStore)> {
    let server = ServerProcess::start::<&str>([]).await?;
    let store = own_store().connect(&server.url()).await?;
    write(&store, "warm", None, b"1").await;
    Ok((server, store))
}

#[tokio::test]
async fn a_load_is_one_hmget() -> Result<()> {
    let (server, store) = warm().await?;
    let (loaded, cost) = cost(&server, async {
        for _ in 0..99 {
            store.load("warm").await?;
        }
        store.load("warm").await
    })
    .await?;
    assert_eq!(cost, of(&[("hmget", 100)]));
    assert!(loaded?.now_ms.is_some(), "the time that was told before is carried on");
    Ok(())
}

#[tokio::test]
async fn a_swap_is_one_evalsha_and_tells_the_time() -> Result<()> {
    let (server, store) = warm().await?;
    let known = store.load("warm").await?.entry.expect("it is there");
    let (swapped, cost) = cost(&server, store.swap("warm", Some(&known.version), b"2", None)).await?;
    let Swapped::Stored(receipt) = swapped? else { panic!("nobody else writes it") };
    assert!(receipt.now_ms.is_some());
    // The others run inside of the script.
    assert_eq!(cost, of(&[("evalsha", 1), ("hmget", 1), ("hset", 1), ("persist", 1), ("time", 1)]));
    Ok(())
}

#[tokio::test]
async fn an_announcement_is_one_publish_also_when_nobody_watches() -> Result<()> {
    let (server, store) = warm().await?;
    let (announced, cost_alone) = cost(&server, store.announce("warm")).await?;
    announced?;
    assert_eq!(cost_alone, of(&[("publish", 1)]));
    let (watch, cost_of_watch) = cost(&server, store.watch()).await?;
    assert!(watch?.is_some());
    assert_eq!(cost_of_watch, of(&[("hello", 1), ("subscribe", 1)]), "it has a connection of its own");
    Ok(())
}

#[tokio::test]
async fn a_lost_race_costs_no_read_more() -> Result<()> {
    let (server, store) = warm().await?;
    let (swapped, cost) = cost(&server, store.swap("warm", None, b"2", None)).await?;
    let Swapped::Conflict(fresh) = swapped? else { panic!("there is an entry") };
    assert!(fresh.entry.is_some() && fresh.now_ms.is_some());
    assert_eq!(cost, of(&[("evalsha", 1), ("hmget", 1), ("time", 1)]));
    Ok(())
}

#[tokio::test]
async fn a_load_asks_for_the_time_only_when_it_was_last_told_long_ago() -> Result<()> {
    let (server, first) = warm().await?;
    let fresh = own_store().connect(&server.url()).await?;
    write(&fresh, "circuit", None, b"1").await;
    let fresh = RedisStore::builder().prefix(fresh.key("")).connect(&server.url()).await?;
    let (loaded, cost_of_first) = cost(&server, fresh.load("circuit")).await?;
    assert_eq!(cost_of_first, of(&[("hmget", 1), ("time", 1)]));
    let told_ms = loaded?.now_ms.expect("the server told its time");
    let Swapped::Conflict(later) = first.swap("warm", None, b"", None).await? else {
        panic!("there is an entry")
    };
    let later_ms = later.now_ms.expect("a swap tells the time");
    assert!(told_ms <= later_ms && later_ms - told_ms < 60_000, "{told_ms} and {later_ms} are of one clock");
    let (loaded, cost_of_second) = cost(&server, fresh.load("circuit")).await?;
    assert_eq!(cost_of_second, of(&[("hmget", 1)]));
    assert!(loaded?.now_ms.is_some_and(|now_ms| now_ms >= told_ms), "the time told is carried on");

    // Only the clock of the timers is moved, and no request waits meanwhile.
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(11)).await;
    tokio::time::resume();
    let (loaded, cost_after_a_while) = cost(&server, fresh.load("circuit")).await?;
    assert!(loaded?.now_ms.is_some());
    assert_eq!(cost_after_a_while, of(&[("hmget", 1), ("time", 1)]));
    Ok(())
}

#[tokio::test]
async fn only_an_absent_entry_is_looked_at_twice() -> Result<()> {
    let (server, store) = warm().await?;
    let (loaded, cost) = cost(&server, store.load("nobody wrote it")).await?;
    assert_eq!(loaded?.entry, None);
    assert_eq!(cost, of(&[("hmget", 2), ("exists", 1)]));
    Ok(())
}

#[tokio::test]
async fn the_script_is_sent_once_to_a_server_that_does_not_know_it() -> Result<()> {
    let (server, store) = warm().await?;
    server.run::<String>(&["SCRIPT", "FLUSH"]).await?;
    let (_, cost) = cost(&server, async {
        for index in 0..5 {
            write(&store, &format!("circuit {index}"), None, b"1").await;
        }
    })
    .await?;
    assert_eq!((cost.get("eval"), cost.get("evalsha")), (Some(&1), Some(&5)), "{cost:?}");
    Ok(())
}

/// 64 tasks on one connection: the commands are those of the operations, and none more.
#[tokio::test]
async fn operations_at_once_share_one_connection() -> Result<()> {
    let (server, store) = warm().await?;
    let clients =
        |info: String| info.lines().find_map(|line| line.strip_prefix("connected_clients:")?.parse().ok());
    let (_, cost) = cost(&server, async {
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..64 {
            let store = store.clone();
            tasks.spawn(async move { store.load("warm").await.map(drop) });
        }
        for loaded in tasks.join_all().await {
            loaded.expect("the server is there");
        }
    })
    .await?;
    assert_eq!(cost, of(&[("hmget", 64)]));
    // The store's, and the one that asks; those that asked before may still be on their way out.
    eventually("there are two connections", Duration::from_secs(10), || async {
        let clients: u64 = clients(server.run(&["INFO", "clients"]).await.ok()?)?;
        (clients == 2).then_some(())
    })
    .await;
    Ok(())
}
