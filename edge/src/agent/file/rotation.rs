//! What rotation did to a file while nobody looked: what came between, and where the rest of it is.

use std::{
    collections::{HashMap, HashSet},
    fs, io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use super::{
    open::OpenFile,
    position::{FileId, Position},
    siblings::{Counted, Rank, Sibling, TRIES, look_through, siblings},
};
use crate::agent::entries::TextOptions;

/// The last file that is known; what is younger is new.
#[derive(Clone, Copy, Debug)]
pub(super) struct Last(Position);

impl Last {
    /// There was none; all that is not known is new.
    pub(super) fn nothing() -> Last {
        Last(Position::default())
    }

    /// What was written last before the file was emptied, which may have been in the same moment.
    pub(super) fn before(position: &Position) -> Last {
        Last(Position {
            modified: position.modified.saturating_add(1),
            ..*position
        })
    }
}

impl From<Position> for Last {
    fn from(position: Position) -> Last {
        Last(position)
    }
}

/// What is no news. File systems give the inodes of removed files to new ones at once, so those that
/// are closed are known by their content as well.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// Being read, by whomever.
    pub(super) open: HashSet<FileId>,
    /// Read to their end, or none of our business.
    pub(super) closed: HashMap<FileId, Position>,
}

impl Known {
    fn has(&self, file: &OpenFile) -> bool {
        let closed = self.closed.get(&file.id());
        self.open.contains(&file.id()) || closed.is_some_and(|position| file.is_at(position))
    }
}

/// What was rotated since.
#[derive(Debug, Default)]
pub(super) struct Between {
    /// Oldest first.
    pub(super) files: Vec<(OpenFile, Sibling)>,
    /// Nothing that is left is known: files may have come and gone.
    pub(super) overtaken: bool,
    /// What cannot be read, and why.
    pub(super) unreadable: Vec<String>,
}

impl Between {
    /// Opens the rotated forms of `path` that are younger than `last` and neither `known` nor copies of
    /// `current`, which is at the path. What an earlier look missed takes its place among the others: while
    /// files are renamed, a directory shows some of them twice and others not at all.
    pub(super) fn look(
        &mut self,
        path: &Path,
        last: &Last,
        known: &Known,
        current: Option<&OpenFile>,
        text: &TextOptions,
    ) {
        let mut listed = look_through(path);
        for _ in 0..TRIES {
            self.unreadable.clear();
            let all = &listed.readable;
            let rank = rank_of(last, all, text);
            let counted = Counted::of(&listed);
            let young = all.iter().filter(|s| is_younger(s, last, rank, counted));
            // By now it may be rotated itself, and others behind it.
            let here = current.and_then(|current| all.iter().find(|s| s.id == current.id()));
            let young = young.filter(|s| here.is_none_or(|here| s.age(here).is_lt()));
            for sibling in young.filter(|sibling| !known.open.contains(&sibling.id)) {
                self.open(sibling, known, current, text);
            }
            // Names wander while files are rotated.
            let again = look_through(path);
            let settled = again.is_named_as(&listed);
            listed = again;
            if settled {
                break;
            }
        }
        let left = &listed.readable;
        self.overtaken =
            last.0.modified > 0 && !self.files.is_empty() && !is_any_left(left, last, known, text);
        // By the latest names.
        for (file, sibling) in &mut self.files {
            if let Some(now) = left.iter().find(|s| s.id == file.id()) {
                *sibling = now.clone();
            }
        }
        self.files.sort_by(|(_, a), (_, b)| a.age(b));
    }

    fn open(
        &mut self,
        sibling: &Sibling,
        known: &Known,
        current: Option<&OpenFile>,
        text: &TextOptions,
    ) {
        let files = &mut self.files;
        match OpenFile::open(&sibling.path, 0, text) {
            // By what was opened, not by what had the name before.
            Ok(file) if known.has(&file) => {}
            Ok(file) if files.iter().any(|(other, _)| other.id() == file.id()) => {}
            Ok(file) if current.is_some_and(|current| current.is_copied_in(&file)) => {}
            Ok(file) => files.push((file, sibling.clone())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                let path = sibling.path.display();
                self.unreadable.push(format!(
                    "{path} was rotated and cannot be read: {error}; lines are missing"
                ));
            }
        }
    }
}

