//! Source: systemd's journal, through `journalctl -o export --follow`. The journal keeps what cannot be
//! sent yet.
//!
//! One journal feeds many sources of events, and each gets into the spool at a pace of its own. So
//! there are two kinds of places: a floor, before which everything is durable, is remembered now and
//! then in the state directory; and every event carries the place of its own source. After a crash
//! the journal is read again from the floor, and each source's entries are passed over up to its own
//! place: nothing is lost and nothing comes twice. Without a spool the floor is all there is.
//!
//! A place is the cursor of an entry. When that entry is not in the journal any more, because the
//! journal removed it to make room or was begun anew, reading goes on with the oldest entry that is
//! not surely from before, and the gap is declared as an event of its own.

mod entry;
mod export;
mod options;
mod place;
mod program;

use std::{collections::HashMap, fs, sync::Arc, time::Duration};

use thinglog_schemas::{Severity, hash::fnv1a};
use tokio_util::sync::CancellationToken;

use self::{
    export::Entry,
    place::{Cursor, Place, Position, Resume, folded},
};
use super::{SourceError, keeper::Keeper, sink::Sink, state::key};
use crate::{Record, backoff::Backoff, clock};
pub(crate) use entry::{Own, is_wanted, record};
pub(crate) use export::Export;
pub use options::{JournalOptions, JournalStart};
use program::first;
pub(crate) use program::{CHUNK, Program};

/// With a spool the floor saves reading again, no more.
const WITH_SPOOL: Duration = Duration::from_secs(30);
/// A journalctl that nobody reads holds on to files that the journal has removed: after so long
/// without room it is ended, and another one started when there is.
const HELD: Duration = Duration::from_secs(30);
/// A journal that could be followed for so long is read again at once when journalctl ends.
const STEADY: Duration = Duration::from_secs(60);
/// Sources whose places are looked up once only.
const MAX_LANES: usize = 4096;
/// The source of what the agent itself has to say.
const OWN: &str = "thinglog";

/// Follows the journal until `cancel`, and waits with it when the publisher has no room. `journalctl`
/// is started again when it ends; one that does nothing but fail is an error.
pub async fn run_journal_source(
    sink: &Sink,
    options: JournalOptions,
    cancel: CancellationToken,
) -> Result<(), SourceError> {
    options.check()?;
    let mut source = tokio::select! {
        source = Source::begin(sink, options) => source?,
        () = cancel.cancelled() => return Ok(()),
    };
    let ended = source.run(&cancel).await;
    let Source {
        keeper,
        place,
        options,
        ..
    } = source;
    keeper
        .finish(Some(place), sink.publisher(), options.drain)
        .await;
    ended
}

/// How a round ended.
enum Round {
    /// As it was told to.
    Told,
    /// There was no room for long, and is now.
    Held,
    /// journalctl ended, after so many entries.
    Program(program::Ended, u64),
}

/// What an entry means for the round.
enum Step {
    On,
    Told,
    Held,
}

struct Source<'a> {
    sink: &'a Sink,
    options: JournalOptions,
    selection: u64,
    own: Own,
    boot: Option<u64>,
    keeper: Keeper<Place>,
    /// Behind the last entry that was passed on or over.
    place: Place,
    lanes: Lanes,
}

