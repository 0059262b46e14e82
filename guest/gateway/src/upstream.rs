//! [`Upstreams`]: which server a request goes to.

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use crate::circuit::has_room;

/// A server, and which requests are for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Upstream {
    /// The name that its circuits begin with.
    pub(crate) name: String,
    pub(crate) is_https: bool,
    /// Host and port.
    pub(crate) authority: String,
    /// In lower case, without a port; `None` is any.
    host: Option<String>,
    /// Begins with a `/`.
    path: String,
}

/// All of them, the most particular first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Upstreams(Vec<Upstream>);

const FORM: &str =
    "write \"name=http://host:port /path\", several with ; between them; instead of the path also host/path";

impl Upstreams {
    /// Reads `name=origin match; …`, where the match is `/path`, `host` or `host/path`, and everything when it is left out.
    ///
    /// # Errors
    /// What is wrong, with which entry.
    pub(crate) fn read(text: &str) -> Result<Self, String> {
        let mut upstreams: Vec<Upstream> = Vec::new();
        for entry in text.split(';').map(str::trim).filter(|entry| !entry.is_empty()) {
            let fault = |what: &str| format!("{entry:?}: {what}; {FORM}");
            let upstream = Upstream::read(entry).map_err(fault)?;
            for other in &upstreams {
                let is_same_server =
                    other.authority == upstream.authority && other.is_https == upstream.is_https;
                if other.name == upstream.name && !is_same_server {
                    return Err(fault(
                        "another entry has this name and another server: they would share a circuit",
                    ));
                }
                if other.host == upstream.host && other.path == upstream.path {
                    return Err(fault("another entry matches the same requests"));
                }
            }
            upstreams.push(upstream);
        }
        if upstreams.is_empty() {
            return Err(format!("there is no entry; {FORM}"));
        }
        upstreams.sort_by_key(|upstream| (upstream.host.is_none(), core::cmp::Reverse(upstream.path.len())));
        Ok(Self(upstreams))
    }

    /// The upstream of a request: one for its host before one for any, and of these the one with the longest path. Paths match in
    /// whole segments, byte by byte.
    pub(crate) fn find(&self, authority: Option<&str>, path_with_query: &str) -> Option<&Upstream> {
        let path = path_with_query.split('?').next().unwrap_or_default();
        let host = authority.map(|authority| host_of(authority).to_ascii_lowercase());
        self.0.iter().find(|upstream| {
            (upstream.host.is_none() || upstream.host == host) && is_below(path, &upstream.path)
        })
    }
}

impl Upstream {
    fn read(entry: &str) -> Result<Self, &'static str> {
        let (name, rest) = entry.split_once('=').ok_or("it has no =")?;
        let name = name.trim();
        if name.is_empty() || name.contains(|shown: char| shown.is_whitespace() || shown.is_control()) {
            return Err("the name is missing, or there is a space or a control character in it");
        }
        if !has_room(name) {
            return Err(
                "the name is too long: with a tenant's, the name of a circuit has 1,024 bytes at most",
            );
        }
        let mut words = rest.split_whitespace();
        let origin = words.next().ok_or("the server is missing")?;
        let matching = words.next().unwrap_or("/");
        if words.next().is_some() {
            return Err("there is something behind the match");
        }
        let (is_https, authority) = match (origin.strip_prefix("http://"), origin.strip_prefix("https://")) {
            (Some(authority), _) => (false, authority),
            (_, Some(authority)) => (true, authority),
            _ => return Err("the server begins with http:// or https://"),
        };
        let authority = authority.strip_suffix('/').unwrap_or(authority);
        if authority.contains(['/', '?', '#', '@']) {
            return Err(
                "the server is host and port only: paths go to it as they come, and it gets no login",
            );
        }
        if !is_authority(authority) {
            return Err("the server has no host, or a port that is no number from 1 to 65535");
        }
        let (host, path) = match matching.find('/') {
            Some(slash) => matching.split_at_checked(slash).unwrap_or_default(),
            None => (matching, "/"),
        };
        if !host.is_empty() && !is_host(host) {
            return Err("the host to match is a name or an address, without a port");
        }
        if path.contains(['?', '#']) {
            return Err("the path to match has no query and no fragment");
        }
        Ok(Self {
            name: name.to_owned(),
            is_https,
            authority: authority.to_owned(),
            host: (!host.is_empty()).then(|| host.to_ascii_lowercase()),
            path: path.to_owned(),
        })
    }
}

