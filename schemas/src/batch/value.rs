//! Attribute values to MessagePack and back, within a batch's budget of values and depth.

use rmp::{Marker, decode, encode};
use serde_json::{Number, Value};

use super::{DecodeError, EncodeError, MAX_ATTRIBUTES, MAX_DEPTH, MAX_NODES};
use crate::Attributes;

/// What a batch has used of [`MAX_NODES`].
#[derive(Default)]
pub(super) struct Budget {
    nodes: usize,
}

impl Budget {
    /// What was taken.
    pub(super) fn nodes(&self) -> usize {
        self.nodes
    }

    /// Takes `nodes` values; the reason when there are not as many left.
    fn take(&mut self, nodes: usize) -> Result<(), String> {
        self.nodes = self.nodes.saturating_add(nodes);
        if self.nodes <= MAX_NODES {
            Ok(())
        } else {
            Err(format!("over {MAX_NODES} attribute values"))
        }
    }
}

fn too_deep() -> String {
    format!("attributes nested over {MAX_DEPTH} deep")
}

pub(super) fn write_map(
    map: &Attributes,
    budget: &mut Budget,
    out: &mut Vec<u8>,
) -> Result<(), EncodeError> {
    write_object(map, 0, budget, out)
}

fn failed(error: impl std::fmt::Display) -> EncodeError {
    EncodeError::Invalid(error.to_string())
}

fn write_object(
    map: &Attributes,
    depth: usize,
    budget: &mut Budget,
    out: &mut Vec<u8>,
) -> Result<(), EncodeError> {
    encode::write_map_len(out, map.len() as u32).map_err(failed)?;
    write_pairs(map, depth, budget, out)
}

/// What stands before the pairs of a map of `length`, which hold `nodes` values.
pub(super) fn write_head(
    length: usize,
    nodes: usize,
    budget: &mut Budget,
    out: &mut Vec<u8>,
) -> Result<(), EncodeError> {
    budget.take(nodes).map_err(EncodeError::TooLarge)?;
    encode::write_map_len(out, length as u32)
        .map(drop)
        .map_err(failed)
}

/// The pairs of a map.
pub(super) fn write_pairs(
    map: &Attributes,
    depth: usize,
    budget: &mut Budget,
    out: &mut Vec<u8>,
) -> Result<(), EncodeError> {
    budget.take(map.len()).map_err(EncodeError::TooLarge)?;
    for (key, value) in map {
        encode::write_str(out, key).map_err(failed)?;
        write(value, depth, budget, out)?;
    }
    Ok(())
}

fn write(
    value: &Value,
    depth: usize,
    budget: &mut Budget,
    out: &mut Vec<u8>,
) -> Result<(), EncodeError> {
    match value {
        Value::Null => encode::write_nil(out).map_err(failed),
        Value::Bool(bool) => encode::write_bool(out, *bool).map_err(failed),
        Value::Number(number) => write_number(number, out),
        Value::String(text) => encode::write_str(out, text).map_err(failed),
        Value::Array(_) | Value::Object(_) if depth == MAX_DEPTH => {
            Err(EncodeError::Invalid(too_deep()))
        }
        Value::Object(map) => write_object(map, depth + 1, budget, out),
        Value::Array(values) => {
            budget.take(values.len()).map_err(EncodeError::TooLarge)?;
            encode::write_array_len(out, values.len() as u32).map_err(failed)?;
            values
                .iter()
                .try_for_each(|value| write(value, depth + 1, budget, out))
        }
    }
}

fn write_number(number: &Number, out: &mut Vec<u8>) -> Result<(), EncodeError> {
    if let Some(number) = number.as_u64() {
        encode::write_uint(out, number).map(drop).map_err(failed)
    } else if let Some(number) = number.as_i64() {
        encode::write_sint(out, number).map(drop).map_err(failed)
    } else {
        encode::write_f64(out, number.as_f64().unwrap_or_default()).map_err(failed)
    }
}

/// Reads a map of attributes.
pub(super) fn read_map(input: &mut &[u8], budget: &mut Budget) -> Result<Attributes, DecodeError> {
    let length = decode::read_map_len(input).map_err(malformed)? as usize;
    if length > MAX_ATTRIBUTES {
        return Err(DecodeError::Limit(format!(
            "{length} attributes of at most {MAX_ATTRIBUTES}"
        )));
    }
    read_object(input, length, 0, budget)
}

