//! The gateway's own answers: always 503, with a header that says what they are about.

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use wasip2::http::types::{Fields, OutgoingBody, OutgoingResponse, ResponseOutparam};

use crate::headers::{ANSWER, retry_after_seconds};

/// Why the upstream does not answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Own {
    /// The circuit refuses.
    Refused { reason: &'static str, retry_after_ms: u64 },
    /// The store does not say what the circuit does, and requests are refused then.
    StoreDown,
    /// The upstream did not answer, or not as HTTP has it.
    UpstreamFailed(&'static str),
    /// The client did not send its request as it said it would.
    ClientFailed(&'static str),
    /// The request cannot be passed on.
    BadRequest(&'static str),
    /// The request is for none of the upstreams.
    NoUpstream,
    /// The gateway cannot work as it is configured; its log says why.
    Misconfigured,
}

/// A store that is down may be back the next moment.
const STORE_DOWN_MS: u64 = 1_000;

impl Own {
    /// The value of the header [`ANSWER`].
    fn label(&self) -> &'static str {
        match self {
            Self::Refused { .. } => "refused",
            Self::StoreDown => "store-down",
            Self::UpstreamFailed(_) => "upstream-failed",
            Self::ClientFailed(_) => "client-failed",
            Self::BadRequest(_) => "bad-request",
            Self::NoUpstream => "no-upstream",
            Self::Misconfigured => "misconfigured",
        }
    }

    /// For whom it makes sense to come again, and when.
    fn retry_after_ms(&self) -> Option<u64> {
        match self {
            Self::Refused { retry_after_ms, .. } => Some(*retry_after_ms),
            Self::StoreDown => Some(STORE_DOWN_MS),
            _ => None,
        }
    }

    fn text(&self) -> String {
        match self {
            Self::Refused { reason, retry_after_ms } => {
                let seconds = retry_after_seconds(*retry_after_ms);
                format!("{reason}; try again in {seconds} s\n")
            }
            Self::StoreDown => {
                "the store of the circuits is down, and requests are refused then\n".to_owned()
            }
            Self::UpstreamFailed(why) => format!("the upstream failed: {why}\n"),
            Self::ClientFailed(why) => format!("the request failed: {why}\n"),
            Self::BadRequest(why) => format!("the request cannot be passed on: {why}\n"),
            Self::NoUpstream => "no upstream is configured for this request\n".to_owned(),
            Self::Misconfigured => "the gateway is misconfigured; its log says what to do\n".to_owned(),
        }
    }

    fn headers(&self, length: usize) -> Vec<(String, Vec<u8>)> {
        let mut headers = Vec::from([
            ("content-type", "text/plain; charset=utf-8".to_owned()),
            ("content-length", length.to_string()),
            ("cache-control", "no-store".to_owned()),
            (ANSWER, self.label().to_owned()),
        ]);
        if let Some(wait) = self.retry_after_ms() {
            headers.push(("retry-after", retry_after_seconds(wait).to_string()));
        }
        headers.into_iter().map(|(name, value)| (name.to_owned(), value.into_bytes())).collect()
    }

    /// Answers with it. `is_head` is for a request that gets no body.
    pub(crate) fn send(&self, out: ResponseOutparam, is_head: bool) {
        const SERVICE_UNAVAILABLE: u16 = 503;
        let text = self.text();
        let fields = Fields::from_list(&self.headers(text.len())).unwrap_or_else(|_| Fields::new());
        let response = OutgoingResponse::new(fields);
        let _ = response.set_status_code(SERVICE_UNAVAILABLE);
        let body = if is_head { None } else { response.body().ok() };
        ResponseOutparam::set(out, Ok(response));
        let Some(body) = body else { return };
        if let Ok(stream) = body.write() {
            // Whoever has gone needs no answer.
            let _ = stream.blocking_write_and_flush(text.as_bytes());
        }
        let _ = OutgoingBody::finish(body, None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_says_when_to_come_again_and_nothing_else_does_that_would_not_help() {
        let retry_after = |own: Own| {
            let headers = own.headers(0);
            let value = headers.iter().find(|(name, _)| name == "retry-after");
            value.map(|(_, value)| String::from_utf8_lossy(value).into_owned())
        };
        let refused = Own::Refused { reason: "the circuit is open", retry_after_ms: 1_001 };
        assert_eq!(refused.text(), "the circuit is open; try again in 2 s\n");
        assert_eq!(retry_after(refused).as_deref(), Some("2"));
        assert_eq!(retry_after(Own::StoreDown).as_deref(), Some("1"));
        for own in [Own::UpstreamFailed("x"), Own::BadRequest("x"), Own::NoUpstream, Own::Misconfigured] {
            assert_eq!(retry_after(own), None);
        }
    }
}
