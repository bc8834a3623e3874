//! Topics seen on a connection, parsed once and shared by all their deliveries, so that a publish
//! on a known topic allocates nothing. The table is bounded: when full it starts over, which costs a
//! parse per topic and nothing else.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use thinglog_schemas::topic::TopicError;
use thinglog_schemas::{Topic, Topics};

/// Most topics remembered per connection.
const CAPACITY: usize = 65_536;
/// Longest topic remembered, bytes: root, names of 128 characters, and some.
const LONGEST: usize = 512;

/// A topic and what it means below the root.
#[derive(Debug)]
pub(crate) struct TopicInfo {
    /// The topic as received; invalid UTF-8 is shown as U+FFFD.
    pub(crate) text: Box<str>,
    /// Device and source where it is a log topic; else why not.
    pub(crate) logs: Result<Names, NotLogs>,
    /// Principal and address last stamped on it: nearly always the same again.
    last: Mutex<LastStamp>,
}

/// Names of a log topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Names {
    pub(crate) device: Arc<str>,
    pub(crate) source: Arc<str>,
}

/// Why a topic is no `<root>/logs/<device>/<source>`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NotLogs {
    #[error(transparent)]
    Topic(#[from] TopicError),
    #[error("topic {0:?} is not a log topic")]
    Other(Box<str>),
    #[error("topic {0:?} is not UTF-8")]
    NotUtf8(Box<str>),
}

#[derive(Debug, Default)]
struct LastStamp {
    principal: Option<Arc<str>>,
    address: Option<Arc<str>>,
}

impl TopicInfo {
    pub(crate) fn new(topics: &Topics, topic: &[u8]) -> TopicInfo {
        let (text, logs) = match std::str::from_utf8(topic) {
            Ok(text) => (Box::from(text), names(topics, text)),
            Err(_) => {
                let text: Box<str> = String::from_utf8_lossy(topic).into();
                (text.clone(), Err(NotLogs::NotUtf8(text)))
            }
        };
        TopicInfo {
            text,
            logs,
            last: Mutex::default(),
        }
    }

    /// Shared copies of a stamp's principal and address.
    pub(crate) fn share(
        &self,
        principal: Option<&str>,
        address: Option<&str>,
    ) -> (Option<Arc<str>>, Option<Arc<str>>) {
        if principal.is_none() && address.is_none() {
            return (None, None);
        }
        let mut last = self.last.lock();
        (
            shared(&mut last.principal, principal),
            shared(&mut last.address, address),
        )
    }
}

fn shared(last: &mut Option<Arc<str>>, now: Option<&str>) -> Option<Arc<str>> {
    let now = now?;
    match last {
        Some(last) if **last == *now => {}
        _ => *last = Some(Arc::from(now)),
    }
    last.clone()
}

fn names(topics: &Topics, text: &str) -> Result<Names, NotLogs> {
    match topics.parse(text)? {
        Topic::Logs { device, source } => Ok(Names {
            device: Arc::from(device),
            source: Arc::from(source),
        }),
        _ => Err(NotLogs::Other(Box::from(text))),
    }
}

/// The topics of one connection.
#[derive(Debug)]
pub(crate) struct TopicTable {
    topics: Topics,
    known: HashMap<Box<[u8]>, Arc<TopicInfo>>,
    /// Publishes come in runs of one topic.
    last: Option<(Box<[u8]>, Arc<TopicInfo>)>,
}

impl TopicTable {
    pub(crate) fn new(topics: Topics) -> TopicTable {
        TopicTable {
            topics,
            known: HashMap::new(),
            last: None,
        }
    }

    pub(crate) fn get(&mut self, topic: &[u8]) -> Arc<TopicInfo> {
        if let Some((last, info)) = &self.last
            && **last == *topic
        {
            return Arc::clone(info);
        }
        let info = match self.known.get_key_value(topic) {
            Some((_, info)) => Arc::clone(info),
            None => self.learn(topic),
        };
        match &mut self.last {
            Some((last, known)) if last.len() == topic.len() => {
                last.copy_from_slice(topic);
                *known = Arc::clone(&info);
            }
            last => *last = Some((Box::from(topic), Arc::clone(&info))),
        }
        info
    }

    fn learn(&mut self, topic: &[u8]) -> Arc<TopicInfo> {
        if topic.len() > LONGEST {
            return Arc::new(TopicInfo::new(&self.topics, topic));
        }
        if self.known.len() >= CAPACITY {
            self.known.clear();
        }
        let info = Arc::new(TopicInfo::new(&self.topics, topic));
        self.known.insert(Box::from(topic), Arc::clone(&info));
        info
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> TopicTable {
        TopicTable::new(Topics::default())
    }

    #[test]
    fn a_known_topic_is_shared() {
        let mut table = table();
        let first = table.get(b"thinglog/logs/lamp-7/app");
        table.get(b"thinglog/logs/lamp-8/app");
        let again = table.get(b"thinglog/logs/lamp-7/app");
        assert!(Arc::ptr_eq(&first, &again));
        assert_eq!(&*first.logs.as_ref().unwrap().device, "lamp-7");
    }

    #[test]
    fn a_topic_that_is_no_log_says_why() {
        let mut table = table();
        for bad in [
            &b"thinglog/logs/lamp-7"[..],
            b"thinglog/logs/lamp 7/app",
            b"other/logs/lamp-7/app",
            b"thinglog/reported/lamp-7",
            b"thinglog/logs/\xFF/app",
        ] {
            assert!(table.get(bad).logs.is_err(), "{bad:?}");
        }
    }

    #[test]
    fn the_table_is_bounded() {
        let mut table = table();
        for n in 0..CAPACITY + 10 {
            table.get(format!("thinglog/logs/d{n}/app").as_bytes());
        }
        assert!(table.known.len() <= CAPACITY);
    }

    #[test]
    fn a_repeated_principal_is_shared_and_a_new_one_is_taken() {
        let info = TopicInfo::new(&Topics::default(), b"thinglog/logs/lamp-7/app");
        let first = info.share(Some("p"), None).0.unwrap();
        let again = info.share(Some("p"), Some("127.0.0.1")).0.unwrap();
        assert!(Arc::ptr_eq(&first, &again));
        assert_eq!(info.share(Some("q"), None).0.as_deref(), Some("q"));
        assert_eq!(info.share(None, None), (None, None));
    }
}
