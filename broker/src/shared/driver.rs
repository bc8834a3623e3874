//! Reads the log for one durable group while it has connected members and hands the records to their
//! sessions: from memory at the tail, from disk behind it, and again from disk what waited.

use std::{sync::Arc, time::Duration};

use thinglog_journal::{Chunk, Journal, ReadError, Reader, Record as JournalRecord};
use tokio::{sync::watch, time::sleep};
use tracing::error;

use super::group::{Group, Hand, Task};
use crate::{
    clock,
    feed::Skipped,
    load::{Charge, Load},
    message::{Message, Origin, Queued},
    record::Record,
    stamp::Stamps,
    telemetry::Telemetry,
};

/// Bytes asked for in one read from disk, on the way forward and for records that waited.
const READ: usize = 512 << 10;
const FETCH: usize = 64 << 10;
/// Records that waited and are read again in one go, and their bytes.
const FETCH_RECORDS: usize = 512;
const FETCH_BYTES: usize = 1 << 20;
/// Beyond so many offsets it is quicker to seek than to read.
const SEEK: u64 = 1_024;
/// A log that cannot be read is tried again after this.
const RETRY: Duration = Duration::from_secs(1);

/// What a driver needs of the broker.
#[derive(Clone)]
pub(crate) struct Supply {
    pub(crate) journal: Journal,
    /// Follows what the journal has settled.
    pub(crate) settled: watch::Receiver<u64>,
    pub(crate) load: Arc<Load>,
    pub(crate) telemetry: Telemetry,
}

/// Records that waited, as they were found.
#[derive(Debug, Default)]
struct Fetched {
    records: Vec<JournalRecord>,
    /// Offsets at which there is nothing any more, ascending.
    gone: Vec<u64>,
}

struct Driver {
    group: Arc<Group>,
    supply: Supply,
    /// `None` while it reads.
    reader: Option<Reader>,
    chunk: Chunk,
    stamps: Stamps,
    skipped: Skipped,
    hands: Vec<Hand>,
}

/// Serves a group until it has no connected member, or the broker ends.
pub(crate) async fn drive(group: Arc<Group>, supply: Supply) {
    let mut settled = supply.settled.clone();
    let mut driver = Driver {
        reader: Some(supply.journal.reader(group.next())),
        chunk: Chunk::default(),
        stamps: Stamps::new(supply.journal.id()),
        skipped: Skipped::default(),
        hands: Vec::new(),
        group: group.clone(),
        supply,
    };
    loop {
        settled.mark_unchanged();
        let is_full = driver.supply.load.is_over();
        let rests = match group.task(FETCH_RECORDS, is_full) {
            Task::Stop => return,
            Task::Rest => true,
            Task::Fetch(offsets, event) => {
                driver.fetch(offsets, event).await;
                false
            }
            Task::Read => !driver.read_on().await,
        };
        driver.hand_out();
        if !rests {
            tokio::task::yield_now().await;
            continue;
        }
        tokio::select! {
            () = group.wake.notified() => {}
            changed = settled.changed() => if changed.is_err() {
                sleep(RETRY).await;
            },
        }
    }
}

impl Driver {
    /// Offers the records that come next; false when there are none.
    async fn read_on(&mut self) -> bool {
        if self.chunk.bytes() == 0 && !self.next_chunk().await {
            return false;
        }
        let chunk = &mut self.chunk;
        let next = || chunk.next_record();
        self.group
            .offer(next, clock::now(), &mut self.hands, &mut self.skipped);
        true
    }

    /// Takes the next records out of memory or from disk.
    async fn next_chunk(&mut self) -> bool {
        let Some(mut reader) = self.reader.take() else {
            return false;
        };
        if let Some(chunk) = reader.poll_memory() {
            self.reader = Some(reader);
            self.take(chunk);
            return true;
        }
        if reader.offset() >= self.supply.journal.settled() {
            self.group.close_gap(reader.offset());
            self.reader = Some(reader);
            return false;
        }
        let read = tokio::task::spawn_blocking(move || {
            let chunk = reader.read(READ);
            (reader, chunk)
        });
        match read.await {
            Ok((reader, chunk)) => {
                self.reader = Some(reader);
                match chunk {
                    Ok(Some(chunk)) => self.take(chunk),
                    Ok(None) => {}
                    Err(error) => self.failed(&error).await,
                }
            }
            Err(error) => {
                let next = self.group.next();
                self.reader = Some(self.supply.journal.reader(next));
                self.failed(&error).await;
            }
        }
        true
    }

