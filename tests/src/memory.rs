//! A store in memory whose versions are the same in every run, and that fails on demand.

use std::collections::{HashMap, VecDeque};

use serde::Deserialize;

use crate::contract::{Entry, Loaded, Receipt, StoreError, Swapped};

/// What happens to a swap.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fault {
    /// It goes well.
    None,
    /// It is written, and its answer is lost.
    AnswerLost,
    /// It is lost, and nobody knows.
    WriteLost,
    /// The store is not there.
    Unavailable,
    /// The store refuses this client.
    Denied,
    /// Somebody else writes the same value first.
    Race,
}

/// The store of a machine.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Memory {
    /// What is stored, by circuit.
    pub entries: HashMap<String, Entry>,
    /// The store's own clock, where it tells it.
    pub clock_ms: Option<u64>,
    /// Whether loads fail.
    pub down: bool,
    /// What happens to the next swaps; after these they go well.
    pub faults: VecDeque<Fault>,
    /// How many loads there were.
    pub loads: u32,
    /// How many swaps were asked for.
    pub swaps: u32,
    /// The time to live of the last write.
    pub ttl_ms: Option<u64>,
    versions: u64,
}

impl Memory {
    /// What a load would answer; not counted, and no failure.
    pub fn loaded(&self, circuit: &str) -> Loaded {
        Loaded { entry: self.entries.get(circuit).cloned(), now_ms: self.clock_ms }
    }

    /// As in `wit/`.
    ///
    /// # Errors
    /// `unavailable` while the store is down.
    pub fn load(&mut self, circuit: &str) -> Result<Loaded, StoreError> {
        self.loads += 1;
        if self.down { Err(StoreError::Unavailable("it is down".into())) } else { Ok(self.loaded(circuit)) }
    }

    /// As in `wit/`.
    ///
    /// # Errors
    /// As the next of [`Memory::faults`] says.
    pub fn swap(
        &mut self,
        circuit: &str,
        expected: Option<&[u8]>,
        value: &[u8],
        ttl_ms: Option<u64>,
    ) -> Result<Swapped, StoreError> {
        self.swaps += 1;
        let fault = self.faults.pop_front().unwrap_or(Fault::None);
        match fault {
            Fault::WriteLost => return Err(StoreError::Unknown("no answer".into())),
            Fault::Unavailable => return Err(StoreError::Unavailable("it is down".into())),
            Fault::Denied => return Err(StoreError::Denied("no permission".into())),
            Fault::Race => {
                let same =
                    self.entries.get(circuit).map_or_else(|| value.to_vec(), |entry| entry.value.clone());
                self.put(circuit, same);
            }
            Fault::None | Fault::AnswerLost => {}
        }
        if self.entries.get(circuit).map(|entry| entry.version.as_slice()) != expected {
            return Ok(Swapped::Conflict(self.loaded(circuit)));
        }
        let version = self.put(circuit, value.to_vec());
        self.ttl_ms = ttl_ms;
        match fault {
            Fault::AnswerLost => Err(StoreError::Unknown("no answer".into())),
            _ => Ok(Swapped::Stored(Receipt { version, now_ms: self.clock_ms })),
        }
    }

    /// Writes without asking, as somebody else would.
    pub fn put(&mut self, circuit: &str, value: Vec<u8>) -> Vec<u8> {
        self.versions += 1;
        let version = self.versions.to_be_bytes().to_vec();
        self.entries.insert(circuit.into(), Entry { value, version: version.clone() });
        version
    }
}
