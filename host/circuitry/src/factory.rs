//! [`Factory`]: makes breakers that share settings, a store and the component.

use std::sync::Arc;

use quick_cache::sync::Cache;
use quick_cache::{DefaultHashBuilder, Lifecycle, UnitWeighter};
use tokio::runtime::Handle;

use crate::breaker::Breaker;
use crate::circuit::Circuit;
use crate::context::Context;
use crate::error::{ComponentError, SettingsError};
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
}

/// Keeps circuits that somebody holds, so that there are never two of one name.
#[derive(Clone, Copy, Debug)]
struct InUse;

impl Lifecycle<Arc<str>, Arc<Circuit>> for InUse {
    /// What was evicted is dropped outside of the table's lock.
    type RequestState = Vec<Arc<Circuit>>;

    fn is_pinned(&self, _: &Arc<str>, circuit: &Arc<Circuit>) -> bool {
        Arc::strong_count(circuit) > 1
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
        let circuits =
            Cache::with(capacity, capacity as u64, UnitWeighter, DefaultHashBuilder::default(), InUse);
        let calls_per_circuit = (settings.limits.max_instances / 4).max(1);
        let node = Node::new(settings, runtime, Handle::current()).map_err(|error| {
            SettingsError::Component(ComponentError::Unusable {
                origin: "that is built in".into(),
                problem: format!("the operating system gave no random number for this process: {error}"),
            })
        })?;
        let node = Arc::new(node);
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

/// The builder's name for a field of the contract: `backoff.max-ms` is `backoff.max`.
fn builders_name(field: &str) -> String {
    let names = field.split('.').map(|name| name.trim_end_matches("-ms").replace('-', "_"));
    names.collect::<Vec<_>>().join(".")
}
