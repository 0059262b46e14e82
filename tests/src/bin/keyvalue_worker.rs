//! One process of a keyvalue host whose buckets are on a Redis. `circuitry_tests::keyvalue` says what goes in and out.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use circuitry_tests::contract::{Outcome, Verdict};
use circuitry_tests::keyvalue::breaker::Breaker;
use circuitry_tests::keyvalue::buckets::RedisBuckets;
use circuitry_tests::keyvalue::host::{Runnable, World};
use circuitry_tests::keyvalue::{Report, Task};
use wasmtime::error::Context as _;
use wasmtime::{Result, format_err};

fn main() -> Result<()> {
    let task = std::env::args().nth(1).context("give the task as JSON")?;
    let task: Task = serde_json::from_str(&task).context("the task is not of the form that is expected")?;
    let runnable = Runnable::new(&std::fs::read(&task.component)?)?;
    let world = World {
        environment: vec![("CIRCUITRY_KEYVALUE_BUCKET".into(), task.bucket.clone())],
        ..World::new(Arc::new(RedisBuckets::connect(&task.redis_url)?), now_ms)
    };

    let mut report = Report::default();
    let mut breaker = Breaker::new(runnable.start(world.clone())?, &task.circuit, task.node, task.failures);
    for execution in 0..task.executions {
        // A host of requests begins each with a new instance.
        breaker.replace(runnable.start(world.clone())?);
        let verdict = breaker.start().map_err(|failure| format_err!("{failure:?}"))?;
        let Verdict::Permit(permit) = verdict else {
            report.refused += 1;
            continue;
        };
        let fails = execution % 10 == 0;
        let outcome = if fails { Outcome::Failure } else { Outcome::Success };
        let disposition = breaker.end(&permit, outcome).map_err(|failure| format_err!("{failure:?}"))?;
        let count = if fails { &mut report.failures } else { &mut report.successes };
        *count += u64::from(disposition.accepted);
    }
    println!("{}", serde_json::to_string(&report)?);
    Ok(())
}

fn now_ms() -> u64 {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX)
}
