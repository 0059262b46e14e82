//! What the proxy answers itself when the upstream was asked and gave no answer.

use std::error::Error;

use axum::body::Body;
use axum::http::header::RETRY_AFTER;
use axum::http::{HeaderValue, Response, StatusCode};
use circuitry_tower::{BoxError, CallerError};
use hyper_util::client::legacy;

use crate::upload::{Silent, Stalled};

/// The proxy's name in `Proxy-Status`.
pub(crate) const NAME: &str = "circuitry";

/// The client wants a tunnel.
#[derive(Debug, thiserror::Error)]
#[error("this is no tunnel")]
pub(crate) struct NoTunnel;

/// A call that gave no answer: the upstream's fault is 503, the client's is not.
pub(crate) async fn to_failure(error: BoxError) -> Response<Body> {
    let client = CallerError::find(&*error);
    let (status, reason) = match client {
        Some(client) if client.source().is_some_and(|source| source.is::<Stalled>()) => {
            (StatusCode::REQUEST_TIMEOUT, "http_request_error")
        }
        Some(_) => (StatusCode::BAD_REQUEST, "http_request_error"),
        None if error.is::<Silent>() => (StatusCode::SERVICE_UNAVAILABLE, "http_response_timeout"),
        None if error.downcast_ref().is_some_and(legacy::Error::is_connect) => {
            (StatusCode::SERVICE_UNAVAILABLE, "connection_refused")
        }
        None => (StatusCode::SERVICE_UNAVAILABLE, "connection_terminated"),
    };
    let text = client.map_or("the upstream does not answer".to_owned(), CallerError::to_string) + "\n";
    tracing::debug!(error = &*error as &dyn Error, "no answer");
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = status;
    if let Ok(told) = HeaderValue::try_from(format!("\"{NAME}\"; error={reason}")) {
        response.headers_mut().insert("proxy-status", told);
    }
    if status == StatusCode::SERVICE_UNAVAILABLE {
        // The next one may find it there; when it does not the circuit says how long.
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
    }
    response
}
