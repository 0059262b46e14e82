//! Reading of URLs: what is wrong with one is said before anybody connects, and never with its password.

use circuitry_store::StoreError;
use redis::{ConnectionInfo, IntoConnectionInfo, ProtocolVersion};
use url::Url;

const FORM: &str = "write it like redis://user:password@host:6379/0 (rediss:// for TLS), with special characters in user \
                    and password percent-encoded";
const SCHEMES: [&str; 7] = ["redis", "rediss", "valkey", "valkeys", "unix", "redis+unix", "valkey+unix"];

/// A server's address with the settings of a connection, and how messages name it.
#[derive(Clone, Debug)]
pub(crate) struct Address {
    pub(crate) info: ConnectionInfo,
    pub(crate) place: String,
}

impl Address {
    /// Reads a URL.
    pub(crate) fn read(text: &str) -> Result<Self, StoreError> {
        // What did not parse may have a password anywhere, so the text itself is not shown.
        let url = Url::parse(text).map_err(|error| {
            StoreError::other(format!("the Redis URL is malformed: {error}; {FORM}"), error)
        })?;
        let scheme = url.scheme();
        if !SCHEMES.contains(&scheme) {
            let message = format!(
                "the Redis URL begins with {scheme}:, which is none of {}; {FORM}",
                SCHEMES.join(", ")
            );
            return Err(StoreError::rejected(message));
        }
        let place = shown(&url);
        let rejected = |what: &str| StoreError::rejected(format!("the Redis URL {place}: {what}; {FORM}"));
        let is_unix = scheme.ends_with("unix");
        if !is_unix && url.host_str().is_none_or(str::is_empty) {
            return Err(rejected("the host is missing"));
        }
        match url.fragment() {
            None => {}
            Some("insecure") => {
                return Err(rejected(
                    "#insecure is not supported: give the certificate that signed the server's to \
                     RedisStoreBuilder::root_certificate_pem",
                ));
            }
            Some(_) => return Err(rejected("there is a # in it (%23 stands for one in a password)")),
        }
        let known: &[&str] = if is_unix { &["protocol", "db", "user", "pass"] } else { &["protocol"] };
        if let Some((name, _)) = url.query_pairs().find(|(name, _)| !known.contains(&name.as_ref())) {
            return Err(rejected(&format!(
                "the parameter {name:?} is unknown, only {} can be set",
                known.join(", ")
            )));
        }
        let names_protocol = url.query_pairs().any(|(name, _)| name == "protocol");
        let info = url.into_connection_info().map_err(|error| {
            StoreError::other(format!("the Redis URL {place} is not usable: {error}; {FORM}"), error)
        })?;
        // RESP3 tells a lost connection at once, also an idle one, so that the next swap is not sent into it.
        let protocol = if names_protocol { info.redis_settings().protocol() } else { ProtocolVersion::RESP3 };
        let settings = info.redis_settings().clone().set_protocol(protocol);
        Ok(Self { info: info.set_redis_settings(settings), place })
    }
}

/// The URL without user and password.
fn shown(url: &Url) -> String {
    match url.host_str() {
        Some(host) => {
            let port = url.port().map_or(String::new(), |port| format!(":{port}"));
            format!("{}://{host}{port}{}", url.scheme(), url.path().trim_end_matches('/'))
        }
        None => format!("{}:{}", url.scheme(), url.path()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(text: &str) -> String {
        match Address::read(text) {
            Err(error @ StoreError::Other { .. }) => error.to_string(),
            other => panic!("{text:?} is refused as Other, not {other:?}"),
        }
    }

    #[test]
    fn a_bad_url_is_refused_with_its_fault_and_without_its_password() {
        let faults = [
            ("127.0.0.1:6379", "malformed: relative URL without a base"),
            ("redis://:s3cret@host:66666", "malformed: invalid port number"),
            ("redis://user:s3cret/x@host:6379", "malformed: invalid port number"),
            ("http://user:s3cret@host:6379", "begins with http:"),
            ("redis:///0", "host is missing"),
            ("redis://user:s3cret@host/abc", "redis://host/abc is not usable: Invalid database number"),
            ("redis://user:s3cret@host/?protocol=4", "redis://host is not usable: Invalid protocol version"),
            ("redis://user:s3cret@host/?protcol=resp3", "redis://host: the parameter \"protcol\" is unknown"),
            ("rediss://user:s3cret@host:1/#insecure", "rediss://host:1: #insecure is not supported"),
            ("redis://user:12#s3cret@host:6379", "there is a # in it"),
            ("redis://0.0.0.0", "redis://0.0.0.0 is not usable: Cannot connect to a wildcard address"),
        ];
        for (url, wanted) in faults {
            let message = fault(url);
            assert!(message.contains(wanted), "{url}: {message}");
            assert!(!message.contains("s3cret"), "{url}: {message}");
            assert!(message.contains("write it like redis://"), "{url}: {message}");
        }
    }

    #[test]
    fn messages_name_a_server_without_user_and_password() {
        let places = [
            ("redis://user:s3cret@host:6390/2", "redis://host:6390/2"),
            ("rediss://:s3cret@[::1]/", "rediss://[::1]"),
            ("unix:/run/redis.sock?db=1&pass=s3cret", "unix:/run/redis.sock"),
        ];
        for (url, place) in places {
            let address = Address::read(url).unwrap_or_else(|error| panic!("{url}: {error}"));
            assert_eq!(address.place, place);
            assert!(!format!("{address:?}").contains("s3cret"));
        }
    }

    #[test]
    fn the_protocol_is_resp3_unless_the_url_says_otherwise() {
        let protocol = |url| match Address::read(url) {
            Ok(address) => address.info.redis_settings().protocol(),
            Err(error) => panic!("{url}: {error}"),
        };
        assert!(protocol("redis://host").supports_resp3());
        assert!(protocol("redis://host/?protocol=3").supports_resp3());
        assert!(!protocol("redis://host/?protocol=resp2").supports_resp3());
    }
}
