//! Device, group and source names: 1–128 characters of `A-Z a-z 0-9 . _ : -`.

/// Whether `name` may stand in a topic as it is.
pub fn is_valid(name: &str) -> bool { todo!() }

/// The name itself when valid, otherwise its UTF-8 bytes percent-encoded where needed and cut to
/// 128 characters. Empty becomes `-`. (What a publisher does; a router only checks `is_valid`;
/// so `%` plus two hex digits counts as valid inside a name.)
pub fn encode(name: &str) -> std::borrow::Cow<'_, str> { todo!() }
