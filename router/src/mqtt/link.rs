//! One MQTT 5 connection: connects, reads in bulk, writes in bulk, pings.
//!
//! [`Link::turn`] moves bytes in whichever direction the socket is ready for, so a peer that does not
//! read can never keep us from reading, nor the other way round. It is cancel-safe: all state lives
//! in the link.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use rumqttc::v5::mqttbytes::v5::{
    ConnectReturnCode, Filter, Packet, Publish, RetainForwardRule, Subscribe, SubscribeProperties,
    SubscribeReasonCode,
};
use rumqttc::v5::mqttbytes::{Error as CodecError, QoS};
use thinglog_schemas::payload::Stamp;
use tokio::io::AsyncWrite;
use tokio::time::{Instant, timeout};
use tokio_util::io::poll_read_buf;

use super::connect::{LinkOptions, Peer, write_connect};
use super::frame::{self, FrameError, Header};
use super::names::TopicTable;
use super::window::Window;
use super::{Delivery, Settled};
use crate::clock;
use crate::net::wire::Wire;

/// Bytes asked of the socket at once.
const READ: usize = 128 << 10;
/// Largest packet accepted, bytes; more than a log payload may have, so that one which is too large
/// arrives and is quarantined with its reason.
pub(super) const MAX_PACKET: usize = 4 << 20;
/// Longest a broker may take to accept a connection.
pub(crate) const CONNECT_WITHIN: Duration = Duration::from_secs(10);

/// A subscription.
#[derive(Clone, Debug)]
pub(crate) struct Subscription {
    pub(crate) filter: String,
    /// Value of `thinglog-from`, for durable topics.
    pub(crate) from: Option<String>,
    /// Whether retained messages are wanted.
    pub(crate) retained: bool,
}

/// Why a connection ended or never was.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LinkError {
    #[error("cannot reach {0}")]
    Connect(String),
    #[error("{0} did not accept the connection within {within} s", within = CONNECT_WITHIN.as_secs())]
    ConnectTimeout(String),
    #[error("the broker refused the connection: {0:?}")]
    Refused(ConnectReturnCode),
    #[error("the broker refused the subscription to {filter:?}: {code:?}")]
    SubscribeRefused {
        filter: String,
        code: SubscribeReasonCode,
    },
    #[error("the broker closed the connection")]
    Closed,
    #[error("the broker closed the connection with reason 0x{0:02x}")]
    Disconnected(u8),
    #[error(
        "another client took over the session: another router with the same destination uses this \
         broker; stop it, or name one of the destinations differently"
    )]
    TakenOver,
    #[error("the broker is silent for {0} s")]
    Silent(u64),
    #[error("{0}")]
    Frame(#[from] FrameError),
    #[error("the broker broke the protocol: {0}")]
    Protocol(String),
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl From<CodecError> for LinkError {
    fn from(error: CodecError) -> LinkError {
        LinkError::Protocol(error.to_string())
    }
}

/// What arrived besides deliveries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Control {
    Subscribed {
        packet_id: u16,
        codes: Vec<SubscribeReasonCode>,
    },
    /// A QoS 1 publish of ours is settled; reasons from 0x80 up are refusals.
    Published { packet_id: u16, reason: u8 },
}

/// What a turn brought in.
#[derive(Debug, Default)]
pub(crate) struct Arrived {
    pub(crate) deliveries: Vec<Delivery>,
    pub(crate) controls: Vec<Control>,
}

/// One connection.
#[derive(Debug)]
pub(crate) struct Link {
    wire: Box<dyn Wire>,
    /// Something of what was written may not be on its way.
    unflushed: bool,
    generation: u64,
    stamps: bool,
    input: BytesMut,
    output: BytesMut,
    topics: TopicTable,
    window: Window,
    /// What the broker takes of ours.
    pub(crate) peer: Peer,
    last_read: Instant,
    last_write: Instant,
    next_packet_id: u16,
}

impl Link {
    /// Connects and waits for CONNACK. `generation` marks everything received on it.
    pub(crate) async fn connect(options: &LinkOptions, generation: u64) -> Result<Link, LinkError> {
        match timeout(CONNECT_WITHIN, Link::try_connect(options, generation)).await {
            Ok(result) => result,
            Err(_) => Err(LinkError::ConnectTimeout(options.server.to_string())),
        }
    }

    async fn try_connect(options: &LinkOptions, generation: u64) -> Result<Link, LinkError> {
        let wire = options.server.connect().await;
        let now = Instant::now();
        let mut link = Link {
            wire: wire.map_err(LinkError::Connect)?,
            unflushed: false,
            generation,
            stamps: options.stamps,
            input: BytesMut::with_capacity(READ),
            output: BytesMut::new(),
            topics: TopicTable::new(options.topics.clone()),
            window: Window::new(options.window_packets, options.window_bytes),
            peer: Peer::default(),
            last_read: now,
            last_write: now,
            next_packet_id: 1,
        };
        write_connect(options, &mut link.output)?;
        link.peer = link.connack().await?;
        Ok(link)
    }

