//! What each packet of a client does.

use std::sync::Arc;

use bytes::BytesMut;

use super::{ALIAS_BYTES, Answer, Client, Close, TOPIC_ALIASES, Taken};
use crate::{
    clock,
    codec::{self, CodecError, Frame, Publish, Reason, Version, kind},
    feed::Feed,
    hub::{Refusal, Wait},
    message::{Message, expiry_time},
    record::{Packet, Record},
};

impl Client {
    pub(super) fn packet(&mut self, frame: &Frame, packet: &[u8]) -> Result<Taken, CodecError> {
        let body = &packet[frame.header..];
        let version = self.version();
        match frame.kind {
            kind::PUBLISH => {
                return self.publish(codec::parse_publish(version, frame.flags, body)?);
            }
            kind::PUBACK => self.puback(codec::read_ack(version, frame, body)?),
            kind::PUBREC => self.pubrec(codec::read_ack(version, frame, body)?),
            kind::PUBREL => return self.pubrel(codec::read_ack(version, frame, body)?),
            kind::PUBCOMP => self.pubcomp(codec::read_ack(version, frame, body)?),
            kind::SUBSCRIBE => self.subscribe(codec::read_subscribe(version, body)?)?,
            kind::UNSUBSCRIBE => {
                self.unsubscribe(codec::read_unsubscribe(version, frame, packet)?)?
            }
            kind::PINGREQ => {
                self.traffic.answered();
                codec::write_pingresp(&mut self.out);
            }
            kind::DISCONNECT => self.disconnect(codec::read_disconnect(version, body)?)?,
            kind::CONNECT => return Err(CodecError::protocol("a second CONNECT")),
            kind::AUTH => {
                return Err(CodecError::protocol(
                    "AUTH on a connection without an authentication method",
                ));
            }
            _ => {
                return Err(CodecError::protocol(
                    "a packet that clients do not send here",
                ));
            }
        }
        Ok(Taken::Whole)
    }

    fn publish(&mut self, publish: Publish<'_>) -> Result<Taken, CodecError> {
        self.count_publish();
        if publish.qos == 2 && self.is_repeated(publish.pkid) {
            return Ok(Taken::Whole);
        }
        if publish.qos > 0
            && self.unacknowledged >= usize::from(self.hub.config.limits.receive_maximum)
            && self.version() == Version::V5
        {
            return Err(CodecError::new(
                Reason::ReceiveMaximumExceeded,
                "more unacknowledged publishes than Receive Maximum",
            ));
        }
        let mut forward = Vec::new();
        let scanned = if publish.properties.is_empty() {
            codec::Scanned::default()
        } else {
            codec::scan_properties(publish.properties, &mut forward)?
        };
        let aliased = self.resolve_alias(&publish, scanned.alias)?;
        let topic = aliased.as_deref().unwrap_or(publish.topic);
        if topic.len() > self.hub.config.limits.topic_bytes {
            let text = "topic longer than the broker takes";
            return Err(CodecError::new(Reason::TopicNameInvalid, text));
        }
        if !self.pass.may_write(topic) {
            return self.deny(&publish);
        }
        if let Some(text) = self.hub.access.own.refuses(topic) {
            return self.reject(&publish, Reason::NotAuthorized, text);
        }
        let expires = scanned
            .expiry
            .map(|seconds| expiry_time(seconds, clock::now()));
        if self.hub.durable.contains(topic) {
            self.traffic.received(publish.qos, publish.payload.len());
            return self.collect(&publish, topic, expires, &forward);
        }
        let message = Message {
            topic: aliased.clone().unwrap_or_else(|| topic.into()),
            payload: bytes::Bytes::copy_from_slice(publish.payload),
            qos: publish.qos,
            retain: publish.retain,
            expires,
            client: self.receiver.client,
            properties: forward.into(),
        };
        let sender = (&*self.session, self.connection);
        let packet = (publish.qos == 2).then_some((sender, publish.pkid));
        match self.hub.publish(message, packet) {
            Ok(until) => self.acknowledge(&publish, until, None),
            Err(Refusal::Busy) => return Ok(Taken::Later),
            Err(Refusal::TakenOver) => return Ok(Taken::Whole),
            Err(Refusal::Refused(reason, text)) => return self.reject(&publish, reason, text),
        }
        self.traffic.received(publish.qos, publish.payload.len());
        Ok(Taken::Whole)
    }

    /// The topic behind an alias; learns one that comes with its topic. (MQTT 5.0 section 3.3.2.3.4)
    fn resolve_alias(
        &mut self,
        publish: &Publish<'_>,
        alias: Option<u16>,
    ) -> Result<Option<Arc<str>>, CodecError> {
        let Some(alias) = alias else {
            if publish.topic.is_empty() {
                return Err(CodecError::protocol("PUBLISH with neither topic nor alias"));
            }
            return Ok(None);
        };
        let invalid = CodecError::new(
            Reason::TopicAliasInvalid,
            "topic alias is out of range or unknown",
        );
        if alias == 0 || alias > TOPIC_ALIASES {
            return Err(invalid);
        }
        self.aliases.resize(usize::from(TOPIC_ALIASES), None);
        let place = usize::from(alias) - 1;
        if !publish.topic.is_empty() {
            let others = self.aliases.iter().enumerate();
            let others = others.filter(|(index, _)| *index != place);
            let bytes: usize = others
                .filter_map(|(_, topic)| Some(topic.as_ref()?.len()))
                .sum();
            if bytes + publish.topic.len() > ALIAS_BYTES {
                let text = "topic aliases of too many bytes";
                return Err(CodecError::new(Reason::QuotaExceeded, text));
            }
        }
        let slot = &mut self.aliases[place];
        if !publish.topic.is_empty() {
            *slot = Some(publish.topic.into());
        }
        slot.clone().ok_or(invalid).map(Some)
    }

