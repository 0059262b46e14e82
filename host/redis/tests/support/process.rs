//! [`ServerProcess`]: a server of a test's own, on a free port of loopback, ended with the test.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use tempfile::TempDir;
use tokio::time::Instant;

/// A port that nobody listens on, and that this process has not been given before.
pub(crate) fn free_port() -> Result<u16> {
    // Below the ports that systems give to connections (from 32,768 on Linux, 49,152 elsewhere): a connection of another test would
    // take one of those before the server does.
    const FIRST: u32 = 11_000;
    const COUNT: u32 = 10_000;
    static NEXT: AtomicU32 = AtomicU32::new(0);
    for _ in 0..COUNT {
        let next = NEXT.fetch_add(1, Ordering::Relaxed).wrapping_add(std::process::id().wrapping_mul(97));
        let port = u16::try_from(FIRST + next % COUNT)?;
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return Ok(port);
        }
    }
    bail!("no port from {FIRST} on is free")
}

/// A `redis-server` that a test may stop, kill and start again. It ends when it is dropped.
pub(crate) struct ServerProcess {
    pub(crate) port: u16,
    pub(crate) folder: TempDir,
    arguments: Vec<String>,
    child: Child,
}

impl ServerProcess {
    /// Starts a server with more arguments, and waits until it answers.
    pub(crate) async fn start<A: AsRef<str>>(arguments: impl IntoIterator<Item = A>) -> Result<Self> {
        Self::start_on(free_port()?, arguments).await
    }

    /// Starts a server on a port of the caller's.
    pub(crate) async fn start_on<A: AsRef<str>>(
        port: u16,
        arguments: impl IntoIterator<Item = A>,
    ) -> Result<Self> {
        Self::start_in(tempfile::tempdir()?, port, arguments).await
    }

    /// Starts a server that finds its files in `folder`.
    pub(crate) async fn start_in<A: AsRef<str>>(
        folder: TempDir,
        port: u16,
        arguments: impl IntoIterator<Item = A>,
    ) -> Result<Self> {
        let arguments: Vec<String> =
            arguments.into_iter().map(|argument| argument.as_ref().to_owned()).collect();
        let child = launch(port, folder.path(), &arguments)?;
        let mut server = Self { port, folder, arguments, child };
        server.until_it_answers().await?;
        Ok(server)
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// A plain connection to it.
    pub(crate) async fn plain(&self) -> Result<redis::aio::MultiplexedConnection> {
        super::plain(&self.url()).await
    }

    /// Runs a command on it.
    pub(crate) async fn run<T: redis::FromRedisValue>(&self, command: &[&str]) -> Result<T> {
        let mut packed = redis::Cmd::new();
        for part in command {
            packed.arg(*part);
        }
        packed.query_async(&mut self.plain().await?).await.with_context(|| format!("{command:?}"))
    }

    async fn until_it_answers(&mut self) -> Result<()> {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            if let Some(status) = self.child.try_wait()? {
                let log = fs::read_to_string(self.folder.path().join("log"))?;
                bail!("redis-server on port {} ended with {status}:\n{log}", self.port);
            }
            if self.answers().await {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "redis-server on port {} does not answer", self.port);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn answers(&self) -> bool {
        let Ok(mut connection) = self.plain().await else { return false };
        match redis::cmd("PING").query_async::<String>(&mut connection).await {
            Ok(_) => true,
            // Who asks for a password is there.
            Err(error) => matches!(error.code(), Some("NOAUTH" | "NOPERM")),
        }
    }

    /// Lets it stand still: connections stay, and nothing is answered.
    pub(crate) fn freeze(&self) -> Result<()> {
        self.signal("-STOP")
    }

    /// Lets it go on after [`freeze`](Self::freeze).
    pub(crate) fn thaw(&self) -> Result<()> {
        self.signal("-CONT")
    }

    /// Ends it at once, without a good-bye.
    pub(crate) fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Starts it again after [`kill`](Self::kill), on the same port, and waits until it answers.
    pub(crate) async fn restart(&mut self) -> Result<()> {
        self.child = launch(self.port, self.folder.path(), &self.arguments)?;
        self.until_it_answers().await
    }

    fn signal(&self, signal: &str) -> Result<()> {
        // The shell's own kill, since not every machine has it as a program.
        let script = format!("kill {signal} {}", self.child.id());
        let status = Command::new("sh").args(["-c", &script]).status()?;
        ensure!(status.success(), "{script} failed");
        Ok(())
    }
}

impl Drop for ServerProcess {
    fn drop(&mut self) {
        // It may be dead already, which is what this is for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn launch(port: u16, folder: &Path, arguments: &[String]) -> Result<Child> {
    let log = File::create(folder.join("log"))?;
    let folder: &OsStr = folder.as_ref();
    Command::new("redis-server")
        .args(arguments)
        .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--dir"])
        .arg(folder)
        .stdin(Stdio::null())
        .stdout(log)
        .stderr(Stdio::null())
        .spawn()
        .context("cannot start redis-server; is it installed and on PATH?")
}
