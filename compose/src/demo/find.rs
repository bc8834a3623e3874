//! Which logs this machine has: the systemd journal, else text files below `/var/log`.

use std::{
    fmt, fs,
    io::Read,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::SystemTime,
};

/// Where log files are.
const FOLDER: &str = "/var/log";
/// Levels of folders looked into, entries of a folder looked at, files carried.
const MAX_DEPTH: usize = 2;
const MAX_ENTRIES: usize = 1000;
const MAX_FILES: usize = 6;
/// Endings of compressed and binary files.
const NO_TEXT: [&str; 7] = ["gz", "xz", "zst", "bz2", "journal", "db", "old"];

/// A log to carry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// systemd's journal.
    Journal,
    /// A text file.
    File(PathBuf),
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Found::Journal => f.write_str("the systemd journal"),
            Found::File(path) => write!(f, "{}", path.display()),
        }
    }
}

/// The journal if it has entries, and the files written to last. Blocks.
pub(super) fn logs() -> Vec<Found> {
    let journal = journal_has_entries().then_some(Found::Journal);
    let files = text_files(Path::new(FOLDER)).into_iter().map(Found::File);
    journal.into_iter().chain(files).collect()
}

fn journal_has_entries() -> bool {
    let asked = Command::new("journalctl")
        .args(["-o", "json", "--lines", "1", "--no-pager", "--quiet"])
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output();
    asked.is_ok_and(|answer| answer.stdout.starts_with(b"{"))
}

/// Text files below a folder, the one written to last first.
fn text_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    collect(folder, MAX_DEPTH, &mut files);
    files.sort();
    files
        .into_iter()
        .rev()
        .map(|(_, path)| path)
        .filter(|path| is_text(path))
        .take(MAX_FILES)
        .collect()
}

fn collect(folder: &Path, depth: usize, files: &mut Vec<(SystemTime, PathBuf)>) {
    let entries = fs::read_dir(folder)
        .into_iter()
        .flatten()
        .take(MAX_ENTRIES)
        .flatten();
    for entry in entries {
        let path = entry.path();
        // Symbolic links are not followed: they may lead anywhere.
        let Ok(metadata) = fs::symlink_metadata(&path) else {
            continue;
        };
        if metadata.is_dir() && depth > 1 {
            collect(&path, depth - 1, files);
        } else if metadata.is_file() && metadata.len() > 0 && may_be_text(&path) {
            files.push((metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH), path));
        }
    }
}

/// By its ending: a number at the end means rotated away.
fn may_be_text(path: &Path) -> bool {
    let ending = path
        .extension()
        .and_then(|ending| ending.to_str())
        .unwrap_or_default();
    let rotated = !ending.is_empty() && ending.bytes().all(|byte| byte.is_ascii_digit());
    !rotated && !NO_TEXT.contains(&ending)
}

/// Whether it can be read and begins as text.
fn is_text(path: &Path) -> bool {
    let mut beginning = Vec::new();
    let Ok(file) = fs::File::open(path) else {
        return false;
    };
    if file.take(4096).read_to_end(&mut beginning).is_err() || beginning.contains(&0) {
        return false;
    }
    match std::str::from_utf8(&beginning) {
        Ok(_) => true,
        // A character that the limit has cut in two.
        Err(error) => error.error_len().is_none(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_readable_text_files_are_carried() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, bytes: &[u8]| {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, bytes).unwrap();
            path
        };
        let text = write("syslog", "cut in two: ä".repeat(1000).as_bytes());
        let nested = write("nginx/access.log", b"GET /\n");
        write("wtmp", b"\0\x01\x02");
        write("latin1.log", b"\xe4\xf6\n");
        write("empty.log", b"");
        write("old.log.1", b"text\n");
        write("old.log.2.gz", b"text\n");
        write("a/b/c/deep.log", b"text\n");
        let mut found = text_files(folder.path());
        found.sort();
        assert_eq!(found, [nested, text]);
    }

    #[test]
    fn a_missing_folder_has_no_files() {
        assert!(text_files(Path::new("/nonexistent")).is_empty());
    }
}
