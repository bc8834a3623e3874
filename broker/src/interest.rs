//! What connected clients want of the live topics, published as the retained message
//! `$SYS/thinglog/interest`, so that a router sends live events only while somebody watches.

use std::collections::BTreeMap;

use parking_lot::Mutex;
use thinglog_schemas::{Topics, topic::overlap};
use tokio::sync::Notify;

use crate::shared::unshared;

/// Beyond this many different filters the interest is simply everything.
const MAX_FILTERS: usize = 1_000;
/// And beyond so many bytes of them.
const MAX_BYTES: usize = 64 << 10;

/// Counts the live filters of connected clients.
#[derive(Debug)]
pub(crate) struct Interest {
    live: String,
    live_group: String,
    filters: Mutex<BTreeMap<String, usize>>,
    /// Rung when the set of filters changed.
    pub(crate) changed: Notify,
}

impl Interest {
    pub(crate) fn new(topics: &Topics) -> Interest {
        Interest {
            live: format!("{}/live/#", topics.root()),
            live_group: format!("{}/live-group/", topics.root()),
            filters: Mutex::default(),
            changed: Notify::new(),
        }
    }

    /// Whether a filter asks for live topics; those of groups only when it names them.
    fn is_live(&self, filter: &str) -> bool {
        filter.starts_with(&self.live_group) || overlap(filter, &self.live)
    }

    /// A connected client subscribed.
    pub(crate) fn add(&self, filter: &str) {
        let filter = unshared(filter);
        if self.is_live(filter) {
            *self.filters.lock().entry(filter.to_owned()).or_default() += 1;
            self.changed.notify_one();
        }
    }

    /// A connected client unsubscribed or left.
    pub(crate) fn remove(&self, filter: &str) {
        let filter = unshared(filter);
        if !self.is_live(filter) {
            return;
        }
        let mut filters = self.filters.lock();
        if let Some(count) = filters.get_mut(filter) {
            *count -= 1;
            if *count == 0 {
                filters.remove(filter);
            }
            self.changed.notify_one();
        }
    }

    /// The message: a JSON array of filters.
    pub(crate) fn payload(&self) -> String {
        let filters = self.filters.lock();
        let bytes: usize = filters.keys().map(|filter| filter.len() + 3).sum();
        if filters.len() > MAX_FILTERS || bytes > MAX_BYTES {
            return r##"["#"]"##.into();
        }
        let filters: Vec<&String> = filters.keys().collect();
        serde_json::json!(filters).to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_live_filters_count_and_leave_with_their_last_watcher() {
        let interest = Interest::new(&Topics::default());
        interest.add("thinglog/live/+/error/#");
        interest.add("thinglog/live/+/error/#");
        interest.add("thinglog/desired/lamp");
        interest.add("thinglog/live-group/eu/#");
        assert_eq!(
            interest.payload(),
            r#"["thinglog/live-group/eu/#","thinglog/live/+/error/#"]"#
        );
        interest.remove("thinglog/live/+/error/#");
        interest.remove("thinglog/live-group/eu/#");
        assert_eq!(interest.payload(), r#"["thinglog/live/+/error/#"]"#);
        interest.add("$share/g/thinglog/live/+/info/#");
        interest.remove("thinglog/live/+/error/#");
        assert_eq!(interest.payload(), r#"["thinglog/live/+/info/#"]"#);
    }

    #[test]
    fn a_wildcard_that_reaches_live_topics_counts() {
        let interest = Interest::new(&Topics::default());
        interest.add("#");
        assert_eq!(interest.payload(), r##"["#"]"##);
    }
}
