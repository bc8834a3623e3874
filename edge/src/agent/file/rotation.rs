//! What rotation did to a file while nobody looked: what came between, and where the rest of it is.

use std::{
    collections::HashSet,
    fs, io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use super::{
    open::OpenFile,
    position::{FileId, Position},
    siblings::{Rank, Sibling, siblings},
};
use crate::agent::entries::TextOptions;

/// The last file that is known; what is younger is new.
#[derive(Clone, Copy, Debug)]
pub(super) struct Last {
    id: FileId,
    modified: u64,
}

impl Last {
    /// There was none; all that is not known is new.
    pub(super) fn nothing() -> Last {
        Last {
            id: FileId::default(),
            modified: 0,
        }
    }
}

impl Last {
    /// What was written last before the file was emptied, which may have been in the same moment.
    pub(super) fn before(position: &Position) -> Last {
        Last {
            id: position.id,
            modified: position.modified.saturating_add(1),
        }
    }
}

impl From<Position> for Last {
    fn from(position: Position) -> Last {
        Last {
            id: position.id,
            modified: position.modified,
        }
    }
}

/// What was rotated since.
#[derive(Debug, Default)]
pub(super) struct Between {
    /// Oldest first.
    pub(super) files: Vec<(OpenFile, PathBuf)>,
    /// Nothing that is left is known: files may have come and gone.
    pub(super) overtaken: bool,
    /// What cannot be read, and why.
    pub(super) unreadable: Vec<String>,
}

/// Opens the rotated forms of `path` that are younger than `last` and neither `known` nor copies of
/// `current`, which is at the path.
pub(super) fn between(
    path: &Path,
    last: &Last,
    known: &HashSet<FileId>,
    current: Option<&OpenFile>,
    text: &TextOptions,
) -> Between {
    const TRIES: usize = 8;
    let mut found: Vec<(OpenFile, Sibling)> = Vec::new();
    let mut between = Between::default();
    let mut listed = siblings(path);
    for _ in 0..TRIES {
        let all = &listed.readable;
        let rank = all.iter().find(|s| s.id == last.id).map(|s| s.rank.clone());
        let young = all.iter().filter(|s| is_younger(s, last, rank.as_ref()));
        // By now it may be rotated itself, and others behind it.
        let here = current.and_then(|current| all.iter().find(|s| s.id == current.id()));
        let young = young.filter(|s| here.is_none_or(|here| s.age(here).is_lt()));
        for sibling in young.filter(|sibling| !known.contains(&sibling.id)) {
            match OpenFile::open(&sibling.path, 0, text) {
                // By what was opened, not by what had the name before.
                Ok(file) if known.contains(&file.id()) => {}
                Ok(file) if found.iter().any(|(other, _)| other.id() == file.id()) => {}
                Ok(file) if current.is_some_and(|current| current.is_copied_in(&file)) => {}
                Ok(file) => found.push((file, sibling.clone())),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => {
                    let path = sibling.path.display();
                    between.unreadable.push(format!(
                        "{path} was rotated and cannot be read: {error}; lines are missing"
                    ));
                }
            }
        }
        // Names wander while files are rotated.
        let again = siblings(path);
        if again == listed {
            break;
        }
        between.unreadable.clear();
        listed = again;
    }
    let left = listed.readable.iter();
    let known_left = |s: &Sibling| s.id == last.id || known.contains(&s.id);
    between.overtaken = last.modified > 0 && !found.is_empty() && !left.clone().any(known_left);
    // By the latest names.
    for (file, sibling) in &mut found {
        if let Some(now) = left.clone().find(|s| s.id == file.id()) {
            *sibling = now.clone();
        }
    }
    found.sort_by(|(_, a), (_, b)| a.age(b));
    let files = found
        .into_iter()
        .map(|(file, sibling)| (file, sibling.path));
    between.files = files.collect();
    between
}

fn is_younger(sibling: &Sibling, last: &Last, rank: Option<&Rank>) -> bool {
    match rank.and_then(|rank| sibling.rank.compare(rank)) {
        Some(order) => order.is_gt(),
        None => sibling.id != last.id && sibling.modified >= last.modified,
    }
}

/// The youngest copy of the file that `position` was in, where the position says.
pub(super) fn find_copy(
    path: &Path,
    position: &Position,
    known: &HashSet<FileId>,
    text: &TextOptions,
) -> Option<(OpenFile, PathBuf)> {
    let beside = siblings(path).readable.into_iter().rev();
    let mut new = beside.filter(|sibling| !known.contains(&sibling.id));
    new.find_map(|sibling| {
        let copy = OpenFile::resume_copy(&sibling.path, position, text);
        Some((copy.ok()??, sibling.path))
    })
}

/// Opens a rotated file again, wherever it is by now.
pub(super) fn reopen(file: &mut OpenFile, path: &mut PathBuf, of: &Path) -> bool {
    if let Ok(true) = file.reopen(path) {
        return true;
    }
    for sibling in siblings(of).readable {
        if sibling.id != file.id() {
            continue;
        }
        if let Ok(true) = file.reopen(&sibling.path) {
            *path = sibling.path;
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
