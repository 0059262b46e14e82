//! Other circuit breakers, each with its defaults and called as its documentation calls it, around the same no-op.

use std::convert::Infallible;

use failsafe::futures::CircuitBreaker;
use recloser::{AsyncRecloser, Recloser};
use tower::{Layer, Service, ServiceExt, service_fn};
use tower_resilience_circuitbreaker::CircuitBreakerLayer;

use crate::circuits::no_op;

/// recloser for futures.
pub fn recloser_async() -> AsyncRecloser {
    AsyncRecloser::from(Recloser::default())
}

/// One call of nothing through recloser.
///
/// # Panics
/// Where it is refused, as with all of them.
pub async fn call_recloser_async(recloser: &AsyncRecloser) {
    recloser.call(no_op()).await.expect("admitted");
}

/// recloser for plain functions.
pub fn recloser() -> Recloser {
    Recloser::default()
}

/// One call of nothing through recloser, without a future.
pub fn call_recloser(recloser: &Recloser) {
    recloser.call(|| Ok::<_, Infallible>(())).expect("admitted");
}

/// failsafe with its default policy.
pub fn failsafe() -> impl CircuitBreaker + Clone + Send + Sync {
    failsafe::Config::new().build()
}

/// One call of nothing through failsafe.
pub async fn call_failsafe(failsafe: &impl CircuitBreaker) {
    failsafe.call(no_op()).await.expect("admitted");
}

/// tower-resilience-circuitbreaker around a service. Each thread has a clone, as of any service of tower.
pub fn tower() -> impl Service<(), Response = (), Error: std::fmt::Debug, Future: Send> + Clone + Send + Sync
{
    CircuitBreakerLayer::builder().build().expect("its defaults").layer(service_fn(|()| no_op()))
}

/// One call of nothing through tower-resilience-circuitbreaker.
pub async fn call_tower(service: &mut impl Service<(), Response = (), Error: std::fmt::Debug>) {
    service.ready().await.expect("ready").call(()).await.expect("admitted");
}
