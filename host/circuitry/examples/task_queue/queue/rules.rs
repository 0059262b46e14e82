//! The rules of a queue, as tests. Each runs on both.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Census, Delivery, Job, Lease, MemoryQueue, Queue, RedisQueue, Return};

const LONG: Duration = Duration::from_secs(60);
const SHORT: Duration = Duration::from_millis(40);

async fn on_both<F: Future<Output = ()>>(rule: impl Fn(Arc<dyn Queue>) -> F) {
    rule(Arc::new(MemoryQueue::default())).await;
    let url = std::env::var("CIRCUITRY_TEST_REDIS_URL")
        .expect("CIRCUITRY_TEST_REDIS_URL is not set: run `cargo xtask test`, which starts the servers");
    let redis = Arc::new(RedisQueue::connect(&url, &format!("rules-{:x}", fastrand::u64(..))).await.unwrap());
    rule(redis.clone()).await;
    redis.delete(&[]).await.unwrap();
}

fn job(id: u64) -> Job {
    Job { id, tenant: "acme".into(), begun_at_ms: 7 }
}

async fn taken(queue: &dyn Queue, worker: u32, lease: Duration) -> Delivery {
    let end = Instant::now() + Duration::from_secs(10);
    while Instant::now() < end {
        if let Some(delivery) = queue.take(worker, lease).await.unwrap() {
            return delivery;
        }
        tokio::task::yield_now().await;
    }
    panic!("no job came within 10 s");
}

#[tokio::test]
async fn jobs_come_in_the_order_of_their_push_and_each_to_one_worker() {
    on_both(async |queue| {
        for id in 1..=3 {
            queue.push(&job(id)).await.unwrap();
        }
        for id in 1..=3 {
            assert_eq!(taken(&*queue, 1, LONG).await.job, job(id));
        }
        assert!(queue.take(2, LONG).await.unwrap().is_none());
        let mut leases = queue.leases().await.unwrap();
        leases.sort_by_key(|lease| lease.job);
        assert_eq!(leases, [1, 2, 3].map(|job| Lease { worker: 1, job }));
    })
    .await;
}

#[tokio::test]
async fn a_job_pushed_again_is_one_job() {
    on_both(async |queue| {
        queue.push(&job(1)).await.unwrap();
        queue.push(&job(1)).await.unwrap();
        let delivery = taken(&*queue, 1, LONG).await;
        queue.push(&job(1)).await.unwrap();
        assert!(queue.take(1, LONG).await.unwrap().is_none());
        assert!(queue.finish(&delivery).await.unwrap());
        queue.push(&job(1)).await.unwrap();
        assert!(queue.take(1, LONG).await.unwrap().is_none());
    })
    .await;
}

#[tokio::test]
async fn a_job_given_back_comes_again_when_its_delay_is_over_and_not_before() {
    on_both(async |queue| {
        queue.push(&job(1)).await.unwrap();
        let first = taken(&*queue, 1, LONG).await;
        let begun = Instant::now();
        assert!(queue.give_back(&first, SHORT, Return::Failed).await.unwrap());
        let second = taken(&*queue, 1, LONG).await;
        // Both clocks count whole milliseconds.
        assert!(begun.elapsed() + Duration::from_millis(1) >= SHORT, "after {:?}", begun.elapsed());
        assert_eq!((second.failed, second.is_redelivery), (1, false));
        assert!(queue.give_back(&second, LONG, Return::Refused).await.unwrap());
        assert!(queue.take(1, LONG).await.unwrap().is_none());
        let census = queue.census().await.unwrap();
        assert_eq!(census, Census { delayed: 1, refused: 1, failed: 1, ..Census::default() });
    })
    .await;
}

#[tokio::test]
async fn a_job_whose_lease_ended_goes_to_another_worker_and_the_first_changes_nothing_any_more() {
    on_both(async |queue| {
        queue.push(&job(1)).await.unwrap();
        let lost = taken(&*queue, 1, SHORT).await;
        let again = taken(&*queue, 2, LONG).await;
        assert_eq!((again.job.id, again.is_redelivery, again.failed), (1, true, 0));
        assert!(!queue.renew(&lost, SHORT).await.unwrap());
        assert!(!queue.give_back(&lost, Duration::ZERO, Return::Failed).await.unwrap());
        assert!(!queue.finish(&lost).await.unwrap());
        assert_eq!(queue.leases().await.unwrap(), [Lease { worker: 2, job: 1 }]);
        // Given back and taken again, it is no redelivery any more.
        assert!(queue.give_back(&again, Duration::ZERO, Return::Refused).await.unwrap());
        let again = taken(&*queue, 2, LONG).await;
        assert!(!again.is_redelivery);
        assert!(queue.finish(&again).await.unwrap());
        let accounts = queue.accounts().await.unwrap();
        assert_eq!((accounts.len(), accounts[0].redelivered), (1, 1));
        assert_eq!(accounts[0].receipt.unwrap().worker, 2);
    })
    .await;
}

#[tokio::test]
async fn a_lease_that_is_renewed_does_not_end() {
    on_both(async |queue| {
        queue.push(&job(1)).await.unwrap();
        // Long enough that a busy machine does not come late for it.
        let lease = Duration::from_millis(500);
        let held = taken(&*queue, 1, lease).await;
        let begun = Instant::now();
        while begun.elapsed() < lease * 3 {
            assert!(queue.renew(&held, lease).await.unwrap());
            assert!(queue.take(2, lease).await.unwrap().is_none());
        }
        assert!(queue.finish(&held).await.unwrap());
    })
    .await;
}

#[tokio::test]
async fn a_job_is_finished_once() {
    on_both(async |queue| {
        queue.push(&job(1)).await.unwrap();
        let delivery = taken(&*queue, 3, LONG).await;
        assert!(queue.finish(&delivery).await.unwrap());
        assert!(!queue.finish(&delivery).await.unwrap());
        assert!(!queue.give_back(&delivery, Duration::ZERO, Return::Failed).await.unwrap());
        assert!(queue.take(3, LONG).await.unwrap().is_none());
        assert_eq!(queue.census().await.unwrap(), Census { done: 1, ..Census::default() });
    })
    .await;
}
