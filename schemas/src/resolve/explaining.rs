//! How an [`Explanation`] is made: from the documents, rule by rule, as the rules read, and not from
//! what answers events; a test holds the two against each other.

use std::collections::BTreeSet;

use super::{
    Explanation, Fleet, LevelDocument, Outcome, Problem, Rule, RuleKind, Setting, Who, Window,
    apply::member_topic, resolved::says,
};
use crate::{Level, config::Limits, config::Upload, json, topic::ConfigTopic};

/// A rule on its way through the questions.
struct Candidate {
    rule: Rule,
    /// Rules of one step are asked together.
    step: usize,
    /// Index of the hierarchy, for groups.
    chain: Option<usize>,
    speaks: bool,
}

impl Fleet {
    /// Why an event of `source` (without: of any source that nobody names) that happened at `time` (ns
    /// since the Unix epoch) passes or does not.
    pub fn explain(&self, who: &Who<'_>, source: Option<&str>, time: u64) -> Explanation {
        let groups = self.groups_for(who.device);
        let mut candidates = self.candidates(who, source.unwrap_or(""), time);
        decide(&mut candidates);
        let rules: Vec<Rule> = candidates.into_iter().map(|it| it.rule).collect();
        let won = rules.iter().find(|rule| rule.outcome == Outcome::Won);
        let level = won.and_then(|rule| rule.level).unwrap_or(Level::Info);
        let subject = match source {
            Some(source) => format!("{source} of {}", who.device),
            None => format!("{}, sources that nothing names,", who.device),
        };
        let because = won.map_or("", |rule| &rule.why);
        let place = won.and_then(|rule| rule.topic.as_deref());
        let place = place.map_or("nothing else speaks".to_owned(), |topic| {
            format!("{topic} {because}")
        });
        let why = format!("{subject} has level {level}: {place}");
        let mut text = Vec::new();
        json::write_time(time, &mut text);
        Explanation {
            device: who.device.to_owned(),
            source: source.map(str::to_owned),
            principal: who.principal.map(str::to_owned),
            address: who.address.map(str::to_owned),
            time: String::from_utf8(text).unwrap_or_default(),
            level,
            why,
            problems: self.problems_of(who.device, &rules),
            rules,
            groups: groups.iter().map(ToString::to_string).collect(),
            settings: self.settings_of(who.device),
        }
    }

    fn candidates(&self, who: &Who<'_>, source: &str, time: u64) -> Vec<Candidate> {
        let mut all = vec![self.disabled_rule()];
        let device = ConfigTopic::OverrideDevice(who.device);
        all.push(self.override_rule(RuleKind::OverrideDevice, device, source, time));
        let groups = self.groups_for(who.device);
        for (index, direct) in groups.iter().enumerate() {
            for group in self.forest.chain(direct) {
                let topic = ConfigTopic::OverrideGroup(group);
                if self.window(topic).is_some() {
                    let rule = self.override_rule(RuleKind::OverrideGroup, topic, source, time);
                    all.push(rule.of(direct, index));
                }
            }
        }
        let default = ConfigTopic::OverrideDefault;
        all.push(self.override_rule(RuleKind::OverrideDefault, default, source, time));
        let device = ConfigTopic::Device(who.device);
        all.push(self.level_rule(RuleKind::Device, device, source));
        all.push(match who.principal {
            Some(name) => {
                self.level_rule(RuleKind::Principal, ConfigTopic::Principal(name), source)
            }
            None => unknown(
                RuleKind::Principal,
                "it is not known as whom the device publishes",
            ),
        });
        all.push(match who.address {
            Some(text) => self.level_rule(RuleKind::SourceIp, ConfigTopic::SourceIp(text), source),
            None => unknown(
                RuleKind::SourceIp,
                "it is not known from where the device publishes",
            ),
        });
        for (index, direct) in groups.iter().enumerate() {
            for group in self.forest.chain(direct) {
                let rule = self.level_rule(RuleKind::Group, ConfigTopic::Group(group), source);
                all.push(rule.of(direct, index));
            }
        }
        if !source.is_empty() {
            all.push(self.level_rule(RuleKind::Source, ConfigTopic::Source(source), source));
        }
        all.push(self.level_rule(RuleKind::Default, ConfigTopic::Default, source));
        let built_in = rule(RuleKind::BuiltIn, None, Some(Level::Info));
        all.push(Candidate::new(built_in));
        all
    }

