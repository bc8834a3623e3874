//! What one event may hold. A publisher applies these limits when an event is made, the router to
//! what plain clients send; so whatever one event says, it can be encoded.

use serde_json::Value;

use crate::{Attributes, json};

/// Longest message, bytes; longer ones are cut on a character boundary and flagged.
pub const MAX_MESSAGE: usize = 256 << 10;
/// Most attributes of an event.
pub const MAX_ATTRIBUTES: usize = 128;
/// Most bytes of an event's attributes, counted as keys, strings and eight for any other value.
pub const MAX_ATTRIBUTE_BYTES: usize = 256 << 10;
/// Most JSON values in an event's attributes, containers and what is in them counted alike.
pub const MAX_ATTRIBUTE_NODES: usize = 16_384;
/// Arrays and objects nested in an attribute's value: `1` has depth 0, `[1]` depth 1.
pub const MAX_DEPTH: usize = 32;
/// The attribute that counts those left out because of a limit.
pub const DROPPED_ATTRIBUTES: &str = "thinglog.dropped_attributes";

/// Cuts a message longer than [`MAX_MESSAGE`] on a character boundary; whether it was.
pub fn cut_message(message: &mut String) -> bool {
    if message.len() <= MAX_MESSAGE {
        return false;
    }
    message.truncate(boundary(message));
    true
}

/// The part of a message that [`cut_message`] would keep, and whether that is less than all.
pub fn cut(message: &str) -> (&str, bool) {
    let end = boundary(message);
    (&message[..end], end < message.len())
}

/// The last character boundary at or before the limit; a character has at most four bytes.
fn boundary(message: &str) -> usize {
    if message.len() <= MAX_MESSAGE {
        return message.len();
    }
    let candidates = MAX_MESSAGE - 3..=MAX_MESSAGE;
    candidates
        .rev()
        .find(|&at| message.is_char_boundary(at))
        .unwrap_or(0)
}

/// Applies the limits to attributes: values nested too deep become their JSON text; then those
/// beyond a limit, in the order of their keys, are left out and counted in
/// [`DROPPED_ATTRIBUTES`], which takes one place of its own. Costs little for the few flat
/// attributes of an ordinary event.
pub fn bound_attributes(attributes: &mut Attributes) {
    let mut cost = Cost::default();
    let fits = attributes.iter().all(|(key, value)| {
        cost.add(key, value, 0);
        cost.depth <= MAX_DEPTH
    });
    if fits && cost.within(attributes.len(), MAX_ATTRIBUTES) {
        return;
    }
    let mut kept = Attributes::new();
    let mut dropped = 0u64;
    let mut used = Cost::default();
    for (key, value) in std::mem::take(attributes) {
        let value = flat(value);
        let mut with = used;
        with.add(&key, &value, 0);
        if with.within(kept.len() + 1, MAX_ATTRIBUTES - 1) {
            used = with;
            kept.insert(key, value);
        } else {
            dropped += 1;
        }
    }
    if dropped > 0 {
        kept.insert(DROPPED_ATTRIBUTES.into(), Value::from(dropped));
    }
    *attributes = kept;
}

/// The value, or its JSON text where it is nested too deep.
fn flat(value: Value) -> Value {
    let mut cost = Cost::default();
    cost.add("", &value, 0);
    if cost.depth <= MAX_DEPTH {
        return value;
    }
    let mut text = Vec::new();
    json::write_value(&value, &mut text);
    Value::String(String::from_utf8(text).unwrap_or_default())
}

/// What attributes amount to.
#[derive(Clone, Copy, Default)]
struct Cost {
    nodes: usize,
    bytes: usize,
    depth: usize,
}

impl Cost {
    /// Room for [`DROPPED_ATTRIBUTES`] is left in the bytes.
    fn within(&self, count: usize, most: usize) -> bool {
        count <= most
            && self.nodes < MAX_ATTRIBUTE_NODES
            && self.bytes <= MAX_ATTRIBUTE_BYTES - DROPPED_ATTRIBUTES.len() - 8
    }

    fn add(&mut self, key: &str, value: &Value, depth: usize) {
        self.nodes += 1;
        self.bytes += key.len();
        match value {
            Value::String(text) => self.bytes += text.len() + 8,
            Value::Array(values) => {
                self.depth = self.depth.max(depth + 1);
                values
                    .iter()
                    .for_each(|value| self.add("", value, depth + 1));
            }
            Value::Object(object) => {
                self.depth = self.depth.max(depth + 1);
                object
                    .iter()
                    .for_each(|(key, value)| self.add(key, value, depth + 1));
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => self.bytes += 8,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn a_long_message_is_cut_between_characters() {
        let mut short = "é".repeat(MAX_MESSAGE / 2);
        assert!(!cut_message(&mut short));
        let mut long = String::from("x") + &"é".repeat(MAX_MESSAGE / 2);
        assert_eq!(cut(&long), (&long[..MAX_MESSAGE - 1], true));
        assert!(cut_message(&mut long));
        assert_eq!(long.len(), MAX_MESSAGE - 1);
    }

    #[test]
    fn ordinary_attributes_stay_as_they_are() {
        let mut attributes = Attributes::new();
        for n in 0..MAX_ATTRIBUTES {
            attributes.insert(format!("k{n:03}"), json!({"n": [n, "x"]}));
        }
        let before = attributes.clone();
        bound_attributes(&mut attributes);
        assert_eq!(attributes, before);
    }

    #[test]
    fn excess_attributes_are_left_out_and_counted() {
        let mut attributes: Attributes = (0..300).map(|n| (format!("k{n:03}"), json!(n))).collect();
        bound_attributes(&mut attributes);
        assert_eq!(attributes.len(), MAX_ATTRIBUTES);
        assert_eq!(attributes[DROPPED_ATTRIBUTES], json!(300 - 127));
        assert_eq!(attributes["k000"], json!(0));
        let before = attributes.clone();
        bound_attributes(&mut attributes);
        assert_eq!(attributes, before, "bounding twice changes nothing");
    }

    #[test]
    fn a_huge_attribute_goes_and_the_small_ones_stay() {
        let mut attributes = Attributes::new();
        attributes.insert("huge".into(), json!("x".repeat(MAX_ATTRIBUTE_BYTES)));
        attributes.insert("small".into(), json!(1));
        attributes.insert("wide".into(), json!(vec![0; MAX_ATTRIBUTE_NODES]));
        bound_attributes(&mut attributes);
        assert_eq!(
            Value::Object(attributes),
            json!({"small": 1, DROPPED_ATTRIBUTES: 2})
        );
    }

    #[test]
    fn what_is_nested_too_deep_becomes_text() {
        let nest = |depth| (0..depth).fold(json!(1), |inner, _| json!([inner]));
        let mut attributes = Attributes::new();
        attributes.insert("fits".into(), nest(MAX_DEPTH));
        attributes.insert("deep".into(), nest(MAX_DEPTH + 1));
        bound_attributes(&mut attributes);
        assert_eq!(attributes["fits"], nest(MAX_DEPTH));
        assert_eq!(attributes["deep"], json!(nest(MAX_DEPTH + 1).to_string()));
    }

    proptest! {
        #[test]
        fn any_message_is_cut_to_valid_text(text in any::<String>(), repeat in 1usize..2000) {
            let mut message = text.repeat(repeat);
            let whole = message.clone();
            let cut = cut_message(&mut message);
            prop_assert!(message.len() <= MAX_MESSAGE && whole.starts_with(&message));
            prop_assert_eq!(cut, message.len() < whole.len());
        }
    }
}
