//! The store: for each circuit what is stored, and for each shard the line before it.

use std::rc::Rc;

use crate::rules::Stored;
use crate::scenario::StoreModel;

pub(crate) struct Shards {
    stored: Vec<Rc<Stored>>,
    /// When each shard is done with what it has, in nanoseconds.
    free_at_ns: Vec<u64>,
    /// How long a command takes a shard, in nanoseconds.
    command_ns: u64,
}

impl Shards {
    pub(crate) fn new(model: &StoreModel, circuits: u32) -> Self {
        let nothing = Rc::new(Stored::nothing());
        Self {
            stored: vec![nothing; circuits as usize],
            free_at_ns: vec![0; model.shards.max(1) as usize],
            command_ns: model.commands_per_second.map_or(0, |rate| 1_000_000_000 / rate.max(1)),
        }
    }

    /// When a command that comes now is done: after all that came before.
    pub(crate) fn serve(&mut self, circuit: u32, now_us: u64) -> u64 {
        let shard = circuit as usize % self.free_at_ns.len();
        let Some(free_at_ns) = self.free_at_ns.get_mut(shard) else { return now_us };
        *free_at_ns = (*free_at_ns).max(now_us * 1_000) + self.command_ns;
        free_at_ns.div_ceil(1_000)
    }

    pub(crate) fn load(&self, circuit: u32) -> Rc<Stored> {
        self.stored.get(circuit as usize).cloned().unwrap_or_else(|| Rc::new(Stored::nothing()))
    }

    /// Stores `new` where what is stored is still `expected`, else gives what is there.
    pub(crate) fn swap(&mut self, circuit: u32, expected: u64, new: &Rc<Stored>) -> Result<(), Rc<Stored>> {
        match self.stored.get_mut(circuit as usize) {
            Some(stored) if stored.version == expected => {
                *stored = new.clone();
                Ok(())
            }
            Some(stored) => Err(stored.clone()),
            None => Ok(()),
        }
    }

    /// All that is stored, by circuit.
    pub(crate) fn all(&self) -> impl Iterator<Item = (u32, &Stored)> {
        (0..).zip(self.stored.iter().map(|stored| &**stored))
    }
}
