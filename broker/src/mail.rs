//! The mail journal: messages of QoS 1 and 2 on topics that are not durable, written once for all the
//! persistent sessions they go to, so that these have them after a crash. The messages themselves
//! wait in the sessions' queues, which are bounded; the journal is read at the start only.
//!
//! A segment is deleted once nobody waits for anything in it. A few letters that nobody fetches would
//! hold on to every segment behind them: they are copied to the end when the journal has become
//! several times larger than what is live in it. A copy keeps the id of its original.

use std::{
    collections::{BTreeMap, HashMap},
    ops::Range,
    path::Path,
    sync::Arc,
};

use bytes::Bytes;
use parking_lot::Mutex;
use thinglog_journal::{
    AppendError, Chunk, Journal, OnFull, OpenError, Options, Outcome, ReadError, Records, Recovery,
    fs::Fs,
};
use tokio::sync::watch;
use tracing::warn;

use crate::{
    clock,
    letter::{self, MAX_ADDRESSES, Recipient},
    record::{Packet, Record},
};

/// The journal may be so much larger than what is live in it before letters are copied.
const SLACK_FACTOR: u64 = 4;
const SLACK_BYTES: u64 = 32 << 20;
/// Bytes of letters copied in one go.
const COPY: u64 = 4 << 20;
/// Bytes asked for in one read.
const READ: usize = 1 << 20;
/// A letter that somebody waits for.
#[derive(Debug)]
struct Waiting {
    /// Offset of its latest copy.
    at: u64,
    bytes: u64,
    sessions: usize,
}

#[derive(Debug, Default)]
struct Live {
    /// By id.
    letters: HashMap<u64, Waiting>,
    /// Ids by offset.
    places: BTreeMap<u64, u64>,
    bytes: u64,
}

impl Live {
    fn add(&mut self, id: u64, at: u64, bytes: usize, sessions: usize) {
        let bytes = bytes as u64;
        let waiting = Waiting {
            at,
            bytes,
            sessions,
        };
        if self.letters.insert(id, waiting).is_none() {
            self.bytes += bytes;
            self.places.insert(at, id);
        }
    }

    fn done(&mut self, id: u64) {
        let Some(waiting) = self.letters.get_mut(&id) else {
            return;
        };
        waiting.sessions -= 1;
        if waiting.sessions == 0 {
            self.remove(id);
        }
    }

    fn remove(&mut self, id: u64) {
        if let Some(waiting) = self.letters.remove(&id) {
            self.bytes -= waiting.bytes;
            self.places.remove(&waiting.at);
        }
    }

    /// The first place in a range, with its id.
    fn next(&self, range: Range<u64>) -> Option<(u64, u64)> {
        let next = self.places.range(range).next();
        next.map(|(at, id)| (*at, *id))
    }

    fn moved(&mut self, id: u64, to: u64) {
        if let Some(waiting) = self.letters.get_mut(&id) {
            self.places.remove(&waiting.at);
            waiting.at = to;
            self.places.insert(to, id);
        }
    }
}

/// The journal and what in it is waited for.
pub(crate) struct Mail {
    journal: Journal,
    settled: watch::Receiver<u64>,
    live: Mutex<Live>,
}

impl Mail {
    /// Opens or creates the journal in `dir` (blocking). It holds no more than `bytes`, and messages
    /// of packets of up to `packet` bytes.
    pub(crate) fn open(
        fs: Arc<dyn Fs>,
        dir: &Path,
        bytes: u64,
        packet: usize,
    ) -> Result<(Mail, Recovery), OpenError> {
        let options = Options {
            segment_bytes: 8 << 20,
            max_bytes: bytes,
            max_age: None,
            on_full: OnFull::Refuse,
            tail_bytes: 0,
            max_record: packet + MAX_ADDRESSES + 4096,
            ..Options::default()
        };
        let (journal, recovery) = Journal::open(fs, dir, options)?;
        let (sender, settled) = watch::channel(journal.settled());
        journal.on_settled(move |offset| {
            sender.send_replace(offset);
        });
        let mail = Mail {
            journal,
            settled,
            live: Mutex::default(),
        };
        Ok((mail, recovery))
    }

    /// Queues letters for the disk, each with its recipients, and gives their ids. Without any there is
    /// one that only keeps the packet id which the record carries.
    pub(crate) fn post(
        &self,
        letters: &[Vec<Recipient>],
        record: &Record<'_>,
    ) -> Result<Range<u64>, AppendError> {
        let mut records = Records::new();
        let (first, rest) = match letters {
            [first, rest @ ..] => (&first[..], rest),
            [] => (&[][..], letters),
        };
        records.push_with(|out| letter::encode(first, record, out));
        let again = Record {
            packet: None,
            ..*record
        };
        for more in rest {
            records.push_with(|out| letter::encode(more, &again, out));
        }
        let ids = self.journal.append(clock::now(), &records)?;
        let bytes = records.bytes() / records.len();
        let mut live = self.live.lock();
        for (id, recipients) in ids.clone().zip(letters) {
            live.add(id, id, bytes, recipients.len());
        }
        drop(live);
        Ok(ids)
    }

