//! Texts with places for parts of an event: `{{device}}: {{message}}`.
//!
//! ```text
//! {{ FIELD }}            the field as text
//! {{ FIELD | FILTER }}   json: as a JSON value, strings in quotes; url: percent-encoded;
//!                        lower, upper: in that case; these can follow each other
//! FIELD                  id, device, source, level, severity, message, time, received (RFC 3339),
//!                        time_s, time_ms, time_us, time_ns (since the Unix epoch),
//!                        attributes (an object), attributes.NAME
//!                        in routes also device.NAME, an attribute of the device, device.type, and
//!                        groups (an array)
//! ```
//!
//! An attribute that is not there is an empty text, in JSON `null`. A brace pair that is to stand as it
//! is: `{{"{{"}}`. Pure.

use thinglog_schemas::query::Facts;
use thinglog_schemas::{Event, json};

/// A parsed template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    parts: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Place { field: Field, filters: Vec<Filter> },
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Field {
    Id,
    Device,
    Source,
    Level,
    Severity,
    Message,
    Time(Unit),
    Received,
    Attributes,
    Attribute(String),
    OfDevice(String),
    DeviceType,
    Groups,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unit {
    Rfc3339,
    /// Divisor of nanoseconds.
    Number(u64),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Filter {
    Json,
    Url,
    Lower,
    Upper,
}

impl Template {
    /// Parses a template; the error says where and what.
    pub fn parse(text: &str) -> Result<Template, String> {
        Template::parse_fields(text, field_of)
    }

    /// The same where devices are known too.
    pub(crate) fn parse_with_device(text: &str) -> Result<Template, String> {
        Template::parse_fields(text, |name| match name {
            "groups" => Ok(Field::Groups),
            "device.type" => Ok(Field::DeviceType),
            name => match name.strip_prefix("device.") {
                Some(attribute) if !attribute.is_empty() => {
                    Ok(Field::OfDevice(attribute.to_owned()))
                }
                _ => field_of(name),
            },
        })
    }

    fn parse_fields(
        text: &str,
        field: impl Fn(&str) -> Result<Field, String>,
    ) -> Result<Template, String> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some((before, behind)) = rest.split_once("{{") {
            if !before.is_empty() {
                parts.push(Part::Text(before.to_owned()));
            }
            let literal = behind.trim_start().strip_prefix("\"{{\"");
            if let Some((_, after)) = literal.and_then(|behind| behind.split_once("}}")) {
                parts.push(Part::Text("{{".to_owned()));
                rest = after;
                continue;
            }
            let at = text.len() - behind.len() - 2;
            let Some((place, after)) = behind.split_once("}}") else {
                return Err(format!("the {{{{ at byte {at} has no }}}}"));
            };
            parts
                .push(place_of(place, &field).map_err(|reason| format!("at byte {at}: {reason}"))?);
            rest = after;
        }
        if !rest.is_empty() {
            parts.push(Part::Text(rest.to_owned()));
        }
        Ok(Template { parts })
    }

    /// Appends the text for an event.
    pub fn write(&self, event: &Event, out: &mut Vec<u8>) {
        self.write_with(event, None, out);
    }

    fn write_with(&self, event: &Event, facts: Option<&Facts>, out: &mut Vec<u8>) {
        for part in &self.parts {
            match part {
                Part::Text(text) => out.extend_from_slice(text.as_bytes()),
                Part::Place { field, filters } => write_place(field, filters, event, facts, out),
            }
        }
    }

    /// What it stands for as a value: a template of one place alone keeps that field's own type, `null`
    /// if there is none; any other is a text.
    pub(crate) fn value(&self, event: &Event, facts: &Facts) -> serde_json::Value {
        if let [Part::Place { field, filters }] = &self.parts[..]
            && filters.is_empty()
        {
            return match value_of(field, event, Some(facts)) {
                Value::Text(text) => text.into(),
                Value::Json(json) => serde_json::from_slice(&json).unwrap_or_default(),
            };
        }
        let mut out = Vec::new();
        self.write_with(event, Some(facts), &mut out);
        String::from_utf8_lossy(&out).into_owned().into()
    }

    /// Whether there is a place for something of the device.
    pub(crate) fn asks_for_facts(&self) -> bool {
        self.parts.iter().any(|part| {
            let Part::Place { field, .. } = part else {
                return false;
            };
            matches!(
                field,
                Field::OfDevice(_) | Field::DeviceType | Field::Groups
            )
        })
    }

    /// Whether it is the same for every event.
    pub fn is_constant(&self) -> bool {
        self.parts.iter().all(|part| matches!(part, Part::Text(_)))
    }

    /// Whether every place is percent-encoded, so that no event can change what is around it.
    pub(crate) fn is_safe_in_urls(&self) -> bool {
        self.all_places_end_with(Filter::Url)
    }

    /// The same for JSON.
    pub(crate) fn is_safe_in_json(&self) -> bool {
        self.all_places_end_with(Filter::Json)
    }

    /// The same for one level of a topic: names that have no separator in them may stand as they are.
    pub(crate) fn is_safe_in_topics(&self) -> bool {
        self.parts.iter().all(|part| match part {
            Part::Text(_) => true,
            Part::Place { field, filters } => {
                let is_name = match field {
                    Field::Device | Field::Source | Field::Level | Field::Severity => true,
                    Field::Time(unit) => *unit != Unit::Rfc3339,
                    _ => false,
                };
                filters.last() == Some(&Filter::Url)
                    || (is_name && !filters.contains(&Filter::Json))
            }
        })
    }

    /// The text before the first place.
    pub(crate) fn beginning(&self) -> &str {
        match self.parts.first() {
            Some(Part::Text(text)) => text,
            _ => "",
        }
    }

    fn all_places_end_with(&self, filter: Filter) -> bool {
        self.parts.iter().all(|part| match part {
            Part::Text(_) => true,
            Part::Place { filters, .. } => filters.last() == Some(&filter),
        })
    }
}

fn place_of(text: &str, field: &dyn Fn(&str) -> Result<Field, String>) -> Result<Part, String> {
    let mut words = text.split('|').map(str::trim);
    let field = field(words.next().unwrap_or_default())?;
    let filters = words.map(filter_of).collect::<Result<_, _>>()?;
    Ok(Part::Place { field, filters })
}

fn field_of(name: &str) -> Result<Field, String> {
    Ok(match name {
        "id" => Field::Id,
        "device" => Field::Device,
        "source" => Field::Source,
        "level" => Field::Level,
        "severity" => Field::Severity,
        "message" => Field::Message,
        "time" => Field::Time(Unit::Rfc3339),
        "time_s" => Field::Time(Unit::Number(1_000_000_000)),
        "time_ms" => Field::Time(Unit::Number(1_000_000)),
        "time_us" => Field::Time(Unit::Number(1000)),
        "time_ns" => Field::Time(Unit::Number(1)),
        "received" => Field::Received,
        "attributes" => Field::Attributes,
        name => match name.strip_prefix("attributes.") {
            Some(attribute) if !attribute.is_empty() => Field::Attribute(attribute.to_owned()),
            _ => {
                return Err(format!(
                    "{name:?} is no field: id, device, source, level, severity, message, time, \
                     time_s, time_ms, time_us, time_ns, received, attributes or attributes.NAME"
                ));
            }
        },
    })
}

fn filter_of(name: &str) -> Result<Filter, String> {
    match name {
        "json" => Ok(Filter::Json),
        "url" => Ok(Filter::Url),
        "lower" => Ok(Filter::Lower),
        "upper" => Ok(Filter::Upper),
        name => Err(format!("{name:?} is no filter: json, url, lower or upper")),
    }
}

/// A field's value: text, or JSON that is no text.
enum Value {
    Text(String),
    Json(Vec<u8>),
}

fn write_place(
    field: &Field,
    filters: &[Filter],
    event: &Event,
    facts: Option<&Facts>,
    out: &mut Vec<u8>,
) {
    // The most frequent place needs no value of its own.
    if let (Field::Message, []) = (field, filters) {
        return out.extend_from_slice(event.message.as_bytes());
    }
    let mut value = value_of(field, event, facts);
    for filter in filters {
        value = filtered(value, *filter);
    }
    match value {
        Value::Text(text) => out.extend_from_slice(text.as_bytes()),
        Value::Json(json) => out.extend_from_slice(&json),
    }
}

fn value_of(field: &Field, event: &Event, facts: Option<&Facts>) -> Value {
    let json = |value: &serde_json::Value| {
        let mut out = Vec::new();
        json::write_value(value, &mut out);
        Value::Json(out)
    };
    match field {
        Field::Id => Value::Text(event.id.text(&event.device).unwrap_or_default()),
        Field::Device => Value::Text(event.device.to_string()),
        Field::Source => Value::Text(event.source.to_string()),
        Field::Level => Value::Text(event.severity.level().name().to_owned()),
        Field::Severity => Value::Json(event.severity.number().to_string().into_bytes()),
        Field::Message => Value::Text(event.message.clone()),
        Field::Time(Unit::Rfc3339) => Value::Text(time_text(event.time)),
        Field::Time(Unit::Number(divisor)) => {
            Value::Json((event.time / divisor).to_string().into_bytes())
        }
        Field::Received => Value::Text(time_text(event.received)),
        Field::Attributes => json(&serde_json::Value::Object(event.attributes.clone())),
        Field::Attribute(name) => match event.attributes.get(name) {
            Some(serde_json::Value::String(text)) => Value::Text(text.clone()),
            Some(value) => json(value),
            None => Value::Json(Vec::new()),
        },
        Field::OfDevice(name) => text_or_nothing(facts.and_then(|it| it.attributes.get(name))),
        Field::DeviceType => text_or_nothing(facts.and_then(|it| it.kind.as_ref())),
        Field::Groups => {
            let groups = facts.map(|it| it.groups.clone()).unwrap_or_default();
            json(&groups.into())
        }
    }
}

fn text_or_nothing(text: Option<&String>) -> Value {
    match text {
        Some(text) => Value::Text(text.clone()),
        None => Value::Json(Vec::new()),
    }
}

fn time_text(ns: u64) -> String {
    let mut out = Vec::new();
    json::write_time(ns, &mut out);
    String::from_utf8_lossy(&out).into_owned()
}

fn filtered(value: Value, filter: Filter) -> Value {
    let text = |value: Value| match value {
        Value::Text(text) => text,
        Value::Json(json) => String::from_utf8_lossy(&json).into_owned(),
    };
    match (filter, value) {
        (Filter::Json, Value::Json(json)) if json.is_empty() => Value::Json(b"null".to_vec()),
        (Filter::Json, Value::Json(json)) => Value::Json(json),
        (Filter::Json, Value::Text(text)) => {
            let mut out = Vec::new();
            json::write_value(&serde_json::Value::String(text), &mut out);
            Value::Json(out)
        }
        (Filter::Url, value) => Value::Text(percent_encoded(&text(value))),
        (Filter::Lower, value) => Value::Text(text(value).to_lowercase()),
        (Filter::Upper, value) => Value::Text(text(value).to_uppercase()),
    }
}

/// All but unreserved characters (RFC 3986 section 2.3) as `%XX`.
fn percent_encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(byte as char);
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::testing::decoded;

    fn rendered(template: &str) -> String {
        let mut event = decoded("say \"hi\"\n").events.remove(0);
        event.device = Arc::from("lamp-7");
        event.time = 1_767_323_045_123_456_789;
        event.attributes.insert("room".into(), "attic/1".into());
        event.attributes.insert("watts".into(), 5.into());
        let mut out = Vec::new();
        Template::parse(template).unwrap().write(&event, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn fields_stand_where_they_are_wanted() {
        assert_eq!(rendered("{{device}}/{{ source }}"), "lamp-7/app");
        assert_eq!(rendered("{{message|json}}"), r#""say \"hi\"\n""#);
        assert_eq!(rendered("{{attributes.room|url}}"), "attic%2F1");
        assert_eq!(rendered("{{attributes.watts}}{{attributes.none}}"), "5");
        assert_eq!(rendered("{{attributes.none|json}}"), "null");
        assert_eq!(
            rendered("{{time_ms}} {{level|lower}}"),
            "1767323045123 info"
        );
        assert_eq!(rendered("{{level|lower|json}}"), "\"info\"");
        assert_eq!(rendered("{{\"{{\"}}x}}"), "{{x}}");
        assert_eq!(
            rendered("{{attributes}}"),
            r#"{"room":"attic/1","watts":5}"#
        );
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (template, word) in [
            ("{{devise}}", "\"devise\""),
            ("a {{device", "byte 2"),
            ("{{device|shout}}", "\"shout\""),
            ("{{attributes.}}", "attributes.NAME"),
        ] {
            let error = Template::parse(template).unwrap_err();
            assert!(error.contains(word), "{error}");
        }
    }

    #[test]
    fn whether_events_could_break_out_is_known() {
        let safe = |text| Template::parse(text).unwrap().is_safe_in_json();
        assert!(safe(r#"{"text":{{message|json}}}"#));
        assert!(!safe(r#"{"text":"{{message}}"}"#));
        assert!(Template::parse("x").unwrap().is_constant());
    }
}
