//! Events as they wait in the queue: with their attributes in the form in which they came.

use thinglog_schemas::{
    Attributes,
    batch::{Attributed, Entry, Fields, Form},
};

use crate::record::Record;

/// The attributes of an event in the queue: as its record had them.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Carried {
    Map(Attributes),
    Packed(Fields),
}

impl Carried {
    /// The same as a map.
    #[cfg(test)]
    pub(crate) fn map(&self) -> Attributes {
        match self {
            Carried::Map(map) => map.clone(),
            Carried::Packed(fields) => fields.unpack(),
        }
    }
}

impl Attributed for Carried {
    fn form(&self) -> Form<'_> {
        match self {
            Carried::Map(map) => Form::Map(map),
            Carried::Packed(fields) => Form::Packed(fields),
        }
    }
}

/// What is queued of a record.
pub(super) fn entry(record: Record) -> Entry<Carried> {
    Entry {
        seq: 0,
        time: record.time.unwrap_or_default(),
        severity: record.severity,
        message: record.message,
        truncated: record.truncated,
        attributes: match record.packed {
            Some(fields) => Carried::Packed(fields),
            None => Carried::Map(record.attributes),
        },
    }
}
