//! Classification: which [`StoreError`] an error of the client or of the server is, so that the caller knows what to
//! do next.
//!
//! Invariant: nothing that may have written is told as anything but [`StoreError::Unknown`].

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use circuitry_store::StoreError;
use redis::{ErrorKind, RedisError, ServerErrorKind};

/// What went wrong with a request, by how far it came.
#[derive(Debug)]
pub(crate) enum Trouble {
    /// There was no connection to send it on.
    NoConnection(RedisError),
    /// There was none in time.
    NoTimeToConnect,
    /// It was sent; this is the server's error, or the connection failed.
    Answer(RedisError),
    /// It was sent, and the time is over.
    NoAnswer,
}

impl Trouble {
    /// What a failed read means to the write that was to follow it: it was not sent.
    pub(crate) fn before_the_write(self) -> Self {
        match self {
            Self::Answer(error) if server_code(&error).is_none() => Self::NoConnection(error),
            Self::NoAnswer => Self::NoTimeToConnect,
            other => other,
        }
    }
}

/// What the store does with a key: every message begins with it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Task<'a> {
    pub(crate) operation: Operation,
    pub(crate) key: &'a str,
    pub(crate) place: &'a str,
    pub(crate) limit: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    Load,
    Swap,
    Announce,
}

/// What to do next, before it becomes a [`StoreError`] with its message and source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Remedy {
    TryAgain,
    LookFirst,
    FixAccess,
    GiveUp,
}

impl fmt::Display for Task<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let operation = match self.operation {
            Operation::Load => "load",
            Operation::Swap => "swap",
            Operation::Announce => "announcement",
        };
        write!(formatter, "{operation} of the key {} at {}", Shown(self.key), self.place)
    }
}

/// A key as a message shows it: escaped, and not longer than a line.
struct Shown<'a>(&'a str);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        const AT_MOST: usize = 100;
        match self.0.char_indices().nth(AT_MOST) {
            None => write!(formatter, "{:?}", self.0),
            Some((end, _)) => write!(formatter, "{:?}… ({} bytes)", &self.0[..end], self.0.len()),
        }
    }
}

impl Task<'_> {
    /// The error of the store.
    pub(crate) fn failed(self, trouble: Trouble) -> StoreError {
        let limit = self.limit;
        match trouble {
            Trouble::NoConnection(error) => {
                self.told(remedy_without_connection(&error), "there is no connection", error)
            }
            Trouble::NoTimeToConnect => StoreError::Unavailable {
                message: format!("{self}: there was no working connection within {limit:?}"),
                source: None,
            },
            Trouble::Answer(error) => {
                let remedy = remedy_for_answer(&error);
                self.told(remedy, what(remedy), error)
            }
            Trouble::NoAnswer => match self.operation {
                Operation::Load | Operation::Announce => StoreError::Unavailable {
                    message: format!("{self}: there was no answer within {limit:?}"),
                    source: None,
                },
                Operation::Swap => StoreError::Unknown {
                    message: format!("{self}: it was sent, and there was no answer within {limit:?}"),
                    source: None,
                },
            },
        }
    }

    fn told(self, remedy: Remedy, what: &str, error: RedisError) -> StoreError {
        let message = format!("{self}: {what}: {error}");
        match (remedy, self.operation) {
            (Remedy::TryAgain, _) | (Remedy::LookFirst, Operation::Load | Operation::Announce) => {
                StoreError::unavailable(message, error)
            }
            (Remedy::LookFirst, Operation::Swap) => StoreError::unknown(message, error),
            (Remedy::FixAccess, _) => StoreError::denied(message, error),
            (Remedy::GiveUp, _) => StoreError::other(message, error),
        }
    }

    /// The key holds `found`, which we have not written.
    pub(crate) fn foreign(self, found: &str) -> StoreError {
        StoreError::rejected(format!(
            "{self}: the key holds {found}, which is no entry of a circuit; nothing was changed. Delete or rename the \
             key, or give the store a prefix that nobody else uses"
        ))
    }

    /// The answer is not of the form that was asked for.
    pub(crate) fn misread(self, answer: &impl fmt::Debug) -> StoreError {
        let mut answer = format!("{answer:?}");
        answer.truncate(answer.char_indices().nth(200).map_or(answer.len(), |(end, _)| end));
        let message = format!("{self}: the answer is not one of Redis to this request: {answer}");
        match self.operation {
            Operation::Load | Operation::Announce => StoreError::rejected(message),
            // Whoever answers so may have done anything.
            Operation::Swap => StoreError::Unknown { message, source: None },
        }
    }
}

/// The error of a connection that is made before there is any operation.
pub(crate) fn failed_to_connect(place: &str, error: RedisError) -> StoreError {
    let message = format!("connect to {place}: {error}");
    match remedy_without_connection(&error) {
        Remedy::TryAgain | Remedy::LookFirst => StoreError::unavailable(message, error),
        Remedy::FixAccess => StoreError::denied(message, error),
        Remedy::GiveUp => StoreError::other(message, error),
    }
}

