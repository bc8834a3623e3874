//! What a destination has already had, so that nothing it is sent again goes in twice.
//!
//! [`seen`] is a set of numbers that fills from below, [`table`] keeps one per lane of a device and per
//! journal of a broker, bounded in entries and age. Both are pure; `crate::state` persists them.

pub(crate) mod seen;
pub(crate) mod table;
