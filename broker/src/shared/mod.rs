//! Shared subscriptions, `$share/<name>/<filter>`: every message goes to one member of the group that
//! the whole filter names (MQTT 5.0 section 4.8.2; clients of 3.1.1 have them too).
//! [`ordinary`] chooses the member for messages on topics that are not durable. Durable topics are read by
//! a cursor of the [`group`]: [`dispatch`] decides which member gets which record, [`driver`] reads.

mod dispatch;
mod driver;
mod group;
mod ordinary;

pub(crate) use driver::{Supply, drive};
pub(crate) use group::{Group, Remembered};
pub(crate) use ordinary::Ordinary;

const PREFIX: &str = "$share/";

/// Whether a filter asks for a shared subscription.
pub(crate) fn is_shared(filter: &str) -> bool {
    filter.starts_with(PREFIX)
}

/// Name and filter of a shared subscription; `None` for any other, and for one whose name is none.
pub(crate) fn split(filter: &str) -> Option<(&str, &str)> {
    let (name, filter) = filter.strip_prefix(PREFIX)?.split_once('/')?;
    let is_name = !name.is_empty() && !name.contains(['+', '#']);
    (is_name && !filter.is_empty()).then_some((name, filter))
}

/// The filter that topics have to match: that of a shared subscription, or the filter itself.
pub(crate) fn unshared(filter: &str) -> &str {
    split(filter).map_or(filter, |(_, filter)| filter)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shared_filter_has_a_name_without_wildcards_and_a_filter() {
        assert_eq!(split("$share/g/a/+/#"), Some(("g", "a/+/#")));
        assert_eq!(split("$share/g//"), Some(("g", "/")));
        for bad in [
            "$share/",
            "$share/g",
            "$share/g/",
            "$share//a",
            "$share/g+/a",
            "$share/#/a",
        ] {
            assert!(is_shared(bad), "{bad}");
            assert_eq!(split(bad), None, "{bad}");
        }
        for other in ["$share", "share/g/a", "$shared/g/a", "a/$share/g/a"] {
            assert!(!is_shared(other), "{other}");
            assert_eq!(unshared(other), other);
        }
    }
}
