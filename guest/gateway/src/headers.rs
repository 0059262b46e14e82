//! Which headers go on, and which are the gateway's.

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use wasip2::http::types::Fields;

/// A header's name and value, as they came.
pub(crate) type Header = (String, Vec<u8>);

/// Says what an answer of the gateway's own is about; an upstream's is never passed on.
pub(crate) const ANSWER: &str = "circuitry-answer";

/// The most that the headers of a message may have together. Runtimes end a component that makes larger ones.
const BYTES_MAX: usize = 64 * 1024;
/// What each one costs beside its text.
const OVERHEAD: usize = 32;

/// Belong to one connection: RFC 9110, section 7.6.1. `Host` is that of the upstream, and the runtime's server has dealt with `Expect`.
/// `Trailer` is not among them: runtimes send those trailers only that it names.
const HOP_BY_HOP: [&str; 12] = [
    "connection",
    "expect",
    "host",
    "http2-settings",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "transfer-encoding",
    "upgrade",
    ANSWER,
];

/// The headers that a request has for the upstream, or an answer for the client; `None` when they are too large.
///
/// What `Connection` names stays too, where the runtime shows `Connection`; wasmtime takes it away and leaves what it names.
pub(crate) fn passed_on(headers: Vec<Header>) -> Option<Vec<Header>> {
    let named_by_connection: Vec<String> = values(&headers, "connection")
        .flat_map(|value| value.split(|byte| *byte == b','))
        .map(|name| String::from_utf8_lossy(name.trim_ascii()).to_ascii_lowercase())
        .collect();
    let is_passed_on = |(name, _): &Header| {
        !is_hop_by_hop(name) && !named_by_connection.contains(&name.to_ascii_lowercase())
    };
    let headers: Vec<_> = headers.into_iter().filter(is_passed_on).collect();
    let size = |(name, value): &Header| name.len().saturating_add(value.len()).saturating_add(OVERHEAD);
    let total = headers.iter().map(size).fold(0_usize, usize::saturating_add);
    (total <= BYTES_MAX).then_some(headers)
}

/// Whether it is of one connection only, and [`passed_on`] by nobody. Runtimes show few of them to a component.
pub(crate) fn is_hop_by_hop(name: &str) -> bool {
    HOP_BY_HOP.iter().any(|known| known.eq_ignore_ascii_case(name))
}

/// Whether the client says that it takes trailers. It is said again to the upstream, which may not send any otherwise.
pub(crate) fn takes_trailers(headers: &[Header]) -> bool {
    values(headers, "te")
        .flat_map(|value| value.split(|byte| *byte == b','))
        .any(|coding| coding.trim_ascii().eq_ignore_ascii_case(b"trailers"))
}

/// All that the runtime takes; what it forbids is its own to send.
pub(crate) fn fields(headers: &[Header]) -> Fields {
    Fields::from_list(headers).unwrap_or_else(|_| {
        let fields = Fields::new();
        for (name, value) in headers {
            let _ = fields.append(name, value);
        }
        fields
    })
}

/// Tells the upstream how the request came: RFC 7239 and 9110, and what many servers look for. WASI tells no address of the client.
pub(crate) fn add_forwarded(headers: &mut Vec<Header>, authority: Option<&str>, is_https: bool) {
    let proto = if is_https { "https" } else { "http" };
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~:[]%".contains(&byte);
    let host = authority.filter(|host| !host.is_empty() && host.bytes().all(is_plain));
    let mut forwarded = "for=unknown".to_owned();
    if let Some(host) = host {
        forwarded.push_str(&format!(";host=\"{host}\""));
        add_missing(headers, "x-forwarded-host", host);
    }
    forwarded.push_str(&format!(";proto={proto}"));
    add_missing(headers, "x-forwarded-proto", proto);
    headers.push(("forwarded".to_owned(), forwarded.into_bytes()));
    headers.push(("via".to_owned(), b"1.1 circuitry".to_vec()));
}

/// Whoever stands before the gateway knows better.
fn add_missing(headers: &mut Vec<Header>, name: &str, value: &str) {
    if values(headers, name).next().is_none() {
        headers.push((name.to_owned(), value.as_bytes().to_vec()));
    }
}

/// All values of `name`, which is in lower case.
pub(crate) fn values<'a>(headers: &'a [Header], name: &str) -> impl Iterator<Item = &'a [u8]> {
    headers
        .iter()
        .filter(move |(known, _)| known.eq_ignore_ascii_case(name))
        .map(|(_, value)| value.as_slice())
}

/// The length that the message says its body has.
pub(crate) fn content_length(headers: &[Header]) -> Option<u64> {
    let mut lengths = values(headers, "content-length");
    let length = core::str::from_utf8(lengths.next()?).ok()?.parse().ok()?;
    lengths.next().is_none().then_some(length)
}

