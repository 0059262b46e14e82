//! [`Context`]: what a breaker is for, beside its name.

use std::collections::BTreeMap;
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
    values: Arc<BTreeMap<String, String>>,
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
        Arc::make_mut(&mut self.values).insert(key.into(), value.into());
        self
    }

    /// The value of `key`.
    pub fn value(&self, key: &str) -> Option<&str> {
        self.values.get(key).map(String::as_str)
    }

    /// All keys and values, in the order of the keys.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.values.iter().map(|(key, value)| (key.as_str(), value.as_str()))
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
