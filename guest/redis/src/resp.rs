//! The protocol of Redis, version 2: commands to bytes, bytes to replies.
//!
//! By hand, because whatever answers may be no Redis: every length is checked against a limit before anything is allocated
//! for it, and nesting is limited, so that no answer exhausts the memory or the stack of the component. The crates that
//! there are go down by recursion without a limit.

use alloc::vec::Vec;

/// The most bytes of all replies to one message. A record has at most 4 kB.
pub(crate) const REPLY_BYTES_MAX: usize = 1 << 20;
/// Status, error and number lines.
const LINE_MAX: usize = 4_096;
/// The script's longest answer has four parts.
const ARRAY_MAX: usize = 64;
const DEPTH_MAX: usize = 3;

/// What a server says to one command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Reply {
    Simple(Vec<u8>),
    Error(Vec<u8>),
    Int(i64),
    Bulk(Vec<u8>),
    Nil,
    Array(Vec<Reply>),
}

/// The bytes are no reply, or one over the limits. The text says what is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Malformed(pub(crate) &'static str);

/// Appends a command to a message.
pub(crate) fn push_command(message: &mut Vec<u8>, arguments: &[&[u8]]) {
    push_number(message, b'*', arguments.len());
    for argument in arguments {
        push_number(message, b'$', argument.len());
        message.extend_from_slice(argument);
        message.extend_from_slice(b"\r\n");
    }
}

fn push_number(message: &mut Vec<u8>, kind: u8, number: usize) {
    message.push(kind);
    message.extend_from_slice(alloc::format!("{number}\r\n").as_bytes());
}

/// Reads one reply from the beginning of `bytes`, and how many bytes it has; `None` when there are more to come.
pub(crate) fn read(bytes: &[u8]) -> Result<Option<(Reply, usize)>, Malformed> {
    let mut reader = Reader { bytes, at: 0 };
    match reader.reply(DEPTH_MAX) {
        Ok(reply) => Ok(Some((reply, reader.at))),
        Err(Stop::More) => Ok(None),
        Err(Stop::Malformed(what)) => Err(Malformed(what)),
    }
}

enum Stop {
    More,
    Malformed(&'static str),
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn reply(&mut self, depth: usize) -> Result<Reply, Stop> {
        let line = self.line()?;
        let (kind, text) = line.split_first().ok_or(Stop::Malformed("an empty line"))?;
        match kind {
            b'+' => Ok(Reply::Simple(text.to_vec())),
            b'-' => Ok(Reply::Error(text.to_vec())),
            b':' => Ok(Reply::Int(number(text)?)),
            b'$' => match number(text)? {
                -1 => Ok(Reply::Nil),
                length => self.bulk(size(length, REPLY_BYTES_MAX)?),
            },
            b'*' => match number(text)? {
                -1 => Ok(Reply::Nil),
                length => {
                    let length = size(length, ARRAY_MAX)?;
                    let depth = depth.checked_sub(1).ok_or(Stop::Malformed("arrays in too many arrays"))?;
                    (0..length).map(|_| self.reply(depth)).collect::<Result<_, _>>().map(Reply::Array)
                }
            },
            _ => Err(Stop::Malformed("a line of no kind that the protocol has")),
        }
    }

    /// What stands before the next end of a line.
    fn line(&mut self) -> Result<&'a [u8], Stop> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let Some(end) = rest.iter().take(LINE_MAX).position(|byte| *byte == b'\r') else {
            return Err(if rest.len() < LINE_MAX {
                Stop::More
            } else {
                Stop::Malformed("a line without an end")
            });
        };
        let (line, tail) = rest.split_at_checked(end).unwrap_or_default();
        self.end_of_line(tail)?;
        self.at = self.at.saturating_add(end).saturating_add(2);
        Ok(line)
    }

    fn bulk(&mut self, length: usize) -> Result<Reply, Stop> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let (bulk, tail) = rest.split_at_checked(length).ok_or(Stop::More)?;
        self.end_of_line(tail)?;
        self.at = self.at.saturating_add(length).saturating_add(2);
        Ok(Reply::Bulk(bulk.to_vec()))
    }

    fn end_of_line(&self, tail: &[u8]) -> Result<(), Stop> {
        match tail {
            [b'\r', b'\n', ..] => Ok(()),
            [] | [b'\r'] => Err(Stop::More),
            _ => Err(Stop::Malformed("a reply that does not end where it says")),
        }
    }
}

