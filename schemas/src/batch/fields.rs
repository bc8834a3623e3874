//! Attributes in the form in which a batch carries them, made ahead of the batch: one block of bytes for
//! each event instead of a map with a string for each key and value.

use super::{
    EncodeError,
    value::{self, Budget},
};
use crate::Attributes;

/// The attributes of one event, packed: pairs of key and value in MessagePack, in the order of the
/// map they were. They were within the limits of a batch when they were packed.
#[derive(Clone, Debug, PartialEq)]
pub struct Fields {
    pairs: Box<[u8]>,
    /// Pairs, and all values within them.
    count: u32,
    nodes: u32,
}

impl Fields {
    /// Packs attributes; `scratch` is used for it. `None` when no batch could carry them.
    pub fn pack(attributes: &Attributes, scratch: &mut Vec<u8>) -> Option<Fields> {
        scratch.clear();
        let mut budget = Budget::default();
        value::write_pairs(attributes, 0, &mut budget, scratch).ok()?;
        Some(Fields {
            pairs: scratch.as_slice().into(),
            count: u32::try_from(attributes.len()).ok()?,
            nodes: u32::try_from(budget.nodes()).ok()?,
        })
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.count as usize
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The memory they take, bytes.
    pub fn bytes(&self) -> usize {
        self.pairs.len()
    }

    /// The map they were.
    pub fn unpack(&self) -> Attributes {
        let mut budget = Budget::default();
        // What was packed here can be read.
        value::read_pairs(&mut &*self.pairs, self.len(), &mut budget).unwrap_or_default()
    }

    pub(super) fn write(&self, budget: &mut Budget, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        value::write_head(self.len(), self.nodes as usize, budget, out)?;
        out.extend_from_slice(&self.pairs);
        Ok(())
    }
}

/// Attributes as a batch to be encoded may hold them.
pub trait Attributed {
    /// The form they have.
    fn form(&self) -> Form<'_>;
}

/// Attributes in either form.
#[derive(Clone, Copy, Debug)]
pub enum Form<'a> {
    /// As everybody reads them.
    Map(&'a Attributes),
    /// Ready to be carried.
    Packed(&'a Fields),
}

impl Form<'_> {
    pub(super) fn len(&self) -> usize {
        match self {
            Form::Map(map) => map.len(),
            Form::Packed(fields) => fields.len(),
        }
    }

    pub(super) fn write(&self, budget: &mut Budget, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        match self {
            Form::Map(map) => value::write_map(map, budget, out),
            Form::Packed(fields) => fields.write(budget, out),
        }
    }
}

impl Attributed for Attributes {
    fn form(&self) -> Form<'_> {
        Form::Map(self)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::arbitrary::attributes;

    proptest! {
        #[test]
        fn what_was_packed_is_carried_and_unpacked_as_the_map_it_was(map in attributes()) {
            let fields = Fields::pack(&map, &mut vec![1, 2, 3]).unwrap();
            prop_assert_eq!(fields.len(), map.len());
            prop_assert_eq!(fields.is_empty(), map.is_empty());
            prop_assert_eq!(&fields.unpack(), &map);
            let (mut one, mut other) = (Vec::new(), Vec::new());
            let (mut spent, mut same) = (Budget::default(), Budget::default());
            fields.write(&mut spent, &mut one).unwrap();
            map.form().write(&mut same, &mut other).unwrap();
            prop_assert_eq!(one, other);
            prop_assert_eq!(spent.nodes(), same.nodes());
        }
    }

    #[test]
    fn what_no_batch_carries_is_not_packed() {
        let nest = |depth| (0..depth).fold(json!(1), |inner, _| json!([inner]));
        let mut map = Attributes::new();
        map.insert("fits".into(), nest(super::super::MAX_DEPTH));
        assert!(Fields::pack(&map, &mut Vec::new()).is_some());
        map.insert("deep".into(), nest(super::super::MAX_DEPTH + 1));
        assert!(Fields::pack(&map, &mut Vec::new()).is_none());
    }
}
