//! Whoever waits on the connection drives it: nobody's answer hangs on another's being polled.

mod support;

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use anyhow::Result;
use circuitry_redis::RedisStore;
use circuitry_store::Store;
use support::{own_store, server_url, write};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

const ENOUGH: Duration = Duration::from_secs(30);

async fn store() -> Result<RedisStore> {
    let store = own_store().operation_timeout(ENOUGH).connect(&server_url()).await?;
    write(&store, "one", None, b"1").await;
    Ok(store)
}

/// Polls a future once.
async fn once<F: Future>(future: &mut std::pin::Pin<&mut F>) -> Poll<F::Output> {
    poll_fn(|context| Poll::Ready(future.as_mut().poll(context))).await
}

#[tokio::test]
async fn a_request_that_is_polled_no_more_holds_up_no_other() -> Result<()> {
    let store = store().await?;
    let mut left = pin!(store.load("one"));
    assert!(once(&mut left).await.is_pending());
    for _ in 0..20 {
        assert!(timeout(ENOUGH, store.load("one")).await??.entry.is_some());
    }
    assert!(timeout(ENOUGH, left).await??.entry.is_some(), "its own answer is kept for it");
    Ok(())
}

#[tokio::test]
async fn a_request_that_is_dropped_when_its_answer_is_there_holds_up_no_other() -> Result<()> {
    let store = store().await?;
    for _ in 0..50 {
        let mut next = pin!(store.load("one"));
        {
            let mut dropped = pin!(store.load("one"));
            assert!(once(&mut dropped).await.is_pending());
            assert!(once(&mut next).await.is_pending());
            sleep(Duration::from_millis(1)).await;
        }
        assert!(timeout(ENOUGH, next).await??.entry.is_some());
    }
    Ok(())
}

#[tokio::test]
async fn a_task_that_has_used_up_its_turn_lets_others_have_theirs() -> Result<()> {
    let store = store().await?;
    let (sender, mut receiver) = tokio::sync::mpsc::unbounded_channel();
    for spent in 0..300 {
        for _ in 0..spent {
            sender.send(())?;
        }
        // Each takes a part of what a task may do before it yields.
        for _ in 0..spent {
            receiver.recv().await;
        }
        assert!(timeout(ENOUGH, store.load("one")).await??.entry.is_some());
    }
    Ok(())
}

/// Tasks that load, and leave early as often as not.
async fn crowd(tasks: usize) -> Result<()> {
    let store = store().await?;
    let mut crowd = JoinSet::new();
    for number in 0..tasks {
        let store = store.clone();
        crowd.spawn(async move {
            let mut chance = fastrand::Rng::with_seed(number as u64);
            for _ in 0..400 {
                let patience = Duration::from_micros(chance.u64(0..300));
                match chance.u8(0..4) {
                    0 => drop(timeout(patience, store.load("one")).await),
                    1 => {
                        let mut left = pin!(store.load("one"));
                        let _ = once(&mut left).await;
                    }
                    2 => sleep(patience).await,
                    _ => assert!(store.load("one").await.expect("an answer").entry.is_some()),
                }
            }
        });
    }
    while let Some(done) = timeout(ENOUGH, crowd.join_next()).await.expect("nobody waits for ever") {
        done?;
    }
    Ok(())
}

#[tokio::test]
async fn on_one_thread_everybody_who_waits_is_answered_whoever_leaves() -> Result<()> {
    for tasks in [1, 2, 3, 16] {
        crowd(tasks).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn on_many_threads_everybody_who_waits_is_answered_whoever_leaves() -> Result<()> {
    for tasks in [1, 2, 3, 16] {
        crowd(tasks).await?;
    }
    Ok(())
}
