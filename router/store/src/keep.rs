//! What is done behind writing: sealing fresh files, merging small segments, dropping what is old.
//!
//! Every step writes new files, names them in the manifest in place of the old ones, and deletes those;
//! a crash leaves the one or the other.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::block::{Numbers, Row, Unpack};
use crate::manifest::{SegmentName, segment_name};
use crate::merge::{Run, merge};
use crate::part::Part;
use crate::segment::SegmentWriter;
use crate::store::{Files, Segment, Shared, Store, ending};

/// How often time is looked at.
const EVERY: Duration = Duration::from_secs(30);
/// Segments of a size that become one.
pub(crate) const FAN: usize = 8;
/// Rows of a segment that is merged no more.
const MOST_ROWS: u64 = 4 << 20;
/// Rows of the smallest size.
const SMALLEST: u64 = 1 << 12;
/// Different ages that are kept apart.
const MOST_AGES: usize = 8;
/// Parts of its age that a segment may span, so that dropping whole files is exact enough.
const SPANS: u64 = 8;
const HOUR_NS: u64 = 3600 * 1_000_000_000;

impl Store {
    /// Looks after the files until [`Store::end`]; to be run on a thread of its own.
    pub fn keep(&self) {
        let ending = Ending(&self.shared);
        while self.shared.work.wait(EVERY) {
            // What has failed is in the log.
            let _ = self.tidy();
        }
        std::mem::forget(ending);
    }

    /// Does once what [`Store::keep`] does all the time. The first failure is given; it holds up nothing
    /// else.
    pub fn tidy(&self) -> io::Result<()> {
        self.keep_once((self.shared.options.now)())
    }

    /// Does all that there is to do.
    pub(crate) fn keep_once(&self, now: u64) -> io::Result<()> {
        let shared = &*self.shared;
        let steps: [(&str, &dyn Fn() -> io::Result<bool>); 4] = [
            ("seal", &|| seal_one(shared)),
            ("drop", &|| drop_one(shared, now)),
            ("merge", &|| merge_some(shared)),
            ("purge", &|| purge_one(shared)),
        ];
        let mut failed: Vec<(&str, io::Error)> = Vec::new();
        loop {
            let mut has_done = false;
            for (name, step) in steps {
                if shared.work.is_over() || failed.iter().any(|(of, _)| *of == name) {
                    continue;
                }
                match step() {
                    Ok(done) => has_done |= done,
                    Err(error) => failed.push((name, error)),
                }
            }
            if !has_done {
                break;
            }
        }
        let of_sealing = failed.iter().find(|(name, _)| *name == "seal");
        let reason = of_sealing.map(|(_, error)| error.to_string());
        shared.work.done(reason);
        for (step, error) in &failed {
            let is_full = error.kind() == io::ErrorKind::StorageFull;
            if !shared.work.is_over() {
                tracing::error!(step, %error, is_full, "the store cannot be tidied; trying again");
            }
            if is_full {
                make_room(shared)?;
            }
        }
        failed
            .into_iter()
            .next()
            .map_or(Ok(()), |(_, error)| Err(error))
    }
}

/// Tells who waits for sealing that nobody seals any more, should that ever be.
struct Ending<'a>(&'a Shared);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0
            .work
            .done(Some("what seals files has ended unexpectedly".into()));
    }
}

/// Gives up the oldest segment: the disk is full, and new events come before old ones.
fn make_room(shared: &Shared) -> io::Result<()> {
    let files = shared.files();
    let oldest = files
        .segments
        .iter()
        .min_by_key(|it| it.part.facts().max_received);
    let Some(oldest) = oldest else { return Ok(()) };
    tracing::warn!(file = %oldest.part.path.display(), events = oldest.part.rows(), "the disk is full: the oldest events go");
    forget(shared, oldest).map(drop)
}

/// Writes segments, one for each age.
struct Sorter<'a> {
    shared: &'a Shared,
    cleared: Arc<BTreeMap<String, u64>>,
    open: BTreeMap<u64, (SegmentName, SegmentWriter)>,
    /// Files that are not seen yet.
    written: Vec<PathBuf>,
    kept: bool,
    /// The age of the device in hand.
    device: String,
    age_s: u64,
    below: u64,
}

