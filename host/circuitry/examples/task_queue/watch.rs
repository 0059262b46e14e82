//! Watches a run: hears what the workers tell, looks at the queue, shows both, until every job is done.

use std::time::Duration;

use anyhow::{Result, bail};
use tokio::select;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::event::Event;
use crate::fleet::Fleet;
use crate::options::Options;
use crate::progress::Progress;
use crate::queue::{Lease, Queue};
use crate::report::History;

/// How long after the last job and the end of the trouble everything must be done.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often the queue is asked whether all is done; a line is shown for each second.
const LOOKS_A_SECOND: u32 = 10;

/// Whoever watches a run.
pub(crate) struct Watch<'a> {
    options: &'a Options,
    told: UnboundedReceiver<Event>,
    progress: Progress,
    history: History,
}

impl<'a> Watch<'a> {
    /// Says what the run will be; what the workers tell comes by `told`.
    pub(crate) fn new(options: &'a Options, told: UnboundedReceiver<Event>) -> Self {
        let progress = Progress::new(options);
        progress.opening(options);
        Self { options, told, progress, history: History::default() }
    }

    /// Watches until all jobs are done, or have had time enough. Kills a worker half-way, if that is wanted, and says
    /// which, and which job it held.
    pub(crate) async fn until_done(&mut self, fleet: &mut Fleet, queue: &dyn Queue) -> Result<Option<Lease>> {
        let options = self.options;
        let begun = Instant::now();
        let half_way = begun + options.jobs_come_for() / 2;
        let quiet_at = begun + options.jobs_come_for().max(options.fails().end);
        let deadline = quiet_at + options.open_for + PATIENCE;
        let mut killed = None;
        let mut looks = interval(Duration::from_secs(1) / LOOKS_A_SECOND);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let interrupt = tokio::signal::ctrl_c();
        tokio::pin!(interrupt);
        self.progress.begin();
        for look in 1_u32.. {
            loop {
                select! {
                    Some(event) = self.told.recv() => self.hear(&event),
                    interrupted = &mut interrupt => { interrupted?; bail!("interrupted") }
                    _ = looks.tick() => break,
                }
            }
            let census = queue.census().await;
            let is_done = census.as_ref().is_ok_and(|census| census.done == options.jobs);
            let is_over = is_done || Instant::now() > deadline;
            if look.is_multiple_of(LOOKS_A_SECOND) || is_over {
                self.progress.second(census);
            }
            if is_over {
                break;
            }
            for worker in fleet.gone()? {
                self.progress.gone(&worker);
            }
            if options.kill_a_worker && killed.is_none() && Instant::now() > half_way {
                killed = fleet.kill_one_at_work(queue).await?;
                killed.iter().for_each(|lease| self.progress.killed(lease));
            }
        }
        Ok(killed)
    }

    /// Hears the workers out, who have stopped, and gives what they have told.
    pub(crate) async fn history(mut self) -> History {
        while let Some(event) = self.told.recv().await {
            self.hear(&event);
        }
        self.history
    }

    fn hear(&mut self, event: &Event) {
        self.progress.event(event);
        self.history.event(event);
    }
}
