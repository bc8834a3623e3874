//! What is said of a device or a group: names and values. Operators' are checked, a device's own are
//! cut to what fits.
//!
//! The limits are those of AWS IoT for things with a type and for thing groups (AWS General Reference,
//! "AWS IoT Device Management endpoints and quotas"); its narrower alphabet is not asked for here,
//! because devices say things like `Raspberry Pi 4`.

use std::{collections::BTreeMap, fmt};

use serde::{Serialize, Serializer};

/// Names and values, sorted by name.
pub type Attributes = BTreeMap<String, String>;

/// Most attributes of a device or group.
pub const MAX_ATTRIBUTES: usize = 50;
/// Longest name of an attribute, characters.
pub const MAX_ATTRIBUTE_KEY: usize = 128;
/// Longest value, characters.
pub const MAX_ATTRIBUTE_VALUE: usize = 800;

/// What ends each name and each value of [`Packed`].
const END: char = '\0';

/// Attributes in one piece of memory, a tenth of what a map takes: for what is kept of very many
/// devices. A name or value with NUL is left out, as [`bound_reported`] does.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Packed(Box<str>);

impl Packed {
    /// Names and values in the order in which they were packed.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        let mut texts = self.0.split_terminator(END);
        std::iter::from_fn(move || Some((texts.next()?, texts.next()?)))
    }

    /// The value of a name.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.iter()
            .find(|(key, _)| *key == name)
            .map(|(_, value)| value)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<K: AsRef<str>, V: AsRef<str>> FromIterator<(K, V)> for Packed {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(pairs: I) -> Packed {
        let mut text = String::new();
        for (key, value) in pairs {
            let (key, value) = (key.as_ref(), value.as_ref());
            if !key.contains(END) && !value.contains(END) {
                for part in [key, value] {
                    text.push_str(part);
                    text.push(END);
                }
            }
        }
        Packed(text.into())
    }
}

impl fmt::Debug for Packed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

impl Serialize for Packed {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.iter())
    }
}

/// Whether an operator's attributes keep the limits; else which does not and why.
pub fn check_attributes(attributes: &Attributes) -> Result<(), String> {
    if attributes.len() > MAX_ATTRIBUTES {
        return Err(format!(
            "{} entries in `attributes`, at most {MAX_ATTRIBUTES}",
            attributes.len()
        ));
    }
    for (key, value) in attributes {
        let shown: String = key.chars().take(40).collect();
        let characters = key.chars().count();
        if characters == 0 || characters > MAX_ATTRIBUTE_KEY || key.contains(char::is_control) {
            return Err(format!(
                "`attributes`: {shown:?} is no name of an attribute: 1-{MAX_ATTRIBUTE_KEY} \
                 characters, none of them a control character"
            ));
        }
        if value.chars().count() > MAX_ATTRIBUTE_VALUE || value.contains(char::is_control) {
            return Err(format!(
                "`attributes.{shown}`: a value has at most {MAX_ATTRIBUTE_VALUE} characters, none \
                 of them a control character"
            ));
        }
    }
    Ok(())
}

/// What a device says of itself, as far as it keeps the limits: the first [`MAX_ATTRIBUTES`] in the
/// order of their names that are no longer than they may be and have no NUL.
pub fn bound_reported(attributes: &Attributes) -> impl Iterator<Item = (&str, &str)> {
    let fits = |(key, value): &(&String, &String)| {
        (1..=MAX_ATTRIBUTE_KEY).contains(&key.chars().count())
            && value.chars().count() <= MAX_ATTRIBUTE_VALUE
            && !key.contains(END)
            && !value.contains(END)
    };
    let fitting = attributes.iter().filter(fits).take(MAX_ATTRIBUTES);
    fitting.map(|(key, value)| (key.as_str(), value.as_str()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn what_is_packed_can_be_asked_for(
            pairs in prop::collection::btree_map(any::<String>(), any::<String>(), 0..8)
        ) {
            let packed: Packed = bound_reported(&pairs).collect();
            let kept: BTreeMap<&str, &str> = bound_reported(&pairs).collect();
            prop_assert!(packed.iter().eq(kept.iter().map(|(key, value)| (*key, *value))));
            for key in pairs.keys() {
                prop_assert_eq!(packed.get(key), kept.get(key.as_str()).copied());
            }
            prop_assert_eq!(serde_json::json!(packed), serde_json::json!(kept));
            prop_assert_eq!(packed.is_empty(), kept.is_empty());
        }
    }

    #[test]
    fn a_text_with_nul_is_left_out() {
        let packed: Packed = [("a\0b", "c"), ("d", "e\0"), ("f", "")]
            .into_iter()
            .collect();
        assert!(packed.iter().eq([("f", "")]));
    }
}
