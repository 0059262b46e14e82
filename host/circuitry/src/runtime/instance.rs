//! One instance of the component, and what its imports reach while it runs a call.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use circuitry_store::{Store, Version};
use cpu_time::ThreadTime;
use wasmtime::{StoreLimits, StoreLimitsBuilder, Trap, UpdateDeadline};

use super::asking::{Deadline, Trouble};
use super::bindings::circuitry::breaker::{hooks, store, types};
use super::bindings::exports::circuitry::breaker::exchange;
use super::bindings::{Circuitry, CircuitryPre};
use super::engine::{Counted, Machine};
use super::{Answered, Limits, asking};
use crate::call::{Call, Failure, Operation};
use crate::error::ComponentError;
use crate::policy::CircuitSettings;
use crate::settings::Hook;

/// What the imports reach.
pub(super) struct Host {
    limits: StoreLimits,
    budget: Budget,
    /// Set while a call runs.
    call: Option<Surroundings>,
}

/// What surrounds a call.
struct Surroundings {
    hook: Option<Arc<Hook>>,
    /// The store to ask; none where the component only decides.
    asked: Option<Asked>,
}

/// The store that a call asks, and until when.
struct Asked {
    store: Arc<dyn Store>,
    deadline: Deadline,
    /// The error last handed to the guest, kept whole: the guest sees its text only.
    trouble: Option<Trouble>,
}

/// Processor time of the guest, without its waits for the store.
struct Budget {
    limit: Duration,
    spent: Duration,
    /// The thread's processor time when the guest was let run, while it runs: between two waits a call stays on its
    /// thread.
    since: Option<Duration>,
}

impl Budget {
    fn new(limit: Duration) -> Self {
        Self { limit, spent: Duration::ZERO, since: None }
    }

    fn restart(&mut self) {
        self.spent = Duration::ZERO;
        self.resume();
    }

    fn resume(&mut self) {
        self.since = Some(ThreadTime::now().as_duration());
    }

    fn pause(&mut self) {
        self.spent = self.total();
        self.since = None;
    }

    fn total(&self) -> Duration {
        let running =
            self.since.map_or(Duration::ZERO, |since| ThreadTime::now().as_duration().saturating_sub(since));
        self.spent.saturating_add(running)
    }

    fn is_spent(&self) -> bool {
        self.total() > self.limit
    }
}

/// One instance.
pub(super) struct Instance {
    store: wasmtime::Store<Host>,
    guest: Circuitry,
    machine: Arc<Machine>,
    /// The last field: it counts until the rest is gone.
    _counted: Counted,
}

/// What one instance may consist of. Ours has one module with a memory, and what binds it to its imports; a rule composed with
/// it brings as much again.
const MODULES_MAX: usize = 32;
const MEMORIES_MAX: usize = 8;
const TABLES_MAX: usize = 16;
const TABLE_ELEMENTS_MAX: usize = 20_000;

impl Instance {
    pub(super) async fn new(
        machine: &Arc<Machine>,
        guest: &CircuitryPre<Host>,
        limits: Limits,
    ) -> Result<Self, ComponentError> {
        let counted = machine.count().ok_or(ComponentError::Exhausted)?;
        let host = Host {
            limits: StoreLimitsBuilder::new()
                .memory_size(limits.memory_bytes)
                .memories(MEMORIES_MAX)
                .tables(TABLES_MAX)
                .table_elements(TABLE_ELEMENTS_MAX)
                .instances(MODULES_MAX)
                .trap_on_grow_failure(true)
                .build(),
            budget: Budget::new(limits.cpu_budget),
            call: None,
        };
        let mut store = wasmtime::Store::new(machine.engine(), host);
        store.limiter(|host| &mut host.limits);
        store.epoch_deadline_callback(|context| {
            let spent = context.data().budget.is_spent();
            Ok(if spent { UpdateDeadline::Interrupt } else { UpdateDeadline::Continue(1) })
        });
        store.set_epoch_deadline(1);
        store.data_mut().budget.resume();
        let ticking = machine.ticking();
        let instantiated = guest.instantiate_async(&mut store).await;
        drop(ticking);
        let guest = instantiated.map_err(|error| broken(&error, limits.cpu_budget))?;
        Ok(Self { store, guest, machine: machine.clone(), _counted: counted })
    }

