//! What the library logs while a test runs.

use std::sync::{Arc, Mutex};

use tracing::field::{Field, Visit};
use tracing::subscriber::DefaultGuard;
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

/// The events of the library, in their order.
#[derive(Clone, Default)]
pub(crate) struct Log {
    events: Arc<Mutex<Vec<Event>>>,
}

#[derive(Default)]
struct Event {
    message: String,
    /// The fields, one after another.
    fields: String,
}

impl Log {
    /// Keeps what is logged in this thread until the guard is dropped.
    pub(crate) fn watch() -> (Self, DefaultGuard) {
        let log = Self::default();
        let guard = tracing::subscriber::set_default(tracing_subscriber::registry().with(log.clone()));
        (log, guard)
    }

    /// How many events there were.
    pub(crate) fn len(&self) -> usize {
        self.events.lock().unwrap().len()
    }

    /// How many messages began so.
    pub(crate) fn count(&self, beginning: &str) -> usize {
        self.events.lock().unwrap().iter().filter(|event| event.message.starts_with(beginning)).count()
    }

    /// The fields of the first event whose message began so.
    pub(crate) fn fields(&self, beginning: &str) -> String {
        let events = self.events.lock().unwrap();
        let event = events.iter().find(|event| event.message.starts_with(beginning));
        event.map(|event| event.fields.clone()).unwrap_or_default()
    }
}

impl Visit for Event {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        if field.name() == "message" {
            self.message = format!("{value:?}");
        } else {
            self.fields += &format!("{field}={value:?} ");
        }
    }
}

impl<S: tracing::Subscriber> Layer<S> for Log {
    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        if event.metadata().target().starts_with("circuitry") {
            let mut seen = Event::default();
            event.record(&mut seen);
            self.events.lock().unwrap().push(seen);
        }
    }
}
