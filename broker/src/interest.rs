//! What connected clients want of the live topics, published as the retained message
//! `$SYS/thinglog/interest`, so that a router sends live events only while somebody watches.

use std::collections::BTreeMap;

use parking_lot::Mutex;
use thinglog_schemas::{Topics, topic::overlap};
use tokio::sync::Notify;

use crate::{
    access::{Pass, Reach},
    shared::unshared,
};

/// Beyond this many different filters the interest is simply everything.
const MAX_FILTERS: usize = 1_000;
/// And beyond so many bytes of them.
const MAX_BYTES: usize = 64 << 10;

/// Which live topics a client may read: a filter of one who may read none is no reason to publish them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Watch {
    live: bool,
    groups: bool,
}

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

    /// What a client may watch by its rights.
    pub(crate) fn watch(&self, pass: &Pass) -> Watch {
        let groups = format!("{}#", self.live_group);
        Watch {
            live: pass.reach(&self.live) != Reach::Nothing,
            groups: pass.reach(&groups) != Reach::Nothing,
        }
    }

    /// Whether a filter asks for live topics that the client may read; those of groups only when it
    /// names them.
    fn is_live(&self, filter: &str, watch: Watch) -> bool {
        (watch.groups && filter.starts_with(&self.live_group))
            || (watch.live && overlap(filter, &self.live))
    }

    /// A connected client subscribed.
    pub(crate) fn add(&self, filter: &str, watch: Watch) {
        let filter = unshared(filter);
        if self.is_live(filter, watch) {
            *self.filters.lock().entry(filter.to_owned()).or_default() += 1;
            self.changed.notify_one();
        }
    }

    /// A connected client unsubscribed or left; it was added by the same `watch`.
    pub(crate) fn remove(&self, filter: &str, watch: Watch) {
        let filter = unshared(filter);
        if !self.is_live(filter, watch) {
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

    const ALL: Watch = Watch {
        live: true,
        groups: true,
    };

    #[test]
    fn only_live_filters_count_and_leave_with_their_last_watcher() {
        let interest = Interest::new(&Topics::default());
        interest.add("thinglog/live/+/error/#", ALL);
        interest.add("thinglog/live/+/error/#", ALL);
        interest.add("thinglog/desired/lamp", ALL);
        interest.add("thinglog/live-group/eu/#", ALL);
        assert_eq!(
            interest.payload(),
            r#"["thinglog/live-group/eu/#","thinglog/live/+/error/#"]"#
        );
        interest.remove("thinglog/live/+/error/#", ALL);
        interest.remove("thinglog/live-group/eu/#", ALL);
        assert_eq!(interest.payload(), r#"["thinglog/live/+/error/#"]"#);
        interest.add("$share/g/thinglog/live/+/info/#", ALL);
        interest.remove("thinglog/live/+/error/#", ALL);
        assert_eq!(interest.payload(), r#"["thinglog/live/+/info/#"]"#);
    }

    #[test]
    fn a_wildcard_that_reaches_live_topics_counts() {
        let interest = Interest::new(&Topics::default());
        interest.add("#", ALL);
        assert_eq!(interest.payload(), r##"["#"]"##);
    }

    #[test]
    fn what_a_client_may_not_read_is_no_reason_to_publish_it() {
        let interest = Interest::new(&Topics::default());
        let groups = Watch {
            live: false,
            groups: true,
        };
        interest.add("#", Watch::default());
        interest.add("#", groups);
        interest.add("thinglog/live-group/eu/#", Watch::default());
        assert_eq!(interest.payload(), "[]");
        interest.add("thinglog/live-group/eu/#", groups);
        assert_eq!(interest.payload(), r#"["thinglog/live-group/eu/#"]"#);
    }
}
