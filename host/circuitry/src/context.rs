//! [`Context`]: what a breaker is for, beside its name.

use std::sync::Arc;

/// What a breaker is for, beside its name: the tenant, the region. Cheap to clone; goes to the name function and to
/// the state-change callback, so keep secrets out of it.
///
/// # Example
/// ```
/// # use circuitry::Context;
/// let context = Context::tenant("acme").with("region", "eu");
/// assert_eq!(context.value("tenant"), Some("acme"));
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Context {
    /// In the order of the keys. There are few, and a circuit keeps them: a tree of them would be half of what it takes.
    values: Arc<Vec<(Box<str>, Box<str>)>>,
}

/// The key of the tenant in a [`Context`].
pub const TENANT: &str = "tenant";

impl Context {
    /// Nothing beside the name.
    pub fn new() -> Self {
        Self::default()
    }

    /// The context of a tenant's jobs.
    pub fn tenant(id: impl Into<String>) -> Self {
        Self::new().with(TENANT, id)
    }

    /// The same with one value more; a value of the same key is replaced.
    #[must_use]
    pub fn with(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        let (key, value) = (key.into().into_boxed_str(), value.into().into_boxed_str());
        let found = self.find(&key);
        let values = Arc::make_mut(&mut self.values);
        match found {
            Ok(index) => values[index].1 = value,
            Err(index) => {
                values.reserve_exact(1);
                values.insert(index, (key, value));
            }
        }
        self
    }

    /// The value of `key`.
    pub fn value(&self, key: &str) -> Option<&str> {
        self.find(key).ok().map(|index| &*self.values[index].1)
    }

    /// All keys and values, in the order of the keys.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.values.iter().map(|(key, value)| (&**key, &**value))
    }

    /// Where `key` is, or would be.
    fn find(&self, key: &str) -> Result<usize, usize> {
        self.values.binary_search_by(|(known, _)| (**known).cmp(key))
    }
}

/// The default name of a circuit: the name itself, and `name/tenant` where the context has a tenant.
///
/// So that no two pairs share a circuit, `%` and `/` within a part become `%25` and `%2F`.
///
/// ```
/// # use circuitry::{default_name, Context};
/// assert_eq!(default_name("emails", &Context::new()), "emails");
/// assert_eq!(default_name("emails", &Context::tenant("acme")), "emails/acme");
/// assert_eq!(default_name("emails", &Context::tenant("a/b")), "emails/a%2Fb");
/// ```
pub fn default_name(name: &str, context: &Context) -> String {
    match context.value(TENANT) {
        None => escape(name),
        Some(tenant) => format!("{}/{}", escape(name), escape(tenant)),
    }
}

fn escape(part: &str) -> String {
    part.replace('%', "%25").replace('/', "%2F")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_in_the_order_of_their_keys_and_the_last_one_of_a_key_stands() {
        let context = Context::tenant("acme").with("region", "eu").with("zone", "1").with("region", "us");
        let values: Vec<_> = context.iter().collect();
        assert_eq!(values, [("region", "us"), ("tenant", "acme"), ("zone", "1")]);
        assert_eq!((context.value("region"), context.value("nothing")), (Some("us"), None));
    }

    #[test]
    fn what_is_added_to_a_clone_is_not_in_the_other() {
        let first = Context::tenant("acme");
        let second = first.clone().with("tenant", "birch");
        assert_eq!((first.value("tenant"), second.value("tenant")), (Some("acme"), Some("birch")));
    }
}
