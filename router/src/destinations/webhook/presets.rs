//! What is particular about the services that a webhook knows. Pure.

use thinglog_schemas::{Event, Level, json};

use crate::deliver::remote::Limits;
use crate::deliver::remote::request::Request;
use crate::destinations::http::{HeaderMap, HeaderName, HeaderValue};

/// Datadog, "Logs API": at most 1,000 events, 5 MB uncompressed, 1 MB an event.
pub(super) const DATADOG: Limits = Limits {
    events: 1000,
    bytes: 5_000_000,
    event_bytes: 1_000_000,
    ..Limits::USUAL
};

/// Sumo Logic, "HTTP Logs and Metrics Source": 100 KB to 1 MB before compression are recommended.
pub(super) const SUMO_LOGIC: Limits = Limits {
    events: 10_000,
    bytes: 1_000_000,
    ..Limits::USUAL
};

/// One entry of Datadog's array. `timestamp` is ms, `status` a word it knows; attributes stand
/// below `attributes`.
pub(super) fn write_datadog(event: &Event, out: &mut Vec<u8>) {
    let status = match event.severity.level() {
        Level::Error => "error",
        Level::Warn => "warn",
        Level::Info => "info",
        Level::Debug | Level::Disabled => "debug",
    };
    let mut entry = serde_json::json!({
        "message": event.message,
        "ddsource": "thinglog",
        "service": &*event.source,
        "hostname": &*event.device,
        "status": status,
        "timestamp": event.time / 1_000_000,
    });
    if let Some(id) = event.id.text(&event.device) {
        entry["thinglog_id"] = id.into();
    }
    if !event.attributes.is_empty() {
        entry["attributes"] = event.attributes.clone().into();
    }
    json::write_value(&entry, out);
}

/// `X-Sumo-Host` is the device, `X-Sumo-Name` the source.
pub(super) fn add_sumo_headers(request: &Request, headers: &mut HeaderMap) {
    let Some(event) = request.events().next() else {
        return;
    };
    let named = [
        ("x-sumo-host", &event.device),
        ("x-sumo-name", &event.source),
    ];
    for (name, value) in named {
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.insert(HeaderName::from_static(name), value);
        }
    }
}
