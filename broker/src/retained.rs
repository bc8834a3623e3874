//! The retained message of every topic (MQTT 5.0 section 3.3.1.3), in memory; [`crate::state`]
//! keeps them on disk.

use std::{collections::BTreeMap, ops::Bound, sync::Arc};

use thinglog_schemas::topic::matches;

use crate::{config::Limits, message::Message};

/// All retained messages, ordered by topic so that a filter's literal beginning bounds the search.
#[derive(Debug, Default)]
pub(crate) struct Retained {
    messages: BTreeMap<Arc<str>, Arc<Message>>,
    bytes: usize,
}

/// A place in a walk over what a filter matches.
#[derive(Clone, Debug)]
pub(crate) struct Scan {
    pub(crate) filter: String,
    /// The last topic given.
    after: Option<Arc<str>>,
}

impl Scan {
    pub(crate) fn new(filter: &str) -> Scan {
        Scan {
            filter: filter.into(),
            after: None,
        }
    }
}

impl Retained {
    pub(crate) fn len(&self) -> usize {
        self.messages.len()
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<Message>> {
        self.messages.values()
    }

    #[cfg(test)]
    pub(crate) fn topics(&self) -> Vec<String> {
        self.messages
            .keys()
            .map(|topic| topic.to_string())
            .collect()
    }

    /// Whether `message` may be set within the limits.
    pub(crate) fn has_room(&self, message: &Message, limits: &Limits) -> bool {
        let replaced = self
            .messages
            .get(&message.topic)
            .map_or(0, |old| old.weight());
        let count = self.messages.len() + usize::from(replaced == 0);
        count <= limits.retained
            && self.bytes - replaced + message.weight() <= limits.retained_bytes
    }

    /// Sets the retained message of its topic; an empty payload removes it.
    pub(crate) fn set(&mut self, message: Arc<Message>) {
        if message.payload.is_empty() {
            self.remove(&message.topic);
            return;
        }
        self.bytes += message.weight();
        if let Some(old) = self.messages.insert(message.topic.clone(), message) {
            self.bytes -= old.weight();
        }
    }

    fn remove(&mut self, topic: &str) {
        if let Some(old) = self.messages.remove(topic) {
            self.bytes -= old.weight();
        }
    }

    /// Removes the messages whose time is over; gives their topics.
    pub(crate) fn remove_expired(&mut self, now: u64) -> Vec<Arc<str>> {
        let expired: Vec<Arc<str>> = self
            .messages
            .values()
            .filter(|message| message.is_expired(now))
            .map(|message| message.topic.clone())
            .collect();
        for topic in &expired {
            self.remove(topic);
        }
        expired
    }

    /// The next message of a walk, `None` at its end. Looks at up to `budget` topics and takes
    /// from it; a walk that used it up goes on at the next call.
    pub(crate) fn next(&self, scan: &mut Scan, now: u64, budget: &mut usize) -> Step {
        if !scan.filter.contains(['+', '#']) {
            let found = if scan.after.is_none() {
                self.messages.get(scan.filter.as_str())
            } else {
                None
            };
            return match found {
                Some(message) if !message.is_expired(now) => {
                    scan.after = Some(message.topic.clone());
                    Step::Found(message.clone())
                }
                _ => Step::End,
            };
        }
        let prefix = literal_prefix(&scan.filter);
        let from = match &scan.after {
            Some(topic) => Bound::Excluded(&**topic),
            None => Bound::Included(prefix),
        };
        for (topic, message) in self.messages.range::<str, _>((from, Bound::Unbounded)) {
            if !topic.starts_with(prefix) {
                return Step::End;
            }
            if *budget == 0 {
                return Step::Later;
            }
            *budget -= 1;
            scan.after = Some(topic.clone());
            if !message.is_expired(now) && matches(&scan.filter, topic) {
                return Step::Found(message.clone());
            }
        }
        Step::End
    }
}

/// Outcome of a step of a walk.
#[derive(Debug)]
pub(crate) enum Step {
    Found(Arc<Message>),
    /// The budget is used up.
    Later,
    End,
}

/// What every topic that matches begins with: "a/#" also matches "a", so its slash is left out.
fn literal_prefix(filter: &str) -> &str {
    let wild = filter.find(['+', '#']).unwrap_or(filter.len());
    let prefix = &filter[..wild];
    if filter[wild..].starts_with('#') {
        prefix.strip_suffix('/').unwrap_or(prefix)
    } else {
        prefix
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn message(topic: &str, payload: &str) -> Arc<Message> {
        Arc::new(Message {
            topic: topic.into(),
            payload: Bytes::copy_from_slice(payload.as_bytes()),
            qos: 1,
            retain: true,
            expires: None,
            client: 0,
            properties: Bytes::new(),
        })
    }

    fn walk(retained: &Retained, filter: &str) -> Vec<String> {
        let mut scan = Scan::new(filter);
        let mut found = Vec::new();
        loop {
            let mut budget = 1;
            match retained.next(&mut scan, 0, &mut budget) {
                Step::Found(message) => found.push(message.topic.to_string()),
                Step::Later => {}
                Step::End => return found,
            }
        }
    }

    #[test]
    fn a_walk_finds_what_the_filter_matches_and_ends() {
        let mut retained = Retained::default();
        for topic in ["a", "a/b", "a/b/c", "a-b", "b", "$SYS/x"] {
            retained.set(message(topic, "1"));
        }
        assert_eq!(walk(&retained, "a/#"), ["a", "a/b", "a/b/c"]);
        assert_eq!(walk(&retained, "+"), ["a", "a-b", "b"]);
        assert_eq!(walk(&retained, "a/+"), ["a/b"]);
        assert_eq!(walk(&retained, "a/b"), ["a/b"]);
        assert_eq!(walk(&retained, "$SYS/+"), ["$SYS/x"]);
    }

    #[test]
    fn an_empty_payload_removes_and_its_weight_goes_with_it() {
        let mut retained = Retained::default();
        retained.set(message("a", "1"));
        retained.set(message("a", "22"));
        retained.set(message("a", ""));
        assert_eq!((retained.len(), retained.bytes), (0, 0));
    }

    #[test]
    fn what_expired_takes_no_place() {
        let mut retained = Retained::default();
        let brief = Message {
            expires: Some(5),
            ..(*message("a", "1")).clone()
        };
        retained.set(Arc::new(brief));
        retained.set(message("b", "1"));
        assert!(retained.remove_expired(4).is_empty());
        assert_eq!(retained.remove_expired(5), ["a".into()]);
        assert_eq!(walk(&retained, "#"), ["b"]);
    }

    #[test]
    fn limits_hold_by_count_and_bytes() {
        let mut retained = Retained::default();
        let limits = Limits {
            retained: 1,
            ..Limits::default()
        };
        retained.set(message("a", "1"));
        assert!(!retained.has_room(&message("b", "1"), &limits));
        assert!(
            retained.has_room(&message("a", "2"), &limits),
            "replacing needs no further place"
        );
    }
}
