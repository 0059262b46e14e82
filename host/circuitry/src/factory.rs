//! [`Factory`]: makes breakers that share settings, a store and the component.

use std::sync::Arc;
use std::time::Duration;

use circuitry_store::{Loaded, Store, StoreError, Swapped, Version};
use quick_cache::sync::Cache;
use tokio::runtime::Handle;

use crate::breaker::Breaker;
use crate::circuit::Circuit;
use crate::context::Context;
use crate::error::SettingsError;
use crate::metering;
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
    circuits: Cache<Arc<str>, Arc<Circuit>>,
    /// How many calls one circuit may have under way.
    calls_per_circuit: usize,
}

impl Factory {
    /// Makes a factory: compiles the component, lets it check the settings. Asks no store.
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
            let setting = field.trim_end_matches("-ms").replace('-', "_");
            return Err(SettingsError::Invalid { setting, problem });
        }
        let store = Arc::new(Counted { store: settings.store.clone() });
        let circuits = Cache::new(settings.max_circuits);
        let calls_per_circuit = (settings.limits.max_instances / 8).max(1);
        let node = Arc::new(Node::new(settings, store, runtime, Handle::current()));
        Ok(Self { shared: Arc::new(Shared { node, circuits, calls_per_circuit }) })
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
            ));
            match shared
                .circuits
                .get_or_insert_with::<_, std::convert::Infallible>(&circuit_name, || Ok(made))
            {
                Ok(circuit) => circuit,
                Err(never) => match never {},
            }
        });
        Breaker::new(shared.node.clone(), circuit)
    }

    /// Whether the store is taken as down, so that calls take the store-failure way.
    pub fn is_store_down(&self) -> bool {
        self.shared.node.outage.is_down()
    }
}

/// The user's store, with its operations counted.
#[derive(Debug)]
struct Counted<S> {
    store: S,
}

#[async_trait::async_trait]
impl Store for Counted<Arc<dyn Store>> {
    async fn load(&self, circuit: &str) -> Result<Loaded, StoreError> {
        let loaded = self.store.load(circuit).await;
        metering::load(&loaded);
        loaded
    }

    async fn swap(
        &self,
        circuit: &str,
        expected: Option<&Version>,
        value: &[u8],
        ttl: Option<Duration>,
    ) -> Result<Swapped, StoreError> {
        let swapped = self.store.swap(circuit, expected, value, ttl).await;
        metering::swap(&swapped);
        swapped
    }
}