    pub(super) async fn check(
        &mut self,
        rules: &CircuitSettings,
    ) -> Result<Result<u64, (String, String)>, ComponentError> {
        let settings = rules.into();
        let machine = self.machine.clone();
        let _ticking = machine.ticking();
        self.begin(None);
        let checked = self.guest.circuitry_breaker_breaker().call_check(&mut self.store, &settings).await;
        let budget = self.store.data().budget.limit;
        let checked = checked.map_err(|error| broken(&error, budget))?;
        Ok(checked.map_err(|error| (error.field, error.problem)))
    }

    /// Runs `call`. The outer error is the guest's: the instance is not to be used again.
    pub(super) async fn call(
        &mut self,
        store: Arc<dyn Store>,
        hook: Option<Arc<Hook>>,
        deadline: Deadline,
        call: Call,
    ) -> Result<Result<Answered, Failure>, ComponentError> {
        let machine = self.machine.clone();
        let _ticking = machine.ticking();
        self.begin(Some(Surroundings { hook, asked: Some(Asked { store, deadline, trouble: None }) }));
        let answered = self.run(call).await;
        let trouble = self.store.data_mut().call.take().and_then(|call| call.asked?.trouble);
        let answered = answered.map_err(|error| broken(&error, self.store.data().budget.limit))?;
        Ok(match answered {
            Ok((answer, seen)) => Ok(Answered { answer, seen: seen.into(), replaced: None }),
            Err(failure) => Err(Failure {
                problem: match (failure.error, trouble) {
                    (types::Error::Store(_), Some(trouble)) => trouble.into(),
                    (error, _) => error.into(),
                },
                last_seen: failure.last_seen.map(Into::into),
                revision: failure.revision,
            }),
        })
    }

    /// Takes one decision. On an error the instance is not to be used again.
    pub(super) fn decide(
        &mut self,
        hook: Option<&Arc<Hook>>,
        request: &exchange::Request,
        loaded: &types::Loaded,
        now_ms: u64,
    ) -> Result<exchange::Decision, ComponentError> {
        let machine = self.machine.clone();
        let _ticking = machine.ticking();
        self.begin(Some(Surroundings { hook: hook.cloned(), asked: None }));
        let decided =
            self.guest.circuitry_breaker_exchange().call_decide(&mut self.store, request, loaded, now_ms);
        self.store.data_mut().call = None;
        decided.map_err(|error| broken(&error, self.store.data().budget.limit))
    }

    fn begin(&mut self, call: Option<Surroundings>) {
        // The guest is looked at with the next tick.
        self.store.set_epoch_deadline(1);
        let host = self.store.data_mut();
        host.call = call;
        host.budget.restart();
    }

