//! Who wants a topic: one node a filter level, found in the time of the topic's depth.

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

#[derive(Debug)]
struct Node<K, V> {
    children: HashMap<Box<str>, Node<K, V>>,
    subscribers: BTreeMap<K, V>,
}

impl<K, V> Default for Node<K, V> {
    fn default() -> Self {
        Node {
            children: HashMap::new(),
            subscribers: BTreeMap::new(),
        }
    }
}

impl<K, V> Node<K, V> {
    fn is_empty(&self) -> bool {
        self.children.is_empty() && self.subscribers.is_empty()
    }
}

/// Filters, each with those who subscribed to it (`K`) and how (`V`).
#[derive(Debug)]
pub(crate) struct Trie<K, V> {
    root: Node<K, V>,
}

impl<K, V> Default for Trie<K, V> {
    fn default() -> Self {
        Trie {
            root: Node::default(),
        }
    }
}

impl<K: Ord, V> Trie<K, V> {
    fn node_mut(&mut self, filter: &str) -> &mut Node<K, V> {
        let mut node = &mut self.root;
        for level in filter.split('/') {
            node = node.children.entry(level.into()).or_default();
        }
        node
    }

    /// Adds or replaces a subscription.
    pub(crate) fn insert(&mut self, filter: &str, key: K, value: V) {
        self.node_mut(filter).subscribers.insert(key, value);
    }

    /// What is there, or `make` if nothing is.
    pub(crate) fn get_or_insert_with(
        &mut self,
        filter: &str,
        key: K,
        make: impl FnOnce() -> V,
    ) -> &mut V {
        let subscribers = &mut self.node_mut(filter).subscribers;
        subscribers.entry(key).or_insert_with(make)
    }

    pub(crate) fn get(&self, filter: &str, key: &K) -> Option<&V> {
        let node = filter
            .split('/')
            .try_fold(&self.root, |node, level| node.children.get(level))?;
        node.subscribers.get(key)
    }

    pub(crate) fn get_mut(&mut self, filter: &str, key: &K) -> Option<&mut V> {
        let mut node = &mut self.root;
        for level in filter.split('/') {
            node = node.children.get_mut(level)?;
        }
        node.subscribers.get_mut(key)
    }

    /// Removes a subscription and the nodes that only it needed.
    pub(crate) fn remove(&mut self, filter: &str, key: &K) {
        fn walk<K: Ord, V>(
            node: &mut Node<K, V>,
            level: Option<&str>,
            rest: &mut std::str::Split<'_, char>,
            key: &K,
        ) {
            let Some(level) = level else {
                node.subscribers.remove(key);
                return;
            };
            let Some(child) = node.children.get_mut(level) else {
                return;
            };
            let next = rest.next();
            walk(child, next, rest, key);
            if child.is_empty() {
                node.children.remove(level);
            }
        }
        let mut levels = filter.split('/');
        let first = levels.next();
        walk(&mut self.root, first, &mut levels, key);
    }

    /// Calls `found` for every subscription whose filter matches `topic`; a subscriber with several
    /// matching filters is named several times. (MQTT 5.0 section 4.7)
    pub(crate) fn matching<'a>(&'a self, topic: &str, found: &mut impl FnMut(&'a K, &'a V)) {
        let system = topic.starts_with('$');
        walk_matching(&self.root, topic, !system, found);
    }
}

fn walk_matching<'a, K, V>(
    node: &'a Node<K, V>,
    rest: &str,
    wildcards: bool,
    found: &mut impl FnMut(&'a K, &'a V),
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

fn report<'a, K, V>(node: &'a Node<K, V>, found: &mut impl FnMut(&'a K, &'a V)) {
    for (key, value) in &node.subscribers {
        found(key, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn matched(trie: &Trie<u64, ()>, topic: &str) -> Vec<u64> {
        let mut keys = Vec::new();
        trie.matching(topic, &mut |key, ()| keys.push(*key));
        keys.sort_unstable();
        keys
    }

    #[test]
    fn wildcards_do_not_match_system_topics() {
        let mut trie = Trie::default();
        trie.insert("#", 1, ());
        trie.insert("+/x", 2, ());
        trie.insert("$SYS/#", 3, ());
        assert_eq!(matched(&trie, "$SYS/x"), [3]);
        assert_eq!(matched(&trie, "a/x"), [1, 2]);
    }

    #[test]
    fn removing_the_last_subscription_frees_its_nodes() {
        let mut trie = Trie::default();
        trie.insert("a/b/c", 1, ());
        trie.insert("a/b", 2, ());
        assert_eq!(
            (trie.get("a/b", &2), trie.get("a/b", &1)),
            (Some(&()), None)
        );
        trie.remove("a/b/c", &1);
        trie.remove("a/b", &2);
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
                trie.insert(&filter, index as u64, ());
                if thinglog_schemas::topic::matches(&filter, &topic) {
                    expected.push(index as u64);
                }
            }
            prop_assert_eq!(matched(&trie, &topic), expected);
        }
    }
}
