//! Components as one: each import that another part exports is met by it, and the first part's exports are those of the whole.

use anyhow::{Context, Result, bail};
use wac_graph::types::Package;
use wac_graph::{CompositionGraph, EncodeOptions, PackageId};

/// Composes `parts`, each with a name for messages. The first is the root: its exports are exported. Every other one meets
/// imports of the parts before it by interface, and is instantiated once, whoever uses it. What no part exports stays an
/// import of the whole.
pub(crate) fn compose(parts: &[(&str, &[u8])]) -> Result<Vec<u8>> {
    let mut graph = CompositionGraph::new();
    let mut packages = Vec::new();
    for (name, component) in parts {
        let package = Package::from_bytes(name, None, *component, graph.types_mut())?;
        packages.push((*name, graph.register_package(package)?));
    }
    let instances: Vec<_> = packages.iter().map(|(_, package)| graph.instantiate(*package)).collect();

    for (index, (name, package)) in packages.iter().enumerate() {
        let mut used = index == 0;
        for export in names(&graph, *package, Side::Exports) {
            for (user, instance) in packages.iter().zip(&instances).take(index) {
                if names(&graph, user.1, Side::Imports).contains(&export) {
                    let provided = graph.alias_instance_export(instances[index], &export)?;
                    graph
                        .set_instantiation_argument(*instance, &export, provided)
                        .with_context(|| format!("{export} of {name} does not fit {}", user.0))?;
                    used = true;
                }
            }
        }
        if !used {
            bail!("{name} exports nothing that a part before it imports");
        }
    }

    let (root, instance) = match (packages.first(), instances.first()) {
        (Some((_, root)), Some(instance)) => (*root, *instance),
        _ => bail!("a composition of nothing"),
    };
    for export in names(&graph, root, Side::Exports) {
        let exported = graph.alias_instance_export(instance, &export)?;
        graph.export(exported, &export)?;
    }
    Ok(graph.encode(EncodeOptions::default())?)
}

enum Side {
    Imports,
    Exports,
}

/// The names on one side of a component, in its own order.
fn names(graph: &CompositionGraph, package: PackageId, side: Side) -> Vec<String> {
    let world = &graph.types()[graph[package].ty()];
    let items = match side {
        Side::Imports => &world.imports,
        Side::Exports => &world.exports,
    };
    items.keys().cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A component that imports the functions `imports` and exports the functions `exports`, all without arguments.
    fn component(imports: &[&str], exports: &[&str]) -> Vec<u8> {
        let mut text = String::from("(component\n");
        for name in imports {
            text += &format!("(import \"{name}\" (func))\n");
        }
        text += "(core module $m (func (export \"f\"))) (core instance $i (instantiate $m))\n";
        for name in exports {
            text += &format!("(func (export \"{name}\") (canon lift (core func $i \"f\")))\n");
        }
        wat::parse_str(text + ")").unwrap()
    }

    fn sides(component: &[u8]) -> (Vec<String>, Vec<String>) {
        let mut graph = CompositionGraph::new();
        let package = Package::from_bytes("whole", None, component, graph.types_mut()).unwrap();
        let package = graph.register_package(package).unwrap();
        (names(&graph, package, Side::Imports), names(&graph, package, Side::Exports))
    }

    #[test]
    fn what_one_part_exports_is_no_import_of_the_whole() {
        let root = component(&["work", "clock"], &["run"]);
        let middle = component(&["store", "clock"], &["work"]);
        let last = component(&["socket"], &["store"]);
        let whole = compose(&[("root", &root), ("middle", &middle), ("last", &last)]).unwrap();
        let (mut imports, exports) = sides(&whole);
        imports.sort();
        assert_eq!(imports, ["clock", "socket"]);
        assert_eq!(exports, ["run"]);
    }

    #[test]
    fn the_same_parts_give_the_same_bytes() {
        let (root, part) = (component(&["a", "b"], &["run"]), component(&[], &["b", "a"]));
        let once = compose(&[("root", &root), ("part", &part)]).unwrap();
        assert_eq!(once, compose(&[("root", &root), ("part", &part)]).unwrap());
    }

    #[test]
    fn a_part_that_nobody_uses_is_refused_by_name() {
        let (root, part) = (component(&["a"], &["run"]), component(&[], &["b"]));
        let error = compose(&[("root", &root), ("part", &part)]).unwrap_err();
        assert_eq!(format!("{error:#}"), "part exports nothing that a part before it imports");
    }
}
