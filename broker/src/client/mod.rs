//! One connected client: [`packets`] takes what it sends, [`deliver`] gives what it gets, and in between
//! wait the acknowledgements for the disk. No sockets and no waiting here; [`crate::connection`] drives it.

mod access;
mod acks;
mod deliver;
mod packets;

use std::{
    collections::{HashSet, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::{Buf, BytesMut};
use thinglog_journal::Records;
use tokio::sync::Notify;

use crate::{
    access::Pass,
    clock,
    codec::{self, Aliases, CodecError, Connect, Reason, Version},
    feed::{Feed, HIGH_WATER, Receiver},
    hub::{Attached, Hub, Wait},
    peer::Peer,
    rate::Meter,
    record::client_hash,
    session::{ConnectionId, Session},
    telemetry::{Traffic, Whom},
    window::Sent,
};

/// Topic aliases a client may define.
pub(crate) const TOPIC_ALIASES: u16 = 32;
/// Bytes of the topics behind them.
const ALIAS_BYTES: usize = 16 << 10;
/// Acknowledgements that may wait for the disk before the client is read no further.
const MAX_WAITING: usize = 8_192;
/// Bytes of publishes collected before they go to the journal within one pass over the input.
const MAX_COLLECTED: usize = 1 << 20;

/// Why and how a connection ends.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Close {
    pub(crate) reason: Reason,
    pub(crate) text: &'static str,
    /// The last will is not to be sent: the client said goodbye.
    pub(crate) polite: bool,
}

/// An acknowledgement that waits for its turn and for the disk.
struct Waiting {
    until: Wait,
    /// Index among the records not yet appended; its offset is known when they are.
    collected: Option<usize>,
    since: Option<Instant>,
    answer: Answer,
}

enum Answer {
    PubAck(u16),
    PubRec(u16),
    PubComp(u16),
    /// SUBACK: deliveries wait for it.
    SubAck(BytesMut),
    /// Any other packet, whole.
    Packet(BytesMut),
}

/// What became of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Taken {
    Whole,
    /// Too much waits for the disk: nothing of it happened, it is to be taken again.
    Later,
}

/// One connected client.
pub(crate) struct Client {
    pub(crate) hub: Arc<Hub>,
    pub(crate) session: Arc<Session>,
    pub(crate) wake: Arc<Notify>,
    pub(crate) connection: ConnectionId,
    pub(crate) out: BytesMut,
    pub(crate) closing: Option<Close>,
    /// Who the client is and what it may do.
    pub(crate) pass: Arc<Pass>,
    pub(crate) feed: Option<Feed>,
    receiver: Receiver,
    peer: Peer,
    /// The device that is said to be connected.
    device: Option<Arc<str>>,
    /// Topic aliases that the client defined.
    aliases: Vec<Option<Arc<str>>>,
    /// Those that it was taught.
    aliases_out: Aliases,
    records: Records,
    waiting: VecDeque<Waiting>,
    /// Packet ids of QoS 2 publishes among the records not yet appended.
    collected_ids: HashSet<u16>,
    /// Those records hold publishes or releases of QoS 2.
    carries_ids: bool,
    /// Answers that wait for those records.
    unplaced: usize,
    /// The client's publishes of QoS 1 and 2 that are not settled, against Receive Maximum.
    unacknowledged: usize,
    /// Packet ids of queued messages sent over an earlier connection and never settled.
    resend: VecDeque<u16>,
    /// Ticket of their packet ids: an earlier connection may not have seen them stored.
    resend_after: Option<u64>,
    /// Messages of QoS 2 that go out once the state has their packet ids: ticket and id.
    prepared: VecDeque<(u64, u16)>,
    /// Packet ids that are due for PUBREL.
    to_release: Vec<u16>,
    /// SUBACKs that wait for the disk.
    subscribing: usize,
    /// A packet waits for the mail journal to settle some more.
    is_blocked: bool,
    /// What it has carried and not told yet.
    pub(crate) traffic: Traffic,
    /// What the client has published, against its rate.
    published: Meter,
    /// No publish is taken before this, ns since the epoch.
    paused_until: Option<u64>,
}

impl Client {
    pub(crate) fn new(
        hub: Arc<Hub>,
        Attached { session, wake, .. }: Attached,
        connection: ConnectionId,
        connect: &Connect,
        (peer, pass): (Peer, Arc<Pass>),
    ) -> Client {
        let mut inner = session.inner.lock();
        inner.resume();
        let feed = Feed::new(hub.journal.clone(), &inner, &hub.durable_filters);
        let resend = inner
            .window
            .to_resend()
            .filter_map(|(pkid, sent)| (!matches!(sent, Sent::Durable(_))).then_some(pkid))
            .collect();
        let has_ids = inner.is_persistent()
            && inner
                .window
                .to_resend()
                .any(|(_, sent)| matches!(sent, Sent::Queued(queued) if queued.qos == 2));
        let resend_after = has_ids.then(|| hub.store_outgoing(&session, &mut inner));
        drop(inner);
        Client {
            receiver: Receiver {
                version: connect.version,
                receive_maximum: connect.receive_maximum,
                max_packet: connect.max_packet,
                explains: connect.request_problem_information,
                client: client_hash(&session.client_id),
            },
            traffic: Traffic::default(),
            out: BytesMut::new(),
            closing: None,
            pass,
            feed,
            peer,
            device: None,
            aliases: Vec::new(),
            aliases_out: Aliases::new(connect.topic_alias_maximum),
            records: Records::new(),
            waiting: VecDeque::new(),
            collected_ids: HashSet::new(),
            carries_ids: false,
            unplaced: 0,
            unacknowledged: 0,
            resend,
            resend_after,
            prepared: VecDeque::new(),
            to_release: Vec::new(),
            subscribing: 0,
            is_blocked: false,
            published: Meter::default(),
            paused_until: None,
            hub,
            session,
            wake,
            connection,
        }
    }

