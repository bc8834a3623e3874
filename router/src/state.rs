//! The state log: how a destination remembers across a crash what it has, in time proportional to
//! what changed.
//!
//! ```text
//! file    magic 8 ("tlgrst02"), records
//! record  length u32 LE, CRC-32 u32 LE of the body, CRC-32 u32 LE of these eight bytes,
//!         body (MessagePack)
//! ```
//!
//! Each record is one commit, written in one piece and synced before the next begins. So only the
//! last one can be torn: it stands for a commit that nobody was told of and is cut. A bad record
//! with the head of another anywhere behind it is damage: cutting there would forget commits that
//! were acknowledged, so opening fails and says what to do.
//!
//! What opening has read is written anew before it counts: a sync that failed, or that a kill came
//! before, leaves pages that read well and need not be on the disk.
//!
//! When appended records outgrow the state they describe, the log is rewritten as a snapshot: a new
//! file, synced, renamed over the old one, the folder synced.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::folder::sync_folder_of;

const MAGIC: &[u8; 8] = b"tlgrst02";
const HEAD: usize = 12;
/// Appended bytes below which a rewrite is not worth its syncs.
const REWRITE_FROM: u64 = 1 << 20;

/// Why a state cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StateError {
    #[error("{path}: {source}")]
    Io { path: PathBuf, source: io::Error },
    #[error("{path}: not a state log of thinglog's; move it away to start without it")]
    Foreign { path: PathBuf },
    #[error(
        "{path}: damaged at byte {at} ({reason}) with commits behind it; restore it, or move it \
         away to start without it (events that are delivered again are then kept twice)"
    )]
    Damaged {
        path: PathBuf,
        at: usize,
        reason: String,
    },
    #[error("cannot encode a commit: {0}")]
    Encode(#[from] rmp_serde::encode::Error),
}

/// An open state log, positioned behind its last record.
#[derive(Debug)]
pub(crate) struct StateLog {
    path: PathBuf,
    file: File,
    length: u64,
}

/// Appends `record`, framed, to `out`.
pub(crate) fn frame<R: Serialize>(record: &R, out: &mut Vec<u8>) -> Result<(), StateError> {
    let start = out.len();
    out.extend_from_slice(&[0; HEAD]);
    rmp_serde::encode::write(out, record)?;
    let body = start + HEAD;
    let crc = crc32fast::hash(&out[body..]);
    let length = (out.len() - body) as u32;
    out[start..start + 4].copy_from_slice(&length.to_le_bytes());
    out[start + 4..start + 8].copy_from_slice(&crc.to_le_bytes());
    let crc = crc32fast::hash(&out[start..start + 8]);
    out[start + 8..body].copy_from_slice(&crc.to_le_bytes());
    Ok(())
}

type Good<'a> = (Vec<&'a [u8]>, usize);

/// Bodies of the good records, and where they end. The error is where damage begins, and what.
fn scan(log: &[u8]) -> Result<Good<'_>, (usize, String)> {
    let mut bodies = Vec::new();
    let mut at = MAGIC.len();
    while let Some(rest) = log.get(at..).filter(|rest| !rest.is_empty()) {
        match record(rest) {
            Ok(body) => {
                bodies.push(body);
                at += HEAD + body.len();
            }
            Err(reason) if has_head_behind(rest) => return Err((at, reason.to_owned())),
            Err(_) => break,
        }
    }
    Ok((bodies, at.min(log.len())))
}

/// Length and checksum of a record's body, if this is the head of one.
fn head(rest: &[u8]) -> Option<(usize, u32)> {
    let [a, b, c, d, e, f, g, h, sum @ ..] = *rest.first_chunk::<HEAD>()?;
    let length = u32::from_le_bytes([a, b, c, d]) as usize;
    let is_head = crc32fast::hash(&[a, b, c, d, e, f, g, h]) == u32::from_le_bytes(sum);
    (is_head && length > 0).then(|| (length, u32::from_le_bytes([e, f, g, h])))
}

