//! Conditions on events: the language of dynamic groups with the fields of an event.
//!
//! ```text
//! level >= WARN and group = "eu"
//! source in (nginx, app) and message ~ /time[d ]?out/ and not device.model = "x1"
//! http.status >= 500 or exists panic
//! ```
//!
//! | field | what it is |
//! |---|---|
//! | `device` | the device's name |
//! | `group` | each group that the device is in, ancestors and dynamic groups included |
//! | `device.type`, `device.online` | its type, whether it is connected |
//! | `device.NAME`, `device."a b"` | an attribute of the device: what operators set, else what it reports |
//! | `source` | who on the device logged |
//! | `level` | DEBUG, INFO, WARN, ERROR, in small letters or not; `level >= WARN` is WARN and ERROR |
//! | `severity` | OpenTelemetry's number, 1 to 24 |
//! | `message` | the text |
//! | any other word, `attributes.NAME`, `attributes."a b"` | an attribute of the event; of a list each value counts, `a.b` is also `b` in the object `a` |
//!
//! Comparisons, quotes, brackets and limits are those of [`super`], AWS IoT's names and syntax too.

use serde_json::Value;

use super::parse::{self, Words};
use super::{Field, Node, Order, Pattern, QueryError, Subject, Test, Wanted};
use crate::Event;
use crate::config::Attributes;
use crate::severity::{Level, Severity};

/// A condition on events that has been read.
#[derive(Clone, Debug)]
pub struct EventQuery {
    text: String,
    pub(super) root: Node,
}

/// Two queries are the same if they are written the same.
impl PartialEq for EventQuery {
    fn eq(&self, other: &EventQuery) -> bool {
        self.text == other.text
    }
}

/// What is known of the device of an event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// Its type.
    pub kind: Option<String>,
    /// What operators say of it, else what it says of itself.
    pub attributes: Attributes,
    /// Every group it is in, ancestors and dynamic groups included; sorted.
    pub groups: Vec<String>,
    /// Whether it is connected.
    pub online: bool,
}

/// What conditions ask of an event.
pub trait Row {
    /// How bad.
    fn severity(&self) -> Severity;

    /// What was logged.
    fn message(&self) -> &str;

    /// Whether a pattern is found in it. Who holds many messages side by side may look in all at once.
    fn finds(&self, pattern: &Pattern) -> bool {
        pattern.is_match(self.message())
    }

    /// What else is said; asked for last.
    fn attributes(&self) -> &crate::Attributes;
}

impl Row for Event {
    fn severity(&self) -> Severity {
        self.severity
    }

    fn message(&self) -> &str {
        &self.message
    }

    fn attributes(&self) -> &crate::Attributes {
        &self.attributes
    }
}

impl EventQuery {
    /// Reads a query.
    pub fn parse(text: &str) -> Result<EventQuery, QueryError> {
        let mut root = parse::parse(text, Words::OfEvents)?;
        Pattern::share(root.patterns());
        Ok(EventQuery {
            text: text.to_owned(),
            root,
        })
    }

    /// As it was written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether an event matches.
    pub fn matches(&self, event: &Event, facts: &Facts) -> bool {
        self.matches_row(&event.device, &event.source, event, facts)
    }

    /// Whether an event of a source of a device matches.
    pub fn matches_row(&self, device: &str, source: &str, row: &dyn Row, facts: &Facts) -> bool {
        let asked = Asked {
            device,
            source,
            facts,
            severity: Some(row.severity()),
            event: Some(row),
        };
        self.root.decide(&asked) == Some(true)
    }

    /// The answer for every event of this source of this device; `None` if it hangs on the event.
    pub fn decides(&self, device: &str, source: &str, facts: &Facts) -> Option<bool> {
        self.root.decide(&Asked {
            device,
            source,
            facts,
            severity: None,
            event: None,
        })
    }

    /// The same for those of a severity.
    pub fn decides_graded(
        &self,
        device: &str,
        source: &str,
        severity: Severity,
        facts: &Facts,
    ) -> Option<bool> {
        self.root.decide(&Asked {
            device,
            source,
            facts,
            severity: Some(severity),
            event: None,
        })
    }

    /// Whether the answer depends on what is known of the device.
    pub fn asks_for_facts(&self) -> bool {
        self.root.asks_for(&|field| {
            matches!(
                field,
                Field::Kind | Field::Online | Field::Group | Field::Attribute(_)
            )
        })
    }
}