    /// The first packet must be CONNACK (section 3.2).
    async fn connack(&mut self) -> Result<Peer, LinkError> {
        loop {
            self.move_bytes(true).await?;
            let Some(header) = frame::header(&self.input, MAX_PACKET)? else {
                continue;
            };
            if self.input.len() < header.total {
                continue;
            }
            let packet = Packet::read(&mut self.input, None)?;
            let Packet::ConnAck(ack) = packet else {
                let reason = format!("expected CONNACK, got packet type {}", header.kind);
                return Err(LinkError::Protocol(reason));
            };
            if ack.code != ConnectReturnCode::Success {
                return Err(LinkError::Refused(ack.code));
            }
            return Ok(Peer::from_connack(ack));
        }
    }

    pub(crate) fn generation(&self) -> u64 {
        self.generation
    }

    pub(crate) fn window(&self) -> &Window {
        &self.window
    }

    /// Queues a SUBSCRIBE; the answer comes as [`Control::Subscribed`].
    pub(crate) fn subscribe(&mut self, subscription: &Subscription) -> Result<u16, LinkError> {
        let mut filter = Filter::new(subscription.filter.as_str(), QoS::AtLeastOnce);
        filter.preserve_retain = true;
        if !subscription.retained {
            filter.retain_forward_rule = RetainForwardRule::Never;
        }
        let properties = subscription.from.as_ref().map(|from| SubscribeProperties {
            id: None,
            user_properties: vec![("thinglog-from".into(), from.clone())],
        });
        let mut packet = Subscribe::new(filter, properties);
        packet.pkid = self.take_packet_id();
        packet.write(&mut self.output)?;
        Ok(packet.pkid)
    }

    /// Queues a publish; at QoS 1 the answer comes as [`Control::Published`]. The caller keeps within
    /// `peer.receive_max` and `peer.max_packet`.
    pub(crate) fn publish(
        &mut self,
        topic: &str,
        payload: Bytes,
        retain: bool,
    ) -> Result<u16, LinkError> {
        let mut packet = Publish::new(topic, QoS::AtLeastOnce, payload, None);
        packet.retain = retain;
        packet.pkid = self.take_packet_id();
        packet.write(&mut self.output)?;
        Ok(packet.pkid)
    }

    /// Queues encoded packets.
    pub(crate) fn send(&mut self, frames: &[u8]) {
        self.output.extend_from_slice(frames);
    }

    /// Bytes that wait for the socket.
    pub(crate) fn unsent(&self) -> usize {
        self.output.len()
    }

    /// Queues the PUBACKs that `settled` stands for; of another connection it stands for none.
    pub(crate) fn settle(&mut self, settled: Settled) {
        if settled.generation != self.generation {
            return;
        }
        let output = &mut self.output;
        self.window.settle(settled.number, |id| {
            // PUBACK with reason 0 is four bytes (section 3.4.2.1).
            let [high, low] = id.to_be_bytes();
            output.extend_from_slice(&[0x40, 2, high, low]);
        });
    }

    /// Waits until the socket moves something and hands out what has arrived. `reading` false
    /// leaves the receive direction alone. Cancel-safe.
    pub(crate) async fn turn(
        &mut self,
        reading: bool,
        arrived: &mut Arrived,
    ) -> Result<(), LinkError> {
        let reading = reading && !self.window.is_full();
        let due = self.last_write + self.peer.keep_alive / 2;
        tokio::select! {
            moved = self.move_bytes(reading) => moved?,
            () = tokio::time::sleep_until(due) => self.ping(reading)?,
        }
        if self.input.is_empty() {
            return Ok(());
        }
        self.parse(arrived)
    }

    /// Writes what is queued and DISCONNECT, within a moment: courtesy, not duty.
    pub(crate) async fn disconnect(mut self) {
        self.output.extend_from_slice(&[0xE0, 0]);
        let flush = async {
            while !self.output.is_empty() || self.unflushed {
                if self.move_bytes(false).await.is_err() {
                    break;
                }
            }
        };
        let _ = timeout(Duration::from_secs(2), flush).await;
    }

    fn ping(&mut self, reading: bool) -> Result<(), LinkError> {
        let silence = self.last_read.elapsed();
        // While the window is full nothing is read, so silence says nothing then.
        if reading && silence > self.peer.keep_alive * 3 / 2 {
            return Err(LinkError::Silent(silence.as_secs()));
        }
        if !reading {
            self.last_read = Instant::now();
        }
        self.output.extend_from_slice(&[0xC0, 0]);
        self.last_write = Instant::now();
        Ok(())
    }

    /// One read or write, whichever the connection is ready for. Cancel-safe.
    async fn move_bytes(&mut self, reading: bool) -> Result<(), LinkError> {
        poll_fn(|cx| {
            let written = self.poll_write(cx);
            let read = match reading {
                true => self.poll_read(cx),
                false => Poll::Pending,
            };
            match (written, read) {
                (Poll::Ready(Err(error)), _) | (_, Poll::Ready(Err(error))) => {
                    Poll::Ready(Err(error))
                }
                (Poll::Pending, Poll::Pending) => Poll::Pending,
                _ => Poll::Ready(Ok(())),
            }
        })
        .await
    }

