//! A JSON object to the parts of an event, in one pass: the known keys are picked as they come and
//! only the rest becomes values.
//!
//! | keys | what they give |
//! |---|---|
//! | `time` `ts` `timestamp` `@timestamp` | time: RFC 3339, or an epoch number, also as a string |
//! | `level` `severity` `lvl` | severity: a word, or a number, also as a string |
//! | `message` `msg` `log` | message: a string; anything else as its JSON text, null as empty |
//! | all others | attributes |
//!
//! The first key of a row that can be read counts. One that cannot be read (a time that is none, an
//! unknown level word) and later ones of the same row stay attributes, so nothing sent is lost.
//!
//! Epoch numbers tell their unit by magnitude: from 10^8 seconds, from 10^11 milliseconds, from
//! 10^14 microseconds, from 10^17 nanoseconds. Smaller ones are no times (uptimes, mostly).
//!
//! Level numbers are OpenTelemetry's from 1 to 24, except that 10 and 20 are Python's DEBUG and INFO
//! (who counts in tens is far more common than who sends INFO2 or ERROR4 as a number); from 25 to
//! 100 they are Python's: 30 WARNING, 40 ERROR, 50 CRITICAL.

use std::{borrow::Cow, fmt};

use serde::de::{
    Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor,
    value::{MapAccessDeserializer, SeqAccessDeserializer},
};
use serde_json::{Number, Value};

use crate::{Attributes, Severity, batch::MAX_EVENTS, json, limits};

/// One top-level value of a payload.
pub(super) enum Document {
    One(Element),
    /// The first [`MAX_EVENTS`] elements, and how many there are.
    Array {
        elements: Vec<Element>,
        count: usize,
    },
}

/// What becomes one event.
pub(super) enum Element {
    Object(Fields),
    Text(String),
    Other(Value),
}

/// The parts of an event that an object says.
#[derive(Default)]
pub(super) struct Fields {
    pub(super) time: Option<u64>,
    pub(super) severity: Option<Severity>,
    pub(super) message: String,
    pub(super) truncated: bool,
    pub(super) attributes: Attributes,
}

/// A value that is looked at before it is kept: strings without escapes are borrowed.
enum Scalar<'de> {
    Text(Cow<'de, str>),
    Other(Value),
}

impl Fields {
    fn read<'de, A: MapAccess<'de>>(mut map: A) -> Result<Fields, A::Error> {
        let mut fields = Fields::default();
        let mut message_seen = false;
        while let Some(Key(key)) = map.next_key()? {
            let value: Scalar<'de> = match &*key {
                "time" | "ts" | "timestamp" | "@timestamp" if fields.time.is_none() => {
                    let value: Scalar<'de> = map.next_value()?;
                    fields.time = value.time();
                    if fields.time.is_some() {
                        continue;
                    }
                    value
                }
                "level" | "severity" | "lvl" if fields.severity.is_none() => {
                    let value: Scalar<'de> = map.next_value()?;
                    fields.severity = value.severity();
                    if fields.severity.is_some() {
                        continue;
                    }
                    value
                }
                "message" | "msg" | "log" if !message_seen => {
                    message_seen = true;
                    let value: Scalar<'de> = map.next_value()?;
                    (fields.message, fields.truncated) = value.message();
                    continue;
                }
                _ => Scalar::Other(map.next_value()?),
            };
            fields
                .attributes
                .insert(key.into_owned(), value.into_value());
        }
        Ok(fields)
    }
}

impl Scalar<'_> {
    fn into_value(self) -> Value {
        match self {
            Scalar::Text(text) => Value::String(text.into_owned()),
            Scalar::Other(value) => value,
        }
    }

    fn message(self) -> (String, bool) {
        match self {
            Scalar::Text(Cow::Borrowed(text)) => {
                let (text, truncated) = limits::cut(text);
                (text.to_owned(), truncated)
            }
            Scalar::Text(Cow::Owned(text)) => cut(text),
            Scalar::Other(Value::Null) => (String::new(), false),
            Scalar::Other(value) => {
                let mut text = Vec::new();
                json::write_value(&value, &mut text);
                cut(String::from_utf8(text).unwrap_or_default())
            }
        }
    }

    fn time(&self) -> Option<u64> {
        match self {
            Scalar::Text(text) if text.len() >= 20 && text.as_bytes()[4] == b'-' => {
                json::parse_time(text)
            }
            Scalar::Text(text) if text.bytes().all(|b| b.is_ascii_digit() || b == b'.') => {
                let number = text.parse::<u64>().map(Number::from).ok();
                epoch(&number.or_else(|| Number::from_f64(text.parse().ok()?))?)
            }
            Scalar::Other(Value::Number(number)) => epoch(number),
            _ => None,
        }
    }

    fn severity(&self) -> Option<Severity> {
        match self {
            Scalar::Text(text) => {
                Severity::from_word(text).or_else(|| numbered(text.parse().ok()?))
            }
            Scalar::Other(Value::Number(number)) => numbered(number.as_u64()?),
            Scalar::Other(_) => None,
        }
    }
}

fn cut(mut text: String) -> (String, bool) {
    let truncated = limits::cut_message(&mut text);
    (text, truncated)
}