/// An event, or what all events of a severity of a source of a device have in common.
struct Asked<'a> {
    device: &'a str,
    source: &'a str,
    facts: &'a Facts,
    severity: Option<Severity>,
    event: Option<&'a dyn Row>,
}

impl Subject for Asked<'_> {
    fn any(&self, field: &Field, wanted: Wanted<'_>) -> Option<bool> {
        Some(match field {
            Field::Name => wanted(self.device),
            Field::Source => wanted(self.source),
            Field::Kind => self.facts.kind.as_deref().is_some_and(wanted),
            Field::Online => wanted(if self.facts.online { "true" } else { "false" }),
            Field::Group => self.facts.groups.iter().any(|group| wanted(group)),
            Field::Attribute(name) => {
                let value = self.facts.attributes.get(name);
                value.is_some_and(|value| wanted(value))
            }
            Field::Message => wanted(self.event?.message()),
            Field::OfEvent(name) => any_value(self.event?.attributes(), name, wanted),
            // Both have become `Node::Severity`.
            Field::Level | Field::Severity => false,
        })
    }

    fn finds(&self, pattern: &Pattern) -> Option<bool> {
        Some(self.event?.finds(pattern))
    }

    fn severity(&self) -> Option<u8> {
        self.severity.map(Severity::number)
    }
}

/// Whether a value of an attribute is wanted: it is there by its whole name, or within objects.
fn any_value(attributes: &serde_json::Map<String, Value>, name: &str, wanted: Wanted<'_>) -> bool {
    if let Some(value) = attributes.get(name) {
        return is_wanted(value, wanted);
    }
    let within = name.split_once('.').and_then(|(object, name)| {
        let object = attributes.get(object)?.as_object()?;
        Some((object, name))
    });
    within.is_some_and(|(object, name)| any_value(object, name, wanted))
}

fn is_wanted(value: &Value, wanted: Wanted<'_>) -> bool {
    match value {
        Value::String(text) => wanted(text),
        Value::Bool(true) => wanted("true"),
        Value::Bool(false) => wanted("false"),
        Value::Number(number) => wanted(&number.to_string()),
        Value::Array(values) => values.iter().any(|value| is_wanted(value, wanted)),
        Value::Object(_) => wanted(&value.to_string()),
        Value::Null => false,
    }
}

/// The field of a word that means something in queries of events only.
pub(super) fn field(word: &str) -> Option<Field> {
    Some(match word {
        "device" => Field::Name,
        "source" => Field::Source,
        "level" => Field::Level,
        "severity" => Field::Severity,
        "message" => Field::Message,
        "device.type" => Field::Kind,
        "device.online" => Field::Online,
        // Of devices these words mean the device; an event may have attributes of that name.
        "name" | "type" | "online" => Field::OfEvent(word.to_owned()),
        _ => {
            let name = word.strip_prefix("device.")?;
            Field::Attribute((!name.is_empty()).then(|| name.to_owned())?)
        }
    })
}

/// What is asked of level and severity, as the severities for which it is true.
pub(super) fn graded(node: Node) -> Result<Node, String> {
    let all = |nodes: Vec<Node>| nodes.into_iter().map(graded).collect::<Result<_, _>>();
    Ok(match node {
        Node::All(nodes) => Node::All(all(nodes)?),
        Node::Any(nodes) => Node::Any(all(nodes)?),
        Node::Not(node) => Node::Not(Box::new(graded(*node)?)),
        Node::Is(Field::Severity, test) => {
            Node::Severity(severities(|it| Ok(test.holds(&it.number().to_string())))?)
        }
        Node::Is(Field::Level, test) => {
            Node::Severity(severities(|it| is_level(&test, it.level()))?)
        }
        node => node,
    })
}

fn severities(mut holds: impl FnMut(Severity) -> Result<bool, String>) -> Result<u32, String> {
    let mut wanted = 0;
    for number in 1..=24 {
        if let Some(severity) = Severity::new(number)
            && holds(severity)?
        {
            wanted |= 1 << number;
        }
    }
    Ok(wanted)
}

