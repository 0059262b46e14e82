//! [`Exchange`]: one call on the shared record, from its load to its last try.

use std::sync::Arc;
use std::time::Duration;

use circuitry_store::{Clock, Loaded, StoreError};
use tokio::time::sleep;

use crate::call::{Answer, Completion, Failure, Operation, Problem, Token};
use crate::circuit::{AsOf, Circuit, Turn};
use crate::loading;
use crate::node::Node;
use crate::outcome::Outcome;
use crate::runtime::Answered;
use crate::runtime::asking::{Deadline, Trouble};

/// How often a call asks a store that fails, within its timeout.
const TRIES_MAX: u32 = 3;

/// One call on the shared record, which may be tried several times under the same token.
#[derive(Debug)]
pub(crate) struct Exchange {
    pub(crate) circuit: Arc<Circuit>,
    operation: Operation,
    token: Token,
    known: Option<Loaded>,
    /// The lowest revision that a swap was based on whose fate is unknown.
    retry_of: Option<u64>,
    /// When the try that is under way began.
    as_of: AsOf,
    /// Its outcomes are those that the view has let fly.
    is_flush: bool,
}

impl Exchange {
    pub(crate) fn new(
        node: &Node,
        circuit: &Arc<Circuit>,
        operation: Operation,
        known: Option<Loaded>,
    ) -> Self {
        let token = node.token(&operation);
        let as_of = AsOf { ms: 0, doubts: 0 };
        Self { circuit: circuit.clone(), operation, token, known, retry_of: None, as_of, is_flush: false }
    }

    /// The flush of outcomes that the view has let fly.
    pub(crate) fn flush(
        node: &Node,
        circuit: &Arc<Circuit>,
        batch: Vec<Completion>,
        known: Option<Loaded>,
    ) -> Self {
        Self { is_flush: true, ..Self::new(node, circuit, Operation::End(batch), known) }
    }

    /// How many outcomes it carries.
    pub(crate) fn outcomes(&self) -> u64 {
        match &self.operation {
            Operation::End(completions) => {
                completions.iter().map(|completion| u64::from(completion.count)).sum()
            }
            _ => 0,
        }
    }

    /// Whether it may have written although no answer said so.
    pub(crate) fn may_have_written(&self) -> bool {
        self.retry_of.is_some()
    }

    /// Runs the call; tries again within `within` after lost races and failures that may pass. In bounded mode it waits for the
    /// circuit's turn first, and is to be run in a task.
    ///
    /// May be run again after an error: it is the same call, and is applied once.
    pub(crate) async fn run(&mut self, node: &Node, deadline: Deadline) -> Result<Answer, Failure> {
        if node.bounded.is_none() {
            return self.run_here(node, deadline).await;
        }
        let circuit = self.circuit.clone();
        let turn = circuit.turn(deadline).await;
        let turn = turn.map_err(|problem| Failure { problem, last_seen: None, revision: None })?;
        self.run_in_turn(node, &turn, deadline).await
    }

    /// The same for who has the turn.
    pub(crate) async fn run_in_turn(
        &mut self,
        node: &Node,
        _turn: &Turn<'_>,
        deadline: Deadline,
    ) -> Result<Answer, Failure> {
        self.run_here(node, deadline).await
    }

    async fn run_here(&mut self, node: &Node, deadline: Deadline) -> Result<Answer, Failure> {
        let mut tries = 0;
        loop {
            let failure = match self.attempt(node, deadline).await {
                Ok(answered) => {
                    Self::learn(node, &answered.seen);
                    if self.is_flush && matches!(answered.answer, Answer::Settled { .. }) {
                        self.circuit.saw_settled(answered.seen, self.as_of);
                    } else {
                        self.circuit.saw(answered.seen, self.as_of);
                    }
                    node.tell_watchers(&self.circuit, &answered.answer);
                    return Ok(answered.answer);
                }
                Err(failure) => failure,
            };
            self.known = failure.last_seen.clone();
            // In bounded mode what is shown has more in it, and what it lacks is found out by the next who looks.
            if let Some(seen) = failure.last_seen.clone().filter(|_| node.bounded.is_none()) {
                // What it told of the time may be old by now.
                self.saw(node, Loaded { now_ms: None, ..seen });
            }
            if let Some(revision) = failure.revision {
                self.retry_of = Some(self.retry_of.map_or(revision, |first| first.min(revision)));
            }
            tries += 1;
            let pause = match &failure.problem {
                Problem::Contention => Duration::from_micros(fastrand::u64(500..8_000)),
                Problem::Store(StoreError::Unavailable { .. } | StoreError::Unknown { .. })
                    if tries < TRIES_MAX =>
                {
                    // What was seen before the failure may be old: begin with a load.
                    self.known = None;
                    // The token is remembered for 32 writes of others only, so a lost answer is asked for at once.
                    let at_once =
                        tries == 1 && matches!(failure.problem, Problem::Store(StoreError::Unknown { .. }));
                    Duration::from_micros(if at_once { 0 } else { fastrand::u64(2_000..10_000) << tries })
                }
                _ => return Err(failure),
            };
            if pause >= deadline.left() {
                return Err(failure);
            }
            sleep(pause).await;
        }
    }

