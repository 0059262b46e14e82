//! `wasmtime serve` with the gateway in it, and a Rust worker beside it.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, LazyLock, Mutex, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use circuitry::{Breaker, Context, Factory, Information};
use tokio::runtime::Runtime;
use tokio::sync::OnceCell;

use crate::servers::{factory, own_name, patient, redis_store, redis_url};
use crate::upstream::Upstream;

/// Long for a machine that does many things at once.
const START: Duration = Duration::from_secs(120);

/// The name of the upstream in all tests.
pub(crate) const UPSTREAM: &str = "web";

/// A gateway in a process of its own. It ends with the test.
pub(crate) struct Gateway {
    child: Child,
    pub(crate) address: SocketAddr,
    lines: Arc<Mutex<Vec<String>>>,
}

impl Gateway {
    /// Starts it with nothing but `variables`.
    pub(crate) fn with(variables: &[(&str, String)]) -> Self {
        Self::reusing("100", variables)
    }

    /// Starts it by a line of the shell, which calls `wasmtime` in the folder of the components.
    pub(crate) fn by_shell(line: &str) -> Self {
        let mut command = Command::new("sh");
        // In the shell's place, so that it is ended with the test.
        command.current_dir(components()).arg("-c").arg(format!("exec {line}"));
        Self::spawn(command)
    }

    /// The same, where an instance serves so many requests.
    pub(crate) fn reusing(reuse: &str, variables: &[(&str, String)]) -> Self {
        let mut command = Command::new(wasmtime());
        // As the gateway's README has it.
        command.args(["serve", "-S", "cli,inherit-network,tcp", "-O", "pooling-allocator=n"]);
        command.args(["--max-instance-reuse-count", reuse, "--addr", "127.0.0.1:0"]);
        for (name, value) in variables {
            command.arg("--env").arg(format!("{name}={value}"));
        }
        command.arg(components().join("gateway-redis.wasm"));
        Self::spawn(command)
    }

    fn spawn(mut command: Command) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("wasmtime starts");
        let (tell, told) = mpsc::channel();
        let lines = Arc::new(Mutex::new(Vec::new()));
        let (kept, stderr) = (lines.clone(), child.stderr.take().expect("a pipe"));
        thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                if let Some(address) = line.strip_prefix("Serving HTTP on http://") {
                    let _ = tell.send(address.trim_end_matches('/').to_owned());
                }
                kept.lock().unwrap_or_else(PoisonError::into_inner).push(line);
            }
        });
        let address = told.recv_timeout(START).unwrap_or_else(|_| {
            let _ = child.kill();
            panic!("wasmtime does not serve: {:?}", lines.lock().unwrap_or_else(PoisonError::into_inner))
        });
        Self { child, address: address.parse().expect("an address"), lines }
    }

    /// What it has written to standard error.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until it has written a line with all of `parts` to standard error.
    pub(crate) async fn says(&self, parts: &[&str]) {
        let deadline = Instant::now() + START;
        while !self.lines().iter().any(|line| parts.iter().all(|part| line.contains(part))) {
            assert!(Instant::now() < deadline, "no line has {parts:?}: {:?}", self.lines());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Fails when a request ended in anything but an answer of the gateway's: a trap, an instance that could not be made.
    pub(crate) fn assert_never_failed(&self) {
        let lines = self.lines();
        let faults: Vec<_> = lines
            .iter()
            .filter(|line| {
                line.contains("wasm trap") || line.contains("worker error") || line.contains("panicked")
            })
            .collect();
        assert!(faults.is_empty(), "{faults:?}");
    }
}

/// The stock program.
pub(crate) fn wasmtime() -> PathBuf {
    let program = std::env::var_os("CIRCUITRY_TEST_WASMTIME");
    let program = program.unwrap_or_else(|| {
        panic!("CIRCUITRY_TEST_WASMTIME is not set: run `cargo xtask test`, which installs wasmtime")
    });
    program.into()
}

fn components() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../host/component")
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An upstream, a gateway before it, and where their circuits are.
pub(crate) struct Edge {
    pub(crate) upstream: Upstream,
    pub(crate) gateway: Gateway,
    pub(crate) redis_url: String,
    pub(crate) prefix: String,
    worker: OnceCell<Factory>,
}

/// How the circuits of a test behave: two failures in a row are borne.
const FAILURE_COUNT_THRESHOLD: u64 = 2;
const ALLOW_AFTER: Duration = Duration::from_secs(60);

impl Edge {
    /// On the Redis that all tests share. `variables` replace those that all tests have.
    pub(crate) async fn start(variables: &[(&str, &str)]) -> Self {
        Self::on(&redis_url(), variables).await
    }

    pub(crate) async fn on(redis_url: &str, variables: &[(&str, &str)]) -> Self {
        Self::reusing("100", redis_url, variables).await
    }

    pub(crate) async fn reusing(reuse: &str, redis_url: &str, variables: &[(&str, &str)]) -> Self {
        let (upstream, prefix) = (Upstream::start().await, format!("{}:", own_name()));
        let mut all = vec![
            ("CIRCUITRY_UPSTREAMS", format!("{UPSTREAM}={} /", upstream.origin())),
            ("CIRCUITRY_REDIS_URL", redis_url.to_owned()),
            ("CIRCUITRY_REDIS_PREFIX", prefix.clone()),
            // A busy machine is no outage.
            ("CIRCUITRY_STORE_TIMEOUT_MS", "20000".to_owned()),
            ("CIRCUITRY_FAILURE_COUNT_THRESHOLD", FAILURE_COUNT_THRESHOLD.to_string()),
            ("CIRCUITRY_ALLOW_AFTER_MS", ALLOW_AFTER.as_millis().to_string()),
        ];
        for (name, value) in variables {
            all.retain(|(known, _)| known != name);
            all.push((*name, (*value).to_owned()));
        }
        let gateway = Gateway::reusing(reuse, &all);
        LazyLock::force(&COMPILED);
        Self { upstream, gateway, redis_url: redis_url.to_owned(), prefix, worker: OnceCell::new() }
    }

    /// A Rust worker on the gateway's circuits.
    pub(crate) async fn worker(&self) -> &Factory {
        let make = async || {
            let settings =
                patient().failure_count_threshold(FAILURE_COUNT_THRESHOLD).allow_after(ALLOW_AFTER);
            factory(settings.store(redis_store(&self.redis_url, &self.prefix).await)).await
        };
        self.worker.get_or_init(make).await
    }

    /// The circuit without a tenant, as a worker shows it.
    pub(crate) async fn information(&self) -> Information {
        breaker(self.worker().await).information().await.expect("a store that answers")
    }

    /// Total, successes and failures of the circuit without a tenant.
    pub(crate) async fn counts(&self) -> (u64, u64, u64) {
        let counts = self.information().await.counts;
        (counts.total, counts.total_successes, counts.total_failures)
    }
}

/// A factory that lives as long as the process: while there is one, no other has to compile the component.
static COMPILED: LazyLock<(Runtime, Factory)> = LazyLock::new(|| {
    thread::spawn(|| {
        let runtime = Runtime::new().expect("a runtime");
        let factory = runtime.block_on(factory(patient()));
        (runtime, factory)
    })
    .join()
    .expect("a factory")
});

/// The worker's breaker of the circuit without a tenant.
pub(crate) fn breaker(worker: &Factory) -> Breaker {
    worker.breaker_for(UPSTREAM, &Context::new())
}