fn is_level(test: &Test, level: Level) -> Result<bool, String> {
    let (order, literal) = match test {
        Test::Equals(literal) => (None, literal),
        Test::Order(order, literal) => (Some(order), literal),
        Test::Exists | Test::Like(_) | Test::Found(..) => return Ok(test.holds(level.name())),
    };
    let levels = [Level::Debug, Level::Info, Level::Warn, Level::Error];
    let named = levels
        .iter()
        .position(|it| it.name().eq_ignore_ascii_case(literal.text()));
    let named = named.ok_or_else(|| {
        format!(
            "{:?} is no level: DEBUG, INFO, WARN or ERROR",
            literal.text()
        )
    })?;
    let is = levels
        .iter()
        .position(|it| *it == level)
        .unwrap_or_default();
    Ok(match order {
        None => is == named,
        Some(Order::Less) => is < named,
        Some(Order::AtMost) => is <= named,
        Some(Order::More) => is > named,
        Some(Order::AtLeast) => is >= named,
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;
    use crate::EventId;

    fn event() -> Event {
        let attributes = json!({
            "type": "http", "user": "ann", "tags": ["slow", "eu"], "retries": 3, "ok": false,
            "http": {"status": 503}, "a b": 1, "none": null
        });
        Event {
            device: Arc::from("lamp-7"),
            source: Arc::from("nginx"),
            id: EventId::None,
            time: 0,
            time_estimated: false,
            severity: Severity::WARN,
            message: "upstream timed out".into(),
            truncated: false,
            attributes: attributes.as_object().unwrap().clone(),
            received: 0,
        }
    }

    fn facts() -> Facts {
        Facts {
            kind: Some("lamp".into()),
            attributes: [("model".to_owned(), "x1".to_owned())].into(),
            groups: vec!["eu".into(), "world".into()],
            online: true,
        }
    }

    fn matches(text: &str) -> bool {
        let query = EventQuery::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        query.matches(&event(), &facts())
    }

    #[test]
    fn conditions_mean_what_the_page_says() {
        for text in [
            "level = WARN",
            "level = warn and level != ERROR",
            "level >= WARN and level < error and level in (WARN, ERROR)",
            "level:warn",
            "severity = 13 and severity > 9",
            "device = lamp-7 and device ~ \"lamp-*\"",
            "source in (nginx, app)",
            "group = eu and not group = mars",
            "device.type = lamp and device.online and device.model = \"x1\"",
            "message ~ /timed? out/ or message = x",
            "message ~ \"*upstream*\"",
            "type = http and user = ann",
            "tags = slow and tags = eu",
            "retries > 2 and retries < 10",
            "ok = false",
            "http.status >= 500",
            "attributes.\"a b\" = 1",
            "exists user and not exists none and not exists missing",
            "missing != x",
        ] {
            assert!(matches(text), "{text}");
        }
        for text in [
            "level = INFO",
            "level > WARN",
            "severity < 13",
            "device = lamp",
            "device.model = y9",
            "model = x1",
            "message = upstream",
            "tags = fast",
            "http.code = 1",
            "none = null",
        ] {
            assert!(!matches(text), "{text}");
        }
    }

    #[test]
    fn a_level_that_is_none_is_an_error_that_says_where() {
        for (text, at) in [
            ("level = LOUD", 1),
            ("device = x and level >= 13", 16),
            ("level in (WARN, BAD)", 1),
        ] {
            let error = EventQuery::parse(text).unwrap_err();
            assert!(error.reason.contains("is no level: DEBUG"), "{error}");
            assert_eq!(error.at, at, "{text}");
        }
        let error = EventQuery::parse("").unwrap_err();
        assert!(error.reason.contains("level >= WARN"), "{error}");
    }

    #[test]
    fn what_source_and_severity_decide_is_not_asked_of_events() {
        for (text, expected) in [
            ("source = nginx", Some(true)),
            ("source = app and level = ERROR", Some(false)),
            ("source = nginx and level = ERROR", Some(false)),
            ("source = nginx and level = WARN", Some(true)),
            ("message ~ /a/ and level = ERROR", Some(false)),
            ("not message ~ /a/ and level = WARN", None),
            ("message ~ /a/ or level = WARN", Some(true)),
            ("group = eu or message = x", Some(true)),
            ("not device = lamp-7", Some(false)),
            ("message = x", None),
        ] {
            let query = EventQuery::parse(text).unwrap();
            assert_eq!(
                query.decides_graded("lamp-7", "nginx", Severity::WARN, &facts()),
                expected,
                "{text}"
            );
        }
        let query = EventQuery::parse("source = nginx and level = ERROR").unwrap();
        assert_eq!(query.decides("lamp-7", "nginx", &facts()), None);
        let asks = |text| EventQuery::parse(text).unwrap().asks_for_facts();
        assert!(asks("level = WARN and device.model = x") && !asks("device = x"));
    }
}