    fn take(&mut self, chunk: Chunk) {
        self.skipped.cut += chunk.missed;
        self.chunk = chunk;
    }

    async fn failed(&self, error: &impl std::fmt::Display) {
        error!(share = &*self.group.share, %error, "the durable log cannot be read; it is tried again");
        sleep(RETRY).await;
    }

    /// Reads records again that waited as of `event`, and offers them.
    async fn fetch(&mut self, offsets: Vec<u64>, event: u64) {
        let journal = self.supply.journal.clone();
        let first = journal.first();
        let fetched = tokio::task::spawn_blocking(move || fetch(&journal, &offsets)).await;
        let fetched = match fetched {
            Ok(Ok(fetched)) => fetched,
            Ok(Err(error)) => return self.failed(&error).await,
            Err(error) => return self.failed(&error).await,
        };
        let records = (fetched.records, event);
        self.group
            .offer_again(records, clock::now(), &mut self.hands, &mut self.skipped);
        if !fetched.gone.is_empty() {
            self.skipped.cut += self.group.drop_waiting(first, &fetched.gone);
        }
    }

    /// Puts records into the queues of their members' sessions.
    fn hand_out(&mut self) {
        for hand in std::mem::take(&mut self.hands) {
            self.hand(&hand);
        }
        let skipped = std::mem::take(&mut self.skipped);
        self.supply.telemetry.skipped(&self.group.share, skipped);
    }

    fn hand(&mut self, hand: &Hand) {
        let Hand {
            member,
            seat,
            record: at,
        } = hand;
        let Some(record) = Record::decode(&at.payload) else {
            return;
        };
        let mut properties = record.properties.to_vec();
        if seat.is_told {
            self.stamps.write(at, &record, &mut properties);
        }
        let message = Arc::new(Message {
            properties: properties.into(),
            ..Message::of_record(&record)
        });
        let wanted = Queued::by(&seat.subscription, &message);
        let queued = Queued {
            qos: wanted.qos.min(1),
            origin: Origin::Log(at.offset),
            share: Some(self.group.share.clone()),
            charge: Charge::new(&seat.session.account, message.weight()),
            ..wanted
        };
        let mut inner = seat.session.inner.lock();
        if inner.owner != *member {
            // It left, and with that everything it had was given back.
            return;
        }
        if !inner.subscriptions.contains_key(&*self.group.share) {
            return self.group.give_back(*member, at.offset);
        }
        inner.queue.push_record(queued);
        inner.wake.notify_one();
    }
}

/// Reads the records at `offsets`, ascending, or the first of them (blocking).
fn fetch(journal: &Journal, offsets: &[u64]) -> Result<Fetched, ReadError> {
    let mut fetched = Fetched::default();
    let mut bytes = 0;
    let mut reader: Option<Reader> = None;
    let mut ahead: Option<JournalRecord> = None;
    let mut chunk = Chunk::default();
    for &offset in offsets {
        if bytes >= FETCH_BYTES {
            break;
        }
        loop {
            match ahead.take().or_else(|| chunk.next_record()) {
                Some(record) if record.offset < offset => {}
                Some(record) if record.offset == offset => {
                    bytes += record.payload.len();
                    fetched.records.push(record);
                    break;
                }
                Some(record) => {
                    ahead = Some(record);
                    fetched.gone.push(offset);
                    break;
                }
                None => {
                    let place = reader.as_ref().map(Reader::offset);
                    if place.is_some_and(|place| place > offset) {
                        fetched.gone.push(offset);
                        break;
                    }
                    let near = reader.take_if(|reader| offset - reader.offset() < SEEK);
                    let from = near.unwrap_or_else(|| journal.reader(offset));
                    match reader.insert(from).read(FETCH)? {
                        Some(next) => chunk = next,
                        None => {
                            fetched.gone.push(offset);
                            break;
                        }
                    }
                }
            }
        }
    }
    Ok(fetched)
}
