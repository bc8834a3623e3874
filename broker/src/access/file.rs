//! Files of credentials and rules: how they are read, what a complaint about them looks like, and
//! how they are replaced so that neither a crash nor a second writer leaves half of one.

use std::{
    fmt,
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown},
    path::{Path, PathBuf},
};

use rustix::fs::{FlockOperation, flock};
use tracing::warn;

/// Largest file taken, bytes: a million devices fit.
const MAX_FILE: u64 = 128 << 20;

/// What is wrong with a file, and what to do: `acl:12: …`.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub struct FileError {
    /// The file.
    pub path: PathBuf,
    /// Counted from 1; `None` when it is about the file as a whole.
    pub line: Option<usize>,
    /// What is wrong and what would be right.
    pub reason: String,
}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.path.display())?;
        if let Some(line) = self.line {
            write!(f, "{line}:")?;
        }
        write!(f, " {}", self.reason)
    }
}

impl FileError {
    /// About one line.
    pub fn at(path: &Path, line: usize, reason: impl Into<String>) -> FileError {
        FileError {
            path: path.to_owned(),
            line: Some(line),
            reason: reason.into(),
        }
    }

    pub(crate) fn of(path: &Path, reason: impl Into<String>) -> FileError {
        FileError {
            path: path.to_owned(),
            line: None,
            reason: reason.into(),
        }
    }
}

/// The text of a file; `advice` says what makes one that is missing.
pub(crate) fn read(path: &Path, advice: &str) -> Result<String, FileError> {
    let failed = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => FileError::of(path, format!("no such file; {advice}")),
        _ => FileError::of(path, format!("cannot be read: {error}")),
    };
    let file = File::open(path).map_err(failed)?;
    let mut bytes = Vec::new();
    file.take(MAX_FILE + 1)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(FileError::of(path, "is larger than 128 MiB"));
    }
    String::from_utf8(bytes).map_err(|error| {
        let good = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = good.iter().filter(|byte| **byte == b'\n').count() + 1;
        FileError::at(path, line, "is not UTF-8; save the file as UTF-8")
    })
}

/// The text of a file of secrets; one that others may read is worth a warning.
pub fn read_secret(path: &Path, advice: &str) -> Result<String, FileError> {
    if let Ok(about) = fs::metadata(path)
        && about.is_file()
        && about.permissions().mode() & 0o007 != 0
    {
        warn!(
            file = %path.display(),
            "every user of this machine may read these credentials; chmod 600 {}",
            path.display()
        );
    }
    read(path, advice)
}

/// The lines that say something, numbered from 1: no comments, no blank ones.
pub fn lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let numbered = text.lines().enumerate();
    numbered
        .map(|(index, line)| (index + 1, line.trim()))
        .filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
}

/// Replaces the text of a file of secrets by what `change` makes of it; a file that is not there is
/// empty. The new file is whole and on disk, readable by its owner only (or by its group where it was
/// before), and belongs to whom the old one did, before it takes the old one's place. Writers wait for
/// each other.
pub fn edit<E: From<FileError>>(
    path: &Path,
    change: impl FnOnce(&str) -> Result<String, E>,
) -> Result<(), E> {
    let failed = |what: &str, error: io::Error| FileError::of(path, format!("{what}: {error}"));
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let directory =
        File::open(folder).map_err(|error| failed("its directory cannot be opened", error))?;
    flock(&directory, FlockOperation::LockExclusive)
        .map_err(|error| failed("cannot wait for other writers", error.into()))?;
    let old = match fs::metadata(path) {
        Ok(_) => read(path, "")?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(failed("cannot be read", error).into()),
    };
    let new = change(&old)?;
    if new != old || !path.exists() {
        replace(path, folder, &directory, new.as_bytes())
            .map_err(|error| failed("cannot be written", error))?;
    }
    Ok(())
}

fn replace(path: &Path, folder: &Path, directory: &File, bytes: &[u8]) -> io::Result<()> {
    // A link stays one: what it points to is replaced.
    let beside_folder = || folder.join(path.file_name().unwrap_or_default());
    let path = fs::canonicalize(path).unwrap_or_else(|_| beside_folder());
    let before = fs::metadata(&path).ok();
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let beside = path.with_file_name(name);
    let _ = fs::remove_file(&beside);
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&beside)?;
    let written = (|| {
        let owner = match &before {
            Some(before) => before.clone(),
            None => fs::metadata(folder)?,
        };
        let own = file.metadata()?;
        if (owner.uid(), owner.gid()) != (own.uid(), own.gid()) && own.uid() == 0 {
            fchown(&file, Some(owner.uid()), Some(owner.gid()))?;
        }
        let group_reads = before.map_or(0, |before| before.permissions().mode() & 0o040);
        file.set_permissions(fs::Permissions::from_mode(0o600 | group_reads))?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&beside, &path)?;
        match path.parent() {
            Some(parent) if parent != folder => File::open(parent)?.sync_all(),
            _ => directory.sync_all(),
        }
    })();
    if written.is_err() {
        let _ = fs::remove_file(&beside);
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn an_edited_file_is_whole_and_private() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secrets");
        edit::<FileError>(&path, |old| Ok(format!("{old}a\n"))).unwrap();
        edit::<FileError>(&path, |old| Ok(format!("{old}b\n"))).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "a\nb\n");
        assert_eq!(mode(&path), 0o600);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_file_that_others_could_read_is_private_after_an_edit_and_its_group_keeps_reading() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secrets");
        for (before, after) in [(0o644, 0o640), (0o640, 0o640), (0o600, 0o600)] {
            fs::write(&path, before.to_string()).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(before)).unwrap();
            edit::<FileError>(&path, |_| Ok("new".into())).unwrap();
            assert_eq!(mode(&path), after);
        }
    }

    #[test]
    fn a_change_that_fails_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secrets");
        fs::write(&path, "old").unwrap();
        let refused = edit(&path, |_| Err(FileError::of(&path, "no")));
        assert!(refused.is_err());
        assert_eq!(fs::read_to_string(&path).unwrap(), "old");
    }

    #[test]
    fn writers_at_the_same_time_lose_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secrets");
        std::thread::scope(|scope| {
            for n in 0..8 {
                let path = &path;
                scope.spawn(move || {
                    edit::<FileError>(path, |old| Ok(format!("{old}{n}\n"))).unwrap();
                });
            }
        });
        assert_eq!(fs::read_to_string(&path).unwrap().lines().count(), 8);
    }

    #[test]
    fn what_is_not_text_is_named_with_its_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("acl");
        fs::write(&path, b"one\ntwo\n\xFF\n").unwrap();
        let error = read(&path, "").unwrap_err();
        assert_eq!(error.line, Some(3));
        assert!(error.to_string().contains("acl:3: is not UTF-8"), "{error}");
    }
}
