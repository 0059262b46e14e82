//! [`Node`]: this process among the fleet's. It asks the component about shared records, or about its own while the
//! store is down.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use circuitry_store::{Clock, Loaded, Store, StoreError};
use tokio::runtime::Handle;
use tokio::time::{Instant, sleep};

use crate::call::{Answer, Call, Failure, Operation, Problem, Token};
use crate::circuit::Circuit;
use crate::clock::StoreClock;
use crate::error::{ComponentError, Error};
use crate::outage::Outage;
use crate::runtime::Runtime;
use crate::settings::{Rules, Settings, StoreFailure};

/// How often a call asks a store that fails, within its timeout.
const TRIES_MAX: u32 = 3;

/// This process among the fleet's.
pub(crate) struct Node {
    pub(crate) settings: Settings,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) runtime: Runtime,
    pub(crate) clock: StoreClock,
    pub(crate) outage: Outage,
    /// Where tasks run, also those begun by a permit that is dropped outside of it.
    pub(crate) tasks: Handle,
    rules: Arc<Rules>,
    id: u64,
    sequence: AtomicU64,
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

impl Node {
    pub(crate) fn new(settings: Settings, store: Arc<dyn Store>, runtime: Runtime, tasks: Handle) -> Self {
        let clock = StoreClock::new(settings.clock.clone());
        Self {
            store,
            runtime,
            outage: Outage::new(clock.clone()),
            clock,
            tasks,
            rules: Arc::new(settings.rules.clone()),
            id: settings.node.unwrap_or_else(|| fastrand::u64(..)),
            sequence: AtomicU64::new(1),
            settings,
        }
    }

    /// Names a call; no two of this process have the same name.
    pub(crate) fn token(&self) -> Token {
        Token { node: self.id, sequence: self.sequence.fetch_add(1, Ordering::Relaxed) }
    }

    /// How long one try at the store may take, so that the fallback still answers within the store's timeout.
    pub(crate) fn patience(&self) -> Duration {
        let timeout = self.settings.store_timeout;
        timeout.saturating_sub((timeout / 5).min(Duration::from_millis(50)))
    }

