//! The journal on its way to one connection: reads from the session's cursor on, matches topics,
//! writes publishes. Knows nothing of sockets; [`crate::connection`] asks it to fill its buffer.

use std::{collections::BTreeMap, sync::Arc};

use bytes::BytesMut;
use thinglog_journal::{Chunk, Journal, ReadError, Reader, Record as JournalRecord};
use tokio::task::JoinHandle;

use crate::{
    access::{Pass, Reach},
    codec::{Aliases, Delivery, Version},
    filter::{Matcher, may_be_durable},
    message::seconds_left,
    record::Record,
    session::Inner,
    stamp::Stamps,
    telemetry::Traffic,
    trie::Subscription,
    window::Sent,
};

/// Bytes asked for in one read from disk.
const READ: usize = 512 << 10;
/// Bytes of outgoing buffer beyond which a feed waits for the socket.
pub(crate) const HIGH_WATER: usize = 256 << 10;
/// Bytes of an acknowledgement with a reason in words, without the words.
const ACK_BYTES: usize = 12;

/// A subscription that may match durable topics.
#[derive(Debug)]
struct Wanted {
    filter: Matcher,
    subscription: Subscription,
    /// The client may read some of what it matches, not all.
    is_checked: bool,
}

/// What a connection's client is, as far as deliveries depend on it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Receiver {
    pub(crate) version: Version,
    pub(crate) receive_maximum: u16,
    /// Largest packet the client takes, bytes.
    pub(crate) max_packet: usize,
    /// It wants reasons in words in every packet that may hold them (MQTT 5.0 section 3.1.2.11.7).
    pub(crate) explains: bool,
    /// Hash of its client id, for No Local.
    pub(crate) client: u64,
}

impl Receiver {
    /// A reason in words for a packet other than CONNACK and DISCONNECT: nothing when the client does
    /// not want any or might not take a packet with it.
    pub(crate) fn explain(&self, text: &'static str) -> &'static str {
        match self.explains && self.max_packet >= ACK_BYTES + text.len() {
            true => text,
            false => "",
        }
    }
}

/// Why filling stopped.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Fill {
    /// Everything durable has been given.
    AtEnd,
    /// The buffer or the client's receive maximum is used up.
    Full,
    /// The next records are on disk; `start_read` gets them.
    NeedsRead,
}

/// Records that were not given to the client, for the counters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Skipped {
    /// Cut by retention before this session came to them.
    pub(crate) cut: u64,
    pub(crate) expired: u64,
    /// Larger than the client's Maximum Packet Size.
    pub(crate) too_large: u64,
    /// For no member of a group to read.
    pub(crate) forbidden: u64,
}

/// A reader back from disk, with what it read.
type Finished = (Box<Reader>, Result<Option<Chunk>, ReadError>);

enum Source {
    Ready(Box<Reader>),
    Reading(JoinHandle<Finished>),
    /// The read task is gone; the connection ends.
    Gone,
}

/// A reader of the journal for one connection.
pub(crate) struct Feed {
    journal: Journal,
    source: Source,
    chunk: Option<Chunk>,
    /// A record taken from the chunk that did not fit yet.
    held: Option<JournalRecord>,
    /// The offset that comes next unless the journal has a gap there.
    expected: u64,
    filters: Vec<Wanted>,
    /// What the client may read; `None` is everything.
    pass: Option<Arc<Pass>>,
    /// Records sent over an earlier connection and never acknowledged, with their packet ids.
    resend: BTreeMap<u64, u16>,
    stamps: Stamps,
    stamp: Vec<u8>,
    /// Identifiers of the subscriptions that match a record.
    ids: Vec<u32>,
    pub(crate) skipped: Skipped,
    /// What it wrote.
    pub(crate) traffic: Traffic,
}

impl Feed {
    /// A feed for a session that has a cursor; resumes behind what is done.
    pub(crate) fn new(journal: Journal, inner: &Inner, durable: &[String]) -> Option<Feed> {
        let cursor = inner.cursor.as_ref()?;
        let resend = inner
            .window
            .to_resend()
            .filter_map(|(pkid, sent)| match sent {
                Sent::Durable(offset) => Some((*offset, pkid)),
                Sent::Queued(_) | Sent::Released => None,
            });
        let mut feed = Feed {
            source: Source::Ready(Box::new(journal.reader(cursor.position()))),
            chunk: None,
            held: None,
            expected: cursor.position(),
            filters: Vec::new(),
            pass: None,
            resend: resend.collect(),
            stamps: Stamps::new(journal.id()),
            stamp: Vec::new(),
            ids: Vec::new(),
            skipped: Skipped::default(),
            traffic: Traffic::default(),
            journal,
        };
        feed.set_filters(inner, durable);
        Some(feed)
    }

