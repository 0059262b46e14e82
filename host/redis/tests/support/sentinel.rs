//! Sentinels of a test's own, with the servers that they watch.

use std::fs;
use std::time::Duration;

use anyhow::Result;

use super::eventually;
use super::process::{ServerProcess, free_port};

/// The name of the master that the sentinels watch.
pub(crate) const MASTER: &str = "circuits";

pub(crate) struct Watched {
    pub(crate) master: ServerProcess,
    pub(crate) replica: ServerProcess,
    pub(crate) sentinels: Vec<ServerProcess>,
}

impl Watched {
    /// Starts a master, a replica of it and three sentinels that agree by two.
    pub(crate) async fn start(server_arguments: &[&str], sentinel_lines: &[&str]) -> Result<Self> {
        let master = ServerProcess::start(server_arguments).await?;
        let of = ["--replicaof", &format!("127.0.0.1 {}", master.port), "--repl-diskless-sync-delay", "0"];
        let replica = ServerProcess::start(of.iter().chain(server_arguments)).await?;
        let mut sentinels = Vec::new();
        for _ in 0..3 {
            sentinels.push(start_sentinel(master.port, 2, sentinel_lines).await?);
        }
        let watched = Self { master, replica, sentinels };
        watched.until_they_agree().await;
        Ok(watched)
    }

    /// All sentinels know the replica and each other, without which there is no failover.
    async fn until_they_agree(&self) {
        for sentinel in &self.sentinels {
            eventually("the sentinel knows all", Duration::from_secs(30), || async {
                let info: String = sentinel.run(&["INFO", "sentinel"]).await.ok()?;
                info.contains("status=ok,").then_some(())?;
                (info.contains("slaves=1,") && info.contains("sentinels=3")).then_some(())
            })
            .await;
        }
    }

    pub(crate) fn urls(&self) -> Vec<String> {
        self.sentinels.iter().map(ServerProcess::url).collect()
    }
}

/// Starts one sentinel that watches the master at `master_port`.
pub(crate) async fn start_sentinel(master_port: u16, quorum: u32, lines: &[&str]) -> Result<ServerProcess> {
    let port = free_port()?;
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("sentinel.conf");
    let text = format!(
        "sentinel monitor {MASTER} 127.0.0.1 {master_port} {quorum}\n\
         sentinel down-after-milliseconds {MASTER} 500\n\
         sentinel failover-timeout {MASTER} 3000\n{}\n",
        lines.join("\n")
    );
    fs::write(&path, text)?;
    let path = path.to_string_lossy().into_owned();
    ServerProcess::start_in(folder, port, [&path, "--sentinel"]).await
}
