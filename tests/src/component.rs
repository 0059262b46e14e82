//! The built component in wasmtime.

#![allow(clippy::result_large_err, reason = "the shape of the error is the one of wit/")]

use std::sync::OnceLock;

use wasmtime::component::{Component, ComponentNamedList, Instance, Lift, Linker, Lower, TypedFunc};
use wasmtime::{Engine, Result, Store, StoreContextMut};

use crate::contract::{
    Answer, Cleared, Decision, Failure, Information, Loaded, Overridden, Renewed, Request, Settings,
    SettingsError, Settled, Started, StoreError, Swapped, TripQuery, Voted,
};
use crate::machine::Machine;
use crate::memory::Memory;
use crate::rules::will_trip;

const BREAKER: &str = "circuitry:breaker/breaker@0.1.0";
const EXCHANGE: &str = "circuitry:breaker/exchange@0.1.0";
const STORE: &str = "circuitry:breaker/store@0.1.0";
const HOOKS: &str = "circuitry:breaker/hooks@0.1.0";

type Answered<T> = (std::result::Result<(T, Loaded), Failure>,);

/// An instance of `circuitry.wasm` with a store in memory.
pub struct ComponentMachine {
    store: Store<Memory>,
    instance: Instance,
}

/// Compiled once for a test process.
fn component() -> &'static (Component, Linker<Memory>) {
    static COMPONENT: OnceLock<(Component, Linker<Memory>)> = OnceLock::new();
    COMPONENT.get_or_init(|| {
        let engine = Engine::default();
        let component = Component::new(&engine, circuitry_component::WASM).expect("circuitry.wasm loads");
        let linker = linker(&engine).expect("the imports have the types of wit/");
        (component, linker)
    })
}

/// The imports: exactly those that `wit/` names.
fn linker(engine: &Engine) -> Result<Linker<Memory>> {
    let mut linker = Linker::new(engine);
    let mut store = linker.instance(STORE)?;
    store.func_wrap("load", |mut host: StoreContextMut<'_, Memory>, (circuit,): (String,)| {
        Ok((host.data_mut().load(&circuit),))
    })?;
    type Swap = (String, Option<Vec<u8>>, Vec<u8>, Option<u64>);
    store.func_wrap(
        "swap",
        |mut host: StoreContextMut<'_, Memory>, (circuit, expected, value, ttl_ms): Swap| {
            let swapped: std::result::Result<Swapped, StoreError> =
                host.data_mut().swap(&circuit, expected.as_deref(), &value, ttl_ms);
            Ok((swapped,))
        },
    )?;
    linker
        .instance(HOOKS)?
        .func_wrap("will-trip", |_: StoreContextMut<'_, Memory>, (query,): (TripQuery,)| {
            Ok((will_trip(&query),))
        })?;
    Ok(linker)
}

impl Default for ComponentMachine {
    fn default() -> Self {
        let (component, linker) = component();
        let mut store = Store::new(component.engine(), Memory::default());
        let instance =
            linker.instantiate(&mut store, component).expect("circuitry.wasm needs no other import");
        Self { store, instance }
    }
}

impl ComponentMachine {
    fn function<P, R>(&mut self, interface: &str, name: &str) -> TypedFunc<P, R>
    where
        P: ComponentNamedList + Lower,
        R: ComponentNamedList + Lift,
    {
        let interface = self.instance.get_export_index(&mut self.store, None, interface);
        let function = self.instance.get_export_index(&mut self.store, interface.as_ref(), name);
        let function = function.unwrap_or_else(|| panic!("circuitry.wasm does not export {name}"));
        self.instance
            .get_typed_func(&mut self.store, function)
            .unwrap_or_else(|error| panic!("{name} has other types than wit/: {error:?}"))
    }

    /// A trap fails the test: no input may make one.
    fn invoke<P, R>(&mut self, interface: &str, name: &str, parameters: P) -> R
    where
        P: ComponentNamedList + Lower,
        R: ComponentNamedList + Lift + 'static,
    {
        let function = self.function::<P, R>(interface, name);
        function.call(&mut self.store, parameters).unwrap_or_else(|trap| panic!("{name} trapped: {trap:?}"))
    }
}

fn answered<T>(
    (result,): Answered<T>,
    answer: impl FnOnce(T) -> Answer,
) -> std::result::Result<(Answer, Loaded), Failure> {
    result.map(|(given, seen)| (answer(given), seen))
}

impl Machine for ComponentMachine {
    fn check(&mut self, settings: &Settings) -> std::result::Result<u64, SettingsError> {
        let (checked,) = self.invoke(BREAKER, "check", (settings,));
        checked
    }

    fn decide(&mut self, request: &Request, loaded: &Loaded, now_ms: u64) -> Decision {
        let (decision,) = self.invoke(EXCHANGE, "decide", (request, loaded, now_ms));
        decision
    }

    fn call(
        &mut self,
        request: &Request,
        known: Option<&Loaded>,
        now_ms: u64,
    ) -> std::result::Result<(Answer, Loaded), Failure> {
        match request {
            Request::Start(ask) => {
                let parameters = (&*ask.circuit, &ask.settings, ask.caller, known, now_ms);
                answered::<Started>(self.invoke(BREAKER, "start", parameters), Answer::Started)
            }
            Request::End(ask) => {
                let parameters = (&*ask.circuit, &ask.settings, ask.caller, known, &*ask.completions, now_ms);
                answered::<Settled>(self.invoke(BREAKER, "end", parameters), Answer::Settled)
            }
            Request::Renew(ask) => {
                let parameters =
                    (&*ask.circuit, &ask.settings, ask.caller, known, ask.era, &*ask.probes, now_ms);
                answered::<Renewed>(self.invoke(BREAKER, "renew", parameters), Answer::Renewed)
            }
            Request::Inspect(ask) => {
                let parameters = (&*ask.circuit, &ask.settings, known, now_ms);
                answered::<Information>(self.invoke(BREAKER, "inspect", parameters), Answer::Inspected)
            }
            Request::SetOverride(ask) => {
                let parameters =
                    (&*ask.circuit, &ask.settings, ask.caller, known, ask.override_.as_ref(), now_ms);
                answered::<Overridden>(self.invoke(BREAKER, "set-override", parameters), Answer::Overridden)
            }
            Request::Vote(ask) => {
                let parameters =
                    (&*ask.circuit, &ask.settings, ask.caller, known, ask.era, &*ask.node_id, now_ms);
                answered::<Voted>(self.invoke(BREAKER, "vote", parameters), Answer::Voted)
            }
            Request::Reset(ask) => {
                let parameters = (&*ask.circuit, &ask.settings, ask.caller, known, now_ms);
                answered::<Cleared>(self.invoke(BREAKER, "reset", parameters), Answer::Cleared)
            }
        }
    }

    fn memory(&mut self) -> &mut Memory {
        self.store.data_mut()
    }
}
