//! What is remembered of a set of files between runs.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::position::{FileId, Position};

/// Where everything stands.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Places {
    /// By path, oldest file first.
    pub(crate) files: BTreeMap<PathBuf, Vec<Position>>,
    /// Files at other paths that were read to their end.
    pub(crate) done: Vec<Position>,
}

impl Places {
    /// Adds what another set knew: files that moved from one set to another are not new.
    pub(crate) fn merge(&mut self, other: Places) {
        for (path, positions) in other.files {
            self.files.entry(path).or_insert(positions);
        }
        self.done.extend(other.done);
    }

    /// What travelled with the events says more than what was stored now and then. What is replaced
    /// by it stays known: the file may stand elsewhere by now. `paths`: those that match now.
    pub(crate) fn correct(
        &mut self,
        paths: BTreeSet<PathBuf>,
        kept: impl Fn(&Path) -> Option<Vec<Position>>,
    ) {
        let mut newer: HashSet<FileId> = HashSet::new();
        let stored = self.files.keys().cloned();
        let all: BTreeSet<PathBuf> = stored.chain(paths).collect();
        for path in all {
            let Some(kept) = kept(&path) else { continue };
            newer.extend(kept.iter().map(|position| position.id));
            let before = self.files.insert(path, kept);
            self.done.extend(before.unwrap_or_default());
        }
        self.done.retain(|position| !newer.contains(&position.id));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn position(inode: u64, offset: u64) -> Position {
        Position {
            id: FileId { device: 1, inode },
            offset,
            passing_over: false,
            fingerprint: (0, 0),
            modified: 0,
        }
    }

    #[test]
    fn what_came_with_the_events_counts_and_nothing_else_is_forgotten() {
        let path = PathBuf::from("/a.log");
        let mut places = Places::default();
        places
            .files
            .insert(path.clone(), vec![position(1, 10), position(2, 20)]);
        let other = PathBuf::from("/b.log");
        places.correct(BTreeSet::from([other.clone()]), |asked| {
            Some(vec![position(if asked == path { 2 } else { 3 }, 25)])
        });
        assert_eq!(places.files[&path], [position(2, 25)]);
        assert_eq!(places.files[&other], [position(3, 25)]);
        assert_eq!(places.done, [position(1, 10)]);
    }
}