/// How the last file is called by now.
fn rank_of<'a>(last: &Last, all: &'a [Sibling], text: &TextOptions) -> Option<&'a Rank> {
    let sibling = all.iter().find(|sibling| sibling.id == last.0.id)?;
    let file = OpenFile::open(&sibling.path, 0, text).ok()?;
    file.is_at(&last.0).then_some(&sibling.rank)
}

fn is_younger(sibling: &Sibling, last: &Last, rank: Option<&Rank>, counted: Counted) -> bool {
    match rank.and_then(|rank| counted.compare(&sibling.rank, rank)) {
        Some(order) => order.is_gt(),
        None => sibling.modified >= last.0.modified,
    }
}

fn is_any_left(left: &[Sibling], last: &Last, known: &Known, text: &TextOptions) -> bool {
    let is_known = |sibling: &Sibling| {
        let id = sibling.id;
        known.open.contains(&id)
            || (id == last.0.id || known.closed.contains_key(&id))
                && OpenFile::open(&sibling.path, 0, text)
                    .is_ok_and(|file| file.is_at(&last.0) || known.has(&file))
    };
    left.iter().any(is_known)
}

/// The youngest copy of the file that `position` was in, where the position says.
pub(super) fn find_copy(
    path: &Path,
    position: &Position,
    known: &Known,
    text: &TextOptions,
) -> Option<(OpenFile, PathBuf)> {
    let mut listed = look_through(path);
    for _ in 0..TRIES {
        let youngest_first = listed.readable.iter().rev();
        let mut copies = youngest_first.filter_map(|sibling| {
            let copy = OpenFile::resume_copy(&sibling.path, position, text);
            let copy = copy.ok().flatten().filter(|copy| !known.has(copy))?;
            Some((copy, sibling.path.clone()))
        });
        if let Some(copy) = copies.next() {
            return Some(copy);
        }
        // It may have been renamed before it was its turn.
        let again = look_through(path);
        let settled = again.is_named_as(&listed);
        listed = again;
        if settled {
            break;
        }
    }
    None
}

/// Opens a rotated file again, wherever it is by now.
pub(super) fn reopen(file: &mut OpenFile, path: &mut PathBuf, of: &Path) -> bool {
    if let Ok(true) = file.reopen(path) {
        return true;
    }
    for _ in 0..TRIES {
        let beside = siblings(of).readable;
        let Some(now) = beside.into_iter().find(|s| s.id == file.id()) else {
            return false;
        };
        if let Ok(true) = file.reopen(&now.path) {
            *path = now.path;
            return true;
        }
    }
    false
}

/// Where the first line begins that starts within the last `bytes` of a file.
pub(super) fn start_within(path: &Path, bytes: u64) -> io::Result<u64> {
    let file = fs::File::open(path)?;
    let length = file.metadata()?.len();
    let mut at = length.saturating_sub(bytes);
    if at == 0 {
        return Ok(0);
    }
    // The line that straddles the place is left out; a file that is one long line begins at its end.
    at -= 1;
    let mut buffer = vec![0; 64 << 10];
    loop {
        let read = file.read_at(&mut buffer, at)?;
        let newline = memchr::memchr(b'\n', &buffer[..read]);
        at += newline.map_or(read, |position| position + 1) as u64;
        if newline.is_some() || read == 0 {
            return Ok(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;

    #[test]
    fn what_a_look_missed_takes_its_place_among_the_others() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("app.log");
        let write = |rank: u64| {
            let path = folder.path().join(format!("app.log.{rank}"));
            let file = fs::File::create(path).unwrap();
            let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000 - rank);
            file.set_modified(time).unwrap();
        };
        let mut between = Between::default();
        let mut look = || {
            let (known, text) = (Known::default(), TextOptions::default());
            between.look(&path, &Last::nothing(), &known, None, &text);
            let names = between.files.iter().map(|(_, sibling)| &sibling.path);
            let names = names.map(|path| path.extension().unwrap().to_str().unwrap().to_owned());
            names.collect::<Vec<_>>()
        };
        [1, 3].into_iter().for_each(write);
        assert_eq!(look(), ["3", "1"]);
        write(2);
        assert_eq!(look(), ["3", "2", "1"]);
    }
}
