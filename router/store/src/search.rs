//! Searches: which events, in which order, from where on, how many.
//!
//! Blocks are looked at in the order of the best place that one of their rows could take, so that a
//! search ends as soon as no block that is left can add to what it has found. A block is passed over
//! when its times, severities, sources, devices or words say that nothing in it can match; of one that
//! is read, texts are read only if what comes before them leaves the question open.

use std::cmp::Reverse;
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BinaryHeap, HashSet};
use std::io;
use std::sync::Arc;

use thinglog_schemas::query::{EventQuery, Facts};
use thinglog_schemas::{Event, Level};

use crate::part::Part;
use crate::scan::{self, Scan, Seen};
use crate::store::Store;

/// Which of the events that match comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// The latest, by [`Place::at`].
    Newest,
    /// The earliest.
    Oldest,
    /// The one that arrived first.
    Arrival,
}

/// The place of an event in the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// When it counts as logged, ns: by the device's clock, but not after it was received.
    pub at: u64,
    /// Its number in the order of arrival.
    pub row: u64,
}

/// What is asked.
#[derive(Clone, Debug)]
pub struct Search {
    /// What comes first.
    pub order: Order,
    /// Logged at this time or later, ns.
    pub from: u64,
    /// Logged before this time, ns.
    pub until: u64,
    /// Only what comes behind this place in the order.
    pub after: Option<Place>,
    /// Only of these devices.
    pub devices: Option<Vec<Arc<str>>>,
    /// Only what matches.
    pub filter: Option<EventQuery>,
    /// Most events of an answer.
    pub limit: usize,
}

impl Default for Search {
    fn default() -> Search {
        Search {
            order: Order::Newest,
            from: 0,
            until: u64::MAX,
            after: None,
            devices: None,
            filter: None,
            limit: 1000,
        }
    }
}

/// What a search has to know of the fleet.
pub trait Fleet {
    /// What is known of a device.
    fn facts(&self, device: &str) -> Arc<Facts>;

    /// Whether who asks may see events of a device.
    fn may_see(&self, device: &str) -> bool;

    /// Whether there is time to go on. Asked before each block.
    fn goes_on(&self) -> bool;

    /// Whether nobody waits for the answer any more: then there is none. Asked before each block too; who
    /// shares processors between searches may let another one go first.
    fn is_given_up(&self) -> bool {
        false
    }
}

/// An event that was found.
#[derive(Clone, Debug, PartialEq)]
pub struct Found {
    /// Where it stands.
    pub place: Place,
    /// The event.
    pub event: Event,
}

/// An answer.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Page {
    /// In the order that was asked for.
    pub events: Vec<Found>,
    /// Where to go on; `None` if that was all. A search that was not let go on to its end has a place
    /// here and possibly no event.
    pub next: Option<Place>,
    /// What it took.
    pub effort: Effort,
}

/// What a search took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Effort {
    /// Blocks that could have been read.
    pub blocks: u64,
    /// Blocks that were.
    pub read: u64,
    /// Rows that were looked at.
    pub rows: u64,
}

/// How many events there are, over time.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Counts {
    /// Over time.
    pub steps: Steps,
    /// Not everything was looked at.
    pub is_partial: bool,
    /// What it took.
    pub effort: Effort,
}

/// How many events there are over time, device by device.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DeviceCounts {
    /// By name. Devices that were asked for and may be seen are here even if they logged nothing.
    pub devices: BTreeMap<Arc<str>, Steps>,
    /// Not everything was looked at.
    pub is_partial: bool,
    /// What it took.
    pub effort: Effort,
}

/// By the beginning of the step, ns: events of DEBUG, INFO, WARN, ERROR.
pub type Steps = BTreeMap<u64, [u64; 4]>;

/// Bytes of texts that an answer may hold; one event of any size is let through.
const MOST_BYTES: usize = 8 << 20;

/// Something that can be sorted: what comes first in the order is greater.
pub(crate) type Rank = (u64, u64);

impl Order {
    fn rank(self, place: Place) -> Rank {
        match self {
            Order::Newest => (place.at, place.row),
            // One less, so that a block's best is beyond any of its rows.
            Order::Oldest => (!place.at, (u64::MAX - 1).wrapping_sub(place.row)),
            Order::Arrival => (!place.row, place.at),
        }
    }

    /// The rank that no row of a block exceeds.
    fn best(self, facts: &crate::block::Facts) -> Rank {
        match self {
            Order::Newest => (facts.max_at, u64::MAX),
            Order::Oldest => (!facts.min_at, u64::MAX),
            Order::Arrival => (!facts.min_row, u64::MAX),
        }
    }

    /// The last place with a rank, for [`Search::after`].
    fn place(self, rank: Rank) -> Place {
        match self {
            Order::Newest => Place {
                at: rank.0,
                row: rank.1,
            },
            Order::Oldest => Place {
                at: !rank.0,
                row: (u64::MAX - 1).wrapping_sub(rank.1),
            },
            Order::Arrival => Place {
                at: rank.1,
                row: !rank.0,
            },
        }
    }
}