    async fn attempt(&mut self, node: &Node, deadline: Deadline) -> Result<Answered, Failure> {
        let is_start = matches!(self.operation, Operation::Start(_));
        if self.known.is_none() && (is_start || !node.clock.is_told()) {
            self.load(node, deadline).await?;
        }
        self.as_of = self.circuit.as_of(node.settings.clock.now_ms());
        if let Some(granted) = self.granted(node) {
            return Ok(granted);
        }
        // A call that fails says itself what it saw last.
        let (known, retry_of) = (self.known.take(), self.retry_of);
        let call = node.call(&self.circuit, self.operation.clone(), self.token, retry_of, known, deadline);
        let answered = node.runtime.call(node.store.clone(), node.settings.hook.clone(), false, call).await?;
        if node.bounded.is_none() {
            self.learn_grant(&answered);
        }
        Ok(answered)
    }

    /// In strict mode: the answer to a start whose entry was just loaded, and is one of which the component has granted that starts
    /// need not ask.
    fn granted(&mut self, node: &Node) -> Option<Answered> {
        if node.bounded.is_some() || !matches!(self.operation, Operation::Start(_)) || self.may_have_written()
        {
            return None;
        }
        let now_ms = node.clock.now_ms();
        let started = self.circuit.with_view(|view| view.granted(self.known.as_ref()?, now_ms))?;
        let seen = self.known.take()?;
        Some(Answered { answer: Answer::Started(started), seen, replaced: None })
    }

    fn learn_grant(&self, answered: &Answered) {
        match (&answered.answer, &self.operation) {
            (Answer::Started(started), _) => {
                self.circuit.with_view(|view| view.learn_grant(started, &answered.seen));
            }
            (Answer::Settled { .. }, Operation::End(completions))
                if completions.iter().all(is_plain_success) =>
            {
                if let Some(replaced) = &answered.replaced {
                    self.circuit.with_view(|view| view.keep_grant(replaced, &answered.seen));
                }
            }
            _ => {}
        }
    }

    /// Loads here what would be loaded for the component: a start's together with those of others. And until an answer has told
    /// the store's time there is only the host's; a host that is minutes ahead would end another's open time with its first call.
    async fn load(&mut self, node: &Node, deadline: Deadline) -> Result<(), Failure> {
        self.as_of = self.circuit.as_of(node.settings.clock.now_ms());
        match loading::load(node, &self.circuit, deadline).await {
            Ok(loaded) => {
                self.saw(node, loaded.clone());
                self.known = Some(loaded);
                Ok(())
            }
            // Perhaps the name is no name; the component says so better.
            Err(Trouble { error: StoreError::Other { .. }, .. }) => Ok(()),
            Err(trouble) => Err(Failure { problem: trouble.into(), last_seen: None, revision: None }),
        }
    }

    fn saw(&self, node: &Node, seen: Loaded) {
        Self::learn(node, &seen);
        self.circuit.saw(seen, self.as_of);
    }

    fn learn(node: &Node, seen: &Loaded) {
        if let Some(store_ms) = seen.now_ms {
            node.clock.learn(store_ms);
        }
    }
}

/// Whether it is what a grant expects of work that it let begin.
fn is_plain_success(completion: &Completion) -> bool {
    completion.outcome == Outcome::Success && !completion.slow && completion.grant.probe.is_none()
}
