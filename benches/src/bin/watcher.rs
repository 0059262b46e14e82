//! Another process of the fleet: tries circuits until they are refused, and tells when. See `circuitry_benches::processes`.

use std::io::{Write, stdin, stdout};
use std::time::Duration;

use circuitry::Context;
use circuitry_benches::circuits::execute;
use circuitry_benches::processes::{Way, machine_time};
use tokio::time::sleep;

/// Between two starts, where a start asks no store: often enough for the figures, and no core is taken from the others.
const PAUSE: Duration = Duration::from_micros(200);

// A thread for what runs beside the calls: this one waits for its orders.
#[tokio::main(flavor = "multi_thread", worker_threads = 1)]
async fn main() {
    let mut arguments = std::env::args().skip(1);
    let way: Way = arguments.next().expect("a way").parse().expect("a way");
    let prefix = arguments.next().expect("the prefix of the keys");
    let factory = way.factory(&prefix, |settings| settings).await.expect("a way that this build has");
    for circuit in stdin().lines() {
        let breaker = factory.breaker_for(&circuit.expect("a pipe"), &Context::new());
        execute(&breaker).await;
        tell("ready");
        while breaker.start().await.is_ok() {
            if way != Way::Strict {
                sleep(PAUSE).await;
            }
        }
        tell(&machine_time().as_nanos().to_string());
    }
}

fn tell(line: &str) {
    let mut out = stdout().lock();
    out.write_all(format!("{line}\n").as_bytes()).and_then(|()| out.flush()).expect("a pipe");
}
