//! Programs that xtask runs: found, run, waited for, and ended when the user presses Ctrl-C.

use std::ffi::OsStr;
use std::io::{self, BufRead, BufReader, IsTerminal, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

/// How often a running program, or a server that is starting, is looked at.
pub(crate) const POLL: Duration = Duration::from_millis(20);

/// How long an interrupted program may take to end by itself.
const GRACE: Duration = Duration::from_secs(5);

static INTERRUPTED: LazyLock<Arc<AtomicBool>> = LazyLock::new(Arc::default);

/// From now on Ctrl-C, SIGTERM and SIGHUP no longer end xtask at once: it first stops what it started.
pub(crate) fn watch_signals() -> Result<()> {
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        signal_hook::flag::register(signal, Arc::clone(&INTERRUPTED)).context("cannot watch for signals")?;
    }
    Ok(())
}

/// Whether one of the signals came.
pub(crate) fn interrupted() -> bool {
    INTERRUPTED.load(Ordering::Relaxed)
}

/// The folder of the workspace.
pub(crate) fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("."))
}

/// Cargo of the workspace's own toolchain, in the workspace's folder.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(workspace());
    command
}

/// Where `program` is on PATH.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(program)).find(|file| file.is_file())
}

/// Runs `command` to its end, showing what it prints; fails when it fails.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let status = Running::spawn(command)?.wait()?;
    succeeded(command, status)
}

/// Runs `command` to its end and gives what it printed to standard output.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let output =
        command.stdin(Stdio::null()).output().with_context(|| format!("cannot run {}", shown(command)))?;
    if !output.status.success() {
        bail!("{} failed: {}", shown(command), String::from_utf8_lossy(&output.stderr).trim());
    }
    String::from_utf8(output.stdout).with_context(|| format!("{} printed no UTF-8", shown(command)))
}

/// Runs `command` like [`run`] and hands each line of its standard output to `see`, after showing it.
pub(crate) fn run_seeing<S>(command: &mut Command, mut see: S) -> Result<()>
where
    S: FnMut(&str) + Send + 'static,
{
    let mut running = Running::spawn(command.stdout(Stdio::piped()))?;
    let pipe = running.0.stdout.take().context("no pipe")?;
    let reader = thread::spawn(move || -> io::Result<()> {
        let mut pipe = BufReader::new(pipe);
        let mut line = Vec::new();
        while pipe.read_until(b'\n', &mut line)? > 0 {
            io::stdout().write_all(&line)?;
            see(&String::from_utf8_lossy(&line));
            line.clear();
        }
        Ok(())
    });
    // An interrupt returns here and leaves the reader alone: a grandchild may keep the pipe open.
    let status = running.wait()?;
    match reader.join() {
        Ok(read) => read.context("cannot show the output")?,
        Err(_) => bail!("the reader of the output panicked"),
    }
    succeeded(command, status)
}

/// The command as a person would type it.
pub(crate) fn shown(command: &Command) -> String {
    let name = Path::new(command.get_program()).file_name().unwrap_or(command.get_program());
    let words = std::iter::once(name).chain(command.get_args()).map(OsStr::to_string_lossy);
    words.collect::<Vec<_>>().join(" ")
}

/// Asks the process `id` to end.
pub(crate) fn terminate(id: u32) {
    if let Some(pid) = i32::try_from(id).ok().and_then(Pid::from_raw) {
        // It may have ended by itself: that is what is wanted.
        let _ = kill_process(pid, Signal::TERM);
    }
}

fn succeeded(command: &Command, status: ExitStatus) -> Result<()> {
    if !status.success() {
        bail!("`{}` failed ({status})", shown(command));
    }
    Ok(())
}

/// A program that runs; it is ended when this is dropped early.
struct Running(Child);

impl Running {
    fn spawn(command: &mut Command) -> Result<Self> {
        if !io::stdin().is_terminal() {
            // No terminal will tell the program's own children of an interrupt, so they get a group that we can tell.
            command.process_group(0);
        }
        Ok(Self(command.spawn().with_context(|| format!("cannot run {}", shown(command)))?))
    }

    fn wait(mut self) -> Result<ExitStatus> {
        loop {
            if let Some(status) = self.0.try_wait()? {
                // A program that caught Ctrl-C and ended well was interrupted all the same.
                if interrupted() {
                    bail!("interrupted");
                }
                return Ok(status);
            }
            if interrupted() {
                bail!("interrupted");
            }
            thread::sleep(POLL);
        }
    }

    fn signal(&self, signal: Signal) {
        let Some(pid) = i32::try_from(self.0.id()).ok().and_then(Pid::from_raw) else { return };
        let _ = if io::stdin().is_terminal() {
            kill_process(pid, signal)
        } else {
            kill_process_group(pid, signal)
        };
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !matches!(self.0.try_wait(), Ok(None)) {
            return;
        }
        self.signal(Signal::TERM);
        let end = Instant::now() + GRACE;
        while Instant::now() < end {
            if !matches!(self.0.try_wait(), Ok(None)) {
                return;
            }
            thread::sleep(POLL);
        }
        self.signal(Signal::KILL);
        let _ = self.0.wait();
    }
}
