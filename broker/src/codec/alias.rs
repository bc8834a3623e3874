//! Topic aliases from the broker to one client (MQTT 5.0 section 3.3.2.3.4): the topics used last have
//! one, as many as the client allows.
//!
//! An alias is planned before a packet's size is known and noted once the packet is written, so that
//! one that is dropped teaches the client nothing and the broker believes nothing of it.

/// More than these are not used towards any client, so that looking one up stays quick.
const MOST: u16 = 16;

/// Longer topics get none, so that a connection keeps little.
const LONGEST: usize = 1 << 10;

/// How a PUBLISH names its topic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Alias {
    /// By its name alone.
    #[default]
    None,
    /// By its name, which the client is to remember under a number.
    New(u16),
    /// By a number that the client remembers.
    Known(u16),
}

#[derive(Debug)]
struct Entry {
    topic: Box<[u8]>,
    used: u64,
}

/// The aliases of one connection.
#[derive(Debug)]
pub(crate) struct Aliases {
    most: usize,
    entries: Vec<Entry>,
    /// Counts uses, to tell which topic was used longest ago.
    uses: u64,
}

impl Aliases {
    /// For a client with this Topic Alias Maximum.
    pub(crate) fn new(maximum: u16) -> Aliases {
        Aliases {
            most: usize::from(maximum.min(MOST)),
            entries: Vec::new(),
            uses: 0,
        }
    }

    /// How the next PUBLISH may name this topic.
    pub(crate) fn plan(&self, topic: &[u8]) -> Alias {
        if self.most == 0 || topic.len() > LONGEST {
            return Alias::None;
        }
        if let Some(index) = self.entries.iter().position(|entry| *entry.topic == *topic) {
            return Alias::Known(index as u16 + 1);
        }
        if self.entries.len() < self.most {
            return Alias::New(self.entries.len() as u16 + 1);
        }
        let oldest = self
            .entries
            .iter()
            .enumerate()
            .min_by_key(|(_, entry)| entry.used);
        oldest.map_or(Alias::None, |(index, _)| Alias::New(index as u16 + 1))
    }

    /// A PUBLISH with a planned alias is on its way.
    pub(crate) fn note(&mut self, alias: Alias, topic: &[u8]) {
        self.uses += 1;
        let used = self.uses;
        match alias {
            Alias::None => {}
            Alias::Known(number) => {
                if let Some(entry) = self.entries.get_mut(usize::from(number) - 1) {
                    entry.used = used;
                }
            }
            Alias::New(number) => {
                let topic = topic.into();
                match self.entries.get_mut(usize::from(number) - 1) {
                    Some(entry) => *entry = Entry { topic, used },
                    None => self.entries.push(Entry { topic, used }),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_topic_used_longest_ago_gives_its_alias_up() {
        let mut aliases = Aliases::new(2);
        for (topic, expected) in [
            ("a", Alias::New(1)),
            ("b", Alias::New(2)),
            ("a", Alias::Known(1)),
            ("c", Alias::New(2)),
            ("b", Alias::New(1)),
        ] {
            let alias = aliases.plan(topic.as_bytes());
            assert_eq!(alias, expected, "{topic}");
            aliases.note(alias, topic.as_bytes());
        }
    }

    #[test]
    fn a_client_that_allows_none_gets_none() {
        assert_eq!(Aliases::new(0).plan(b"a"), Alias::None);
    }

    proptest! {
        #[test]
        fn the_client_always_knows_what_is_meant(
            maximum in 0u16..6,
            publishes in proptest::collection::vec((0u8..8, any::<bool>()), 0..200),
        ) {
            let mut aliases = Aliases::new(maximum);
            let mut client = std::collections::HashMap::new();
            for (topic, is_dropped) in publishes {
                let topic = [topic];
                let alias = aliases.plan(&topic);
                if is_dropped {
                    continue;
                }
                aliases.note(alias, &topic);
                match alias {
                    Alias::None => prop_assert_eq!(maximum, 0),
                    Alias::New(number) => {
                        prop_assert!(number > 0 && number <= maximum);
                        client.insert(number, topic);
                    }
                    Alias::Known(number) => prop_assert_eq!(client.get(&number), Some(&topic)),
                }
            }
        }
    }
}