impl<'a> Source<'a> {
    async fn begin(sink: &'a Sink, options: JournalOptions) -> Result<Source<'a>, SourceError> {
        let identity = options.identity();
        let name = key("journal", identity.as_bytes());
        let mut keeper: Keeper<Place> = Keeper::new(options.state.clone(), name);
        if sink.publisher().keeps_places() {
            keeper.store_every(WITH_SPOOL);
        }
        let place = match keeper.load() {
            Some(place) => place,
            None => {
                let place = first_place(&options).await?;
                // Before the first event: whatever happens now, the next start goes on from here.
                keeper.store(place.clone());
                place
            }
        };
        Ok(Source {
            sink,
            selection: options.selection(),
            own: Own::of_this_process(),
            boot: boot(),
            keeper,
            place,
            lanes: Lanes {
                identity,
                known: HashMap::new(),
            },
            options,
        })
    }

    async fn run(&mut self, cancel: &CancellationToken) -> Result<(), SourceError> {
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(60));
        loop {
            let begun = clock::mono();
            let (ended, entries) = match self.round(cancel).await? {
                Round::Told => return Ok(()),
                Round::Held => continue,
                Round::Program(ended, entries) => (ended, entries),
            };
            // What ended by a signal may have been well.
            if entries == 0 && ended.status.code().is_some_and(|code| code != 0) {
                return Err(ended.error());
            }
            if begun.elapsed() > STEADY {
                backoff.reset();
            }
            tracing::warn!(status = %ended.status, "journalctl ended; starting it again");
            tokio::select! {
                () = tokio::time::sleep(backoff.next(crate::random())) => {}
                () = cancel.cancelled() => return Ok(()),
            }
        }
    }

    /// From a start of journalctl to its end.
    async fn round(&mut self, cancel: &CancellationToken) -> Result<Round, SourceError> {
        let gone = tokio::select! {
            gone = is_gone(&self.options, &self.place) => gone?,
            () = cancel.cancelled() => return Ok(Round::Told),
        };
        let mut more = vec!["--follow".to_owned(), "--no-tail".to_owned()];
        if let Some(cursor) = self.place.cursor.as_ref().filter(|_| !gone) {
            more.push(format!("--cursor={cursor}"));
        }
        let mut program = Program::start(&self.options, &self.options.arguments(&more))?;
        let mut resume = Resume::at(&self.place, gone, self.boot);
        let mut export = Export::default();
        let mut buffer = vec![0; CHUNK];
        let (mut entries, mut count) = (Vec::new(), 0);
        loop {
            let read = tokio::select! {
                read = program.read(&mut buffer) => read?,
                // Places become durable while nothing is read, too.
                () = tokio::time::sleep(Duration::from_secs(1)) => {
                    self.offer();
                    continue;
                }
                () = cancel.cancelled() => break,
            };
            if read == 0 {
                return Ok(Round::Program(program.end(false).await?, count));
            }
            export.feed(&buffer[..read], |entry| entries.push(entry));
            for entry in entries.drain(..) {
                count += 1;
                match self.take(entry, &mut resume, cancel).await {
                    Step::On => {}
                    Step::Told => {
                        program.end(true).await?;
                        return Ok(Round::Told);
                    }
                    Step::Held => {
                        program.end(true).await?;
                        return Ok(Round::Held);
                    }
                }
            }
            self.offer();
        }
        program.end(true).await?;
        Ok(Round::Told)
    }

    fn offer(&mut self) {
        if self.keeper.wants() {
            self.keeper.offer(self.place.clone(), self.sink.publisher());
        }
    }

    async fn take(
        &mut self,
        entry: Entry,
        resume: &mut Resume,
        cancel: &CancellationToken,
    ) -> Step {
        let Some(cursor) = entry
            .text("__CURSOR")
            .map(|text| Cursor::new(text.to_owned()))
        else {
            return Step::On;
        };
        if !resume.is_new(&cursor) {
            return Step::On;
        }
        if let Some(missing) = resume.take_gap(&cursor)
            && self.place.selection == self.selection
        {
            self.declare(missing).await;
        }
        let wanted = is_wanted(&entry, &self.options, &self.own);
        let step = match wanted {
            true => {
                self.emit(record(&entry, &self.options), &cursor, cancel)
                    .await
            }
            false => Step::On,
        };
        if !matches!(step, Step::Told) {
            self.place = Place::after(&cursor, self.selection);
        }
        step
    }

