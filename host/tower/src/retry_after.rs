//! How long a response asks to be left alone: the header `Retry-After`, and gRPC's pushback.

use std::time::{Duration, SystemTime};

use http::HeaderMap;
use http::header::{DATE, RETRY_AFTER};

const PUSHBACK: &str = "grpc-retry-pushback-ms";

/// The `Retry-After` of a response, in seconds or as a date; `None` where there is none or it is neither.
///
/// A date is taken against the response's own `Date`, where it has one, so that nobody's clock matters. Whatever is told is only a
/// wish: the setting `retry_after_max` bounds it.
pub(crate) fn of(headers: &HeaderMap) -> Option<Duration> {
    let value = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) {
        // More digits than a number has are a long time too.
        return Some(Duration::from_secs(value.parse().unwrap_or(u64::MAX)));
    }
    let until = httpdate::parse_http_date(value).ok()?;
    let sent = headers.get(DATE).and_then(|date| httpdate::parse_http_date(date.to_str().ok()?).ok());
    Some(until.duration_since(sent.unwrap_or_else(SystemTime::now)).unwrap_or_default())
}

/// What a gRPC server says with its status; `None` also where it says not to come again.
pub(crate) fn pushback(trailers: &HeaderMap) -> Option<Duration> {
    Some(Duration::from_millis(trailers.get(PUSHBACK)?.to_str().ok()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(retry_after: &str, date: Option<&str>) -> Option<Duration> {
        let mut headers = HeaderMap::new();
        headers.insert(RETRY_AFTER, retry_after.parse().expect("a value"));
        if let Some(date) = date {
            headers.insert(DATE, date.parse().expect("a value"));
        }
        of(&headers)
    }

    #[test]
    fn seconds_are_taken_however_many() {
        assert_eq!(told("120", None), Some(Duration::from_secs(120)));
        assert_eq!(told("0", None), Some(Duration::ZERO));
        assert_eq!(told(&"9".repeat(5_000), None), Some(Duration::from_secs(u64::MAX)));
    }

    #[test]
    fn a_date_counts_from_the_date_of_the_response() {
        let sent = Some("Wed, 21 Oct 2015 07:28:00 GMT");
        assert_eq!(told("Wed, 21 Oct 2015 07:30:00 GMT", sent), Some(Duration::from_secs(120)));
        assert_eq!(told("Wed, 21 Oct 2015 07:20:00 GMT", sent), Some(Duration::ZERO));
        assert_eq!(told("Wed, 21 Oct 2015 07:30:00 GMT", None), Some(Duration::ZERO), "long ago");
    }

    #[test]
    fn what_is_neither_is_nothing() {
        for value in ["", " ", "soon", "-1", "1.5", "+1", "Wed, 99 Oct 2015 07:30:00 GMT"] {
            assert_eq!(told(value, None), None, "{value:?}");
        }
    }
}
