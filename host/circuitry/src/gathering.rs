//! [`Gathering`]: those who want the same thing at the same time get it together.
//!
//! It is for loads in strict mode. Whoever comes alone asks for himself, in his own task. Whoever comes while somebody asks waits for a
//! *round*, which begins after he came, with all who wait by then; a task goes from round to round until nobody waits.
//!
//! Invariant: **what somebody is given was asked for after he came.** So strict stays strict.
//!
//! Invariant: nobody waits for one who asks for himself, who may not be polled.

use crate::sync::{Mutex, MutexGuard};

/// Those who wait for a round.
#[derive(Debug)]
pub(crate) struct Gathering<T> {
    state: Mutex<State<T>>,
}

#[derive(Debug)]
struct State<T> {
    waiting: Vec<T>,
    /// Somebody asks for himself.
    alone: bool,
    /// Somebody goes from round to round.
    rounds: bool,
}

/// What is to be done by whoever comes.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// Ask for yourself, and say [`Gathering::left`] when it is done.
    Alone,
    /// Wait; and see to it that somebody goes from round to round.
    Begin,
    /// Wait.
    Wait,
}

impl<T> Gathering<T> {
    pub(crate) fn new() -> Self {
        Self { state: Mutex::new(State { waiting: Vec::new(), alone: false, rounds: false }) }
    }

    /// Comes. `waiter` makes what is told when a round is over; it is asked only of who waits.
    pub(crate) fn come(&self, waiter: impl FnOnce() -> T) -> Role {
        let mut state = self.state();
        if !state.alone && !state.rounds {
            state.alone = true;
            return Role::Alone;
        }
        state.waiting.push(waiter());
        if state.rounds {
            return Role::Wait;
        }
        state.rounds = true;
        Role::Begin
    }

    /// Whoever asked for himself is done.
    pub(crate) fn left(&self) {
        self.state().alone = false;
    }

    /// Begins a round with those who wait now; with nobody the rounds are over.
    pub(crate) fn round(&self) -> Vec<T> {
        let mut state = self.state();
        let waiting = std::mem::take(&mut state.waiting);
        state.rounds = !waiting.is_empty();
        waiting
    }

    fn state(&self) -> MutexGuard<'_, State<T>> {
        // Every change under this lock is whole before anything can panic.
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}