    pub(crate) fn version(&self) -> Version {
        self.receiver.version
    }

    /// Bytes of the largest packet the client takes.
    pub(crate) fn max_packet(&self) -> usize {
        self.receiver.max_packet
    }

    /// Whether more input may be taken.
    pub(crate) fn takes_input(&self) -> bool {
        self.closing.is_none()
            && !self.is_blocked
            && self.paused_until.is_none()
            && self.records.is_empty()
            && self.waiting.len() < MAX_WAITING
            && self.out.len() < 2 * HIGH_WATER
    }

    /// Whether a settled group of the log may change something here.
    pub(crate) fn awaits_journal(&self) -> bool {
        !self.records.is_empty() || self.feed.is_some() || self.front().log.is_some()
    }

    /// Whether a settled group of the mail journal may.
    pub(crate) fn awaits_mail(&self) -> bool {
        self.is_blocked || self.front().mail.is_some() || self.awaits_message()
    }

    /// Whether a settled group of the state may.
    pub(crate) fn awaits_state(&self) -> bool {
        !self.prepared.is_empty() || self.resend_after.is_some() || self.front().state.is_some()
    }

    fn front(&self) -> Wait {
        self.waiting
            .front()
            .map_or(Wait::default(), |waiting| waiting.until)
    }

    /// Whether the next message of the queue waits for the mail journal.
    fn awaits_message(&self) -> bool {
        let inner = self.session.inner.lock();
        inner
            .queue
            .front()
            .is_some_and(|queued| self.is_stored(queued).is_none())
    }

    /// Goes on after the mail journal has settled some more.
    pub(crate) fn unblock(&mut self) {
        self.is_blocked = false;
    }

    /// Counts a publish against the client's rate; at its end no more is taken for a while.
    fn count_publish(&mut self) {
        let Some(rate) = self.hub.publish_rate else {
            return;
        };
        self.paused_until = self.published.spend(rate, clock::now());
        if self.paused_until.is_some() {
            self.hub.telemetry.slowed("publish rate");
        }
    }

    /// How long the client still has to wait before more of its publishes are taken.
    pub(crate) fn paused(&self) -> Option<Duration> {
        let until = self.paused_until?;
        Some(Duration::from_nanos(until.saturating_sub(clock::now())))
    }

    /// The wait is over.
    pub(crate) fn resume(&mut self) {
        self.paused_until = None;
    }

    /// The client is served from now on.
    pub(crate) fn arrive(&mut self) {
        let from = (&*self.session.client_id, self.peer.address);
        self.device = self.hub.device_came(&self.pass, self.connection, from);
    }

    /// The client has been served.
    pub(crate) fn leave(&self) {
        if let Some(device) = &self.device {
            self.hub.device_left(device, self.connection);
        }
    }

    /// Begins to close; the reason is told to a version 5 client.
    pub(crate) fn close(&mut self, reason: Reason, text: &'static str) {
        if self.closing.is_some() {
            return;
        }
        self.closing = Some(Close {
            reason,
            text,
            polite: false,
        });
    }

    /// Takes the whole packets at the front of `input`, as long as what they ask for is taken.
    pub(crate) fn take_input(&mut self, input: &mut BytesMut) {
        self.renew();
        while self.takes_input() {
            let taken = self.take_some(input);
            input.advance(taken);
            self.append();
            self.release();
            if taken == 0 {
                return;
            }
        }
    }

    /// One pass: up to as many publishes as go to the journal together. Gives the bytes taken.
    fn take_some(&mut self, input: &[u8]) -> usize {
        let mut taken = 0;
        while self.closing.is_none()
            && self.paused_until.is_none()
            && self.waiting.len() < MAX_WAITING
            && self.records.bytes() < MAX_COLLECTED
        {
            match codec::frame(&input[taken..], self.hub.config.limits.packet_bytes) {
                Ok(Some(frame)) if !frame.is_minimal() && self.version() == Version::V5 => {
                    self.refuse(CodecError::malformed(
                        "a length takes more bytes than it needs",
                    ));
                }
                Ok(Some(frame)) => {
                    let packet = &input[taken..taken + frame.total];
                    taken += frame.total;
                    self.traffic.packet();
                    match self.packet(&frame, packet) {
                        Ok(Taken::Whole) => {}
                        Ok(Taken::Later) => {
                            self.is_blocked = true;
                            return taken - frame.total;
                        }
                        Err(error) => self.refuse(error),
                    }
                }
                Ok(None) => break,
                Err(error) => self.refuse(error),
            }
        }
        taken
    }

    /// Counts and logs that something of the client was refused.
    pub(crate) fn note_refusal(&self, reason: &'static str) {
        let whom = Whom {
            peer: &self.peer,
            user: self.pass.principal().map(|name| &**name),
            client: Some(&self.session.client_id),
        };
        self.hub.telemetry.refused(whom, reason);
    }

    fn refuse(&mut self, error: CodecError) {
        self.note_refusal(error.text);
        self.close(error.reason, error.text);
    }
}

#[cfg(test)]
mod tests;
