//! Takes up what the last run left on disk: retained messages, sessions with their cursors, the
//! messages that waited for them, and the packet ids of QoS 2 that were under way.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    mem::{Discriminant, discriminant},
    sync::Arc,
};

use thinglog_journal::{ReadError, cursor::Cursor};
use tracing::{info, warn};

use super::Hub;
use crate::{
    clock,
    filter::may_be_durable,
    inbound::{Inbound, Marks, Place},
    letter::{self, Letter},
    load::Charge,
    message::{Message, Origin, Queued},
    outgoing::Outgoing,
    record::{Packet, Record, Step},
    session::{Session, Stored},
    shared::Group,
    state::Loaded,
    window::{Sent, Window},
};

/// Bytes asked for in one read of the log.
const READ: usize = 1 << 20;

/// Sessions of the last run by their numbers on disk.
type Numbered = HashMap<u64, (Arc<Session>, Outgoing)>;

/// One past the highest offset of the durable log of which is known that it was given.
pub(crate) fn log_end(loaded: &Loaded) -> u64 {
    let cursors = loaded.cursors.values().filter_map(|it| Cursor::decode(it));
    let groups = loaded.groups.values().filter_map(|it| Group::decode(it));
    let marks = loaded.marks.as_deref().and_then(Marks::decode);
    let marks = marks.filter(|_| loaded.is_of_journal);
    cursors
        .chain(groups.map(|(cursor, _)| cursor))
        .map(|cursor| cursor.highest())
        .chain(marks.map(|marks| marks.log))
        .max()
        .unwrap_or(0)
}

impl Hub {
    pub(super) fn revive(&self, mut loaded: Loaded) {
        self.revive_retained(&loaded);
        let now = clock::now();
        self.revive_wills(std::mem::take(&mut loaded.wills), now);
        self.revive_groups(std::mem::take(&mut loaded.groups), now);
        let mut numbered = Numbered::new();
        for (client_id, bytes) in std::mem::take(&mut loaded.sessions) {
            let Some(stored) = Stored::decode(&bytes) else {
                warn!(
                    client = client_id,
                    "a session on disk cannot be read and is left out"
                );
                continue;
            };
            let (session, outgoing) = self.revive_session(&client_id, stored, &mut loaded, now);
            numbered.insert(session.number, (session, outgoing));
        }
        let marks = loaded.marks.as_deref().and_then(Marks::decode);
        let mut marks = marks.unwrap_or_default();
        marks.mail = marks.mail.min(self.mail.next());
        let mut packets = Packets::new(&numbered, marks);
        self.revive_mail(&numbered, &mut packets);
        let read = self.read_log(marks.log, |offset, bytes| {
            packets.apply(Place::Log(offset), Step::of(bytes));
        });
        packets.note();
        if let Err(error) = read {
            warn!(%error, "the durable log cannot be read for packets of QoS 2 under way; some may come twice");
        }
        if !numbered.is_empty() {
            info!(sessions = numbered.len(), "sessions restored");
        }
    }

    fn revive_retained(&self, loaded: &Loaded) {
        let mut retained = self.retained.lock();
        for (topic, bytes) in &loaded.retained {
            match Record::decode(bytes) {
                Some(record) => retained.set(Arc::new(Message {
                    retain: true,
                    ..Message::of_record(&record)
                })),
                None => warn!(
                    topic,
                    "a retained message on disk cannot be read and is left out"
                ),
            }
        }
        self.telemetry.retained.set(retained.len() as i64);
    }

    fn revive_session(
        &self,
        client_id: &str,
        stored: Stored,
        loaded: &mut Loaded,
        now: u64,
    ) -> (Arc<Session>, Outgoing) {
        let number = stored.number();
        let mut inner = stored.revive(now, self.config.limits.session_seconds);
        let principal = inner.principal.take();
        self.belongs_to(&mut inner, principal);
        inner.cursor = match loaded
            .cursors
            .remove(client_id)
            .map(|bytes| Cursor::decode(&bytes))
        {
            Some(Some(cursor)) => Some(cursor),
            Some(None) => {
                warn!(
                    client = client_id,
                    "a cursor on disk cannot be read; its session starts at the oldest record"
                );
                Some(Cursor::at(self.journal.first()))
            }
            None if inner
                .subscriptions
                .keys()
                .any(|filter| may_be_durable(filter, &self.durable_filters)) =>
            {
                Some(Cursor::at(self.journal.first()))
            }
            None => None,
        };
        if let Some(inbound) = loaded.inbound.remove(client_id) {
            inner.inbound = Inbound::decode(&inbound).unwrap_or_default();
            // Nothing is known of what a lost journal had: it is new when it comes again.
            inner.inbound.cut(Marks {
                log: loaded.log_end,
                mail: self.mail.next(),
            });
        }
        let outgoing = loaded
            .outgoing
            .remove(client_id)
            .and_then(|bytes| Outgoing::decode(&bytes))
            .unwrap_or_else(Outgoing::unknown);
        let session = self.add_session(client_id.into(), number);
        for (filter, subscription) in &inner.subscriptions {
            self.route(&session, filter, subscription.clone());
            if self.is_durable_group(filter) {
                self.revive_member(session.key, filter, now);
            }
        }
        let expiry = inner.expiry;
        session.set_expiry(&mut inner, expiry);
        if number.is_none() {
            self.store(&session, &mut inner);
        }
        *session.inner.lock() = inner;
        (session, outgoing)
    }

