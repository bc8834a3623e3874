//! Attributes as C hands them over.

use std::{
    borrow::Cow,
    ffi::{c_char, c_int},
};

use serde_json::Value;
use thinglog_schemas::{Attributes, limits::MAX_ATTRIBUTES};

use crate::text::{self, INVALID_UTF8, NUL_TERMINATED};

/// `thinglog_attribute` of the header.
#[repr(C)]
pub struct Attribute {
    pub(crate) key: *const c_char,
    pub(crate) kind: u32,
    /// Of a string.
    pub(crate) length: usize,
    pub(crate) value: AttributeValue,
}

/// Which of them it is says the attribute's type.
#[repr(C)]
pub(crate) union AttributeValue {
    pub(crate) string: *const c_char,
    pub(crate) integer: i64,
    pub(crate) number: f64,
    pub(crate) boolean: c_int,
}

const STRING: u32 = 1;
const INTEGER: u32 = 2;
const NUMBER: u32 = 3;
const BOOLEAN: u32 = 4;

/// The attributes, and how many had to be left out. No more are looked at than an event may have,
/// two places kept for what is said about them.
///
/// # Safety
/// `start` is NULL and `count` 0, or it points to `count` attributes, whose keys are NULL or strings and
/// whose values are what their types say.
pub(crate) unsafe fn read(start: *const Attribute, count: usize) -> (Attributes, u64) {
    let mut attributes = Attributes::new();
    if start.is_null() {
        return (attributes, 0);
    }
    let looked_at = match count > MAX_ATTRIBUTES {
        true => MAX_ATTRIBUTES - 2,
        false => count,
    };
    let mut dropped = (count - looked_at) as u64;
    let mut lossy = false;
    // SAFETY: the caller promises at least so many.
    for attribute in unsafe { std::slice::from_raw_parts(start, looked_at) } {
        // SAFETY: the caller promises NULL or a string.
        let key = unsafe { text_of(attribute.key, NUL_TERMINATED, &mut lossy) };
        // SAFETY: the caller promises a value of the type it says.
        let value = unsafe { value(attribute, &mut lossy) };
        match key.zip(value) {
            Some((key, value)) => drop(attributes.insert(key, value)),
            None => dropped += 1,
        }
    }
    if lossy {
        attributes.insert(INVALID_UTF8.into(), true.into());
    }
    (attributes, dropped)
}

/// # Safety
/// The value is what the type says.
unsafe fn value(attribute: &Attribute, lossy: &mut bool) -> Option<Value> {
    let value = &attribute.value;
    match attribute.kind {
        STRING => {
            // SAFETY: its type says that this is what it holds.
            let start = unsafe { value.string };
            // SAFETY: the caller promises NULL or so many bytes.
            unsafe { text_of(start, attribute.length, lossy) }.map(Value::String)
        }
        // SAFETY: its type says that this is what it holds.
        INTEGER => Some(unsafe { value.integer }.into()),
        // SAFETY: as above.
        NUMBER => Some(unsafe { value.number }.into()),
        // SAFETY: as above.
        BOOLEAN => Some((unsafe { value.boolean } != 0).into()),
        _ => None,
    }
}

/// # Safety
/// `start` is NULL, or has `length` bytes, or is a string.
unsafe fn text_of(start: *const c_char, length: usize, lossy: &mut bool) -> Option<String> {
    if start.is_null() {
        return None;
    }
    // SAFETY: as the caller promises.
    let text = String::from_utf8_lossy(unsafe { text::bytes(start, length) });
    *lossy |= matches!(text, Cow::Owned(_));
    Some(text.into_owned())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn attribute(key: *const c_char, kind: u32, value: AttributeValue) -> Attribute {
        Attribute {
            key,
            kind,
            length: NUL_TERMINATED,
            value,
        }
    }

    fn read_all(attributes: &[Attribute]) -> (Value, u64) {
        // SAFETY: a slice of attributes whose keys are literals.
        let (attributes, dropped) = unsafe { read(attributes.as_ptr(), attributes.len()) };
        (Value::Object(attributes), dropped)
    }

    #[test]
    fn every_type_becomes_its_json() {
        let read = read_all(&[
            attribute(
                c"unit".as_ptr(),
                STRING,
                AttributeValue {
                    string: c"C".as_ptr(),
                },
            ),
            attribute(c"count".as_ptr(), INTEGER, AttributeValue { integer: -7 }),
            attribute(c"celsius".as_ptr(), NUMBER, AttributeValue { number: 91.5 }),
            attribute(c"nan".as_ptr(), NUMBER, AttributeValue { number: f64::NAN }),
            attribute(c"on".as_ptr(), BOOLEAN, AttributeValue { boolean: 2 }),
        ]);
        let expected = json!({"unit": "C", "count": -7, "celsius": 91.5, "nan": null, "on": true});
        assert_eq!(read, (expected, 0));
    }

    #[test]
    fn what_cannot_be_read_is_left_out_and_counted() {
        let null = std::ptr::null();
        let read = read_all(&[
            attribute(null, INTEGER, AttributeValue { integer: 1 }),
            attribute(c"text".as_ptr(), STRING, AttributeValue { string: null }),
            attribute(c"strange".as_ptr(), 99, AttributeValue { integer: 1 }),
            attribute(c"good".as_ptr(), BOOLEAN, AttributeValue { boolean: 0 }),
        ]);
        assert_eq!(read, (json!({"good": false}), 3));
    }

    #[test]
    fn bytes_that_are_no_text_are_told() {
        let (read, _) = read_all(&[attribute(
            c"name".as_ptr(),
            STRING,
            AttributeValue {
                string: c"\xFF".as_ptr(),
            },
        )]);
        assert_eq!(read, json!({"name": "\u{FFFD}", INVALID_UTF8: true}));
    }

    #[test]
    fn a_count_beyond_any_event_is_not_followed() {
        let one = || attribute(c"k".as_ptr(), INTEGER, AttributeValue { integer: 1 });
        let many: Vec<Attribute> = (0..MAX_ATTRIBUTES).map(|_| one()).collect();
        // SAFETY: of the count that is announced only what is there is looked at.
        let (attributes, dropped) = unsafe { read(many.as_ptr(), usize::MAX) };
        assert_eq!(attributes.len(), 1);
        assert_eq!(dropped, (usize::MAX - (MAX_ATTRIBUTES - 2)) as u64);
    }
}
