//! [`RedisQueue`]: the queue of many processes, on a Redis server of 6.2 or newer.

use std::collections::HashMap;
use std::time::Duration;

use anyhow::{Context, Result};
use async_trait::async_trait;
use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use redis::{Client, FromRedisValue, Script, ToRedisArgs};

use super::{Account, Census, Delivery, Job, Lease, Queue, Receipt, Return, mint_holder, worker_of};

/// The tables of `steps.lua`, in the order in which it takes them.
const TABLES: [&str; 7] = ["ready", "delayed", "leases", "holders", "jobs", "facts", "done"];

/// A queue on a Redis server. All queues of one name share their jobs.
pub(crate) struct RedisQueue {
    connection: ConnectionManager,
    steps: Script,
    keys: [String; 7],
}

impl RedisQueue {
    pub(crate) async fn connect(url: &str, name: &str) -> Result<Self> {
        let client = Client::open(url).context("the Redis URL cannot be used")?;
        let config = ConnectionManagerConfig::new().set_response_timeout(Some(Duration::from_secs(2)));
        let connection = ConnectionManager::new_with_config(client, config)
            .await
            .context("the Redis server cannot be reached")?;
        // The braces keep the tables of one queue together on a cluster.
        let keys = TABLES.map(|table| format!("{{{name}}}:{table}"));
        Ok(Self { connection, steps: Script::new(include_str!("steps.lua")), keys })
    }

    /// Removes all that is left of the queue, and `others`.
    pub(crate) async fn delete(&self, others: &[String]) -> Result<()> {
        let mut delete = redis::cmd("DEL");
        delete.arg(&self.keys[..]).arg(others);
        Ok(delete.exec_async(&mut self.connection.clone()).await?)
    }

    async fn step<A: ToRedisArgs, T: FromRedisValue>(&self, name: &str, arguments: &[A]) -> Result<T> {
        let mut step = self.steps.prepare_invoke();
        for key in &self.keys {
            step.key(key);
        }
        step.arg(name).arg(arguments);
        step.invoke_async(&mut self.connection.clone())
            .await
            .with_context(|| format!("the queue on Redis could not {name}"))
    }

    fn key(&self, table: &str) -> &str {
        let index = TABLES.iter().position(|name| *name == table).unwrap_or_default();
        &self.keys[index]
    }
}

fn ms(length: Duration) -> String {
    length.as_millis().to_string()
}

#[async_trait]
impl Queue for RedisQueue {
    async fn push(&self, job: &Job) -> Result<()> {
        let _was_new: bool = self.step("push", &[job.id.to_string(), serde_json::to_string(job)?]).await?;
        Ok(())
    }

    async fn take(&self, worker: u32, lease: Duration) -> Result<Option<Delivery>> {
        let holder = mint_holder(worker);
        let taken: Option<(String, u64, u64, bool)> = self.step("take", &[holder.clone(), ms(lease)]).await?;
        let Some((job, waited_ms, failed, is_redelivery)) = taken else { return Ok(None) };
        let job = serde_json::from_str(&job)?;
        Ok(Some(Delivery { job, worker, holder, waited_ms, failed, is_redelivery }))
    }

    async fn renew(&self, delivery: &Delivery, lease: Duration) -> Result<bool> {
        self.step("renew", &[delivery.job.id.to_string(), delivery.holder.clone(), ms(lease)]).await
    }

    async fn finish(&self, delivery: &Delivery) -> Result<bool> {
        let receipt = serde_json::to_string(&delivery.receipt())?;
        self.step("finish", &[delivery.job.id.to_string(), delivery.holder.clone(), receipt]).await
    }

    async fn give_back(&self, delivery: &Delivery, delay: Duration, why: Return) -> Result<bool> {
        let (id, holder) = (delivery.job.id.to_string(), delivery.holder.clone());
        self.step("give_back", &[id, holder, ms(delay), why.as_str().to_owned()]).await
    }

    async fn census(&self) -> Result<Census> {
        type Sums = (Option<u64>, Option<u64>, Option<u64>);
        // In one transaction, so that no job is seen twice or not at all.
        let (ready, delayed, leased, done, sums): (u64, u64, u64, u64, Sums) = redis::pipe()
            .atomic()
            .llen(self.key("ready"))
            .zcard(self.key("delayed"))
            .zcard(self.key("leases"))
            .hlen(self.key("done"))
            .hmget(self.key("facts"), &["refused", "failed", "redelivered"])
            .query_async(&mut self.connection.clone())
            .await?;
        let (refused, failed, redelivered) = sums;
        Ok(Census {
            ready,
            delayed,
            leased,
            done,
            refused: refused.unwrap_or(0),
            failed: failed.unwrap_or(0),
            redelivered: redelivered.unwrap_or(0),
        })
    }

    async fn leases(&self) -> Result<Vec<Lease>> {
        let mut ask = redis::cmd("HGETALL");
        ask.arg(self.key("holders"));
        let holders: HashMap<u64, String> = ask.query_async(&mut self.connection.clone()).await?;
        let leases = holders.into_iter();
        Ok(leases.filter_map(|(job, holder)| Some(Lease { worker: worker_of(&holder)?, job })).collect())
    }

    async fn accounts(&self) -> Result<Vec<Account>> {
        type Hash<K, V> = HashMap<K, V>;
        let (jobs, facts, done): (Hash<u64, String>, Hash<String, u64>, Hash<u64, String>) = redis::pipe()
            .atomic()
            .hgetall(self.key("jobs"))
            .hgetall(self.key("facts"))
            .hgetall(self.key("done"))
            .query_async(&mut self.connection.clone())
            .await?;
        let mut accounts = Vec::with_capacity(jobs.len());
        for (id, job) in jobs {
            let fact = |what: &str| facts.get(&format!("{what}:{id}")).copied().unwrap_or(0);
            let receipt: Option<Receipt> =
                done.get(&id).map(|text| serde_json::from_str(text)).transpose()?;
            let (refused, failed, redelivered) = (fact("refused"), fact("failed"), fact("redelivered"));
            accounts.push(Account {
                job: serde_json::from_str(&job)?,
                refused,
                failed,
                redelivered,
                receipt,
            });
        }
        accounts.sort_by_key(|account| account.job.id);
        Ok(accounts)
    }
}
