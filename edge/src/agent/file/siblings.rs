//! The rotated forms of a file: which they are, and in which order they were written.

use std::{
    cmp::Ordering,
    collections::HashSet,
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
};

use super::{open::modified, position::FileId};

/// Rotated files in these formats cannot be read any more.
const COMPRESSED: [&str; 6] = ["gz", "bz2", "xz", "zst", "lz4", "Z"];

/// Whether a name says that its file is compressed.
pub(crate) fn is_compressed(path: &Path) -> bool {
    let extension = path.extension().and_then(OsStr::to_str);
    extension.is_some_and(|extension| COMPRESSED.contains(&extension))
}

/// What the part of a name behind that of the file says of when it was rotated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Rank {
    /// So many rotations ago.
    Ago(u32),
    /// At this time, in whatever way it is written.
    At(String),
}

impl Rank {
    fn of(rest: &[u8]) -> Option<Rank> {
        let [b'.' | b'-' | b'_', digits @ ..] = rest else {
            return None;
        };
        let length = digits
            .iter()
            .take_while(|byte| byte.is_ascii_digit())
            .count();
        let number = std::str::from_utf8(&digits[..length]).ok()?;
        match (length, number.parse()) {
            (0, _) => None,
            (1..=3, Ok(ago)) => Some(Rank::Ago(ago)),
            _ => Some(Rank::At(String::from_utf8_lossy(digits).into_owned())),
        }
    }

    /// `Less`: rotated earlier. Numbers and times do not compare.
    pub(crate) fn compare(&self, other: &Rank) -> Option<Ordering> {
        match (self, other) {
            (Rank::Ago(a), Rank::Ago(b)) => Some(b.cmp(a)),
            (Rank::At(a), Rank::At(b)) => Some(a.cmp(b)),
            _ => None,
        }
    }
}

/// What the numbers of rotated files count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Counted {
    /// The rotations since: logrotate and most others.
    Since,
    /// The rotations up to then: log4j2 as it comes, and who names a file once and for all.
    Before,
}

impl Counted {
    /// As most of the neighbours say by the times of their last lines.
    pub(crate) fn of(siblings: &Siblings) -> Counted {
        let all = siblings.readable.iter().chain(&siblings.compressed);
        let mut numbered: Vec<(u32, u64)> = all
            .filter_map(|sibling| match sibling.rank {
                Rank::Ago(number) => Some((number, sibling.modified)),
                Rank::At(_) => None,
            })
            .collect();
        numbered.sort_unstable();
        let pairs = || numbered.windows(2).map(|pair| pair[1].1.cmp(&pair[0].1));
        let younger = pairs().filter(|order| order.is_gt()).count();
        let older = pairs().filter(|order| order.is_lt()).count();
        match younger > older {
            true => Counted::Before,
            false => Counted::Since,
        }
    }

    /// `Less`: `a` was rotated earlier. Numbers and times do not compare.
    pub(crate) fn compare(self, a: &Rank, b: &Rank) -> Option<Ordering> {
        let order = a.compare(b)?;
        let numbers = matches!(a, Rank::Ago(_));
        Some(match self {
            Counted::Before if numbers => order.reverse(),
            _ => order,
        })
    }
}

/// A name that begins as `path`'s does, with a number or a time behind it: `app.log.1`,
/// `app.log-20260101`.
pub(crate) fn is_rotated_name(path: &Path, of: &Path) -> bool {
    rank(path, of.file_name()).is_some()
}

/// The same, or behind its stem: `app-20260101.log`.
pub(crate) fn is_rotated_form(path: &Path, of: &Path) -> bool {
    is_rotated_name(path, of) || rank_by_stem(path, of).is_some()
}

/// Numbers behind the stem are as often another file's name: `worker-1.log`.
fn rank_by_stem(path: &Path, of: &Path) -> Option<Rank> {
    rank(path, of.file_stem()).filter(|rank| matches!(rank, Rank::At(_)))
}

fn rank(path: &Path, own: Option<&OsStr>) -> Option<Rank> {
    let (name, own) = (
        path.file_name()?.as_encoded_bytes(),
        own?.as_encoded_bytes(),
    );
    Rank::of(name.strip_prefix(own)?)
}