/// Some rows of a block.
#[derive(Clone, Debug)]
pub(crate) struct Piece {
    pub(crate) part: usize,
    pub(crate) block: usize,
    pub(crate) rows: std::ops::Range<usize>,
    best: Rank,
}

struct Hit {
    rank: Rank,
    found: Found,
    bytes: usize,
}

impl PartialEq for Hit {
    fn eq(&self, other: &Hit) -> bool {
        self.rank == other.rank
    }
}

impl Eq for Hit {}

impl PartialOrd for Hit {
    fn partial_cmp(&self, other: &Hit) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Hit {
    fn cmp(&self, other: &Hit) -> std::cmp::Ordering {
        self.rank.cmp(&other.rank)
    }
}

impl Store {
    /// Searches. Takes memory for `limit` events and one block; a damaged block is an error.
    pub fn search(&self, search: &Search, fleet: &dyn Fleet) -> io::Result<Page> {
        let files = self.shared.files();
        let parts = files.parts();
        let mut scan = Scan::new(search, fleet, Arc::clone(&files.cleared))?;
        let pieces = pieces(search, &parts, fleet)?;
        let mut page = Page::default();
        page.effort.blocks = pieces.len() as u64;
        let order = search.order;
        let start = search.after.map(|place| order.rank(place));
        let mut limit = search.limit.max(1);
        let mut bytes = 0;
        // The worst of what was found is on top.
        let mut best: BinaryHeap<Reverse<Hit>> = BinaryHeap::with_capacity(limit.min(4096) + 1);
        let floor = start
            .or(pieces.first().map(|piece| piece.best))
            .unwrap_or_default();
        // What has to be read again before anything new is: twice that, or it would never end.
        let again = pieces
            .iter()
            .take_while(|piece| piece.best >= floor)
            .count();
        for (at, piece) in pieces.iter().enumerate() {
            given_up(fleet)?;
            let worst = best
                .peek()
                .filter(|_| best.len() >= limit)
                .map(|hit| hit.0.rank);
            if worst.is_some_and(|worst| piece.best < worst) {
                break;
            }
            // Going on from here must look at less than this search had to.
            let has_moved = piece.best < floor && at > 2 * again;
            if has_moved && !fleet.goes_on() {
                // What is better than any row that is left is complete.
                best.retain(|hit| hit.0.rank > piece.best);
                page.next = Some(order.place(piece.best));
                break;
            }
            let part = &parts[piece.part];
            let mut hits: Vec<(Rank, usize)> = Vec::new();
            let wanted = |seen: &Seen<'_>| {
                let rank = order.rank(seen.place);
                start.is_none_or(|start| rank < start) && worst.is_none_or(|worst| rank > worst)
            };
            let block = scan.rows(part, piece, &wanted, &mut |seen| {
                hits.push((order.rank(seen.place), seen.index));
            })?;
            let Some(block) = block else { continue };
            hits.sort_unstable_by(|a, b| b.cmp(a));
            hits.truncate(limit);
            for (rank, index) in hits {
                let found = block.found(index)?;
                let hit = Hit {
                    bytes: weight(&found.event),
                    rank,
                    found,
                };
                bytes += hit.bytes;
                best.push(Reverse(hit));
                while best.len() > limit || (bytes > MOST_BYTES && best.len() > 1) {
                    bytes -= best.pop().map_or(0, |hit| hit.0.bytes);
                    limit = limit.min(best.len());
                }
            }
        }
        page.effort.read = scan.blocks;
        page.effort.rows = scan.rows;
        let sorted = best.into_sorted_vec();
        page.events = sorted.into_iter().map(|hit| hit.0.found).collect();
        if page.next.is_none() && page.events.len() >= limit {
            page.next = page.events.last().map(|last| last.place);
        }
        Ok(page)
    }

    /// Counts what matches by steps of `step` ns, from [`Search::from`] on; order, limit and place do not
    /// matter. At most `most` steps are told apart, the rest is left out.
    pub fn count(
        &self,
        search: &Search,
        step: u64,
        most: usize,
        fleet: &dyn Fleet,
    ) -> io::Result<Counts> {
        let mut steps = Steps::new();
        let mut left = most;
        let tally = self.tally(search, step, fleet, &mut |seen, begin| {
            add(&mut steps, begin, seen.level, &mut left)
        })?;
        Ok(Counts {
            steps,
            is_partial: tally.is_partial,
            effort: tally.effort,
        })
    }

