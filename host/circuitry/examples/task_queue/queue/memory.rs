//! [`MemoryQueue`]: the queue of one process.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use async_trait::async_trait;
use circuitry::{Clock, SystemClock};

use super::{Account, Census, Delivery, Job, Lease, Queue, Receipt, Return, mint_holder, worker_of};

/// A queue in this process's memory. It lives as long as the process.
#[derive(Debug, Default)]
pub(crate) struct MemoryQueue {
    clock: SystemClock,
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    jobs: BTreeMap<u64, Entry>,
    ready: VecDeque<u64>,
    /// When it is due, in milliseconds, and which job.
    delayed: BTreeSet<(u64, u64)>,
    /// The leased jobs: until when, and the holder.
    leased: BTreeMap<u64, (u64, String)>,
}

#[derive(Debug)]
struct Entry {
    job: Job,
    pushed_at_ms: u64,
    refused: u64,
    failed: u64,
    redelivered: u64,
    /// Whether its last lease ended by itself.
    is_lost: bool,
    receipt: Option<Receipt>,
}

impl Table {
    /// Makes the jobs ready whose time has come.
    fn bring_back(&mut self, now_ms: u64) {
        while let Some(&(due_at_ms, id)) = self.delayed.first()
            && due_at_ms <= now_ms
        {
            self.delayed.pop_first();
            self.ready.push_back(id);
        }
        let ended = self.leased.extract_if(.., |_, (until_ms, _)| *until_ms <= now_ms);
        for (id, _) in ended {
            // To the front: it has waited already.
            self.ready.push_front(id);
            if let Some(entry) = self.jobs.get_mut(&id) {
                entry.redelivered += 1;
                entry.is_lost = true;
            }
        }
    }

    fn holds(&self, delivery: &Delivery) -> bool {
        self.leased.get(&delivery.job.id).is_some_and(|(_, holder)| *holder == delivery.holder)
    }
}

impl MemoryQueue {
    /// Every change under the lock is whole before anything can panic.
    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn after(&self, length: Duration) -> u64 {
        self.clock.now_ms().saturating_add(u64::try_from(length.as_millis()).unwrap_or(u64::MAX))
    }
}

#[async_trait]
impl Queue for MemoryQueue {
    async fn push(&self, job: &Job) -> Result<()> {
        let pushed_at_ms = self.clock.now_ms();
        let mut table = self.table();
        if !table.jobs.contains_key(&job.id) {
            let job = job.clone();
            table.ready.push_back(job.id);
            let entry = Entry {
                job,
                pushed_at_ms,
                refused: 0,
                failed: 0,
                redelivered: 0,
                is_lost: false,
                receipt: None,
            };
            table.jobs.insert(entry.job.id, entry);
        }
        Ok(())
    }

    async fn take(&self, worker: u32, lease: Duration) -> Result<Option<Delivery>> {
        let (now_ms, until_ms) = (self.clock.now_ms(), self.after(lease));
        let mut table = self.table();
        table.bring_back(now_ms);
        let Table { jobs, ready, leased, .. } = &mut *table;
        let Some(id) = ready.pop_front() else { return Ok(None) };
        let holder = mint_holder(worker);
        leased.insert(id, (until_ms, holder.clone()));
        let entry = jobs.get_mut(&id).context("a job that is ready was pushed")?;
        Ok(Some(Delivery {
            job: entry.job.clone(),
            worker,
            holder,
            waited_ms: now_ms.saturating_sub(entry.pushed_at_ms),
            failed: entry.failed,
            is_redelivery: std::mem::take(&mut entry.is_lost),
        }))
    }

    async fn renew(&self, delivery: &Delivery, lease: Duration) -> Result<bool> {
        let until_ms = self.after(lease);
        let mut table = self.table();
        let holds = table.holds(delivery);
        if holds {
            table.leased.insert(delivery.job.id, (until_ms, delivery.holder.clone()));
        }
        Ok(holds)
    }

    async fn finish(&self, delivery: &Delivery) -> Result<bool> {
        let mut table = self.table();
        let holds = table.holds(delivery);
        if holds {
            table.leased.remove(&delivery.job.id);
            let entry = table.jobs.get_mut(&delivery.job.id);
            let before = entry.and_then(|entry| entry.receipt.replace(delivery.receipt()));
            ensure!(before.is_none(), "job {} was finished before", delivery.job.id);
        }
        Ok(holds)
    }

    async fn give_back(&self, delivery: &Delivery, delay: Duration, why: Return) -> Result<bool> {
        let due_at_ms = self.after(delay);
        let mut table = self.table();
        let holds = table.holds(delivery);
        if holds {
            table.leased.remove(&delivery.job.id);
            table.delayed.insert((due_at_ms, delivery.job.id));
            if let Some(entry) = table.jobs.get_mut(&delivery.job.id) {
                match why {
                    Return::Refused => entry.refused += 1,
                    Return::Failed => entry.failed += 1,
                    Return::Unasked => {}
                }
            }
        }
        Ok(holds)
    }

    async fn census(&self) -> Result<Census> {
        let table = self.table();
        let sum = |count: fn(&Entry) -> u64| table.jobs.values().map(count).sum();
        Ok(Census {
            ready: table.ready.len() as u64,
            delayed: table.delayed.len() as u64,
            leased: table.leased.len() as u64,
            done: sum(|entry| u64::from(entry.receipt.is_some())),
            refused: sum(|entry| entry.refused),
            failed: sum(|entry| entry.failed),
            redelivered: sum(|entry| entry.redelivered),
        })
    }

    async fn leases(&self) -> Result<Vec<Lease>> {
        let table = self.table();
        let leases = table.leased.iter();
        Ok(leases.filter_map(|(&job, (_, holder))| Some(Lease { worker: worker_of(holder)?, job })).collect())
    }

    async fn accounts(&self) -> Result<Vec<Account>> {
        let table = self.table();
        let accounts = table.jobs.values().map(|entry| Account {
            job: entry.job.clone(),
            refused: entry.refused,
            failed: entry.failed,
            redelivered: entry.redelivered,
            receipt: entry.receipt,
        });
        Ok(accounts.collect())
    }
}
