//! Events as publishes at QoS 1 of MQTT 5: to another broker, or, as the log emitter, to the router's
//! own, on topics that are durable there.
//!
//! ```text
//! PUBLISH  QoS 1, topic by the template or <root>/out/<route>/<device>
//!          payload format indicator 1 (UTF-8)
//!          content type application/json, or application/x-ndjson
//!          payload: the JSON object of the file destination, or such objects, a line each
//! ```
//!
//! What holds, with the sections of "MQTT Version 5.0":
//!
//! - An event is delivered when its PUBACK has come (4.3.2). A reason from 0x80 up is an error
//!   ([`verdict`]); 0x10, nobody has subscribed, is none.
//! - A connection has no more publishes under way than CONNACK's Receive Maximum allows (3.2.2.3.3).
//! - A packet larger than CONNACK's Maximum Packet Size is not sent (3.2.2.3.6) but is a dead letter.
//! - Each lane has a connection and a clean session of its own. A device's events go through one lane,
//!   in order (4.6). What has no PUBACK when a connection ends is published again, so the broker may
//!   get it twice: the `id` in the payload tells.

//!
//! **Circles.** What is published to another broker may come back over bridges, and would go round for
//! ever, as a new event each time. So each event says by which destinations it went, in the key `via` of
//! its object, which a router that receives it keeps as an attribute: one that has come back, or has
//! passed sixteen, is not published again but becomes a dead letter that says so.

mod connection;
mod encode;
mod sink;
mod verdict;

use std::time::Duration;

use bytes::{BufMut, BytesMut};
use thinglog_schemas::Topics;

use crate::config::{EmitterConfig, Endpoint, MQTT_SCHEMES, MqttConfig, MqttFormat, Secret};
use crate::net::address::Address;
use crate::net::wire::Server;
use crate::routes::template::Template;
use connection::Login;
use encode::{MqttEncoder, Place};
use sink::MqttSink;

/// Longest wait for the router's own broker.
const EMITTER_TIMEOUT: Duration = Duration::from_secs(10);

/// Encoder and sink for another broker; `id` tells this destination from all others there are. The error names
/// key and reason.
pub(crate) fn build(
    config: &MqttConfig,
    name: &str,
    id: &str,
) -> Result<(MqttEncoder, MqttSink), String> {
    let address = Address::parse(&config.broker, &MQTT_SCHEMES);
    let address = address.map_err(|reason| format!("broker: {reason}"))?;
    let topic = Template::parse(&config.topic).map_err(|reason| format!("topic: {reason}"))?;
    let tls = (address.scheme == "mqtts").then_some(&config.tls);
    let within = Duration::from_millis(config.timeout_ms);
    let server = Server::new(address, tls, within)?;
    let login = login(config.username.clone(), config.password.clone());
    if let Some(login) = &login {
        login.read()?;
    }
    let client_id = config.client_id.clone();
    let client_id = client_id.unwrap_or_else(|| format!("thinglog-router/{name}"));
    let encoder = MqttEncoder {
        place: Place::Template(topic),
        id: Some(id.to_owned()),
        format: config.format,
        retain: config.retain,
        properties: properties(config.format, config.expiry_s),
    };
    Ok((encoder, MqttSink::new(server, login, &client_id, within)?))
}

/// Encoder and sink of the log emitter, called `name`.
pub(crate) fn emitter(
    config: &EmitterConfig,
    name: &str,
    broker: &Endpoint,
    topics: &Topics,
) -> Result<(MqttEncoder, MqttSink), String> {
    let server = broker.server(EMITTER_TIMEOUT);
    let server = server.map_err(|error| format!("router.{error}"))?;
    let password = broker.password.clone().map(Secret::Text);
    let login = login(broker.username.clone(), password);
    let client_id = format!("thinglog-router/{name}/out");
    let encoder = MqttEncoder {
        place: Place::Out {
            topics: topics.clone(),
            route: config.route.clone().unwrap_or_else(|| name.to_owned()),
        },
        id: None,
        format: MqttFormat::Json,
        retain: false,
        properties: properties(MqttFormat::Json, None),
    };
    let sink = MqttSink::new(server, login, &client_id, EMITTER_TIMEOUT)?;
    Ok((encoder, sink))
}

fn login(username: Option<String>, password: Option<Secret>) -> Option<Login> {
    let username = username?;
    Some(Login { username, password })
}

/// The properties of every PUBLISH with their length in front (section 3.3.2.3): less than 128 bytes.
fn properties(format: MqttFormat, expiry_s: Option<u32>) -> Vec<u8> {
    let content_type: &[u8] = match format {
        MqttFormat::Json => b"application/json",
        MqttFormat::Ndjson => b"application/x-ndjson",
    };
    let mut properties = BytesMut::new();
    // Payload Format Indicator: UTF-8.
    properties.put_slice(&[0x01, 1]);
    if let Some(seconds) = expiry_s {
        properties.put_u8(0x02);
        properties.put_u32(seconds);
    }
    // Content Type.
    properties.put_slice(&[0x03, 0, content_type.len() as u8]);
    properties.put_slice(content_type);
    let mut out = vec![properties.len() as u8];
    out.extend_from_slice(&properties);
    out
}

#[cfg(test)]
#[path = "mqtt_tests.rs"]
mod tests;
