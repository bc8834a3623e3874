//! What a line says of itself: time, severity, message and attributes.
//!
//! A line that is JSON or logfmt is read by the rules every JSON payload is read by. The header of a
//! syslog line ([`syslog`]) becomes severity, time and the attributes `host` (unless it is this
//! device), `identifier` (the program), `pid`, `msgid`, `facility` and `sd.…`, and is taken off; what
//! follows it may again be JSON or logfmt. Any other line stays whole, and only gives its time and
//! level, where programs put them ([`head`]). Whatever is not understood stays in the message; times
//! that cannot be (more than a day ahead of the clock) are ignored, and those of syslog and JSON kept
//! as an attribute.

pub(crate) mod head;
mod logfmt;
mod seconds;
pub(crate) mod syslog;
mod time;
mod zone;

use std::sync::Arc;

use serde::Deserialize;
use serde_json::Value;
use thinglog_schemas::{
    Attributes, Severity, json,
    payload::{PayloadDecoder, Stamp},
};

use self::{
    seconds::Seconds,
    syslog::{Origin, Syslog},
    time::Written,
};
use super::lines::Line;
use crate::{Record, clock};
pub use zone::{UnknownZone, Zone};

/// What the lines of a source are. Lines that are something else are taken as they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Parse {
    /// Anything: JSON, logfmt, syslog and levels are recognised.
    #[default]
    Auto,
    /// Text, to be taken as it is.
    Text,
    /// JSON objects.
    Json,
    /// logfmt, with or without a message.
    Logfmt,
    /// Syslog: RFC 5424, RFC 3164, rsyslog's and busybox's files.
    Syslog,
}

/// How lines are read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LineOptions {
    /// What they are.
    pub parse: Parse,
    /// Of times that name no zone.
    pub timezone: Zone,
}

/// Keys under which an object may name its severity.
const LEVEL_KEYS: [&str; 3] = ["level", "severity", "lvl"];

/// Makes records of the lines of one source.
pub(crate) struct Recogniser {
    source: Arc<str>,
    /// For lines that do not say.
    severity: Severity,
    options: LineOptions,
    own_host: String,
    decoder: PayloadDecoder,
    seconds: Seconds,
}

/// What was found in a text; the message is the rest of it.
#[derive(Default)]
struct Said {
    time: Option<u64>,
    severity: Option<Severity>,
    message: String,
    attributes: Attributes,
    truncated: bool,
}

impl Recogniser {
    /// Of lines that may be anything.
    pub(crate) fn new(source: &str, severity: Severity) -> Recogniser {
        Recogniser {
            source: source.into(),
            severity,
            options: LineOptions::default(),
            own_host: rustix::system::uname().nodename().to_string_lossy().into(),
            decoder: PayloadDecoder::new(),
            seconds: Seconds::default(),
        }
    }

    /// The same, for lines that are read otherwise.
    pub(crate) fn reading(mut self, options: LineOptions) -> Recogniser {
        self.options = options;
        self
    }

    /// The record of a line.
    pub(crate) fn record(&mut self, line: Line<'_>) -> Record {
        // Which finds much faster that all is well.
        let text = std::str::from_utf8(line.bytes).map_or_else(
            |_| String::from_utf8_lossy(line.bytes),
            std::borrow::Cow::Borrowed,
        );
        let now = clock::coarse_wall();
        let said = match self.options.parse {
            Parse::Text => None,
            // What was cut is no whole object.
            Parse::Json | Parse::Logfmt if line.truncated => None,
            Parse::Json => self.object(&text, now),
            Parse::Logfmt => self.logfmt(&text, false, now),
            Parse::Syslog => self.syslog_line(&text, true, now),
            Parse::Auto => Some(self.anything(&text, line.truncated, now)),
        };
        let said = said.unwrap_or_else(|| Said {
            message: text.into_owned(),
            ..Said::default()
        });
        let mut record = self.finish(said);
        record.truncated |= line.truncated;
        record
    }

    /// The record of a syslog message. `named`: the program is known otherwise, as the source.
    pub(crate) fn message(&mut self, parsed: Syslog<'_>, named: bool) -> Record {
        let said = self.syslog(parsed, named, clock::coarse_wall());
        self.finish(said)
    }

    /// The record of a text that is all message: its own time and level count, if it has any.
    pub(crate) fn plain(&mut self, text: &str) -> Record {
        let now = clock::coarse_wall();
        let said = self.inside(text, now);
        self.finish(said)
    }

    fn finish(&self, said: Said) -> Record {
        let severity = said.severity.unwrap_or(self.severity);
        let mut record = Record::new(self.source.clone(), severity, said.message);
        record.attributes = said.attributes;
        record.time = said.time;
        record.truncated = said.truncated;
        record
    }

    fn anything(&mut self, text: &str, truncated: bool, now: u64) -> Said {
        let mut said = None;
        if !truncated {
            said = self.object(text, now);
            said = said.or_else(|| self.logfmt(text, true, now));
        }
        said.or_else(|| self.syslog_line(text, false, now))
            .unwrap_or_else(|| self.text(text, now))
    }

