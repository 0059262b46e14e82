//! Worker processes.

use std::process::Stdio;

use circuitry_tests::fleet::{PATIENT, READY, Report, Task};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::timeout;

/// A worker process that is ready to begin. It is killed when this is dropped.
pub(crate) struct Worker {
    child: Child,
    input: ChildStdin,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Worker {
    pub(crate) async fn start(task: &Task) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_fleet_worker"))
            .arg(serde_json::to_string(task).expect("JSON"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("the worker's program");
        let input = child.stdin.take().expect("a pipe");
        let lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
        let mut worker = Self { child, input, lines };
        worker.until_it_says(READY).await;
        worker
    }

    /// Lets it work.
    pub(crate) async fn begin(&mut self) {
        self.input.write_all(b"go\n").await.expect("a worker that reads");
    }

    pub(crate) async fn until_it_says(&mut self, line: &str) {
        let said = timeout(PATIENT, self.lines.next_line()).await;
        let said = said.unwrap_or_else(|_| panic!("the worker does not say {line:?}"));
        assert_eq!(said.expect("a pipe").as_deref(), Some(line), "what the worker says");
    }

    /// Waits for its end and gives its report.
    pub(crate) async fn report(mut self) -> Report {
        let line = self.lines.next_line().await.expect("a pipe").expect("a report");
        let ended = self.child.wait().await.expect("an end");
        assert!(ended.success(), "the worker ended with {ended}");
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{line}: {error}"))
    }

    /// Ends it at once: it runs no code of its own any more.
    pub(crate) async fn kill(mut self) {
        self.child.kill().await.expect("a process");
    }
}
