//! [`Node`]: this process among the fleet's. It asks the component about shared records, or about its own while the
//! store is down.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use circuitry_store::{Clock, Loaded, MemoryStore, Store, StoreError};
use tokio::runtime::Handle;
use tokio::time::timeout;

use crate::bounded::{self, Bounded};
use crate::call::{Answer, Call, Failure, Grant, Leave, Operation, Problem, Started, Token};
use crate::circuit::Circuit;
use crate::clock::StoreClock;
use crate::coarse::CoarseClock;
use crate::error::{ComponentError, Error};
use crate::exchange::Exchange;
use crate::outage::Outage;
use crate::policy::CircuitSettings;
use crate::refusal::{Refusal, RefusalReason};
use crate::runtime::asking::Deadline;
use crate::runtime::{Decided, Runtime};
use crate::settings::{Consistency, Settings, StoreFailure};
use crate::settling::{lost, settle_parked};

/// Set in the numbers of all calls but starts, which have consecutive numbers of their own.
const NO_START: u64 = 1 << 63;

/// This process among the fleet's.
pub(crate) struct Node {
    pub(crate) settings: Settings,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) runtime: Runtime,
    pub(crate) clock: StoreClock,
    pub(crate) outage: Outage,
    /// Set in bounded mode.
    pub(crate) bounded: Option<Bounded>,
    /// Where tasks run, also those begun by a permit that is dropped outside of it.
    pub(crate) tasks: Handle,
    /// How circuits behave where no other process says otherwise.
    pub(crate) rules: Arc<CircuitSettings>,
    /// The name under which this node votes.
    pub(crate) vote_as: Arc<str>,
    id: u64,
    /// Names this process on records of its own, so that no place there is taken for one on the shared record.
    local_id: u64,
    sequence: AtomicU64,
    circuits_made: AtomicU64,
}

impl fmt::Debug for Node {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Node")
            .field("id", &self.id)
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

/// Who answered.
pub(crate) enum Asked {
    /// The shared record.
    Shared(Answer),
    /// This process's own record: the store is down.
    Local(Answer),
    /// Nobody: the store is down and the settings keep no local record.
    Nobody,
}

/// What a record of this process's own says.
pub(crate) struct OwnAnswer {
    pub(crate) answer: Answer,
    /// The record is kept; else it was a copy.
    pub(crate) is_kept: bool,
}

impl Node {
    /// # Errors
    /// When the operating system has no randomness (without it two processes could take each other's calls for
    /// repeated ones), or no thread for a clock. The text says so.
    pub(crate) fn new(settings: Settings, runtime: Runtime, tasks: Handle) -> Result<Self, String> {
        let clock = StoreClock::new(settings.clock.clone());
        let random = || {
            getrandom::u64().map_err(|error| {
                format!("the operating system gave no random number for this process: {error}")
            })
        };
        let (id, local_id) = (random()?, random()?);
        let bounded = match settings.consistency {
            Consistency::Strict => None,
            Consistency::Bounded { max_staleness, flush_every } => {
                let time = CoarseClock::of(settings.clock.clone())
                    .map_err(|error| format!("the operating system gave no thread for a clock: {error}"))?;
                Some(Bounded::new(max_staleness, flush_every, time))
            }
        };
        // Without a name of the user's, a vote is told apart for as long as this process lives.
        let vote_as = settings.node_id.clone().unwrap_or_else(|| format!("unnamed-{id:016x}").into());
        Ok(Self {
            store: settings.store.clone(),
            runtime,
            outage: Outage::new(clock.clone()),
            bounded,
            clock,
            tasks,
            rules: Arc::new(settings.rules.clone()),
            vote_as,
            id,
            local_id,
            sequence: AtomicU64::new(1),
            circuits_made: AtomicU64::new(0),
            settings,
        })
    }

    /// The name of the entry that this process writes to see whether the store writes. No circuit is called so.
    pub(crate) fn trial_name(&self) -> String {
        format!("\u{1}trial of node {:016x}", self.id)
    }