    /// Queues the release of a packet id; gives the offset to wait for.
    pub(crate) fn release(&self, packet: Packet) -> Result<u64, AppendError> {
        let mut records = Records::new();
        records.push_with(|out| packet.encode_release(out));
        Ok(self.journal.append(clock::now(), &records)?.start)
    }

    /// One session has its copy of a letter, or will never take it.
    pub(crate) fn done(&self, id: u64) {
        self.live.lock().done(id);
    }

    /// What became of a letter or a release.
    pub(crate) fn outcome(&self, offset: u64) -> Outcome {
        self.journal.outcome(offset)
    }

    /// Every offset below this is decided.
    pub(crate) fn settled(&self) -> u64 {
        self.journal.settled()
    }

    /// Next offset to be given.
    pub(crate) fn next(&self) -> u64 {
        self.journal.next()
    }

    /// Changes whenever letters are settled.
    pub(crate) fn watch(&self) -> watch::Receiver<u64> {
        self.settled.clone()
    }

    /// Offset of the oldest letter that somebody waits for.
    pub(crate) fn oldest(&self) -> Option<u64> {
        self.live.lock().places.keys().next().copied()
    }

    /// Whether a sync failed: nothing more is stored until the journal is opened anew.
    pub(crate) fn is_poisoned(&self) -> bool {
        self.journal.stats().poisoned
    }

    /// Bytes on disk.
    pub(crate) fn bytes(&self) -> u64 {
        self.journal.stats().bytes
    }

    /// Notes a letter found at the start that `sessions` wait for.
    pub(crate) fn revive(&self, id: u64, at: u64, bytes: usize, sessions: usize) {
        self.live.lock().add(id, at, bytes, sessions);
    }

    /// Reads everything held (blocking): offset and bytes of each record.
    pub(crate) fn read_all(&self, mut each: impl FnMut(u64, &[u8])) {
        let mut reader = self.journal.reader(self.journal.first());
        loop {
            match reader.read(READ) {
                Ok(Some(chunk)) => {
                    for record in chunk.records() {
                        each(record.offset, &record.payload);
                    }
                }
                Ok(None) => return,
                Err(error) => {
                    warn!(%error, "queued messages on disk cannot be read further");
                    return;
                }
            }
        }
    }

    /// Deletes the segments that nobody waits for and that lie below `mark`, from which on packet ids
    /// are recovered; copies the oldest letters when they hold on to too much (blocking).
    pub(crate) fn upkeep(&self, mark: u64) -> std::io::Result<()> {
        let (oldest, live) = {
            let live = self.live.lock();
            (live.places.keys().next().copied(), live.bytes)
        };
        if oldest.is_some() && self.bytes() > SLACK_FACTOR * live + SLACK_BYTES {
            self.copy_oldest();
        }
        let oldest = self.oldest();
        self.journal
            .release(oldest.unwrap_or(u64::MAX).min(mark).min(self.settled()))
    }

    /// Copies the oldest letters to the end, behind one sync for all of them.
    fn copy_oldest(&self) {
        let (mut copies, mut ids) = (Records::new(), Vec::new());
        let (mut from, end) = (0, self.settled());
        while (copies.bytes() as u64) < COPY {
            let Some((at, id)) = self.live.lock().next(from..end) else {
                break;
            };
            from = at + 1;
            match self.read_letter(at) {
                Ok(Some(bytes)) => {
                    copies.push_with(|out| {
                        letter::encode_copy(at, &bytes, out);
                    });
                    ids.push(id);
                }
                // It never came to the disk, or is damaged there: nothing is left to hold on to.
                Ok(None) => self.live.lock().remove(id),
                Err(error) => warn!(%error, "a queued message on disk cannot be copied"),
            }
        }
        if ids.is_empty() {
            return;
        }
        let Ok(places) = self.journal.append(clock::now(), &copies) else {
            return;
        };
        self.journal.wait(places.end - 1);
        for (id, place) in ids.into_iter().zip(places) {
            if self.outcome(place) == Outcome::Durable {
                self.live.lock().moved(id, place);
            }
        }
    }

    fn read_letter(&self, at: u64) -> Result<Option<Bytes>, ReadError> {
        let mut chunk = self.journal.reader(at).read(1)?;
        let record = chunk.as_mut().and_then(Chunk::next_record);
        Ok(record
            .filter(|record| record.offset == at && letter::decode(at, &record.payload).is_some())
            .map(|record| record.payload))
    }

