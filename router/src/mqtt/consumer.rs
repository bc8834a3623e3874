//! Keeps one subscription alive across connections and feeds an inbox from it.
//!
//! Each connection has a generation; acknowledgements name theirs, so one that belongs to an older
//! connection is void by construction: the broker delivers again what it stood for.

use std::sync::Arc;

use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::SubscribeReasonCode;
use tokio_util::sync::CancellationToken;

use super::connect::LinkOptions;
use super::inbox::Inbox;
use super::link::{self, Arrived, Control, Link, LinkError, Subscription};
use super::outbox::{Outbox, Requests};
use super::reconnect::Reconnect;
use crate::health::Part;
use crate::telemetry::ConsumerMetrics;

/// Unsent bytes up to which further frames are taken from the outbox.
const OUTPUT_LIMIT: usize = 1 << 20;

/// A subscription with manual acknowledgement, one client id, any number of connections.
pub(crate) struct Consumer {
    pub(crate) link: LinkOptions,
    pub(crate) subscription: Subscription,
    pub(crate) inbox: Arc<Inbox>,
    pub(crate) outbox: Arc<Outbox>,
    pub(crate) metrics: ConsumerMetrics,
    pub(crate) health: Part,
}

/// Why a connection's loop ended without an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// The thread wants everything unacknowledged again.
    Restart,
    /// The thread is done.
    Finished,
}

impl Consumer {
    /// Runs until the outbox is finished, or `abandon` is cancelled (then without farewell).
    pub(crate) async fn run(self, abandon: CancellationToken) {
        let mut reconnect = Reconnect::new(&self.link.client_id, self.health.clone());
        let mut generation = 0;
        while !self.outbox.is_finished() {
            generation += 1;
            let end = tokio::select! {
                () = abandon.cancelled() => return,
                end = self.connection(generation, &mut reconnect) => end,
            };
            match end {
                Ok(End::Finished) => return,
                Ok(End::Restart) => {}
                Err(error) => {
                    self.metrics.disconnects.inc();
                    tokio::select! {
                        again = reconnect.wait(&error, &abandon) => if !again { return },
                        () = self.finished() => return,
                    }
                }
            }
        }
    }

    /// Waits until the thread is done; what else it asks for meanwhile is void with the connection.
    async fn finished(&self) {
        while !self.outbox.is_finished() {
            self.outbox.asked().await;
        }
    }

    /// One connection from CONNECT to its end.
    async fn connection(
        &self,
        generation: u64,
        reconnect: &mut Reconnect,
    ) -> Result<End, LinkError> {
        let mut link = Link::connect(&self.link, generation).await?;
        if generation > 1 && self.link.persistent && !link.peer.session_present {
            tracing::warn!(
                client = %self.link.client_id,
                "the broker has forgotten the session: what it had not delivered does not come any more"
            );
        }
        self.inbox.begin(generation);
        self.outbox.begin();
        let packet_id = link.subscribe(&self.subscription)?;
        let mut arrived = Arrived::default();
        let mut behind = false;
        loop {
            tokio::select! {
                biased;
                () = self.outbox.asked() => behind = true,
                turned = link.turn(!self.inbox.is_closed(), &mut arrived) => {
                    turned?;
                    self.hand_over(&mut arrived, &link);
                    for control in arrived.controls.drain(..) {
                        if self.check(&control, packet_id)? {
                            reconnect.succeeded();
                            tracing::info!(client = %self.link.client_id, "subscribed");
                        }
                    }
                }
            }
            if behind {
                let requests = self.outbox.take(link.unsent() < OUTPUT_LIMIT);
                behind = requests.frames_left;
                if let Some(end) = carry_out(requests, &mut link) {
                    if end == End::Finished {
                        link.disconnect().await;
                    }
                    return Ok(end);
                }
            }
        }
    }

    fn hand_over(&self, arrived: &mut Arrived, link: &Link) {
        if !arrived.deliveries.is_empty() {
            self.metrics
                .payloads
                .inc_by(arrived.deliveries.len() as u64);
            self.inbox.push(&mut arrived.deliveries);
        }
        self.metrics.window_bytes.set(link.window().bytes() as i64);
        self.metrics
            .window_packets
            .set(link.window().packets() as i64);
    }

    /// True once the subscription stands.
    fn check(&self, control: &Control, subscribe_id: u16) -> Result<bool, LinkError> {
        match control {
            Control::Subscribed { packet_id, codes } if *packet_id == subscribe_id => {
                link::granted(&self.subscription.filter, codes)?;
                if codes.first() == Some(&SubscribeReasonCode::Success(QoS::AtMostOnce)) {
                    tracing::warn!(
                        client = %self.link.client_id,
                        "the broker grants QoS 0 only: what it drops does not come again"
                    );
                }
                Ok(true)
            }
            _ => Ok(false),
        }
    }
}

/// Does what the thread asked for.
fn carry_out(requests: Requests, link: &mut Link) -> Option<End> {
    if let Some(settled) = requests.settled {
        link.settle(settled);
    }
    link.send(&requests.frames);
    if requests.finished {
        return Some(End::Finished);
    }
    requests.restart.then_some(End::Restart)
}

#[cfg(test)]
#[path = "consumer_tests.rs"]
mod tests;
