//! Which headers are forwarded, and which are of one connection only (RFC 9110, section 7.6.1).

use std::net::IpAddr;

use axum::http::header::{CONNECTION, HOST, TE, TRANSFER_ENCODING, UPGRADE, VIA};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderName, HeaderValue};

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

/// Makes of a client's headers those that the upstream gets.
pub(crate) fn for_upstream(headers: &mut HeaderMap, client: Option<IpAddr>, upstream: &Authority) {
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
    if let Ok(host) = HeaderValue::from_str(upstream.as_str())
        && let Some(asked_for) = headers.insert(HOST, host)
    {
        headers.entry(FORWARDED_HOST).or_insert(asked_for);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn the_upstream_learns_who_asks_and_for_what() {
        let mut headers =
            headers(&[("host", "shop.example"), ("x-forwarded-for", "10.0.0.1"), ("te", "Trailers")]);
        let upstream = Authority::from_static("10.1.1.1:9000");
        for_upstream(&mut headers, Some(IpAddr::from([192, 0, 2, 7])), &upstream);
        assert_eq!(headers["host"], "10.1.1.1:9000");
        assert_eq!(headers["x-forwarded-host"], "shop.example");
        assert_eq!(headers["x-forwarded-for"], "10.0.0.1, 192.0.2.7");
        assert_eq!(
            (&headers["te"], &headers["via"]),
            (&"trailers".parse().unwrap(), &"1.1 circuitry".parse().unwrap())
        );
    }
}
