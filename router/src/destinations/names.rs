//! Names of indices by event: a template with parts of the event's time. Pure.

use thinglog_schemas::{Event, json};

use crate::routes::template::Template;

/// Most bytes of a name (Elasticsearch, "Create index API").
const LONGEST: usize = 255;

/// A name such as `logs-{{source}}-%Y.%m.%d`.
#[derive(Clone, Debug)]
pub(crate) struct IndexName {
    parts: Vec<Part>,
}

#[derive(Clone, Debug)]
enum Part {
    Template(Template),
    /// Where it stands in `2026-01-02T03`.
    Time(usize, usize),
}

impl IndexName {
    /// Parses a name; the error says what is wrong.
    pub(crate) fn parse(text: &str) -> Result<IndexName, String> {
        let mut parts = Vec::new();
        let mut pieces = text.split('%');
        let template = |text: &str| Template::parse(text).map(Part::Template);
        parts.push(template(pieces.next().unwrap_or_default())?);
        for piece in pieces {
            let part = match piece.chars().next() {
                Some('Y') => Part::Time(0, 4),
                Some('m') => Part::Time(5, 7),
                Some('d') => Part::Time(8, 10),
                Some('H') => Part::Time(11, 13),
                _ => return Err(format!("%{piece}: only %Y, %m, %d and %H are known")),
            };
            parts.push(part);
            parts.push(template(&piece[1..])?);
        }
        let constant = parts.iter().all(|part| match part {
            Part::Template(template) => template.is_constant(),
            Part::Time(..) => true,
        });
        if constant && !text.replace('%', "").chars().all(is_allowed) && !text.contains("{{") {
            return Err(format!(
                "{text:?} is no name of an index: small letters, digits and - _ . are"
            ));
        }
        if text.is_empty() || text.starts_with(['-', '_', '+', '.']) {
            return Err("a name is not empty and opens with none of - _ + .".into());
        }
        Ok(IndexName { parts })
    }

    /// Appends the name for an event: small letters, and `_` for what a name cannot have, so that no
    /// event chooses an index that was not meant.
    pub(crate) fn write(&self, event: &Event, out: &mut Vec<u8>) {
        let start = out.len();
        let mut time = Vec::new();
        for part in &self.parts {
            match part {
                Part::Template(template) => template.write(event, out),
                Part::Time(from, to) => {
                    if time.is_empty() {
                        json::write_time(event.time, &mut time);
                    }
                    out.extend_from_slice(time.get(*from..*to).unwrap_or_default());
                }
            }
        }
        for byte in &mut out[start..] {
            *byte = byte.to_ascii_lowercase();
            if !is_allowed(char::from(*byte)) {
                *byte = b'_';
            }
        }
        out.truncate(start + LONGEST);
    }
}

/// What a name may have without a second thought, capitals being made small.
fn is_allowed(c: char) -> bool {
    c.is_ascii_lowercase() || c.is_ascii_digit() || "-_.YmdH".contains(c)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::decoded;

    fn name(text: &str) -> String {
        let mut event = decoded("one").events.remove(0);
        event.time = 1_767_323_045_000_000_000;
        event.attributes.insert("site".into(), "../Ä B,*".into());
        let mut out = Vec::new();
        IndexName::parse(text).unwrap().write(&event, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_name_follows_event_and_time() {
        assert_eq!(name("logs-{{source}}-default"), "logs-app-default");
        assert_eq!(name("thinglog-%Y.%m.%d"), "thinglog-2026.01.02");
        assert_eq!(name("t-%H-{{device}}"), "t-03-lamp-7");
    }

    #[test]
    fn no_event_leaves_the_name() {
        assert_eq!(name("logs-{{attributes.site}}"), "logs-..____b__");
    }

    #[test]
    fn what_is_no_name_is_told() {
        for text in ["", "_bulk", "Logs", "a b", "a-%y", "a-{{x}}", "a,b"] {
            assert!(IndexName::parse(text).is_err(), "{text}");
        }
    }
}
