//! What the server answers, read strictly: an answer of another form is not taken for one of ours. And what an error is to
//! whoever asked, as in the host's adapter.

use alloc::vec::Vec;

use crate::resp::Reply;

/// What is stored for a circuit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) value: Vec<u8>,
    pub(crate) version: Vec<u8>,
}

/// What the script answers.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Ruling {
    Stored { now_ms: u64 },
    Conflict { entry: Option<Entry>, now_ms: u64 },
    Foreign,
}

/// Why an answer to HMGET is no entry.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Misfit {
    /// One of the fields is there without the other.
    Foreign,
    Unreadable,
}

/// What to do about a server's error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Remedy {
    TryAgain,
    FixAccess,
    LeaveCluster,
    GiveUp,
}

pub(crate) fn entry_in(fields: Reply) -> Result<Option<Entry>, Misfit> {
    let Reply::Array(fields) = fields else { return Err(Misfit::Unreadable) };
    match <[Reply; 2]>::try_from(fields) {
        Ok([Reply::Bulk(version), Reply::Bulk(value)]) => Ok(Some(Entry { value, version })),
        Ok([Reply::Nil, Reply::Nil]) => Ok(None),
        Ok([Reply::Nil, Reply::Bulk(_)] | [Reply::Bulk(_), Reply::Nil]) => Err(Misfit::Foreign),
        _ => Err(Misfit::Unreadable),
    }
}

/// TIME answers seconds and, as their fraction, microseconds.
pub(crate) fn time_in(answer: &Reply) -> Option<u64> {
    let Reply::Array(parts) = answer else { return None };
    let [Reply::Bulk(seconds), Reply::Bulk(microseconds)] = parts.as_slice() else { return None };
    let number = |text: &[u8]| core::str::from_utf8(text).ok()?.parse::<u64>().ok();
    let milliseconds = number(microseconds)?.checked_div(1_000)?;
    number(seconds)?.checked_mul(1_000)?.checked_add(milliseconds)
}

pub(crate) fn ruling_in(answer: Reply) -> Option<Ruling> {
    let Reply::Array(parts) = answer else { return None };
    let mut parts = parts.into_iter();
    let (Some(Reply::Int(ruling)), Some(Reply::Int(now_ms))) = (parts.next(), parts.next()) else {
        return None;
    };
    let now_ms = u64::try_from(now_ms).ok()?;
    match (ruling, parts.next(), parts.next(), parts.next()) {
        (1, None, None, None) => Some(Ruling::Stored { now_ms }),
        (0, None, None, None) => Some(Ruling::Conflict { entry: None, now_ms }),
        (0, Some(Reply::Bulk(version)), Some(Reply::Bulk(value)), None) => {
            Some(Ruling::Conflict { entry: Some(Entry { value, version }), now_ms })
        }
        (2, None, None, None) => Some(Ruling::Foreign),
        _ => None,
    }
}

/// The word that a server's error begins with.
pub(crate) fn code(error: &[u8]) -> &[u8] {
    error.split(|byte| *byte == b' ').next().unwrap_or_default()
}

/// A server's error is the proof that the request was not carried out: the script checks before it writes.
pub(crate) fn remedy(error: &[u8]) -> Remedy {
    match code(error) {
        b"NOPERM" | b"NOAUTH" | b"WRONGPASS" => Remedy::FixAccess,
        // A user may run the script, but not a command in it; before Redis 7 that has no code of its own.
        b"ERR" if contains(error, b"The user executing the script can't") => Remedy::FixAccess,
        // Not ready, not the master, not in this state of the cluster, out of memory or of disk, too few replicas,
        // busy with somebody's script: all of them pass.
        b"LOADING" | b"READONLY" | b"MASTERDOWN" | b"CLUSTERDOWN" | b"TRYAGAIN" | b"OOM" | b"MISCONF"
        | b"NOREPLICAS" | b"BUSY" | b"NOSCRIPT" | b"UNBLOCKED" => Remedy::TryAgain,
        // The circuit is on another node, and stays there.
        b"MOVED" | b"ASK" => Remedy::LeaveCluster,
        b"ERR" if contains(error, b"max number of clients reached") => Remedy::TryAgain,
        _ => Remedy::GiveUp,
    }
}

/// Whether the server will say so to whatever comes over this connection: it has become a replica, or knows us no more.
/// The address, or a new login, may lead further.
pub(crate) fn is_of_the_connection(error: &[u8]) -> bool {
    matches!(code(error), b"READONLY" | b"MASTERDOWN" | b"NOAUTH" | b"WRONGPASS")
}

