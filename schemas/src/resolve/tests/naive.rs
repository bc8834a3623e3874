//! The rules of the heads of the modules, written down as they read, over the documents as they were
//! sent: nothing is kept, everything is looked for in all documents each time.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::{
    Level,
    config::Attributes,
    json::parse_time,
    query::{Query, Thing},
    resolve::{Report, Who},
};

#[derive(Default)]
pub(super) struct Rules {
    documents: BTreeMap<String, Value>,
    reports: BTreeMap<String, Report>,
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

    pub(super) fn report(&mut self, device: &str, report: Option<Report>) {
        match report {
            Some(report) => self.reports.insert(device.to_owned(), report),
            None => self.reports.remove(device),
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
        let parents = self.parents();
        let nearest = |group: &String| chain(&parents, group).iter().find_map(|group| says(group));
        self.direct(device).iter().filter_map(nearest).max()
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

    /// Documents below `prefix`, the oldest first, then by name.
    fn by_age(&self, prefix: &str) -> Vec<(String, &Value)> {
        let below = |(topic, document)| {
            let topic: &String = topic;
            Some((topic.strip_prefix(prefix)?.to_owned(), document))
        };
        let mut all: Vec<(String, &Value)> = self.documents.iter().filter_map(below).collect();
        all.sort_by_key(|(name, document)| {
            let told = document["created"].as_str().or(document["at"].as_str());
            (told.map_or(0, |at| parse_time(at).unwrap()), name.clone())
        });
        all
    }

    fn is_dynamic(&self, group: &str) -> bool {
        let document = self.documents.get(&format!("group/{group}"));
        document.is_some_and(|document| document["query"].is_string())
    }

    /// The parents that stand.
    pub(super) fn parents(&self) -> BTreeMap<String, String> {
        let mut standing = BTreeMap::new();
        for (group, document) in self.by_age("group/") {
            let Some(parent) = document["parent"].as_str() else {
                continue;
            };
            let mut with = standing.clone();
            with.insert(group, parent.to_owned());
            if !self.is_dynamic(parent) && valid(&with) {
                standing = with;
            }
        }
        standing
    }

    /// The groups a device is in itself.
    pub(super) fn direct(&self, device: &str) -> Vec<String> {
        let parents = self.parents();
        let mut groups: Vec<String> = Vec::new();
        let suffix = format!("/{device}");
        for (member, _) in self.by_age("member/") {
            let Some(group) = member.strip_suffix(&suffix) else {
                continue;
            };
            let root = |group: &str| chain(&parents, group).pop();
            let taken = groups.iter().any(|other| root(other) == root(group));
            if !taken && !self.is_dynamic(group) && groups.len() < 10 {
                groups.push(group.to_owned());
            }
        }
        let all = groups.iter().flat_map(|group| chain(&parents, group));
        let all: BTreeSet<String> = all.collect();
        let dynamic = self.by_age("group/").into_iter();
        let dynamic = dynamic.filter(|(_, document)| document["query"].is_string());
        for (group, document) in dynamic.take(100) {
            let query = document["query"].as_str().unwrap();
            if groups.len() < 10 && self.matches(query, device, &all) {
                groups.push(group);
            }
        }
        groups.sort();
        groups
    }

    fn matches(&self, query: &str, device: &str, groups: &BTreeSet<String>) -> bool {
        let document = self.documents.get(&format!("device/{device}"));
        let pairs = document.and_then(|document| document["attributes"].as_object());
        let operator: Option<Attributes> = pairs.map(|pairs| {
            let text = |value: &Value| value.as_str().unwrap().to_owned();
            pairs
                .iter()
                .map(|(key, value)| (key.clone(), text(value)))
                .collect()
        });
        let report = self.reports.get(device);
        Query::parse(query).unwrap().matches(&Thing {
            name: device,
            kind: document.and_then(|document| document["type"].as_str()),
            operator: operator.as_ref(),
            reported: report.map(|report| &report.attributes),
            online: Some(report.is_some_and(|report| report.online)),
            any_group: &|wanted| groups.iter().any(|group| wanted(group)),
        })
    }
}

/// The group and its ancestors, nearest first.
fn chain(parents: &BTreeMap<String, String>, group: &str) -> Vec<String> {
    let mut chain = vec![group.to_owned()];
    while let Some(parent) = parents.get(chain.last().unwrap()) {
        chain.push(parent.clone());
        assert!(chain.len() <= 9, "a cycle");
    }
    chain
}

/// No cycle, at most 7 levels, at most 100 children.
fn valid(parents: &BTreeMap<String, String>) -> bool {
    let too_deep = |group: &String| {
        let mut at = group;
        (0..7).all(|_| match parents.get(at) {
            Some(parent) => {
                at = parent;
                true
            }
            None => false,
        })
    };
    let children = |of: &String| parents.values().filter(|parent| *parent == of).count();
    !parents.keys().any(too_deep) && parents.values().all(|parent| children(parent) <= 100)
}
