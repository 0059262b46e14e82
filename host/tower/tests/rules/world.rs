//! The world of a test: a store, a clock, circuits on them, and services whose answers are scripted.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use circuitry::{
    Breaker, Consistency, Context as Circuit, Counts, Factory, ManualClock, MemoryStore, Settings,
    SettingsBuilder, State,
};
use circuitry_store::fault::FaultStore;
use circuitry_tower::{CircuitKey, Part};
use http::{HeaderMap, HeaderName, Request, Response};
use http_body::{Body, Frame, SizeHint};
use tokio::time::Sleep;

/// The header of the tests' tenants.
pub(crate) const TENANT: HeaderName = HeaderName::from_static("x-tenant");
/// The open time of the tests' circuits.
pub(crate) const ALLOW_AFTER: Duration = Duration::from_millis(60_500);

/// Where the compiled component is kept from test to test.
pub(crate) static COMPILED: LazyLock<PathBuf> =
    LazyLock::new(|| Path::new(env!("CARGO_TARGET_TMPDIR")).join("circuitry"));

/// Settings with the component that is compiled already.
pub(crate) fn settings() -> SettingsBuilder {
    Settings::builder().component_cache(&*COMPILED)
}

/// A store, a clock that stands still, and circuits that trip on the third failure in a row.
pub(crate) struct World {
    pub(crate) clock: ManualClock,
    pub(crate) store: Arc<FaultStore<MemoryStore>>,
    pub(crate) factory: Factory,
}

impl World {
    /// In bounded mode, where a process sees at once what has ended in it.
    pub(crate) async fn new() -> Self {
        Self::with(Consistency::default(), 1).await
    }

    pub(crate) async fn with(consistency: Consistency, probes: u32) -> Self {
        let clock = ManualClock::at_ms(1_000_000);
        let store = Arc::new(FaultStore::new(MemoryStore::with_clock(clock.clone())));
        let factory = factory(&clock, &store, consistency, probes).await;
        Self { clock, store, factory }
    }

    /// The circuit of acme as another process sees it that begins now.
    pub(crate) async fn elsewhere(&self, consistency: Consistency) -> Breaker {
        let factory = factory(&self.clock, &self.store, consistency, 1).await;
        factory.breaker_for("orders", &Circuit::tenant("acme"))
    }

    /// The circuit of a tenant, as [`key`] has it.
    pub(crate) fn circuit(&self, tenant: &str) -> Breaker {
        self.factory.breaker_for("orders", &Circuit::tenant(tenant))
    }

    pub(crate) async fn counts(&self, tenant: &str) -> Counts {
        self.circuit(tenant).information().await.expect("information").counts
    }

    /// Successes and failures.
    pub(crate) async fn counted(&self, tenant: &str) -> (u64, u64) {
        let counts = self.counts(tenant).await;
        (counts.total_successes, counts.total_failures)
    }

    pub(crate) async fn state(&self, tenant: &str) -> State {
        self.circuit(tenant).state().await.expect("a state")
    }

    /// Opens the circuit of a tenant.
    pub(crate) async fn trip(&self, tenant: &str) {
        for _ in 0..3 {
            let permit = self.circuit(tenant).start().await.expect("a permit");
            permit.end(circuitry::Outcome::Failure).await.expect("a settlement");
        }
        assert_eq!(self.state(tenant).await, State::Open);
    }

    /// Opens it, and lets the open time pass.
    pub(crate) async fn half_open(&self, tenant: &str) {
        self.trip(tenant).await;
        self.clock.advance_ms(u64::try_from(ALLOW_AFTER.as_millis()).expect("a time"));
        assert_eq!(self.state(tenant).await, State::HalfOpen);
    }
}

async fn factory(
    clock: &ManualClock,
    store: &Arc<FaultStore<MemoryStore>>,
    consistency: Consistency,
    probes: u32,
) -> Factory {
    let settings = settings()
        .store(store.clone())
        .clock(clock.clone())
        .consistency(consistency)
        .failure_count_threshold(2)
        .close_threshold(probes)
        .allow_after(ALLOW_AFTER);
    Factory::new(settings.build().expect("usable settings")).await.expect("a factory")
}

/// One circuit for each tenant.
pub(crate) fn key() -> CircuitKey {
    CircuitKey::named("orders").tenant(Part::header(TENANT))
}

/// A request of a tenant.
pub(crate) fn request(tenant: &str) -> Request<()> {
    Request::builder().header(TENANT, tenant).body(()).expect("a request")
}

/// A response of this status and body.
pub(crate) fn response(status: u16, body: Script) -> Response<Script> {
    Response::builder().status(status).body(body).expect("a response")
}

/// A service that answers every request alike.
pub(crate) fn answers(
    answer: impl Fn() -> Response<Script> + Clone + Send + Sync + 'static,
) -> impl tower::Service<
    Request<()>,
    Response = Response<Script>,
    Error = Infallible,
    Future = std::future::Ready<Result<Response<Script>, Infallible>>,
> + Clone
+ Send
+ 'static {
    tower::service_fn(move |_: Request<()>| std::future::ready(Ok(answer())))
}

/// What a scripted body does next.
#[derive(Debug)]
pub(crate) enum Step {
    Data(&'static str),
    Trailers(HeaderMap),
    /// It breaks off.
    Error,
    /// So long it has nothing.
    Wait(Duration),
    /// It never has anything again.
    Silence,
}

/// A body that does as it is told.
#[derive(Debug, Default)]
pub(crate) struct Script {
    steps: VecDeque<Step>,
    waiting: Option<Pin<Box<Sleep>>>,
    /// Whether it says of its last frame that it is the last.
    tells_its_end: bool,
    /// What it says of its length.
    length: Option<u64>,
}

impl Script {
    pub(crate) fn of(steps: impl IntoIterator<Item = Step>) -> Self {
        Self { steps: steps.into_iter().collect(), ..Self::default() }
    }

    pub(crate) fn that_tells_its_end(mut self) -> Self {
        self.tells_its_end = true;
        self
    }

    pub(crate) fn of_length(mut self, length: u64) -> Self {
        self.length = Some(length);
        self
    }
}

impl Body for Script {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, std::io::Error>>> {
        loop {
            if let Some(waiting) = &mut self.waiting {
                std::task::ready!(waiting.as_mut().poll(context));
                self.waiting = None;
            }
            return Poll::Ready(match self.steps.pop_front() {
                None => None,
                Some(Step::Data(data)) => {
                    if let Some(left) = &mut self.length {
                        *left -= data.len() as u64;
                    }
                    Some(Ok(Frame::data(Bytes::from_static(data.as_bytes()))))
                }
                Some(Step::Trailers(trailers)) => Some(Ok(Frame::trailers(trailers))),
                Some(Step::Error) => Some(Err(std::io::Error::other("the upstream broke off"))),
                Some(Step::Wait(time)) => {
                    self.waiting = Some(Box::pin(tokio::time::sleep(time)));
                    continue;
                }
                Some(Step::Silence) => {
                    self.steps.push_front(Step::Silence);
                    return Poll::Pending;
                }
            });
        }
    }

    fn is_end_stream(&self) -> bool {
        self.tells_its_end && self.steps.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        self.length.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}
