//! [`Address`]: where the server is and who we are there, read from a URL. No message shows a password.

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

const FORM: &str = "write it like redis://user:password@host:6379/0, with special characters in user and password percent-encoded";
const DEFAULT_PORT: u16 = 6379;

/// A server, and the login there.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Address {
    /// A name or an IP address, without brackets.
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) user: Option<String>,
    pub(crate) password: Option<String>,
    pub(crate) database: u32,
}

impl Address {
    /// Reads `redis://[[user][:password]@]host[:port][/database]`.
    ///
    /// # Errors
    /// What is wrong and what would do, in one sentence.
    pub(crate) fn read(text: &str) -> Result<Self, String> {
        let (scheme, rest) = text.split_once("://").ok_or_else(|| fault("it has no ://"))?;
        match scheme {
            "redis" | "valkey" => {}
            "rediss" | "valkeys" => {
                return Err("TLS (rediss://) is not supported by this component: use redis:// over a network that you \
                            trust, or a TLS tunnel beside it"
                    .to_owned());
            }
            // What did not parse may have a password anywhere, so the text itself is not shown.
            _ => return Err(fault("it begins with another scheme than redis://")),
        }
        if rest.contains('#') {
            return Err(fault("there is a # in it (%23 stands for one in a password)"));
        }
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        if !matches!(query, "" | "protocol=2" | "protocol=resp2") {
            return Err(fault("it has parameters (after the ?), of which only protocol=resp2 is known"));
        }
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (login, server) = match authority.rsplit_once('@') {
            Some((login, server)) => (Some(login), server),
            None => (None, authority),
        };
        let (user, password) = login.map_or(Ok((None, None)), read_login)?;
        let (host, port) = read_server(server)?;
        let database = match path.trim_end_matches('/') {
            "" => 0,
            number => number.parse().map_err(|_| fault("the database (after the host's /) is no number"))?,
        };
        Ok(Self { host: host.to_owned(), port, user, password, database })
    }

    /// The server as messages name it.
    pub(crate) fn place(&self) -> String {
        let (host, port) = (&self.host, self.port);
        match (host.contains(':'), self.database) {
            (false, 0) => format!("redis://{host}:{port}"),
            (false, database) => format!("redis://{host}:{port}/{database}"),
            (true, 0) => format!("redis://[{host}]:{port}"),
            (true, database) => format!("redis://[{host}]:{port}/{database}"),
        }
    }
}

fn fault(what: &str) -> String {
    format!("the Redis URL is malformed: {what}; {FORM}")
}

fn read_login(login: &str) -> Result<(Option<String>, Option<String>), String> {
    let (user, password) = match login.split_once(':') {
        Some((user, password)) => (user, Some(password)),
        None => (login, None),
    };
    let read = |part: &str| -> Result<Option<String>, String> {
        if part.is_empty() {
            return Ok(None);
        }
        percent_decoded(part).map(Some).ok_or_else(|| fault("a % in user or password begins no escape"))
    };
    let (user, password) = (read(user)?, password.map_or(Ok(None), read)?);
    if user.is_some() && password.is_none() {
        return Err(fault("there is a user without a password"));
    }
    Ok((user, password))
}

fn read_server(server: &str) -> Result<(&str, u16), String> {
    let (host, port) = if let Some(inner) = server.strip_prefix('[') {
        let (host, port) = inner.split_once(']').ok_or_else(|| fault("the host has a [ without a ]"))?;
        (host, port.strip_prefix(':').or_else(|| port.is_empty().then_some("")))
    } else {
        match server.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (server, Some("")),
        }
    };
    if host.is_empty() {
        return Err(fault("the host is missing"));
    }
    let port = match port {
        Some("") => DEFAULT_PORT,
        Some(port) => port.parse().map_err(|_| fault("the port is no number from 1 to 65535"))?,
        None => return Err(fault("there is something between the ] and the port")),
    };
    if port == 0 {
        return Err(fault("the port is no number from 1 to 65535"));
    }
    Ok((host, port))
}

fn percent_decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let (high, low) = (char::from(rest.next()?).to_digit(16)?, char::from(rest.next()?).to_digit(16)?);
        bytes.push(u8::try_from(high.checked_mul(16)?.checked_add(low)?).ok()?);
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Address {
        Address::read(text).unwrap_or_else(|fault| panic!("{text}: {fault}"))
    }

    #[test]
    fn a_url_names_server_login_and_database() {
        let address = read("redis://worker:p%40ss%2Fword@redis.internal:6390/2");
        assert_eq!((&*address.host, address.port, address.database), ("redis.internal", 6390, 2));
        assert_eq!(address.user.as_deref(), Some("worker"));
        assert_eq!(address.password.as_deref(), Some("p@ss/word"));
        assert_eq!(address.place(), "redis://redis.internal:6390/2");
    }

    #[test]
    fn what_is_left_out_has_the_defaults_of_redis() {
        let address = read("redis://localhost");
        assert_eq!((&*address.host, address.port, address.database), ("localhost", 6379, 0));
        assert_eq!((address.user, address.password), (None, None));
        let address = read("valkey://:secret@[::1]/?protocol=resp2");
        assert_eq!((&*address.host, address.port), ("::1", 6379));
        assert_eq!((address.user.as_deref(), address.password.as_deref()), (None, Some("secret")));
        assert_eq!(address.place(), "redis://[::1]:6379");
    }

    #[test]
    fn a_bad_url_is_refused_with_its_fault_and_without_its_password() {
        for (url, wanted) in [
            ("127.0.0.1:6379", "no ://"),
            ("http://user:s3cret@host", "another scheme"),
            ("rediss://user:s3cret@host", "TLS (rediss://) is not supported"),
            ("redis://user:s3cret@", "the host is missing"),
            ("redis://user:s3cret@host:66666", "the port is no number"),
            ("redis://user:s3cret@host:0", "the port is no number"),
            ("redis://user:s3cret@host/abc", "the database"),
            ("redis://user:12#s3cret@host", "there is a #"),
            ("redis://user:s3cret%zz@host", "a % in user or password"),
            ("redis://user:s3cret@host/?tls=yes", "parameters"),
            ("redis://user@host", "a user without a password"),
            ("redis://[::1", "[ without a ]"),
            ("redis://[::1]x:1", "between the ]"),
        ] {
            let message = Address::read(url).err().unwrap_or_else(|| panic!("{url} is taken"));
            assert!(message.contains(wanted), "{url}: {message}");
            assert!(!message.contains("s3cret"), "{url}: {message}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_the_reading_of_a_url_panic(text in ".*", rest in "[ -~]*") {
            let _ = Address::read(&text);
            let _ = Address::read(&format!("redis://{rest}"));
        }
    }
}
