//! What to carry of which journal, and how journalctl is asked for it.

use std::{
    path::PathBuf,
    process::{Command, Stdio},
    str::FromStr,
    time::Duration,
};

use serde::{Deserialize, Deserializer, de::Error};
use thinglog_schemas::Severity;

use super::place::stands_for;
use crate::agent::{SourceError, state::StateDir, units::Time};

/// Which journal, which entries of it, and what becomes of them.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct JournalOptions {
    /// The program to ask.
    pub program: PathBuf,
    /// Another directory of journal files than the system's.
    pub directory: Option<PathBuf>,
    /// Journal files, or patterns of them, instead of the system's.
    pub files: Vec<String>,
    /// A namespace of the journal (systemd-journald@.service); `*` for all.
    pub namespace: Option<String>,
    /// The source of all events; `None`: the unit of each, else its identifier.
    pub source: Option<String>,
    /// Units and user units to carry, with `*` for anything; empty: all entries.
    pub units: Vec<String>,
    /// See `units`.
    pub user_units: Vec<String>,
    /// Syslog identifiers to carry; empty: all.
    pub identifiers: Vec<String>,
    /// Units not to carry, with `*` for anything.
    pub exclude_units: Vec<String>,
    /// Identifiers not to carry, with `*` for anything.
    pub exclude_identifiers: Vec<String>,
    /// Not what this program itself says to the journal.
    pub exclude_own: bool,
    /// The least grave priority to carry, by name or number, or a range of them (`0..4`).
    pub priority: Option<String>,
    /// Fields that entries must have (`FIELD=value`), as on journalctl's command line: those of one
    /// field are alternatives, a `+` stands between alternatives of several.
    pub matches: Vec<String>,
    /// Only entries of this boot.
    pub boot: bool,
    /// Fields that become attributes, under their names in lower case; `*`: all there are.
    pub fields: Vec<String>,
    /// How many past entries to begin with when no place is remembered.
    pub lines: u32,
    /// Where to begin then, instead of so many entries before the end.
    pub start: Option<JournalStart>,
    /// Names this source among others that read the same journal.
    #[serde(skip)]
    pub name: String,
    /// Where to remember the place; `None`: nowhere.
    #[serde(skip)]
    pub state: Option<StateDir>,
    /// How long events may take to become durable at the end.
    #[serde(skip)]
    pub drain: Duration,
}

impl Default for JournalOptions {
    fn default() -> JournalOptions {
        JournalOptions {
            program: "journalctl".into(),
            directory: None,
            files: Vec::new(),
            namespace: None,
            source: None,
            units: Vec::new(),
            user_units: Vec::new(),
            identifiers: Vec::new(),
            exclude_units: Vec::new(),
            exclude_identifiers: Vec::new(),
            exclude_own: true,
            priority: None,
            matches: Vec::new(),
            boot: false,
            fields: Vec::new(),
            lines: 100,
            start: None,
            name: "journal".into(),
            state: None,
            drain: Duration::from_secs(5),
        }
    }
}

/// Where a journal that was never read before is begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JournalStart {
    /// With its first entry.
    Beginning,
    /// With the next one.
    End,
    /// With the first of this boot.
    Boot,
    /// With the first of so long ago.
    Ago(Duration),
}

impl FromStr for JournalStart {
    type Err = String;

    fn from_str(text: &str) -> Result<JournalStart, String> {
        Ok(match text {
            "beginning" => JournalStart::Beginning,
            "end" => JournalStart::End,
            "boot" => JournalStart::Boot,
            span => {
                let span: Time = span.parse().map_err(
                    |_| "expected \"beginning\", \"end\", \"boot\", or how long ago, as in \"15m\"",
                )?;
                JournalStart::Ago(span.0)
            }
        })
    }
}

impl<'de> Deserialize<'de> for JournalStart {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<JournalStart, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(D::Error::custom)
    }
}

/// What is asked for of an entry, beside its cursor and times, which always come.
const FIELDS: [&str; 11] = [
    "MESSAGE",
    "PRIORITY",
    "SYSLOG_IDENTIFIER",
    "_SYSTEMD_UNIT",
    "_SYSTEMD_USER_UNIT",
    "UNIT",
    "USER_UNIT",
    "_PID",
    "_COMM",
    "_TRANSPORT",
    "_SYSTEMD_INVOCATION_ID",
];

const PRIORITIES: [&str; 8] = [
    "emerg", "alert", "crit", "err", "warning", "notice", "info", "debug",
];

impl JournalOptions {
    /// What no type says; the error names the key.
    pub fn check(&self) -> Result<(), SourceError> {
        self.wrong()
            .map_err(|(key, reason)| SourceError::Options(format!("{key}: {reason}")))
    }

