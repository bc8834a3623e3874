//! Looks for rows within blocks.

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::io;
use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;

use thinglog_schemas::query::{EventQuery, Facts, LinesCache, Needle, Pattern, Row, Summary};
use thinglog_schemas::{Attributes, Event, EventId, Level, Severity};

use crate::block::{self, Messages, Numbers, Unpack};
use crate::filter;
use crate::part::{Entry, OTHER_SOURCES, Part, device_bit, device_hash, named};
use crate::search::{Fleet, Found, Piece, Place, Search};

/// Devices from which blocks are read one after the other rather than looked up.
const MANY: usize = 256;

/// Rows of a block, and what is known of them.
type Rows = (usize, Range<usize>, block::Facts);

/// The blocks of a part that may hold rows of some devices, or all. Between the rows of these may be those
/// of others.
pub(crate) fn blocks(part: &Part, devices: Option<&HashSet<&str>>) -> io::Result<Vec<Rows>> {
    let all = |(at, entry): (usize, &Entry)| {
        let rows = 0..entry.facts.rows as usize;
        (at, rows, entry.facts.clone())
    };
    let every = part.entries.iter().enumerate();
    let Some(devices) = devices else {
        return Ok(every.map(all).collect());
    };
    let Some(directory) = part.directory.as_ref().filter(|_| devices.len() <= MANY) else {
        let bit = |device: &&str| device_bit(device_hash(device));
        let bits = devices.iter().fold(0, |bits, device| bits | bit(device));
        let may = every.filter(|(_, entry)| entry.devices & bits != 0);
        return Ok(may.map(all).collect());
    };
    let mut found: BTreeMap<usize, Rows> = BTreeMap::new();
    for device in devices {
        for seat in part.seats(directory, device)? {
            for (block, rows) in part.blocks_of(seat.first..seat.first + seat.rows) {
                let mut facts = part.entries[block].facts.clone();
                facts.min_at = facts.min_at.max(seat.min_at);
                facts.max_at = facts.max_at.min(seat.max_at);
                let more = (block, rows.clone(), facts.clone());
                let (_, all, joined) = found.entry(block).or_insert(more);
                // A block is read once, whatever it has of them.
                *all = all.start.min(rows.start)..all.end.max(rows.end);
                joined.min_at = joined.min_at.min(facts.min_at);
                joined.max_at = joined.max_at.max(facts.max_at);
            }
        }
    }
    Ok(found.into_values().collect())
}

/// A row that is looked at.
pub(crate) struct Seen<'a> {
    pub(crate) device: &'a Arc<str>,
    pub(crate) place: Place,
    pub(crate) level: Level,
    pub(crate) index: usize,
}

/// A search while it goes through blocks.
pub(crate) struct Scan<'a> {
    search: &'a Search,
    fleet: &'a dyn Fleet,
    wanted: Option<HashSet<&'a str>>,
    cleared: Arc<BTreeMap<String, u64>>,
    /// What is known of devices, as far as it was asked for; emptied when it grows.
    facts: HashMap<Arc<str>, Arc<Facts>>,
    none: Arc<Facts>,
    unpack: Unpacks,
    caches: Caches,
    /// Blocks that were read and rows that were looked at.
    pub(crate) blocks: u64,
    pub(crate) rows: u64,
}

/// What uncompresses all blocks of a search: their texts only when they are asked for.
type Unpacks = Rc<RefCell<Unpack>>;

/// What looking for patterns keeps in hand during a search, by their addresses.
type Caches = Rc<RefCell<BTreeMap<usize, Option<LinesCache>>>>;

/// Devices whose facts are remembered during a search.
const REMEMBERED: usize = 4096;