    async fn emit(
        &mut self,
        mut record: Record,
        cursor: &Cursor,
        cancel: &CancellationToken,
    ) -> Step {
        if let Some(position) = cursor
            .position
            .filter(|_| self.sink.publisher().keeps_places())
        {
            if self
                .lanes
                .has(self.sink, &record.source, &position, self.boot)
            {
                return Step::On;
            }
            record.mark(self.lanes.key(&record.source), &position.encode());
        }
        let sending = self.sink.emit_waiting(record);
        tokio::pin!(sending);
        let mut held = false;
        loop {
            tokio::select! {
                sent = &mut sending => return match (sent, held) {
                    (false, _) => Step::Told,
                    (true, true) => Step::Held,
                    (true, false) => Step::On,
                },
                () = tokio::time::sleep(HELD), if !held => held = true,
                () = cancel.cancelled() => return Step::Told,
            }
        }
    }

    /// Says that entries may be missing that nobody read, and how many where the journal counted them.
    async fn declare(&mut self, missing: Option<u64>) {
        let what = match missing {
            Some(count) => format!("up to {count} entries"),
            None => "entries, nobody knows how many,".to_owned(),
        };
        let text = format!(
            "the journal no longer has the entry that was read last: {what} were removed before they were read"
        );
        tracing::warn!("{text}");
        let mut record = Record::new(OWN, Severity::WARN, text);
        if let Some(count) = missing.filter(|_| self.options.is_whole()) {
            record = record.with("lost", count);
        }
        self.sink.emit_waiting(record).await;
        self.keeper.hurry();
    }
}

/// Where to begin when nothing is remembered.
async fn first_place(options: &JournalOptions) -> Result<Place, SourceError> {
    let (arguments, itself) = options.arguments_first(clock::wall());
    let entry = first(options, &arguments).await?;
    let cursor = entry.and_then(|entry| entry.text("__CURSOR").map(str::to_owned));
    Ok(Place {
        read: cursor.is_some() && !itself,
        cursor,
        selection: options.selection(),
    })
}

/// Whether the entry of a place is not in the journal any more.
async fn is_gone(options: &JournalOptions, place: &Place) -> Result<bool, SourceError> {
    let Some(cursor) = &place.cursor else {
        return Ok(false);
    };
    match first(options, &options.arguments_at(cursor)).await {
        Ok(found) => {
            let found = found.and_then(|entry| entry.text("__CURSOR").map(str::to_owned));
            let found = found.map(Cursor::new);
            Ok(!found.is_some_and(|found| found.is(&Cursor::new(cursor.clone()))))
        }
        // It may be the cursor that is refused, or everything.
        Err(error) => match first(options, &options.arguments(&["--lines=1".to_owned()])).await {
            Ok(_) => Ok(true),
            Err(_) => Err(error),
        },
    }
}

/// The place of each source of events, as far as the spool has it.
struct Lanes {
    identity: String,
    /// Of those that were seen: where they end in the spool, until they have come past it.
    known: HashMap<Arc<str>, Option<Position>>,
}

impl Lanes {
    fn key(&self, source: &str) -> u64 {
        fnv1a(format!("{}\n{source}", self.identity).as_bytes())
    }

    /// Whether an entry of a source is in the spool, or was.
    fn has(
        &mut self,
        sink: &Sink,
        source: &Arc<str>,
        position: &Position,
        boot: Option<u64>,
    ) -> bool {
        if !self.known.contains_key(source) {
            if self.known.len() >= MAX_LANES {
                self.known.clear();
            }
            let kept = sink.publisher().kept_place(self.key(source));
            let kept = kept.and_then(|place| Position::decode(&place));
            self.known.insert(source.clone(), kept);
        }
        let Some(end) = self.known.get_mut(source) else {
            return false;
        };
        let has = end.is_some_and(|end| position.order(&end, boot).is_le());
        if !has {
            *end = None;
        }
        has
    }
}

/// The current boot, as cursors name it.
fn boot() -> Option<u64> {
    let id = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    folded(&id.trim().replace('-', ""))
}
