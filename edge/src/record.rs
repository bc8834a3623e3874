//! One event as an application hands it over, and the limits it is cut to before it is queued.

use std::sync::Arc;

use serde_json::Value;
use thinglog_schemas::{
    Attributes, Severity,
    batch::{Fields, MAX_ATTRIBUTES, MAX_DEPTH, MAX_MESSAGE},
    json,
    name::MAX_NAME,
};

use crate::marks::{MAX_PLACE, Mark};

/// Attributes of one event together, bytes (keys and values, estimated). What does not fit is left
/// out and the event is flagged as truncated.
pub const MAX_ATTRIBUTE_BYTES: usize = 64 << 10;

/// Values nested deeper than [`MAX_DEPTH`] become their JSON text, but only up to here: whoever nests
/// deeper than any JSON reader follows did not mean it.
const MAX_TEXT_DEPTH: usize = 4 * MAX_DEPTH;

/// What a queued event costs beside its text: the entry itself, its place in a queue, allocator slack.
const FIXED_COST: usize = 128;

/// One event on its way into a [`Publisher`](crate::Publisher).
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// Which log of the device this is: `app`, `nginx`, a unit's name. Becomes a topic level;
    /// characters that cannot stand there are percent-encoded.
    pub source: Arc<str>,
    /// How grave it is.
    pub severity: Severity,
    /// The text; cut at 256 KiB and flagged.
    pub message: String,
    /// Key–value pairs, at most 128 and 64 KiB.
    pub attributes: Attributes,
    /// Nanoseconds since the Unix epoch; `None` means now.
    pub time: Option<u64>,
    /// The text was already cut by whoever read it.
    pub truncated: bool,
    /// `time` counts from the boot.
    pub(crate) monotonic: bool,
    /// Where the source stands after it; see [`Record::marked`].
    pub(crate) mark: Option<Mark>,
    /// The attributes, once nothing more is to be done to them; see [`Record::pack`].
    pub(crate) packed: Option<Fields>,
}

impl Record {
    /// An event of `source` that happens now and has no attributes.
    pub fn new(
        source: impl Into<Arc<str>>,
        severity: Severity,
        message: impl Into<String>,
    ) -> Record {
        Record {
            source: source.into(),
            severity,
            message: message.into(),
            attributes: Attributes::new(),
            time: None,
            truncated: false,
            monotonic: false,
            mark: None,
            packed: None,
        }
    }

    /// Packs the attributes as a batch will carry them, within the limits: for who reads many lines,
    /// so that no maps go from thread to thread. `scratch` is used for it.
    pub(crate) fn pack(&mut self, scratch: &mut Vec<u8>) {
        if self.packed.is_none() {
            self.cut_attributes();
            self.packed = Fields::pack(&self.attributes, scratch);
            if self.packed.is_some() {
                self.attributes = Attributes::new();
            }
        }
    }

    /// The record with its attributes as a map again.
    pub(crate) fn unpack(&mut self) {
        if let Some(fields) = self.packed.take() {
            self.attributes = fields.unpack();
        }
    }

    /// The same event, with where its source stands after it: `place` (at most 4 KiB; a longer one
    /// is not kept) in what `key` names, a hash of a path or of a journal and unit. For sources that
    /// can be read again and wait for room ([`Publisher::emit_waiting`](crate::Publisher)). With a
    /// spool on disk the place is stored in one piece with the event: a source that asks
    /// [`kept_place`](crate::Publisher::kept_place) at its start goes on right behind the last event
    /// that is in the spool or was acknowledged, whatever ended the process before it. Places of one
    /// key must all be carried by events of one source.
    #[must_use]
    pub fn marked(mut self, key: u64, place: impl Into<Arc<[u8]>>) -> Record {
        let place = place.into();
        self.mark = (place.len() <= MAX_PLACE).then_some(Mark { key, place });
        self
    }

    /// [`marked`](Record::marked), in place.
    pub(crate) fn mark(&mut self, key: u64, place: &[u8]) {
        self.mark = (place.len() <= MAX_PLACE).then(|| Mark {
            key,
            place: place.into(),
        });
    }

    /// The same event with one attribute more.
    #[must_use]
    pub fn with(mut self, key: impl Into<String>, value: impl Into<Value>) -> Record {
        self.attributes.insert(key.into(), value.into());
        self
    }

    /// The same event at `time` (ns since the Unix epoch).
    #[must_use]
    pub fn at(mut self, time: u64) -> Record {
        self.time = Some(time);
        self
    }

    /// Cuts a source that is longer than a name may be: no longer part of it would reach the topic.
    pub(crate) fn cut_source(&mut self) {
        if self.source.len() > MAX_NAME {
            let end = floor_char_boundary(&self.source, MAX_NAME);
            self.source = self.source[..end].into();
        }
    }

    /// Cuts what is over a limit and returns what the event costs in memory, bytes.
    pub(crate) fn cut_to_limits(&mut self) -> usize {
        if self.message.len() > MAX_MESSAGE {
            let end = floor_char_boundary(&self.message, MAX_MESSAGE);
            self.message.truncate(end);
            self.message.shrink_to_fit();
            self.truncated = true;
        }
        let mark = self.mark.as_ref().map_or(0, Mark::cost);
        FIXED_COST + self.message.len() + self.cut_attributes() + mark
    }