    /// What a message within something else is: structured, or text.
    fn inside(&mut self, text: &str, now: u64) -> Said {
        let said = match self.options.parse {
            Parse::Text => None,
            Parse::Json => self.object(text, now),
            Parse::Logfmt => self.logfmt(text, false, now),
            Parse::Auto | Parse::Syslog => {
                let said = self.object(text, now);
                let said = said.or_else(|| self.logfmt(text, true, now));
                Some(said.unwrap_or_else(|| self.text(text, now)))
            }
        };
        said.unwrap_or_else(|| Said {
            message: text.to_owned(),
            ..Said::default()
        })
    }

    fn text(&mut self, text: &str, now: u64) -> Said {
        let head = head::read(text);
        Said {
            time: head.time.and_then(|time| self.resolve(&time, now)),
            severity: head.severity,
            message: text.to_owned(),
            ..Said::default()
        }
    }

    fn resolve(&mut self, time: &Written, now: u64) -> Option<u64> {
        self.seconds.resolve(time, &self.options.timezone, now)
    }

    fn logfmt(&mut self, text: &str, sure: bool, now: u64) -> Option<Said> {
        let json = logfmt::to_json(text, sure)?;
        self.object(&json, now)
    }

    fn object(&mut self, text: &str, now: u64) -> Option<Said> {
        if !matches!(text.as_bytes(), [b'{', .., b'}']) {
            return None;
        }
        // An event that says no time has that of its receipt.
        const UNSAID: u64 = 0;
        let stamp = Stamp {
            received: UNSAID,
            ..Stamp::default()
        };
        let source = &self.source;
        let decoded = self
            .decoder
            .decode(source, source, text.as_bytes(), &stamp)
            .ok()?;
        let mut events = decoded.events;
        let mut event = events.pop().filter(|_| events.is_empty())?;
        if event.attributes.is_empty() && event.message == text {
            return None;
        }
        let time = Some(event.time).filter(|time| *time != UNSAID);
        let known = time.filter(|time| time::is_plausible(*time, now));
        if let (Some(time), None) = (time, known) {
            keep_time(time, &mut event.attributes);
        }
        // A level that could not be read is still among the attributes.
        let says_level = LEVEL_KEYS.iter().any(|key| {
            let quoted = text.match_indices(key).any(|(at, _)| {
                text[..at].ends_with('"') && text[at + key.len()..].starts_with('"')
            });
            quoted && !event.attributes.contains_key(*key)
        });
        Some(Said {
            time: known,
            severity: says_level.then_some(event.severity),
            message: event.message,
            attributes: event.attributes,
            truncated: event.truncated,
        })
    }

    fn syslog_line(&mut self, text: &str, told: bool, now: u64) -> Option<Said> {
        let parsed = if told {
            syslog::parse(text, Origin::File)?
        } else {
            let own_host = &self.own_host;
            syslog::parse(text, Origin::Anything { own_host })?
        };
        Some(self.syslog(parsed, false, now))
    }

    fn syslog(&mut self, parsed: Syslog<'_>, named: bool, now: u64) -> Said {
        let mut said = self.inside(parsed.message, now);
        let time = parsed.time.and_then(|time| self.resolve(&time, now));
        let mut header = parsed.data;
        let mut put = |key: &str, value: Option<&str>| {
            if let Some(value) = value {
                header.insert(key.to_owned(), value.into());
            }
        };
        let foreign = |host: &&str| *host != self.own_host;
        put("host", parsed.host.filter(foreign));
        put("identifier", parsed.app.filter(|_| !named));
        put("msgid", parsed.msgid);
        put("facility", parsed.facility);
        put("timestamp", parsed.timestamp.filter(|_| time.is_none()));
        if let Some(pid) = parsed.pid {
            header.insert("pid".into(), number(pid).map_or(pid.into(), Value::from));
        }
        let structured = !said.attributes.is_empty() || said.message != parsed.message;
        if !structured {
            // A priority counts more than a word; a program's own field more than a priority.
            said.severity = parsed.severity.or(said.severity);
            said.time = time.or(said.time);
        }
        said.severity = said.severity.or(parsed.severity);
        said.time = said.time.or(time);
        if said.attributes.is_empty() {
            said.attributes = header;
            return said;
        }
        for (key, value) in header {
            match said.attributes.get(&key) {
                None => said.attributes.insert(key, value),
                Some(same) if *same == value => None,
                Some(_) => said.attributes.insert(format!("syslog.{key}"), value),
            };
        }
        said
    }
}

/// A number as one writes it, so that the text is the same again.
fn number(text: &str) -> Option<u64> {
    let plain = !text.starts_with(['0', '+']) || text == "0";
    text.parse().ok().filter(|_| plain)
}

/// A time that cannot be is still what was sent.
fn keep_time(time: u64, attributes: &mut Attributes) {
    let mut text = Vec::new();
    json::write_time(time, &mut text);
    let text = String::from_utf8(text).unwrap_or_default();
    attributes.entry("time").or_insert_with(|| text.into());
}

#[cfg(test)]
mod tests;