    /// Counts device by device, in one pass. At most `most` steps of all devices together are told apart.
    pub fn count_devices(
        &self,
        search: &Search,
        step: u64,
        most: usize,
        fleet: &dyn Fleet,
    ) -> io::Result<DeviceCounts> {
        let asked = search.devices.iter().flatten();
        let mut devices: Vec<(Arc<str>, Steps)> = asked
            .filter(|device| fleet.may_see(device))
            .map(|device| (Arc::clone(device), Steps::new()))
            .collect();
        devices.sort();
        devices.dedup();
        let mut left = most;
        // Rows of a device stand side by side.
        let mut last = 0;
        let tally = self.tally(search, step, fleet, &mut |seen, begin| {
            if devices
                .get(last)
                .is_none_or(|(name, _)| name != seen.device)
            {
                let found = devices.binary_search_by(|(name, _)| name.cmp(seen.device));
                last = found.unwrap_or_else(|at| {
                    devices.insert(at, (Arc::clone(seen.device), Steps::new()));
                    at
                });
            }
            add(&mut devices[last].1, begin, seen.level, &mut left)
        })?;
        Ok(DeviceCounts {
            devices: devices.into_iter().collect(),
            is_partial: tally.is_partial,
            effort: tally.effort,
        })
    }

    /// Tells of what matches, and in which step it is, until `tell` has no room for it.
    fn tally(
        &self,
        search: &Search,
        step: u64,
        fleet: &dyn Fleet,
        tell: &mut dyn FnMut(&Seen<'_>, u64) -> bool,
    ) -> io::Result<Tally> {
        let search = &Search {
            after: None,
            ..search.clone()
        };
        let files = self.shared.files();
        let parts = files.parts();
        let mut scan = Scan::new(search, fleet, Arc::clone(&files.cleared))?;
        let pieces = pieces(search, &parts, fleet)?;
        let mut tally = Tally::default();
        tally.effort.blocks = pieces.len() as u64;
        let step = step.max(1);
        for piece in &pieces {
            given_up(fleet)?;
            if !fleet.goes_on() {
                tally.is_partial = true;
                break;
            }
            scan.rows(&parts[piece.part], piece, &|_| true, &mut |seen| {
                let begin = search.from + (seen.place.at - search.from) / step * step;
                tally.is_partial |= !tell(seen, begin);
            })?;
        }
        tally.effort.read = scan.blocks;
        tally.effort.rows = scan.rows;
        Ok(tally)
    }
}

/// How counting went.
#[derive(Default)]
struct Tally {
    is_partial: bool,
    effort: Effort,
}

/// Counts one event, unless its step would be one too many.
fn add(steps: &mut Steps, begin: u64, level: Level, left: &mut usize) -> bool {
    let step = match steps.entry(begin) {
        Entry::Occupied(step) => step.into_mut(),
        Entry::Vacant(_) if *left == 0 => return false,
        Entry::Vacant(step) => {
            *left -= 1;
            step.insert([0; 4])
        }
    };
    step[of_level(level)] += 1;
    true
}

/// Ends a search that nobody waits for.
fn given_up(fleet: &dyn Fleet) -> io::Result<()> {
    match fleet.is_given_up() {
        true => Err(io::Error::new(
            io::ErrorKind::Interrupted,
            "nobody waits for the answer",
        )),
        false => Ok(()),
    }
}

fn of_level(level: Level) -> usize {
    match level {
        Level::Debug | Level::Disabled => 0,
        Level::Info => 1,
        Level::Warn => 2,
        Level::Error => 3,
    }
}

/// Bytes that an event takes, roughly.
fn weight(event: &Event) -> usize {
    let attributes = event.attributes.iter();
    let attributes = attributes.map(|(key, value)| 64 + key.len() + value_weight(value));
    256 + event.message.len() + attributes.sum::<usize>()
}

fn value_weight(value: &serde_json::Value) -> usize {
    match value {
        serde_json::Value::String(text) => text.len(),
        serde_json::Value::Array(values) => values.iter().map(|it| 32 + value_weight(it)).sum(),
        serde_json::Value::Object(values) => values
            .iter()
            .map(|(key, it)| 64 + key.len() + value_weight(it))
            .sum(),
        _ => 0,
    }
}

/// What may have to be read, the best first.
fn pieces(search: &Search, parts: &[Arc<Part>], fleet: &dyn Fleet) -> io::Result<Vec<Piece>> {
    let named = search.filter.as_ref().and_then(EventQuery::devices);
    let named: Option<HashSet<&str>> = match (&search.devices, named) {
        (Some(devices), _) => Some(devices.iter().map(|it| &**it).collect()),
        (None, named) => named.map(|named| named.into_iter().collect()),
    };
    // Not even how much there is of others may show.
    let named = named.map(|named| {
        named
            .into_iter()
            .filter(|name| fleet.may_see(name))
            .collect()
    });
    let mut pieces = Vec::new();
    for (at, part) in parts.iter().enumerate() {
        for (block, rows, facts) in scan::blocks(part, named.as_ref())? {
            let is_in_time = facts.max_at >= search.from && facts.min_at < search.until;
            let is_behind = search.after.is_none_or(|after| match search.order {
                Order::Newest => facts.min_at <= after.at,
                Order::Oldest => facts.max_at >= after.at,
                Order::Arrival => facts.max_row >= after.row,
            });
            if is_in_time && is_behind {
                pieces.push(Piece {
                    part: at,
                    block,
                    rows,
                    best: search.order.best(&facts),
                });
            }
        }
    }
    pieces.sort_by_key(|piece| Reverse(piece.best));
    Ok(pieces)
}