/// The body of the record that `rest` begins with, or what is wrong with it.
fn record(rest: &[u8]) -> Result<&[u8], &'static str> {
    let (length, crc) = head(rest).ok_or("not the head of a record")?;
    let body = rest[HEAD..].get(..length).ok_or("it ends early")?;
    match crc32fast::hash(body) == crc {
        true => Ok(body),
        false => Err("checksum differs"),
    }
}

/// Whether a record begins anywhere behind the one that `rest` begins with.
fn has_head_behind(rest: &[u8]) -> bool {
    rest.windows(HEAD)
        .skip(1)
        .any(|window| head(window).is_some())
}

impl StateLog {
    /// Opens or creates the log and gives its records, oldest first. A torn last record is cut.
    pub(crate) fn open<R: DeserializeOwned>(path: &Path) -> Result<(StateLog, Vec<R>), StateError> {
        let io = |source| StateError::Io {
            path: path.to_owned(),
            source,
        };
        let bytes = match std::fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(io(error)),
        };
        // Creation is a rename, so a short head is no leftover of ours; an empty file may be.
        if bytes.is_empty() {
            let file = replace(path, MAGIC).map_err(io)?;
            return Ok((StateLog::at(path, file, MAGIC.len()), Vec::new()));
        }
        if !bytes.starts_with(MAGIC) {
            return Err(StateError::Foreign {
                path: path.to_owned(),
            });
        }
        let damaged = |(at, reason)| StateError::Damaged {
            path: path.to_owned(),
            at,
            reason,
        };
        let (bodies, end) = scan(&bytes).map_err(damaged)?;
        let records = decode(&bodies).map_err(|reason| damaged((end, reason)))?;
        if end < bytes.len() {
            tracing::warn!(path = %path.display(), cut = bytes.len() - end, "a torn commit was cut");
        }
        let file = replace(path, &bytes[..end]).map_err(io)?;
        Ok((StateLog::at(path, file, end), records))
    }

    fn at(path: &Path, file: File, length: usize) -> StateLog {
        StateLog {
            path: path.to_owned(),
            file,
            length: length as u64,
        }
    }

    /// How much of the log is appended is not known any more: all of it may be, so that a log which
    /// grew in many short lives is rewritten too.
    pub(crate) fn growth(&self) -> Growth {
        Growth {
            appended: self.length,
            base: 0,
        }
    }

    /// Appends framed records and syncs them. After an error the log must be opened again.
    pub(crate) fn append(&mut self, framed: &[u8]) -> io::Result<()> {
        self.file.write_all_at(framed, self.length)?;
        self.file.sync_data()?;
        self.length += framed.len() as u64;
        Ok(())
    }

    /// Replaces everything by framed records, atomically.
    pub(crate) fn rewrite(&mut self, framed: &[u8]) -> io::Result<()> {
        let mut content = Vec::with_capacity(MAGIC.len() + framed.len());
        content.extend_from_slice(MAGIC);
        content.extend_from_slice(framed);
        self.file = replace(&self.path, &content)?;
        self.length = content.len() as u64;
        Ok(())
    }
}

fn decode<R: DeserializeOwned>(bodies: &[&[u8]]) -> Result<Vec<R>, String> {
    let decode = |body: &&[u8]| rmp_serde::from_slice(body).map_err(|error| error.to_string());
    bodies.iter().map(decode).collect()
}

/// Puts `content` at `path` so that a crash leaves either the old file or the whole new one.
fn replace(path: &Path, content: &[u8]) -> io::Result<File> {
    let temporary = path.with_extension("new");
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open(&temporary)?;
    file.write_all_at(content, 0)?;
    file.sync_data()?;
    std::fs::rename(&temporary, path)?;
    sync_folder_of(path)?;
    Ok(file)
}

/// Decides between appending and rewriting.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Growth {
    appended: u64,
    base: u64,
}

impl Growth {
    /// Whether the next commit should be a snapshot.
    pub(crate) fn wants_rewrite(&self) -> bool {
        self.appended > REWRITE_FROM.max(2 * self.base)
    }

    pub(crate) fn appended(&mut self, bytes: usize) {
        self.appended += bytes as u64;
    }

