//! Which headers are forwarded, and which are of one connection only (RFC 9110, section 7.6.1).

use std::net::IpAddr;

use axum::http::header::{CONNECTION, CONTENT_LENGTH, COOKIE, HOST, TE, TRANSFER_ENCODING, UPGRADE, VIA};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Uri};
use hyper::body::Body;

const OF_ONE_CONNECTION: [HeaderName; 8] = [
    CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-authenticate"),
    HeaderName::from_static("proxy-authorization"),
    HeaderName::from_static("proxy-connection"),
    TE,
    TRANSFER_ENCODING,
    UPGRADE,
];

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// Takes away what is meant for the connection, with what `Connection` names.
pub(crate) fn keep_end_to_end(headers: &mut HeaderMap) {
    if headers.contains_key(TRANSFER_ENCODING) {
        // Whatever it says, the coding has the word (RFC 9112, section 6.3), and that stays on its connection.
        headers.remove(CONTENT_LENGTH);
    }
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in named.iter().chain(&OF_ONE_CONNECTION) {
        headers.remove(name);
    }
}

/// Makes of a client's headers those that the upstream gets. `target` is what the client asks for.
pub(crate) fn for_upstream(
    headers: &mut HeaderMap,
    target: &Uri,
    client: Option<IpAddr>,
    upstream: &Authority,
) {
    let takes_trailers = headers
        .get_all(TE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|coding| coding.trim().eq_ignore_ascii_case("trailers"));
    keep_end_to_end(headers);
    if takes_trailers {
        // Of this connection too: it hands them on.
        headers.insert(TE, HeaderValue::from_static("trailers"));
        headers.insert(CONNECTION, HeaderValue::from_static("te"));
    }
    headers.append(VIA, HeaderValue::from_static("1.1 circuitry"));
    if let Some(client) = client {
        let before = headers.get_all(FORWARDED_FOR).iter().filter_map(|value| value.to_str().ok());
        let all: Vec<_> = before.map(str::to_owned).chain([client.to_string()]).collect();
        if let Ok(all) = HeaderValue::from_str(&all.join(", ")) {
            headers.insert(FORWARDED_FOR, all);
        }
    }
    // HTTP/2 has it in the target alone, and lets a client send its cookies one by one (RFC 9113, section 8.2.3).
    join(headers, &COOKIE, b"; ");
    let asked_for = target.authority().map(|authority| authority.as_str().rsplit('@').next());
    let asked_for = asked_for.and_then(|host| HeaderValue::from_str(host?).ok());
    if let Ok(host) = HeaderValue::from_str(upstream.as_str()) {
        let header = headers.insert(HOST, host);
        if let Some(asked_for) = asked_for.or(header) {
            headers.entry(FORWARDED_HOST).or_insert(asked_for);
        }
    }
}

/// Makes one header of several with the same name.
fn join(headers: &mut HeaderMap, name: &HeaderName, by: &[u8]) {
    let all: Vec<_> = headers.get_all(name).iter().map(HeaderValue::as_bytes).collect();
    if all.len() > 1
        && let Ok(all) = HeaderValue::from_bytes(&all.join(by))
    {
        headers.insert(name, all);
    }
}

/// Says to an upstream of HTTP/1.1 that a body comes whose length nobody knows: hyper takes it that a GET has none.
pub(crate) fn announce(headers: &mut HeaderMap, upload: &impl Body) {
    if !upload.is_end_stream() && upload.size_hint().exact().is_none() {
        headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::convert::Infallible;

    use axum::body::Bytes;
    use http_body_util::{Full, StreamBody};
    use hyper::body::Frame;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let pairs = pairs
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
        let mut headers = HeaderMap::new();
        pairs.for_each(|(name, value)| _ = headers.append(name, value));
        headers
    }

    #[test]
    fn headers_of_one_connection_stay_on_it() {
        let mut headers = headers(&[
            ("connection", "close, X-Secret"),
            ("connection", "x-other"),
            ("keep-alive", "timeout=5"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "h2c"),
            ("te", "gzip"),
            ("proxy-authorization", "Basic eA=="),
            ("x-secret", "1"),
            ("x-other", "2"),
            ("x-kept", "3"),
        ]);
        keep_end_to_end(&mut headers);
        let left: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        assert_eq!(left, ["x-kept"]);
    }

    #[test]
    fn a_length_beside_a_transfer_coding_is_forgotten() {
        let mut both = headers(&[("transfer-encoding", "chunked"), ("content-length", "3")]);
        keep_end_to_end(&mut both);
        assert!(both.is_empty(), "{both:?}");
        let mut alone = headers(&[("content-length", "3")]);
        keep_end_to_end(&mut alone);
        assert_eq!(alone["content-length"], "3");
    }

    #[test]
    fn the_upstream_learns_who_asks_and_for_what() {
        let upstream = Authority::from_static("10.1.1.1:9000");
        let client = Some(IpAddr::from([192, 0, 2, 7]));
        let mut told =
            headers(&[("host", "shop.example"), ("x-forwarded-for", "10.0.0.1"), ("te", "Trailers")]);
        for_upstream(&mut told, &Uri::from_static("/orders"), client, &upstream);
        assert_eq!(told["host"], "10.1.1.1:9000");
        assert_eq!(told["x-forwarded-host"], "shop.example");
        assert_eq!(told["x-forwarded-for"], "10.0.0.1, 192.0.2.7");
        assert_eq!(told["te"], "trailers");
        assert_eq!(told["via"], "1.1 circuitry");

        // What the target says comes before the header.
        let target = Uri::from_static("http://user@shop.example:81/orders");
        for before in [&[][..], &[("host", "another.example")]] {
            let mut told = headers(before);
            for_upstream(&mut told, &target, client, &upstream);
            assert_eq!(told["host"], "10.1.1.1:9000");
            assert_eq!(told["x-forwarded-host"], "shop.example:81");
        }
    }

    #[test]
    fn a_body_is_announced_where_it_does_not_say_its_length() {
        let unknown = StreamBody::new(futures_util::stream::pending::<Result<Frame<Bytes>, Infallible>>());
        let mut told = headers(&[]);
        announce(&mut told, &unknown);
        assert_eq!(told["transfer-encoding"], "chunked");
        for known in [Full::new(Bytes::from_static(b"body")), Full::default()] {
            let mut told = headers(&[]);
            announce(&mut told, &known);
            assert!(told.is_empty(), "{told:?}");
        }
    }

    #[test]
    fn cookies_that_came_one_by_one_are_one_header() {
        let mut told = headers(&[("cookie", "a=1"), ("cookie", "b=2; c=3")]);
        let upstream = Authority::from_static("10.1.1.1:9000");
        for_upstream(&mut told, &Uri::from_static("/"), None, &upstream);
        assert_eq!(told.get_all("cookie").iter().collect::<Vec<_>>(), ["a=1; b=2; c=3"]);
    }
}
