//! Generators that the property tests of several modules share.

use proptest::prelude::*;
use serde_json::{Number, Value};

use crate::{Attributes, Severity};

/// Text of all kinds: short, with control characters, beyond ASCII.
pub(crate) fn texts() -> impl Strategy<Value = String> {
    prop_oneof![
        "[ -~]{0,60}",
        any::<String>(),
        "[\\x00-\\x1f\"\\\\\u{2028}\u{7f}é]{0,12}",
        Just("x".repeat(300)),
    ]
}

/// JSON values of a few levels.
pub(crate) fn values() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::Bool),
        any::<u64>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(|n| Number::from_f64(n).map_or(Value::Null, Value::Number)),
        texts().prop_map(Value::String),
    ];
    leaf.prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::Array),
            prop::collection::btree_map(texts(), inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

/// Attributes, often none.
pub(crate) fn attributes() -> impl Strategy<Value = Attributes> {
    prop_oneof![
        2 => Just(Attributes::new()),
        1 => prop::collection::btree_map(texts(), values(), 0..5)
            .prop_map(|map| map.into_iter().collect()),
    ]
}

/// All 24.
pub(crate) fn severities() -> impl Strategy<Value = Severity> {
    (1u8..=24).prop_map(|number| Severity::new(number).unwrap())
}
