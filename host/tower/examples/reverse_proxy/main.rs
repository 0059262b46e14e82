//! A reverse proxy that stops asking an upstream that is down.
//!
//! ```text
//! cargo run -p circuitry-tower --example reverse_proxy -- --upstream http://127.0.0.1:9000
//! cargo run -p circuitry-tower --example reverse_proxy -- \
//!     --upstream http://127.0.0.1:9000 --tenant-header x-tenant --redis redis://127.0.0.1:6379
//! ```
//!
//! It forwards every request to the upstream, bodies as they come. What the upstream answers is handed on as it is, a 500 too. After
//! a few failures in a row the circuit opens and the proxy answers 503 with `Retry-After` at once, until the circuit lets a probe
//! through. With `--tenant-header` each tenant has a circuit of its own, and with `--redis` all proxies share them.
//!
//! | the upstream | the client gets | the circuit counts |
//! |---|---|---|
//! | answers, and its body ends | the answer | a success, or from status 500 on a failure |
//! | cannot be reached, or does not answer in time | 503 with `Retry-After: 1` | a failure |
//! | breaks its body off, or falls silent in it | an answer that breaks off too | a failure |
//! | is not asked, for its circuit refuses | 503 with `Retry-After` | nothing |
//!
//! The client's own faults are no failure of the upstream: a request without its tenant is answered 400, an upload that breaks off
//! 400, one that stalls 408, and of a client that has gone nothing is counted. Where the upstream has begun its answer before it has
//! the whole upload, the answer breaks off with that, and nothing is counted either. Every response of the proxy's own has a header
//! `Proxy-Status`. The server refuses what is no HTTP before any of this. It speaks plain HTTP/1.1 to the upstream, and upgrades
//! (WebSocket) are not forwarded.
//!
//! - [`forward`]: what stands behind the circuits; [`upload`], [`download`]: bodies on their way; [`headers`]: what is not
//!   forwarded; [`answer`]: what the proxy says itself; [`options`]: what you can choose

mod answer;
mod download;
mod forward;
mod headers;
mod options;
mod upload;

use std::future::IntoFuture;
use std::io::{IsTerminal, stderr};
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result};
use axum::Router;
use axum::error_handling::HandleError;
use axum::serve::ListenerExt;
use circuitry::{Consistency, Factory, Settings};
use circuitry_redis::RedisStore;
use circuitry_tower::{CircuitBreakerLayer, CircuitKey, Part, Respond};
use clap::Parser;
use tokio::net::TcpListener;
use tower::{ServiceBuilder, service_fn};

use forward::Forward;
use options::Options;

/// How long requests have to end when the proxy is told to.
const GRACE: Duration = Duration::from_secs(10);

#[tokio::main]
async fn main() -> ExitCode {
    tracing_subscriber::fmt()
        .with_max_level(tracing::Level::INFO)
        .with_ansi(stderr().is_terminal())
        .with_writer(stderr)
        .init();
    match serve(Options::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn serve(options: Options) -> Result<()> {
    let factory = factory(&options).await?;

    // This is what you would write yourself.
    let mut key = CircuitKey::named(options.circuit.clone());
    if let Some(header) = options.tenant_header.clone() {
        key = key.tenant(Part::header(header));
    }
    let circuits = CircuitBreakerLayer::new(factory.clone(), key)
        .when_refused(Respond::new().proxy_status(answer::NAME));
    let forward = Forward::new(&options);
    let upstream = service_fn(move |request| forward.clone().send(request));
    let upstream = ServiceBuilder::new().layer(circuits).service(upstream);
    let proxy = Router::new().fallback_service(HandleError::new(upstream, answer::to_failure));

    let listener = TcpListener::bind(&options.listen).await;
    let listener = listener.with_context(|| format!("cannot listen on {}", options.listen))?;
    println!("listening on http://{}", listener.local_addr()?);
    let listener = listener.tap_io(|connection| {
        let _ = connection.set_nodelay(true);
    });
    let (told_to_end, end) = tokio::sync::watch::channel(());
    let mut end_for_server = end.clone();
    let server = axum::serve(listener, proxy.into_make_service_with_connect_info::<SocketAddr>())
        .with_graceful_shutdown(async move {
            let _ = end_for_server.changed().await;
        });
    let grace = async {
        ended().await;
        let _ = told_to_end.send(());
        tokio::time::sleep(GRACE).await;
    };
    tokio::select! {
        served = server.into_future() => served?,
        () = grace => tracing::warn!("some requests did not end in time"),
    }
    drop(end);
    factory.flush().await.context("what was counted last is lost")
}

async fn factory(options: &Options) -> Result<Factory> {
    let mut settings = Settings::builder()
        .failure_count_threshold(options.failure_count_threshold)
        .close_threshold(options.close_threshold)
        .allow_after(Duration::from_millis(options.allow_after_ms))
        .probe_timeout(Duration::from_millis(options.probe_timeout_ms));
    if options.strict {
        settings = settings.consistency(Consistency::Strict);
    }
    if let Some(folder) = &options.component_cache {
        settings = settings.component_cache(folder);
    }
    if let Some(url) = &options.redis {
        // Without the server the proxy starts too, and goes by its own circuits until it is there.
        settings = settings.store(RedisStore::builder().prefix(&options.prefix).lazy().connect(url).await?);
    }
    Ok(Factory::new(settings.build()?).await?)
}

/// Waits for whoever ends the process kindly.
async fn ended() {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        if let Ok(mut terminate) = signal(SignalKind::terminate()) {
            tokio::select! {
                _ = terminate.recv() => return,
                _ = tokio::signal::ctrl_c() => return,
            }
        }
    }
    let _ = tokio::signal::ctrl_c().await;
}