    pub(crate) fn rewritten(&mut self, bytes: usize) {
        self.base = bytes as u64;
        self.appended = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn filled(path: &Path, records: std::ops::Range<u64>) -> Vec<u8> {
        let (mut log, _) = StateLog::open::<u64>(path).unwrap();
        for n in records {
            let mut framed = Vec::new();
            frame(&(n + 1_000_000), &mut framed).unwrap();
            log.append(&framed).unwrap();
        }
        std::fs::read(path).unwrap()
    }

    fn read(path: &Path) -> Vec<u64> {
        StateLog::open::<u64>(path).unwrap().1
    }

    #[test]
    fn records_come_back_in_order() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state");
        filled(&path, 0..3);
        filled(&path, 3..5);
        let expected: Vec<u64> = (0..5).map(|n| n + 1_000_000).collect();
        assert_eq!(read(&path), expected);
    }

    #[test]
    fn a_rewrite_replaces_what_was_there_and_appends_go_on() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state");
        filled(&path, 0..3);
        let (mut log, _) = StateLog::open::<u64>(&path).unwrap();
        let mut framed = Vec::new();
        frame(&7u64, &mut framed).unwrap();
        log.rewrite(&framed).unwrap();
        log.append(&framed).unwrap();
        assert_eq!(read(&path), [7, 7]);
    }

    #[test]
    fn a_flipped_bit_with_commits_behind_it_refuses_to_open() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state");
        let bytes = filled(&path, 0..3);
        let record = (bytes.len() - MAGIC.len()) / 3;
        for bit in 0..record * 8 {
            let mut bytes = bytes.clone();
            bytes[MAGIC.len() + bit / 8] ^= 1 << (bit % 8);
            std::fs::write(&path, &bytes).unwrap();
            let error = StateLog::open::<u64>(&path).unwrap_err();
            assert!(
                matches!(error, StateError::Damaged { at: 8, .. }),
                "{error}"
            );
        }
    }

    #[test]
    fn what_was_read_is_written_anew() {
        use std::os::unix::fs::MetadataExt;

        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state");
        filled(&path, 0..3);
        let before = std::fs::metadata(&path).unwrap().ino();
        assert_eq!(read(&path).len(), 3);
        assert_ne!(std::fs::metadata(&path).unwrap().ino(), before);
    }

    #[test]
    fn what_earlier_lives_appended_counts_for_the_rewrite() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state");
        let (mut log, _) = StateLog::open::<Vec<u8>>(&path).unwrap();
        let mut framed = Vec::new();
        frame(&vec![200u8; REWRITE_FROM as usize / 2], &mut framed).unwrap();
        log.append(&framed).unwrap();
        let (log, _) = StateLog::open::<Vec<u8>>(&path).unwrap();
        assert!(log.growth().wants_rewrite());
    }

    #[test]
    fn a_foreign_file_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state");
        std::fs::write(&path, "hello, I am text").unwrap();
        let error = StateLog::open::<u64>(&path).unwrap_err();
        assert!(matches!(error, StateError::Foreign { .. }), "{error}");
        assert_eq!(std::fs::read(&path).unwrap(), b"hello, I am text");
    }

    #[test]
    fn zeros_at_the_end_are_a_torn_commit() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state");
        let mut bytes = filled(&path, 0..2);
        bytes.extend_from_slice(&[0; 100]);
        std::fs::write(&path, &bytes).unwrap();
        assert_eq!(read(&path), [1_000_000, 1_000_001]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn a_torn_tail_is_cut(cut in 1usize..100) {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("state");
            let bytes = filled(&path, 0..10);
            let keep = bytes.len().saturating_sub(cut).max(MAGIC.len());
            std::fs::write(&path, &bytes[..keep]).unwrap();
            let whole = read(&path);
            let expected: Vec<u64> = (0..whole.len() as u64).map(|n| n + 1_000_000).collect();
            prop_assert_eq!(&whole, &expected);
            prop_assert!(10 - whole.len() <= cut.div_ceil(17));
            // What was cut stays cut, and the log takes records again.
            filled(&path, whole.len() as u64..10);
            prop_assert_eq!(read(&path).len(), 10);
        }
    }
}
