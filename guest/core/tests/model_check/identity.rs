//! Which states of the world are the same one.
//!
//! Two states are the same where nothing that can still happen tells them apart. So three things are left out:
//!
//! * *who is who*: nodes are equal, and what is asked of a record is only whether two of them are the same. A state is a
//!   set of views, one of each node: what it holds and does, and what the record says of it. The rest is nobody's;
//! * *the past*: which calls a record remembers that nobody can repeat any more, and which transitions it notes of those;
//! * *how often* the record was written, unless so often that it begins to forget calls.
//!
//! That this leaves out nothing else is tested: a search that tells all states apart finds the same ones.

use std::hash::{Hash, Hasher};

use circuitry_core::record::{Record, Status, Token};

use crate::archive::Archive;
use crate::calls::{Ask, Call, Named, Phase, Snap, Stored};
use crate::mixing::Mixer;
use crate::world::{ECHO, NODES, PERSON, World};

/// Equal for states that are the same.
pub(crate) fn of(world: &World, archive: &Archive) -> u64 {
    let record = world.store.map(|store| archive.record(store.record));
    let seer = Seer { world, archive, record };
    let mut views: [u64; NODES] = std::array::from_fn(|slot| seer.node(slot));
    views.sort_unstable();
    let mut hasher = Mixer::default();
    views.hash(&mut hasher);
    world.left.hash(&mut hasher);
    seer.calls(PERSON, &mut hasher);
    match record {
        Some(record) => seer.record(record, &mut hasher),
        None => world.latest_era.hash(&mut hasher),
    }
    hasher.finish()
}

/// Equal for states that are the same in every detail.
pub(crate) fn in_detail(world: &World) -> u64 {
    let mut hasher = Mixer::default();
    world.hash(&mut hasher);
    hasher.finish()
}

struct Seer<'a> {
    world: &'a World,
    archive: &'a Archive,
    record: Option<&'a Record>,
}

