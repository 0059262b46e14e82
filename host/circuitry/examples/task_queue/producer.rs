//! Where the jobs come from.

use std::sync::Arc;
use std::time::Duration;

use circuitry::{Clock, SystemClock};
use tokio::time::{interval, sleep};

use crate::options::Options;
use crate::queue::{Job, Queue};

/// Pushes the jobs 1 to `options.jobs` at a steady pace.
pub(crate) async fn produce(options: Options, queue: Arc<dyn Queue>) {
    let begun_at_ms = SystemClock::new().now_ms();
    let mut chance = fastrand::Rng::with_seed(options.seed);
    let mut tenants = options.tenant_names();
    let mut pace = interval(Duration::from_secs(1) / options.rate);
    for id in 1..=options.jobs {
        // In each round every tenant has one turn.
        let turn = ((id - 1) % tenants.len() as u64) as usize;
        if turn == 0 {
            chance.shuffle(&mut tenants);
        }
        let job = Job { id, tenant: tenants[turn].clone(), begun_at_ms };
        pace.tick().await;
        // A push that failed may have been done; it is safe to push again.
        while let Err(error) = queue.push(&job).await {
            tracing::warn!(error = format!("{error:#}"), "a job could not be pushed");
            sleep(Duration::from_millis(500)).await;
        }
    }
}
