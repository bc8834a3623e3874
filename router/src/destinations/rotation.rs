//! Line files of a folder that carry numbers: which there are, which go when there are too many,
//! and how a torn last line is cut.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// A numbered file: `<stem>-<number, 8 digits or more>.<extension>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Numbered {
    pub(crate) number: u64,
    pub(crate) path: PathBuf,
    pub(crate) bytes: u64,
}

/// Name of a numbered file.
pub(crate) fn name(stem: &str, number: u64, extension: &str) -> String {
    format!("{stem}-{number:08}.{extension}")
}

/// The numbered files of a folder, ascending.
pub(crate) fn list(folder: &Path, stem: &str, extension: &str) -> io::Result<Vec<Numbered>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let file_name = entry.file_name();
        let Some(number) = file_name
            .to_str()
            .and_then(|name| number(name, stem, extension))
        else {
            continue;
        };
        files.push(Numbered {
            number,
            path: entry.path(),
            bytes: entry.metadata()?.len(),
        });
    }
    files.sort_by_key(|file| file.number);
    Ok(files)
}

fn number(file: &str, stem: &str, extension: &str) -> Option<u64> {
    let rest = file.strip_prefix(stem)?.strip_prefix('-')?;
    let digits = rest.strip_suffix(extension)?.strip_suffix('.')?;
    let all_digits = digits.len() >= 8 && digits.bytes().all(|byte| byte.is_ascii_digit());
    all_digits.then(|| digits.parse().ok()).flatten()
}

/// The oldest files that have to go so that the rest stays within both bounds; never the newest.
pub(crate) fn surplus(files: &[Numbered], keep_bytes: u64, keep_files: Option<u32>) -> &[Numbered] {
    let most = keep_files.map_or(usize::MAX, |most| most as usize);
    let mut bytes = 0u64;
    let kept = files
        .iter()
        .rev()
        .take(most)
        .take_while(|file| {
            bytes = bytes.saturating_add(file.bytes);
            bytes <= keep_bytes
        })
        .count()
        .max(1);
    &files[..files.len().saturating_sub(kept)]
}

/// How much of the end of a file is searched for its last line break at once.
const TAIL: u64 = 64 << 10;

/// Cuts an unfinished last line; gives the length that remains.
pub(crate) fn cut_torn_line(file: &File, path: &Path) -> io::Result<u64> {
    let there = file.metadata()?.len();
    let mut end = there;
    let mut piece = Vec::new();
    while end > 0 {
        let start = end.saturating_sub(TAIL);
        piece.resize((end - start) as usize, 0);
        file.read_exact_at(&mut piece, start)?;
        if let Some(at) = piece.iter().rposition(|byte| *byte == b'\n') {
            end = start + at as u64 + 1;
            break;
        }
        end = start;
    }
    if end < there {
        tracing::warn!(path = %path.display(), cut = there - end, "cut a torn line");
        file.set_len(end)?;
        file.sync_data()?;
    }
    Ok(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(sizes: &[u64]) -> Vec<Numbered> {
        let file = |(number, bytes): (usize, &u64)| Numbered {
            number: number as u64,
            path: PathBuf::new(),
            bytes: *bytes,
        };
        sizes.iter().enumerate().map(file).collect()
    }

    #[test]
    fn the_oldest_go_first() {
        let files = files(&[10, 10, 10, 10]);
        assert_eq!(surplus(&files, 25, None).len(), 2);
        assert_eq!(surplus(&files, 1000, Some(1)).len(), 3);
        assert!(surplus(&files, 1000, None).is_empty());
        assert_eq!(surplus(&files, 0, Some(0)).len(), 3, "the newest stays");
        assert!(surplus(&[], 0, None).is_empty());
    }

    #[test]
    fn only_own_names_are_listed() {
        let folder = tempfile::tempdir().unwrap();
        for name in [
            "events.ndjson",
            "events-00000002.ndjson",
            "events-00000001.ndjson",
            "events-1.ndjson",
            "events-0000000x.ndjson",
            "other-00000003.ndjson",
            "events-00000004.ndjson.gz",
        ] {
            std::fs::write(folder.path().join(name), "x").unwrap();
        }
        let found = list(folder.path(), "events", "ndjson").unwrap();
        let numbers: Vec<u64> = found.iter().map(|file| file.number).collect();
        assert_eq!(numbers, [1, 2]);
        assert_eq!(
            number(&name("events", 7, "ndjson"), "events", "ndjson"),
            Some(7)
        );
    }
}
