//! [`Factory`]: makes breakers that share settings, a store and the component.

use std::sync::{Arc, Weak};

use circuitry_store::{Clock, Push, Store};
use futures_util::StreamExt;
use quick_cache::sync::Cache;
use quick_cache::{DefaultHashBuilder, Lifecycle, UnitWeighter};
use tokio::runtime::Handle;
use tokio::task::AbortHandle;

use crate::bounded;
use crate::breaker::Breaker;
use crate::circuit::Circuit;
use crate::context::Context;
use crate::error::{ComponentError, FlushError, SettingsError};
use crate::node::Node;
use crate::runtime::Runtime;
use crate::settings::Settings;

/// Makes breakers. Make one a process and clone it.
#[derive(Clone, Debug)]
pub struct Factory {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    node: Arc<Node>,
    circuits: Cache<Arc<str>, Arc<Circuit>, UnitWeighter, DefaultHashBuilder, InUse>,
    /// How many calls one circuit may have under way.
    calls_per_circuit: usize,
    /// The task that hears of changes.
    listener: Option<AbortHandle>,
}

/// Keeps circuits that somebody holds, so that there are never two of one name, those that refuse for some time yet, and those with
/// something to be flushed.
#[derive(Clone, Debug)]
struct InUse {
    clock: Arc<dyn Clock>,
}

impl Lifecycle<Arc<str>, Arc<Circuit>> for InUse {
    /// What was evicted is dropped outside of the table's lock.
    type RequestState = Vec<Arc<Circuit>>;

    fn is_pinned(&self, _: &Arc<str>, circuit: &Arc<Circuit>) -> bool {
        Arc::strong_count(circuit) > 1 || circuit.is_kept(self.clock.now_ms())
    }

    fn on_evict(&self, evicted: &mut Self::RequestState, _: Arc<str>, circuit: Arc<Circuit>) {
        evicted.push(circuit);
    }
}

impl Factory {
    /// Makes a factory: compiles the component, lets it check the settings. Asks no store. The factory works on the tokio
    /// runtime that it was made on, and as long as that lives.
    ///
    /// # Errors
    /// [`SettingsError`], which names the setting, or the component file and what is wrong with it.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    ///
    /// # Cancel safety
    /// Dropping it makes no factory.
    ///
    /// # Example
    /// ```
    /// # use circuitry::{Context, Factory, Settings};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let factory = Factory::new(Settings::builder().build()?).await?;
    /// let breaker = factory.breaker_for("emails", &Context::tenant("acme"));
    /// assert_eq!(breaker.name(), "emails/acme");
    /// # Ok(()) }
    /// ```
    pub async fn new(settings: Settings) -> Result<Self, SettingsError> {
        let runtime = Runtime::new(&settings.source, settings.limits)?;
        if let Err((field, problem)) = runtime.check(&settings.rules).await? {
            return Err(SettingsError::Invalid { setting: builders_name(&field), problem });
        }
        let capacity = settings.max_circuits;
        let in_use = InUse { clock: settings.clock.clone() };
        let circuits =
            Cache::with(capacity, capacity as u64, UnitWeighter, DefaultHashBuilder::default(), in_use);
        let calls_per_circuit = (settings.limits.max_instances / 4).max(1);
        let node = Node::new(settings, runtime, Handle::current()).map_err(|problem| {
            SettingsError::Component(ComponentError::Unusable { origin: "that is built in".into(), problem })
        })?;
        let node = Arc::new(node);
        let shared = Arc::new_cyclic(|shared| {
            let listens = node.bounded.is_some();
            let listener =
                listens.then(|| node.tasks.spawn(listen(node.store.clone(), shared.clone())).abort_handle());
            Shared { node, circuits, calls_per_circuit, listener }
        });
        Ok(Self { shared })
    }