fn host_of(authority: &str) -> &str {
    let authority = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => authority,
    }
}

fn is_authority(authority: &str) -> bool {
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (authority, None),
    };
    is_host(host) && port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port > 0))
}

fn is_host(host: &str) -> bool {
    match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(address) => address.parse::<core::net::Ipv6Addr>().is_ok(),
        None => {
            let is_of_a_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
            !host.is_empty() && host.bytes().all(is_of_a_name)
        }
    }
}

/// Whether `path` is `above`, or lies below it.
fn is_below(path: &str, above: &str) -> bool {
    match path.strip_prefix(above) {
        Some(rest) => rest.is_empty() || above.ends_with('/') || rest.starts_with('/'),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(text: &str, requests: &[(&str, &str)]) -> Vec<String> {
        let upstreams = Upstreams::read(text).unwrap_or_else(|fault| panic!("{fault}"));
        let name = |(host, path): &(&str, &str)| {
            upstreams.find(Some(host), path).map_or("none", |upstream| &upstream.name).to_owned()
        };
        requests.iter().map(name).collect()
    }

    #[test]
    fn the_longest_path_in_whole_segments_decides() {
        let text = "web=http://127.0.0.1:8080; billing=http://127.0.0.1:8081 /billing; eu=https://eu.example /billing/eu/";
        let requests = [
            ("any", "/"),
            ("any", "/billing"),
            ("any", "/billing?x=/billing/eu/"),
            ("any", "/billing/1"),
            ("any", "/billings"),
            ("any", "/billing/eu/1"),
            ("any", "/billing/eu"),
            ("any", "*"),
        ];
        let found = names(text, &requests);
        assert_eq!(found, ["web", "billing", "billing", "billing", "web", "eu", "billing", "none"]);
    }

    #[test]
    fn a_host_goes_before_any_host_whatever_its_port_and_case() {
        let text = "any=http://a:1 /long/path; one=http://b:1 api.example; six=http://c:1 [::1]/x";
        let requests = [
            ("api.example", "/long/path"),
            ("API.example:8080", "/"),
            ("other.example", "/long/path"),
            ("other.example", "/"),
            ("[::1]:80", "/x/y"),
        ];
        assert_eq!(names(text, &requests), ["one", "one", "any", "none", "six"]);
    }

    #[test]
    fn an_entry_that_cannot_be_used_is_shown_with_its_fault() {
        for (text, wanted) in [
            ("", "no entry"),
            ("web", "no ="),
            ("=http://a", "the name is missing"),
            ("web=", "the server is missing"),
            ("web=a:80", "begins with http://"),
            ("web=http://a/base", "host and port only"),
            ("web=http://user@a", "host and port only"),
            ("web=http://a:0", "no host, or a port"),
            ("web=http://:80", "no host, or a port"),
            ("web=http://a b:80/", "the host to match is a name or an address, without a port"),
            ("web=http://a [::1]:80/x", "without a port"),
            ("web=http://a [::1/x", "without a port"),
            ("web=http://a api.example?x", "without a port"),
            ("web=http://a api.example,other", "without a port"),
            ("web=http://a /x?y", "no query"),
            ("web=http://a api.example/x#y", "no query and no fragment"),
            ("we\u{1}b=http://a", "a control character"),
            ("web=http://a / more", "behind the match"),
            ("web=http://a /; other=http://b", "matches the same requests"),
            ("web=http://a /; web=http://b /b", "share a circuit"),
            (&format!("{}=http://a", "x".repeat(1_023)), "the name is too long"),
        ] {
            let fault = Upstreams::read(text).err().unwrap_or_else(|| panic!("{text} is taken"));
            assert!(fault.contains(wanted), "{fault}");
        }
    }

    #[test]
    fn one_server_may_have_several_matches_and_one_circuit() {
        assert_eq!(
            names("web=http://a /x; web=http://a /y", &[("h", "/x"), ("h", "/y"), ("h", "/z")]),
            ["web", "web", "none"]
        );
    }

    proptest::proptest! {
        #[test]
        fn no_text_and_no_request_make_it_panic(text in ".*", authority in ".*", path in ".*") {
            let _ = Upstreams::read(&text);
            if let Ok(upstreams) = Upstreams::read("web=http://a /x; b=http://b host/y") {
                let _ = upstreams.find(Some(&authority), &path);
            }
        }
    }
}
