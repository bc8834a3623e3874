//! Publishes the router's own messages at QoS 1 until the broker has acknowledged them, across
//! connections and in the order given: desired documents, alerts, gap events.

use std::collections::VecDeque;

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::connect::LinkOptions;
use super::link::{Arrived, Control, Link, LinkError};
use super::reconnect::Reconnect;
use crate::health::Part;
use crate::telemetry::Telemetry;

/// Messages that may wait for the connection.
const QUEUE: usize = 1024;
/// Unacknowledged publishes.
const IN_FLIGHT: usize = 256;
/// Bytes of a PUBLISH besides topic and payload, at most.
const OVERHEAD: usize = 16;

/// A message to publish.
#[derive(Debug)]
pub(crate) struct Message {
    pub(crate) topic: String,
    pub(crate) payload: Bytes,
    pub(crate) retain: bool,
    /// Hears what became of it; dropped unanswered when the router stops first.
    pub(crate) done: Option<oneshot::Sender<Result<(), Refused>>>,
    /// Not sent, or not sent again, once nobody waits for the answer.
    pub(crate) while_waited: bool,
}

impl Message {
    fn is_withdrawn(&self) -> bool {
        self.while_waited && self.done.as_ref().is_none_or(oneshot::Sender::is_closed)
    }
}

/// The broker will not have the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refused {
    #[error("the broker refused the publish with reason 0x{0:02x}")]
    Reason(u8),
    #[error("the message is larger than the broker takes ({0} bytes)")]
    TooLarge(usize),
}

/// Where messages are handed in.
#[derive(Clone, Debug)]
pub(crate) struct Publisher {
    queue: mpsc::Sender<Message>,
}

/// The publisher is gone because the router stops, or its queue is full.
#[derive(Debug)]
pub(crate) struct NotTaken;

impl Publisher {
    /// Hands in a message if there is room.
    pub(crate) fn try_publish(&self, message: Message) -> Result<(), NotTaken> {
        self.queue.try_send(message).map_err(|_| NotTaken)
    }

    /// Hands in a message as soon as there is room. Cancel-safe: then it is not handed in.
    pub(crate) async fn publish(&self, message: Message) -> Result<(), NotTaken> {
        self.queue.send(message).await.map_err(|_| NotTaken)
    }
}

/// The task behind [`Publisher`].
pub(crate) struct PublisherTask {
    link: LinkOptions,
    queue: mpsc::Receiver<Message>,
    /// Taken off the queue, oldest first, and to be sent before what is in it.
    waiting: VecDeque<Message>,
    /// Sent on this connection and unacknowledged, oldest first.
    flying: VecDeque<(u16, Message)>,
    telemetry: Telemetry,
    health: Part,
}

/// A publisher and its task.
pub(crate) fn new(
    link: LinkOptions,
    telemetry: Telemetry,
    health: Part,
) -> (Publisher, PublisherTask) {
    let (sender, queue) = mpsc::channel(QUEUE);
    let task = PublisherTask {
        link,
        queue,
        waiting: VecDeque::new(),
        flying: VecDeque::new(),
        telemetry,
        health,
    };
    (Publisher { queue: sender }, task)
}

