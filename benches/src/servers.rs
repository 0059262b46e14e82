//! The servers that the suites run on, and what they count themselves.

use std::collections::BTreeMap;

use redis::aio::{ConnectionLike, ConnectionManager};

/// The Redis that the suites run on.
///
/// # Panics
/// Where none is named: a bench without its server measures nothing.
pub fn redis_url() -> String {
    url("CIRCUITRY_TEST_REDIS_URL")
}

/// The DynamoDB Local that the suites run on.
///
/// # Panics
/// As [`redis_url`].
pub fn dynamodb_url() -> String {
    url("CIRCUITRY_TEST_DYNAMODB_URL")
}

fn url(variable: &str) -> String {
    std::env::var(variable).unwrap_or_else(|_| {
        panic!("{variable} is not set: run `cargo xtask bench`, which starts the servers")
    })
}

/// The version of DynamoDB Local, which its starter tells: the server does not.
pub fn dynamodb_version() -> String {
    std::env::var("CIRCUITRY_TEST_DYNAMODB_VERSION").unwrap_or_else(|_| "of unknown version".into())
}

/// A connection of the bench's own.
///
/// # Panics
/// Where the server does not answer.
pub async fn redis_connection() -> ConnectionManager {
    let client = redis::Client::open(redis_url()).expect("a URL");
    ConnectionManager::new(client).await.expect("a connection to Redis")
}

/// The version that the server tells.
///
/// # Panics
/// Where it does not answer.
pub async fn redis_version(server: &mut ConnectionManager) -> String {
    let info = info(server, "server").await;
    let version = info.lines().find_map(|line| line.strip_prefix("redis_version:"));
    version.expect("a version").trim().to_owned()
}

async fn info(server: &mut ConnectionManager, section: &str) -> String {
    let mut command = redis::cmd("INFO");
    command.arg(section);
    let answer = server.req_packed_command(&command).await.expect("an answer");
    redis::from_redis_value(answer).expect("a text")
}

/// What a Redis has counted since it was started. Differences count what happened between two looks; so nobody else may use
/// the server meanwhile.
#[derive(Clone, Debug)]
pub struct RedisCounters {
    commands: BTreeMap<String, u64>,
    reads: u64,
}

impl RedisCounters {
    /// Asks for them.
    ///
    /// # Panics
    /// Where the server does not answer.
    pub async fn look(server: &mut ConnectionManager) -> Self {
        let commands = commands_in(&info(server, "commandstats").await);
        let stats = info(server, "stats").await;
        let reads = stats.lines().find_map(|line| line.strip_prefix("total_reads_processed:"));
        Self { commands, reads: reads.and_then(|reads| reads.trim().parse().ok()).unwrap_or_default() }
    }

    fn since(&self, before: &Self, command: &str) -> u64 {
        let of = |counters: &Self| counters.commands.get(command).copied().unwrap_or_default();
        of(self) - of(before)
    }

    /// The commands that clients have sent since `before`, but for the questions of this module.
    ///
    /// The statistics also count what scripts call. The script of a swap calls `hmget` and `time` once, and what writes.
    pub fn commands_since(&self, before: &Self) -> u64 {
        let scripts = self.since(before, "evalsha") + self.since(before, "eval");
        let not_sent = ["hset", "pexpire", "info"];
        let all = self.commands.keys().filter(|name| !not_sent.contains(&name.as_str()));
        let all: u64 = all.map(|name| self.since(before, name)).sum();
        all.saturating_sub(2 * scripts)
    }

    /// How often the server has read from a client since `before`, but for the questions of this module: the messages that came,
    /// where they come one after another.
    pub fn reads_since(&self, before: &Self) -> u64 {
        // Both questions of the second look; the server counts a read before it answers it.
        (self.reads - before.reads).saturating_sub(2)
    }
}

fn commands_in(info: &str) -> BTreeMap<String, u64> {
    let counted = |line: &str| {
        let (name, figures) = line.strip_prefix("cmdstat_")?.split_once(":calls=")?;
        let (calls, _) = figures.split_once(',')?;
        Some((name.to_owned(), calls.parse().ok()?))
    };
    info.lines().filter_map(counted).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_script_calls_is_not_counted_as_sent() {
        let counters = |info: &str| RedisCounters { commands: commands_in(info), reads: 0 };
        let before = counters("cmdstat_hmget:calls=5,usec=1\r\ncmdstat_info:calls=2,usec=1\r\n");
        let after = counters(
            "# Commandstats\r\ncmdstat_hmget:calls=8,usec=1\r\ncmdstat_time:calls=1,usec=1\r\ncmdstat_hset:calls=1,usec=1\r\n\
             cmdstat_pexpire:calls=1,usec=1\r\ncmdstat_evalsha:calls=1,usec=1\r\ncmdstat_info:calls=4,usec=1\r\n",
        );
        // Two loads and a swap: the script has called HMGET and TIME once each.
        assert_eq!(after.commands_since(&before), 3);
    }
}