    /// Asks the shared record, and the fallback that the settings name when the store is down.
    ///
    /// # Cancel safety
    /// The exchange runs on in its own task.
    pub(crate) async fn ask(
        self: &Arc<Self>,
        circuit: &Arc<Circuit>,
        operation: Operation,
    ) -> Result<Asked, Error> {
        if !self.outage.is_down() {
            match self.ask_shared(circuit, operation.clone()).await {
                Ok(answer) => return Ok(Asked::Shared(answer)),
                Err(problem) if is_outage(&problem) => self.enter_outage(circuit, &problem),
                Err(problem) => return Err(Error::new(&circuit.name, problem)),
            }
        }
        match self.settings.store_failure {
            StoreFailure::Local => match self.ask_locally(circuit, operation).await {
                Ok(answer) => Ok(Asked::Local(answer)),
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
        let known = match operation {
            // Strict: a start sees what the store has now, and so does who looks.
            Operation::Start | Operation::Inspect | Operation::SetOverride(_) => None,
            Operation::End(_) | Operation::Renew { .. } => circuit.known(),
        };
        let (node, circuit) = (self.clone(), circuit.clone());
        let begun = Instant::now();
        let exchange = self.tasks.spawn(async move {
            let place = tokio::time::timeout(node.patience(), circuit.calls.acquire()).await;
            let Ok(Ok(_place)) = place else {
                let waited_ms = u64::try_from(node.patience().as_millis()).unwrap_or(u64::MAX);
                return Err(Problem::Component(ComponentError::Busy(waited_ms)));
            };
            let left = node.patience().saturating_sub(begun.elapsed());
            let mut exchange = Exchange::new(&node, &circuit, operation, known);
            exchange.run(&node, left).await.map_err(|failure| failure.problem)
        });
        match exchange.await {
            Ok(answered) => answered,
            Err(error) => Err(Problem::Component(ComponentError::CutOff(error.to_string()))),
        }
    }

    /// Asks this process's own record, which begins as a copy of the entry last seen.
    pub(crate) async fn ask_locally(
        &self,
        circuit: &Circuit,
        operation: Operation,
    ) -> Result<Answer, Failure> {
        let records = self.outage.records();
        let store_problem =
            |error| Failure { problem: Problem::Store(error), last_seen: None, revision: None };
        if records.load(&circuit.name).await.map_err(store_problem)?.entry.is_none()
            && let Some(entry) = circuit.known().and_then(|known| known.entry)
        {
            // If another call was first, its copy is as good.
            records.swap(&circuit.name, None, &entry.value, None).await.map_err(store_problem)?;
        }
        let call = self.call(circuit, operation, self.token(), None, None, self.settings.store_timeout);
        let answered = self.runtime.call(Arc::new(records), self.settings.hook.clone(), true, call).await?;
        Ok(answered.answer)
    }

    fn call(
        &self,
        circuit: &Circuit,
        operation: Operation,
        token: Token,
        retry_of: Option<u64>,
        known: Option<Loaded>,
        timeout: Duration,
    ) -> Call {
        Call {
            circuit: circuit.name.clone(),
            rules: self.rules.clone(),
            operation,
            token,
            retry_of,
            known,
            now_ms: self.clock.now_ms(),
            timeout,
        }
    }

    /// Goes on without the store, and watches for its return.
    pub(crate) fn enter_outage(self: &Arc<Self>, circuit: &Circuit, problem: &Problem) {
        if self.outage.enter(&circuit.name, problem) {
            let node: Weak<Self> = Arc::downgrade(self);
            self.tasks.spawn(crate::outage::watch(node, circuit.name.clone()));
        }
    }
}

/// Whether the store is to be taken as down.
pub(crate) fn is_outage(problem: &Problem) -> bool {
    matches!(
        problem,
        Problem::Store(
            StoreError::Unavailable { .. } | StoreError::Unknown { .. } | StoreError::Denied { .. }
        ) | Problem::Component(ComponentError::Busy(_))
    )
}

/// One call on the shared record, which may be tried several times under the same token.
#[derive(Debug)]
pub(crate) struct Exchange {
    pub(crate) circuit: Arc<Circuit>,
    operation: Operation,
    token: Token,
    known: Option<Loaded>,
    /// The lowest revision that a swap was based on whose fate is unknown.
    retry_of: Option<u64>,
}

impl Exchange {
    pub(crate) fn new(
        node: &Node,
        circuit: &Arc<Circuit>,
        operation: Operation,
        known: Option<Loaded>,
    ) -> Self {
        Self { circuit: circuit.clone(), operation, token: node.token(), known, retry_of: None }
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

    /// Runs the call; tries again within `within` after lost races and failures that may pass.
    ///
    /// May be run again after an error: it is the same call, and is applied once.
    pub(crate) async fn run(&mut self, node: &Node, within: Duration) -> Result<Answer, Failure> {
        let deadline = Instant::now() + within;
        let mut tries = 0;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let (known, retry_of) = (self.known.clone(), self.retry_of);
            let call = node.call(&self.circuit, self.operation.clone(), self.token, retry_of, known, left);
            let answered =
                node.runtime.call(node.store.clone(), node.settings.hook.clone(), false, call).await;
            let failure = match answered {
                Ok(answered) => {
                    self.saw(node, answered.seen);
                    return Ok(answered.answer);
                }
                Err(failure) => failure,
            };
            self.known = failure.last_seen.clone();
            if let Some(seen) = failure.last_seen.clone() {
                self.saw(node, seen);
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
                    Duration::from_micros(fastrand::u64(2_000..10_000) << tries)
                }
                _ => return Err(failure),
            };
            if Instant::now() + pause >= deadline {
                return Err(failure);
            }
            sleep(pause).await;
        }
    }

    fn saw(&self, node: &Node, seen: Loaded) {
        if let Some(store_ms) = seen.now_ms {
            node.clock.learn(store_ms);
        }
        self.circuit.saw(seen);
    }
}
