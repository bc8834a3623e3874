//! The rules of the module's head, written down as they read, over the documents as they were sent.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::{Level, json::parse_time, resolve::Who};

#[derive(Default)]
pub(super) struct Rules {
    documents: BTreeMap<String, Value>,
}

impl Rules {
    pub(super) fn set(&mut self, topic: &str, document: &str) {
        match document {
            "" => self.documents.remove(topic),
            _ => self
                .documents
                .insert(topic.to_owned(), serde_json::from_str(document).unwrap()),
        };
    }

    pub(super) fn level(&self, who: &Who<'_>, source: &str, time: u64) -> Level {
        if self
            .documents
            .get("default")
            .is_some_and(|default| default["disabled"] == true)
        {
            return Level::Disabled;
        }
        let running = |topic: String| {
            self.says(&topic, source)
                .filter(|_| self.runs(&topic, time))
        };
        let lasting = |topic: String| self.says(&topic, source);
        let device = who.device;
        let mut answer = running(format!("override/device/{device}"));
        answer = answer
            .or_else(|| self.in_groups(device, |group| running(format!("override/group/{group}"))));
        answer = answer.or_else(|| running("override/default".into()));
        answer = answer.or_else(|| lasting(format!("device/{device}")));
        answer = answer.or_else(|| lasting(format!("principal/{}", who.principal?)));
        answer = answer.or_else(|| lasting(format!("source-ip/{}", who.address?)));
        answer =
            answer.or_else(|| self.in_groups(device, |group| lasting(format!("group/{group}"))));
        answer = answer.or_else(|| lasting(format!("source/{source}")));
        answer = answer.or_else(|| lasting("default".into()));
        answer.unwrap_or(Level::Info)
    }

    /// Within a hierarchy the nearest that speaks, across hierarchies the most verbose.
    fn in_groups(&self, device: &str, says: impl Fn(&str) -> Option<Level>) -> Option<Level> {
        let mut best = None;
        for topic in self.documents.keys() {
            let Some(member) = topic.strip_prefix("member/") else {
                continue;
            };
            let (mut group, of) = member.split_once('/').unwrap();
            if of != device {
                continue;
            }
            let nearest = loop {
                if let Some(level) = says(group) {
                    break Some(level);
                }
                let document = self.documents.get(&format!("group/{group}"));
                match document.and_then(|document| document["parent"].as_str()) {
                    Some(parent) => group = parent,
                    None => break None,
                }
            };
            best = best.max(nearest);
        }
        best
    }

    fn says(&self, topic: &str, source: &str) -> Option<Level> {
        let document = self.documents.get(topic)?;
        let word = document["sources"][source]
            .as_str()
            .or(document["level"].as_str())?;
        Some(word.parse().unwrap())
    }

    fn runs(&self, topic: &str, time: u64) -> bool {
        let until = self.documents[topic]["until"].as_str().unwrap();
        time < parse_time(until).unwrap()
    }
}
