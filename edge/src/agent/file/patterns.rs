//! Which files are meant: paths with `*`, `?`, `[a-z]` within a name and `**` for any directories.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Component, Path, PathBuf},
};

use glob::{MatchOptions, Pattern};

/// Directories below each other that are looked through, and entries of all of them, at most.
const MAX_DEPTH: usize = 32;
const MAX_ENTRIES: usize = 100_000;

const MATCHING: MatchOptions = MatchOptions {
    case_sensitive: true,
    require_literal_separator: true,
    require_literal_leading_dot: true,
};

#[derive(Clone, Debug)]
enum Segment {
    Literal(PathBuf),
    Name(Pattern),
    /// `**`: any directories, or none. Symbolic links are not followed.
    Directories,
}

/// One of `paths`.
#[derive(Clone, Debug)]
struct Include {
    whole: Pattern,
    /// Without any of the special characters.
    literal: Option<PathBuf>,
    segments: Vec<Segment>,
}

/// The files that are to be followed.
#[derive(Clone, Debug)]
pub(crate) struct Patterns {
    include: Vec<Include>,
    exclude: Vec<Pattern>,
}

/// What a look through the directories found.
#[derive(Debug, Default)]
pub(crate) struct Walk {
    /// Everything that matches, whatever it is; what was named literally need not exist.
    pub(crate) found: BTreeSet<PathBuf>,
    /// Where more may appear.
    pub(crate) directories: BTreeSet<PathBuf>,
    /// What cannot be looked through.
    pub(crate) unreadable: BTreeMap<PathBuf, io::Error>,
    /// There were more entries than are looked at.
    pub(crate) too_many: bool,
    entries: usize,
}

impl Patterns {
    /// The error names the option and what is wrong with it.
    pub(crate) fn new(paths: &[String], exclude: &[String]) -> Result<Patterns, String> {
        if paths.is_empty() {
            return Err("paths: name at least one file, as in [\"/var/log/*.log\"]".to_owned());
        }
        let include = paths.iter().map(|path| Include::new(path));
        let exclude = exclude
            .iter()
            .map(|text| Pattern::new(text).map_err(|error| format!("exclude: {text:?}: {error}")));
        Ok(Patterns {
            include: include.collect::<Result<_, _>>()?,
            exclude: exclude.collect::<Result<_, _>>()?,
        })
    }

    /// Whether a file at `path` would be followed.
    pub(crate) fn matches(&self, path: &Path) -> bool {
        let included = self.include.iter().any(|include| match &include.literal {
            Some(literal) => literal == path,
            None => include.whole.matches_path_with(path, MATCHING),
        });
        included && !self.is_excluded(path)
    }

    /// Whether `path` stands among the patterns as it is.
    pub(crate) fn names(&self, path: &Path) -> bool {
        let mut literal = self.include.iter().filter_map(|i| i.literal.as_deref());
        literal.any(|literal| literal == path)
    }

    /// The paths that stand among the patterns as they are.
    pub(crate) fn literal(&self) -> impl Iterator<Item = &Path> {
        self.include
            .iter()
            .filter_map(|include| include.literal.as_deref())
    }

    /// Looks through the directories.
    pub(crate) fn walk(&self) -> Walk {
        let mut walk = Walk::default();
        for include in &self.include {
            walk.descend(PathBuf::from("/"), &include.segments, false, 0);
        }
        walk.found.retain(|path| !self.is_excluded(path));
        walk
    }

    /// By the whole path, or by the name where the pattern has no directory.
    fn is_excluded(&self, path: &Path) -> bool {
        self.exclude.iter().any(|pattern| {
            let named = !pattern.as_str().contains('/');
            let name = path.file_name().map(Path::new).filter(|_| named);
            pattern.matches_path_with(name.unwrap_or(path), MATCHING)
        })
    }
}

impl Include {
    fn new(text: &str) -> Result<Include, String> {
        let wrong = |reason: String| format!("paths: {text:?}: {reason}");
        if text.is_empty() || text.ends_with('/') {
            return Err(wrong("name files, as in \"/var/log/app/*.log\"".to_owned()));
        }
        let path = std::path::absolute(text).map_err(|error| wrong(error.to_string()))?;
        let pattern = path.to_string_lossy();
        let whole = Pattern::new(&pattern).map_err(|error| wrong(error.to_string()))?;
        let special = |text: &str| text.contains(['*', '?', '[']);
        let mut segments = Vec::new();
        for component in path.components() {
            let Component::Normal(name) = component else {
                continue;
            };
            let name = name.to_string_lossy();
            segments.push(match &*name {
                "**" => Segment::Directories,
                name if special(name) => {
                    Segment::Name(Pattern::new(name).map_err(|error| wrong(error.to_string()))?)
                }
                name => Segment::Literal(name.into()),
            });
        }
        if matches!(segments.last(), Some(Segment::Directories)) {
            return Err(wrong(
                "a name must follow on `**`, as in \"**/*.log\"".to_owned(),
            ));
        }
        let literal = (!special(&pattern)).then(|| path.clone());
        Ok(Include {
            whole,
            literal,
            segments,
        })
    }
}