/// The code that a server's error begins with, also where it is one of several answers.
pub(crate) fn server_code(error: &RedisError) -> Option<String> {
    let errors = error.clone().into_server_errors()?;
    errors.first().map(|(_, error)| error.code().to_owned())
}

fn what(remedy: Remedy) -> &'static str {
    match remedy {
        Remedy::TryAgain => "the server does not take it now",
        Remedy::LookFirst => "the answer is lost",
        Remedy::FixAccess => "the server does not let this user do it (the README lists the permissions)",
        Remedy::GiveUp => "the server refuses it",
    }
}

/// Whatever is no error of the server's own leaves it open what the server has done.
fn remedy_for_answer(error: &RedisError) -> Remedy {
    server_code(error).map_or(Remedy::LookFirst, |code| remedy_for_code(&code, error))
}

/// Nothing was sent, so there is nothing to look for.
fn remedy_without_connection(error: &RedisError) -> Remedy {
    if let Some(code) = server_code(error) {
        return remedy_for_code(&code, error);
    }
    match error.kind() {
        ErrorKind::AuthenticationFailed => Remedy::FixAccess,
        ErrorKind::Io => remedy_for_io(error),
        // Nodes and masters that are all down pass; a master's name that nobody knows is in the message.
        ErrorKind::ClusterConnectionNotFound | ErrorKind::MasterNameNotFoundBySentinel => Remedy::TryAgain,
        _ => Remedy::GiveUp,
    }
}

/// A server's error is the proof that the request was not carried out: the script checks before it writes.
fn remedy_for_code(code: &str, error: &RedisError) -> Remedy {
    match code {
        "NOPERM" | "NOAUTH" | "WRONGPASS" => Remedy::FixAccess,
        // A user may run the script, but not a command in it; before Redis 7 that has no code of its own.
        "ERR"
            if error
                .detail()
                .is_some_and(|detail| detail.contains("The user executing the script can't")) =>
        {
            Remedy::FixAccess
        }
        // Not ready, not the master, not in this state of the cluster, out of memory or of disk, too few replicas,
        // busy with somebody's script: all of them pass.
        "LOADING" | "READONLY" | "MASTERDOWN" | "CLUSTERDOWN" | "TRYAGAIN" | "MOVED" | "ASK" | "OOM"
        | "MISCONF" | "NOREPLICAS" | "BUSY" | "NOSCRIPT" | "UNBLOCKED" => Remedy::TryAgain,
        "ERR" if error.detail().is_some_and(|detail| detail.contains("max number of clients reached")) => {
            Remedy::TryAgain
        }
        _ => Remedy::GiveUp,
    }
}

fn remedy_for_io(error: &RedisError) -> Remedy {
    match io_cause(error).map(io::Error::kind) {
        // A certificate that is not accepted, or a server that does not speak TLS.
        Some(io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported) => {
            Remedy::GiveUp
        }
        Some(_) => Remedy::TryAgain,
        // The cluster client puts the error of a node into a text.
        None if is_about_access(error) => Remedy::FixAccess,
        None => Remedy::TryAgain,
    }
}

/// The client keeps the cause behind a shared pointer, which is a cause of its own to whoever asks for it.
fn io_cause(error: &RedisError) -> Option<&io::Error> {
    let cause = std::error::Error::source(error)?;
    let shared = cause.downcast_ref::<Arc<dyn std::error::Error + Send + Sync>>();
    shared.map_or_else(|| cause.downcast_ref(), |shared| shared.downcast_ref())
}

fn is_about_access(error: &RedisError) -> bool {
    let marks = ["AuthenticationFailed", "WRONGPASS", "NOAUTH", "NoPerm"];
    error.detail().is_some_and(|text| marks.iter().any(|mark| text.contains(mark)))
}

/// Whether the server does not let this user do what was asked, or not in at all.
pub(crate) fn is_denied(error: &RedisError) -> bool {
    remedy_without_connection(error) == Remedy::FixAccess
}

/// Whether the server does not know the command, which it then has not run.
#[cfg(feature = "cluster")]
pub(crate) fn is_unknown_command(error: &RedisError) -> bool {
    server_code(error).as_deref() == Some("ERR")
        && error.detail().is_some_and(|detail| detail.contains("unknown command"))
}

/// Whether the server does not know the script, which it then has not run.
pub(crate) fn is_unknown_script(trouble: &Trouble) -> bool {
    matches!(trouble, Trouble::Answer(error) if error.kind() == ErrorKind::Server(ServerErrorKind::NoScript))
}

/// Whether the key holds another type than a hash.
pub(crate) fn is_wrong_type(trouble: &Trouble) -> bool {
    matches!(trouble, Trouble::Answer(error) if server_code(error).as_deref() == Some("WRONGTYPE"))
}
