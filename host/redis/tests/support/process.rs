//! [`ServerProcess`]: a server of a test's own, on a free port of loopback, ended with the test.

use std::ffi::OsStr;
use std::fs::File;
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

use super::eventually;

/// A port that nobody listens on now.
pub(crate) fn free_port() -> Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
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
        let server = Self { port, folder, arguments, child };
        server.until_it_answers().await;
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

    pub(crate) async fn until_it_answers(&self) {
        eventually("the server answers", Duration::from_secs(20), || async {
            let mut connection = self.plain().await.ok()?;
            // A user list without a default user denies this too; the server is there all the same.
            match redis::cmd("PING").query_async::<String>(&mut connection).await {
                Ok(_) => Some(()),
                Err(error) => matches!(error.code(), Some("NOAUTH" | "NOPERM")).then_some(()),
            }
        })
        .await;
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
        self.until_it_answers().await;
        Ok(())
    }

    fn signal(&self, signal: &str) -> Result<()> {
        let status = Command::new("kill").args([signal, &self.child.id().to_string()]).status()?;
        ensure!(status.success(), "kill {signal} failed");
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
