//! [`WhenRefused`]: what a caller gets whose call was not made: a response, or an error.

use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderName, HeaderValue, Response, StatusCode};
use http_body::Body;

use crate::BoxError;
use crate::body::GuardedBody;
use crate::rejection::Rejection;

/// Says what a caller gets whose call was not made; `E` is the error of the service, `B` the body of its responses.
pub trait WhenRefused<B: Body, E>: Clone + Send + 'static {
    /// The error of the layer.
    type Error;

    /// The service's own error, as one of the layer.
    fn pass(error: E) -> Self::Error;

    /// What is answered in the place of the service. Put the rejection among the extensions of a response, so that a layer outside
    /// takes it for no failure.
    ///
    /// # Errors
    /// Where the rejection is to be an error.
    fn refuse(&self, rejection: Rejection) -> Result<Response<GuardedBody<B>>, Self::Error>;
}

/// Answers a response, the default. The error of the layer is that of the service.
///
/// | the call | the response |
/// |---|---|
/// | was refused | 503 with `Retry-After`, in whole seconds, rounded up and at least 1 |
/// | has no key | 400 |
/// | could not ask its circuit | 503 without `Retry-After` |
///
/// A line of text says what was wrong, without names. The [`Rejection`] is among the response's extensions, for layers outside.
#[derive(Clone, Debug, Default)]
pub struct Respond {
    /// The name of the proxy, in the header `Proxy-Status`.
    proxy: Option<HeaderValue>,
}

const PROXY_STATUS: HeaderName = HeaderName::from_static("proxy-status");

impl Respond {
    /// The default.
    pub fn new() -> Self {
        Self::default()
    }

    /// Tells who refused in the header `Proxy-Status` (RFC 9209), for a gateway whose upstream answers 503 too. `name` is that of the
    /// gateway; what is no letter, digit, dash or dot becomes a dash.
    #[must_use]
    pub fn proxy_status(mut self, name: &str) -> Self {
        let plain = |letter: char| letter.is_ascii_alphanumeric() || letter == '-' || letter == '.';
        let name: String = name.chars().map(|letter| if plain(letter) { letter } else { '-' }).collect();
        // Quoted: a token must not begin with a digit.
        self.proxy = HeaderValue::from_str(&format!("\"{name}\"")).ok();
        self
    }

    fn proxy_status_of(&self, rejection: &Rejection) -> Option<HeaderValue> {
        let (error, details) = match rejection {
            Rejection::Refused { refusal, .. } => ("destination_unavailable", refusal.reason().as_str()),
            Rejection::Key(_) => ("http_request_error", "no key"),
            Rejection::Circuit(_) => ("proxy_internal_error", "no circuit"),
        };
        let proxy = self.proxy.as_ref()?.to_str().ok()?;
        HeaderValue::from_str(&format!("{proxy}; error={error}; details=\"{details}\"")).ok()
    }
}

impl<B, E> WhenRefused<B, E> for Respond
where
    B: Body,
    B::Data: From<Bytes>,
{
    type Error = E;

    fn pass(error: E) -> E {
        error
    }

    fn refuse(&self, rejection: Rejection) -> Result<Response<GuardedBody<B>>, E> {
        let (status, text) = match &rejection {
            Rejection::Refused { refusal, .. } => (StatusCode::SERVICE_UNAVAILABLE, refusal.to_string()),
            Rejection::Key(error) => (StatusCode::BAD_REQUEST, error.to_string()),
            Rejection::Circuit(_) => (StatusCode::SERVICE_UNAVAILABLE, NOT_ASKED.to_owned()),
        };
        let mut response = Response::new(GuardedBody::ready(Bytes::from(text + "\n")));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
        if let Some(refusal) = rejection.refusal() {
            headers.insert(RETRY_AFTER, retry_after(refusal.retry_after()));
        }
        if let Some(told) = self.proxy_status_of(&rejection) {
            headers.insert(PROXY_STATUS, told);
        }
        response.extensions_mut().insert(rejection);
        Ok(response)
    }
}

/// What a client is told of a circuit that cannot be asked; the log has more.
const NOT_ASKED: &str = "the circuit breaker has no answer";

/// A `Retry-After`: whole seconds, rounded up, at least 1.
pub fn retry_after(wait: Duration) -> HeaderValue {
    HeaderValue::from(u64::try_from(wait.as_nanos().div_ceil(1_000_000_000)).unwrap_or(u64::MAX).max(1))
}