impl Seer<'_> {
    /// Nobody's part of the record.
    fn record(&self, record: &Record, hasher: &mut Mixer) {
        let Record { era, generation, since_ms, counts, override_set, last_trip, trips_in_a_row, .. } =
            record;
        (era, generation, since_ms, counts, override_set, last_trip, trips_in_a_row).hash(hasher);
        if self.archive.config.other_settings.is_some() {
            record.in_force.hash(hasher);
        }
        match &record.status {
            Status::Closed { counts_expire_at_ms, windows, votes, ramp_since_ms } => {
                (0, counts_expire_at_ms, windows, votes.len(), ramp_since_ms).hash(hasher);
            }
            Status::Open { expires_at_ms } => (1, expires_at_ms).hash(hasher),
            Status::HalfOpen { probes, successes, failures } => {
                (2, probes.len(), successes, failures).hash(hasher);
            }
        }
        if self.archive.config.budget.storms > 0 {
            (record.revision, record.forgotten_until).hash(hasher);
        }
    }

    /// What a node holds and does, and what the record says of it and of those that it was before.
    fn node(&self, slot: usize) -> u64 {
        let mut hasher = Mixer::default();
        let node = &self.world.nodes[slot];
        (node.starts, node.held, node.votes).hash(&mut hasher);
        if let Some(known) = node.known {
            self.older(slot, known, &mut hasher);
        }
        self.calls(slot, &mut hasher);
        if let Some(record) = self.record {
            self.own(slot, record, &mut hasher);
        }
        if self.archive.config.nodes_differ() {
            slot.hash(&mut hasher);
        }
        hasher.finish()
    }

    /// What a record says of a node.
    fn own(&self, slot: usize, record: &Record, hasher: &mut Mixer) {
        match &record.status {
            Status::HalfOpen { probes, .. } => {
                for (index, probe) in probes.iter().enumerate() {
                    if let Some(age) = self.age(slot, probe.id) {
                        (index, age, probe.id.sequence, probe.deadline_ms).hash(hasher);
                    }
                }
            }
            Status::Closed { votes, .. } => {
                for (index, vote) in votes.iter().enumerate() {
                    if vote.node_id == format!("node-{slot}") {
                        (index, vote.at_ms).hash(hasher);
                    }
                }
            }
            Status::Open { .. } => {}
        }
    }

    /// An entry that may be older than the present one, as a call of a node sees it. To others their places are all alike.
    fn older(&self, slot: usize, seen: Snap, hasher: &mut Mixer) {
        let is_present = self.world.store.is_some_and(|store| store.version == seen.version);
        is_present.hash(hasher);
        if is_present {
            return;
        }
        let record = self.archive.record(seen.record);
        self.record(record, hasher);
        self.own(slot, record, hasher);
        if let Status::HalfOpen { probes, .. } = &record.status {
            probes.iter().for_each(|probe| probe.deadline_ms.hash(hasher));
        }
    }

    /// How many crashes ago the node in this place had the token's number.
    fn age(&self, slot: usize, token: Token) -> Option<u64> {
        let number = u64::from(self.world.nodes[slot].number);
        let crashes = number.checked_sub(token.node)?;
        crashes.is_multiple_of(NODES as u64).then_some(crashes)
    }

    /// The call of a caller, and what else of it is under way.
    fn calls(&self, slot: usize, hasher: &mut Mixer) {
        let is_own = |named: &Named| usize::from(named.slot) == slot;
        let echo = self.world.calls[ECHO].filter(|echo| is_own(&echo.named));
        let late = self.world.late.filter(|late| is_own(&late.named));
        for call in [self.world.calls[slot], echo] {
            call.is_some().hash(hasher);
            if let Some(call) = call {
                self.call(&call, hasher);
            }
        }
        late.is_some().hash(hasher);
        if let Some(late) = late {
            // It expects the present entry: else it could not land.
            self.named(&late.named, hasher);
            self.archive.answer(late.ruling).hash(hasher);
        }
    }

    fn call(&self, call: &Call, hasher: &mut Mixer) {
        self.named(&call.named, hasher);
        self.phase(call, hasher);
        match call.stored {
            Stored::No => 0.hash(hasher),
            Stored::At { version, ruling, .. } => {
                (1, self.archive.answer(ruling)).hash(hasher);
                if let Phase::Loaded { seen } = call.phase {
                    seen.is_some_and(|seen| seen.version >= version).hash(hasher);
                }
            }
            Stored::Lost { accepted } => (2, accepted).hash(hasher),
        }
        let retry_of = if self.archive.config.budget.storms > 0 { call.retry_of } else { None };
        (call.retry_of.is_some(), retry_of).hash(hasher);
    }

    fn phase(&self, call: &Call, hasher: &mut Mixer) {
        match call.phase {
            Phase::Ready => 0.hash(hasher),
            Phase::Loaded { seen } => {
                (1, seen.is_some()).hash(hasher);
                if let Some(seen) = seen {
                    self.older(usize::from(call.named.slot), seen, hasher);
                    self.told(&call.named, self.archive.record(seen.record), hasher);
                }
            }
            // On the present entry, at that moment.
            Phase::Writes { decided_at, .. } => (2, decided_at).hash(hasher),
        }
    }

    /// A call that may still be repeated, with all that the record can tell it.
    fn named(&self, named: &Named, hasher: &mut Mixer) {
        let token = named.token();
        (token.sequence, named.ask).hash(hasher);
        if usize::from(named.slot) < NODES {
            self.age(usize::from(named.slot), token).hash(hasher);
        }
        if let Some(record) = self.record {
            self.told(named, record, hasher);
        }
    }

    fn told(&self, named: &Named, record: &Record, hasher: &mut Mixer) {
        let token = named.token();
        if named.ask != Ask::Start
            && let Some(applied) = record.applied.find(token)
        {
            (&applied.stale, applied.cut).hash(hasher);
            if self.archive.config.budget.storms > 0 {
                // How soon it will be forgotten.
                record.applied.to_vec().iter().rev().position(|call| call.token == token).hash(hasher);
            }
        }
        for transition in record.transitions.iter().filter(|transition| transition.by == token) {
            let number = (transition.era, transition.at_ms, transition.generation);
            (number, transition.previous, transition.next, transition.reason).hash(hasher);
        }
    }
}