    fn disabled_rule(&self) -> Candidate {
        let default = self.default.as_deref();
        let disabled = default.is_some_and(|default| default.disabled);
        let level = disabled.then_some(Level::Disabled);
        let mut candidate =
            Candidate::new(rule(RuleKind::Disabled, Some(ConfigTopic::Default), level));
        candidate.sign(
            default.and_then(|it| it.by.as_ref()),
            default.and_then(|it| it.at.as_ref()),
        );
        if !disabled {
            candidate.settle(Outcome::Silent, "does not switch all logs off");
        }
        candidate
    }

    fn override_rule(
        &self,
        kind: RuleKind,
        topic: ConfigTopic<'_>,
        source: &str,
        time: u64,
    ) -> Candidate {
        let window = self.window(topic).map(|window| &**window);
        let level = window.map(|window: &Window| window.level(source));
        let mut candidate = Candidate::new(rule(kind, Some(topic), level));
        let Some(window) = window else {
            candidate.settle(Outcome::Absent, "is not there");
            return candidate;
        };
        let document = &window.document;
        candidate.sign(document.by.as_ref(), document.at.as_ref());
        candidate.rule.by_source = document.sources.contains_key(source);
        candidate.rule.until = Some(document.until.clone());
        if !window.runs(time) {
            let said = level.unwrap_or(document.level);
            let why = format!("said {said} until {}, which was over", document.until);
            candidate.settle(Outcome::Ended, why);
        }
        candidate
    }

    fn level_rule(&self, kind: RuleKind, topic: ConfigTopic<'_>, source: &str) -> Candidate {
        let document = self.level_document(topic);
        let level = document.and_then(|document: &LevelDocument| says(document, source));
        let mut candidate = Candidate::new(rule(kind, Some(topic), level));
        let Some(document) = document else {
            candidate.settle(Outcome::Absent, "is not there");
            return candidate;
        };
        candidate.sign(document.by.as_ref(), document.at.as_ref());
        candidate.rule.by_source = document.sources.contains_key(source);
        if level.is_none() {
            let why = match document.sources.is_empty() {
                true => "says no level",
                false => "says levels of other sources only",
            };
            candidate.settle(Outcome::Silent, why);
        }
        candidate
    }

    /// What of the documents that were asked, and of the device's memberships, does not act.
    fn problems_of(&self, device: &str, rules: &[Rule]) -> Vec<Problem> {
        let mut topics: BTreeSet<String> =
            rules.iter().filter_map(|rule| rule.topic.clone()).collect();
        for group in self.groups_for(device).iter() {
            topics.extend(
                self.forest
                    .chain(group)
                    .map(|group| ConfigTopic::Group(group).to_string()),
            );
        }
        let claims = self
            .devices
            .get(device)
            .into_iter()
            .flat_map(|entry| entry.claims.iter());
        topics.extend(claims.map(|claim| member_topic(&claim.group, device)));
        let problems = topics.iter().flat_map(|topic| {
            let unreadable = self.refused.get(topic).map(super::groups::unreadable);
            unreadable.into_iter().chain(self.problem(topic))
        });
        problems.collect()
    }

    /// Upload and limits, field by field from the first document that has it: the device's, its
    /// groups' (nearest first; hierarchies by name of the device's group), the default.
    fn settings_of(&self, device: &str) -> Vec<Setting> {
        let groups = self.groups_for(device);
        let chains = groups.iter().flat_map(|group| self.forest.chain(group));
        let topics = [ConfigTopic::Device(device)].into_iter();
        let topics = topics
            .chain(chains.map(ConfigTopic::Group))
            .chain([ConfigTopic::Default]);
        let mut settings: Vec<Setting> = Vec::new();
        for topic in topics {
            let document = self
                .level_document(topic)
                .filter(|document| document.has_settings());
            let Some((upload, limits)) = document.map(LevelDocument::settings) else {
                continue;
            };
            for (name, value) in fields(&upload, &limits) {
                if settings.iter().all(|known| known.name != name) {
                    let topic = topic.to_string();
                    settings.push(Setting { name, value, topic });
                }
            }
        }
        settings
    }
}

fn fields(upload: &Upload, limits: &Limits) -> Vec<(String, serde_json::Value)> {
    let tables = [
        ("upload", serde_json::to_value(upload)),
        ("limits", serde_json::to_value(limits)),
    ];
    let mut fields = Vec::new();
    for (table, value) in tables {
        if let Ok(serde_json::Value::Object(object)) = value {
            let named = object
                .into_iter()
                .map(|(key, value)| (format!("{table}.{key}"), value));
            fields.extend(named);
        }
    }
    fields
}