fn number(text: &[u8]) -> Result<i64, Stop> {
    let text = core::str::from_utf8(text).map_err(|_| Stop::Malformed("a number that is none"))?;
    text.parse().map_err(|_| Stop::Malformed("a number that is none"))
}

fn size(length: i64, most: usize) -> Result<usize, Stop> {
    match usize::try_from(length) {
        Ok(length) if length <= most => Ok(length),
        Ok(_) => Err(Stop::Malformed("a reply larger than any of ours")),
        Err(_) => Err(Stop::Malformed("a length below zero")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;
    use proptest::prelude::*;

    fn bulk(text: &str) -> Reply {
        Reply::Bulk(text.into())
    }

    #[test]
    fn a_command_is_an_array_of_its_arguments_whatever_bytes_they_have() {
        let mut message = Vec::new();
        push_command(&mut message, &[b"GET", b"a\r\nb\0"]);
        assert_eq!(message, b"*2\r\n$3\r\nGET\r\n$5\r\na\r\nb\0\r\n");
    }

    #[test]
    fn replies_of_each_kind_are_read_and_what_follows_is_left() {
        for (bytes, reply) in [
            (&b"+OK\r\n"[..], Reply::Simple(b"OK".to_vec())),
            (b"-ERR no\r\n", Reply::Error(b"ERR no".to_vec())),
            (b":-7\r\n", Reply::Int(-7)),
            (b"$3\r\na\r\n\r\n", bulk("a\r\n")),
            (b"$0\r\n\r\n", bulk("")),
            (b"$-1\r\n", Reply::Nil),
            (b"*-1\r\n", Reply::Nil),
            (b"*2\r\n$1\r\nv\r\n*0\r\n", Reply::Array(vec![bulk("v"), Reply::Array(vec![])])),
        ] {
            assert_eq!(read(bytes), Ok(Some((reply.clone(), bytes.len()))));
            assert_eq!(read(&[bytes, b"+more\r\n"].concat()), Ok(Some((reply, bytes.len()))));
            for end in 0..bytes.len() {
                assert_eq!(read(&bytes[..end]), Ok(None), "{end} of {bytes:?}");
            }
        }
    }

    #[test]
    fn what_is_over_the_limits_is_refused_before_it_has_come() {
        let long = [b"+".as_slice(), &[b'a'; LINE_MAX]].concat();
        for bytes in [
            &b"$1048577\r\n"[..],
            b"*65\r\n",
            b"*1\r\n*1\r\n*1\r\n*1\r\n",
            b"$-2\r\n",
            b"$9999999999999999999\r\n",
            b"HTTP/1.1 400 Bad Request\r\n",
            b"\r\n",
            b"+OK\rx",
            b"$1\r\nabc",
            &long,
        ] {
            assert!(read(bytes).is_err(), "{:?}", String::from_utf8_lossy(bytes));
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_reading_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = read(&bytes);
        }

        #[test]
        fn what_was_read_has_the_size_that_is_told(
            bytes in proptest::collection::vec(prop::sample::select(b"*$:+-0123\r\n".to_vec()), 0..60)
        ) {
            if let Ok(Some((reply, size))) = read(&bytes) {
                prop_assert!(size <= bytes.len());
                prop_assert_eq!(read(&bytes[..size]), Ok(Some((reply, size))));
            }
        }
    }
}
