//! A `tracing_subscriber` layer: what an application logs becomes events of a publisher.

use std::{cell::Cell, fmt, sync::Arc};

use serde_json::Value;
use thinglog_schemas::{Attributes, Severity};
use tracing::{
    Event, Level, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::layer::{Context, Layer};

use crate::{Publisher, Record};

/// Crates whose own logs are about carrying logs; carrying those too would feed on itself.
const OWN: [&str; 3] = ["thinglog_edge", "thinglog_journal", "rumqttc"];

thread_local! {
    /// Set while this thread is inside the layer: a field's `Debug` may log.
    static INSIDE: Cell<bool> = const { Cell::new(false) };
}

/// Marks the thread, also when a field's `Debug` panics on the way out.
struct Inside;

impl Inside {
    fn enter() -> Option<Inside> {
        (!INSIDE.replace(true)).then_some(Inside)
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        INSIDE.set(false);
    }
}

/// Publishes `tracing` events: the message as the message, fields as attributes, the target as
/// attribute `target`, the level mapped to a severity.
pub struct PublisherLayer {
    publisher: Publisher,
    source: Arc<str>,
}

impl PublisherLayer {
    /// Events become those of source `app`.
    pub fn new(publisher: Publisher) -> PublisherLayer {
        PublisherLayer {
            publisher,
            source: "app".into(),
        }
    }

    /// Names the source.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Arc<str>>) -> PublisherLayer {
        self.source = source.into();
        self
    }
}

impl<S: Subscriber> Layer<S> for PublisherLayer {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let metadata = event.metadata();
        let severity = severity(metadata.level());
        if !self.publisher.enabled(severity) || is_own(metadata.target()) {
            return;
        }
        let Some(_inside) = Inside::enter() else {
            return;
        };
        let mut fields = Fields::default();
        event.record(&mut fields);
        let target = metadata.target().into();
        fields.attributes.insert("target".into(), target);
        self.publisher.emit(Record {
            source: self.source.clone(),
            severity,
            message: fields.message,
            attributes: fields.attributes,
            time: None,
            truncated: false,
            monotonic: false,
            mark: None,
        });
    }
}

fn is_own(target: &str) -> bool {
    OWN.iter().any(|own| {
        let rest = target.strip_prefix(own);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
    })
}

fn severity(level: &Level) -> Severity {
    match *level {
        Level::ERROR => Severity::ERROR,
        Level::WARN => Severity::WARN,
        Level::INFO => Severity::INFO,
        Level::DEBUG => Severity::DEBUG,
        Level::TRACE => Severity::TRACE,
    }
}

#[derive(Default)]
struct Fields {
    message: String,
    attributes: Attributes,
}

impl Fields {
    fn put(&mut self, field: &Field, value: Value) {
        self.attributes.insert(field.name().to_owned(), value);
    }
}

impl Visit for Fields {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value.into());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "message" {
            self.message = value.to_owned();
        } else {
            self.put(field, value.into());
        }
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.put(field, value.to_string().into());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let text = format!("{value:?}");
        if field.name() == "message" {
            self.message = text;
        } else {
            self.put(field, text.into());
        }
    }
}