/// What a server's error to a login begins with, if servers have it: whatever else stands there may be the password.
pub(crate) fn known_code(error: &[u8]) -> &'static str {
    const KNOWN: [&str; 12] = [
        "WRONGPASS",
        "NOAUTH",
        "NOPERM",
        "DENIED Redis is running in protected mode",
        "DENIED",
        "LOADING",
        "MASTERDOWN",
        "BUSY",
        "MISCONF",
        "ERR max number of clients reached",
        "ERR AUTH <password> called without any password configured",
        "ERR",
    ];
    let begins = |known: &&str| {
        let rest = error.strip_prefix(known.as_bytes());
        rest.is_some_and(|rest| rest.first().is_none_or(|next| !next.is_ascii_alphanumeric()))
    };
    KNOWN.into_iter().find(begins).unwrap_or("an error that is not known")
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    fn bulk(text: &str) -> Reply {
        Reply::Bulk(text.into())
    }

    #[test]
    fn an_answer_of_another_form_is_not_taken_for_one_of_ours() {
        let int = Reply::Int;
        for answer in [
            Reply::Simple(b"OK".to_vec()),
            Reply::Array(vec![]),
            Reply::Array(vec![int(1)]),
            Reply::Array(vec![int(3), int(5)]),
            Reply::Array(vec![int(1), int(-5)]),
            Reply::Array(vec![int(1), int(5), bulk("more")]),
            Reply::Array(vec![int(0), int(5), bulk("version")]),
            Reply::Array(vec![int(0), int(5), bulk("version"), Reply::Nil]),
            Reply::Array(vec![int(0), int(5), bulk("version"), bulk("value"), Reply::Nil]),
        ] {
            assert_eq!(ruling_in(answer.clone()), None, "{answer:?}");
        }
        assert_eq!(ruling_in(Reply::Array(vec![int(1), int(5)])), Some(Ruling::Stored { now_ms: 5 }));
        assert_eq!(ruling_in(Reply::Array(vec![int(2), int(5)])), Some(Ruling::Foreign));
        let entry = Entry { version: b"version".to_vec(), value: b"value".to_vec() };
        assert_eq!(
            ruling_in(Reply::Array(vec![int(0), int(5), bulk("version"), bulk("value")])),
            Some(Ruling::Conflict { entry: Some(entry), now_ms: 5 })
        );
    }

    #[test]
    fn a_hash_with_one_of_the_fields_is_no_entry() {
        let fields = |version, value| entry_in(Reply::Array(vec![version, value]));
        assert_eq!(fields(Reply::Nil, Reply::Nil), Ok(None));
        assert_eq!(fields(bulk("1"), Reply::Nil), Err(Misfit::Foreign));
        assert_eq!(fields(Reply::Nil, bulk("1")), Err(Misfit::Foreign));
        assert_eq!(fields(Reply::Int(1), bulk("1")), Err(Misfit::Unreadable));
        assert_eq!(entry_in(Reply::Nil), Err(Misfit::Unreadable));
        assert!(matches!(fields(bulk("1"), bulk("2")), Ok(Some(entry)) if entry.value == b"2"));
    }

    #[test]
    fn a_time_is_told_in_milliseconds() {
        let time = |seconds, microseconds| time_in(&Reply::Array(vec![bulk(seconds), bulk(microseconds)]));
        assert_eq!(time("1700000000", "999999"), Some(1_700_000_000_999));
        assert_eq!(time("1700000000", "999"), Some(1_700_000_000_000));
        assert_eq!(time("18446744073709551615", "0"), None);
        assert_eq!(time("-1", "0"), None);
        assert_eq!(time_in(&Reply::Nil), None);
    }

    #[test]
    fn of_an_error_to_a_login_only_a_code_that_servers_have_is_shown() {
        for (error, shown) in [
            ("WRONGPASS invalid username-password pair", "WRONGPASS"),
            ("ERR max number of clients reached", "ERR max number of clients reached"),
            ("ERR unknown command 'AUTH', with args beginning with: 's3cret' ", "ERR"),
            ("ERR", "ERR"),
            ("s3cret", "an error that is not known"),
            ("ERRs3cret", "an error that is not known"),
            ("", "an error that is not known"),
        ] {
            assert_eq!(known_code(error.as_bytes()), shown, "{error}");
        }
    }

    #[test]
    fn errors_are_told_apart_by_what_to_do_about_them() {
        for (error, wanted) in [
            ("NOPERM this user has no permissions to run the 'hset' command", Remedy::FixAccess),
            ("ERR The user executing the script can't run this command or subcommand", Remedy::FixAccess),
            ("LOADING Redis is loading the dataset in memory", Remedy::TryAgain),
            ("OOM command not allowed when used memory > 'maxmemory'.", Remedy::TryAgain),
            ("ERR max number of clients reached", Remedy::TryAgain),
            ("MOVED 3999 127.0.0.1:6381", Remedy::LeaveCluster),
            ("ASK 3999 127.0.0.1:6381", Remedy::LeaveCluster),
            ("CLUSTERDOWN Hash slot not served", Remedy::TryAgain),
            ("ERR unknown command 'EVALSHA'", Remedy::GiveUp),
            ("ERR DB index is out of range", Remedy::GiveUp),
            ("WRONGTYPE Operation against a key holding the wrong kind of value", Remedy::GiveUp),
            ("", Remedy::GiveUp),
        ] {
            assert_eq!(remedy(error.as_bytes()), wanted, "{error}");
        }
    }
}