    /// Reads the mail journal, once: puts the letters that are outstanding back into windows and queues,
    /// and gives `packets` what it says of packet ids.
    fn revive_mail(&self, numbered: &Numbered, packets: &mut Packets<'_>) {
        let next = self.mail.next();
        let outstanding: HashMap<u64, HashSet<u64>> = numbered
            .iter()
            .map(|(number, (_, outgoing))| {
                let sent = outgoing.sent().iter().filter_map(|(_, letter)| *letter);
                (*number, outgoing.waiting().chain(sent).collect())
            })
            .collect();
        let mut found: HashMap<u64, BTreeMap<u64, Queued>> = HashMap::new();
        let mut known = HashSet::new();
        self.mail.read_all(|offset, bytes| {
            let Some(letter) = letter::decode(offset, bytes) else {
                return packets.in_mail(offset, Step::of(bytes));
            };
            let id = letter.id;
            // Copies stand for packet ids that were dealt with when their original was read.
            if id == offset {
                packets.in_mail(offset, Step::of(letter.record));
            }
            if known.contains(&id) {
                return;
            }
            let waits = |number: u64| {
                let (session, outgoing) = numbered.get(&number)?;
                // Ids below `seen` of a journal that was lost since mean other letters.
                let waits = id >= outgoing.seen().min(next) || outstanding[&number].contains(&id);
                waits.then_some(session)
            };
            let sessions = self.take_letter(letter, waits, &mut found);
            if sessions > 0 {
                known.insert(id);
                self.mail.revive(id, offset, bytes.len(), sessions);
            }
        });
        for (number, (session, outgoing)) in numbered {
            let letters = found.remove(number).unwrap_or_default();
            self.restore_session(session, outgoing, letters);
        }
    }

    /// Sorts a letter to those who wait for it; gives their number.
    fn take_letter<'a>(
        &self,
        letter: Letter<'_>,
        waits: impl Fn(u64) -> Option<&'a Arc<Session>>,
        found: &mut HashMap<u64, BTreeMap<u64, Queued>>,
    ) -> usize {
        let mut message = None;
        let mut sessions = 0;
        for recipient in letter.recipients {
            let Some(session) = waits(recipient.session) else {
                continue;
            };
            let message: &Arc<Message> = match &message {
                Some(message) => message,
                None => match Record::decode(letter.record) {
                    Some(record) => message.insert(Arc::new(Message::of_record(&record))),
                    None => return 0,
                },
            };
            let queued = Queued {
                message: message.clone(),
                qos: recipient.qos,
                retain: recipient.retain,
                ids: recipient.ids,
                origin: Origin::Mail(letter.id),
                share: recipient.share,
                charge: Charge::new(&session.account, message.weight()),
            };
            let letters = found.entry(recipient.session).or_default();
            sessions += usize::from(letters.insert(letter.id, queued).is_none());
        }
        sessions
    }

    fn restore_session(
        &self,
        session: &Session,
        outgoing: &Outgoing,
        mut letters: BTreeMap<u64, Queued>,
    ) {
        let mut inner = session.inner.lock();
        let sent = outgoing
            .sent()
            .iter()
            .filter_map(|(pkid, letter)| match letter {
                Some(id) => Some((*pkid, Sent::Queued(letters.remove(id)?))),
                None => Some((*pkid, Sent::Released)),
            });
        inner.window = Window::restore(sent);
        inner.mail_seen = outgoing
            .seen()
            .min(self.mail.next())
            .max(letters.keys().next_back().map_or(0, |id| id + 1));
        for queued in letters.into_values() {
            inner.queue.push_restored(queued);
        }
        inner.mail_changed = true;
    }

    fn read_log(&self, from: u64, mut each: impl FnMut(u64, &[u8])) -> Result<(), ReadError> {
        let mut reader = self.journal.reader(from.min(self.journal.next()));
        while let Some(chunk) = reader.read(READ)? {
            for record in chunk.records() {
                each(record.offset, &record.payload);
            }
        }
        Ok(())
    }
}

/// Rebuilds from both journals which packet ids were received and not released.
struct Packets<'a> {
    numbered: &'a Numbered,
    marks: Marks,
    /// An id may be in both journals, one after the other: a release frees what its own has, not what was
    /// received into the other after it.
    received: HashMap<(Packet, Discriminant<Place>), Place>,
}

impl<'a> Packets<'a> {
    fn new(numbered: &'a Numbered, marks: Marks) -> Packets<'a> {
        Packets {
            numbered,
            marks,
            received: HashMap::new(),
        }
    }

    /// A record of the mail journal; what lies below the mark is in the sessions' checkpoints.
    fn in_mail(&mut self, offset: u64, step: Option<Step>) {
        if offset >= self.marks.mail {
            self.apply(Place::Mail(offset), step);
        }
    }

    /// What a record says, in the order of its journal.
    fn apply(&mut self, place: Place, step: Option<Step>) {
        let Some(step) = step else { return };
        let (Step::Received(packet) | Step::Released(packet)) = step;
        let Some((session, _)) = self.numbered.get(&packet.session) else {
            return;
        };
        let key = (packet, discriminant(&place));
        match step {
            Step::Received(_) => drop(self.received.insert(key, place)),
            Step::Released(_) => {
                self.received.remove(&key);
                let inbound = &mut session.inner.lock().inbound;
                let known = inbound.place(packet.pkid);
                if known.is_some_and(|known| discriminant(&known) == key.1) {
                    inbound.remove(packet.pkid);
                }
            }
        }
    }

    /// Notes in the sessions what is left.
    fn note(self) {
        for ((packet, _), place) in self.received {
            if let Some((session, _)) = self.numbered.get(&packet.session) {
                session.inner.lock().inbound.insert(packet.pkid, place);
            }
        }
    }
}
