//! Workers in Rust, JavaScript and Python on one circuit of a real Redis: what one of them does, all of them see.
//!
//! `cargo xtask test` starts the server and builds the hosts (`cargo xtask hosts`); what is missing is a failure.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use circuitry_tests::fleet::{PATIENT, READY};
use circuitry_tests::polyglot::{Answer, Command, Information, Load, Report, Task};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout};
use tokio::time::timeout;

/// A lease that no test waits for.
const NEVER_OVER_MS: u64 = 600_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Language {
    Rust,
    JavaScript,
    Python,
}

use Language::{JavaScript, Python, Rust};

const LANGUAGES: [Language; 3] = [Rust, JavaScript, Python];

impl Language {
    /// Its worker, as a command without the task.
    fn worker(self) -> tokio::process::Command {
        let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a workspace");
        let built = |path: &str| -> PathBuf {
            let path = workspace.join(path);
            assert!(path.exists(), "{} is missing: run `cargo xtask hosts`", path.display());
            path
        };
        match self {
            Rust => tokio::process::Command::new(env!("CARGO_BIN_EXE_polyglot_worker")),
            JavaScript => {
                built("host/js/dist");
                let mut command = tokio::process::Command::new("node");
                command.arg(built("host/js/test/fleet-worker.mjs"));
                command
            }
            Python => {
                let mut command = tokio::process::Command::new(built("target/python/bin/python"));
                command.arg(built("host/python/tests/fleet_worker.py"));
                command
            }
        }
    }
}