    /// The key that is wrong, and why.
    pub(crate) fn wrong(&self) -> Result<(), (&'static str, String)> {
        let places = [
            self.directory.is_some(),
            !self.files.is_empty(),
            self.namespace.is_some(),
        ];
        if places.iter().filter(|given| **given).count() > 1 {
            let reason = "of `directory`, `files` and `namespace` one is enough";
            return Err(("directory", reason.to_owned()));
        }
        if let Some(priority) = &self.priority
            && !is_priority(priority)
        {
            let reason = format!(
                "{priority:?} is no priority; there are {} (0 to 7), and ranges as in \"err..info\"",
                PRIORITIES.join(", ")
            );
            return Err(("priority", reason));
        }
        for word in &self.matches {
            let named = word.split_once('=').is_some_and(|(name, _)| is_field(name));
            if word != "+" && !named {
                let reason = format!("{word:?} is neither FIELD=value nor \"+\"");
                return Err(("matches", reason));
            }
        }
        if let Some(field) = self.fields.iter().find(|f| *f != "*" && !is_field(f)) {
            let reason = format!("{field:?} is no field; they are written as in \"_COMM\"");
            return Err(("fields", reason));
        }
        let lists = [
            ("units", &self.units),
            ("user_units", &self.user_units),
            ("identifiers", &self.identifiers),
            ("files", &self.files),
        ];
        for (key, list) in lists {
            if list.iter().any(String::is_empty) {
                return Err((key, "a name is empty".to_owned()));
            }
        }
        Ok(())
    }

    /// Asks for one entry, as the source would: why that is not possible.
    pub fn try_out(&self) -> Result<(), String> {
        let program = self.program.display();
        let output = Command::new(&self.program)
            .args(self.arguments(&["--lines=1".to_owned()]))
            .stdin(Stdio::null())
            .output()
            .map_err(|error| format!("{program}: {error}"))?;
        let complaint = String::from_utf8_lossy(&output.stderr);
        let complaint = complaint.trim();
        match output.status.success() {
            true => Ok(()),
            false if complaint.is_empty() => Err(format!("{program}: {}", output.status)),
            false => Err(format!("{program}: {complaint}")),
        }
    }

    /// Names the journal and this reader of it, the same in every run.
    pub(super) fn identity(&self) -> String {
        let JournalOptions {
            name,
            directory,
            files,
            namespace,
            ..
        } = self;
        format!("journal {name} {directory:?} {files:?} {namespace:?}")
    }

    /// Stands for which entries are read.
    pub(super) fn selection(&self) -> u64 {
        stands_for(&self.filters().join("\n"))
    }

    /// Every entry of the journal is read.
    pub(super) fn is_whole(&self) -> bool {
        self.filters().is_empty()
    }

    /// Which fields to write, and how.
    fn output(&self) -> Vec<String> {
        let mut arguments: Vec<String> = ["--output=export", "--all", "--no-pager", "--quiet"]
            .map(str::to_owned)
            .into();
        if !self.fields.iter().any(|field| field == "*") {
            let wanted = FIELDS
                .into_iter()
                .chain(self.fields.iter().map(String::as_str));
            let wanted: Vec<&str> = wanted.collect();
            arguments.push(format!("--output-fields={}", wanted.join(",")));
        }
        arguments
    }

    /// Which journal.
    fn place(&self) -> Vec<String> {
        let mut arguments = Vec::new();
        if let Some(directory) = &self.directory {
            arguments.push(format!("--directory={}", directory.display()));
        }
        let files = self.files.iter().map(|file| format!("--file={file}"));
        arguments.extend(files);
        if let Some(namespace) = &self.namespace {
            arguments.push(format!("--namespace={namespace}"));
        }
        arguments
    }

    /// Which entries; matches come last.
    fn filters(&self) -> Vec<String> {
        let mut arguments = Vec::new();
        // The program knows patterns of units that are there when it starts, and none of later ones.
        let units = self.units.iter().chain(&self.user_units);
        if !units.into_iter().any(|unit| is_pattern(unit)) {
            arguments.extend(self.units.iter().map(|unit| format!("--unit={unit}")));
            let units = self.user_units.iter();
            arguments.extend(units.map(|unit| format!("--user-unit={unit}")));
        }
        if !self
            .identifiers
            .iter()
            .any(|identifier| is_pattern(identifier))
        {
            let identifiers = self.identifiers.iter();
            arguments.extend(identifiers.map(|identifier| format!("--identifier={identifier}")));
        }
        if let Some(priority) = &self.priority {
            arguments.push(format!("--priority={priority}"));
        }
        if self.boot {
            arguments.push("--boot".to_owned());
        }
        if !self.matches.is_empty() {
            arguments.push("--".to_owned());
            arguments.extend(self.matches.iter().cloned());
        }
        arguments
    }

    /// Arguments for the entries that are wanted, restricted further by `more`.
    pub(crate) fn arguments(&self, more: &[String]) -> Vec<String> {
        [&self.output()[..], &self.place(), more, &self.filters()].concat()
    }

