//! The generated types from and to ours: one conversion a type.

mod circuit;
mod exchange;
mod settings;
mod store;

fn all<T, U: From<T>>(items: Vec<T>) -> Vec<U> {
    items.into_iter().map(Into::into).collect()
}
