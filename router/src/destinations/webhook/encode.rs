//! Events to bodies of a webhook. Pure.

use std::borrow::Cow;

use thinglog_schemas::{Event, json};

use super::presets;
use crate::config::Preset;
use crate::deliver::remote::request::Request;
use crate::deliver::remote::{Encoder, Limits, Order, Unfit};
use crate::routes::template::Template;

/// The form of a body.
pub(super) enum Form {
    /// `[{...},{...}]`
    Array,
    /// `{...}`
    Object,
    /// A line each.
    Ndjson,
    /// The text of a template, a line each.
    Template(Template),
    /// Datadog's own.
    Datadog,
}

impl Form {
    pub(super) fn content_type(&self) -> &'static str {
        match self {
            Form::Array | Form::Object | Form::Datadog => "application/json",
            Form::Ndjson => "application/x-ndjson",
            Form::Template(_) => "text/plain; charset=utf-8",
        }
    }
}

/// Encodes events as configured.
pub(crate) struct WebhookEncoder {
    pub(super) form: Form,
    pub(super) url: Template,
    pub(super) single: bool,
    pub(super) ordered: bool,
    pub(super) preset: Option<Preset>,
}

/// Between the URL and the rest of a key; in no URL.
const SEPARATOR: char = '\n';

/// The URL of a request.
pub(super) fn url_of(request: &Request) -> &str {
    let key = request.key();
    key.split_once(SEPARATOR).map_or(key, |(url, _)| url)
}

impl Encoder for WebhookEncoder {
    fn limits(&self) -> Limits {
        let usual = match self.preset {
            Some(Preset::Datadog) => presets::DATADOG,
            Some(Preset::SumoLogic) => presets::SUMO_LOGIC,
            None => Limits::USUAL,
        };
        Limits {
            events: if self.single { 1 } else { usual.events },
            overhead: 2,
            ..usual
        }
    }

    fn order(&self) -> Order {
        match self.ordered {
            true => Order::PerDevice,
            false => Order::Any,
        }
    }

    fn key<'a>(&self, event: &'a Event) -> Cow<'a, str> {
        let mut key = Vec::new();
        self.url.write(event, &mut key);
        let mut key = String::from_utf8_lossy(&key).into_owned();
        if self.preset == Some(Preset::SumoLogic) {
            // Its headers speak of one device and source.
            key.push(SEPARATOR);
            key.push_str(&event.device);
            key.push(SEPARATOR);
            key.push_str(&event.source);
        }
        Cow::Owned(key)
    }

    fn encode(&mut self, event: &Event, out: &mut Vec<u8>) -> Result<usize, Unfit> {
        match &self.form {
            Form::Array | Form::Object | Form::Ndjson => json::write(event, out),
            Form::Datadog => presets::write_datadog(event, out),
            Form::Template(template) => template.write(event, out),
        }
        // A comma or a line break.
        Ok(out.len() + 1)
    }

    fn body(&mut self, request: &Request, out: &mut Vec<u8>) {
        let (open, between, close): (&[u8], &[u8], &[u8]) = match self.form {
            Form::Array | Form::Datadog => (b"[", b",", b"]"),
            Form::Object => (b"", b"", b""),
            Form::Ndjson | Form::Template(_) if !self.single => (b"", b"\n", b"\n"),
            Form::Ndjson | Form::Template(_) => (b"", b"", b""),
        };
        out.extend_from_slice(open);
        for (at, piece) in request.pieces().enumerate() {
            if at > 0 {
                out.extend_from_slice(between);
            }
            out.extend_from_slice(piece);
        }
        out.extend_from_slice(close);
    }
}