impl<'a> Scan<'a> {
    pub(crate) fn new(
        search: &'a Search,
        fleet: &'a dyn Fleet,
        cleared: Arc<BTreeMap<String, u64>>,
    ) -> io::Result<Scan<'a>> {
        let wanted = search.devices.as_ref();
        Ok(Scan {
            search,
            fleet,
            wanted: wanted.map(|devices| devices.iter().map(|it| &**it).collect()),
            cleared,
            facts: HashMap::new(),
            none: Arc::default(),
            unpack: Rc::new(RefCell::new(Unpack::new()?)),
            caches: Caches::default(),
            blocks: 0,
            rows: 0,
        })
    }

    fn facts(&mut self, device: &Arc<str>, filter: &EventQuery) -> Arc<Facts> {
        if !filter.asks_for_facts() {
            return Arc::clone(&self.none);
        }
        if let Some(facts) = self.facts.get(device) {
            return Arc::clone(facts);
        }
        if self.facts.len() >= REMEMBERED {
            self.facts.clear();
        }
        let facts = self.fleet.facts(device);
        self.facts.insert(Arc::clone(device), Arc::clone(&facts));
        facts
    }

    /// Which rows of a piece are looked at.
    fn runs<'b>(&self, block: &'b Block<'_>, rows: &Range<usize>) -> Vec<Run<'b>> {
        let mut runs: Vec<Run<'b>> = Vec::new();
        for (device, of_device) in block.numbers.devices.iter().rev() {
            let rows = of_device.start.max(rows.start)..of_device.end.min(rows.end);
            let is_wanted = self
                .wanted
                .as_ref()
                .is_none_or(|wanted| wanted.contains(&**device));
            if rows.is_empty() || !is_wanted || !self.fleet.may_see(device) {
                continue;
            }
            let next = runs.last().filter(|next| next.rows.start == rows.end);
            let until = next.map_or(rows.end, |next| next.until);
            runs.push(Run {
                device,
                rows,
                until,
            });
        }
        runs.reverse();
        runs
    }

    /// Tells of the rows of a piece that match and are wanted. Gives the block, if it was read.
    pub(crate) fn rows<'p>(
        &mut self,
        part: &'p Part,
        piece: &Piece,
        wanted: &dyn Fn(&Seen<'_>) -> bool,
        tell: &mut dyn FnMut(&Seen<'_>),
    ) -> io::Result<Option<Block<'p>>> {
        let entry = &part.entries[piece.block];
        let filter = self.search.filter.as_ref();
        if filter.is_some_and(|filter| {
            let unread = Unread {
                part,
                entry,
                filter: OnceCell::new(),
            };
            filter.bound(&unread) == Some(false)
        }) {
            return Ok(None);
        }
        self.blocks += 1;
        let block = Block::read(&self.unpack, &self.caches, part, entry)?;
        let pattern = filter.and_then(EventQuery::pattern);
        for run in self.runs(&block, &piece.rows) {
            block.until.set(run.until);
            let device = run.device;
            let facts = filter.map(|filter| self.facts(device, filter));
            let below = self.cleared.get(&**device).copied().unwrap_or_default();
            let answers = Answers::new(&block, device, filter.zip(facts.as_deref()));
            self.rows += run.rows.len() as u64;
            let mut rows = run.rows;
            while let Some(index) = rows.next() {
                let place = block.place(index);
                let is_in = place.at >= self.search.from
                    && place.at < self.search.until
                    && place.row >= below;
                let level = block.severity(index).level();
                let seen = Seen {
                    device,
                    place,
                    level,
                    index,
                };
                if !is_in || !wanted(&seen) {
                    continue;
                }
                let decided = answers.decides(&block, index);
                if decided == Some(false) {
                    continue;
                }
                if let Some(pattern) = pattern {
                    let next = block.next(pattern, index);
                    if next > index {
                        rows.start = next;
                        continue;
                    }
                }
                if decided.unwrap_or_else(|| answers.matches(&block, index)) {
                    tell(&seen);
                }
            }
        }
        match block.failed.take() {
            Some(error) => Err(named(&part.path, &error)),
            None => Ok(Some(block)),
        }
    }
}

/// Rows of a device.
struct Run<'b> {
    device: &'b Arc<str>,
    rows: Range<usize>,
    /// Where rows that are wanted end that follow on each other, of whatever devices.
    until: usize,
}

/// What a filter says of the rows of a device.
struct Answers<'a> {
    device: &'a str,
    filter: Option<(&'a EventQuery, &'a Facts)>,
    /// What was asked of each source of the block.
    known: Vec<Cell<Known>>,
}

/// What source and severity decide, for severities that were asked for: bit 1 stands for 1.
#[derive(Clone, Copy, Default)]
struct Known {
    asked: u32,
    yes: u32,
    no: u32,
}