impl<'a> Sorter<'a> {
    fn new(shared: &'a Shared, files: &Files, kept: bool) -> Sorter<'a> {
        Sorter {
            shared,
            cleared: Arc::clone(&files.cleared),
            open: BTreeMap::new(),
            written: Vec::new(),
            kept,
            device: String::new(),
            age_s: 0,
            below: 0,
        }
    }

    fn push(&mut self, row: &Row<'_>) -> io::Result<()> {
        if self.shared.work.is_over() {
            return Err(ending());
        }
        if self.device != row.device || self.age_s == 0 {
            self.device.clear();
            self.device.push_str(row.device);
            self.below = self.cleared.get(row.device).copied().unwrap_or_default();
            let age = (self.shared.options.age_of)(row.device);
            let age_s = age.unwrap_or(self.shared.options.age).as_secs().max(1);
            let is_known = self.open.contains_key(&age_s) || self.open.len() < MOST_AGES;
            self.age_s = if is_known {
                age_s
            } else {
                self.shared.options.age.as_secs().max(1)
            };
        }
        if row.row < self.below {
            return Ok(());
        }
        if let Some((_, writer)) = self.open.get_mut(&self.age_s) {
            return writer.push(row);
        }
        let number = self.shared.change(|files| Ok(files.number()))?;
        let path = self.shared.options.folder.join(segment_name(number));
        self.written.push(path.clone());
        let mut writer = SegmentWriter::create(&path)?;
        writer.push(row)?;
        let name = SegmentName {
            number,
            age_s: self.age_s,
            kept: self.kept,
        };
        self.open.insert(self.age_s, (name, writer));
        Ok(())
    }

    /// Ends the segments and has them seen in place of other files.
    fn put(mut self, replace: impl FnOnce(&mut Files)) -> io::Result<()> {
        let mut segments = Vec::new();
        for (name, writer) in std::mem::take(&mut self.open).into_values() {
            segments.push(Arc::new(Segment::new(name, writer.finish()?)?));
        }
        crate::part::sync_folder(&self.shared.options.folder)?;
        self.shared.change(|files| {
            replace(files);
            files.segments.extend(segments);
            Ok(())
        })?;
        self.written.clear();
        Ok(())
    }
}

impl Drop for Sorter<'_> {
    /// What has not come to be seen takes no room.
    fn drop(&mut self) {
        self.written.iter().for_each(|path| delete(path));
    }
}

/// Seals the oldest full file.
fn seal_one(shared: &Shared) -> io::Result<bool> {
    let files = shared.files();
    let Some(full) = files.full.first() else {
        return Ok(false);
    };
    let part = Arc::new(full.part());
    let mut sorter = Sorter::new(shared, &files, false);
    merge(Run::all(&part), |row| sorter.push(row))?;
    sorter.put(|files| files.full.retain(|it| it.number != full.number))?;
    delete(&part.path);
    Ok(true)
}

/// What decides about a merge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Candidate {
    pub(crate) name: SegmentName,
    pub(crate) rows: u64,
    pub(crate) min_received: u64,
    pub(crate) max_received: u64,
}

impl Candidate {
    fn of(segment: &Segment) -> Candidate {
        let facts = segment.part.facts();
        Candidate {
            name: segment.name,
            rows: segment.part.rows(),
            min_received: facts.min_received,
            max_received: facts.max_received,
        }
    }
}

