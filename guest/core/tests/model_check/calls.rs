//! A call: what the core is asked, by whom, and how far its exchange with the store has come. All small and comparable, for
//! a search keeps many of them.

use circuitry_core::record::{Override, OverrideKind, Token};
use circuitry_core::request::Operation;
use circuitry_core::{Caller, Completion, Outcome, Request, Settings};

use crate::config::Config;

/// Times are kept as milliseconds since this one, and so are eras, which begin at a time.
pub(crate) const BEGIN_MS: u64 = 1_800_000_000_000;

/// Milliseconds since [`BEGIN_MS`].
pub(crate) type Offset = u16;

pub(crate) fn offset(at_ms: u64) -> Offset {
    Offset::try_from(at_ms - BEGIN_MS).unwrap()
}

/// What a person does.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Deed {
    /// Forces a state, for so long or until it is taken away.
    Force(OverrideKind, Option<Offset>),
    Release,
    Reset,
}

/// How work ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Went {
    Well,
    Badly,
    Neither,
}

impl Went {
    pub(crate) fn outcome(self) -> Outcome {
        match self {
            Self::Well => Outcome::Success,
            Self::Badly => Outcome::Failure,
            Self::Neither => Outcome::Ignored,
        }
    }
}

/// A permit that is settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Part {
    pub(crate) era: Offset,
    /// Which start of the node it came from.
    pub(crate) start: u8,
    pub(crate) is_probe: bool,
    pub(crate) went: Went,
}

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Ask {
    Start,
    End([Option<Part>; 2]),
    Renew {
        era: Offset,
        start: u8,
    },
    Vote {
        era: Offset,
    },
    /// The configuration's deed of this number; what ends, ends then.
    Person {
        deed: u8,
        until: Option<Offset>,
    },
}

impl Ask {
    /// Whether the record remembers the call's token once it wrote.
    pub(crate) fn is_remembered(self) -> bool {
        !matches!(self, Self::Start | Self::Renew { .. })
    }
}

/// Names a call and says what it asks. A repeated call has the same name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Named {
    /// The process.
    pub(crate) node: u8,
    /// The place of the process, which it keeps when it comes back as another one.
    pub(crate) slot: u8,
    /// The number of the start that the call is about, or of the deed.
    pub(crate) serial: u8,
    pub(crate) ask: Ask,
}

impl Named {
    /// Starts have consecutive numbers, the other calls numbers apart from those.
    pub(crate) fn token(&self) -> Token {
        let kind = match self.ask {
            Ask::Start => 0,
            Ask::End(_) => 100,
            Ask::Renew { .. } => 200,
            Ask::Vote { .. } => 300,
            Ask::Person { .. } => 400,
        };
        Token { node: self.node.into(), sequence: kind + u64::from(self.serial) }
    }

    fn start_token(&self, start: u8) -> Token {
        Token { node: self.node.into(), sequence: start.into() }
    }

    /// What is settled: equal outcomes of equal permits as one run.
    pub(crate) fn completions(&self) -> Vec<Completion> {
        let Ask::End(parts) = self.ask else { return vec![] };
        let mut completions: Vec<Completion> = vec![];
        for part in parts.into_iter().flatten() {
            let completion = Completion {
                era: BEGIN_MS + u64::from(part.era),
                probe: part.is_probe.then(|| self.start_token(part.start)),
                outcome: part.went.outcome(),
                slow: false,
                count: 1,
                retry_after_ms: None,
            };
            match completions.last_mut() {
                Some(last) if *last == completion && !part.is_probe => last.count += 1,
                _ => completions.push(completion),
            }
        }
        completions
    }

    pub(crate) fn request(&self, config: &Config, retry_of: Option<u16>) -> Request {
        let caller = Caller { token: self.token(), retry_of: retry_of.map(u64::from) };
        let operation = match self.ask {
            Ask::Start => Operation::Start(caller),
            Ask::End(_) => Operation::End(caller, self.completions()),
            Ask::Renew { era, start } => Operation::Renew {
                caller,
                era: BEGIN_MS + u64::from(era),
                probes: vec![self.start_token(start)],
            },
            Ask::Vote { era } => Operation::Vote {
                caller,
                era: BEGIN_MS + u64::from(era),
                node_id: format!("node-{}", self.slot),
            },
            Ask::Person { deed, until } => match config.deeds[usize::from(deed)] {
                Deed::Reset => Operation::Reset(caller),
                Deed::Release => Operation::SetOverride(caller, None),
                Deed::Force(kind, _) => {
                    let until_ms = until.map(|until| BEGIN_MS + u64::from(until));
                    let set = Override { kind, author: String::new(), reason: String::new(), until_ms };
                    Operation::SetOverride(caller, Some(set))
                }
            },
        };
        request(config.settings_of(self.slot), operation)
    }
}

pub(crate) fn request(settings: &Settings, operation: Operation) -> Request {
    Request { circuit: "upstream".into(), settings: settings.clone(), operation }
}

/// An entry of the store: its bytes by their number in the archive, and the version of the write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Snap {
    pub(crate) record: u32,
    pub(crate) version: u16,
}

/// Where a call is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Phase {
    /// About to load.
    Ready,
    /// About to decide on an entry, which may be old by then.
    Loaded { seen: Option<Snap> },
    /// About to swap. `ruling` is what was decided, by its number in the archive.
    Writes { expected: Option<Snap>, ruling: u32, decided_at: Offset },
}

/// What the world knows, and the caller may not: whether the call was applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Stored {
    No,
    /// By the write of this version.
    At {
        version: u16,
        ruling: u32,
        accepted: bool,
    },
    /// It was, but the record got lost since.
    Lost {
        accepted: bool,
    },
}

/// A call under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Call {
    pub(crate) named: Named,
    pub(crate) retry_of: Option<u16>,
    pub(crate) phase: Phase,
    pub(crate) stored: Stored,
}

impl Call {
    pub(crate) fn new(named: Named) -> Self {
        Self { named, retry_of: None, phase: Phase::Ready, stored: Stored::No }
    }
}

/// A swap whose caller has given up waiting. It lands later, or never.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Late {
    pub(crate) named: Named,
    pub(crate) expected: Option<Snap>,
    pub(crate) ruling: u32,
}
