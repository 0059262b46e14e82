//! Classification: which [`StoreError`] an error of the SDK is, so that the caller knows what to do next.
//!
//! Invariant: no swap that may have written is told as anything but [`StoreError::Unknown`]. Requests about the table may be sent again,
//! so what they are told is what became of the last attempt.

use std::error::Error;
use std::fmt;
use std::io;

use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_dynamodb::error::{ProvideErrorMetadata, SdkError};
use circuitry_store::StoreError;

use crate::store::KEY;

/// What DynamoDB was asked for, and of which table: every message begins with it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Request<'a> {
    pub(crate) operation: Operation,
    pub(crate) table: &'a str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    Load,
    Swap,
    CreateTable,
    DescribeTable,
    DescribeTimeToLive,
    UpdateTimeToLive,
}

impl Operation {
    fn writes(self) -> bool {
        matches!(self, Self::Swap | Self::CreateTable | Self::UpdateTimeToLive)
    }

    /// The permission it needs, and DynamoDB's own name for it.
    fn action(self) -> &'static str {
        match self {
            Self::Load => "GetItem",
            Self::Swap => "PutItem",
            Self::CreateTable => "CreateTable",
            Self::DescribeTable => "DescribeTable",
            Self::DescribeTimeToLive => "DescribeTimeToLive",
            Self::UpdateTimeToLive => "UpdateTimeToLive",
        }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Load => formatter.write_str("load (GetItem)"),
            Self::Swap => formatter.write_str("swap (PutItem)"),
            other => formatter.write_str(other.action()),
        }
    }
}

/// What to do next, before it becomes a [`StoreError`] with its message and source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Remedy {
    TryAgain,
    LookFirst,
    FixAccess,
    GiveUp,
}

impl<'a> Request<'a> {
    pub(crate) fn new(operation: Operation, table: &'a str) -> Self {
        Self { operation, table }
    }

    pub(crate) fn message(self, what: impl fmt::Display) -> String {
        format!("{} on table {:?}: {what}", self.operation, self.table)
    }

    /// [`StoreError::Other`] for what the adapter itself finds wrong.
    pub(crate) fn rejected(self, what: impl fmt::Display) -> StoreError {
        StoreError::rejected(self.message(what))
    }

    /// Sorts an error of the SDK. `was_sent` says whether the request may have left this host.
    pub(crate) fn failed<E>(self, was_sent: bool, error: SdkError<E>) -> StoreError
    where
        E: ProvideErrorMetadata + Error + Send + Sync + 'static,
    {
        let (remedy, what) = match &error {
            SdkError::ServiceError(answer) => {
                let status = answer.raw().status().as_u16();
                // Without a code it is no error of DynamoDB's, but an answer that the SDK could not read.
                let code = answer.err().code().unwrap_or_default();
                let message = answer.err().message().map_or_else(|| cause(&error), str::to_owned);
                let (remedy, hint) = self.answered(status, code, &message);
                let name = if code.is_empty() { format!("HTTP status {status}") } else { code.to_owned() };
                (remedy, sentence([&name, &message, &hint]))
            }
            SdkError::ResponseError(answer) => {
                let status = answer.raw().status().as_u16();
                (
                    self.ambiguous(),
                    format!("the answer (HTTP status {status}) cannot be read: {}", cause(&error)),
                )
            }
            SdkError::TimeoutError(_) if was_sent => (self.ambiguous(), cause(&error)),
            SdkError::TimeoutError(_) => {
                let what = format!(
                    "{}, before the request was sent; are the credentials slow to come?",
                    cause(&error)
                );
                (Remedy::TryAgain, what)
            }
            _ => self.undelivered(was_sent, &error),
        };
        let message = self.message(what);
        match remedy {
            Remedy::TryAgain => StoreError::unavailable(message, error),
            Remedy::LookFirst => StoreError::unknown(message, error),
            Remedy::FixAccess => StoreError::denied(message, error),
            Remedy::GiveUp => StoreError::other(message, error),
        }
    }

    /// No answer says what became of the request.
    fn ambiguous(self) -> Remedy {
        if self.operation.writes() { Remedy::LookFirst } else { Remedy::TryAgain }
    }