    /// Arguments for the entry at a cursor, whether it is wanted or not.
    pub(super) fn arguments_at(&self, cursor: &str) -> Vec<String> {
        let one = ["--lines=1".to_owned(), format!("--cursor={cursor}")];
        let fields = ["--output-fields=_BOOT_ID".to_owned()];
        let output = ["--output=export", "--no-pager", "--quiet"].map(str::to_owned);
        [&output[..], &fields, &self.place(), &one].concat()
    }

    /// Arguments for the first entry to be carried when nothing is remembered, and whether that one
    /// is carried itself; `now`: nanoseconds since the epoch.
    pub(super) fn arguments_first(&self, now: u64) -> (Vec<String>, bool) {
        let more = match self.start {
            Some(JournalStart::Beginning) => Vec::new(),
            Some(JournalStart::End) => vec!["--lines=1".to_owned()],
            Some(JournalStart::Boot) => vec!["--boot".to_owned()],
            Some(JournalStart::Ago(span)) => {
                let since = now / 1_000_000_000;
                vec![format!("--since=@{}", since.saturating_sub(span.as_secs()))]
            }
            None => vec![format!("--lines={}", self.lines.max(1))],
        };
        let last_only =
            self.start == Some(JournalStart::End) || self.start.is_none() && self.lines == 0;
        (self.arguments(&more), !last_only)
    }
}

fn is_field(name: &str) -> bool {
    let known = |b: u8| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_';
    !name.is_empty() && !name.starts_with("__") && name.bytes().all(known)
}

pub(super) fn is_pattern(name: &str) -> bool {
    name.contains('*')
}

/// A priority, or a range `FROM..TO`.
fn is_priority(text: &str) -> bool {
    let one = |text: &str| PRIORITIES.contains(&text) || matches!(text.as_bytes(), [b'0'..=b'7']);
    match text.split_once("..") {
        Some((from, to)) => one(from) && one(to),
        None => one(text),
    }
}

/// Of a priority from 0 to 7; entries without one are INFO.
pub(super) fn severity(priority: Option<u64>) -> Severity {
    let priority = priority.and_then(|priority| u8::try_from(priority).ok());
    priority.map_or(Severity::INFO, Severity::from_syslog)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> JournalOptions {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn options_become_what_journalctl_is_asked() {
        let options = read(
            r#"{"directory": "/j", "units": ["nginx", "db.service"], "user_units": ["app"],
                "identifiers": ["cron"], "priority": "warning", "boot": true,
                "matches": ["_UID=0", "+", "_TRANSPORT=kernel"], "fields": ["_COMM", "CODE_FILE"]}"#,
        );
        options.check().unwrap();
        let asked = options.arguments(&["--follow".to_owned()]).join(" ");
        assert!(asked.contains("UNIT,_PID"), "{asked}");
        assert!(
            asked.contains(",_COMM,CODE_FILE --directory=/j --follow --unit=nginx"),
            "{asked}"
        );
        let end = "--unit=db.service --user-unit=app --identifier=cron --priority=warning --boot -- _UID=0 + _TRANSPORT=kernel";
        assert!(asked.ends_with(end), "{asked}");
        assert!(!options.is_whole() && read("{}").is_whole());
    }

    #[test]
    fn patterns_and_all_fields_are_not_left_to_journalctl() {
        let options = read(r#"{"units": ["app-*"], "fields": ["*"], "start": "end"}"#);
        let (asked, itself) = options.arguments_first(0);
        let asked = asked.join(" ");
        assert_eq!(asked, "--output=export --all --no-pager --quiet --lines=1");
        assert!(!itself);
    }

    #[test]
    fn a_first_start_begins_where_it_is_told() {
        let ask = |json: &str| {
            let (asked, itself) = read(json).arguments_first(10_000 * 1_000_000_000);
            (asked.last().unwrap().clone(), itself)
        };
        assert_eq!(ask("{}"), ("--lines=100".into(), true));
        assert_eq!(ask(r#"{"lines": 0}"#), ("--lines=1".into(), false));
        assert_eq!(ask(r#"{"start": "boot"}"#), ("--boot".into(), true));
        assert_eq!(ask(r#"{"start": "1h"}"#), ("--since=@6400".into(), true));
        assert!(
            ask(r#"{"start": "beginning"}"#)
                .0
                .starts_with("--output-fields")
        );
    }

    #[test]
    fn what_cannot_be_asked_is_refused_by_key() {
        for (json, key) in [
            (r#"{"directory": "/a", "files": ["/b"]}"#, "directory"),
            (r#"{"priority": "loud"}"#, "priority"),
            (r#"{"priority": "0..9"}"#, "priority"),
            (r#"{"matches": ["--flush"]}"#, "matches"),
            (r#"{"fields": ["__CURSOR"]}"#, "fields"),
            (r#"{"units": [""]}"#, "units"),
        ] {
            assert_eq!(read(json).wrong().unwrap_err().0, key, "{json}");
        }
        let error = serde_json::from_str::<JournalOptions>(r#"{"start": "soon"}"#).unwrap_err();
        assert!(error.to_string().contains("boot"), "{error}");
    }
}
