//! What a search is about: the settings, where the circuit stands at the beginning, and what may happen how often.

use circuitry_core::Settings;

use crate::calls::{Deed, Offset, Went};

/// Time goes on by so much at once. The lengths in the settings are such that some end with a tick and some between two.
pub(crate) const TICK_MS: Offset = 100;

/// Where the circuit stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Beginning {
    /// Nothing is stored.
    Unknown,
    /// It has just opened.
    Tripped,
    /// It has just closed again.
    Recovered,
}

/// What may still happen, and how often.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Budget {
    /// Starts of all nodes.
    pub(crate) starts: u8,
    pub(crate) ticks: u8,
    /// Lost answers, late swaps, calls made twice.
    pub(crate) faults: u8,
    pub(crate) crashes: u8,
    /// Losses of the record.
    pub(crate) losses: u8,
    pub(crate) renewals: u8,
    pub(crate) deeds: u8,
    pub(crate) storms: u8,
}

/// A search.
#[derive(Clone)]
pub(crate) struct Config {
    pub(crate) settings: Settings,
    /// Those of the node in the last place, where it is of another deployment.
    pub(crate) other_settings: Option<Settings>,
    pub(crate) beginning: Beginning,
    pub(crate) nodes: u8,
    /// The starts of one node.
    pub(crate) starts: u8,
    /// The permits that one node holds at once: 1 or 2.
    pub(crate) held: u8,
    pub(crate) outcomes: Vec<Went>,
    /// What a person may do.
    pub(crate) deeds: Vec<Deed>,
    /// How far the clock of the node in the last place is behind.
    pub(crate) behind_ms: Offset,
    /// Whether a call may begin with the entry that its node saw last.
    pub(crate) goes_by_known: bool,
    /// Whether loads, decisions and lost races are steps of their own even where nothing comes of that.
    pub(crate) in_small_steps: bool,
    pub(crate) budget: Budget,
}

impl Config {
    /// Three nodes with a permit each; one fault, one crash and one loss.
    pub(crate) fn new(settings: Settings) -> Self {
        Self {
            settings,
            other_settings: None,
            beginning: Beginning::Unknown,
            nodes: 3,
            starts: 2,
            held: 1,
            outcomes: vec![Went::Well, Went::Badly],
            deeds: vec![],
            behind_ms: 0,
            goes_by_known: false,
            in_small_steps: false,
            budget: Budget { starts: 4, ticks: 3, faults: 1, crashes: 1, losses: 1, ..Budget::default() },
        }
    }

    /// Those of the caller in a place.
    pub(crate) fn settings_of(&self, slot: u8) -> &Settings {
        match &self.other_settings {
            Some(other) if slot + 1 == self.nodes => other,
            _ => &self.settings,
        }
    }

    /// Whether nodes can be told apart by their places.
    pub(crate) fn nodes_differ(&self) -> bool {
        self.behind_ms > 0 || self.other_settings.is_some()
    }
}
