//! What can be chosen.

use std::path::PathBuf;
use std::time::Duration;

use axum::http::uri::{Authority, Scheme};
use axum::http::{HeaderName, Uri};
use clap::Parser;

/// A reverse proxy with circuit breakers. It answers nothing but what the upstream answers, and 503 when that does not; to a client's own
/// fault 400 or 408.
#[derive(Debug, Parser)]
pub(crate) struct Options {
    /// Where to listen; with port 0 on a free port. The first line of the output has the address.
    #[arg(long, default_value = "127.0.0.1:8080")]
    pub(crate) listen: String,
    /// The upstream, without a path: http://127.0.0.1:9000.
    #[arg(long, value_parser = upstream)]
    pub(crate) upstream: Authority,
    /// The name of the upstream's circuit.
    #[arg(long, default_value = "upstream")]
    pub(crate) circuit: String,
    /// Gives each value of this header a circuit of its own. Let it be set by whoever checks who is there, and not by strangers.
    #[arg(long)]
    pub(crate) tenant_header: Option<HeaderName>,
    /// Shares the circuits through this Redis: redis://127.0.0.1:6379. Without it they are in memory.
    #[arg(long)]
    pub(crate) redis: Option<String>,
    /// The prefix of the circuits' keys in Redis.
    #[arg(long, default_value = "circuitry:")]
    pub(crate) prefix: String,
    /// How many failures in a row a circuit bears; one more opens it.
    #[arg(long, default_value_t = 5)]
    pub(crate) failure_count_threshold: u64,
    /// How many probes must succeed until it closes.
    #[arg(long, default_value_t = 1)]
    pub(crate) close_threshold: u32,
    /// For how many milliseconds an open circuit refuses.
    #[arg(long, default_value_t = 60_000)]
    pub(crate) allow_after_ms: u64,
    /// For how many milliseconds a probe holds its place when its proxy has died.
    #[arg(long, default_value_t = 30_000)]
    pub(crate) probe_timeout_ms: u64,
    /// Asks the store twice a request, instead of being up to 100 ms behind other proxies.
    #[arg(long)]
    pub(crate) strict: bool,
    /// Keeps the compiled component in this folder, so that the next proxy starts at once.
    #[arg(long)]
    pub(crate) component_cache: Option<PathBuf>,
    /// For how many milliseconds the upstream may take to accept a connection.
    #[arg(long, default_value_t = 1_000)]
    pub(crate) connect_timeout_ms: u64,
    /// For how many milliseconds the upstream may take to begin its answer, and a client to go on with its upload.
    #[arg(long, default_value_t = 30_000)]
    pub(crate) first_byte_timeout_ms: u64,
    /// For how many milliseconds nothing may come in the middle of the upstream's answer, nor of the client's upload.
    #[arg(long, default_value_t = 30_000)]
    body_idle_timeout_ms: u64,
}

impl Options {
    pub(crate) fn connect_timeout(&self) -> Duration {
        Duration::from_millis(self.connect_timeout_ms)
    }

    pub(crate) fn first_byte_timeout(&self) -> Duration {
        Duration::from_millis(self.first_byte_timeout_ms)
    }

    pub(crate) fn body_idle_timeout(&self) -> Duration {
        Duration::from_millis(self.body_idle_timeout_ms)
    }
}

fn upstream(url: &str) -> Result<Authority, String> {
    let url: Uri = url.parse().map_err(|error| format!("{error}"))?;
    if url.scheme() != Some(&Scheme::HTTP) {
        return Err("give it a URL that begins with http://".into());
    }
    match (url.authority(), url.path_and_query().map(|path| path.as_str())) {
        (Some(authority), None | Some("/")) if !authority.as_str().contains('@') => Ok(authority.clone()),
        _ => Err("give it a host and a port, and no path".into()),
    }
}
