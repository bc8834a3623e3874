//! What is said of a device or a group: names and values. Operators' are checked, a device's own are
//! cut to what fits.
//!
//! The limits are those of AWS IoT for things with a type and for thing groups (AWS General Reference,
//! "AWS IoT Device Management endpoints and quotas"); its narrower alphabet is not asked for here,
//! because devices say things like `Raspberry Pi 4`.

use std::collections::BTreeMap;

/// Names and values, sorted by name.
pub type Attributes = BTreeMap<String, String>;

/// Most attributes of a device or group.
pub const MAX_ATTRIBUTES: usize = 50;
/// Longest name of an attribute, characters.
pub const MAX_ATTRIBUTE_KEY: usize = 128;
/// Longest value, characters.
pub const MAX_ATTRIBUTE_VALUE: usize = 800;

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
/// order of their names that are no longer than they may be.
pub fn bound_reported(attributes: &Attributes) -> impl Iterator<Item = (&str, &str)> {
    let fits = |(key, value): &(&String, &String)| {
        (1..=MAX_ATTRIBUTE_KEY).contains(&key.chars().count())
            && value.chars().count() <= MAX_ATTRIBUTE_VALUE
    };
    let fitting = attributes.iter().filter(fits).take(MAX_ATTRIBUTES);
    fitting.map(|(key, value)| (key.as_str(), value.as_str()))
}