    /// The number of the first start of a circuit that is made now. They are consecutive from there on.
    ///
    /// A circuit that was forgotten and is made again repeats none. Processes begin somewhere else each, so that a ramp does not
    /// admit the same starts of all.
    pub(crate) fn first_start(&self) -> u64 {
        let made = self.circuits_made.fetch_add(1, Ordering::Relaxed) & (u64::from(u32::MAX) >> 1);
        // Not the thread's generator: who seeds that seeds it alike in all processes.
        let phase = fastrand::Rng::with_seed(self.id ^ made).u64(0..1_000);
        (made << 32) + phase
    }

    /// Names a call; no two of this process on a circuit have the same name.
    pub(crate) fn token(&self, operation: &Operation) -> Token {
        let sequence = match operation {
            Operation::Start(number) => *number,
            _ => self.sequence.fetch_add(1, Ordering::Relaxed) | NO_START,
        };
        Token { node: self.id, sequence }
    }

    /// Names a call on a record of this process's own.
    pub(crate) fn local_token(&self, operation: &Operation) -> Token {
        Token { node: self.local_id, ..self.token(operation) }
    }

    /// How long one try at the store may take, so that the fallback still answers within the store's timeout.
    pub(crate) fn patience(&self) -> Duration {
        let timeout = self.settings.store_timeout;
        timeout.saturating_sub((timeout / 5).min(Duration::from_millis(50)))
    }

    /// Asks the shared record, and the fallback that the settings name when the store is down.
    ///
    /// # Cancel safety
    /// Dropped, it leaves unknown whether the exchange has written.
    pub(crate) async fn ask(
        self: &Arc<Self>,
        circuit: &Arc<Circuit>,
        operation: Operation,
    ) -> Result<Asked, Error> {
        if !self.outage.is_down() {
            match self.ask_shared(circuit, operation.clone()).await {
                Ok(answer) => return Ok(Asked::Shared(answer)),
                Err(problem) if is_outage(&problem) => self.enter_outage(circuit, &problem),
                Err(problem) if is_busy(&problem) => {
                    return Box::pin(self.ask_copy(circuit, operation)).await;
                }
                Err(problem) => return Err(Error::new(&circuit.name, problem)),
            }
        }
        // Boxed: it is seldom, and would make the future of every call larger.
        Box::pin(self.ask_fallback(circuit, operation, Some(self.outage.records()))).await
    }

    /// Asks a copy of the entry last seen, which is thrown away: the store may be well, and this call alone is not. Where the store
    /// has turned out to be down meanwhile, the record that all calls share is asked.
    pub(crate) async fn ask_copy(&self, circuit: &Circuit, operation: Operation) -> Result<Asked, Error> {
        let records = self.outage.is_down().then(|| self.outage.records());
        self.ask_fallback(circuit, operation, records).await
    }

    /// Asks as the settings say for when the store is down; where there are no records, a copy that is thrown away.
    pub(crate) async fn ask_fallback(
        &self,
        circuit: &Circuit,
        operation: Operation,
        records: Option<MemoryStore>,
    ) -> Result<Asked, Error> {
        match self.settings.store_failure {
            StoreFailure::Local => match self.ask_locally(circuit, operation, records).await {
                Ok(own) => Ok(Asked::Local(own.answer)),
                Err(failure) => Err(Error::new(&circuit.name, failure.problem)),
            },
            StoreFailure::Admit | StoreFailure::Refuse => Ok(Asked::Nobody),
        }
    }

    /// Asks the shared record and nothing else.
    pub(crate) async fn ask_shared(
        self: &Arc<Self>,
        circuit: &Arc<Circuit>,
        operation: Operation,
    ) -> Result<Answer, Problem> {
        if self.bounded.is_none() {
            return self.ask_shared_here(circuit, operation).await;
        }
        // Nobody who waits for this one's turn is to wait for a caller who does not poll.
        Box::pin(self.ask_shared_in_task(circuit, operation)).await
    }

