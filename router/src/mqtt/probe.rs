//! When have all retained messages of some subscriptions arrived?
//!
//! MQTT does not say where they end. So once the subscriptions stand, a probe is published at QoS 1 to
//! a private topic subscribed last: a broker that keeps the order of what it queues for a session
//! sends it behind the retained messages, and when it is back they are all there.

use bytes::Bytes;

use super::Delivery;
use super::connect::LinkOptions;
use super::link::{self, Control, Link, LinkError, Subscription};

/// The subscriptions of a connection, and the probe behind them.
#[derive(Debug)]
pub(crate) struct Probe {
    topic: String,
    /// Packet ids and filters not yet granted.
    open: Vec<(u16, String)>,
}

impl Probe {
    /// Subscribes to `filters`, retained messages included, and to the private topic.
    pub(crate) fn begin(
        link: &mut Link,
        options: &LinkOptions,
        filters: &[String],
    ) -> Result<Probe, LinkError> {
        let topic = format!("{}/probe/{}", options.topics.root(), options.client_id);
        let mut open = Vec::new();
        for filter in filters.iter().chain([&topic]) {
            let subscription = Subscription {
                filter: filter.clone(),
                from: None,
                retained: true,
            };
            open.push((link.subscribe(&subscription)?, filter.clone()));
        }
        Ok(Probe { topic, open })
    }

    /// Notes the answer to a subscription; once all stand the probe goes out.
    pub(crate) fn granted(&mut self, control: &Control, link: &mut Link) -> Result<(), LinkError> {
        let Control::Subscribed { packet_id, codes } = control else {
            return Ok(());
        };
        let Some(at) = self.open.iter().position(|(id, _)| id == packet_id) else {
            return Ok(());
        };
        let (_, filter) = self.open.swap_remove(at);
        link::granted(&filter, codes)?;
        if self.open.is_empty() {
            link.publish(&self.topic, Bytes::from_static(b"probe"), false)?;
        }
        Ok(())
    }

    /// Whether this delivery is the probe.
    pub(crate) fn is_back(&self, delivery: &Delivery) -> bool {
        *delivery.topic.text == *self.topic
    }
}
