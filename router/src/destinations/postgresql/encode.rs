//! Events to rows, and rows to an array for each column, in PostgreSQL's binary form. Pure.
//!
//! A piece is a row: for each column of [`COLUMNS`] its length (four bytes, -1 for NULL) and its value. A
//! body is the same by column: for each the length of its array (four bytes) and the array, which is a
//! head of 20 bytes (dimensions, whether there are NULLs, type of the elements, count, lower bound) and
//! the lengths and values of all rows. So a body has the bytes of its pieces and [`OVERHEAD`].

use std::borrow::Cow;

use serde_json::Value;
use thinglog_schemas::{Attributes, Event, json};
use tokio_postgres::types::Type;

use crate::deliver::remote::request::Request;
use crate::deliver::remote::{Encoder, Limits, Unfit};

/// Name, type, and type of the array, in the order in which a row has them.
pub(super) const COLUMNS: [(&str, Type, Type); 11] = [
    ("id", Type::TEXT, Type::TEXT_ARRAY),
    ("time", Type::TIMESTAMPTZ, Type::TIMESTAMPTZ_ARRAY),
    ("received", Type::TIMESTAMPTZ, Type::TIMESTAMPTZ_ARRAY),
    ("device", Type::TEXT, Type::TEXT_ARRAY),
    ("source", Type::TEXT, Type::TEXT_ARRAY),
    ("severity", Type::INT2, Type::INT2_ARRAY),
    ("level", Type::TEXT, Type::TEXT_ARRAY),
    ("message", Type::TEXT, Type::TEXT_ARRAY),
    ("attributes", Type::JSONB, Type::JSONB_ARRAY),
    ("time_estimated", Type::BOOL, Type::BOOL_ARRAY),
    ("truncated", Type::BOOL, Type::BOOL_ARRAY),
];

/// Bytes of an array before its elements.
const ARRAY_HEAD: usize = 20;
/// Bytes of a body without rows.
const OVERHEAD: usize = COLUMNS.len() * (4 + ARRAY_HEAD);
/// 2000-01-01, where PostgreSQL's times begin, in microseconds of the Unix epoch.
const EPOCH_US: i64 = 946_684_800_000_000;
/// The version of `jsonb`'s binary form.
const JSONB: u8 = 1;
/// What stands for U+0000.
const NUL: &str = "\u{2400}";

/// Encodes events as rows.
#[derive(Default)]
pub(crate) struct RowEncoder {
    /// Memory for what is put together.
    text: Vec<u8>,
}

impl Encoder for RowEncoder {
    fn limits(&self) -> Limits {
        Limits {
            overhead: OVERHEAD,
            ..Limits::USUAL
        }
    }

    fn encode(&mut self, event: &Event, out: &mut Vec<u8>) -> Result<usize, Unfit> {
        out.reserve(event.message.len() + 256);
        match event.id.text(&event.device) {
            Some(id) => put(out, without_nul(&id).as_bytes()),
            None => out.extend_from_slice(&(-1i32).to_be_bytes()),
        }
        put(out, &time(event.time));
        put(out, &time(event.received));
        put(out, without_nul(&event.device).as_bytes());
        put(out, without_nul(&event.source).as_bytes());
        put(out, &i16::from(event.severity.number()).to_be_bytes());
        put(out, event.severity.level().name().as_bytes());
        put(out, without_nul(&event.message).as_bytes());
        self.text.clear();
        self.text.push(JSONB);
        write_attributes(&event.attributes, &mut self.text);
        put(out, &self.text);
        put(out, &[u8::from(event.time_estimated)]);
        put(out, &[u8::from(event.truncated)]);
        Ok(out.len())
    }

    fn body(&mut self, request: &Request, out: &mut Vec<u8>) {
        let mut rows: Vec<&[u8]> = request.pieces().collect();
        for (_, element, _) in &COLUMNS {
            let start = out.len();
            out.extend_from_slice(&[0; 4]);
            for word in [1, 1, element.oid() as i32, rows.len() as i32, 1] {
                out.extend_from_slice(&word.to_be_bytes());
            }
            for row in &mut rows {
                let (value, rest) = row.split_at(length(row));
                out.extend_from_slice(value);
                *row = rest;
            }
            let array = (out.len() - start - 4) as u32;
            out[start..start + 4].copy_from_slice(&array.to_be_bytes());
        }
    }
}

/// The arrays of a body, in the order of [`COLUMNS`].
pub(super) fn arrays(body: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = body;
    std::iter::from_fn(move || {
        let (length, behind) = rest.split_first_chunk::<4>()?;
        let (array, behind) = behind.split_at_checked(u32::from_be_bytes(*length) as usize)?;
        rest = behind;
        Some(array)
    })
}

/// Appends a value with its length.
fn put(out: &mut Vec<u8>, value: &[u8]) {
    out.extend_from_slice(&(value.len() as i32).to_be_bytes());
    out.extend_from_slice(value);
}

/// Bytes of the value that a row opens with, its length included.
fn length(row: &[u8]) -> usize {
    let length = row.first_chunk::<4>().copied().map(i32::from_be_bytes);
    4 + usize::try_from(length.unwrap_or(-1)).unwrap_or(0)
}

fn time(ns: u64) -> [u8; 8] {
    ((ns / 1000) as i64 - EPOCH_US).to_be_bytes()
}

fn without_nul(text: &str) -> Cow<'_, str> {
    match text.contains('\0') {
        true => Cow::Owned(text.replace('\0', NUL)),
        false => Cow::Borrowed(text),
    }
}

fn write_attributes(attributes: &Attributes, out: &mut Vec<u8>) {
    match attributes
        .iter()
        .any(|(key, value)| key.contains('\0') || has_nul(value))
    {
        false => json::write_attributes(attributes, out),
        true => json::write_value(&renamed(attributes), out),
    }
}

fn has_nul(value: &Value) -> bool {
    match value {
        Value::String(text) => text.contains('\0'),
        Value::Array(values) => values.iter().any(has_nul),
        Value::Object(object) => {
            let mut members = object.iter();
            members.any(|(key, value)| key.contains('\0') || has_nul(value))
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

/// The same object without U+0000. No member takes another's name.
fn renamed(object: &Attributes) -> Value {
    let mut out = Attributes::new();
    for (key, value) in object {
        let mut key = without_nul(key).into_owned();
        while out.contains_key(&key) {
            key.push_str(NUL);
        }
        out.insert(key, value_without_nul(value));
    }
    Value::Object(out)
}

fn value_without_nul(value: &Value) -> Value {
    match value {
        Value::String(text) => Value::String(without_nul(text).into_owned()),
        Value::Array(values) => values.iter().map(value_without_nul).collect(),
        Value::Object(object) => renamed(object),
        other => other.clone(),
    }
}