/// The segments that should become one: [`FAN`] of a size, of an age, one after the other.
pub(crate) fn to_merge(candidates: &[Candidate]) -> Option<Vec<u64>> {
    let mut sorted = candidates.to_vec();
    sorted.sort_by_key(|it| {
        (
            it.name.age_s,
            it.name.kept,
            size(it.rows),
            it.max_received,
            it.name.number,
        )
    });
    let fits = |some: &&[Candidate]| {
        let [first, .., last] = some else {
            return false;
        };
        let like = |it: &Candidate| (it.name.age_s, it.name.kept, size(it.rows));
        let rows: u64 = some.iter().map(|it| it.rows).sum();
        let longest = (first.name.age_s.saturating_mul(1_000_000_000) / SPANS).max(HOUR_NS);
        let begin = some
            .iter()
            .map(|it| it.min_received)
            .min()
            .unwrap_or_default();
        like(first) == like(last)
            && rows <= MOST_ROWS
            && (first.name.kept || last.max_received.saturating_sub(begin) <= longest)
    };
    let found = sorted.windows(FAN).find(fits)?;
    Some(found.iter().map(|it| it.name.number).collect())
}

/// Sizes are [`FAN`] times the next smaller one.
fn size(rows: u64) -> u32 {
    (rows / SMALLEST).max(1).ilog(FAN as u64)
}

fn merge_some(shared: &Shared) -> io::Result<bool> {
    let files = shared.files();
    let candidates: Vec<Candidate> = files.segments.iter().map(|it| Candidate::of(it)).collect();
    let Some(numbers) = to_merge(&candidates) else {
        return Ok(false);
    };
    let kept = |it: &&Arc<Segment>| it.name.kept && numbers.contains(&it.name.number);
    let kept: Vec<&Segment> = files.segments.iter().filter(kept).map(|it| &**it).collect();
    let surplus = match kept.is_empty() {
        true => None,
        false => Some(surplus(shared, &files, &kept)?.0),
    };
    rewrite(shared, &files, &numbers, surplus)?;
    Ok(true)
}

/// Rows of each device, by its hash, that are to be left out from the beginning.
type Surplus = HashMap<u64, u64>;

/// Puts new segments in the place of some.
fn rewrite(
    shared: &Shared,
    files: &Files,
    numbers: &[u64],
    surplus: Option<Surplus>,
) -> io::Result<()> {
    let old: Vec<&Arc<Segment>> = files
        .segments
        .iter()
        .filter(|it| numbers.contains(&it.name.number))
        .collect();
    let kept = surplus.is_some() || old.iter().all(|it| it.name.kept);
    let mut sorter = Sorter::new(shared, files, kept);
    let runs = old.iter().flat_map(|it| Run::all(&it.part)).collect();
    let mut surplus = surplus.unwrap_or_default();
    let (mut device, mut left_out) = (String::new(), 0);
    merge(runs, |row| {
        if device != row.device {
            device.clear();
            device.push_str(row.device);
            left_out = surplus
                .remove(&crate::part::device_hash(row.device))
                .unwrap_or_default();
        }
        if left_out > 0 {
            left_out -= 1;
            return Ok(());
        }
        sorter.push(row)
    })?;
    sorter.put(|files| {
        files
            .segments
            .retain(|it| !numbers.contains(&it.name.number))
    })?;
    old.iter().for_each(|it| delete(&it.part.path));
    Ok(())
}

/// Drops the oldest segment that is too old or for which there is no room, but for the last events of
/// devices without enough newer ones.
fn drop_one(shared: &Shared, now: u64) -> io::Result<bool> {
    let files = shared.files();
    let oldest = |kept| {
        let of_kind = files.segments.iter().filter(move |it| it.name.kept == kept);
        of_kind.min_by_key(|it| it.part.facts().max_received)
    };
    let is_old = |it: &&Arc<Segment>| {
        let age = it.name.age_s.saturating_mul(1_000_000_000);
        !it.name.kept && it.part.facts().max_received.saturating_add(age) < now
    };
    let there = files.bytes();
    let is_full = there > shared.options.bytes;
    let kept: u64 = files
        .segments
        .iter()
        .filter(|it| it.name.kept)
        .map(|it| it.bytes)
        .sum();
    let segment = match files.segments.iter().find(is_old) {
        Some(segment) => segment,
        None if is_full && kept > there / 2 => match oldest(true) {
            Some(segment) => return forget(shared, segment),
            None => return Ok(false),
        },
        None if is_full => match oldest(false).or(oldest(true)) {
            Some(segment) if segment.name.kept => return forget(shared, segment),
            Some(segment) => segment,
            None => return Ok(false),
        },
        None => return Ok(false),
    };
    let (surplus, all) = surplus(shared, &files, &[segment])?;
    if all {
        return forget(shared, segment);
    }
    rewrite(shared, &files, &[segment.name.number], Some(surplus))?;
    Ok(true)
}