    async fn run(
        &mut self,
        call: Call,
    ) -> wasmtime::Result<Result<(crate::call::Answer, types::Loaded), types::Failure>> {
        let breaker = self.guest.circuitry_breaker_breaker();
        let store = &mut self.store;
        let (circuit, settings) = (&*call.circuit, (&*call.rules).into());
        let caller = (&call).into();
        let known = call.known.map(types::Loaded::from);
        let (known, now_ms) = (known.as_ref(), call.now_ms);
        Ok(match call.operation {
            Operation::Start(_) => breaker
                .call_start(store, circuit, &settings, caller, known, now_ms)
                .await?
                .map(|(started, seen)| (started.into(), seen)),
            Operation::End(completions) => {
                let completions: Vec<_> = completions.into_iter().map(Into::into).collect();
                breaker
                    .call_end(store, circuit, &settings, caller, known, &completions, now_ms)
                    .await?
                    .map(|(settled, seen)| (settled.into(), seen))
            }
            Operation::Renew { era, probe } => breaker
                .call_renew(store, circuit, &settings, caller, known, era, &[probe.into()], now_ms)
                .await?
                .map(|(renewed, seen)| (renewed.into(), seen)),
            Operation::Inspect => breaker
                .call_inspect(store, circuit, &settings, known, now_ms)
                .await?
                .map(|(information, seen)| (information.into(), seen)),
            Operation::SetOverride(wanted) => {
                let wanted = wanted.map(Into::into);
                breaker
                    .call_set_override(store, circuit, &settings, caller, known, wanted.as_ref(), now_ms)
                    .await?
                    .map(|(overridden, seen)| (overridden.into(), seen))
            }
            Operation::Vote { era, node_id } => breaker
                .call_vote(store, circuit, &settings, caller, known, era, &node_id, now_ms)
                .await?
                .map(|(voted, seen)| (voted.into(), seen)),
            Operation::Reset => breaker
                .call_reset(store, circuit, &settings, caller, known, now_ms)
                .await?
                .map(|(cleared, seen)| (cleared.into(), seen)),
        })
    }
}

fn broken(error: &wasmtime::Error, budget: Duration) -> ComponentError {
    match error.downcast_ref::<Trap>() {
        Some(Trap::Interrupt) => {
            ComponentError::OutOfTime { budget_ms: u64::try_from(budget.as_millis()).unwrap_or(u64::MAX) }
        }
        _ => ComponentError::Trapped(format!("{error:#}")),
    }
}

impl Host {
    fn asked(&mut self) -> wasmtime::Result<&mut Asked> {
        let asked = self.call.as_mut().and_then(|call| call.asked.as_mut());
        asked.ok_or_else(|| wasmtime::Error::msg("the store was asked outside of a call that may ask it"))
    }
}

impl types::Host for Host {}

impl store::Host for Host {
    async fn load(&mut self, circuit: String) -> wasmtime::Result<Result<types::Loaded, types::StoreError>> {
        self.budget.pause();
        let asked = self.asked()?;
        let loaded = asking::load(&*asked.store, &circuit, asked.deadline).await;
        let answer = loaded.map(Into::into).map_err(|trouble| asked.keep(trouble));
        self.budget.resume();
        Ok(answer)
    }

    async fn swap(
        &mut self,
        circuit: String,
        expected: Option<Vec<u8>>,
        value: Vec<u8>,
        ttl_ms: Option<u64>,
    ) -> wasmtime::Result<Result<types::Swapped, types::StoreError>> {
        self.budget.pause();
        let asked = self.asked()?;
        let expected = expected.map(Version::from_bytes);
        let swapped =
            asking::swap(&*asked.store, &circuit, expected.as_ref(), &value, ttl_ms, asked.deadline).await;
        let answer = swapped.map(Into::into).map_err(|trouble| asked.keep(trouble));
        self.budget.resume();
        Ok(answer)
    }
}

impl Asked {
    /// Tells the guest the error's kind and text, and keeps the error itself for the caller.
    fn keep(&mut self, trouble: Trouble) -> types::StoreError {
        let told = types::StoreError::from(&trouble.error);
        self.trouble = Some(trouble);
        told
    }
}

impl hooks::Host for Host {
    fn will_trip(&mut self, query: hooks::TripQuery) -> wasmtime::Result<bool> {
        let by_default = query.counts.consecutive_failures > query.failure_count_threshold;
        let hook = self.call.as_ref().and_then(|call| call.hook.clone());
        // The settings in force may name a rule that this process does not have, or has in another version.
        let Some(hook) =
            hook.filter(|hook| hook.name == query.rule.name && hook.version == query.rule.version)
        else {
            return Ok(by_default);
        };
        let information = query.into();
        // A rule that panics must not break the call; the default rule stands in for it.
        Ok(catch_unwind(AssertUnwindSafe(|| (hook.trips)(&information))).unwrap_or_else(|_| {
            tracing::error!(
                circuit = information.circuit,
                "the trip function panicked; the default rule decided"
            );
            by_default
        }))
    }
}