/// A worker process that answers. It is killed when this is dropped.
struct Worker {
    language: Language,
    child: Child,
    input: ChildStdin,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Worker {
    async fn start(language: Language, task: &Task) -> Self {
        let mut child = language
            .worker()
            .arg(serde_json::to_string(task).expect("JSON"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap_or_else(|error| panic!("the worker in {language:?}: {error}"));
        let input = child.stdin.take().expect("a pipe");
        let lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
        let mut worker = Self { language, child, input, lines };
        assert_eq!(worker.line().await, READY, "what the worker in {language:?} says");
        worker
    }

    async fn line(&mut self) -> String {
        let language = self.language;
        let line = timeout(PATIENT * 3, self.lines.next_line()).await;
        let line = line.unwrap_or_else(|_| panic!("the worker in {language:?} says nothing"));
        line.expect("a pipe").unwrap_or_else(|| panic!("the worker in {language:?} has ended"))
    }

    async fn ask(&mut self, command: &Command) -> Answer {
        let mut line = serde_json::to_string(command).expect("JSON");
        line.push('\n');
        self.input.write_all(line.as_bytes()).await.expect("a worker that reads");
        let line = self.line().await;
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{:?} says {line}: {error}", self.language))
    }

    /// Asks for a permit that must be there: its number, its era, and whether it is a probe.
    async fn permit(&mut self) -> (u64, u64, bool) {
        match self.ask(&Command::Start {}).await {
            Answer::Permit { id, era, probe } => (id, era, probe),
            other => panic!("{:?} is not admitted: {other:?}", self.language),
        }
    }

    /// Asks for a permit until something else than "open" is answered. Where that is short, a start may come too early.
    async fn until_open_time_is_over(&mut self) -> Answer {
        loop {
            match self.ask(&Command::Start {}).await {
                Answer::Refused { reason, .. } if reason == "open" => {}
                answer => return answer,
            }
        }
    }

    /// Asks for a permit that must be refused: why, and for how long.
    async fn refused(&mut self) -> (String, u64) {
        match self.ask(&Command::Start {}).await {
            Answer::Refused { reason, retry_after_ms } => (reason, retry_after_ms),
            other => panic!("{:?} is not refused: {other:?}", self.language),
        }
    }

    async fn end(&mut self, id: u64, outcome: &str) -> String {
        match self.ask(&Command::End { id, outcome: outcome.into() }).await {
            Answer::Settled { disposition, local: false } => disposition,
            other => panic!("{:?} settles nothing: {other:?}", self.language),
        }
    }

    /// Starts and ends, and expects it to be accepted.
    async fn execute(&mut self, outcome: &str) {
        let (id, ..) = self.permit().await;
        assert_eq!(self.end(id, outcome).await, "accepted", "{:?}", self.language);
    }

    async fn information(&mut self) -> Information {
        match self.ask(&Command::Inspect {}).await {
            Answer::Information(information) => information,
            other => panic!("{:?} shows nothing: {other:?}", self.language),
        }
    }
}

/// One worker of each language on one circuit.
struct Fleet(Vec<Worker>);

impl Fleet {
    async fn start(task: &Task) -> Self {
        let mut workers = Vec::new();
        for language in LANGUAGES {
            workers.push(Worker::start(language, task).await);
        }
        Self(workers)
    }

    fn of(&mut self, language: Language) -> &mut Worker {
        self.0.iter_mut().find(|worker| worker.language == language).expect("one of each")
    }

    /// What each of them sees, which is the same.
    async fn information(&mut self) -> Information {
        let mut seen = Vec::new();
        for worker in &mut self.0 {
            seen.push(worker.information().await);
        }
        assert!(seen.windows(2).all(|pair| pair[0] == pair[1]), "they see different things: {seen:#?}");
        seen.swap_remove(0)
    }

    /// Lets each of them execute a load at the same time.
    async fn execute(&mut self, load: &Load) -> Report {
        let mut commands = Vec::new();
        for (seed, worker) in (load.seed..).zip(&mut self.0) {
            commands.push((worker, Command::Execute(Load { seed, ..load.clone() })));
        }
        let asked = commands.iter_mut().map(|(worker, command)| async move { worker.ask(command).await });
        let mut sum = Report::default();
        for (language, answer) in LANGUAGES.into_iter().zip(futures_util::future::join_all(asked).await) {
            let Answer::Report(report) = answer else { panic!("{language:?}: {answer:?}") };
            println!(
                "{language:?}: {} + {} accepted, {} stale, {} refused, {} transitions",
                report.accepted_successes,
                report.accepted_failures,
                report.stale,
                report.refused,
                report.changes.len()
            );
            assert_eq!(report.attempts, load.executions, "{language:?}");
            assert_eq!(report.errors.first(), None, "{language:?}, and {} in all", report.errors.len());
            assert_eq!((report.unsettled, report.local), (0, 0), "{language:?}: the store was up");
            sum.add(report);
        }
        sum
    }
}

fn task() -> Task {
    Task {
        redis_url: std::env::var("CIRCUITRY_TEST_REDIS_URL")
            .expect("CIRCUITRY_TEST_REDIS_URL is not set: run `cargo xtask test`, which starts the servers"),
        prefix: format!("polyglot-{:016x}:", fastrand::u64(..)),
        circuit: "jobs/acme".into(),
        failure_count_threshold: 2,
        close_threshold: 1,
        allow_after_ms: NEVER_OVER_MS,
        probe_timeout_ms: NEVER_OVER_MS,
    }
}

#[tokio::test]
async fn a_success_in_one_language_is_counted_for_all() {
    let mut fleet = Fleet::start(&task()).await;
    for (total, language) in (1..).zip(LANGUAGES) {
        fleet.of(language).execute("success").await;
        let seen = fleet.information().await;
        assert_eq!(
            (seen.state.as_str(), seen.counts.total, seen.counts.total_successes),
            ("closed", total, total)
        );
    }
}

#[tokio::test]
async fn failures_in_one_language_open_the_circuit_for_all() {
    for language in LANGUAGES {
        let mut fleet = Fleet::start(&task()).await;
        for _ in 0..3 {
            fleet.of(language).execute("failure").await;
        }
        for worker in &mut fleet.0 {
            let (reason, retry_after_ms) = worker.refused().await;
            assert_eq!(reason, "open", "{:?}", worker.language);
            assert!((1..=NEVER_OVER_MS).contains(&retry_after_ms), "{:?}: {retry_after_ms}", worker.language);
        }
        assert_eq!(fleet.information().await.state, "open");
    }
}

#[tokio::test]
async fn failures_of_several_languages_count_together() {
    let mut fleet = Fleet::start(&task()).await;
    for language in LANGUAGES {
        fleet.of(language).execute("failure").await;
    }
    assert_eq!(fleet.information().await.state, "open");
}

#[tokio::test]
async fn as_many_probes_as_are_allowed_are_out_over_all_languages() {
    const PROBES: usize = 4;
    let task = Task { close_threshold: PROBES as u32, allow_after_ms: 1, ..task() };
    let mut fleet = Fleet::start(&task).await;
    for _ in 0..3 {
        fleet.of(Python).execute("failure").await;
    }
    // Each asks for as many as there are in all, in turns with the others.
    let (mut permits, mut refused) = (Vec::new(), 0);
    for _ in 0..PROBES {
        for worker in &mut fleet.0 {
            match worker.until_open_time_is_over().await {
                Answer::Permit { id, era, probe } => {
                    assert!(probe, "{:?}", worker.language);
                    permits.push((worker.language, id, era));
                }
                Answer::Refused { reason, retry_after_ms } => {
                    assert_eq!(reason, "too-many-requests", "{:?}", worker.language);
                    assert!(retry_after_ms >= 1);
                    refused += 1;
                }
                other => panic!("{:?}: {other:?}", worker.language),
            }
        }
    }
    assert_eq!((permits.len(), refused), (PROBES, LANGUAGES.len() * PROBES - PROBES));
    assert!(permits.iter().all(|(_, _, era)| *era == permits[0].2), "of one phase: {permits:?}");
    for (language, id, _) in permits {
        assert_eq!(fleet.of(language).end(id, "success").await, "accepted");
    }
    assert_eq!(fleet.information().await.state, "closed");
}

#[tokio::test]
async fn a_late_outcome_of_one_language_is_stale_where_another_has_moved_the_circuit_on() {
    for late in LANGUAGES {
        for other in LANGUAGES.into_iter().filter(|other| *other != late) {
            let task = Task { allow_after_ms: 1, ..task() };
            let mut fleet = Fleet::start(&task).await;
            let (success, before, _) = fleet.of(late).permit().await;
            let (failure, ..) = fleet.of(late).permit().await;
            for _ in 0..3 {
                fleet.of(other).execute("failure").await;
            }
            let probe = match fleet.of(other).until_open_time_is_over().await {
                Answer::Permit { id, era, probe: true } if era > before => id,
                answer => panic!("{other:?}: {answer:?}"),
            };
            assert_eq!(fleet.of(late).end(success, "success").await, "stale", "{late:?} after {other:?}");
            assert_eq!(fleet.information().await.state, "half-open", "a late success closes nothing");
            assert_eq!(fleet.of(other).end(probe, "success").await, "accepted");
            assert_eq!(fleet.of(late).end(failure, "failure").await, "stale", "{late:?} after {other:?}");
            let seen = fleet.information().await;
            assert_eq!(
                (seen.state.as_str(), seen.counts.total),
                ("closed", 0),
                "a late failure counts nothing"
            );
        }
    }
}

#[tokio::test]
async fn the_place_of_a_killed_worker_goes_to_one_of_another_language() {
    for killed in LANGUAGES {
        let task = Task { allow_after_ms: 1, probe_timeout_ms: 300, ..task() };
        let mut fleet = Fleet::start(&task).await;
        for _ in 0..3 {
            fleet.of(killed).execute("failure").await;
        }
        let answer = fleet.of(killed).until_open_time_is_over().await;
        assert!(matches!(answer, Answer::Permit { probe: true, .. }), "{killed:?}: {answer:?}");
        let heir = LANGUAGES.into_iter().find(|heir| *heir != killed).expect("another");
        // While it lives it keeps its place, however long its work takes: the lease is renewed.
        tokio::time::sleep(std::time::Duration::from_millis(900)).await;
        assert_eq!(fleet.of(heir).refused().await.0, "too-many-requests", "{killed:?} is at work");

        fleet.of(killed).child.kill().await.expect("a process");
        fleet.0.retain(|worker| worker.language != killed);
        let place = loop {
            match fleet.of(heir).ask(&Command::Start {}).await {
                Answer::Permit { id, probe: true, .. } => break id,
                Answer::Refused { reason, retry_after_ms } => {
                    assert_eq!(reason, "too-many-requests");
                    assert!(retry_after_ms <= 300, "{retry_after_ms}: not longer than a lease");
                    tokio::time::sleep(std::time::Duration::from_millis(retry_after_ms)).await;
                }
                answer => panic!("{heir:?}: {answer:?}"),
            }
        };
        assert_eq!(fleet.of(heir).end(place, "success").await, "accepted");
        assert_eq!(fleet.information().await.state, "closed");
    }
}

#[tokio::test]
async fn of_outcomes_that_never_trip_the_totals_are_exact_over_all_languages() {
    let task = Task { failure_count_threshold: 64, ..task() };
    let mut fleet = Fleet::start(&task).await;
    let load = Load { tasks: 8, executions: 2_000, failures_per_mille: 100, seed: 1 };
    let sum = fleet.execute(&load).await;
    assert_eq!((sum.refused, sum.stale), (0, 0));
    assert_eq!(sum.changes, []);
    let seen = fleet.information().await;
    assert_eq!(seen.counts.total, 3 * load.executions);
    assert_eq!(seen.counts.total_successes, sum.accepted_successes);
    assert_eq!(seen.counts.total_failures, sum.accepted_failures);
    assert!(sum.accepted_failures > 0);
    assert_eq!((seen.state.as_str(), seen.generation), ("closed", 0));
}

#[tokio::test]
async fn each_transition_is_announced_once_over_all_languages() {
    let task = Task { close_threshold: 2, allow_after_ms: 20, ..task() };
    let mut fleet = Fleet::start(&task).await;
    let load = Load { tasks: 8, executions: 1_500, failures_per_mille: 300, seed: 1 };
    let sum = fleet.execute(&load).await;
    let accounted = sum.accepted_successes + sum.accepted_failures + sum.stale + sum.refused;
    assert_eq!(accounted, sum.attempts, "every attempt is accounted for");

    let mut changes = sum.changes;
    changes.sort_by_key(|change| change.era);
    assert!(changes.len() >= 6, "it trips and heals: {changes:#?}");
    for pair in changes.windows(2) {
        let [before, after] = pair else { panic!("two of them") };
        assert!(before.era < after.era, "announced twice: {before:?} and {after:?}");
        assert_eq!(before.to, after.from, "one is missing between {before:?} and {after:?}");
    }
    let (last, seen) = (changes.last().expect("some"), fleet.information().await);
    assert_eq!((last.era, last.generation), (seen.era, seen.generation), "the last one is what is stored");
}
