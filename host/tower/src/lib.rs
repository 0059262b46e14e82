#![doc = include_str!("../README.md")]

mod body;
mod classify;
mod edge;
mod grpc;
mod head;
mod host;
mod key;
mod layer;
mod log;
mod part;
mod patience;
mod refuse;
mod rejection;
#[cfg(feature = "reqwest")]
mod reqwest;
mod retry_after;

#[cfg(feature = "reqwest")]
pub use self::reqwest::ReqwestBreaker;
pub use body::GuardedBody;
pub use classify::{CallerError, Classifier, HttpClassifier, Verdict};
pub use grpc::GrpcClassifier;
pub use head::{RequestHead, ResponseHead};
pub use key::{Key, KeyError, KeyProblem, RequestKey};
pub use layer::{CircuitBreaker, CircuitBreakerLayer};
pub use part::{CircuitKey, Part};
pub use patience::BodyTimeout;
pub use refuse::{AsError, Respond, RespondGrpc, RespondWith, WhenRefused, retry_after};
pub use rejection::Rejection;

/// Any error, as tower's services have it.
pub type BoxError = Box<dyn std::error::Error + Send + Sync + 'static>;
