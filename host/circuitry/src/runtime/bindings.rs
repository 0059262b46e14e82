//! Generated from `wit/`: the host's half of the contract. Nothing outside `runtime` sees it.
#![allow(missing_docs, unreachable_pub, clippy::all, reason = "generated code")]

wasmtime::component::bindgen!({
    path: "wit",
    world: "circuitry",
    imports: {
        "circuitry:breaker/store": async | trappable,
        "circuitry:breaker/hooks": trappable,
    },
    // `exchange` asks nothing of the host that could wait, so it needs no fiber.
    exports: { "circuitry:breaker/breaker": async },
});