    /// DynamoDB answered with an error: `code` is its name without namespace, or empty.
    fn answered(self, status: u16, code: &str, message: &str) -> (Remedy, String) {
        let retry = |hint: &str| (Remedy::TryAgain, hint.to_owned());
        match code {
            "ProvisionedThroughputExceededException"
            | "RequestLimitExceeded"
            | "Throttling"
            | "ThrottlingException"
            | "TooManyRequestsException"
            | "LimitExceededException" => retry(match self.operation {
                Operation::Load | Operation::Swap => "raise the table's capacity if this lasts",
                _ => "this account has too many tables, or too many of them are being changed",
            }),
            // Somebody else's transaction or replication holds the item, or a change of the table is under way.
            "TransactionConflictException"
            | "TransactionInProgressException"
            | "ReplicatedWriteConflictException"
            | "ResourceInUseException"
            | "InvalidEndpointException" => retry(""),
            "RequestExpired" | "RequestTimeTooSkewed" => retry(SIGNED_LATE),
            "InvalidSignatureException"
                if message.starts_with("Signature expired") || message.starts_with("Signature not yet") =>
            {
                retry(SIGNED_LATE)
            }
            "AccessDenied"
            | "AccessDeniedException"
            | "AuthFailure"
            | "ExpiredToken"
            | "ExpiredTokenException"
            | "IncompleteSignature"
            | "IncompleteSignatureException"
            | "InvalidClientTokenId"
            | "InvalidSignatureException"
            | "MissingAuthenticationToken"
            | "MissingAuthenticationTokenException"
            | "NotAuthorized"
            | "OptInRequired"
            | "SignatureDoesNotMatch"
            | "UnrecognizedClientException" => (
                Remedy::FixAccess,
                format!("check the credentials, and that they allow dynamodb:{}", self.operation.action()),
            ),
            "ResourceNotFoundException" => (
                Remedy::GiveUp,
                "create the table with `Table::create_if_missing`, or correct its name, region or endpoint"
                    .to_owned(),
            ),
            "ValidationException" if message.contains("Item size") => {
                (Remedy::GiveUp, "DynamoDB takes items of up to 400 KB; store a shorter value".to_owned())
            }
            "ValidationException" if matches!(self.operation, Operation::Load | Operation::Swap) => {
                (Remedy::GiveUp, format!("the table's only key must be {KEY:?}, a string hash key"))
            }
            _ => match status {
                429 => retry(""),
                408 => (self.ambiguous(), String::new()),
                400..500 => (Remedy::GiveUp, String::new()),
                // A server that failed may have failed after it wrote, a proxy may have given up on one that did not,
                // and an answer of success that the SDK cannot read does not say what it answers.
                _ => (self.ambiguous(), String::new()),
            },
        }
    }

    /// No answer came, and it was no timeout.
    fn undelivered<E>(self, was_sent: bool, error: &SdkError<E>) -> (Remedy, String)
    where
        E: Error + 'static,
    {
        let cause = cause(error);
        match find::<CredentialsError>(error) {
            Some(CredentialsError::CredentialsNotLoaded(_) | CredentialsError::InvalidConfiguration(_)) => {
                return (Remedy::FixAccess, format!("no credentials: {cause}"));
            }
            // The provider is there and did not answer; credentials are fetched before anything is sent.
            Some(_) => return (Remedy::TryAgain, format!("the credentials did not come: {cause}")),
            None => {}
        }
        if !was_sent && cause.starts_with("identity resolver timed out") {
            // Of a type that the SDK keeps to itself.
            return (Remedy::TryAgain, format!("the credentials did not come: {cause}"));
        }
        if !was_sent && cause.contains("auth scheme") {
            // The SDK keeps the type of this error to itself; what it says is that no credentials were set.
            return (Remedy::FixAccess, format!("the client has no credentials: {cause}"));
        }
        if !was_sent {
            return (
                Remedy::GiveUp,
                format!("the client cannot make the request, see to its configuration: {cause}"),
            );
        }
        if never_connected(error) {
            return (Remedy::TryAgain, format!("no connection: {cause}"));
        }
        (self.ambiguous(), cause)
    }
}

const SIGNED_LATE: &str = "the host's clock is wrong; the next request is signed with the server's time";

/// Whether the request failed before it had a connection to leave by.
fn never_connected(error: &(dyn Error + 'static)) -> bool {
    let by_hyper = find::<hyper_util::client::legacy::Error>(error).is_some_and(|error| error.is_connect());
    // Another HTTP client than the SDK's shows at least this.
    by_hyper || find::<io::Error>(error).is_some_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
}

/// The first error of that type among `error` and its causes.
fn find<'a, E: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a E> {
    chain(error).find_map(|error| error.downcast_ref())
}

/// What the innermost cause says: the SDK's own layers say little more than that there is one.
fn cause(error: &(dyn Error + 'static)) -> String {
    let told = chain(error).map(ToString::to_string);
    // The last word on a timeout is that one; the word before it says of what, and after how long.
    told.filter(|told| told != "timed out").last().unwrap_or_default()
}

/// `error` and its causes, outermost first.
fn chain<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |error: &&'a (dyn Error + 'static)| (*error).source())
}

/// The parts that say anything, as one sentence.
fn sentence(parts: [&str; 3]) -> String {
    let parts = parts.into_iter().map(|part| part.trim_end_matches('.')).filter(|part| !part.is_empty());
    parts.collect::<Vec<_>>().join("; ")
}