    /// Settles all outcomes that this process has counted in bounded mode and not yet written; in strict mode there are none.
    /// Call it before the process ends: what is not flushed then is lost, and a factory that is dropped can only try.
    ///
    /// # Errors
    /// [`FlushError`], where the store is down or does not answer in time. What is left is flushed when it is back; call again to
    /// wait for that.
    ///
    /// # Cancel safety
    /// Dropped, it goes on, and no outcome is lost.
    ///
    /// # Example
    /// ```
    /// # use circuitry::{Context, Factory, Settings};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let factory = Factory::new(Settings::builder().build()?).await?;
    /// let breaker = factory.breaker_for("emails", &Context::tenant("acme"));
    /// breaker.execute(|| async { Ok::<_, std::io::Error>(()) }).await?;
    /// factory.flush().await?;
    /// # Ok(()) }
    /// ```
    pub async fn flush(&self) -> Result<(), FlushError> {
        let node = self.shared.node.clone();
        let flushed = self.shared.node.tasks.spawn(async move { bounded::flush_all(&node).await }).await;
        match flushed {
            Ok(0) => Ok(()),
            Ok(unsettled) => Err(FlushError { unsettled }),
            // The runtime has ended, or the store's code panicked.
            Err(_gone) => Err(FlushError { unsettled: bounded::unsettled(&self.shared.node) }),
        }
    }

    /// A handle on the circuit of `name` and `context`, under the name that the name function gives it.
    ///
    /// Costs a look into a table. A name that is out of its bounds (1 to 1,024 bytes) is an error of the first call.
    pub fn breaker_for(&self, name: &str, context: &Context) -> Breaker {
        let shared = &self.shared;
        let circuit_name: Arc<str> = (shared.node.settings.name_fn)(name, context).into();
        let circuit = shared.circuits.get(&circuit_name).unwrap_or_else(|| {
            let made = Arc::new(Circuit::new(
                circuit_name.clone(),
                name.into(),
                context.clone(),
                shared.calls_per_circuit,
                shared.node.first_start(),
            ));
            match shared
                .circuits
                .get_or_insert_with::<_, std::convert::Infallible>(&circuit_name, || Ok(made))
            {
                Ok(circuit) => circuit,
                Err(never) => match never {},
            }
        });
        Breaker::new(shared.node.clone(), circuit, name.into())
    }

    /// Whether the store is taken as down, so that calls take the store-failure way.
    pub fn is_store_down(&self) -> bool {
        self.shared.node.outage.is_down()
    }
}

impl Drop for Shared {
    /// Flushes, as far as there is a runtime left to do it; what is not flushed is reported when the node goes.
    fn drop(&mut self) {
        if let Some(listener) = &self.listener {
            listener.abort();
        }
        if bounded::unsettled(&self.node) > 0 {
            let node = self.node.clone();
            self.node.tasks.spawn(async move { bounded::flush_all(&node).await });
        }
    }
}

/// Hears from the store which circuits others have changed, where it tells. Nothing rests on it: who hears nothing asks when it is
/// time.
async fn listen(store: Arc<dyn Store>, shared: Weak<Shared>) {
    let mut watch = match store.watch().await {
        Ok(Some(watch)) => watch,
        Ok(None) => return,
        Err(error) => {
            tracing::warn!(%error, "the store tells of no changes; circuits are asked about instead");
            return;
        }
    };
    drop(store);
    while let Some(push) = watch.next().await {
        let Some(shared) = shared.upgrade() else { return };
        let Some(bounded) = &shared.node.bounded else { return };
        let changed = match push {
            Push::Changed(name) => shared.circuits.get(name.as_str()).into_iter().collect(),
            _ => bounded.flusher.circuits(),
        };
        for circuit in changed {
            bounded.flusher.changed(&shared.node, &circuit);
        }
    }
}

/// The builder's name for a field of the contract: `backoff.max-ms` is `backoff.max`.
fn builders_name(field: &str) -> String {
    let names = field.split('.').map(|name| name.trim_end_matches("-ms").replace('-', "_"));
    names.collect::<Vec<_>>().join(".")
}
