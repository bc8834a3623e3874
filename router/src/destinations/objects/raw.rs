//! Payloads as they came, for an archive that can be brought in again: `format = "raw"`.
//!
//! An object is NDJSON, compressed as `compression` says: a line for each MQTT payload, in the order in
//! which the broker received them within a path.
//!
//! ```json
//! {"topic":"thinglog/logs/lamp-7/app","offset":"00000000000000aa/1234",
//!  "received":"2026-01-02T03:04:05.000000006Z","principal":"lamp-7","address":"192.0.2.7",
//!  "payload_base64":"aGVsbG8="}
//! ```
//!
//! `topic`, `received` and `payload_base64` are always there. `offset` is the broker's journal and the
//! place in it, and never stands twice in an archive; it is missing behind brokers that number nothing,
//! as are `principal` and `address` where nothing is known of them.
//!
//! **Why lines.** Whoever opens an archive in five years has a shell, Python, DuckDB or Spark, but hardly
//! this program: lines of JSON need no reader of our own, a torn or damaged object still gives all lines
//! before the damage, objects can be put one behind the other as they are, and what a line is stands in
//! it. Base64 adds a third, which zstd takes back: its letters carry six bits of eight. The batches
//! inside stay as the device compressed them.
//!
//! **What is in it.** Everything that arrived on `<root>/logs/#`, before levels, roles and redaction, and
//! also what nobody could read. A `when`, `roles` or route has no meaning here and is refused. The books
//! count payloads, and `thinglog tap` shows nothing.
//!
//! **Bringing it in again** takes no more than publishing each payload on its topic, at QoS 1; the page of the
//! destination, `docs/destinations/object-store.md`, has the commands of a shell for it.
//!
//! Events of the embedded publisher keep their ids in it: destinations that have them take them for
//! repeats, all others get them once. Events of plain MQTT clients get new ids, and the time of their second
//! arrival unless they bring one.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use thinglog_schemas::json;

use crate::destinations::layout::Subject;
use crate::mqtt::Delivery;

/// What the path of a payload is made for. A topic that names no device and source has neither.
pub(super) fn subject(payload: &Delivery) -> Subject<'_> {
    let names = payload.topic.logs.as_ref().ok();
    Subject {
        received: payload.stamp.received,
        device: names.map(|names| &names.device),
        source: names.map_or("", |names| &names.source),
        level: "",
    }
}

/// Appends a payload's line, without its end.
pub(super) fn write(payload: &Delivery, out: &mut Vec<u8>) {
    let stamp = &payload.stamp;
    out.extend_from_slice(b"{\"topic\":");
    json::write_string(&payload.topic.text, out);
    if let Some((journal, offset)) = stamp.stored {
        out.extend_from_slice(format!(",\"offset\":\"{journal:016x}/{offset}\"").as_bytes());
    }
    out.extend_from_slice(b",\"received\":\"");
    json::write_time(stamp.received, out);
    out.push(b'"');
    let known = [("principal", &stamp.principal), ("address", &stamp.address)];
    for (key, value) in known {
        if let Some(value) = value {
            out.extend_from_slice(format!(",\"{key}\":").as_bytes());
            json::write_string(value, out);
        }
    }
    out.extend_from_slice(b",\"payload_base64\":\"");
    out.extend_from_slice(STANDARD.encode(&payload.payload).as_bytes());
    out.extend_from_slice(b"\"}");
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::Value;
    use thinglog_schemas::Topics;

    use super::*;
    use crate::mqtt::names::TopicInfo;
    use crate::testing::delivery;

    fn line(payload: &Delivery) -> Value {
        let mut out = Vec::new();
        write(payload, &mut out);
        assert!(!out.contains(&b'\n'));
        serde_json::from_slice(&out).unwrap()
    }

    #[test]
    fn a_line_says_everything_that_is_known_of_a_payload() {
        let mut payload = delivery(&b"\x00\xffhello"[..], Some(1234));
        payload.stamp.received = 1_767_323_045_000_000_006;
        payload.stamp.principal = Some(Arc::from("lamp \"7\""));
        payload.stamp.address = Some(Arc::from("192.0.2.7"));
        let said = line(&payload);
        assert_eq!(said["topic"], "thinglog/logs/lamp-7/app");
        assert_eq!(said["offset"], "0000000000000001/1234");
        assert_eq!(said["received"], "2026-01-02T03:04:05.000000006Z");
        assert_eq!(said["principal"], "lamp \"7\"");
        assert_eq!(said["address"], "192.0.2.7");
        let payload = STANDARD.decode(said["payload_base64"].as_str().unwrap());
        assert_eq!(payload.unwrap(), b"\x00\xffhello");
    }

    #[test]
    fn what_is_not_known_is_left_out() {
        let said = line(&delivery(&b""[..], None));
        let keys: Vec<&String> = said.as_object().unwrap().keys().collect();
        assert_eq!(keys, ["payload_base64", "received", "topic"]);
    }

    #[test]
    fn a_topic_that_names_no_device_has_a_path_all_the_same() {
        let mut payload = delivery(&b"x"[..], None);
        let topic = TopicInfo::new(&Topics::default(), b"thinglog/logs/a b");
        payload.topic = Arc::new(topic);
        assert_eq!(subject(&payload).device, None);
        assert_eq!(line(&payload)["topic"], "thinglog/logs/a b");
    }
}