impl<'a> Answers<'a> {
    fn new(
        block: &Block<'_>,
        device: &'a str,
        filter: Option<(&'a EventQuery, &'a Facts)>,
    ) -> Answers<'a> {
        Answers {
            device,
            filter,
            known: vec![Cell::default(); block.numbers.sources.len()],
        }
    }

    /// Whether a row matches, if its source and severity say that: what is cheap comes first.
    fn decides(&self, block: &Block<'_>, index: usize) -> Option<bool> {
        let Some((filter, facts)) = self.filter else {
            return Some(true);
        };
        let source = block.numbers.source[index] as usize;
        let severity = block.severity(index);
        let bit = 1 << severity.number();
        let mut known = self.known[source].get();
        if known.asked & bit == 0 {
            known.asked |= bit;
            let name = &block.numbers.sources[source];
            match filter.decides_graded(self.device, name, severity, facts) {
                Some(true) => known.yes |= bit,
                Some(false) => known.no |= bit,
                None => {}
            }
            self.known[source].set(known);
        }
        ((known.yes | known.no) & bit != 0).then_some(known.yes & bit != 0)
    }

    fn matches(&self, block: &Block<'_>, index: usize) -> bool {
        let Some((filter, facts)) = self.filter else {
            return true;
        };
        let source = &block.numbers.sources[block.numbers.source[index] as usize];
        let row = Read {
            block,
            index,
            attributes: OnceCell::new(),
        };
        filter.matches_row(self.device, source, &row, facts)
    }
}

/// A block that was not read.
struct Unread<'a> {
    part: &'a Part,
    entry: &'a Entry,
    filter: OnceCell<Vec<u8>>,
}

impl Summary for Unread<'_> {
    fn severities(&self) -> u32 {
        self.entry.facts.severities
    }

    fn sources(&self) -> Option<Vec<&str>> {
        if self.entry.sources & OTHER_SOURCES != 0 {
            return None;
        }
        let places = self.part.sources.iter().enumerate();
        let there = places.filter(|(place, _)| self.entry.sources >> place & 1 == 1);
        Some(there.map(|(_, source)| &**source).collect())
    }

    fn devices(&self) -> Option<Vec<&str>> {
        None
    }

    fn may_contain(&self, needle: &Needle) -> bool {
        // A filter that cannot be read denies nothing; reading the block will say what is wrong.
        let filter = self
            .filter
            .get_or_init(|| self.part.filter(self.entry).unwrap_or_default());
        filter::may_contain(filter, needle)
    }
}

/// A block that was read; texts are uncompressed when somebody asks.
pub(crate) struct Block<'p> {
    part: &'p Part,
    bytes: Vec<u8>,
    unpack: Unpacks,
    caches: Caches,
    pub(crate) numbers: Numbers,
    ids: OnceCell<Vec<EventId>>,
    messages: OnceCell<Messages>,
    attributes: OnceCell<Messages>,
    failed: RefCell<Option<io::Error>>,
    /// Rows from here on are not looked through ahead of the one that is asked for.
    until: Cell<usize>,
    /// What was looked through for patterns, by their addresses.
    looked: RefCell<BTreeMap<usize, Looked>>,
}

/// Rows that were looked through for a pattern. If it was found, then in the last of them only.
#[derive(Default)]
struct Looked {
    rows: Range<usize>,
    is_in_last: bool,
    /// Rows that were to be looked through.
    ahead: usize,
}

/// Bytes of texts that are looked through at once.
const LOOK: usize = 64 << 10;

impl Looked {
    /// How many rows are looked through from a row on: one, and twice as many as before where the last
    /// look ended.
    fn ahead(&self, index: usize) -> usize {
        match index == self.rows.end {
            true => (self.ahead * 2).clamp(1, block::ROWS),
            false => 1,
        }
    }

    /// The row with the pattern, or the first one that was not looked through.
    fn next(&self) -> usize {
        self.rows.end - usize::from(self.is_in_last)
    }
}

