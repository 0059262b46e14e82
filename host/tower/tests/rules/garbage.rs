//! A store that answers nonsense, or nothing.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use circuitry::{Consistency, Factory, StartError, StoreFailure};
use circuitry_store::fault::{Fault, FaultStore};
use circuitry_store::{Entry, Loaded, MemoryStore, Store, StoreError, Swapped, Version};
use circuitry_tower::{AsError, CircuitBreakerLayer, Rejection, ReqwestBreaker};
use http::StatusCode;
use http_body_util::BodyExt;
use reqwest_middleware::ClientBuilder;
use tower::{Layer, ServiceExt};

use crate::world::{Script, TENANT, World, answers, key, request, response};

/// Answers every load with the same bytes.
struct Garbage(Vec<u8>);

#[async_trait::async_trait]
impl Store for Garbage {
    async fn load(&self, _: &str) -> Result<Loaded, StoreError> {
        let entry = Entry { value: self.0.clone(), version: Version::from_bytes([7; 16]) };
        Ok(Loaded { entry: Some(entry), now_ms: Some(u64::MAX) })
    }

    async fn swap(
        &self,
        circuit: &str,
        _: Option<&Version>,
        _: &[u8],
        _: Option<std::time::Duration>,
    ) -> Result<Swapped, StoreError> {
        Ok(Swapped::Conflict(self.load(circuit).await?))
    }
}

async fn factory(store: impl Store, consistency: Consistency) -> Factory {
    let settings = crate::world::settings().store(store).consistency(consistency);
    Factory::new(settings.build().expect("usable settings")).await.expect("a factory")
}

#[tokio::test]
async fn a_record_that_is_none_is_a_503_and_never_an_open_door() {
    let garbage: [Vec<u8>; 5] =
        [vec![], b"hello".to_vec(), vec![0xff; 64], vec![0; 4_096], vec![b'['; 65_536]];
    for bytes in garbage {
        for consistency in [Consistency::Strict, Consistency::default()] {
            let factory = factory(Garbage(bytes.clone()), consistency).await;
            let asked = Arc::new(AtomicBool::new(false));
            let asks = asked.clone();
            let service = answers(move || {
                asks.store(true, Ordering::SeqCst);
                response(200, Script::default())
            });
            let layer = CircuitBreakerLayer::new(factory, key());
            let responding = layer.clone().layer(service.clone());
            let answer = responding.oneshot(request("acme")).await.expect("an answer");
            assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
            assert!(!answer.headers().contains_key("retry-after"), "nobody knows when");
            let body = answer.into_body().collect().await.expect("a body").to_bytes();
            assert_eq!(body, "the circuit breaker has no answer\n");

            let error = layer.when_refused(AsError).layer(service).oneshot(request("acme")).await;
            let error = error.expect_err("an error");
            let Some(Rejection::Circuit(told)) = Rejection::find(&*error) else { panic!("another: {error}") };
            assert!(matches!(**told, StartError::Circuit(_)));
            assert!(error.to_string().contains("orders/acme"), "{error}");
            assert!(!asked.load(Ordering::SeqCst), "the service was asked");
        }
    }
}

#[tokio::test]
async fn a_damaged_circuit_is_nobody_elses() {
    let world = World::with(Consistency::Strict, 1).await;
    let service = CircuitBreakerLayer::new(world.factory.clone(), key())
        .layer(answers(|| response(200, Script::default())));
    world.store.on_next_load(Fault::Garbage(b"not a record".to_vec()));
    let damaged = service.clone().oneshot(request("acme")).await.expect("an answer");
    assert_eq!(damaged.status(), 503);
    let sound = service.oneshot(request("birch")).await.expect("an answer");
    assert_eq!(sound.status(), 200);
}

#[tokio::test]
async fn a_store_that_is_down_is_what_the_settings_say() {
    for (policy, status) in
        [(StoreFailure::Local, 200), (StoreFailure::Admit, 200), (StoreFailure::Refuse, 503)]
    {
        let store = FaultStore::new(MemoryStore::new());
        store.go_down();
        let settings = crate::world::settings()
            .store(store)
            .consistency(Consistency::Strict)
            .store_failure(policy)
            .store_timeout(std::time::Duration::from_millis(50));
        let factory = Factory::new(settings.build().expect("usable settings")).await.expect("a factory");
        let service =
            CircuitBreakerLayer::new(factory, key()).layer(answers(|| response(200, Script::default())));
        let answer = service.oneshot(request("acme")).await.expect("an answer");
        assert_eq!(answer.status(), status, "{policy:?}");
        if status == 503 {
            assert_eq!(answer.headers()["retry-after"], "1");
        }
    }
}

#[tokio::test]
async fn circuits_that_cannot_be_asked_are_one_line_in_the_log_and_not_one_a_call_whatever_is_answered() {
    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);
    impl std::io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let ask = async || {
        let factory = factory(Garbage(b"hello".to_vec()), Consistency::Strict).await;
        let layer = CircuitBreakerLayer::new(factory.clone(), key());
        let well = answers(|| response(200, Script::default()));
        let responding = layer.clone().layer(well.clone());
        let failing = layer.when_refused(AsError).layer(well);
        let breaker = ReqwestBreaker::new(factory, key());
        let client = ClientBuilder::new(reqwest::Client::new()).with(breaker).build();
        for _ in 0..20 {
            responding.clone().oneshot(request("acme")).await.expect("an answer");
            failing.clone().oneshot(request("acme")).await.map(|_| ()).expect_err("no circuit");
            client.get("http://127.0.0.1:1/").header(TENANT, "acme").send().await.expect_err("no circuit");
        }
    };
    // Once unseen: whether anybody listens is asked when a line is first written, which another test may be about to.
    ask().await;
    let lines = Lines::default();
    let writer = lines.clone();
    let subscriber = tracing_subscriber::fmt().with_writer(move || writer.clone()).with_ansi(false).finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    ask().await;
    let told = String::from_utf8(lines.0.lock().unwrap().clone()).expect("text");
    assert_eq!(told.matches("a circuit cannot be asked").count(), 2, "the layer's and the client's: {told}");
}