/// An epoch number to nanoseconds, its unit by magnitude.
fn epoch(number: &Number) -> Option<u64> {
    const UNITS: [(u64, u64); 4] = [
        (100_000_000_000_000_000, 1),
        (100_000_000_000_000, 1_000),
        (100_000_000_000, 1_000_000),
        (100_000_000, 1_000_000_000),
    ];
    let unit_of = |whole: u64| {
        UNITS
            .iter()
            .find(|(least, _)| whole >= *least)
            .map(|(_, unit)| *unit)
    };
    if let Some(whole) = number.as_u64() {
        return whole.checked_mul(unit_of(whole)?);
    }
    let number = number.as_f64().filter(|n| (0.0..1e19).contains(n))?;
    let unit = unit_of(number as u64)?;
    // Today's seconds in a double are good to a quarter of a microsecond: more digits are noise.
    let micros = (number * (unit as f64 / 1e3)).round();
    Some((micros as u64).saturating_mul(1000))
}

fn numbered(number: u64) -> Option<Severity> {
    match number {
        10 | 20 | 25..=100 => Some(Severity::from_python(number as u32)),
        _ => u8::try_from(number).ok().and_then(Severity::new),
    }
}

/// A key, borrowed unless it has escapes.
struct Key<'de>(Cow<'de, str>);

impl<'de> Deserialize<'de> for Key<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct KeyVisitor;
        impl<'de> Visitor<'de> for KeyVisitor {
            type Value = Key<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a key")
            }
            fn visit_borrowed_str<E>(self, key: &'de str) -> Result<Key<'de>, E> {
                Ok(Key(Cow::Borrowed(key)))
            }
            fn visit_str<E>(self, key: &str) -> Result<Key<'de>, E> {
                Ok(Key(Cow::Owned(key.to_owned())))
            }
        }
        deserializer.deserialize_str(KeyVisitor)
    }
}

/// The visits of a JSON value that are the same wherever any value is welcome: numbers, booleans
/// and null become `$other(Value)`.
macro_rules! visit_scalars {
    ($other:expr) => {
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("any JSON value")
        }
        fn visit_bool<E>(self, value: bool) -> Result<Self::Value, E> {
            Ok($other(Value::Bool(value)))
        }
        fn visit_u64<E>(self, value: u64) -> Result<Self::Value, E> {
            Ok($other(Value::from(value)))
        }
        fn visit_i64<E>(self, value: i64) -> Result<Self::Value, E> {
            Ok($other(Value::from(value)))
        }
        fn visit_f64<E>(self, value: f64) -> Result<Self::Value, E> {
            Ok($other(Value::from(value)))
        }
        fn visit_unit<E>(self) -> Result<Self::Value, E> {
            Ok($other(Value::Null))
        }
    };
}

impl<'de> Deserialize<'de> for Scalar<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ScalarVisitor;
        impl<'de> Visitor<'de> for ScalarVisitor {
            type Value = Scalar<'de>;
            visit_scalars!(Scalar::Other);
            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Scalar<'de>, E> {
                Ok(Scalar::Text(Cow::Borrowed(text)))
            }
            fn visit_str<E>(self, text: &str) -> Result<Scalar<'de>, E> {
                Ok(Scalar::Text(Cow::Owned(text.to_owned())))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Scalar<'de>, A::Error> {
                Value::deserialize(SeqAccessDeserializer::new(seq)).map(Scalar::Other)
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Scalar<'de>, A::Error> {
                Value::deserialize(MapAccessDeserializer::new(map)).map(Scalar::Other)
            }
        }
        deserializer.deserialize_any(ScalarVisitor)
    }
}

impl<'de> Deserialize<'de> for Element {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ElementVisitor;
        impl<'de> Visitor<'de> for ElementVisitor {
            type Value = Element;
            visit_scalars!(Element::Other);
            fn visit_str<E>(self, text: &str) -> Result<Element, E> {
                Ok(Element::Text(text.to_owned()))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Element, A::Error> {
                Value::deserialize(SeqAccessDeserializer::new(seq)).map(Element::Other)
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Element, A::Error> {
                Fields::read(map).map(Element::Object)
            }
        }
        deserializer.deserialize_any(ElementVisitor)
    }
}

impl<'de> Deserialize<'de> for Document {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct DocumentVisitor;
        impl<'de> Visitor<'de> for DocumentVisitor {
            type Value = Document;
            visit_scalars!(|value| Document::One(Element::Other(value)));
            fn visit_str<E>(self, text: &str) -> Result<Document, E> {
                Ok(Document::One(Element::Text(text.to_owned())))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Document, A::Error> {
                let mut elements = Vec::new();
                while elements.len() < MAX_EVENTS {
                    let Some(element) = seq.next_element()? else {
                        break;
                    };
                    elements.push(element);
                }
                let mut count = elements.len();
                if count == MAX_EVENTS {
                    while seq.next_element::<IgnoredAny>()?.is_some() {
                        count += 1;
                    }
                }
                Ok(Document::Array { elements, count })
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Document, A::Error> {
                Fields::read(map).map(|fields| Document::One(Element::Object(fields)))
            }
        }
        deserializer.deserialize_any(DocumentVisitor)
    }
}
