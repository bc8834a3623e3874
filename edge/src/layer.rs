//! A `tracing_subscriber` layer: what an application logs becomes events of a publisher.

use std::{fmt, sync::Arc};

use serde_json::Value;
use thinglog_schemas::{Attributes, Severity};
use tracing::{
    Event, Level, Metadata, Subscriber,
    field::{Field, Visit},
    level_filters::LevelFilter,
    span,
    subscriber::Interest,
};
use tracing_subscriber::{
    filter::Filtered,
    layer::{Context, Filter, Layer},
    registry::LookupSpan,
};

use crate::{
    Publisher, Record,
    own::{Inside, is_own},
};

/// Publishes `tracing` events: the message as the message, fields as attributes, the target as
/// attribute `target`, the level mapped to a severity. What is below the publisher's level is left
/// out, and so are the logs of the crates that carry logs.
///
/// ```no_run
/// use thinglog_edge::{Publisher, PublisherLayer};
/// use tracing_subscriber::prelude::*;
///
/// let publisher = Publisher::builder("lamp-7").start()?;
/// let layer = PublisherLayer::new(publisher.clone()).with_source("lampd").with_span_fields();
/// tracing_subscriber::registry().with(layer.filtered()).init();
/// tracing::warn!(celsius = 91, "bulb is hot");
/// # Ok::<(), thinglog_edge::BuildError>(())
/// ```
pub struct PublisherLayer {
    publisher: Publisher,
    source: Arc<str>,
    spans: bool,
}

impl PublisherLayer {
    /// Events become those of source `app`.
    pub fn new(publisher: Publisher) -> PublisherLayer {
        PublisherLayer {
            publisher,
            source: "app".into(),
            spans: false,
        }
    }

    /// Names the source.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Arc<str>>) -> PublisherLayer {
        self.source = source.into();
        self
    }

    /// Adds the fields of the spans an event is in to its attributes, and the spans' names, outermost
    /// first and joined by `:`, as attribute `span`. Of fields with the same name the nearest counts.
    #[must_use]
    pub fn with_span_fields(mut self) -> PublisherLayer {
        self.spans = true;
        self
    }

    /// The layer behind a filter of its own, so that `tracing` knows which levels the publisher takes
    /// at the moment: a callsite that nobody takes costs one comparison. Other layers see what they
    /// saw before. Levels that are set from afar take effect here as well.
    pub fn filtered<S>(self) -> Filtered<PublisherLayer, PublisherFilter, S>
    where
        S: Subscriber + for<'a> LookupSpan<'a>,
    {
        self.publisher
            .follow_gate(|_| tracing::callsite::rebuild_interest_cache());
        let publisher = self.publisher.clone();
        self.with_filter(PublisherFilter { publisher })
    }

    /// The attributes of the spans around an event, outermost first.
    fn collect_spans<S>(&self, event: &Event<'_>, context: &Context<'_, S>) -> Attributes
    where
        S: Subscriber + for<'a> LookupSpan<'a>,
    {
        let mut attributes = Attributes::new();
        let mut names = String::new();
        for span in context
            .event_scope(event)
            .into_iter()
            .flat_map(|scope| scope.from_root())
        {
            if !names.is_empty() {
                names.push(':');
            }
            names.push_str(span.name());
            if let Some(fields) = span.extensions().get::<SpanFields>() {
                attributes.extend(fields.0.clone());
            }
        }
        if !names.is_empty() {
            attributes.insert("span".into(), names.into());
        }
        attributes
    }
}

/// What a span was given, kept with it.
struct SpanFields(Attributes);

impl<S> Layer<S> for PublisherLayer
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    fn on_new_span(
        &self,
        attributes: &span::Attributes<'_>,
        id: &span::Id,
        context: Context<'_, S>,
    ) {
        if self.spans
            && let Some(_inside) = Inside::enter()
            && let Some(span) = context.span(id)
        {
            // Before the extensions are locked: a field's `Debug` is anybody's code.
            let mut fields = Fields::default();
            attributes.record(&mut fields);
            span.extensions_mut().replace(SpanFields(fields.of_span()));
        }
    }

    fn on_record(&self, id: &span::Id, values: &span::Record<'_>, context: Context<'_, S>) {
        if self.spans
            && let Some(_inside) = Inside::enter()
            && let Some(span) = context.span(id)
        {
            let mut fields = Fields::default();
            values.record(&mut fields);
            let mut extensions = span.extensions_mut();
            if let Some(known) = extensions.get_mut::<SpanFields>() {
                known.0.extend(fields.of_span());
            }
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let metadata = event.metadata();
        let severity = severity(metadata.level());
        if !self.publisher.enabled(severity) || is_own(metadata.target()) {
            return;
        }
        let Some(_inside) = Inside::enter() else {
            return;
        };
        let mut fields = Fields::default();
        if self.spans {
            fields.attributes = self.collect_spans(event, &context);
        }
        event.record(&mut fields);
        let target = match metadata.target() {
            "log" => fields.take_logged_target(),
            target => target.into(),
        };
        if target.as_str().is_some_and(is_own) {
            return;
        }
        fields.attributes.insert("target".into(), target);
        self.publisher.emit(Record {
            attributes: fields.attributes,
            ..Record::new(self.source.clone(), severity, fields.message)
        });
    }
}

/// Passes what the publisher takes at the moment; see [`PublisherLayer::filtered`].
pub struct PublisherFilter {
    publisher: Publisher,
}

impl PublisherFilter {
    fn passes(&self, metadata: &Metadata<'_>) -> bool {
        self.publisher.enabled(severity(metadata.level())) && !is_own(metadata.target())
    }
}

impl<S> Filter<S> for PublisherFilter {
    fn enabled(&self, metadata: &Metadata<'_>, _: &Context<'_, S>) -> bool {
        self.passes(metadata)
    }

    fn callsite_enabled(&self, metadata: &'static Metadata<'static>) -> Interest {
        // Levels change; what is cached for good is only what never does.
        match is_own(metadata.target()) {
            true => Interest::never(),
            false => Interest::sometimes(),
        }
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        let levels = [
            Level::TRACE,
            Level::DEBUG,
            Level::INFO,
            Level::WARN,
            Level::ERROR,
        ];
        let most_verbose = levels
            .into_iter()
            .find(|level| self.publisher.enabled(severity(level)));
        Some(most_verbose.map_or(LevelFilter::OFF, LevelFilter::from_level))
    }
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

    /// A span has no message; a field of that name is a field.
    fn of_span(mut self) -> Attributes {
        if !self.message.is_empty() {
            self.attributes
                .insert("message".into(), self.message.into());
        }
        self.attributes
    }

    /// An event that came over from the `log` crate says in fields where it is from (`tracing-log`).
    fn take_logged_target(&mut self) -> Value {
        for place in ["log.module_path", "log.file", "log.line"] {
            self.attributes.remove(place);
        }
        let target = self.attributes.remove("log.target");
        target.unwrap_or_else(|| "log".into())
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
