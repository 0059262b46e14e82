//! The main job, run as a user runs it: the example `task_queue` of the crate `circuitry`, as a process of its own.

use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::LazyLock;

use serde::Deserialize;

/// What `--json` prints, as far as the tests need it.
#[derive(Debug, Deserialize)]
struct Report {
    run: String,
    jobs: u64,
    done: u64,
    killed: Option<Killed>,
    tenants: Vec<Tenant>,
    violations: Vec<String>,
}

#[derive(Debug, Deserialize)]
struct Killed {
    job: u64,
}

#[derive(Debug, Deserialize)]
struct Tenant {
    tenant: String,
    jobs: u64,
    done: u64,
    refused: u64,
    requeued: u64,
    redelivered: u64,
    wait_p99_ms: u64,
    transitions: Vec<Change>,
}

#[derive(Debug, Deserialize)]
struct Change {
    from: String,
    to: String,
    reason: String,
}

/// The example, built by the same command as all others so that nothing is compiled for it alone.
static EXAMPLE: LazyLock<PathBuf> = LazyLock::new(|| {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let built = Command::new(cargo)
        .args(["build", "--workspace", "--all-features", "--example", "task_queue", "--message-format=json"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .stderr(Stdio::inherit())
        .output()
        .expect("cargo");
    assert!(built.status.success(), "the example does not build");
    String::from_utf8_lossy(&built.stdout)
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .filter(|message| message["target"]["name"] == "task_queue")
        .find_map(|message| Some(PathBuf::from(message["executable"].as_str()?)))
        .expect("cargo names the example that it built")
});

fn run(options: &[&str]) -> Output {
    Command::new(&*EXAMPLE).args(options).output().expect("the example starts")
}

/// Runs the example to its good end.
fn report(options: &[&str]) -> Report {
    let ended = run(&[options, &["--json"]].concat());
    let told = String::from_utf8_lossy(&ended.stderr);
    let report: Report = serde_json::from_slice(&ended.stdout)
        .unwrap_or_else(|error| panic!("no report ({error}), {}:\n{told}", ended.status));
    assert!(ended.status.success(), "{}: {report:?}\n{told}", ended.status);
    report
}

/// Every job is done, and counted once: in the queue's books, in the sums of the tenants.
fn assert_done_once(report: &Report, jobs: u64) {
    assert_eq!(report.violations, [""; 0]);
    assert_eq!((report.jobs, report.done), (jobs, jobs));
    assert_eq!(report.tenants.iter().map(|tenant| tenant.done).sum::<u64>(), jobs);
    for tenant in &report.tenants {
        assert_eq!(tenant.jobs, tenant.done, "{}", tenant.tenant);
    }
}

/// The circuit tripped, and closed by its probes.
fn assert_tripped_and_recovered(tenant: &Tenant) {
    let changes = &tenant.transitions;
    let (first, last) = (changes.first().expect("a transition"), changes.last().expect("a transition"));
    assert_eq!((&*first.from, &*first.to, &*first.reason), ("closed", "open", "tripped"));
    assert_eq!((&*last.from, &*last.to, &*last.reason), ("half-open", "closed", "probes-succeeded"));
    for pair in changes.windows(2) {
        assert_eq!(pair[0].to, pair[1].from, "{changes:?}");
    }
    assert!(tenant.refused > 0, "{tenant:?}");
    // It trips on the 6th failure; a worker that is killed between that and the requeue takes one of them along.
    assert!(tenant.requeued >= 5, "{tenant:?}");
}

#[test]
fn a_failing_tenant_is_refused_until_its_circuit_recovers_and_the_others_keep_their_pace() {
    let report = report(&[
        "--jobs=400",
        "--rate=100",
        "--tenants=4",
        "--fail-from=0.5",
        "--fail-for=1.5",
        "--open-for=1",
    ]);
    assert_done_once(&report, 400);
    assert!(report.killed.is_none());
    let (failing, others): (Vec<_>, Vec<_>) =
        report.tenants.iter().partition(|tenant| tenant.tenant == "acme");
    let [failing] = failing[..] else { panic!("one acme: {report:?}") };
    assert_tripped_and_recovered(failing);
    assert_eq!(others.len(), 3);
    for tenant in others {
        assert_eq!((tenant.refused, tenant.requeued, tenant.redelivered), (0, 0, 0), "{tenant:?}");
        assert!(tenant.transitions.is_empty(), "{tenant:?}");
        assert!(tenant.wait_p99_ms * 3 < failing.wait_p99_ms, "{tenant:?} waits like {failing:?}");
    }
}

#[test]
fn a_day_without_trouble_refuses_and_repeats_nothing() {
    let report = report(&["--jobs=60", "--rate=100", "--fail-for=0", "--workers=2"]);
    assert_done_once(&report, 60);
    for tenant in &report.tenants {
        assert_eq!((tenant.refused, tenant.requeued, tenant.redelivered), (0, 0, 0), "{tenant:?}");
        assert!(tenant.transitions.is_empty(), "{tenant:?}");
    }
}

#[test]
fn the_job_of_a_killed_worker_is_delivered_again_and_counted_once() {
    let url = std::env::var("CIRCUITRY_TEST_REDIS_URL")
        .expect("CIRCUITRY_TEST_REDIS_URL is not set: run `cargo xtask test`, which starts the servers");
    let report = report(&[
        "--redis",
        &url,
        "--kill-a-worker",
        "--workers=3",
        "--jobs=300",
        "--rate=100",
        "--tenants=4",
        "--fail-from=0.3",
        "--fail-for=1.3",
        "--open-for=0.7",
    ]);
    assert_done_once(&report, 300);
    let killed = report.killed.as_ref().expect("a worker was killed");
    assert!((1..=300).contains(&killed.job));
    assert!(report.tenants.iter().map(|tenant| tenant.redelivered).sum::<u64>() >= 1, "{report:?}");
    let failing = report.tenants.iter().find(|tenant| tenant.tenant == "acme").expect("acme");
    assert_tripped_and_recovered(failing);
    for tenant in report.tenants.iter().filter(|tenant| tenant.tenant != "acme") {
        assert_eq!((tenant.refused, tenant.requeued), (0, 0), "{tenant:?}");
    }

    let left: Vec<String> = redis::Client::open(url)
        .and_then(|client| client.get_connection())
        .and_then(|mut connection| redis::cmd("KEYS").arg(format!("*{}*", report.run)).query(&mut connection))
        .expect("redis");
    assert_eq!(left, [""; 0], "a run leaves nothing on the server");
}

#[test]
fn a_wrong_option_ends_the_run_with_one_message_that_names_what_to_change() {
    for (options, message) in [
        (&["--failing-tenant", "nobody"][..], "no tenant \"nobody\""),
        (&["--kill-a-worker"], "--redis"),
        (&["--jobs=0"], "--jobs"),
        (&["--open-for=0"], "--open-for"),
        (&["--fail-from=soon"], "number of seconds"),
        (&["--redis=redis://127.0.0.1", "--kill-a-worker", "--workers=1"], "--workers 2"),
        (&["--redis=redis//127.0.0.1"], "write it like redis://"),
    ] {
        let ended = run(options);
        let told = String::from_utf8_lossy(&ended.stderr);
        assert!(!ended.status.success(), "{options:?}");
        assert!(ended.stdout.is_empty(), "{options:?}");
        assert!(told.contains(message), "{options:?}: {told}");
        assert!(!told.contains("panicked"), "{options:?}: {told}");
    }
}
