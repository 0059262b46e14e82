//! The host that a request is for, in one spelling.

use std::net::Ipv6Addr;

use http::header::HOST;
use http::uri::{Authority, Scheme};

use crate::head::RequestHead;
use crate::key::{KeyProblem, checked};
use crate::part::header;

/// The host and, unless it is the scheme's default, the port. The URI's own comes first, as RFC 9112 has it (section 3.2.2).
pub(crate) fn of(request: &RequestHead<'_>, otherwise: &Scheme) -> Result<String, KeyProblem> {
    let scheme = request.uri().scheme().unwrap_or(otherwise);
    if let Some(authority) = request.uri().authority() {
        return normal(authority, scheme);
    }
    let value = checked(header(request, &HOST)?)?;
    let authority: Authority = value.parse().map_err(|_| KeyProblem::Malformed("it is no host"))?;
    if value.contains('@') {
        return Err(KeyProblem::Malformed("a user is no part of a host"));
    }
    normal(&authority, scheme)
}

fn normal(authority: &Authority, scheme: &Scheme) -> Result<String, KeyProblem> {
    // What comes before an @ is a login, which belongs into no name.
    let host_and_port = authority.as_str().rsplit('@').next().unwrap_or_default();
    let host = authority.host();
    // A dot at the end is the root of all names.
    let name = host.strip_suffix('.').unwrap_or(host);
    if name.is_empty() {
        return Err(KeyProblem::Empty);
    }
    let name = match name.strip_prefix('[').and_then(|name| name.strip_suffix(']')) {
        Some(address) => {
            let address: Ipv6Addr = address
                .parse()
                .map_err(|_| KeyProblem::Malformed("what is in brackets is no IPv6 address"))?;
            format!("[{address}]")
        }
        None => name.to_ascii_lowercase(),
    };
    let port = host_and_port.get(host.len()..).unwrap_or_default();
    let port = match port.strip_prefix(':').unwrap_or(port) {
        "" => None,
        // A sign would be parsed too.
        port => match port.parse::<u16>() {
            Ok(number) if port.starts_with(|first: char| first.is_ascii_digit()) => Some(number),
            _ => return Err(KeyProblem::Malformed("its port is no number of 0 to 65535")),
        },
    };
    Ok(match port {
        Some(port) if !port_is_default(port, scheme) => format!("{name}:{port}"),
        _ => name,
    })
}

fn port_is_default(port: u16, scheme: &Scheme) -> bool {
    (*scheme == Scheme::HTTP && port == 80) || (*scheme == Scheme::HTTPS && port == 443)
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn by_uri(uri: &str) -> Result<String, KeyProblem> {
        let request = Request::get(uri).body(()).expect("a request");
        of(&RequestHead::of(&request), &Scheme::HTTP)
    }

    fn by_header(value: &[u8], scheme: Scheme) -> Result<String, KeyProblem> {
        let request = Request::get("/").header(HOST, value).body(()).expect("a request");
        of(&RequestHead::of(&request), &scheme)
    }

    #[test]
    fn spellings_of_one_host_are_one() {
        for uri in [
            "http://example.com/",
            "http://Example.COM:80/a",
            "http://example.com:/",
            "http://example.com./",
            "http://user:secret@example.com/",
            "http://example.com:0080/",
            "https://example.com:443/",
        ] {
            assert_eq!(by_uri(uri).as_deref(), Ok("example.com"), "{uri}");
        }
        assert_eq!(by_header(b"EXAMPLE.com:443", Scheme::HTTPS).as_deref(), Ok("example.com"));
        assert_eq!(by_uri("http://[0:0::1]:80/").as_deref(), Ok("[::1]"));
    }

    #[test]
    fn another_port_is_another_host() {
        assert_eq!(by_uri("http://example.com:8080/").as_deref(), Ok("example.com:8080"));
        assert_eq!(by_uri("http://example.com:443/").as_deref(), Ok("example.com:443"));
        assert_eq!(by_uri("https://example.com:80/").as_deref(), Ok("example.com:80"));
        assert_eq!(by_header(b"example.com:443", Scheme::HTTP).as_deref(), Ok("example.com:443"));
        assert_eq!(by_header(b"[::1]:8080", Scheme::HTTP).as_deref(), Ok("[::1]:8080"));
    }

    #[test]
    fn the_uri_comes_before_the_header() {
        let request =
            Request::get("http://a.example/").header(HOST, "b.example").body(()).expect("a request");
        assert_eq!(of(&RequestHead::of(&request), &Scheme::HTTP).as_deref(), Ok("a.example"));
    }

    #[test]
    fn what_is_no_host_is_none() {
        for hostile in [
            &b""[..],
            b".",
            b":80",
            b"a b",
            b"a/b",
            b"user@example.com",
            b"a:b:c",
            b"example.com:99999",
            b"[::1",
            b"[nonsense]",
            b"\xff\xfe",
            b"\xc3\xa4.example",
            b"a?b",
            b"a#b",
            b"example.com:-1",
            b"example.com:+80",
        ] {
            let told = by_header(hostile, Scheme::HTTP);
            assert!(told.is_err(), "{:?} is {told:?}", String::from_utf8_lossy(hostile));
        }
        let long = "a".repeat(65_536);
        assert!(matches!(by_header(long.as_bytes(), Scheme::HTTP), Err(KeyProblem::TooLong { .. })));
    }
}