impl Walk {
    /// `searched`: there was a pattern before, so that only what exists counts.
    fn descend(&mut self, path: PathBuf, segments: &[Segment], searched: bool, depth: usize) {
        let Some((segment, rest)) = segments.split_first() else {
            path.parent().into_iter().for_each(|path| self.watch(path));
            self.found.insert(path);
            return;
        };
        if depth > MAX_DEPTH {
            self.too_many = true;
            return;
        }
        match segment {
            Segment::Literal(name) => {
                let path = path.join(name);
                if !searched || path.exists() {
                    self.descend(path, rest, searched, depth + 1);
                } else {
                    path.parent().into_iter().for_each(|path| self.watch(path));
                }
            }
            Segment::Name(pattern) => {
                for (entry, name) in self.entries(&path) {
                    let matches = pattern.matches_with(&name, MATCHING);
                    if matches && (rest.is_empty() || entry.is_dir()) {
                        self.descend(entry, rest, true, depth + 1);
                    }
                }
            }
            Segment::Directories => {
                self.descend(path.clone(), rest, true, depth + 1);
                for (entry, _) in self.entries(&path) {
                    let real = fs::symlink_metadata(&entry).is_ok_and(|m| m.is_dir());
                    if real {
                        self.descend(entry, segments, true, depth + 1);
                    }
                }
            }
        }
    }

    fn entries(&mut self, directory: &Path) -> Vec<(PathBuf, String)> {
        let listed = fs::read_dir(directory).and_then(|entries| {
            let entries = entries.take(MAX_ENTRIES.saturating_sub(self.entries));
            entries
                .map(|entry| {
                    let entry = entry?;
                    Ok((
                        entry.path(),
                        entry.file_name().to_string_lossy().into_owned(),
                    ))
                })
                .collect::<io::Result<Vec<_>>>()
        });
        match listed {
            Ok(listed) => {
                self.entries += listed.len();
                self.too_many |= self.entries >= MAX_ENTRIES;
                self.directories.insert(directory.to_owned());
                listed
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.watch(directory);
                Vec::new()
            }
            Err(error) => {
                self.unreadable.insert(directory.to_owned(), error);
                Vec::new()
            }
        }
    }

    /// Where files may appear: the directory, or as long as it is missing the one that it will be made in.
    fn watch(&mut self, directory: &Path) {
        // Most often that of the file before.
        if self.directories.contains(directory) {
            return;
        }
        let there = directory.ancestors().find(|path| path.is_dir());
        self.directories.extend(there.map(Path::to_owned));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(files: &[&str]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for file in files {
            let path = dir.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        dir
    }

    fn patterns(dir: &Path, paths: &[&str], exclude: &[&str]) -> Patterns {
        let inside = |text: &&str| match text.contains('/') || !exclude.contains(text) {
            true => format!("{}/{text}", dir.display()),
            false => (*text).to_owned(),
        };
        let paths: Vec<String> = paths.iter().map(inside).collect();
        let exclude: Vec<String> = exclude.iter().map(inside).collect();
        Patterns::new(&paths, &exclude).unwrap()
    }

    fn found(dir: &Path, patterns: &Patterns) -> Vec<String> {
        let walk = patterns.walk();
        assert!(
            walk.found.iter().all(|path| patterns.matches(path)),
            "{:?}",
            walk.found
        );
        let relative = |path: &PathBuf| path.strip_prefix(dir).unwrap().display().to_string();
        walk.found.iter().map(relative).collect()
    }

    #[test]
    fn patterns_find_files_in_directories_and_below() {
        let dir = tree(&[
            "a.log",
            "b.txt",
            "n/c.log",
            "n/deep/d.log",
            ".hidden.log",
            "n/x1.log",
        ]);
        let found = |paths: &[&str], exclude: &[&str]| {
            found(dir.path(), &patterns(dir.path(), paths, exclude))
        };
        assert_eq!(found(&["*.log"], &[]), ["a.log"]);
        assert_eq!(
            found(&["**/*.log"], &[]),
            ["a.log", "n/c.log", "n/deep/d.log", "n/x1.log"]
        );
        assert_eq!(found(&["n/**/d.log"], &[]), ["n/deep/d.log"]);
        assert_eq!(
            found(&["n/x[0-9].log", "b.???"], &[]),
            ["b.txt", "n/x1.log"]
        );
        assert_eq!(
            found(&["**/*.log"], &["c.*", "n/deep/*"]),
            ["a.log", "n/x1.log"]
        );
        assert_eq!(
            found(&["missing.log", "missing/*.log"], &[]),
            ["missing.log"]
        );
    }

    #[test]
    fn directories_are_watched_in_which_what_is_missing_will_be_made() {
        let dir = tree(&["x/readme"]);
        for paths in ["*/logs/app.log", "x/logs/deep/*.log", "x/app.log"] {
            let walk = patterns(dir.path(), &[paths], &[]).walk();
            let inside = dir.path().join("x");
            assert!(walk.directories.contains(&inside), "{paths}: {walk:?}");
        }
    }

    #[test]
    fn a_link_to_a_directory_above_is_no_endless_way() {
        let dir = tree(&["n/a.log"]);
        std::os::unix::fs::symlink(dir.path(), dir.path().join("n/up")).unwrap();
        assert_eq!(
            found(dir.path(), &patterns(dir.path(), &["**/*.log"], &[])),
            ["n/a.log"]
        );
    }

    #[test]
    fn what_is_no_pattern_is_refused_with_the_reason() {
        for (path, reason) in [
            ("/a/[", "paths: "),
            ("/a/", "*.log"),
            ("/a/**", "`**`"),
            ("/a***", "paths"),
        ] {
            let error = Patterns::new(&[path.to_owned()], &[]).unwrap_err();
            assert!(error.contains(reason), "{path}: {error}");
        }
        assert!(
            Patterns::new(&[], &[])
                .unwrap_err()
                .contains("at least one")
        );
        let error = Patterns::new(&["/a".to_owned()], &["[".to_owned()]).unwrap_err();
        assert!(error.starts_with("exclude: "), "{error}");
    }
}