    /// Letters that somebody waits for.
    #[cfg(test)]
    pub(crate) fn waiting(&self) -> usize {
        self.live.lock().letters.len()
    }
}

#[cfg(test)]
mod tests {
    use thinglog_journal::fs::RealFs;

    use super::*;
    use crate::record::NO_ADDRESS;

    fn recipient(session: u64) -> Recipient {
        Recipient {
            session,
            qos: 1,
            retain: false,
            ids: Vec::new(),
            share: None,
        }
    }

    fn record<'a>(topic: &'a str, payload: &'a [u8]) -> Record<'a> {
        Record {
            qos: 1,
            packet: None,
            client: 0,
            address: NO_ADDRESS,
            expires: None,
            principal: None,
            topic,
            properties: &[],
            payload,
        }
    }

    fn post(mail: &Mail, topic: &str, payload: &[u8], to: &[Recipient]) -> u64 {
        let id = mail
            .post(&[to.to_vec()], &record(topic, payload))
            .unwrap()
            .start;
        assert_eq!(mail.journal.wait(id), Outcome::Durable);
        id
    }

    /// Makes the journal large with letters that nobody waits for.
    fn fill(mail: &Mail) {
        let payload = vec![7; 1 << 20];
        for _ in 0..48 {
            let id = post(mail, "gone", &payload, &[recipient(1)]);
            mail.done(id);
        }
    }

    #[test]
    fn one_letter_that_nobody_fetches_does_not_hold_on_to_the_rest() {
        let dir = tempfile::tempdir().unwrap();
        let (mail, _) = Mail::open(Arc::new(RealFs), dir.path(), 256 << 20, 1 << 20).unwrap();
        let kept = post(&mail, "kept", b"x", &[recipient(1)]);
        let payload = vec![7; 1 << 20];
        for _ in 0..48 {
            let id = post(&mail, "gone", &payload, &[recipient(1), recipient(2)]);
            mail.done(id);
            mail.done(id);
        }
        assert!(mail.bytes() > 48 << 20);
        mail.upkeep(u64::MAX).unwrap();
        assert!(mail.bytes() < 20 << 20, "{} bytes", mail.bytes());
        drop(mail);
        let (mail, _) = Mail::open(Arc::new(RealFs), dir.path(), 256 << 20, 1 << 20).unwrap();
        let mut found = Vec::new();
        mail.read_all(|offset, bytes| {
            if let Some(letter) = letter::decode(offset, bytes) {
                let topic = Record::decode(letter.record).map(|record| record.topic.to_owned());
                found.extend(topic.filter(|topic| topic == "kept").map(|_| letter.id));
            }
        });
        assert_eq!(found, [kept], "the copy has the id of its original");
    }

    #[test]
    fn nothing_goes_above_the_mark() {
        let dir = tempfile::tempdir().unwrap();
        let (mail, _) = Mail::open(Arc::new(RealFs), dir.path(), 256 << 20, 1 << 20).unwrap();
        let payload = vec![7; 1 << 20];
        for _ in 0..20 {
            let id = post(&mail, "t", &payload, &[recipient(1)]);
            mail.done(id);
        }
        mail.upkeep(0).unwrap();
        assert_eq!(mail.journal.first(), 0);
        mail.upkeep(mail.next()).unwrap();
        assert!(mail.journal.first() > 0);
    }

    #[test]
    fn letters_are_copied_behind_few_syncs() {
        let dir = tempfile::tempdir().unwrap();
        let (mail, _) = Mail::open(Arc::new(RealFs), dir.path(), 256 << 20, 1 << 20).unwrap();
        let letter = record("kept", b"x");
        for _ in 0..1_000 {
            mail.post(&[vec![recipient(1)]], &letter).unwrap();
        }
        fill(&mail);
        let before = mail.journal.stats().syncs;
        mail.upkeep(u64::MAX).unwrap();
        assert!(mail.journal.stats().syncs - before < 10);
        assert_eq!(mail.waiting(), 1_000);
        assert!(mail.bytes() < 20 << 20, "{} bytes", mail.bytes());
    }

    #[test]
    fn a_letter_that_is_not_on_disk_holds_on_to_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let (mail, _) = Mail::open(Arc::new(RealFs), dir.path(), 256 << 20, 1 << 20).unwrap();
        let packet = Packet {
            session: 1,
            pkid: 1,
        };
        let at = mail.release(packet).unwrap();
        mail.revive(at, at, 100, 1);
        fill(&mail);
        mail.upkeep(u64::MAX).unwrap();
        assert!(mail.bytes() < 20 << 20, "{} bytes", mail.bytes());
        mail.done(at);
    }
}
