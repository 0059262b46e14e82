//! What the store logs while a test runs.

use std::sync::{Arc, Mutex};

use tracing::field::{Field, Visit};
use tracing::subscriber::DefaultGuard;
use tracing::{Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

/// The warnings of the store in this thread, until it is dropped.
pub(crate) struct Log {
    warnings: Arc<Mutex<Vec<String>>>,
    _guard: DefaultGuard,
}

impl Log {
    pub(crate) fn begin() -> Self {
        let warnings = Arc::default();
        let subscriber = tracing_subscriber::registry().with(Warnings(Arc::clone(&warnings)));
        Self { warnings, _guard: tracing::subscriber::set_default(subscriber) }
    }

    /// Each with its message and its fields.
    pub(crate) fn warnings(&self) -> Vec<String> {
        self.warnings.lock().expect("nobody has panicked with it").clone()
    }
}

struct Warnings(Arc<Mutex<Vec<String>>>);

impl<S: Subscriber> Layer<S> for Warnings {
    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        let metadata = event.metadata();
        if *metadata.level() <= Level::WARN && metadata.target().starts_with("circuitry") {
            let mut text = Text::default();
            event.record(&mut text);
            self.0.lock().expect("nobody has panicked with it").push(text.0);
        }
    }
}

#[derive(Default)]
struct Text(String);

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        self.0 += &format!("{field}={value:?} ");
    }
}
