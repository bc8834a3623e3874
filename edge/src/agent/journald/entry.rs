//! Entries of the journal to records, and which of them are wanted beyond what journalctl can tell.
//! Pure but for what the system says of this process.

use std::fs;

use thinglog_schemas::Severity;

use super::{
    export::Entry,
    options::{JournalOptions, is_pattern, severity},
};
use crate::{Record, agent::pattern::like};

/// Fields that say something else already, or nothing.
const SAID: [&str; 8] = [
    "MESSAGE",
    "PRIORITY",
    "SYSLOG_IDENTIFIER",
    "_PID",
    "SYSLOG_PID",
    "SYSLOG_RAW",
    "SYSLOG_TIMESTAMP",
    "_SOURCE_REALTIME_TIMESTAMP",
];

/// How this program is known to the journal.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Own {
    /// Its name.
    pub(super) comm: String,
    /// Its unit, and what names this run of it, where systemd started it.
    pub(super) unit: Option<String>,
    pub(super) invocation: Option<String>,
}

impl Own {
    /// As the kernel and systemd tell.
    pub(crate) fn of_this_process() -> Own {
        let comm = fs::read_to_string("/proc/self/comm").unwrap_or_default();
        let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let mut units = groups.lines().filter_map(|line| {
            let (_, unit) = line.rsplit_once('/')?;
            unit.ends_with(".service").then(|| unit.to_owned())
        });
        Own {
            comm: comm.trim_end().to_owned(),
            unit: units.next(),
            invocation: std::env::var("INVOCATION_ID").ok(),
        }
    }

    fn wrote(&self, entry: &Entry) -> bool {
        let same =
            |name: &str, own: &Option<String>| own.is_some() && entry.text(name) == own.as_deref();
        entry.text("_COMM") == Some(&self.comm)
            && (same("_SYSTEMD_UNIT", &self.unit)
                || same("_SYSTEMD_INVOCATION_ID", &self.invocation))
    }
}

/// Whether an entry that journalctl gave is carried.
pub(crate) fn is_wanted(entry: &Entry, options: &JournalOptions, own: &Own) -> bool {
    if options.exclude_own && own.wrote(entry) {
        return false;
    }
    let identifier = entry.text("SYSLOG_IDENTIFIER");
    let is_one = |patterns: &[String], names: &[Option<&str>]| {
        let names = names.iter().flatten();
        names
            .into_iter()
            .any(|name| patterns.iter().any(|pattern| is_called(pattern, name)))
    };
    // What systemd says of a unit is the unit's.
    let units = [entry.text("_SYSTEMD_UNIT"), entry.text("UNIT")];
    let user_units = [entry.text("_SYSTEMD_USER_UNIT"), entry.text("USER_UNIT")];
    let all = [units, user_units].concat();
    if is_one(&options.exclude_units, &all) || is_one(&options.exclude_identifiers, &[identifier]) {
        return false;
    }
    let unfit = |patterns: &[String], names: &[Option<&str>]| {
        patterns.iter().any(|pattern| is_pattern(pattern)) && !is_one(patterns, names)
    };
    let restricted = [&options.units[..], &options.user_units].concat();
    let by_unit = restricted.iter().any(|pattern| is_pattern(pattern))
        && !is_one(&options.units, &units)
        && !is_one(&options.user_units, &user_units);
    !by_unit && !unfit(&options.identifiers, &[identifier])
}

/// A unit's name without a suffix means the service.
fn is_called(pattern: &str, name: &str) -> bool {
    like(pattern, name)
        || name
            .strip_suffix(".service")
            .is_some_and(|name| like(pattern, name))
}

/// Makes a record of an entry.
pub(crate) fn record(entry: &Entry, options: &JournalOptions) -> Record {
    let identifier = entry.text("SYSLOG_IDENTIFIER");
    let source = options.source.as_deref();
    let source = source
        .or_else(|| unit(entry.text("_SYSTEMD_UNIT")))
        .or(identifier)
        .or_else(|| entry.text("_TRANSPORT"))
        .filter(|source| !source.is_empty())
        .unwrap_or("journal");
    let severity: Severity = severity(entry.number("PRIORITY"));
    let message = String::from_utf8_lossy(entry.get("MESSAGE").unwrap_or_default()).into_owned();
    let mut record = Record::new(source, severity, message);
    record.truncated = entry.truncated;
    let micros = entry.number("__REALTIME_TIMESTAMP");
    record.time = micros.map(|micros| micros.saturating_mul(1000));
    if let Some(identifier) = identifier.filter(|identifier| *identifier != source) {
        record = record.with("identifier", identifier);
    }
    if let Some(pid) = entry.number("_PID").or_else(|| entry.number("SYSLOG_PID")) {
        record = record.with("pid", pid);
    }
    let all = options.fields.iter().any(|field| field == "*");
    for (name, value) in entry.fields() {
        let asked = all && !SAID.contains(&name) && !name.starts_with("__");
        if asked || options.fields.iter().any(|field| field == name) {
            let key = name.trim_start_matches('_').to_ascii_lowercase();
            if !record.attributes.contains_key(&key) {
                record = record.with(key, String::from_utf8_lossy(value).into_owned());
            }
        }
    }
    record
}