/// Which rule decides, and what becomes of the others.
fn decide(candidates: &mut [Candidate]) {
    farther(candidates);
    let speaks = |it: &&Candidate| it.speaks && it.rule.outcome != Outcome::Farther;
    let step = candidates.iter().filter(speaks).map(|it| it.step).min();
    let Some(step) = step else { return };
    let together = candidates
        .iter()
        .filter(speaks)
        .filter(|it| it.step == step);
    let level = together.filter_map(|it| it.rule.level).max();
    let decides = |it: &Candidate| speaks(&it) && it.step == step && it.rule.level == level;
    let Some(winner) = candidates.iter().position(decides) else {
        return;
    };
    let name = candidates[winner].rule.topic.clone().unwrap_or_default();
    for (at, candidate) in candidates.iter_mut().enumerate() {
        let says = candidate.rule.level.filter(|_| candidate.speaks);
        let Some(says) = says else { continue };
        if at == winner {
            let why = match (candidate.rule.kind, candidate.rule.by_source) {
                (RuleKind::Disabled, _) => "switches all logs off".to_owned(),
                (RuleKind::BuiltIn, _) => "INFO, because nothing else says a level".to_owned(),
                (_, true) => format!("decides, with {says} for this source"),
                (_, false) => format!("decides, with {says}"),
            };
            let why = match &candidate.rule.until {
                Some(until) => format!("{why} until {until}"),
                None => why,
            };
            candidate.settle(Outcome::Won, why);
        } else if candidate.step > step {
            let why = format!("says {says}, but {name} is asked first and decides");
            candidate.settle(Outcome::Outranked, why);
        } else if candidate.rule.outcome == Outcome::Farther {
            continue;
        } else if Some(says) == level {
            let why = format!("says {says} too, as {name} of another hierarchy");
            candidate.settle(Outcome::Agrees, why);
        } else {
            let most = level.unwrap_or(says);
            let why = format!(
                "says {says}, but {name} of another hierarchy says {most}, which is more verbose"
            );
            candidate.settle(Outcome::LessVerbose, why);
        }
    }
}

/// Within a hierarchy only the nearest that speaks counts.
fn farther(candidates: &mut [Candidate]) {
    let mut nearest: Vec<(usize, usize, String)> = Vec::new();
    for candidate in candidates.iter_mut().filter(|it| it.speaks) {
        let Some(chain) = candidate.chain else {
            continue;
        };
        let key = |(step, of, _): &&(usize, usize, String)| (*step, *of) == (candidate.step, chain);
        match (nearest.iter().find(key), candidate.rule.level) {
            (Some((_, _, nearer)), Some(says)) => {
                let why = format!(
                    "says {says}, but {nearer} is nearer to the device in the same hierarchy"
                );
                candidate.settle(Outcome::Farther, why);
                candidate.speaks = true;
            }
            _ => {
                let topic = candidate.rule.topic.clone().unwrap_or_default();
                nearest.push((candidate.step, chain, topic));
            }
        }
    }
}

impl Candidate {
    fn new(rule: Rule) -> Candidate {
        let step = match rule.kind {
            RuleKind::Disabled => 0,
            RuleKind::OverrideDevice => 1,
            RuleKind::OverrideGroup => 2,
            RuleKind::OverrideDefault => 3,
            RuleKind::Device => 4,
            RuleKind::Principal => 5,
            RuleKind::SourceIp => 6,
            RuleKind::Group => 7,
            RuleKind::Source => 8,
            RuleKind::Default => 9,
            RuleKind::BuiltIn => 10,
        };
        Candidate {
            speaks: rule.level.is_some(),
            rule,
            step,
            chain: None,
        }
    }

    fn of(mut self, direct: &str, index: usize) -> Candidate {
        self.chain = Some(index);
        self.rule.hierarchy = Some(direct.to_owned());
        self
    }

    fn sign(&mut self, by: Option<&String>, at: Option<&String>) {
        self.rule.by = by.cloned();
        self.rule.at = at.cloned();
    }

    fn settle(&mut self, outcome: Outcome, why: impl Into<String>) {
        self.speaks &= !matches!(outcome, Outcome::Ended | Outcome::Silent | Outcome::Absent);
        self.rule.outcome = outcome;
        self.rule.why = why.into();
    }
}

/// A rule about which nothing is decided yet.
fn rule(kind: RuleKind, topic: Option<ConfigTopic<'_>>, level: Option<Level>) -> Rule {
    Rule {
        kind,
        topic: topic.map(|topic| topic.to_string()),
        hierarchy: None,
        level,
        by_source: false,
        until: None,
        by: None,
        at: None,
        outcome: Outcome::Outranked,
        why: String::new(),
    }
}

fn unknown(kind: RuleKind, why: &str) -> Candidate {
    let mut candidate = Candidate::new(rule(kind, None, None));
    candidate.settle(Outcome::Unknown, why);
    candidate
}