    async fn ask_shared_in_task(
        self: &Arc<Self>,
        circuit: &Arc<Circuit>,
        operation: Operation,
    ) -> Result<Answer, Problem> {
        let (node, circuit) = (self.clone(), circuit.clone());
        let asked = self.tasks.spawn(async move {
            if matches!(operation, Operation::SetOverride(_) | Operation::Reset) {
                // What ended here before is to count as it would have then.
                bounded::flush(&node, &circuit).await;
            }
            node.ask_shared_here(&circuit, operation).await
        });
        let asked = asked.await;
        asked.unwrap_or_else(|_gone| {
            let why = "the store's code panicked, or the runtime of the factory has ended";
            Err(Problem::Component(ComponentError::CutOff(why.into())))
        })
    }

    async fn ask_shared_here(
        self: &Arc<Self>,
        circuit: &Arc<Circuit>,
        operation: Operation,
    ) -> Result<Answer, Problem> {
        let known = match operation {
            // Strict: a start sees what the store has now, and so does who looks.
            Operation::Start(_) | Operation::Inspect | Operation::SetOverride(_) | Operation::Reset => None,
            Operation::End(_) | Operation::Renew { .. } | Operation::Vote { .. } => circuit.known(),
        };
        let deadline = Deadline::within(self.patience());
        let is_start = matches!(operation, Operation::Start(_));
        let mut _place = None;
        if !is_start {
            // A start holds no instance while it asks the store; the others must not take them all for one circuit, and
            // the store has to have its time too.
            let Ok(Ok(place)) = timeout(self.patience() / 2, circuit.calls.acquire()).await else {
                let waited_ms = u64::try_from(self.patience().as_millis() / 2).unwrap_or(u64::MAX);
                return Err(Problem::Component(ComponentError::Busy(waited_ms)));
            };
            _place = Some(place);
        }
        let mut exchange = Exchange::new(self, circuit, operation, known);
        let answered = exchange.run(self, deadline).await;
        answered.map_err(|failure| {
            if is_start && exchange.may_have_written() {
                // Perhaps it made a transition, which is to be told, and took a place, which is to be given back.
                self.finish_later(&failure.problem, exchange);
            }
            failure.problem
        })
    }

    /// Sees to it that a call whose write may have happened is applied once and told.
    pub(crate) fn finish_later(self: &Arc<Self>, problem: &Problem, exchange: Exchange) {
        if is_outage(problem) {
            self.enter_outage(&exchange.circuit, problem);
        }
        if let Some(exchange) = self.outage.park(exchange) {
            let node = self.clone();
            self.tasks.spawn(async move { settle_parked(&node, exchange).await });
        }
    }

    /// Asks a record of this process's own, which begins as a copy of the entry last seen. It is kept in `records`, or thrown away
    /// where there are none, or as many as circuits are remembered: names may come from requests.
    pub(crate) async fn ask_locally(
        &self,
        circuit: &Circuit,
        operation: Operation,
        records: Option<MemoryStore>,
    ) -> Result<OwnAnswer, Failure> {
        let store_problem =
            |error| Failure { problem: Problem::Store(error), last_seen: None, revision: None };
        let copy = || MemoryStore::with_clock(self.clock.clone());
        let (records, is_known, is_copy) = match records {
            Some(records) => {
                let entry = records.load(&circuit.name).await.map_err(store_problem)?.entry;
                let is_full = entry.is_none() && records.len() >= self.settings.max_circuits;
                (if is_full { copy() } else { records }, entry.is_some(), is_full)
            }
            None => (copy(), false, true),
        };
        if !is_known && let Some(entry) = circuit.shown(self).and_then(|shown| shown.entry) {
            // If another call was first, its copy is as good.
            records.swap(&circuit.name, None, &entry.value, None).await.map_err(store_problem)?;
        }
        let deadline = Deadline::within(self.settings.store_timeout);
        let token = self.local_token(&operation);
        let call = self.call(circuit, operation, token, None, None, deadline);
        let answered = self.runtime.call(Arc::new(records), self.settings.hook.clone(), true, call).await?;
        let mut answer = answered.answer;
        if is_copy {
            let busy = || Refusal::new(RefusalReason::TooManyRequests, self.settings.store_timeout);
            forget_changes(&mut answer, busy);
        }
        Ok(OwnAnswer { answer, is_kept: !is_copy })
    }