/// How long `Retry-After` asks to wait, in milliseconds. A date is not read: it is of the upstream's clock.
pub(crate) fn retry_after_ms(headers: &[Header]) -> Option<u64> {
    let value = core::str::from_utf8(values(headers, "retry-after").next()?).ok()?;
    value.trim().parse::<u64>().ok()?.checked_mul(1_000)
}

/// Whole seconds, rounded up, at least 1.
pub(crate) fn retry_after_seconds(milliseconds: u64) -> u64 {
    milliseconds.div_ceil(1_000).max(1)
}

/// Whether it may be a header's name.
pub(crate) fn is_token(name: &str) -> bool {
    let is_of_a_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !name.is_empty() && name.bytes().all(is_of_a_token)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(list: &[(&str, &str)]) -> Vec<Header> {
        list.iter().map(|(name, value)| ((*name).to_owned(), value.as_bytes().to_vec())).collect()
    }

    fn shown(headers: &[Header]) -> Vec<String> {
        headers.iter().map(|(name, value)| format!("{name}: {}", String::from_utf8_lossy(value))).collect()
    }

    #[test]
    fn what_belongs_to_one_connection_is_not_passed_on() {
        let passed = passed_on(headers(&[
            ("Host", "gateway"),
            ("Connection", "close, X-Secret"),
            ("x-secret", "1"),
            ("Transfer-Encoding", "chunked"),
            ("Proxy-Authorization", "Basic x"),
            ("Circuitry-Answer", "refused"),
            ("Accept", "*/*"),
            ("Trailer", "X-Sum"),
            ("Set-Cookie", "a=1"),
            ("Set-Cookie", "b=2"),
        ]));
        assert_eq!(
            shown(&passed.unwrap_or_default()),
            ["Accept: */*", "Trailer: X-Sum", "Set-Cookie: a=1", "Set-Cookie: b=2"]
        );
    }

    #[test]
    fn headers_that_are_too_large_are_not_passed_on_at_all() {
        assert!(passed_on(headers(&[("a", &"x".repeat(BYTES_MAX))])).is_none());
        let many: Vec<_> = (0..3_000).map(|_| ("a".to_owned(), Vec::new())).collect();
        assert!(passed_on(many).is_none());
        // What is dropped does not count.
        assert!(passed_on(headers(&[("te", &"x".repeat(BYTES_MAX))])).is_some());
    }

    #[test]
    fn trailers_are_asked_for_where_the_client_takes_them() {
        for (te, expected) in
            [("trailers", true), ("gzip;q=0.5, Trailers ", true), ("gzip", false), ("", false)]
        {
            assert_eq!(takes_trailers(&headers(&[("TE", te)])), expected, "{te}");
        }
        assert!(!takes_trailers(&[]));
    }

    #[test]
    fn the_upstream_is_told_how_the_request_came() {
        let mut list = headers(&[("X-Forwarded-Proto", "https"), ("Forwarded", "for=192.0.2.1")]);
        add_forwarded(&mut list, Some("shop.example:8080"), false);
        assert_eq!(
            shown(&list),
            [
                "X-Forwarded-Proto: https",
                "Forwarded: for=192.0.2.1",
                "x-forwarded-host: shop.example:8080",
                "forwarded: for=unknown;host=\"shop.example:8080\";proto=http",
                "via: 1.1 circuitry",
            ]
        );
        let mut list = Vec::new();
        add_forwarded(&mut list, Some("bad\";for=1.2.3.4"), true);
        assert_eq!(shown(&list)[1], "forwarded: for=unknown;proto=https");
    }

    #[test]
    fn a_wait_is_told_in_whole_seconds_of_at_least_one() {
        for (milliseconds, seconds) in
            [(0, 1), (1, 1), (1_000, 1), (1_001, 2), (u64::MAX, 18_446_744_073_709_552)]
        {
            assert_eq!(retry_after_seconds(milliseconds), seconds);
        }
        assert_eq!(retry_after_ms(&headers(&[("Retry-After", "120")])), Some(120_000));
        assert_eq!(retry_after_ms(&headers(&[("Retry-After", "Fri, 31 Dec 1999 23:59:59 GMT")])), None);
        assert_eq!(retry_after_ms(&headers(&[("Retry-After", "99999999999999999999")])), None);
        assert_eq!(retry_after_ms(&[]), None);
    }

    #[test]
    fn a_length_is_believed_when_there_is_one_and_it_is_a_number() {
        assert_eq!(content_length(&headers(&[("Content-Length", "5")])), Some(5));
        assert_eq!(content_length(&headers(&[("Content-Length", "5"), ("content-length", "5")])), None);
        assert_eq!(content_length(&headers(&[("Content-Length", "-5")])), None);
    }
}