    /// Takes the session's filters that may match durable topics, and what its client may read.
    pub(crate) fn set_filters(&mut self, inner: &Inner, durable: &[String]) {
        self.pass = inner.pass.clone();
        let is_checked = |filter: &str| {
            let pass = self.pass.as_ref();
            pass.is_some_and(|pass| pass.reach(filter) != Reach::Everything)
        };
        self.filters = inner
            .subscriptions
            .iter()
            .filter(|(filter, _)| may_be_durable(filter, durable))
            .map(|(filter, subscription)| Wanted {
                filter: Matcher::new(filter),
                subscription: subscription.clone(),
                is_checked: is_checked(filter),
            })
            .collect();
    }

    /// Writes as many publishes as there is room for.
    pub(crate) fn fill(
        &mut self,
        inner: &mut Inner,
        to: &Receiver,
        now: u64,
        aliases: &mut Aliases,
        out: &mut BytesMut,
    ) -> Fill {
        loop {
            if out.len() >= HIGH_WATER {
                return Fill::Full;
            }
            let Some(record) = self
                .held
                .take()
                .or_else(|| self.chunk.as_mut().and_then(Chunk::next_record))
            else {
                match self.next_chunk() {
                    Some(chunk) => self.resume(chunk),
                    None => return self.at_end(inner),
                }
                continue;
            };
            if !self.deliver(inner, (to, now), &record, aliases, out) {
                self.held = Some(record);
                return Fill::Full;
            }
        }
    }

    fn at_end(&mut self, inner: &mut Inner) -> Fill {
        let Source::Ready(reader) = &self.source else {
            return Fill::NeedsRead;
        };
        let offset = reader.offset();
        if offset < self.journal.settled() {
            return Fill::NeedsRead;
        }
        self.close_gap(inner, offset);
        Fill::AtEnd
    }

    fn next_chunk(&mut self) -> Option<Chunk> {
        match &mut self.source {
            Source::Ready(reader) => reader.poll_memory(),
            Source::Reading(_) | Source::Gone => None,
        }
    }

    /// Goes on with a chunk that `read_done` gave.
    pub(crate) fn resume(&mut self, chunk: Chunk) {
        self.skipped.cut += chunk.missed;
        self.chunk = Some(chunk);
    }

    /// The offsets up to `offset` that were not given were cut, or never stored: they are done.
    fn close_gap(&mut self, inner: &mut Inner, offset: u64) {
        if offset <= self.expected {
            return;
        }
        let kept = self.resend.split_off(&offset);
        for (_, pkid) in std::mem::replace(&mut self.resend, kept) {
            inner.window.discard(pkid);
        }
        if let Some(cursor) = &mut inner.cursor {
            cursor.done(self.expected..offset);
            inner.cursor_moved = true;
        }
        self.expected = offset;
    }

    /// Nobody here wants the record at `offset`: it is done.
    fn pass_over(&mut self, inner: &mut Inner, offset: u64) -> bool {
        if let Some(pkid) = self.resend.remove(&offset) {
            inner.window.discard(pkid);
        }
        if let Some(cursor) = &mut inner.cursor {
            cursor.done(offset..offset + 1);
            inner.cursor_moved = true;
        }
        true
    }