/// Reads the pairs of a map of `length`.
pub(super) fn read_pairs(
    input: &mut &[u8],
    length: usize,
    budget: &mut Budget,
) -> Result<Attributes, DecodeError> {
    read_object(input, length, 0, budget)
}

/// Reads a str as a slice of the input.
pub(super) fn read_str<'a>(input: &mut &'a [u8]) -> Result<&'a str, DecodeError> {
    let length = decode::read_str_len(input).map_err(malformed)?;
    take_str(input, length as usize)
}

fn take_str<'a>(input: &mut &'a [u8], length: usize) -> Result<&'a str, DecodeError> {
    let (text, rest) = input
        .split_at_checked(length)
        .ok_or_else(|| malformed("a string runs past the end"))?;
    *input = rest;
    std::str::from_utf8(text).map_err(malformed)
}

pub(super) fn malformed(error: impl std::fmt::Display) -> DecodeError {
    DecodeError::Malformed(error.to_string())
}

fn read_object(
    input: &mut &[u8],
    length: usize,
    depth: usize,
    budget: &mut Budget,
) -> Result<Attributes, DecodeError> {
    budget.take(length).map_err(DecodeError::Limit)?;
    let mut map = Attributes::new();
    for _ in 0..length {
        let key = read_str(input)?.to_owned();
        map.insert(key, read(input, depth, budget)?);
    }
    Ok(map)
}

fn read(input: &mut &[u8], depth: usize, budget: &mut Budget) -> Result<Value, DecodeError> {
    let mut after = *input;
    let value = match decode::read_marker(&mut after).map_err(|e| malformed(e.0))? {
        Marker::Null => Value::Null,
        Marker::True => Value::Bool(true),
        Marker::False => Value::Bool(false),
        Marker::F64 => float(decode::read_f64(input).map_err(malformed)?),
        Marker::F32 => float(decode::read_f32(input).map_err(malformed)?.into()),
        Marker::FixStr(_) | Marker::Str8 | Marker::Str16 | Marker::Str32 => {
            Value::String(read_str(input)?.to_owned())
        }
        Marker::FixPos(_) | Marker::U8 | Marker::U16 | Marker::U32 | Marker::U64 => {
            Value::from(decode::read_int::<u64, _>(input).map_err(malformed)?)
        }
        Marker::FixNeg(_) | Marker::I8 | Marker::I16 | Marker::I32 | Marker::I64 => {
            Value::from(decode::read_int::<i64, _>(input).map_err(malformed)?)
        }
        Marker::FixArray(_) | Marker::Array16 | Marker::Array32 => {
            let length = decode::read_array_len(input).map_err(malformed)? as usize;
            read_array(input, length, deeper(depth)?, budget)?
        }
        Marker::FixMap(_) | Marker::Map16 | Marker::Map32 => {
            let length = decode::read_map_len(input).map_err(malformed)? as usize;
            Value::Object(read_object(input, length, deeper(depth)?, budget)?)
        }
        marker => return Err(malformed(format!("an attribute value of type {marker:?}"))),
    };
    // Nothing has been read of those whose marker is all of them.
    if matches!(value, Value::Null | Value::Bool(_)) {
        *input = after;
    }
    Ok(value)
}

fn deeper(depth: usize) -> Result<usize, DecodeError> {
    if depth < MAX_DEPTH {
        Ok(depth + 1)
    } else {
        Err(DecodeError::Limit(too_deep()))
    }
}

fn read_array(
    input: &mut &[u8],
    length: usize,
    depth: usize,
    budget: &mut Budget,
) -> Result<Value, DecodeError> {
    budget.take(length).map_err(DecodeError::Limit)?;
    if length > input.len() {
        return Err(malformed("an array runs past the end"));
    }
    let mut values = Vec::with_capacity(length);
    for _ in 0..length {
        values.push(read(input, depth, budget)?);
    }
    Ok(Value::Array(values))
}

/// JSON has no infinities and no NaN: they become null.
fn float(number: f64) -> Value {
    Number::from_f64(number).map_or(Value::Null, Value::Number)
}
