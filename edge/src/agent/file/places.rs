//! What is remembered of a set of files between runs.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    ffi::OsStr,
    fmt::Write,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::position::{FileId, Position};

/// Where everything stands.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Places {
    /// By path, oldest file first.
    #[serde(serialize_with = "write_paths", deserialize_with = "read_paths")]
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

type ByPath = BTreeMap<PathBuf, Vec<Position>>;

/// Before a path that is no UTF-8, whose bytes follow in hexadecimal: no path has it.
const BYTES: char = '\0';

fn write_paths<S: Serializer>(files: &ByPath, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(
        files
            .iter()
            .map(|(path, positions)| (text(path), positions)),
    )
}

fn read_paths<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ByPath, D::Error> {
    let files: BTreeMap<String, Vec<Position>> = Deserialize::deserialize(deserializer)?;
    let files = files.into_iter();
    Ok(files
        .filter_map(|(text, positions)| Some((path(text)?, positions)))
        .collect())
}

fn text(path: &Path) -> String {
    if let Some(text) = path.to_str() {
        return text.to_owned();
    }
    let mut text = BYTES.to_string();
    for byte in path.as_os_str().as_bytes() {
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// `None` for what [`text`] never writes.
fn path(text: String) -> Option<PathBuf> {
    let Some(digits) = text.strip_prefix(BYTES) else {
        return Some(text.into());
    };
    let pairs = digits.as_bytes().chunks(2);
    let byte = |pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    let bytes: Vec<u8> = pairs.map(byte).collect::<Option<_>>()?;
    Some(OsStr::from_bytes(&bytes).into())
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

    #[test]
    fn a_path_that_is_no_text_is_remembered_like_the_others() {
        let mut places = Places::default();
        for name in [&b"/log/a.log"[..], b"/log/\xff\xfe.log"] {
            let path = PathBuf::from(OsStr::from_bytes(name));
            places.files.insert(path, vec![position(1, 10)]);
        }
        let json = serde_json::to_string(&places).unwrap();
        assert!(json.contains("\"/log/a.log\""), "{json}");
        assert_eq!(serde_json::from_str::<Places>(&json).unwrap(), places);
        assert_eq!(path("\0zz".to_owned()), None);
    }
}