/// A service's name without its suffix. Scopes (login sessions, containers) come without end: their
/// identifier says more.
fn unit(unit: Option<&str>) -> Option<&str> {
    let unit = unit?;
    match unit.rsplit_once('.') {
        Some((name, "service")) => Some(name),
        Some((_, "scope" | "slice")) => None,
        _ => Some(unit),
    }
}

#[cfg(test)]
mod tests {
    use super::{super::export::Export, *};

    fn entry(text: &[u8]) -> Entry {
        let mut found = None;
        let mut export = Export::default();
        export.feed(&[text, b"\n\n"].concat(), |entry| found = Some(entry));
        found.unwrap()
    }

    fn options(json: &str) -> JournalOptions {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn an_entry_gives_unit_priority_and_time() {
        let entry = entry(
            b"__CURSOR=s=1;i=2\n__REALTIME_TIMESTAMP=1767225600000001\nPRIORITY=4\n\
              _SYSTEMD_UNIT=nginx.service\nSYSLOG_IDENTIFIER=nginx\n_PID=7\nMESSAGE=hot",
        );
        let record = record(&entry, &options("{}"));
        assert_eq!(&*record.source, "nginx");
        assert_eq!(record.severity, Severity::WARN);
        assert_eq!(record.time, Some(1_767_225_600_000_001_000));
        assert_eq!(record.message, "hot");
        assert_eq!(record.attributes["pid"], 7);
        assert_eq!(record.attributes.len(), 1);
    }

    #[test]
    fn sessions_and_the_kernel_go_by_their_identifier() {
        let source = |text: &[u8]| record(&entry(text), &options("{}")).source.to_string();
        let sudo = b"_SYSTEMD_UNIT=session-3.scope\nSYSLOG_IDENTIFIER=sudo";
        assert_eq!(source(sudo), "sudo");
        assert_eq!(
            source(b"_TRANSPORT=kernel\nSYSLOG_IDENTIFIER=kernel"),
            "kernel"
        );
        assert_eq!(source(b"SYSLOG_IDENTIFIER=\nMESSAGE=m"), "journal");
    }

    #[test]
    fn a_message_that_is_not_text_is_read_from_its_bytes() {
        let entry = entry(b"MESSAGE\n\x04\0\0\0\0\0\0\0hi\xff\n\n");
        assert_eq!(record(&entry, &options("{}")).message, "hi\u{fffd}\n");
    }

    #[test]
    fn fields_that_are_asked_for_become_attributes() {
        let text = b"__CURSOR=c\nMESSAGE=m\n_COMM=sh\nCODE_LINE=7\n_TRANSPORT=stdout\n_UID=0";
        let of =
            |json: &str| serde_json::Value::Object(record(&entry(text), &options(json)).attributes);
        assert_eq!(
            of(r#"{"fields": ["_COMM", "NONE"]}"#),
            serde_json::json!({"comm": "sh"})
        );
        let all =
            serde_json::json!({"comm": "sh", "code_line": "7", "transport": "stdout", "uid": "0"});
        assert_eq!(of(r#"{"fields": ["*"]}"#), all);
    }

    #[test]
    fn patterns_and_exclusions_hold_whoever_says_it() {
        let wanted =
            |json: &str, text: &[u8]| is_wanted(&entry(text), &options(json), &Own::default());
        let app = b"_SYSTEMD_UNIT=app-1.service\nSYSLOG_IDENTIFIER=app";
        let systemd = b"_SYSTEMD_UNIT=init.scope\nUNIT=app-1.service\nSYSLOG_IDENTIFIER=systemd";
        let other = b"_SYSTEMD_UNIT=other.service\nSYSLOG_IDENTIFIER=other";
        for text in [&app[..], systemd] {
            assert!(wanted(r#"{"units": ["app-*", "db"]}"#, text));
            assert!(!wanted(r#"{"exclude_units": ["app-1"]}"#, text));
        }
        assert!(!wanted(r#"{"units": ["app-*"]}"#, other));
        assert!(wanted(r#"{"units": ["app-*", "other"]}"#, other));
        assert!(!wanted(r#"{"exclude_identifiers": ["o*r"]}"#, other));
        assert!(!wanted(r#"{"identifiers": ["a*"]}"#, other));
        assert!(wanted(r#"{"identifiers": ["a*"]}"#, app));
    }

    #[test]
    fn what_this_program_says_itself_is_left_out_unless_it_is_wanted() {
        let own = Own {
            comm: "thinglog-edge".into(),
            unit: Some("agent.service".into()),
            invocation: Some("abc".into()),
        };
        let wanted = |json: &str, text: &[u8]| is_wanted(&entry(text), &options(json), &own);
        let ours = b"_COMM=thinglog-edge\n_SYSTEMD_UNIT=agent.service";
        assert!(!wanted("{}", ours));
        assert!(!wanted(
            "{}",
            b"_COMM=thinglog-edge\n_SYSTEMD_INVOCATION_ID=abc"
        ));
        assert!(wanted(r#"{"exclude_own": false}"#, ours));
        // Another program of the unit, and this program elsewhere.
        assert!(wanted("{}", b"_COMM=sh\n_SYSTEMD_UNIT=agent.service"));
        assert!(wanted(
            "{}",
            b"_COMM=thinglog-edge\n_SYSTEMD_UNIT=other.service"
        ));
    }
}
