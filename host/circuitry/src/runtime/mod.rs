//! The component in wasmtime: [`Runtime::call`] runs one call against a store.
//!
//! Starts and ends, the path of every job, go in `steps`: the component decides through `exchange`, the host asks the
//! store, and no instance waits. So do votes, and looks at an entry in hand. The other calls go through `breaker`, with the store
//! as the component's import: the instance waits on a fiber.
//!
//! - `bindings`: generated; `convert`: its types from and to ours
//! - `instance`: one instance, with what its imports reach
//! - `steps`: a call in steps; `asking`: the user's store, until a deadline
//! - `engine`: the process's engine and the clock that interrupts guests
//! - `compiled`: the compiled component in a folder, for the next process
//!
//! Invariant: an instance is held only while its call runs; a call that trapped, or was dropped, takes its instance
//! with it.

pub(crate) mod asking;
mod bindings;
mod compiled;
mod convert;
mod engine;
mod instance;
mod steps;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use circuitry_store::{Loaded, Store, Version};
use futures_util::FutureExt;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::timeout;
use wasmtime::component::{HasSelf, Linker};

use crate::call::{Answer, Call, Failure, Problem};
use crate::error::{ComponentError, SettingsError};
use crate::policy::CircuitSettings;
use crate::settings::Hook;
use bindings::exports::circuitry::breaker::exchange::{Decision, Request};
use compiled::Unready;
pub(crate) use engine::MEMORY_MAX_BYTES;
use engine::{Compile, Machine};
use instance::{Host, Instance};

/// Where the component comes from.
#[derive(Clone, Debug, Default)]
pub(crate) struct Source {
    /// A file; without it, the one of the crate `circuitry-component`.
    pub(crate) path: Option<PathBuf>,
    /// The folder that keeps it compiled, if one was given.
    pub(crate) cache: Option<PathBuf>,
}

/// What a guest may use.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) max_instances: usize,
    pub(crate) cpu_budget: Duration,
    pub(crate) memory_bytes: usize,
}

/// What a call found, and the entry last seen.
pub(crate) struct Answered {
    pub(crate) answer: Answer,
    pub(crate) seen: Loaded,
    /// What `seen` was stored in place of, as far as is known.
    pub(crate) replaced: Option<Version>,
}

/// A decision on an entry in hand.
pub(crate) enum Decided {
    /// The answer; nothing is to be written.
    Done(Answer),
    /// What is to be written.
    Write(Write),
}

/// What a decision wants to be written.
pub(crate) struct Write {
    pub(crate) value: Vec<u8>,
    /// For how long the store is to keep it; without it, for ever.
    ttl_ms: Option<u64>,
    /// The revision of the record that it follows.
    based_on: u64,
    /// The answer, if it is stored.
    pub(crate) answer_if_stored: Result<Answer, Problem>,
}

/// The component, ready to be called.
pub(crate) struct Runtime {
    machine: Arc<Machine>,
    /// With the store as its import.
    guest: bindings::CircuitryPre<Host>,
    /// Without a store: it only decides.
    decider: bindings::CircuitryPre<Host>,
    limits: Limits,
    /// As many calls at once as there may be instances.
    places: Semaphore,
    /// For calls on local records, which wait for nothing: a store that hangs cannot take these.
    local_places: Semaphore,
    idle: Mutex<Vec<Instance>>,
    idle_deciders: Mutex<Vec<Instance>>,
}

impl std::fmt::Debug for Runtime {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Runtime").field("limits", &self.limits).finish_non_exhaustive()
    }
}

/// So many instances are kept for the next calls. More would take them from other factories of the process, and a new
/// one costs some thirty microseconds.
const IDLE_MAX: usize = 32;
/// So many instances are for calls on local records.
const LOCAL_PLACES: usize = 4;

impl Runtime {
    /// Compiles or loads the component and checks it against the world.
    ///
    /// # Errors
    /// [`ComponentError::Unusable`], which names the file and what is wrong with it, or [`SettingsError::Invalid`] for a cache
    /// that is not to be trusted.
    pub(crate) fn new(source: &Source, limits: Limits) -> Result<Self, SettingsError> {
        let origin = source
            .path
            .as_ref()
            .map_or_else(|| "that is built in".to_owned(), |path| path.display().to_string());
        let unusable = |problem: String| ComponentError::Unusable { origin: origin.clone(), problem };
        let cache = source.cache.as_deref();
        let compile = if cache.is_some() { Compile::Well } else { Compile::Quickly };
        let machine = Machine::shared(compile).map_err(&unusable)?;
        let component = match &source.path {
            None => machine.built_in(cache),
            Some(path) => {
                let bytes = std::fs::read(path).map_err(|error| unusable(error.to_string()))?;
                compiled::component(machine.engine(), &bytes, cache)
            }
        };
        let component = component.map_err(|unready| match unready {
            Unready::Cache(problem) => SettingsError::Invalid { setting: "component_cache".into(), problem },
            Unready::Component(error) if source.path.is_some() => SettingsError::from(unusable(format!(
                "it is no WebAssembly component: {error:#}; give the path of a circuitry.wasm"
            ))),
            Unready::Component(error) => unusable(format!("{error:#}")).into(),
        })?;
        let mut linker = Linker::<Host>::new(machine.engine());
        bindings::Circuitry::add_to_linker::<_, HasSelf<_>>(&mut linker, |host| host)
            .map_err(|error| unusable(format!("{error:#}")))?;
        let guest = linker.instantiate_pre(&component).and_then(bindings::CircuitryPre::new).map_err(|error| {
            unusable(format!(
                "it does not fit the world circuitry:breaker/circuitry@0.1.0: {error:#}; build it with this version's wit"
            ))
        })?;
        let mut linker = Linker::<Host>::new(machine.engine());
        bindings::circuitry::breaker::hooks::add_to_linker::<_, HasSelf<_>>(&mut linker, |host| host)
            .and_then(|()| linker.define_unknown_imports_as_traps(&component))
            .map_err(|error| unusable(format!("{error:#}")))?;
        let decider = linker
            .instantiate_pre(&component)
            .and_then(bindings::CircuitryPre::new)
            .map_err(|error| unusable(format!("{error:#}")))?;
        Ok(Self {
            machine,
            guest,
            places: Semaphore::new(limits.max_instances),
            local_places: Semaphore::new(LOCAL_PLACES),
            idle: Mutex::default(),
            idle_deciders: Mutex::default(),
            decider,
            limits,
        })
    }