impl<'p> Block<'p> {
    fn read(
        unpack: &Unpacks,
        caches: &Caches,
        part: &'p Part,
        entry: &Entry,
    ) -> io::Result<Block<'p>> {
        let bytes = part.block(entry)?;
        let numbers = Numbers::read(&mut unpack.borrow_mut(), &bytes);
        let numbers = numbers.map_err(|error| named(&part.path, &error))?;
        Ok(Block {
            until: Cell::new(numbers.rows()),
            numbers,
            part,
            bytes,
            unpack: Rc::clone(unpack),
            caches: Rc::clone(caches),
            ids: OnceCell::new(),
            messages: OnceCell::new(),
            attributes: OnceCell::new(),
            failed: RefCell::new(None),
            looked: RefCell::default(),
        })
    }

    fn place(&self, index: usize) -> Place {
        Place {
            at: self.numbers.at(index),
            row: self.numbers.row[index],
        }
    }

    fn severity(&self, index: usize) -> Severity {
        Severity::new(block::severity(self.numbers.grade[index])).unwrap_or(Severity::INFO)
    }

    /// The texts of a column, or nothing and a failure that is told at the end of the block.
    fn texts<'b>(
        &'b self,
        column: &'b OnceCell<Messages>,
        read: fn(&mut Unpack, &[u8]) -> io::Result<Messages>,
    ) -> &'b Messages {
        column.get_or_init(|| {
            let texts = read(&mut self.unpack.borrow_mut(), &self.bytes);
            texts.unwrap_or_else(|error| {
                *self.failed.borrow_mut() = Some(error);
                Messages::nothing(self.numbers.rows())
            })
        })
    }

    fn message(&self, index: usize) -> &str {
        self.texts(&self.messages, Messages::read).get(index)
    }

    /// The first row from `index` on in which a pattern is found, or one behind it that was not looked
    /// through. Rows are asked upwards, and many at once cost less: while no row is left out, ever more
    /// are looked through ahead of the one that is asked for.
    fn next(&self, pattern: &Pattern, index: usize) -> usize {
        let address = std::ptr::from_ref(pattern).addr();
        let mut looked = self.looked.borrow_mut();
        let looked = looked.entry(address).or_default();
        if looked.rows.contains(&index) {
            return looked.next();
        }
        let messages = self.texts(&self.messages, Messages::read);
        let ahead = looked.ahead(index);
        let until = (index + ahead)
            .min(messages.reach(index, LOOK))
            .min(self.until.get())
            .max(index + 1);
        let mut caches = self.caches.borrow_mut();
        let cache = caches.entry(address).or_default();
        let first = messages.find(pattern, cache, index..until);
        *looked = Looked {
            rows: index..first.map_or(until, |first| first + 1),
            is_in_last: first.is_some(),
            ahead,
        };
        looked.next()
    }

    fn attributes(&self, index: usize) -> Attributes {
        let text = self
            .texts(&self.attributes, Messages::attributes)
            .get(index);
        match text.is_empty() {
            true => Attributes::new(),
            false => serde_json::from_str(text).unwrap_or_default(),
        }
    }

    fn id(&self, index: usize) -> io::Result<EventId> {
        let ids = match self.ids.get() {
            Some(ids) => ids,
            None => {
                let ids = self.numbers.ids();
                let ids = ids.map_err(|error| named(&self.part.path, &error))?;
                self.ids.get_or_init(|| ids)
            }
        };
        Ok(ids[index])
    }

    /// A row as an event.
    pub(crate) fn found(&self, index: usize) -> io::Result<Found> {
        let numbers = &self.numbers;
        let grade = numbers.grade[index];
        let device = numbers.device(index).cloned();
        let event = Event {
            device: device.unwrap_or_else(|| Arc::from("")),
            source: Arc::clone(&numbers.sources[numbers.source[index] as usize]),
            id: self.id(index)?,
            time: numbers.time[index],
            time_estimated: block::is_estimated(grade),
            severity: self.severity(index),
            message: self.message(index).to_owned(),
            truncated: block::is_truncated(grade),
            attributes: self.attributes(index),
            received: numbers.received[index],
        };
        match self.failed.take() {
            Some(error) => Err(named(&self.part.path, &error)),
            None => Ok(Found {
                place: self.place(index),
                event,
            }),
        }
    }
}

/// A row as filters see it.
struct Read<'a> {
    block: &'a Block<'a>,
    index: usize,
    attributes: OnceCell<Attributes>,
}

impl Row for Read<'_> {
    fn severity(&self) -> Severity {
        self.block.severity(self.index)
    }

    fn message(&self) -> &str {
        self.block.message(self.index)
    }

    fn finds(&self, pattern: &Pattern) -> bool {
        self.block.next(pattern, self.index) == self.index
    }

    fn attributes(&self) -> &Attributes {
        self.attributes
            .get_or_init(|| self.block.attributes(self.index))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looks_ahead_grow_and_begin_anew_behind_rows_that_are_left_out() {
        let mut looked = Looked::default();
        let mut looks = Vec::new();
        for index in [0, 1, 3, 7, 16, 17, 19] {
            let ahead = looked.ahead(index);
            looks.push(ahead);
            looked = Looked {
                rows: index..index + ahead,
                is_in_last: false,
                ahead,
            };
        }
        assert_eq!(looks, [1, 2, 4, 8, 1, 2, 4]);
    }
}
