//! Which files to follow, and how.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use serde::Deserialize;

use super::{
    naming::{self, Naming},
    patterns::Patterns,
    set::SetOptions,
    siblings::is_rotated_name,
};
use crate::agent::{
    SourceError,
    encoding::Encoding,
    entries::TextOptions,
    multiline::MultilineOptions,
    recognise::{Parse, Zone},
    state::StateDir,
};

/// Where a file that was never read before is begun.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StartAt {
    /// With its first line.
    #[default]
    Beginning,
    /// With the next line to be written.
    End,
    /// With the first line that starts within its last so many bytes.
    #[serde(skip)]
    Last(u64),
}

/// What to follow and how.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FilesOptions {
    /// Files, which need not exist yet, and patterns: `*`, `?` and `[a-z]` within a name, `**` for any
    /// directories.
    pub paths: Vec<String>,
    /// Patterns of what is left out; without a `/` they are of names.
    pub exclude: Vec<String>,
    /// The source of the events of a file: a name, in which `{stem}`, `{name}` and `{dir}` stand for
    /// parts of its path (`access`, `access.log` and `nginx` of `/var/log/nginx/access.log`).
    pub source: String,
    /// Where to begin with files that are not remembered. What appears later is read from its
    /// beginning.
    pub start: StartAt,
    /// How characters are encoded, where no byte order mark says otherwise.
    pub encoding: Encoding,
    /// Which lines are one event.
    pub multiline: Option<MultilineOptions>,
    /// What the lines are.
    pub parse: Parse,
    /// Of times that name no zone.
    pub timezone: Zone,
    /// Files that are kept open, at most; those that were idle for longest are closed and opened
    /// again when they change.
    pub max_open: usize,
    /// Where to remember how far files were read; `None`: nowhere, every start is the first.
    #[serde(skip)]
    pub state: Option<StateDir>,
    /// How long events may take to become durable at the end, so that the places can be remembered.
    #[serde(skip)]
    pub drain: Duration,
}

impl Default for FilesOptions {
    fn default() -> FilesOptions {
        FilesOptions {
            paths: Vec::new(),
            exclude: Vec::new(),
            source: naming::DEFAULT.to_owned(),
            start: StartAt::Beginning,
            encoding: Encoding::default(),
            multiline: None,
            parse: Parse::default(),
            timezone: Zone::default(),
            max_open: 128,
            state: None,
            drain: Duration::from_secs(5),
        }
    }
}

impl FilesOptions {
    /// These files from the beginning, remembering nothing.
    pub fn new<P: Into<String>>(paths: impl IntoIterator<Item = P>) -> FilesOptions {
        FilesOptions {
            paths: paths.into_iter().map(P::into).collect(),
            ..FilesOptions::default()
        }
    }

    /// Whether this can be done at all; the error names the option and the reason.
    pub fn check(&self) -> Result<(), SourceError> {
        let compiled = self.compile()?;
        let mut named = compiled.patterns.literal();
        named.try_for_each(refuse_what_is_no_file)
    }

    /// The files that are there now, with the sources of their events. What is a rotated form of one of
    /// them is part of that one.
    pub fn found(&self) -> Result<Vec<(PathBuf, Arc<str>)>, SourceError> {
        let compiled = self.compile()?;
        let found = compiled.patterns.walk().found;
        let is_part = |path: &PathBuf| found.iter().any(|other| is_rotated_name(path, other));
        let whole = found.iter().filter(|path| !is_part(path));
        let named = whole.map(|path| (path.clone(), compiled.naming.source(path)));
        Ok(named.collect())
    }

    /// How their bytes are read.
    pub(crate) fn text(&self) -> TextOptions {
        TextOptions {
            encoding: self.encoding,
            multiline: self.multiline.clone(),
            parse: self.parse,
            timezone: self.timezone.clone(),
        }
    }

    pub(super) fn compile(&self) -> Result<SetOptions, SourceError> {
        let patterns = Patterns::new(&self.paths, &self.exclude).map_err(SourceError::Options)?;
        let naming = Naming::new(&self.source).map_err(SourceError::Options)?;
        if self.max_open == 0 {
            return Err(SourceError::Options("max_open: at least 1".to_owned()));
        }
        Ok(SetOptions {
            patterns,
            naming,
            text: Arc::new(self.text()),
            start: self.start,
            max_open: self.max_open,
        })
    }
}

/// What does not exist may become a file; a directory or a pipe does not.
fn refuse_what_is_no_file(path: &Path) -> Result<(), SourceError> {
    let Ok(metadata) = std::fs::metadata(path) else {
        return Ok(());
    };
    let path = path.display();
    if metadata.is_dir() {
        return Err(SourceError::Options(format!(
            "paths: {path} is a directory; name its files, as in \"{path}/*.log\""
        )));
    }
    if !metadata.is_file() {
        return Err(SourceError::Options(format!(
            "paths: {path} is no regular file; read a stream with `thinglog-edge pipe`"
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(toml: &str) -> Result<FilesOptions, String> {
        serde_json::from_str(toml).map_err(|error| error.to_string())
    }

    #[test]
    fn a_table_says_what_to_follow_and_what_it_does_not_say_is_usual() {
        let options = read(
            r#"{"paths": ["/var/log/*.log"], "exclude": ["*.old"], "source": "{dir}-{stem}",
                "start": "end", "encoding": "latin1", "multiline": "java", "max_open": 10}"#,
        );
        let options = options.unwrap();
        assert_eq!(options.start, StartAt::End);
        assert!(options.multiline.is_some());
        options.check().unwrap();
        assert_eq!(read(r#"{"paths": ["/a"]}"#).unwrap().source, "{stem}");
    }

    #[test]
    fn what_cannot_be_done_is_refused_by_name() {
        assert!(read(r#"{"path": "/a"}"#).unwrap_err().contains("path"));
        assert!(
            read(r#"{"encoding": "klingon"}"#)
                .unwrap_err()
                .contains("klingon")
        );
        assert!(read(r#"{"start": "middle"}"#).unwrap_err().contains("end"));
        let check = |options: FilesOptions| options.check().unwrap_err().to_string();
        assert!(check(FilesOptions::default()).contains("paths"));
        assert!(check(FilesOptions::new(["/tmp"])).contains("directory"));
        assert!(check(FilesOptions::new(["/dev/null"])).contains("thinglog-edge pipe"));
        let source = FilesOptions {
            source: "{x}".into(),
            ..FilesOptions::new(["/a"])
        };
        assert!(check(source).contains("source"));
    }
}
