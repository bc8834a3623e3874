//! Requests that come in over the connection, and the answers to them that go out.

use bytes::Bytes;
use thinglog_schemas::Topic;
use tokio::sync::mpsc::error::TrySendError;

use super::{Handed, Worker};

impl Worker {
    /// The broker answered a subscription. The one to requests follows the one to the configuration,
    /// so that each answer is known for what it is; true when this was the answer about requests.
    pub(super) fn is_second_subscription(&mut self, granted: bool) -> bool {
        if self.asked_for_requests {
            if !granted {
                tracing::warn!("the broker does not let this device read its requests");
            }
            return true;
        }
        if self.requests.is_some()
            && let Some(link) = &self.link
        {
            self.asked_for_requests = link.subscribe(&self.request_topic());
        }
        false
    }

    fn request_topic(&self) -> String {
        self.topics.format(Topic::Request {
            device: &self.settings.device,
        })
    }

    /// Whether a message on this topic is a request, which is then handed over.
    pub(super) fn take_request(&mut self, topic: &[u8], payload: &Bytes) -> bool {
        let Some(requests) = &self.requests else {
            return false;
        };
        if topic != self.request_topic().as_bytes() {
            return false;
        }
        match requests.try_send(payload.clone()) {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => {
                tracing::warn!("requests come faster than they are taken; one is dropped");
            }
            Err(TrySendError::Closed(_)) => self.requests = None,
        }
        true
    }

    /// Hands answers to the connection.
    pub(super) fn send_replies(&mut self, max_payload: usize) {
        let Some(link) = &self.link else { return };
        let mut replies = self.shared.replies.lock();
        while let Some(reply) = replies.next() {
            if reply.payload.len() > max_payload {
                let id = &reply.id;
                tracing::warn!(%id, max_payload, "an answer is larger than the broker takes; it is dropped");
                replies.give_up();
                self.shared.reply_room.notify_waiters();
                continue;
            }
            let topic = self.topics.format(Topic::Response {
                device: &self.settings.device,
                id: &reply.id,
            });
            if !link.publish(&topic, false, reply.payload.clone()) {
                break;
            }
            self.handed.push_back(Handed::Reply);
            replies.handed();
        }
    }

    /// Whether the broker's answer to this publish was about a reply. One that is refused is not sent
    /// again: whoever asked sees by the numbers that a part is missing.
    pub(super) fn reply_settled(&self, pkid: u16, refusal: Option<&str>) -> bool {
        let settled = self.shared.replies.lock().settled(pkid);
        let Some(reply) = settled else { return false };
        if let Some(reason) = refusal {
            let id = &reply.id;
            tracing::warn!(%id, reason, "the broker refused an answer; it is dropped");
        }
        self.shared.reply_room.notify_waiters();
        true
    }
}
