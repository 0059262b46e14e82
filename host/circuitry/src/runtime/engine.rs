//! The process's engine, or two: one for code that is kept and one for code that is not; and the clock that interrupts guests.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::thread::{self, Thread};
use std::time::Duration;

use wasmtime::component::Component;
use wasmtime::{Config, Engine, OptLevel, RegallocAlgorithm};

use super::compiled::{self, Unready};

/// How often a guest that runs is looked at. A decision takes microseconds, so hardly any sees a tick.
const TICK: Duration = Duration::from_millis(5);
/// The most instances of an engine, over all factories.
const INSTANCES_MAX: usize = 1_000;
/// The most memory that a guest may be allowed.
pub(crate) const MEMORY_MAX_BYTES: usize = 64 << 20;

/// The engine, its built-in component made ready once, and its clock.
pub(crate) struct Machine {
    engine: Engine,
    built_in: OnceLock<Component>,
    clock: Arc<Ticks>,
    instances: AtomicUsize,
}

/// One of the instances that there may be.
pub(super) struct Counted(Arc<Machine>);

/// Calls under way; the clock runs only while there are any.
struct Ticks {
    running: AtomicUsize,
    stopped: AtomicBool,
    thread: OnceLock<Thread>,
}

/// While it lives, the clock ticks.
pub(crate) struct Ticking<'a>(&'a Ticks);

/// What compiling is good at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Compile {
    /// A process that compiles for itself alone is ready in half the time, with code that takes a quarter longer.
    Quickly,
    /// What is kept is compiled once, and run by many.
    Well,
}

impl Machine {
    /// The engine of this process that compiles so; it lives as long as a factory does.
    pub(super) fn shared(compile: Compile) -> Result<Arc<Self>, String> {
        static QUICKLY: Mutex<Weak<Machine>> = Mutex::new(Weak::new());
        static WELL: Mutex<Weak<Machine>> = Mutex::new(Weak::new());
        let shared = match compile {
            Compile::Quickly => &QUICKLY,
            Compile::Well => &WELL,
        };
        let mut shared = shared.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(machine) = shared.upgrade() {
            return Ok(machine);
        }
        let machine = Self::new(compile).map_err(|error| format!("wasmtime does not start: {error:#}"))?;
        let machine = Arc::new(machine);
        *shared = Arc::downgrade(&machine);
        Ok(machine)
    }

    /// Memories are made when they are wanted, not pooled: reserving a pool for so many instances took as long as all the
    /// rest of a start, and what it saves is some twenty microseconds an instance, of which few are made.
    fn new(compile: Compile) -> wasmtime::Result<Self> {
        let mut config = Config::new();
        config.epoch_interruption(true);
        // The default, of all the addresses that a 32-bit memory has, stays: no access is checked by code then, which makes a
        // quarter less of it. They are reserved, not used; how much a guest may use is in the limits of its instance.
        // The component comes from an optimizing compiler. What this one would add is no hundredth of a decision, and a sixth of
        // the time to compile.
        config.cranelift_opt_level(OptLevel::None);
        // Where values go is what compiling takes longest to find out.
        config.cranelift_regalloc_algorithm(match compile {
            Compile::Quickly => RegallocAlgorithm::SinglePass,
            Compile::Well => RegallocAlgorithm::Backtracking,
        });
        let engine = Engine::new(&config)?;
        let clock = Arc::new(Ticks {
            running: AtomicUsize::new(0),
            stopped: AtomicBool::new(false),
            thread: OnceLock::new(),
        });
        start_clock(&clock, &engine)?;
        Ok(Self { engine, built_in: OnceLock::new(), clock, instances: AtomicUsize::new(0) })
    }

    pub(crate) fn engine(&self) -> &Engine {
        &self.engine
    }

    /// The component of the crate `circuitry-component`, made ready by the first who asks.
    pub(super) fn built_in(&self, cache: Option<&Path>) -> Result<Component, Unready> {
        if let Some(component) = self.built_in.get() {
            // A folder that is not to be trusted is told of, whoever was the first.
            let _ = cache.map(compiled::prepare).transpose()?;
            return Ok(component.clone());
        }
        let component = compiled::component(&self.engine, circuitry_component::WASM, cache)?;
        Ok(self.built_in.get_or_init(|| component).clone())
    }

    /// Counts another instance, if there may be one more.
    pub(super) fn count(self: &Arc<Self>) -> Option<Counted> {
        let one_more = |instances: usize| (instances < INSTANCES_MAX).then_some(instances + 1);
        let counted = self.instances.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more);
        counted.is_ok().then(|| Counted(self.clone()))
    }

    /// Keeps the clock ticking.
    pub(crate) fn ticking(&self) -> Ticking<'_> {
        if self.clock.running.fetch_add(1, Ordering::SeqCst) == 0
            && let Some(thread) = self.clock.thread.get()
        {
            thread.unpark();
        }
        Ticking(&self.clock)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.instances.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Drop for Ticking<'_> {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.clock.stopped.store(true, Ordering::SeqCst);
        if let Some(thread) = self.clock.thread.get() {
            thread.unpark();
        }
    }
}

/// Starts the thread that ticks while calls are under way. It ends with its machine.
fn start_clock(clock: &Arc<Ticks>, engine: &Engine) -> wasmtime::Result<()> {
    let ticks = Arc::downgrade(clock);
    let engine = engine.weak();
    let handle = thread::Builder::new().name("circuitry-clock".into()).spawn(move || {
        loop {
            let (Some(clock), Some(engine)) = (ticks.upgrade(), engine.upgrade()) else { return };
            if clock.stopped.load(Ordering::SeqCst) {
                return;
            }
            let idle = clock.running.load(Ordering::SeqCst) == 0;
            engine.increment_epoch();
            // Neither is kept while it sleeps, so that the machine can go.
            drop((clock, engine));
            if idle { thread::park() } else { thread::sleep(TICK) }
        }
    })?;
    // It was just made, so it is empty.
    let _ = clock.thread.set(handle.thread().clone());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_as_many_instances_as_there_may_be_and_no_more() {
        let machine = Arc::new(Machine::new(Compile::Quickly).expect("an engine"));
        let mut counted: Vec<_> = (0..INSTANCES_MAX).map(|_| machine.count().expect("a place")).collect();
        assert!(machine.count().is_none());
        counted.pop();
        counted.push(machine.count().expect("the place of one that is gone"));
        assert!(machine.count().is_none());
        drop(counted);
        assert_eq!(machine.instances.load(Ordering::Relaxed), 0);
    }
}