/// A rotated form of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Sibling {
    pub(crate) path: PathBuf,
    pub(crate) id: FileId,
    pub(crate) rank: Rank,
    /// Nanoseconds since the epoch.
    pub(crate) modified: u64,
}

impl Sibling {
    /// `Less`: older. By the time of the last line; the clock of file systems ticks slowly enough for
    /// equal ones.
    pub(crate) fn age(&self, other: &Sibling) -> Ordering {
        let by_name = || self.rank.compare(&other.rank).unwrap_or(Ordering::Equal);
        self.modified.cmp(&other.modified).then_with(by_name)
    }
}

/// What rotation left beside a file.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Siblings {
    /// Oldest first.
    pub(crate) readable: Vec<Sibling>,
    /// Those that were compressed, oldest first.
    pub(crate) compressed: Vec<Sibling>,
}

impl Siblings {
    /// Whether these are the same files under the same names.
    pub(crate) fn is_named_as(&self, other: &Siblings) -> bool {
        let named = |siblings: &[Sibling]| -> HashSet<(PathBuf, FileId)> {
            let named = siblings.iter().map(|s| (s.path.clone(), s.id));
            named.collect()
        };
        named(&self.readable) == named(&other.readable)
            && named(&self.compressed) == named(&other.compressed)
    }
}

/// How often a directory is looked through in which names wander.
pub(crate) const TRIES: usize = 50;

/// Looks through the directory of `path`, again while names in it wander.
pub(crate) fn siblings(path: &Path) -> Siblings {
    let mut found = look_through(path);
    for _ in 0..TRIES {
        let again = look_through(path);
        if again.is_named_as(&found) {
            return again;
        }
        found = again;
    }
    found
}

/// The same, once: a directory that is read while a file in it is renamed may show that file twice, or
/// not at all.
pub(crate) fn look_through(path: &Path) -> Siblings {
    let mut found = Siblings::default();
    let directory = path.parent().filter(|p| !p.as_os_str().is_empty());
    let Ok(entries) = fs::read_dir(directory.unwrap_or(Path::new("."))) else {
        return found;
    };
    for entry in entries.flatten() {
        let other = entry.path();
        let Some(rank) = rank(&other, path.file_name()).or_else(|| rank_by_stem(&other, path))
        else {
            continue;
        };
        // It may be renamed while the directory is read.
        let Some(metadata) = entry.metadata().ok().filter(|m| m.is_file()) else {
            continue;
        };
        let among = match is_compressed(&other) {
            true => &mut found.compressed,
            false => &mut found.readable,
        };
        among.push(Sibling {
            path: other,
            id: FileId::of(&metadata),
            rank,
            modified: modified(&metadata),
        });
    }
    found.readable.sort_by(Sibling::age);
    found.compressed.sort_by(Sibling::age);
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rotated_forms_are_known_by_name() {
        let of = Path::new("/log/app.log");
        for name in [
            "app.log.1",
            "app.log-20260101",
            "app.log.2026-01-01",
            "app.log.1.gz",
        ] {
            assert!(is_rotated_name(&of.with_file_name(name), of), "{name}");
        }
        for name in [
            "app-20260101.log",
            "app.2026-01-01.log",
            "app_20260101-1.log",
        ] {
            let path = of.with_file_name(name);
            assert!(
                is_rotated_form(&path, of) && !is_rotated_name(&path, of),
                "{name}"
            );
        }
        for name in [
            "app.log",
            "app-1.log",
            "app.log.old",
            "app-error.log",
            "application.log.1",
        ] {
            assert!(!is_rotated_form(&of.with_file_name(name), of), "{name}");
        }
    }

    #[test]
    fn names_tell_the_order_where_times_do_not() {
        let rank = |rest: &str| Rank::of(rest.as_bytes()).unwrap();
        let older = |a: &str, b: &str| rank(a).compare(&rank(b)) == Some(Ordering::Less);
        assert!(older(".10", ".2") && older(".2", ".1"));
        assert!(older("-20251231", "-20260101"));
        assert!(older(".2026-01-01_10", ".2026-01-01_11"));
        assert_eq!(rank(".1").compare(&rank("-20260101")), None);
    }
}
