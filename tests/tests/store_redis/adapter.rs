//! `store-redis.wasm` as a store of circuitry.

use std::sync::LazyLock;
use std::time::Duration;

use circuitry_store::store::ttl_ms;
use circuitry_store::{Store, StoreError, Version};
use circuitry_tests::contract::{Loaded, Swapped};
use circuitry_tests::fleet::PATIENT;
use tokio::sync::Mutex;
use wasmtime::Engine;
use wasmtime::component::{
    Component, ComponentNamedList, Instance, InstancePre, Lift, Linker, Lower, ResourceTable,
};
use wasmtime_wasi::{WasiCtx, WasiCtxBuilder, WasiCtxView, WasiView};

use crate::answers::{Answer, error, loaded, swapped};

const STORE: &str = "circuitry:breaker/store@0.1.0";

/// What an instance has of the host.
struct Guest {
    wasi: WasiCtx,
    table: ResourceTable,
}

impl WasiView for Guest {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.table }
    }
}

/// It takes a second to compile, so once for the test process.
static COMPONENT: LazyLock<InstancePre<Guest>> = LazyLock::new(|| {
    let engine = Engine::default();
    let mut linker = Linker::new(&engine);
    wasmtime_wasi::p2::add_to_linker_async(&mut linker).expect("the interfaces of WASI");
    let adapter = include_bytes!("../../../host/component/store-redis.wasm");
    let component = Component::new(&engine, adapter).expect("a component");
    linker.instantiate_pre(&component).expect("it needs nothing but wasi:*")
});

/// How an instance is set up.
#[derive(Clone)]
pub(crate) struct Setup {
    pub(crate) redis_url: String,
    pub(crate) prefix: String,
    pub(crate) timeout: Duration,
    /// Whether the host lets it connect.
    pub(crate) may_connect: bool,
    /// Whether the host looks names up for it.
    pub(crate) may_look_up: bool,
}

impl Setup {
    /// With a timeout that a busy machine does not run into.
    pub(crate) fn new(redis_url: &str, prefix: &str) -> Self {
        Self {
            redis_url: redis_url.to_owned(),
            prefix: prefix.to_owned(),
            timeout: PATIENT,
            may_connect: true,
            may_look_up: true,
        }
    }

    /// An instance, with a connection of its own once it needs one.
    pub(crate) async fn start(&self) -> Adapter {
        let mut wasi = WasiCtxBuilder::new();
        wasi.env("CIRCUITRY_REDIS_URL", &self.redis_url)
            .env("CIRCUITRY_REDIS_PREFIX", &self.prefix)
            .env("CIRCUITRY_STORE_TIMEOUT_MS", self.timeout.as_millis().to_string())
            .inherit_network()
            .allow_tcp(self.may_connect)
            .allow_ip_name_lookup(self.may_look_up);
        let guest = Guest { wasi: wasi.build(), table: ResourceTable::new() };
        let mut store = wasmtime::Store::new(COMPONENT.engine(), guest);
        let instance = COMPONENT.instantiate_async(&mut store).await.expect("an instance");
        Adapter(Mutex::new(Running { store, instance }))
    }
}

struct Running {
    store: wasmtime::Store<Guest>,
    instance: Instance,
}

impl Running {
    async fn call<P, R>(&mut self, name: &str, parameters: P) -> R
    where
        P: ComponentNamedList + Lower + Send + Sync,
        R: ComponentNamedList + Lift + Send + Sync + 'static,
    {
        let interface = self.instance.get_export_index(&mut self.store, None, STORE);
        let function = self.instance.get_export_index(&mut self.store, interface.as_ref(), name);
        let function = function.unwrap_or_else(|| panic!("{name} is not exported"));
        let function = self.instance.get_typed_func::<P, R>(&mut self.store, function);
        let function = function.unwrap_or_else(|error| panic!("{name} has other types than wit/: {error:?}"));
        let answer = function.call_async(&mut self.store, parameters).await;
        answer.unwrap_or_else(|trap| panic!("{name} trapped: {trap:?}"))
    }
}

/// An instance. Whoever calls it waits for who calls it already, as in every host.
pub(crate) struct Adapter(Mutex<Running>);

#[async_trait::async_trait]
impl Store for Adapter {
    async fn load(&self, circuit: &str) -> Result<circuitry_store::Loaded, StoreError> {
        let (answer,): (Answer<Loaded>,) = self.0.lock().await.call("load", (circuit,)).await;
        answer.map(loaded).map_err(error)
    }

    async fn swap(
        &self,
        circuit: &str,
        expected: Option<&Version>,
        value: &[u8],
        ttl: Option<Duration>,
    ) -> Result<circuitry_store::Swapped, StoreError> {
        let parameters = (circuit, expected.map(Version::as_bytes), value, ttl.map(ttl_ms));
        let (answer,): (Answer<Swapped>,) = self.0.lock().await.call("swap", parameters).await;
        swapped(answer)
    }
}
