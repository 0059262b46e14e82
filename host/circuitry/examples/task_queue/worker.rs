//! A worker: takes a job, does it behind its tenant's circuit, says what became of it. Begin to read here.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use circuitry::{Context, ExecuteError, Factory, Settings, StateChange};
use tokio::select;
use tokio::sync::watch;
use tokio::time::sleep;

use crate::event::{Event, Events};
use crate::options::Options;
use crate::queue::{Delivery, Queue, Return};
use crate::shared::{CIRCUIT, Shared};
use crate::upstream::Upstream;

/// How long a job stays with a worker that is not heard of any more.
const LEASE: Duration = Duration::from_secs(2);
/// How long a worker waits when nothing is due.
const IDLE: Duration = Duration::from_millis(10);
/// How long a worker, or a job, waits when the queue or the circuit cannot be asked.
const TROUBLE: Duration = Duration::from_millis(500);

/// Takes jobs, one at a time.
pub(crate) struct Worker {
    number: u32,
    factory: Factory,
    queue: Arc<dyn Queue>,
    upstream: Upstream,
    events: Events,
}

/// The circuits' settings. All that share circuits give the same.
pub(crate) fn settings(options: &Options, shared: &Shared) -> circuitry::SettingsBuilder {
    Settings::builder()
        .store(shared.circuits.clone())
        .failure_count_threshold(5) // trips on the 6th failure in a row
        .close_threshold(2)
        .allow_after(options.open_for)
        // A probe is renewed while it works, so this may be short. Jobs that are refused because all probes are out
        // come back after it, and so does the place of a probe whose worker was killed.
        .probe_timeout(Duration::from_millis(500))
        // Of a demo nothing need be left tomorrow; keep the default of a day for circuits that matter.
        .idle_retention(Duration::from_secs(600))
}

impl Worker {
    /// Each worker makes its own factory, as each process does. They know of each other by the store alone.
    pub(crate) async fn new(number: u32, options: &Options, shared: &Shared, events: Events) -> Result<Self> {
        let told = events.clone();
        let settings = settings(options, shared)
            .state_change_callback(move |change| {
                // Nobody listens any more when the run is over.
                let _ = told.send(state_changed(number, change));
            })
            .build()?;
        let factory = Factory::new(settings).await?;
        Ok(Self { number, factory, queue: shared.queue.clone(), upstream: Upstream::new(options), events })
    }

    /// Works until `stop` says so; a job in hand is brought to its end, and what was counted is settled.
    pub(crate) async fn run(self, stop: watch::Receiver<bool>) {
        let mut in_trouble = false;
        while !*stop.borrow() {
            match self.step().await {
                Ok(()) => in_trouble = false,
                // The job of this step, if any, comes back when its lease ends.
                Err(error) => {
                    if !std::mem::replace(&mut in_trouble, true) {
                        self.tell(Event::Trouble { worker: self.number, problem: format!("{error:#}") });
                    }
                    sleep(TROUBLE).await;
                }
            }
        }
        // What it has counted and not yet written would be lost with it.
        if let Err(error) = self.factory.flush().await {
            self.tell(Event::Trouble { worker: self.number, problem: error.to_string() });
        }
    }

    async fn step(&self) -> Result<()> {
        let Some(delivery) = self.queue.take(self.number, LEASE).await? else {
            sleep(IDLE).await;
            return Ok(());
        };
        let job = &delivery.job;
        if delivery.is_redelivery {
            let (job, tenant) = (job.id, job.tenant.clone());
            self.tell(Event::Redelivered { worker: self.number, job, tenant });
        }
        select! {
            handled = self.handle(&delivery) => handled,
            // Another worker has the job: leave it. The circuit settles work that is dropped as ignored.
            () = self.lease_is_lost(&delivery) => Ok(()),
        }
    }

    /// Does a job behind the circuit of its tenant. This is what a queue worker of your own needs.
    async fn handle(&self, delivery: &Delivery) -> Result<()> {
        let job = &delivery.job;
        let breaker = self.factory.breaker_for(CIRCUIT, &Context::tenant(&job.tenant));
        match breaker.execute(|| self.upstream.send(job)).await {
            Ok(()) => {
                if self.queue.finish(delivery).await? {
                    self.tell(Event::Finished { worker: self.number, job: job.id });
                }
            }
            // The circuit is open, or all its probes are out: the job was not tried, and this is no attempt. It comes
            // back when it is worth a try, and this worker goes on with the other tenants.
            Err(ExecuteError::Refused(refusal)) => {
                self.queue.give_back(delivery, refusal.spread_delay(), Return::Refused).await?;
            }
            // It was tried and failed: an attempt, with a longer pause after each. A queue of your own gives up some
            // day; this one does not.
            Err(ExecuteError::Work(_error)) => {
                self.queue.give_back(delivery, backoff(delivery.failed), Return::Failed).await?;
            }
            // The circuit could not be asked, so the job was not tried. A store that is down is no such error: then
            // the circuit goes on in this process.
            Err(error) => {
                self.queue.give_back(delivery, TROUBLE, Return::Unasked).await?;
                self.tell(Event::Trouble { worker: self.number, problem: error.to_string() });
            }
        }
        Ok(())
    }

    /// Renews the lease while the job is worked on, so that only a worker that is gone loses it.
    async fn lease_is_lost(&self, delivery: &Delivery) {
        loop {
            sleep(LEASE / 3).await;
            // A renewal that fails is tried again before the lease ends.
            if let Ok(false) = self.queue.renew(delivery, LEASE).await {
                return;
            }
        }
    }

    fn tell(&self, event: Event) {
        // Nobody listens any more when the run is over.
        let _ = self.events.send(event);
    }
}

/// The pause before a job is tried again: 250 ms, doubled with each failure up to 4 s, and up to a quarter more, so
/// that jobs that failed together do not return together.
fn backoff(failed_before: u64) -> Duration {
    let pause = Duration::from_millis(250 << failed_before.min(4));
    pause.mul_f64(1.0 + fastrand::f64() / 4.0)
}

fn state_changed(worker: u32, change: &StateChange<'_>) -> Event {
    let tenant = change.context.value("tenant").unwrap_or_default().to_owned();
    Event::StateChanged { worker, tenant, change: change.transition.into(), local: change.local }
}