impl PublisherTask {
    /// Runs until `stop`, or until every handle is gone and all is acknowledged.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        let mut reconnect = Reconnect::new(&self.link.client_id, self.health.clone());
        while let Err(error) = self.connection(&stop, &mut reconnect).await {
            self.unsend();
            tokio::select! {
                again = reconnect.wait(&error, &stop) => if !again { return },
                () = self.nothing_left() => return,
            }
        }
    }

    /// The connection is gone: what it left unacknowledged waits for the next. Not all of it may go
    /// out at once there, because another broker, or the same one configured anew, may take less.
    fn unsend(&mut self) {
        while let Some((_, message)) = self.flying.pop_back() {
            self.waiting.push_front(message);
        }
    }

    /// Without a connection: ends when nobody has a handle any more and nothing waits. What is handed
    /// in meanwhile is sent on the next connection like what was unacknowledged on the last.
    async fn nothing_left(&mut self) {
        while self.waiting.len() < IN_FLIGHT {
            match self.queue.recv().await {
                Some(message) => self.waiting.push_back(message),
                None if self.waiting.is_empty() => return,
                None => break,
            }
        }
        std::future::pending().await
    }

    /// One connection; ends without an error when `stop` is, or nobody has a handle any more.
    async fn connection(
        &mut self,
        stop: &CancellationToken,
        reconnect: &mut Reconnect,
    ) -> Result<(), LinkError> {
        let connecting = stop.run_until_cancelled(Link::connect(&self.link, 0));
        let Some(connected) = connecting.await else {
            return Ok(());
        };
        let mut link = connected?;
        reconnect.succeeded();
        let mut arrived = Arrived::default();
        let mut open = true;
        let most = IN_FLIGHT.min(usize::from(link.peer.receive_max));
        while open || !self.flying.is_empty() || !self.waiting.is_empty() {
            while self.flying.len() < most
                && let Some(message) = self.waiting.pop_front()
            {
                self.send(&mut link, message)?;
            }
            let room = self.flying.len() < most;
            tokio::select! {
                () = stop.cancelled() => break,
                message = self.queue.recv(), if open && room => match message {
                    Some(message) => self.send(&mut link, message)?,
                    None => open = false,
                },
                turned = link.turn(true, &mut arrived) => {
                    turned?;
                    for control in arrived.controls.drain(..) {
                        self.settle(&control);
                    }
                }
            }
        }
        link.disconnect().await;
        Ok(())
    }

    fn send(&mut self, link: &mut Link, message: Message) -> Result<(), LinkError> {
        if message.is_withdrawn() {
            return Ok(());
        }
        let size = message.topic.len() + message.payload.len() + OVERHEAD;
        if size > link.peer.max_packet {
            self.finish(message, Err(Refused::TooLarge(size)));
            return Ok(());
        }
        let packet_id = link.publish(&message.topic, message.payload.clone(), message.retain)?;
        self.flying.push_back((packet_id, message));
        Ok(())
    }

    fn settle(&mut self, control: &Control) {
        let Control::Published { packet_id, reason } = *control else {
            return;
        };
        let Some(at) = self.flying.iter().position(|(id, _)| *id == packet_id) else {
            return;
        };
        if let Some((_, message)) = self.flying.remove(at) {
            let refused = (reason >= 0x80).then_some(Refused::Reason(reason));
            self.finish(message, refused.map_or(Ok(()), Err));
        }
    }

    fn finish(&self, message: Message, result: Result<(), Refused>) {
        let outcome = if result.is_ok() {
            "acknowledged"
        } else {
            "refused"
        };
        self.telemetry.publishes.with_label_values(&[outcome]).inc();
        if let Err(refused) = result {
            tracing::warn!(topic = %message.topic, %refused, "a message of the router is lost");
        }
        if let Some(done) = message.done {
            // Nobody waits any more: fine.
            let _ = done.send(result);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rumqttc::v5::mqttbytes::v5::{ConnAckProperties, Packet, PubAck, PubAckReason};
    use tokio::time::timeout;

    use super::*;
    use crate::health::Health;
    use crate::mqtt::fake::{FakeBroker, Peer};
    use crate::testing::telemetry;

    const SOON: Duration = Duration::from_secs(10);

    fn message(topic: &str) -> (Message, oneshot::Receiver<Result<(), Refused>>) {
        let (done, answer) = oneshot::channel();
        let message = Message {
            topic: topic.into(),
            payload: Bytes::from_static(b"x"),
            retain: false,
            done: Some(done),
            while_waited: false,
        };
        (message, answer)
    }

    async fn start() -> (FakeBroker, Publisher, tokio::task::JoinHandle<()>) {
        let broker = FakeBroker::start().await;
        let health = Health::new().part("publisher");
        let (publisher, task) = new(broker.options(), telemetry(), health);
        let running = tokio::spawn(task.run(CancellationToken::new()));
        (broker, publisher, running)
    }

    /// The topic of the next publish, which is answered with `reason`.
    async fn acknowledge(peer: &mut Peer, reason: PubAckReason) -> String {
        let Packet::Publish(publish) = timeout(SOON, peer.receive()).await.unwrap() else {
            panic!("no PUBLISH");
        };
        let mut ack = PubAck::new(publish.pkid, None);
        ack.reason = reason;
        peer.send(&[Packet::PubAck(ack)]).await;
        String::from_utf8(publish.topic.to_vec()).unwrap()
    }

    #[tokio::test]
    async fn what_was_not_acknowledged_is_published_again_in_order() {
        let (broker, publisher, running) = start().await;
        let (first, first_answer) = message("a");
        let (second, second_answer) = message("b");
        let (mut peer, _) = broker.accept(false).await;
        publisher.try_publish(first).unwrap();
        let Packet::Publish(lost) = peer.receive().await else {
            panic!("no PUBLISH");
        };
        assert_eq!(&lost.topic[..], b"a");
        drop(peer);
        publisher.try_publish(second).unwrap();
        let (mut peer, _) = timeout(SOON, broker.accept(false)).await.unwrap();
        assert_eq!(acknowledge(&mut peer, PubAckReason::Success).await, "a");
        assert_eq!(acknowledge(&mut peer, PubAckReason::Success).await, "b");
        assert_eq!(first_answer.await.unwrap(), Ok(()));
        assert_eq!(second_answer.await.unwrap(), Ok(()));
        drop(publisher);
        timeout(SOON, running).await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn what_waited_for_the_connection_keeps_within_the_brokers_limits() {
        let (broker, publisher, _running) = start().await;
        let mut answers = Vec::new();
        let (mut large, refused) = message("large");
        large.payload = Bytes::from(vec![0; 1000]);
        publisher.try_publish(large).unwrap();
        for topic in ["a", "b", "c"] {
            let (message, answer) = message(topic);
            publisher.try_publish(message).unwrap();
            answers.push(answer);
        }
        // Everything has been taken off the queue when this connection ends.
        let (mut peer, _) = broker.accept(false).await;
        for _ in 0..4 {
            peer.receive().await;
        }
        drop(peer);
        let limits = |properties: &mut ConnAckProperties| {
            properties.receive_max = Some(1);
            properties.max_packet_size = Some(500);
        };
        let (mut peer, _) = timeout(SOON, broker.accept_limiting(limits)).await.unwrap();
        for topic in ["a", "b", "c"] {
            let Packet::Publish(publish) = timeout(SOON, peer.receive()).await.unwrap() else {
                panic!("no PUBLISH");
            };
            assert_eq!(&publish.topic[..], topic.as_bytes());
            assert!(!peer.has_more(), "more than one at a time");
            peer.send(&[Packet::PubAck(PubAck::new(publish.pkid, None))])
                .await;
        }
        for answer in answers {
            assert_eq!(timeout(SOON, answer).await.unwrap().unwrap(), Ok(()));
        }
        assert!(matches!(refused.await.unwrap(), Err(Refused::TooLarge(_))));
    }

    #[tokio::test]
    async fn a_refusal_is_told() {
        let (broker, publisher, _running) = start().await;
        let (refused, answer) = message("a");
        publisher.try_publish(refused).unwrap();
        let (mut peer, _) = broker.accept(false).await;
        acknowledge(&mut peer, PubAckReason::QuotaExceeded).await;
        assert_eq!(answer.await.unwrap(), Err(Refused::Reason(0x97)));
    }
}
