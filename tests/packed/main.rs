//! What a user's first program is, built outside the workspace on the packed crates: `cargo xtask package` copies it there.
//!
//! One tenant's circuit opens, refuses, and heals, on a real Redis; the component that decided is the one whose digest
//! is packed beside it.

use std::time::Duration;

use circuitry::{Consistency, Context, ExecuteError, Factory, Outcome, Settings, State};
use circuitry_redis::RedisStore;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let url = std::env::var("CIRCUITRY_TEST_REDIS_URL").map_err(|_| "CIRCUITRY_TEST_REDIS_URL is not set")?;
    let prefix = format!("packed-{}:", std::process::id());
    let store = RedisStore::builder().prefix(&prefix).connect(&url).await?;
    let settings = Settings::builder()
        .store(store)
        .consistency(Consistency::Strict)
        .failure_count_threshold(0)
        .allow_after(Duration::from_millis(50))
        .build()?;
    let factory = Factory::new(settings).await?;
    let breaker = factory.breaker_for("emails", &Context::tenant("acme"));

    let failed = breaker.execute(|| async { Err::<(), _>(std::io::Error::other("no answer")) }).await;
    assert!(matches!(failed, Err(ExecuteError::Work(_))), "{failed:?}");
    let refused = breaker.execute(|| async { Ok::<_, std::io::Error>(()) }).await;
    let Err(ExecuteError::Refused(refusal)) = refused else { panic!("not refused: {refused:?}") };
    tokio::time::sleep(refusal.retry_after()).await;
    let probe = breaker.start().await?;
    assert!(probe.is_probe());
    probe.end(Outcome::Success).await?;
    let information = breaker.information().await?;
    assert_eq!((information.state, information.generation), (State::Closed, 2));

    println!("{} of {}", information.explain(), circuitry_component::SHA256);
    Ok(())
}
