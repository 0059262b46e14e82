//! What the core is asked, and what its store answers.

use circuitry_core::request::Operation;
use circuitry_core::{exchange as stored, record, request};

use super::{all, same_cases};
use crate::contract;

same_cases! {
    contract::Outcome => request::Outcome { Success, Failure, Ignored }
    contract::OverrideKind => record::OverrideKind { ForcedOpen, ForcedClosed, Disabled, MetricsOnly }
}

impl From<contract::Loaded> for stored::Loaded {
    fn from(loaded: contract::Loaded) -> Self {
        let entry = loaded.entry.map(|entry| stored::Entry { value: entry.value, version: entry.version });
        Self { entry, now_ms: loaded.now_ms }
    }
}

impl From<contract::Swapped> for stored::Swapped {
    fn from(swapped: contract::Swapped) -> Self {
        match swapped {
            contract::Swapped::Stored(receipt) => {
                Self::Stored { version: receipt.version, now_ms: receipt.now_ms }
            }
            contract::Swapped::Conflict(loaded) => Self::Conflict(loaded.into()),
        }
    }
}

impl From<contract::StoreError> for stored::StoreError {
    fn from(error: contract::StoreError) -> Self {
        match error {
            contract::StoreError::Unavailable(text) => Self::Unavailable(text),
            contract::StoreError::Unknown(text) => Self::Unknown(text),
            contract::StoreError::Denied(text) => Self::Denied(text),
            contract::StoreError::Other(text) => Self::Other(text),
        }
    }
}

impl From<contract::Token> for record::Token {
    fn from(token: contract::Token) -> Self {
        Self { node: token.node, sequence: token.sequence }
    }
}

impl From<contract::Caller> for request::Caller {
    fn from(caller: contract::Caller) -> Self {
        let token = record::Token { node: caller.node, sequence: caller.sequence };
        Self { token, retry_of: caller.retry_of }
    }
}

impl From<contract::Override> for record::Override {
    fn from(wanted: contract::Override) -> Self {
        Self {
            kind: wanted.kind.into(),
            author: wanted.author,
            reason: wanted.reason,
            until_ms: wanted.until_ms,
        }
    }
}

impl From<contract::Completion> for request::Completion {
    fn from(completion: contract::Completion) -> Self {
        Self {
            era: completion.era,
            probe: completion.probe.map(Into::into),
            outcome: completion.outcome.into(),
            slow: completion.slow,
            count: completion.count,
            retry_after_ms: completion.retry_after_ms,
        }
    }
}

impl From<contract::Request> for request::Request {
    fn from(request: contract::Request) -> Self {
        let (circuit, settings, operation): (String, contract::Settings, Operation) = match request {
            contract::Request::Start(start) => {
                (start.circuit, start.settings, Operation::Start(start.caller.into()))
            }
            contract::Request::End(end) => {
                (end.circuit, end.settings, Operation::End(end.caller.into(), all(end.completions)))
            }
            contract::Request::Renew(renew) => {
                let (caller, probes) = (renew.caller.into(), all(renew.probes));
                (renew.circuit, renew.settings, Operation::Renew { caller, era: renew.era, probes })
            }
            contract::Request::Inspect(inspect) => (inspect.circuit, inspect.settings, Operation::Inspect),
            contract::Request::SetOverride(set) => {
                let wanted = set.override_.map(Into::into);
                (set.circuit, set.settings, Operation::SetOverride(set.caller.into(), wanted))
            }
            contract::Request::Vote(vote) => {
                let caller = vote.caller.into();
                let operation = Operation::Vote { caller, era: vote.era, node_id: vote.node_id };
                (vote.circuit, vote.settings, operation)
            }
            contract::Request::Reset(reset) => {
                (reset.circuit, reset.settings, Operation::Reset(reset.caller.into()))
            }
        };
        Self { circuit, settings: settings.into(), operation }
    }
}