    fn cut_attributes(&mut self) -> usize {
        if self.attributes.is_empty() {
            return self.packed.as_ref().map_or(0, Fields::bytes);
        }
        let mut bytes = 0;
        let mut kept = 0;
        let before = self.attributes.len();
        if before <= MAX_ATTRIBUTES
            && let Some(bytes) = flat_cost(&self.attributes)
        {
            return bytes;
        }
        self.attributes.retain(|key, value| {
            if !is_within(value, MAX_TEXT_DEPTH) {
                return false;
            }
            if !is_within(value, MAX_DEPTH) {
                *value = text_of(value);
            }
            let cost = key.len() + value_cost(value);
            let keep = kept < MAX_ATTRIBUTES && bytes + cost <= MAX_ATTRIBUTE_BYTES;
            if keep {
                bytes += cost;
                kept += 1;
            }
            keep
        });
        self.truncated |= self.attributes.len() < before;
        bytes
    }
}

/// What attributes cost that nothing has to be done to, as those of nearly all events; `None`: they
/// must be looked through one by one.
fn flat_cost(attributes: &Attributes) -> Option<usize> {
    let mut bytes = 0;
    for (key, value) in attributes {
        if matches!(value, Value::Array(_) | Value::Object(_)) {
            return None;
        }
        bytes += key.len() + value_cost(value);
    }
    (bytes <= MAX_ATTRIBUTE_BYTES).then_some(bytes)
}

/// Whether a value is nested at most `levels` deep.
fn is_within(value: &Value, levels: usize) -> bool {
    match value {
        Value::Array(_) | Value::Object(_) if levels == 0 => false,
        Value::Array(items) => items.iter().all(|item| is_within(item, levels - 1)),
        Value::Object(map) => map.values().all(|item| is_within(item, levels - 1)),
        _ => true,
    }
}

fn text_of(value: &Value) -> Value {
    let mut text = Vec::new();
    json::write_value(value, &mut text);
    Value::String(String::from_utf8_lossy(&text).into_owned())
}

/// About what a JSON value takes in memory, bytes.
fn value_cost(value: &Value) -> usize {
    const NODE: usize = 48;
    NODE + match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => 0,
        Value::String(text) => text.len(),
        Value::Array(items) => items.iter().map(value_cost).sum(),
        Value::Object(map) => map.iter().map(|(k, v)| k.len() + value_cost(v)).sum(),
    }
}

/// The last character boundary at or before `at`.
pub(crate) fn floor_char_boundary(text: &str, at: usize) -> usize {
    let mut end = at.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    end
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_message_is_cut_on_a_character_boundary_and_flagged() {
        let mut record = Record::new("app", Severity::INFO, "é".repeat(MAX_MESSAGE));
        record.cut_to_limits();
        assert_eq!(record.message.len(), MAX_MESSAGE);
        assert!(record.truncated);
        let mut odd = Record::new(
            "app",
            Severity::INFO,
            format!("x{}", "é".repeat(MAX_MESSAGE)),
        );
        odd.cut_to_limits();
        assert_eq!(odd.message.len(), MAX_MESSAGE - 1);
    }

    #[test]
    fn attributes_beyond_the_limits_are_left_out_and_flagged() {
        let mut many = Record::new("app", Severity::INFO, "m");
        for i in 0..200 {
            many = many.with(format!("k{i:03}"), i);
        }
        many.cut_to_limits();
        assert_eq!(many.attributes.len(), MAX_ATTRIBUTES);
        assert!(many.truncated);

        let mut large = Record::new("app", Severity::INFO, "m")
            .with("small", 1)
            .with("large", "x".repeat(MAX_ATTRIBUTE_BYTES));
        large.cut_to_limits();
        assert!(large.attributes.contains_key("small"));
        assert!(!large.attributes.contains_key("large"));
    }

    #[test]
    fn what_is_nested_too_deep_becomes_text_or_goes() {
        let nest = |levels| (0..levels).fold(Value::from(1), |inner, _| Value::Array(vec![inner]));
        let mut record = Record::new("app", Severity::INFO, "m")
            .with("fits", nest(MAX_DEPTH))
            .with("text", nest(MAX_DEPTH + 1))
            .with("gone", nest(5000));
        record.cut_to_limits();
        assert!(record.truncated);
        assert_eq!(record.attributes["fits"], nest(MAX_DEPTH));
        let text = nest(MAX_DEPTH + 1).to_string();
        assert_eq!(record.attributes["text"], Value::String(text));
        assert!(!record.attributes.contains_key("gone"));
    }

    #[test]
    fn a_long_source_is_cut_to_what_a_topic_takes() {
        let mut record = Record::new("é".repeat(MAX_NAME), Severity::INFO, "m");
        record.cut_source();
        assert_eq!(&*record.source, "é".repeat(MAX_NAME / 2));
    }

    #[test]
    fn what_is_packed_is_the_same_and_costs_less() {
        let mut record = Record::new("app", Severity::INFO, "m").with("large", "x".repeat(1 << 20));
        record = record.with("pid", 7).with("tags", vec!["a", "b"]);
        let mut cut = record.clone();
        let cost = cut.cut_to_limits();
        record.pack(&mut Vec::new());
        assert!(record.attributes.is_empty() && record.cut_to_limits() < cost);
        record.unpack();
        assert_eq!(record, cut);
        assert!(record.truncated && record.attributes["pid"] == 7);
    }

    #[test]
    fn an_event_within_the_limits_is_left_alone() {
        let mut record = Record::new("app", Severity::WARN, "hello").with("k", "v");
        let before = record.clone();
        let cost = record.cut_to_limits();
        assert_eq!(record, before);
        assert!(cost > 5);
    }
}
