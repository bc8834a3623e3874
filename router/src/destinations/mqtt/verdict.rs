//! What became of the publishes of a request, as a verdict. Pure.

use crate::deliver::remote::verdict::{ItemVerdict, Verdict};

/// Reasons that speak of the message (section 2.4); every other one speaks of the moment, the
/// configuration or the broker.
const TOPIC_NAME_INVALID: u8 = 0x90;
const PACKET_TOO_LARGE: u8 = 0x95;
const PAYLOAD_FORMAT_INVALID: u8 = 0x99;

/// Why a connection is of no more use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    /// What happened.
    pub(super) text: String,
    /// The reason of the broker's DISCONNECT.
    pub(super) reason: Option<u8>,
}

impl Failure {
    pub(super) fn new(text: impl Into<String>) -> Failure {
        Failure {
            text: text.into(),
            reason: None,
        }
    }
}

/// Whether a message is refused for good.
fn is_final(reason: u8) -> bool {
    matches!(
        reason,
        TOPIC_NAME_INVALID | PACKET_TOO_LARGE | PAYLOAD_FORMAT_INVALID
    )
}

/// What a reason means, for people.
pub(super) fn text(reason: u8) -> String {
    let meaning = match reason {
        0x80 => "unspecified error",
        0x81 => "malformed packet",
        0x82 => "protocol error",
        0x83 => "implementation specific error",
        0x87 => "not authorized: the broker's rules do not let this login publish there",
        0x89 => "server busy",
        0x8B => "server shutting down",
        0x8D => "keep alive timeout",
        0x8E => "session taken over: another client has this client id",
        TOPIC_NAME_INVALID => "topic name invalid",
        0x91 => "packet identifier in use",
        0x93 => "receive maximum exceeded",
        PACKET_TOO_LARGE => "packet too large",
        0x96 => "message rate too high",
        0x97 => "quota exceeded",
        0x98 => "administrative action",
        PAYLOAD_FORMAT_INVALID => "payload format invalid",
        0x9A => "retain not supported",
        0x9B => "QoS not supported",
        _ => "a reason that MQTT does not name",
    };
    format!("the broker says 0x{reason:02x}, {meaning}")
}

/// The verdict on a request of `events` events: `reasons` are those of the PUBACKs, one for each
/// message, `failure` is why some have none.
pub(super) fn verdict(events: usize, reasons: &[Option<u8>], failure: Option<Failure>) -> Verdict {
    if reasons.iter().all(|reason| reason.is_some_and(is_success)) {
        return Verdict::Accepted;
    }
    let missing = failure.unwrap_or_else(|| Failure::new("no PUBACK has come"));
    // What the broker does not take ends the connection at some brokers; nothing says which it was.
    if missing.reason.is_some_and(is_final) && reasons.iter().all(Option::is_none) {
        return Verdict::Refused {
            reason: missing.text,
        };
    }
    let item = |reason: &Option<u8>| match *reason {
        Some(reason) if is_success(reason) => ItemVerdict::Accepted,
        Some(reason) if is_final(reason) => ItemVerdict::Refused(text(reason)),
        Some(reason) => ItemVerdict::Retry(text(reason)),
        None => ItemVerdict::Retry(missing.text.clone()),
    };
    let mut items: Vec<ItemVerdict> = reasons.iter().map(item).collect();
    match (items.len() == events, items.pop()) {
        (false, Some(ItemVerdict::Refused(reason))) => Verdict::Refused { reason },
        (false, Some(ItemVerdict::Retry(reason))) => Verdict::retry(reason),
        (false, _) => Verdict::retry(missing.text),
        (true, last) => {
            items.extend(last);
            Verdict::Items(items)
        }
    }
}

fn is_success(reason: u8) -> bool {
    reason < 0x80
}
