//! Which sessions want a topic: one node a filter level, found in the time of the topic's depth.

use std::collections::{BTreeMap, HashMap};

/// A number that stands for a session while the broker runs.
pub(crate) type SessionKey = u64;

/// How a session subscribed to a filter.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Subscription {
    pub(crate) qos: u8,
    pub(crate) no_local: bool,
    pub(crate) retain_as_published: bool,
    /// Subscription identifier.
    pub(crate) id: Option<u32>,
}

#[derive(Debug, Default)]
struct Node {
    children: HashMap<Box<str>, Node>,
    subscribers: BTreeMap<SessionKey, Subscription>,
}

impl Node {
    fn is_empty(&self) -> bool {
        self.children.is_empty() && self.subscribers.is_empty()
    }
}

/// All subscriptions of all sessions.
#[derive(Debug, Default)]
pub(crate) struct Trie {
    root: Node,
}

impl Trie {
    /// Adds or replaces a subscription.
    pub(crate) fn insert(&mut self, filter: &str, session: SessionKey, subscription: Subscription) {
        let mut node = &mut self.root;
        for level in filter.split('/') {
            node = node.children.entry(level.into()).or_default();
        }
        node.subscribers.insert(session, subscription);
    }

    /// Removes a subscription and the nodes that only it needed.
    pub(crate) fn remove(&mut self, filter: &str, session: SessionKey) {
        fn walk(
            node: &mut Node,
            level: Option<&str>,
            rest: &mut std::str::Split<'_, char>,
            session: SessionKey,
        ) {
            let Some(level) = level else {
                node.subscribers.remove(&session);
                return;
            };
            let Some(child) = node.children.get_mut(level) else {
                return;
            };
            let next = rest.next();
            walk(child, next, rest, session);
            if child.is_empty() {
                node.children.remove(level);
            }
        }
        let mut levels = filter.split('/');
        let first = levels.next();
        walk(&mut self.root, first, &mut levels, session);
    }

    /// Calls `found` for every subscription whose filter matches `topic`; a session with several
    /// matching filters is named several times. (MQTT 5.0 section 4.7)
    pub(crate) fn matching<'a>(
        &'a self,
        topic: &str,
        found: &mut impl FnMut(SessionKey, &'a Subscription),
    ) {
        let system = topic.starts_with('$');
        walk_matching(&self.root, topic, !system, found);
    }
}

fn walk_matching<'a>(
    node: &'a Node,
    rest: &str,
    wildcards: bool,
    found: &mut impl FnMut(SessionKey, &'a Subscription),
) {
    let (level, after) = match rest.split_once('/') {
        Some((level, after)) => (level, Some(after)),
        None => (rest, None),
    };
    if wildcards && let Some(all) = node.children.get("#") {
        report(all, found);
    }
    let plus = if wildcards {
        node.children.get("+")
    } else {
        None
    };
    for child in [node.children.get(level), plus].into_iter().flatten() {
        match after {
            Some(after) => walk_matching(child, after, true, found),
            None => {
                report(child, found);
                // "sport/#" also matches "sport" itself.
                if let Some(all) = child.children.get("#") {
                    report(all, found);
                }
            }
        }
    }
}

fn report<'a>(node: &'a Node, found: &mut impl FnMut(SessionKey, &'a Subscription)) {
    for (session, subscription) in &node.subscribers {
        found(*session, subscription);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn subscription() -> Subscription {
        Subscription {
            qos: 1,
            no_local: false,
            retain_as_published: false,
            id: None,
        }
    }

    fn matched(trie: &Trie, topic: &str) -> Vec<SessionKey> {
        let mut keys = Vec::new();
        trie.matching(topic, &mut |key, _| keys.push(key));
        keys.sort_unstable();
        keys
    }

    #[test]
    fn wildcards_do_not_match_system_topics() {
        let mut trie = Trie::default();
        trie.insert("#", 1, subscription());
        trie.insert("+/x", 2, subscription());
        trie.insert("$SYS/#", 3, subscription());
        assert_eq!(matched(&trie, "$SYS/x"), [3]);
        assert_eq!(matched(&trie, "a/x"), [1, 2]);
    }

    #[test]
    fn removing_the_last_subscription_frees_its_nodes() {
        let mut trie = Trie::default();
        trie.insert("a/b/c", 1, subscription());
        trie.insert("a/b", 2, subscription());
        trie.remove("a/b/c", 1);
        trie.remove("a/b", 2);
        assert!(trie.root.is_empty());
    }

    fn level() -> impl Strategy<Value = String> {
        prop_oneof![
            Just("a".to_owned()),
            Just("b".to_owned()),
            Just(String::new()),
            Just("$x".to_owned())
        ]
    }

    proptest! {
        #[test]
        fn the_trie_agrees_with_matching_one_by_one(
            filters in proptest::collection::vec((proptest::collection::vec(prop_oneof![3 => level(), 1 => Just("+".to_owned())], 1..4), any::<bool>()), 1..12),
            topic in proptest::collection::vec(level(), 1..5),
        ) {
            let topic = topic.join("/");
            prop_assume!(!topic.is_empty());
            let mut trie = Trie::default();
            let mut expected = Vec::new();
            for (index, (levels, hash)) in filters.iter().enumerate() {
                let filter = levels.join("/") + if *hash { "/#" } else { "" };
                trie.insert(&filter, index as u64, subscription());
                if thinglog_schemas::topic::matches(&filter, &topic) {
                    expected.push(index as u64);
                }
            }
            prop_assert_eq!(matched(&trie, &topic), expected);
        }
    }
}