    /// Asks the component whether `rules` can be used.
    ///
    /// # Errors
    /// The field and the problem, or the component's failure.
    pub(crate) async fn check(
        &self,
        rules: &CircuitSettings,
    ) -> Result<Result<u64, (String, String)>, ComponentError> {
        let mut instance = Self::take(&self.idle, &self.machine, &self.guest, self.limits).await?;
        let checked = instance.check(rules).await?;
        give_back(&self.idle, instance);
        Ok(checked)
    }

    /// Runs `call` against `store`; `local` calls have places of their own.
    ///
    /// # Cancel safety
    /// A dropped call throws its instance away; whether it wrote is then unknown. The caller runs it in a task.
    pub(crate) async fn call(
        &self,
        store: Arc<dyn Store>,
        hook: Option<Arc<Hook>>,
        local: bool,
        mut call: Call,
    ) -> Result<Answered, Failure> {
        if steps::goes_in_steps(&call) {
            return steps::run(self, &*store, hook.as_ref(), &mut call).await;
        }
        // Boxed: it is seldom, and its future is many times as large.
        Box::pin(self.call_waiting(store, hook, local, call)).await
    }

    /// Runs a call that waits for the store in the guest.
    async fn call_waiting(
        &self,
        store: Arc<dyn Store>,
        hook: Option<Arc<Hook>>,
        local: bool,
        call: Call,
    ) -> Result<Answered, Failure> {
        let deadline = call.deadline;
        let places = if local { &self.local_places } else { &self.places };
        // The store has to have its time too.
        let _place = place(places, deadline.left() / 2).await?;
        let mut instance = Self::take(&self.idle, &self.machine, &self.guest, self.limits).await?;
        match instance.call(store, hook, deadline, call).await {
            Ok(result) => {
                give_back(&self.idle, instance);
                result
            }
            // The guest trapped: its memory is in no known state.
            Err(error) => Err(error.into()),
        }
    }

    /// Decides `call` on the entry `seen` without asking any store.
    ///
    /// # Errors
    /// The component's answer that there is none, or its failure.
    pub(crate) fn decide_on(
        &self,
        hook: Option<&Arc<Hook>>,
        call: &Call,
        seen: &Loaded,
    ) -> Result<Decided, Problem> {
        steps::decide_on(self, hook, call, seen)
    }

    /// Takes one decision.
    fn decide(
        &self,
        hook: Option<&Arc<Hook>>,
        request: &Request,
        seen: &Loaded,
        now_ms: u64,
    ) -> Result<Decision, ComponentError> {
        let instance = Self::take(&self.idle_deciders, &self.machine, &self.decider, self.limits);
        // Nothing in it waits, an instance's making included.
        let mut instance = instance.now_or_never().unwrap_or(Err(ComponentError::Exhausted))?;
        let decision = instance.decide(hook, request, &seen.clone().into(), now_ms)?;
        give_back(&self.idle_deciders, instance);
        Ok(decision)
    }

    async fn take(
        idle: &Mutex<Vec<Instance>>,
        machine: &Arc<Machine>,
        guest: &bindings::CircuitryPre<Host>,
        limits: Limits,
    ) -> Result<Instance, ComponentError> {
        let instance = idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        match instance {
            Some(instance) => Ok(instance),
            None => Box::pin(Instance::new(machine, guest, limits)).await,
        }
    }
}

fn give_back(idle: &Mutex<Vec<Instance>>, instance: Instance) {
    let mut idle = idle.lock().unwrap_or_else(PoisonError::into_inner);
    if idle.len() < IDLE_MAX {
        idle.push(instance);
    }
}

/// Waits for a place, but no longer than the call may take.
async fn place(places: &Semaphore, within: Duration) -> Result<SemaphorePermit<'_>, ComponentError> {
    if let Ok(place) = places.try_acquire() {
        return Ok(place);
    }
    match timeout(within, places.acquire()).await {
        Ok(Ok(place)) => Ok(place),
        Ok(Err(_closed)) => Err(ComponentError::CutOff("the factory is gone".into())),
        Err(_elapsed) => Err(ComponentError::Busy(u64::try_from(within.as_millis()).unwrap_or(u64::MAX))),
    }
}