    /// Gives one record, or passes over one that nobody here wants; false when the client takes no
    /// more for now.
    fn deliver(
        &mut self,
        inner: &mut Inner,
        (to, now): (&Receiver, u64),
        at: &JournalRecord,
        aliases: &mut Aliases,
        out: &mut BytesMut,
    ) -> bool {
        let offset = at.offset;
        self.close_gap(inner, offset);
        self.expected = self.expected.max(offset + 1);
        let done = inner
            .cursor
            .as_ref()
            .is_none_or(|cursor| cursor.is_done(offset));
        let resent = self.resend.get(&offset).copied();
        if done {
            return true;
        }
        if self.filters.is_empty() && resent.is_none() {
            return self.pass_over(inner, offset);
        }
        let Some(record) = Record::decode(&at.payload) else {
            return self.pass_over(inner, offset);
        };
        // What was sent is completed although nothing asks for it any more (MQTT 5.0 section 3.10.4).
        let begun = resent.filter(|_| self.may_read(record.topic)).map(|_| 1);
        let Some(qos) = self.wanted(&record, to).or(begun) else {
            return self.pass_over(inner, offset);
        };
        if record.expires.is_some_and(|expires| expires <= now) && resent.is_none() {
            self.skipped.expired += 1;
            return self.pass_over(inner, offset);
        }
        self.stamp.clear();
        let is_told = self.pass.as_ref().is_none_or(|pass| pass.is_trusted());
        if is_told && to.version == Version::V5 {
            self.stamps.write(at, &record, &mut self.stamp);
        }
        let mut delivery = Delivery {
            dup: resent.is_some() && qos > 0,
            qos,
            retain: false,
            pkid: resent.unwrap_or(0),
            topic: record.topic.as_bytes(),
            expiry: record.expires.map(|expires| seconds_left(expires, now)),
            subscription_ids: &self.ids,
            properties: record.properties,
            stamp: &self.stamp,
            payload: record.payload,
            ..Delivery::default()
        };
        if !delivery.fit(to.version, to.max_packet, aliases) {
            self.skipped.too_large += 1;
            return self.pass_over(inner, offset);
        }
        if qos == 0 {
            self.traffic.sent(0, record.payload.len());
            delivery.write(to.version, aliases, out);
            return self.pass_over(inner, offset);
        }
        match resent {
            Some(_) if !inner.window.may_resend(to.receive_maximum) => return false,
            Some(pkid) => {
                inner.window.resend(pkid);
                self.resend.remove(&offset);
            }
            None if !inner.window.has_room(to.receive_maximum) => return false,
            None => delivery.pkid = inner.window.push(Sent::Durable(offset)),
        }
        self.traffic.sent(qos, record.payload.len());
        delivery.write(to.version, aliases, out);
        true
    }

    /// Highest QoS of the subscriptions that match; `ids` gets all their identifiers.
    fn wanted(&mut self, record: &Record<'_>, to: &Receiver) -> Option<u8> {
        self.ids.clear();
        let mut qos = None;
        for wanted in &self.filters {
            let (filter, subscription) = (&wanted.filter, &wanted.subscription);
            let own = subscription.no_local && record.client == to.client;
            if own || !filter.matches(record.topic) {
                continue;
            }
            if wanted.is_checked && !self.may_read(record.topic) {
                continue;
            }
            let granted = subscription.qos.min(record.qos).min(1);
            qos = qos.max(Some(granted));
            if let Some(id) = subscription.id
                && !self.ids.contains(&id)
            {
                self.ids.push(id);
            }
        }
        qos
    }

    fn may_read(&self, topic: &str) -> bool {
        self.pass.as_ref().is_none_or(|pass| pass.may_read(topic))
    }

    /// Nothing asks for records any more; some that were sent may still be under way.
    pub(crate) fn is_over(&self) -> bool {
        self.filters.is_empty() && self.resend.is_empty()
    }

    /// Begins to read from disk, unless a read is under way.
    pub(crate) fn start_read(&mut self) {
        self.source = match std::mem::replace(&mut self.source, Source::Gone) {
            Source::Ready(mut reader) => Source::Reading(tokio::task::spawn_blocking(move || {
                let result = reader.read(READ);
                (reader, result)
            })),
            other => other,
        };
    }

    /// Whether a read is under way.
    pub(crate) fn is_reading(&self) -> bool {
        matches!(self.source, Source::Reading(_))
    }

    /// Waits for the read that is under way. Cancel-safe: a dropped wait loses nothing.
    pub(crate) async fn read_done(&mut self) -> Result<Option<Chunk>, String> {
        let Source::Reading(task) = &mut self.source else {
            return std::future::pending().await;
        };
        let finished = task.await;
        match finished {
            Ok((reader, result)) => {
                self.source = Source::Ready(reader);
                result.map_err(|error| error.to_string())
            }
            Err(error) => {
                self.source = Source::Gone;
                Err(error.to_string())
            }
        }
    }
}
