//! What the broker itself says in retained messages: the interest topic, `$SYS`, which devices are
//! connected. All of it is made anew at every start, so none of it goes to disk, and saying it never
//! waits.

use std::{collections::HashMap, net::IpAddr, sync::Arc};

use bytes::Bytes;
use parking_lot::Mutex;
use thinglog_schemas::topic::{INTEREST, Topic};

use super::Hub;
use crate::{access::Pass, clock, message::Message, session::ConnectionId};

/// The devices that are connected, with what is said of each of their connections.
pub(super) type Present = Mutex<HashMap<Arc<str>, Vec<(ConnectionId, Bytes)>>>;

impl Hub {
    /// Sets a retained message in memory and gives it to who wants it; an empty one removes it.
    pub(crate) fn announce(&self, topic: &str, payload: Bytes, qos: u8) {
        let message = Arc::new(Message {
            retain: true,
            ..Message::own(topic, payload, qos)
        });
        let _in_order = self.retaining.lock();
        let mut retained = self.retained.lock();
        retained.set(message.clone());
        self.telemetry.retained.set(retained.len() as i64);
        drop(retained);
        let wanted = self.recipients(&message);
        let wanted = self.reserve(&message, wanted, |_| false);
        self.enqueue_all(wanted.unwrap_or_default());
    }

    /// Says what connected clients want of the live topics.
    pub(crate) fn publish_interest(&self) {
        self.announce(INTEREST, Bytes::from(self.interest.payload()), 1);
    }

    /// Says that a device is connected: who, from where, since when. Of several connections of one
    /// device it is the last that is told. Without authentication nobody is known to be a device. Gives
    /// the device, to be taken back.
    pub(crate) fn device_came(
        &self,
        pass: &Pass,
        connection: ConnectionId,
        (client_id, address): (&str, IpAddr),
    ) -> Option<Arc<str>> {
        let device = pass.device()?;
        let document = serde_json::json!({
            "principal": &**device,
            "client_id": client_id,
            "address": address.to_canonical().to_string(),
            "since": clock::now(),
        });
        let document = Bytes::from(document.to_string());
        // Held while it is said, so that what is said last is what is so.
        let mut present = self.present.lock();
        let connections = present.entry(device.clone()).or_default();
        connections.push((connection, document.clone()));
        self.announce(&self.connected_topic(device), document, 1);
        Some(device.clone())
    }

    /// Takes back what was said of a connection.
    pub(crate) fn device_left(&self, device: &str, connection: ConnectionId) {
        let mut present = self.present.lock();
        let Some(connections) = present.get_mut(device) else {
            return;
        };
        connections.retain(|(other, _)| *other != connection);
        let last = connections.last().map(|(_, document)| document.clone());
        if last.is_none() {
            present.remove(device);
        }
        self.announce(&self.connected_topic(device), last.unwrap_or_default(), 1);
    }

    fn connected_topic(&self, device: &str) -> String {
        self.topics.format(Topic::Connected { device })
    }
}