    /// Pending as well where nothing is to be written.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), LinkError>> {
        if self.output.is_empty() {
            if !self.unflushed {
                return Poll::Pending;
            }
            ready!(Pin::new(&mut self.wire).poll_flush(cx))?;
            self.unflushed = false;
            return Poll::Ready(Ok(()));
        }
        match ready!(Pin::new(&mut self.wire).poll_write(cx, &self.output))? {
            0 => Poll::Ready(Err(LinkError::Closed)),
            written => {
                self.output.advance(written);
                self.unflushed = true;
                self.last_write = Instant::now();
                Poll::Ready(Ok(()))
            }
        }
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), LinkError>> {
        if self.input.capacity() - self.input.len() < READ / 4 {
            self.input.reserve(READ);
        }
        match ready!(poll_read_buf(Pin::new(&mut self.wire), cx, &mut self.input))? {
            0 => Poll::Ready(Err(LinkError::Closed)),
            _ => {
                self.last_read = Instant::now();
                Poll::Ready(Ok(()))
            }
        }
    }

    /// Takes every complete packet off the input.
    fn parse(&mut self, arrived: &mut Arrived) -> Result<(), LinkError> {
        let now = clock::now_ns();
        while let Some(header) = frame::header(&self.input, MAX_PACKET)? {
            if self.input.len() < header.total {
                // The rest of a large packet arrives in one piece of memory.
                self.input.reserve(header.total - self.input.len());
                break;
            }
            let bytes = self.input.split_to(header.total).freeze();
            if header.kind == frame::PUBLISH {
                let delivery = self.delivery(bytes, header, now)?;
                arrived.deliveries.push(delivery);
            } else if let Some(control) = control(&bytes, header)? {
                arrived.controls.push(control);
            }
        }
        Ok(())
    }

    fn delivery(&mut self, bytes: Bytes, header: Header, now: u64) -> Result<Delivery, LinkError> {
        let publish = frame::publish(&bytes, header)?;
        if publish.qos > 1 {
            return Err(LinkError::Protocol(
                "a publish above QoS 1 was never granted".into(),
            ));
        }
        let topic = self.topics.get(publish.topic);
        let stamp = if self.stamps {
            let (principal, address) = topic.share(publish.stamp.principal, publish.stamp.address);
            Stamp {
                // The broker says both or neither; by the time an offset that is given again is told
                // from one that is delivered again.
                stored: publish
                    .stamp
                    .stored
                    .filter(|_| publish.stamp.received.is_some()),
                received: publish.stamp.received.unwrap_or(now),
                principal,
                address,
            }
        } else {
            Stamp {
                received: now,
                ..Stamp::default()
            }
        };
        let number = self.window.admit(publish.packet_id, header.total);
        let payload = publish.payload;
        Ok(Delivery {
            topic,
            payload: bytes.slice(payload..),
            retain: publish.retain,
            stamp,
            number,
        })
    }

    fn take_packet_id(&mut self) -> u16 {
        let id = self.next_packet_id;
        self.next_packet_id = id.checked_add(1).unwrap_or(1);
        id
    }
}

/// A packet other than PUBLISH; `None` when it needs no attention.
fn control(bytes: &Bytes, header: Header) -> Result<Option<Control>, LinkError> {
    const PUBACK: u8 = 4;
    const SUBACK: u8 = 9;
    const PINGRESP: u8 = 13;
    const DISCONNECT: u8 = 14;
    /// Section 3.14.2.1.
    const SESSION_TAKEN_OVER: u8 = 0x8E;
    let body = &bytes[header.length..];
    match header.kind {
        PINGRESP => Ok(None),
        DISCONNECT if body.first() == Some(&SESSION_TAKEN_OVER) => Err(LinkError::TakenOver),
        DISCONNECT => Err(LinkError::Disconnected(body.first().copied().unwrap_or(0))),
        PUBACK => {
            let Some((id, rest)) = body.split_first_chunk::<2>() else {
                return Err(LinkError::Protocol(
                    "PUBACK without a packet identifier".into(),
                ));
            };
            Ok(Some(Control::Published {
                packet_id: u16::from_be_bytes(*id),
                reason: rest.first().copied().unwrap_or(0),
            }))
        }
        SUBACK => match Packet::read(&mut BytesMut::from(&bytes[..]), None)? {
            Packet::SubAck(ack) => Ok(Some(Control::Subscribed {
                packet_id: ack.pkid,
                codes: ack.return_codes,
            })),
            _ => Err(LinkError::Protocol("a SUBACK that is none".into())),
        },
        kind => Err(LinkError::Protocol(format!(
            "unexpected packet type {kind}"
        ))),
    }
}

/// Checks the answer to one SUBSCRIBE of one filter.
pub(crate) fn granted(filter: &str, codes: &[SubscribeReasonCode]) -> Result<(), LinkError> {
    match codes.first() {
        Some(SubscribeReasonCode::Success(_)) => Ok(()),
        Some(code) => Err(LinkError::SubscribeRefused {
            filter: filter.to_owned(),
            code: *code,
        }),
        None => Err(LinkError::Protocol("SUBACK without reason codes".into())),
    }
}
