//! The process's one engine, and the clock that interrupts guests.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::thread::{self, Thread};
use std::time::Duration;

use wasmtime::component::Component;
use wasmtime::{Config, Engine, InstanceAllocationStrategy, PoolingAllocationConfig};

use super::compiled::{self, Unready};

/// How often a guest that runs is looked at. A decision takes microseconds, so hardly any sees a tick.
const TICK: Duration = Duration::from_millis(5);
/// The most instances in the process, over all factories.
const INSTANCES_MAX: u32 = 1_000;
/// The most memory that a guest may be allowed.
pub(crate) const MEMORY_MAX_BYTES: usize = 64 << 20;

/// The engine, its built-in component made ready once, and its clock.
pub(crate) struct Machine {
    engine: Engine,
    built_in: OnceLock<Component>,
    clock: Arc<Ticks>,
}

/// Calls under way; the clock runs only while there are any.
struct Ticks {
    running: AtomicUsize,
    stopped: AtomicBool,
    thread: OnceLock<Thread>,
}

/// While it lives, the clock ticks.
pub(crate) struct Ticking<'a>(&'a Ticks);

impl Machine {
    /// The engine of this process; it lives as long as a factory does.
    pub(crate) fn shared() -> Result<Arc<Self>, String> {
        static SHARED: Mutex<Weak<Machine>> = Mutex::new(Weak::new());
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(machine) = shared.upgrade() {
            return Ok(machine);
        }
        let machine = Arc::new(Self::new().map_err(|error| format!("wasmtime does not start: {error:#}"))?);
        *shared = Arc::downgrade(&machine);
        Ok(machine)
    }

    fn new() -> wasmtime::Result<Self> {
        let mut pool = PoolingAllocationConfig::new();
        pool.total_component_instances(INSTANCES_MAX);
        pool.total_core_instances(INSTANCES_MAX.saturating_mul(4));
        // A component composed with a rule of the user's own has two modules with memories.
        pool.total_memories(INSTANCES_MAX.saturating_mul(2));
        pool.total_tables(INSTANCES_MAX.saturating_mul(4));
        pool.total_stacks(INSTANCES_MAX);
        pool.max_memory_size(MEMORY_MAX_BYTES);
        let mut config = Config::new();
        config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
        config.epoch_interruption(true);
        // A slot of the pool need not reserve the 4 GiB of a memory that may grow without limit.
        config.memory_reservation(MEMORY_MAX_BYTES as u64);
        let engine = Engine::new(&config)?;
        let clock = Arc::new(Ticks {
            running: AtomicUsize::new(0),
            stopped: AtomicBool::new(false),
            thread: OnceLock::new(),
        });
        start_clock(&clock, &engine)?;
        Ok(Self { engine, built_in: OnceLock::new(), clock })
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
