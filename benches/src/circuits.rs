//! Breakers as a user makes them: default settings, with a matcher and a callback, and what they are called with.

use std::convert::Infallible;

use circuitry::{Breaker, Context, Factory, Settings, SettingsBuilder};

/// Work that does nothing and succeeds.
///
/// # Errors
/// None.
pub async fn no_op() -> Result<(), Infallible> {
    Ok(())
}

/// Default settings, with the default matcher and a callback.
pub fn usual() -> SettingsBuilder {
    Settings::builder().default_fallback_error_matcher().state_change_callback(|_| {})
}

/// A factory of these settings.
///
/// # Panics
/// Where they are refused.
pub async fn factory(settings: SettingsBuilder) -> Factory {
    Factory::new(settings.build().expect("settings")).await.expect("a factory")
}

/// A circuit of this run alone.
pub fn own(factory: &Factory, name: &str) -> Breaker {
    factory.breaker_for(name, &Context::tenant(std::process::id().to_string()))
}

/// One `execute` of nothing.
///
/// # Panics
/// Where it is refused.
pub async fn execute(breaker: &Breaker) {
    breaker.execute(no_op).await.expect("admitted");
}
