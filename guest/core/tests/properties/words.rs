//! The words of the model: what is asked, what is answered, how a circuit behaves.

/// A caller's token, or a probe's id.
pub(crate) type Who = (u64, u64);

/// How a circuit behaves.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) bears: u64,
    pub(crate) closes_after: u32,
    pub(crate) open_for: u64,
    pub(crate) clears_after: Option<u64>,
    pub(crate) lease: u64,
    pub(crate) idle: u64,
    pub(crate) rule: Option<Rule>,
}

/// Rules of the user's own, as pure functions of the counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rule {
    Never,
    Always,
    EveryThirdFailure,
    HalfOfFour,
}

impl Rule {
    pub(crate) const ALL: [Rule; 4] = [Rule::Never, Rule::Always, Rule::EveryThirdFailure, Rule::HalfOfFour];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Rule::Never => "never",
            Rule::Always => "always",
            Rule::EveryThirdFailure => "every-third-failure",
            Rule::HalfOfFour => "half-of-four",
        }
    }

    pub(crate) fn trips(self, all: u64, bad: u64) -> bool {
        match self {
            Rule::Never => false,
            Rule::Always => true,
            Rule::EveryThirdFailure => bad.is_multiple_of(3),
            Rule::HalfOfFour => all >= 4 && bad.saturating_mul(2) >= all,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    Closed,
    Open,
    HalfOpen,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Went {
    Well,
    Badly,
    Neither,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) era: u64,
    pub(crate) probe: Option<Who>,
    pub(crate) went: Went,
    pub(crate) times: u32,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Forced {
    pub(crate) open: bool,
    pub(crate) author: String,
    pub(crate) reason: String,
    pub(crate) until: Option<u64>,
}

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Ask {
    Start { who: Who },
    End { who: Who, retry_of: Option<u64>, parts: Vec<Part> },
    Renew { who: Who, era: u64, probes: Vec<Who> },
    Inspect,
    Force { who: Who, retry_of: Option<u64>, forced: Option<Forced> },
}

/// A change of state, as the caller is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) from: Phase,
    pub(crate) to: Phase,
    pub(crate) why: &'static str,
    pub(crate) at: u64,
    pub(crate) era: u64,
    pub(crate) generation: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) all: u64,
    pub(crate) good: u64,
    pub(crate) bad: u64,
    pub(crate) good_run: u64,
    pub(crate) bad_run: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Shown {
    pub(crate) phase: Phase,
    pub(crate) era: u64,
    pub(crate) generation: u64,
    pub(crate) tally: Tally,
    pub(crate) since: u64,
    pub(crate) expires: Option<u64>,
    /// Sorted by id.
    pub(crate) probes: Vec<(Who, u64)>,
    pub(crate) succeeded: u32,
    pub(crate) forced: Option<Forced>,
    pub(crate) changes: Vec<Change>,
    pub(crate) writes: u64,
}

/// What is answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Reply {
    Permit { era: u64, probe: Option<(Who, u64)>, changes: Vec<Change> },
    Refusal { why: &'static str, wait: u64, changes: Vec<Change> },
    Settled { parts: Vec<(u32, u32)>, again: bool, changes: Vec<Change> },
    Renewed(Vec<Option<u64>>),
    Shown(Box<Shown>),
    Overridden { before: Option<Forced>, again: bool },
    TooLate,
    BadRequest,
}