    /// Takes a decision on an entry in hand, without asking any store.
    pub(crate) fn decide_now(
        &self,
        circuit: &Circuit,
        operation: Operation,
        seen: Loaded,
    ) -> Result<Decided, Problem> {
        let token = self.token(&operation);
        let deadline = Deadline::within(self.settings.store_timeout);
        let call = self.call(circuit, operation, token, None, None, deadline);
        self.runtime.decide_on(self.settings.hook.as_ref(), &call, &seen)
    }

    pub(crate) fn call(
        &self,
        circuit: &Circuit,
        operation: Operation,
        token: Token,
        retry_of: Option<u64>,
        known: Option<Loaded>,
        deadline: Deadline,
    ) -> Call {
        Call {
            circuit: circuit.name.clone(),
            rules: self.rules.clone(),
            operation,
            token,
            retry_of,
            known,
            now_ms: self.clock.now_ms(),
            deadline,
        }
    }

    /// Tells other processes of a change, where they listen. A hint: nobody waits for it, and it may be lost.
    pub(crate) fn tell_watchers(&self, circuit: &Arc<Circuit>, answer: &Answer) {
        let changed = match answer {
            Answer::Started(Started { transitions, .. })
            | Answer::Settled { transitions, .. }
            | Answer::Voted { transitions, .. } => !transitions.is_empty(),
            Answer::Overridden { .. } | Answer::Cleared { .. } => true,
            Answer::Renewed(_) | Answer::Inspected(_) => false,
        };
        if changed {
            let (store, circuit) = (self.store.clone(), circuit.name.clone());
            self.tasks.spawn(async move {
                if let Err(error) = store.announce(&circuit).await {
                    tracing::debug!(circuit = &*circuit, %error, "others were not told of a change");
                }
            });
        }
    }

    /// Goes on without the store, and watches for its return.
    pub(crate) fn enter_outage(self: &Arc<Self>, circuit: &Circuit, problem: &Problem) {
        if let Some(pause) = self.outage.enter(&circuit.name, problem) {
            let node: Weak<Self> = Arc::downgrade(self);
            self.tasks.spawn(crate::outage::watch(node, circuit.name.clone(), pause));
        }
    }
}

/// What a call changed on a copy is thrown away with the copy, so nobody is told; and it gives no probe's place, since each call
/// would have places of its own.
fn forget_changes(answer: &mut Answer, busy: impl FnOnce() -> Refusal) {
    match answer {
        Answer::Started(started) => {
            started.transitions.clear();
            if matches!(&started.verdict, Ok(Leave { grant: Grant { probe: Some(_), .. }, .. })) {
                started.verdict = Err(busy());
            }
        }
        Answer::Settled { transitions, .. } | Answer::Voted { transitions, .. } => transitions.clear(),
        Answer::Renewed(_) | Answer::Inspected(_) | Answer::Overridden { .. } | Answer::Cleared { .. } => {}
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let Some(bounded) = &self.bounded else { return };
        bounded.flusher.stop();
        for circuit in bounded.flusher.circuits() {
            let outcomes = circuit.with_view(|view| view.give_up(&circuit));
            let cut_off = ComponentError::CutOff("the factory was dropped before it was flushed".into());
            lost(&circuit, outcomes, &Error::new(&circuit.name, Problem::Component(cut_off)));
        }
    }
}

/// Whether the store is to be taken as down.
pub(crate) fn is_outage(problem: &Problem) -> bool {
    matches!(
        problem,
        Problem::Store(
            StoreError::Unavailable { .. } | StoreError::Unknown { .. } | StoreError::Denied { .. }
        )
    )
}

/// Whether too much is under way in this process; that says nothing of the store.
pub(crate) fn is_busy(problem: &Problem) -> bool {
    matches!(
        problem,
        Problem::Component(ComponentError::Busy(_) | ComponentError::Hurried | ComponentError::Exhausted)
    )
}
