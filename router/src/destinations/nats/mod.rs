//! Events as messages to a stream of NATS JetStream.
//!
//! ```text
//! HPUB <subject by the template>
//! Nats-Msg-Id: <id of the event>
//! Nats-Expected-Stream: <stream>            (with `stream`)
//! payload: the JSON object of the file destination
//! ```
//!
//! An event is delivered when the stream has acknowledged it ("JetStream Headers" and "Publishing to
//! Streams" of docs.nats.io). `Nats-Msg-Id` makes the server recognise, within the stream's duplicate
//! window (two minutes unless set), what it has; such events are counted as duplicates. The messages of a
//! request go out on one connection without waiting for each other, so a device's events are stored in
//! order; where the server refuses one for the moment and takes the next, that one comes first.
//!
//! Errors of the server (err_code): 10054 and 10097, the message or its header is larger than the stream
//! allows, and what is larger than `max_payload`, are refused for good. All else is tried again: no
//! stream takes the subject, another stream than expected (10060), the stream is full and set to refuse
//! (10077, "maximum bytes exceeded" and "maximum messages exceeded"), no leader, no permission.

mod encode;
mod sink;

use std::time::Duration;

use crate::config::NatsConfig;
use crate::routes::template::Template;
use encode::NatsEncoder;
use sink::NatsSink;

/// Encoder and sink of a configuration; the error names key and reason.
pub(crate) fn build(config: &NatsConfig, name: &str) -> Result<(NatsEncoder, NatsSink), String> {
    let subject =
        Template::parse(&config.subject).map_err(|reason| format!("subject: {reason}"))?;
    let within = Duration::from_millis(config.timeout_ms);
    let sink = NatsSink::new(config.clone(), format!("thinglog-router/{name}"), within)?;
    Ok((NatsEncoder { subject }, sink))
}

#[cfg(test)]
#[path = "nats_tests.rs"]
mod tests;