/// Answers as a gRPC server: status 200 and no body, with the `grpc-status` `UNAVAILABLE` (and `grpc-retry-pushback-ms`) for a refusal,
/// `INVALID_ARGUMENT` where there is no key and `INTERNAL` where the circuit could not be asked.
#[derive(Clone, Copy, Debug, Default)]
pub struct RespondGrpc(());

impl RespondGrpc {
    /// Answers as a gRPC server.
    pub fn new() -> Self {
        Self::default()
    }
}

impl<B: Body, E> WhenRefused<B, E> for RespondGrpc {
    type Error = E;

    fn pass(error: E) -> E {
        error
    }

    fn refuse(&self, rejection: Rejection) -> Result<Response<GuardedBody<B>>, E> {
        let (code, text) = match &rejection {
            Rejection::Refused { refusal, .. } => ("14", refusal.to_string()),
            Rejection::Key(error) => ("3", error.to_string()),
            Rejection::Circuit(_) => ("13", NOT_ASKED.to_owned()),
        };
        let mut response = Response::new(GuardedBody::empty());
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        headers.insert("grpc-status", HeaderValue::from_static(code));
        if let Ok(text) = HeaderValue::from_str(&escaped(&text)) {
            headers.insert("grpc-message", text);
        }
        if let Some(refusal) = rejection.refusal() {
            let ms = u64::try_from(refusal.retry_after().as_millis()).unwrap_or(u64::MAX);
            headers.insert("grpc-retry-pushback-ms", HeaderValue::from(ms));
        }
        response.extensions_mut().insert(rejection);
        Ok(response)
    }
}

/// A `grpc-message`: what is no printable ASCII is escaped byte by byte, and `%`.
fn escaped(text: &str) -> String {
    text.bytes().fold(String::with_capacity(text.len()), |mut escaped, byte| {
        match byte {
            b' '..=b'~' if byte != b'%' => escaped.push(char::from(byte)),
            _ => escaped.push_str(&format!("%{byte:02X}")),
        }
        escaped
    })
}

/// Gives the [`Rejection`] as an error, with the service's own errors boxed beside it: for a client whose caller looks at errors.
#[derive(Clone, Copy, Debug, Default)]
pub struct AsError;

impl<B, E> WhenRefused<B, E> for AsError
where
    B: Body,
    E: Into<BoxError>,
{
    type Error = BoxError;

    fn pass(error: E) -> BoxError {
        error.into()
    }

    fn refuse(&self, rejection: Rejection) -> Result<Response<GuardedBody<B>>, BoxError> {
        Err(rejection.into())
    }
}

/// Answers what a function of the [`Rejection`] makes: a page, JSON. The error of the layer is that of the service.
///
/// # Example
/// ```
/// use bytes::Bytes;
/// use circuitry_tower::{Rejection, RespondWith, retry_after};
/// use http::{Response, StatusCode};
///
/// let busy = RespondWith::new(|rejection: &Rejection| {
///     let mut response = Response::new(Bytes::from_static(br#"{"error":"busy"}"#));
///     *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
///     if let Some(refusal) = rejection.refusal() {
///         response.headers_mut().insert("retry-after", retry_after(refusal.retry_after()));
///     }
///     response
/// });
/// # let _ = busy;
/// ```
#[derive(Clone, Copy, Debug)]
pub struct RespondWith<F>(F);

impl<F> RespondWith<F>
where
    F: Fn(&Rejection) -> Response<Bytes> + Clone + Send + 'static,
{
    /// Answers what `respond` makes of the rejection.
    pub fn new(respond: F) -> Self {
        Self(respond)
    }
}

impl<B, E, F> WhenRefused<B, E> for RespondWith<F>
where
    B: Body,
    B::Data: From<Bytes>,
    F: Fn(&Rejection) -> Response<Bytes> + Clone + Send + 'static,
{
    type Error = E;

    fn pass(error: E) -> E {
        error
    }

    fn refuse(&self, rejection: Rejection) -> Result<Response<GuardedBody<B>>, E> {
        let mut response = (self.0)(&rejection).map(GuardedBody::ready);
        response.extensions_mut().insert(rejection);
        Ok(response)
    }
}
