//! One server process on a free loopback port: started, waited for until it answers, stopped.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::command::{POLL, find, interrupted};
use crate::dynamodb_local;

/// How long a server may take until it answers. A Java server on a busy machine takes its time.
const READY_WITHIN: Duration = Duration::from_secs(60);

/// A port that was free a moment ago may be taken when the server comes to it; then another is tried.
const TRIES: usize = 3;

/// Which server.
#[derive(Clone, Copy)]
pub(crate) enum Kind {
    Redis,
    DynamoDb,
}

impl Kind {
    /// In messages and file names.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Kind::Redis => "redis",
            Kind::DynamoDb => "dynamodb",
        }
    }

    /// The variable that tells the tests where the server is.
    pub(crate) fn variable(self) -> &'static str {
        match self {
            Kind::Redis => "CIRCUITRY_TEST_REDIS_URL",
            Kind::DynamoDb => "CIRCUITRY_TEST_DYNAMODB_URL",
        }
    }

    /// Stands in the command line of the process, beside its port.
    pub(crate) fn program(self) -> &'static str {
        match self {
            Kind::Redis => "redis-server",
            Kind::DynamoDb => "DynamoDBLocal.jar",
        }
    }

    fn scheme(self) -> &'static str {
        match self {
            Kind::Redis => "redis",
            Kind::DynamoDb => "http",
        }
    }

    /// The command; `folder` is where the server may write.
    fn command(self, port: u16, folder: &Path) -> Result<Command> {
        let port = port.to_string();
        match self {
            Kind::Redis => {
                let program = find("redis-server").context(
                    "redis-server is missing. On Debian: `apt-get install redis-server` (or `cargo xtask setup` as \
                     root)",
                )?;
                let mut command = Command::new(program);
                command.args(["--port", &port, "--bind", "127.0.0.1", "--daemonize", "no"]);
                command.args(["--save", "", "--appendonly", "no"]).arg("--dir").arg(folder);
                Ok(command)
            }
            Kind::DynamoDb => {
                let java = find("java").context(
                    "java is missing. On Debian: `apt-get install default-jre-headless` (or `cargo xtask setup` as \
                     root)",
                )?;
                let mut command = Command::new(java);
                // It listens on every interface: it has no option for loopback only.
                command.args([
                    "-Xmx512m",
                    "-Djava.library.path=./DynamoDBLocal_lib",
                    "-jar",
                    "DynamoDBLocal.jar",
                ]);
                command.args(["-inMemory", "-disableTelemetry", "-port", &port]);
                command.current_dir(dynamodb_local::folder()?);
                Ok(command)
            }
        }
    }

    /// What a client sends, and how the answer of a server that is ready begins.
    fn greeting(self) -> (&'static [u8], &'static [u8]) {
        match self {
            Kind::Redis => (b"PING\r\n", b"+PONG"),
            // Any answer will do; to a request without a signature it is 400.
            Kind::DynamoDb => (b"GET / HTTP/1.0\r\n\r\n", b"HTTP/1."),
        }
    }
}

/// A server that runs; it is stopped when this is dropped.
pub(crate) struct Server {
    kind: Kind,
    port: u16,
    /// None once the process has been let go.
    child: Option<Child>,
    log: PathBuf,
}

impl Server {
    /// Starts the server; [`Server::ready`] waits for it. Its log goes to `folder`.
    pub(crate) fn start(kind: Kind, folder: &Path) -> Result<Self> {
        let port = free_port()?;
        let log = folder.join(format!("{}.log", kind.name()));
        let output = File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
        let mut command = kind.command(port, folder)?;
        command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
        // Ctrl-C goes to the whole group of the terminal; the servers are to outlive the tests.
        command.process_group(0);
        let child = command.spawn().with_context(|| format!("cannot start {}", kind.program()))?;
        Ok(Self { kind, port, child: Some(child), log })
    }

    /// Waits until the server answers; a server that ended is started again on another port, a few times.
    pub(crate) fn ready(mut self) -> Result<Self> {
        for _ in 1..TRIES {
            if self.answers()? {
                return Ok(self);
            }
            let folder = self.log.parent().unwrap_or(Path::new(".")).to_path_buf();
            self = Self::start(self.kind, &folder)?;
        }
        if self.answers()? {
            return Ok(self);
        }
        bail!("{} ends at once. Its log:\n{}", self.kind.program(), self.end_of_log())
    }

    pub(crate) fn kind(&self) -> Kind {
        self.kind
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn url(&self) -> String {
        format!("{}://127.0.0.1:{}", self.kind.scheme(), self.port)
    }

    /// Lets the server run on after xtask has ended; gives its process id.
    pub(crate) fn release(mut self) -> Option<u32> {
        self.child.take().map(|child| child.id())
    }

    /// True when it answers, false when it has ended, an error when it does neither for too long.
    fn answers(&mut self) -> Result<bool> {
        let end = Instant::now() + READY_WITHIN;
        while Instant::now() < end {
            if interrupted() {
                bail!("interrupted");
            }
            if self.child.as_mut().is_none_or(|child| !matches!(child.try_wait(), Ok(None))) {
                return Ok(false);
            }
            if self.greeted().unwrap_or(false) {
                return Ok(true);
            }
            thread::sleep(POLL);
        }
        bail!(
            "{} does not answer on port {} within {} s. Its log:\n{}",
            self.kind.program(),
            self.port,
            READY_WITHIN.as_secs(),
            self.end_of_log()
        )
    }

    fn greeted(&self) -> std::io::Result<bool> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, self.port));
        let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(1))?;
        stream.set_read_timeout(Some(Duration::from_secs(2)))?;
        let (question, answer) = self.kind.greeting();
        stream.write_all(question)?;
        let mut beginning = vec![0; answer.len()];
        stream.read_exact(&mut beginning)?;
        Ok(beginning == answer)
    }

    fn end_of_log(&self) -> String {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<_> = log.lines().collect();
        lines[lines.len().saturating_sub(15)..].join("\n")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // No data is kept, so there is nothing to end gently.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// A port of the loopback interface that nobody listens on.
fn free_port() -> Result<u16> {
    // All interfaces, because one of the servers takes all of them.
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).context("no free port")?;
    Ok(listener.local_addr()?.port())
}
