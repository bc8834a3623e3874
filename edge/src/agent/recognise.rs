//! What a line says of itself. For now: a line that is a JSON object gives time, severity, message
//! and attributes by the rules every JSON payload is read by; any other line is taken as it is.

use std::sync::Arc;

use thinglog_schemas::{
    Severity,
    payload::{PayloadDecoder, Stamp},
};

use super::lines::Line;
use crate::{Record, clock};

/// Keys under which an object may name its severity.
const LEVEL_KEYS: [&str; 3] = ["\"level\"", "\"severity\"", "\"lvl\""];

/// Makes records of the lines of one source.
pub(crate) struct Recogniser {
    source: Arc<str>,
    /// For lines that do not say.
    severity: Severity,
    decoder: PayloadDecoder,
}

impl Recogniser {
    pub(crate) fn new(source: &str, severity: Severity) -> Recogniser {
        Recogniser {
            source: source.into(),
            severity,
            decoder: PayloadDecoder::new(),
        }
    }

    /// The record of a line.
    pub(crate) fn record(&mut self, line: Line<'_>) -> Record {
        if let Some(record) = self.object(line) {
            return record;
        }
        let mut record = Record::new(self.source.clone(), self.severity, line.text());
        record.truncated = line.truncated;
        record
    }

    fn object(&mut self, line: Line<'_>) -> Option<Record> {
        let looks_like_one = matches!(line.bytes, [b'{', .., b'}']) && !line.truncated;
        if !looks_like_one {
            return None;
        }
        let now = clock::wall();
        let stamp = Stamp {
            received: now,
            ..Stamp::default()
        };
        let source = &self.source;
        let decoded = self.decoder.decode(source, source, line.bytes, &stamp);
        let mut events = decoded.ok()?.events;
        let event = events.pop().filter(|_| events.is_empty())?;
        if event.attributes.is_empty() && event.message.as_bytes() == line.bytes {
            return None;
        }
        let text = std::str::from_utf8(line.bytes).ok()?;
        let says_level = LEVEL_KEYS.iter().any(|key| text.contains(key));
        Some(Record {
            source: source.clone(),
            severity: if says_level {
                event.severity
            } else {
                self.severity
            },
            message: event.message,
            attributes: event.attributes,
            time: Some(event.time),
            truncated: event.truncated,
            mark: None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(severity: Severity, line: &str) -> Record {
        let line = Line {
            bytes: line.as_bytes(),
            truncated: false,
        };
        Recogniser::new("app", severity).record(line)
    }

    #[test]
    fn a_json_line_gives_its_level_message_and_attributes() {
        let line = r#"{"level":"warn","msg":"hot","celsius":91}"#;
        let record = record(Severity::INFO, line);
        assert_eq!(record.severity, Severity::WARN);
        assert_eq!(record.message, "hot");
        assert_eq!(record.attributes["celsius"], 91);
    }

    #[test]
    fn a_json_line_without_a_level_keeps_that_of_its_stream() {
        let record = record(Severity::ERROR, r#"{"msg":"hot"}"#);
        assert_eq!(record.severity, Severity::ERROR);
        assert_eq!(record.message, "hot");
    }

    #[test]
    fn any_other_line_is_taken_as_it_is() {
        for line in ["hello", "{not json}", "[1,2]", "{}{}", "{"] {
            let record = record(Severity::ERROR, line);
            assert_eq!(record.message, line);
            assert_eq!(record.severity, Severity::ERROR);
            assert_eq!(record.time, None);
        }
    }
}