    /// Collects a durable publish for the journal.
    fn collect(
        &mut self,
        publish: &Publish<'_>,
        topic: &str,
        expires: Option<u64>,
        properties: &[u8],
    ) -> Result<Taken, CodecError> {
        if publish.retain {
            return self.reject(publish, Reason::NotAuthorized, "RETAIN on a durable topic");
        }
        let is_kept = publish.qos == 2 && self.session.is_persistent();
        let record = Record {
            qos: publish.qos,
            packet: is_kept.then_some(Packet {
                session: self.session.number,
                pkid: publish.pkid,
            }),
            client: self.receiver.client,
            address: self.peer.address,
            expires,
            principal: self.pass.principal().map(|name| &**name),
            topic,
            properties,
            payload: publish.payload,
        };
        let index = self.records.len();
        self.records.push_with(|out| record.encode(out));
        if publish.qos == 2 {
            self.collected_ids.insert(publish.pkid);
            self.carries_ids = true;
        }
        self.acknowledge(publish, Wait::default(), Some(index));
        Ok(Taken::Whole)
    }

    /// An acknowledgement with so many codes has to fit what the client takes: there is no other way to
    /// answer, so nothing is done (MQTT 5.0 section 3.1.2.11.4).
    fn check_codes(&self, count: usize) -> Result<(), CodecError> {
        match codec::codes_len(self.version(), count) <= self.receiver.max_packet {
            true => Ok(()),
            false => Err(CodecError::new(
                Reason::PacketTooLarge,
                "the acknowledgement would be larger than the client takes",
            )),
        }
    }

    fn subscribe(&mut self, subscribe: codec::Subscribe) -> Result<(), CodecError> {
        self.check_codes(subscribe.filters.len())?;
        let hub = self.hub.clone();
        let mut codes: Vec<u8> = Vec::with_capacity(subscribe.filters.len());
        for filter in &subscribe.filters {
            let granted = match self.refuse_subscription(filter, subscribe.from.is_some()) {
                Some(text) => Err((Reason::NotAuthorized, text)),
                None => hub.subscribe(
                    (&self.session, self.connection),
                    filter,
                    subscribe.id,
                    subscribe.from.as_deref(),
                ),
            };
            if let Err((_, text)) = granted {
                self.note_refusal(text);
            }
            codes.push(match (granted, self.version()) {
                (Ok(qos), _) => qos,
                // 3.1.1 knows only one way to fail (section 3.9.3).
                (Err(_), Version::V311) => 0x80,
                (Err((reason, _)), Version::V5) => reason as u8,
            });
        }
        let mut packet = BytesMut::new();
        codec::write_suback(self.version(), subscribe.pkid, &codes, &mut packet);
        self.subscribing += 1;
        self.answer_subscription(Answer::SubAck(packet));
        Ok(())
    }

    fn unsubscribe(&mut self, unsubscribe: codec::Unsubscribe) -> Result<(), CodecError> {
        self.check_codes(unsubscribe.filters.len())?;
        let codes: Vec<u8> = unsubscribe
            .filters
            .iter()
            .map(|filter| {
                if self
                    .hub
                    .unsubscribe((&self.session, self.connection), filter)
                {
                    0
                } else {
                    0x11
                }
            })
            .collect();
        let mut packet = BytesMut::new();
        codec::write_unsuback(self.version(), unsubscribe.pkid, &codes, &mut packet);
        self.answer_subscription(Answer::Packet(packet));
        Ok(())
    }

    /// Queues SUBACK or UNSUBACK behind the storing of the session and renews the feed's filters.
    fn answer_subscription(&mut self, answer: Answer) {
        let mut inner = self.session.inner.lock();
        // A change is on disk when those before it are.
        let group = inner.group_ticket.take();
        let state = match inner.is_persistent() {
            true => Some(self.hub.store(&self.session, &mut inner)),
            false => group,
        };
        match &mut self.feed {
            Some(feed) if inner.cursor.is_some() => {
                feed.set_filters(&inner, &self.hub.durable_filters)
            }
            _ => self.feed = Feed::new(self.hub.journal.clone(), &inner, &self.hub.durable_filters),
        }
        inner.cursor_moved = false;
        drop(inner);
        let until = Wait {
            state,
            ..Wait::default()
        };
        self.wait(until, answer);
    }

    fn disconnect(&mut self, disconnect: codec::Disconnect) -> Result<(), CodecError> {
        let mut inner = self.session.inner.lock();
        if let Some(expiry) = disconnect.expiry
            && inner.owner == self.connection
        {
            if expiry > 0 && inner.expiry == 0 {
                return Err(CodecError::protocol(
                    "DISCONNECT makes a session persistent that was not",
                ));
            }
            let expiry = expiry.min(self.hub.config.limits.session_seconds);
            self.session.set_expiry(&mut inner, expiry);
        }
        // Gone at once: the next connection of the client may come before this one has ended.
        if !disconnect.with_will && inner.owner == self.connection {
            inner.renounce_will();
        }
        drop(inner);
        self.closing = Some(Close {
            reason: Reason::Success,
            text: "client disconnected",
            polite: !disconnect.with_will,
        });
        Ok(())
    }
}
