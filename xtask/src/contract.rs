//! What a component may ask of its host: the functions of the interfaces that are named, and nothing else.

use anyhow::{Context, Result, bail};
use wit_component::{DecodedWasm, WitPrinter};
use wit_parser::{Resolve, WorldId, WorldItem};

/// Fails when `component` imports a function of another interface than those of `functions_from`: `package:name/interface`,
/// or `name:*` for all of a namespace. Interfaces may be imported for their types.
pub(crate) fn check_imports(component: &[u8], functions_from: &[&str]) -> Result<()> {
    let (resolve, world) = decoded(component)?;
    let strangers = strangers(&resolve, world, functions_from);
    if !strangers.is_empty() {
        let allowed = if functions_from.is_empty() { "none" } else { &functions_from.join(" and ") };
        bail!(
            "the component imports {}; interfaces of which it may import functions: {allowed}",
            strangers.join(", ")
        );
    }
    Ok(())
}

/// The world of `component` as WIT text: equal for components with the same imports and exports.
pub(crate) fn wit_text(component: &[u8]) -> Result<String> {
    let (resolve, world) = decoded(component)?;
    let package = resolve.worlds[world].package.context("the world has no package")?;
    let nested: Vec<_> = resolve.packages.iter().map(|(id, _)| id).filter(|id| *id != package).collect();
    let mut printer = WitPrinter::default();
    printer.emit_docs(false).print(&resolve, package, &nested)?;
    Ok(printer.output.to_string())
}

fn decoded(component: &[u8]) -> Result<(Resolve, WorldId)> {
    match wit_component::decode(component).context("cannot read the component")? {
        DecodedWasm::Component(resolve, world) => Ok((resolve, world)),
        DecodedWasm::WitPackage(..) => bail!("this is a WIT package, not a component"),
    }
}

/// The imported functions that are not allowed, by interface and name.
fn strangers(resolve: &Resolve, world: WorldId, functions_from: &[&str]) -> Vec<String> {
    let mut strangers = Vec::new();
    for (key, item) in &resolve.worlds[world].imports {
        let name = resolve.name_world_key(key);
        match item {
            WorldItem::Interface { id, .. } => {
                // The version is the contract's own and may change.
                let unversioned = name.split('@').next().unwrap_or_default();
                if !functions_from.iter().any(|allowed| covers(allowed, unversioned)) {
                    let functions = resolve.interfaces[*id].functions.keys();
                    strangers.extend(functions.map(|function| format!("{name}#{function}")));
                }
            }
            WorldItem::Function(_) => strangers.push(name),
            // A type has no code.
            WorldItem::Type { .. } => {}
        }
    }
    strangers
}

/// Whether `interface` is `allowed` itself, or of the namespace that `allowed` names.
fn covers(allowed: &str, interface: &str) -> bool {
    match allowed.strip_suffix('*') {
        Some(namespace) => namespace.ends_with(':') && interface.starts_with(namespace),
        None => allowed == interface,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STORE_AND_HOOKS: &[&str] = &["circuitry:breaker/store", "circuitry:breaker/hooks"];

    fn strangers_of(world: &str, functions_from: &[&str]) -> Vec<String> {
        let mut resolve = Resolve::default();
        let package = resolve
            .push_str(
                "test.wit",
                &format!(
                    "package circuitry:breaker@0.1.0;
                     interface types {{ record entry {{ value: u8 }} }}
                     interface store {{ use types.{{entry}}; load: func() -> entry; }}
                     interface hooks {{ will-trip: func() -> bool; }}
                     interface clock {{ now: func() -> u64; }}
                     {world}"
                ),
            )
            .unwrap();
        let world = resolve.select_world(&[package], None).unwrap();
        strangers(&resolve, world, functions_from)
    }

    #[test]
    fn functions_of_the_named_interfaces_and_types_of_any_may_be_imported() {
        let world = "world a { import store; import hooks; import types; }";
        assert!(strangers_of(world, STORE_AND_HOOKS).is_empty());
    }

    #[test]
    fn a_function_of_another_interface_is_named_as_a_stranger() {
        let world = "world a { import store; import clock; }";
        assert_eq!(strangers_of(world, STORE_AND_HOOKS), ["circuitry:breaker/clock@0.1.0#now"]);
    }

    #[test]
    fn a_function_of_the_world_itself_is_named_as_a_stranger() {
        assert_eq!(strangers_of("world a { import now: func() -> u64; }", STORE_AND_HOOKS), ["now"]);
    }

    #[test]
    fn a_namespace_allows_its_own_interfaces_and_no_other() {
        let world = "world a { import store; import clock; }";
        assert!(strangers_of(world, &["circuitry:*"]).is_empty());
        assert_eq!(strangers_of(world, &["wasi:*", "circuit*"]).len(), 2);
    }

    #[test]
    fn where_no_interface_is_named_types_alone_may_be_imported() {
        assert!(strangers_of("world a { import types; export hooks; }", &[]).is_empty());
        let asks_the_store = strangers_of("world a { import store; export hooks; }", &[]);
        assert_eq!(asks_the_store, ["circuitry:breaker/store@0.1.0#load"]);
    }
}
