//! The servers that the tests need, together.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Subcommand;

use crate::command::{self, POLL, workspace};
use crate::server::{Kind, Server};
use crate::wasmtime;

/// What to do with the servers.
#[derive(Subcommand)]
pub(crate) enum Action {
    /// Start them and leave them running; `target/services/env` tells where they are.
    Start,
    /// Stop the servers that `start` started.
    Stop,
    /// Start servers of its own, run a command that finds them in its environment, stop them.
    Run {
        /// The command and its arguments.
        #[arg(last = true, required = true)]
        command: Vec<OsString>,
    },
}

/// Does `action`.
pub(crate) fn run(action: Action) -> Result<()> {
    match action {
        Action::Start => start(),
        Action::Stop => stop(),
        Action::Run { command } => {
            let services = Services::start()?;
            let (program, arguments) = command.split_first().context("no command")?;
            command::run(services.tell(Command::new(program).args(arguments)))
        }
    }
}

/// Where the servers and their logs are.
pub(crate) fn folder() -> PathBuf {
    workspace().join("target/services")
}

/// The servers, running; they are stopped when this is dropped.
pub(crate) struct Services {
    servers: Vec<Server>,
    /// Of their logs; removed with them.
    folder: Option<PathBuf>,
}

impl Services {
    /// Starts servers of this process's own; others that run are left alone.
    pub(crate) fn start() -> Result<Self> {
        Self::start_in(folder().join(format!("run-{}", std::process::id())))
    }

    fn start_in(folder: PathBuf) -> Result<Self> {
        fs::create_dir_all(&folder).with_context(|| format!("cannot write {}", folder.display()))?;
        let mut services = Self { servers: Vec::new(), folder: Some(folder.clone()) };
        // Both are under way before the first is waited for.
        let redis = Server::start(Kind::Redis, &folder)?;
        let dynamodb = Server::start(Kind::DynamoDb, &folder)?;
        services.servers.push(redis.ready()?);
        services.servers.push(dynamodb.ready()?);
        for server in &services.servers {
            println!("{} answers at {}", server.kind().name(), server.url());
        }
        Ok(services)
    }

    /// Tells `command` where the servers are, and the program that runs the gateway.
    pub(crate) fn tell<'command>(&self, command: &'command mut Command) -> &'command mut Command {
        for server in &self.servers {
            command.env(server.kind().variable(), server.url());
        }
        if let Some(program) = wasmtime::program() {
            command.env(wasmtime::VARIABLE, program);
        }
        command
    }
}

impl Drop for Services {
    fn drop(&mut self) {
        self.servers.clear();
        if let Some(folder) = &self.folder {
            let _ = fs::remove_dir_all(folder);
        }
    }
}

fn start() -> Result<()> {
    let file = folder().join("env");
    if let Ok(text) = fs::read_to_string(&file) {
        let started = Started::read(&text);
        if !started.is_empty() && started.iter().all(Started::runs) {
            println!("they run already; `source {}`", shown(&file));
            return Ok(());
        }
        // One of them has ended: the other would be forgotten.
        stop()?;
    }
    let mut services = Services::start_in(started_folder())?;
    let mut text =
        String::from("# Written by `cargo xtask services start`. To use the servers: source this file.\n");
    services.folder = None;
    for server in std::mem::take(&mut services.servers) {
        let (kind, port, url) = (server.kind(), server.port(), server.url());
        let id = server.release().context("the server has ended")?;
        text += &format!("export {}={url}\n", kind.variable());
        text += &Started { program: kind.program().into(), port, id }.line();
    }
    if let Some(program) = wasmtime::program() {
        text += &format!("export {}={}\n", wasmtime::VARIABLE, program.display());
    }
    fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))?;
    println!("to use them: `source {}`; to stop them: `cargo xtask services stop`", shown(&file));
    Ok(())
}

fn stop() -> Result<()> {
    let file = folder().join("env");
    let Ok(text) = fs::read_to_string(&file) else {
        println!("no servers were started");
        return Ok(());
    };
    for started in Started::read(&text) {
        started.stop()?;
    }
    let _ = fs::remove_dir_all(started_folder());
    fs::remove_file(&file).with_context(|| format!("cannot remove {}", file.display()))
}

/// Logs of the servers that `start` started.
fn started_folder() -> PathBuf {
    folder().join("started")
}

fn shown(file: &Path) -> String {
    file.strip_prefix(workspace()).unwrap_or(file).display().to_string()
}

/// A server that `start` left running, as its line in `target/services/env` tells.
#[derive(Debug, PartialEq)]
struct Started {
    program: String,
    port: u16,
    id: u32,
}

impl Started {
    const MARK: &str = "# process";

    fn line(&self) -> String {
        format!("{} {} {} {}\n", Self::MARK, self.id, self.port, self.program)
    }

    fn read(text: &str) -> Vec<Self> {
        let mut started = Vec::new();
        for line in text.lines().filter_map(|line| line.strip_prefix(Self::MARK)) {
            let mut words = line.split_whitespace();
            if let (Some(id), Some(port), Some(program)) = (words.next(), words.next(), words.next())
                && let (Ok(id), Ok(port)) = (id.parse(), port.parse())
            {
                started.push(Self { program: program.into(), port, id });
            }
        }
        started
    }

    /// Whether the process is still the server that was started: ids are given anew.
    fn runs(&self) -> bool {
        let Ok(line) = fs::read(format!("/proc/{}/cmdline", self.id)) else { return false };
        let line = String::from_utf8_lossy(&line);
        line.contains(&self.program) && line.contains(&self.port.to_string())
    }

    fn stop(&self) -> Result<()> {
        if !self.runs() {
            println!("{} has ended before", self.program);
            return Ok(());
        }
        command::terminate(self.id);
        let end = Instant::now() + Duration::from_secs(10);
        while Instant::now() < end {
            if !self.runs() {
                println!("{} (process {}) is stopped", self.program, self.id);
                return Ok(());
            }
            thread::sleep(POLL);
        }
        bail!("{} (process {}) does not end", self.program, self.id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_started_server_is_read_back_from_the_file_that_shells_source() {
        let redis = Started { program: "redis-server".into(), port: 7001, id: 42 };
        let text =
            format!("# note\nexport CIRCUITRY_TEST_REDIS_URL=redis://127.0.0.1:7001\n{}", redis.line());
        assert_eq!(Started::read(&text), [redis]);
    }

    #[test]
    fn a_process_that_took_over_the_id_of_a_server_is_not_taken_for_it() {
        let own = std::process::id();
        assert!(!Started { program: "redis-server".into(), port: 7001, id: own }.runs());
    }
}