/// Rows of each device of some segments that are not among its last; and whether these are all.
fn surplus(shared: &Shared, files: &Files, of: &[&Segment]) -> io::Result<(Surplus, bool)> {
    let seats = |part: &Part| match &part.directory {
        Some(directory) => part.all_seats(directory),
        None => Ok(Vec::new()),
    };
    // Rows of these segments, and rows that came after them.
    let mut rows: HashMap<u64, (u64, u64)> = HashMap::new();
    for segment in of {
        for seat in seats(&segment.part)? {
            rows.entry(seat.hash).or_default().0 += u64::from(seat.rows);
        }
    }
    let last = of.iter().map(|it| it.part.facts().max_row).max();
    let is_newer = |it: &&Arc<Segment>| Some(it.part.facts().min_row) > last;
    for other in files.segments.iter().filter(is_newer) {
        for seat in seats(&other.part)? {
            if let Some(rows) = rows.get_mut(&seat.hash) {
                rows.1 += u64::from(seat.rows);
            }
        }
    }
    let most = shared.options.events_per_device;
    let beyond = |(own, newer): &(u64, u64)| own.saturating_sub(most.saturating_sub(*newer));
    let all = rows.values().all(|rows| beyond(rows) == rows.0);
    let surplus = rows.iter().map(|(hash, rows)| (*hash, beyond(rows)));
    Ok((surplus.collect(), all))
}

fn forget(shared: &Shared, segment: &Arc<Segment>) -> io::Result<bool> {
    shared.change(|files| {
        files
            .segments
            .retain(|it| it.name.number != segment.name.number);
        Ok(())
    })?;
    tracing::debug!(file = %segment.part.path.display(), events = segment.part.rows(), "dropped");
    delete(&segment.part.path);
    Ok(true)
}

/// Rewrites a segment that holds rows of a cleared device; without any, the device is forgotten.
fn purge_one(shared: &Shared) -> io::Result<bool> {
    let files = shared.files();
    for (device, below) in &*files.cleared {
        let mut is_there = false;
        for segment in &files.segments {
            let Some(directory) = &segment.part.directory else {
                continue;
            };
            if segment.part.facts().min_row < *below
                && has_rows(&segment.part, directory, device, *below)?
            {
                rewrite(shared, &files, &[segment.name.number], None)?;
                return Ok(true);
            }
        }
        for fresh in files.full.iter().chain([&files.current]) {
            let part = fresh.part();
            is_there |= part.entries.iter().any(|it| it.facts.min_row < *below);
        }
        if !is_there {
            shared.change(|files| {
                // It may have been cleared again meanwhile.
                if files.cleared.get(device) == Some(below) {
                    let mut cleared = (*files.cleared).clone();
                    cleared.remove(device);
                    files.cleared = Arc::new(cleared);
                }
                Ok(())
            })?;
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether a segment holds rows of a device below a number.
fn has_rows(
    part: &Arc<Part>,
    directory: &crate::segment::Directory,
    device: &str,
    below: u64,
) -> io::Result<bool> {
    let mut unpack = Unpack::new()?;
    for seat in part.seats(directory, device)? {
        for (block, rows) in part.blocks_of(seat.first..seat.first + seat.rows) {
            let bytes = part.block(&part.entries[block])?;
            let numbers = Numbers::read(&mut unpack, &bytes)?;
            let is_of = |index: &usize| numbers.device(*index).is_some_and(|it| **it == *device);
            if rows.filter(is_of).any(|index| numbers.row[index] < below) {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

fn delete(path: &Path) {
    // The manifest does not name it any more, so it is a leftover at the next start.
    if let Err(error) = std::fs::remove_file(path) {
        tracing::warn!(path = %path.display(), %error, "cannot delete");
    }
}
