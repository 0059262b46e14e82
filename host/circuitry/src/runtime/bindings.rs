//! Generated from `wit/`: the host's half of the contract. Nothing outside `runtime` sees it.
#![allow(missing_docs, unreachable_pub, clippy::all, reason = "generated code")]

wasmtime::component::bindgen!({
    path: "wit",
    world: "circuitry",
    imports: {
        "circuitry:breaker/store": async | trappable,
        "circuitry:breaker/hooks": trappable,
    },
    exports: { default: async },
});
