//! From a change to the documents that have to be published for it. Pure.
//!
//! A document is read, changed and written whole, so that fields which a change does not concern stay.
//! It carries who wrote it and when (`by`, `at`); one that would say nothing more is removed. What
//! would say the same as before is not written at all.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use thinglog_schemas::topic::ConfigTopic;

use super::change::{Attributes, Change, DevicePatch, GroupPatch, LEVEL_PART, NewGroup, Target};
use super::refusal::{Code, Refusal};
use super::view::{Document, View};
use super::{Write, time_text};

/// Fields that say when and by whom a document was written, nothing about the fleet.
const BOOKKEEPING: [&str; 3] = ["by", "at", "version"];

/// What must be published so that `change` is made by `by` (its name); nothing when it stands already.
/// In this order, so that a plan that is cut short leaves nothing half removed that cannot be removed
/// by the same change again.
pub fn plan(change: &Change, view: &View<'_>, by: &str) -> Result<Vec<Write>, Refusal> {
    let writes = Planner { view, by }.plan(change)?;
    check(view, &writes)?;
    Ok(writes)
}

struct Planner<'a> {
    view: &'a View<'a>,
    by: &'a str,
}

type Planned = Result<Vec<Write>, Refusal>;

impl Planner<'_> {
    fn plan(&self, change: &Change) -> Planned {
        match change {
            Change::SetLevel { target, settings } => self.set_level(target, settings),
            Change::PatchLevel { target, patch } => self.patch_level(target, patch),
            Change::DeleteLevel { target } => self.delete_level(target),
            Change::SetOptions {
                role,
                level,
                disabled,
            } => {
                let mut document = self.document(ConfigTopic::Default);
                put(&mut document, "role", role.as_ref().map(|role| json!(role)));
                put(&mut document, "level", level.map(|level| json!(level)));
                put(&mut document, "disabled", disabled.map(Value::from));
                Ok(self.write(ConfigTopic::Default, document))
            }
            Change::SetOverride {
                target,
                level,
                until,
                sources,
            } => {
                if *until <= self.view.now {
                    let until = time_text(*until);
                    return Err(Refusal::invalid(format!("{until} is in the past")));
                }
                let mut document = Document::new();
                document.insert("level".into(), json!(level));
                document.insert("until".into(), json!(time_text(*until)));
                put_map(&mut document, "sources", json!(sources));
                Ok(self.write(overridden(target)?, document))
            }
            Change::DeleteOverride { target } => {
                let topic = overridden(target)?;
                match self.view.document(topic) {
                    Some(_) => Ok(vec![Write::remove(topic)]),
                    None => Err(Refusal::not_found(format!("an override of {target}"))),
                }
            }
            Change::CreateGroup { name, group } => self.create_group(name, group),
            Change::UpdateGroup { name, patch } => self.update_group(name, patch),
            Change::DeleteGroup {
                name,
                expected_version,
            } => self.delete_group(name, *expected_version),
            Change::Join { group, device } => self.join(group, device),
            Change::Leave { group, device } => self.leave(group, device),
            Change::CreateDevice {
                name,
                device_type,
                attributes,
            } => self.create_device(name, device_type.as_ref(), attributes),
            Change::UpdateDevice { name, patch } => self.update_device(name, patch),
            Change::DeleteDevice {
                name,
                expected_version,
            } => self.delete_device(name, *expected_version),
        }
    }

    fn document(&self, topic: ConfigTopic<'_>) -> Document {
        self.view.document(topic).unwrap_or_default()
    }

    /// `document` in place of what stands on the topic.
    fn write(&self, topic: ConfigTopic<'_>, mut document: Document) -> Vec<Write> {
        let before = self.view.document(topic);
        let says = |document: &Document| {
            let mut document = document.clone();
            document.retain(|field, _| !matches!(field.as_str(), "by" | "at"));
            document
        };
        if before.as_ref().map(&says) == Some(says(&document)) {
            return Vec::new();
        }
        // An override or membership is said by being there; a level document by what it says.
        let by_being_there = Target::of_topic(topic).is_none();
        let says_more = |field: &String| !BOOKKEEPING.contains(&field.as_str());
        if !by_being_there && !document.keys().any(says_more) {
            return before.map(|_| Write::remove(topic)).into_iter().collect();
        }
        document.insert("by".into(), json!(self.by));
        document.insert("at".into(), json!(time_text(self.view.now)));
        vec![Write::put(topic, document)]
    }

    fn set_level(&self, target: &Target, settings: &Map<String, Value>) -> Planned {
        let mut document = self.document(target.topic());
        document.retain(|field, _| !LEVEL_PART.contains(&field.as_str()));
        for (field, value) in settings {
            check_level_field(field)?;
            if !value.is_null() {
                document.insert(field.clone(), value.clone());
            }
        }
        Ok(self.write(target.topic(), document))
    }

    /// As a JSON merge patch (RFC 7396).
    fn patch_level(&self, target: &Target, patch: &Map<String, Value>) -> Planned {
        let mut document = self.document(target.topic());
        for (field, value) in patch {
            check_level_field(field)?;
            merge(&mut document, field, value);
        }
        Ok(self.write(target.topic(), document))
    }

    fn delete_level(&self, target: &Target) -> Planned {
        let mut document = self.document(target.topic());
        let before = document.len();
        document.retain(|field, _| !LEVEL_PART.contains(&field.as_str()));
        match document.len() < before {
            true => Ok(self.write(target.topic(), document)),
            false => Err(Refusal::not_found(format!("a level of {target}"))),
        }
    }

    fn create_group(&self, name: &str, group: &NewGroup) -> Planned {
        let topic = ConfigTopic::Group(name);
        let before = self.document(topic);
        if let Some(parent) = &group.parent
            && !self.view.group_exists(parent)
        {
            return Err(Refusal::not_found(format!("the parent, group {parent:?},")));
        }
        let mut document = before.clone();
        for (field, value) in [
            ("parent", &group.parent),
            ("query", &group.query),
            ("description", &group.description),
        ] {
            document.remove(field);
            put(
                &mut document,
                field,
                value.as_ref().map(|value| json!(value)),
            );
        }
        put_map(&mut document, "attributes", json!(group.attributes));
        self.declare(topic, &format!("group {name:?}"), before, document)
    }

    fn create_device(
        &self,
        name: &str,
        device_type: Option<&String>,
        attributes: &BTreeMap<String, String>,
    ) -> Planned {
        let topic = ConfigTopic::Device(name);
        let before = self.document(topic);
        let mut document = before.clone();
        document.remove("type");
        put(&mut document, "type", device_type.map(|value| json!(value)));
        put_map(&mut document, "attributes", json!(attributes));
        self.declare(topic, &format!("device {name:?}"), before, document)
    }

    /// Writes a document that makes something exist. What was declared before must be the same; a
    /// document that only set a level is taken over.
    fn declare(
        &self,
        topic: ConfigTopic<'_>,
        what: &str,
        before: Document,
        mut document: Document,
    ) -> Planned {
        if before.contains_key("created") && before != document {
            return Err(Refusal::new(
                Code::ResourceAlreadyExists,
                format!("{what} exists already and is not the same"),
            ));
        }
        if !before.contains_key("created") {
            document.insert("created".into(), json!(time_text(self.view.now)));
            document.insert("version".into(), json!(1));
        }
        Ok(self.write(topic, document))
    }

    fn update_group(&self, name: &str, patch: &GroupPatch) -> Planned {
        let topic = ConfigTopic::Group(name);
        if !self.view.group_exists(name) {
            return Err(Refusal::not_found(format!("group {name:?}")));
        }
        let mut document = self.document(topic);
        expect_version(&document, patch.expected_version)?;
        if patch.query.is_some() && !document.contains_key("query") {
            return Err(Refusal::invalid(format!(
                "group {name:?} is a static one; a group stays what it was created as"
            )));
        }
        put(
            &mut document,
            "query",
            patch.query.as_ref().map(|query| json!(query)),
        );
        set(&mut document, "description", patch.description.as_ref());
        set_attributes(&mut document, &patch.attributes, patch.replace_attributes);
        Ok(self.next_version(topic, document))
    }

    fn update_device(&self, name: &str, patch: &DevicePatch) -> Planned {
        let topic = ConfigTopic::Device(name);
        if !self.view.device_exists(name) {
            return Err(Refusal::not_found(format!("device {name:?}")));
        }
        let mut document = self.document(topic);
        expect_version(&document, patch.expected_version)?;
        set(&mut document, "type", patch.device_type.as_ref());
        set_attributes(&mut document, &patch.attributes, patch.replace_attributes);
        Ok(self.next_version(topic, document))
    }

    /// Writes an updated document under the next version; one that is declared by it as its first.
    fn next_version(&self, topic: ConfigTopic<'_>, mut document: Document) -> Vec<Write> {
        if self.view.document(topic).as_ref() == Some(&document) {
            return Vec::new();
        }
        let version = match document.contains_key("created") {
            true => version_of(&document) + 1,
            false => version_of(&document),
        };
        document.insert("version".into(), json!(version));
        let created = || json!(time_text(self.view.now));
        document.entry("created").or_insert_with(created);
        self.write(topic, document)
    }

    fn delete_group(&self, name: &str, expected_version: Option<u64>) -> Planned {
        if !self.view.group_exists(name) {
            return Err(Refusal::not_found(format!("group {name:?}")));
        }
        let document = self.document(ConfigTopic::Group(name));
        expect_version(&document, expected_version)?;
        if let Some(child) = self.view.children(name).next() {
            return Err(Refusal::invalid(format!(
                "group {name:?} is the parent of {child:?}; delete its children first"
            )));
        }
        let members = self.view.members(name, None);
        let members = members.map(|device| ConfigTopic::Member {
            group: name,
            device,
        });
        let own = [ConfigTopic::OverrideGroup(name), ConfigTopic::Group(name)];
        let topics = members.chain(own);
        Ok(topics.filter_map(|topic| self.removed(topic)).collect())
    }

    fn join(&self, group: &str, device: &str) -> Planned {
        if !self.view.group_exists(group) {
            return Err(Refusal::not_found(format!("group {group:?}")));
        }
        if self
            .document(ConfigTopic::Group(group))
            .contains_key("query")
        {
            return Err(Refusal::invalid(format!(
                "group {group:?} is a dynamic one; its query says who is in it"
            )));
        }
        match self.view.is_member(group, device) {
            true => Ok(Vec::new()),
            false => Ok(self.write(ConfigTopic::Member { group, device }, Document::new())),
        }
    }

    fn leave(&self, group: &str, device: &str) -> Planned {
        if !self.view.group_exists(group) {
            return Err(Refusal::not_found(format!("group {group:?}")));
        }
        let membership = ConfigTopic::Member { group, device };
        Ok(self.removed(membership).into_iter().collect())
    }

    fn delete_device(&self, name: &str, expected_version: Option<u64>) -> Planned {
        if !self.view.device_exists(name) {
            return Err(Refusal::not_found(format!("device {name:?}")));
        }
        let document = self.document(ConfigTopic::Device(name));
        expect_version(&document, expected_version)?;
        let groups = self.view.memberships(name).into_iter();
        let memberships = groups.map(|group| ConfigTopic::Member {
            group,
            device: name,
        });
        let own = [ConfigTopic::OverrideDevice(name), ConfigTopic::Device(name)];
        let topics = memberships.chain(own);
        // `desired` first: no router writes it anew while the others go one by one, and that nothing names
        // the device while it is gone says that the device was deleted.
        let mut writes = vec![
            Write::clear(format!("desired/{name}")),
            Write::clear(format!("reported/{name}")),
        ];
        writes.extend(topics.filter_map(|topic| self.removed(topic)));
        Ok(writes)
    }

    fn removed(&self, topic: ConfigTopic<'_>) -> Option<Write> {
        self.view.document(topic).map(|_| Write::remove(topic))
    }
}

/// Whether the documents can stand beside all others. Removals always can.
fn check(view: &View<'_>, writes: &[Write]) -> Result<(), Refusal> {
    let written = writes.iter().filter(|write| write.document.is_some());
    for write in written {
        let topic = ConfigTopic::parse(&write.topic);
        let topic = topic.map_err(|error| Refusal::invalid(error.to_string()))?;
        view.check(topic, &write.payload())?;
    }
    Ok(())
}

fn check_level_field(field: &str) -> Result<(), Refusal> {
    match LEVEL_PART.contains(&field) {
        true => Ok(()),
        false => Err(Refusal::invalid(format!(
            "{:?} is no field of a level; there are {}",
            field.chars().take(40).collect::<String>(),
            LEVEL_PART.join(", ")
        ))),
    }
}

/// The topic of a target's override; not every target can have one.
pub fn override_topic(target: &Target) -> Option<ConfigTopic<'_>> {
    match target {
        Target::Default => Some(ConfigTopic::OverrideDefault),
        Target::Group(name) => Some(ConfigTopic::OverrideGroup(name)),
        Target::Device(name) => Some(ConfigTopic::OverrideDevice(name)),
        _ => None,
    }
}

fn overridden(target: &Target) -> Result<ConfigTopic<'_>, Refusal> {
    override_topic(target).ok_or_else(|| {
        Refusal::invalid(format!(
            "{target} cannot be overridden; the default, groups and devices can"
        ))
    })
}

/// 1 for what nobody has updated through the API.
pub(super) fn version_of(document: &Document) -> u64 {
    let version = document.get("version").and_then(Value::as_u64);
    version.unwrap_or(1)
}

fn expect_version(document: &Document, expected: Option<u64>) -> Result<(), Refusal> {
    let version = version_of(document);
    match expected {
        Some(expected) if expected != version => Err(Refusal::new(
            Code::VersionConflict,
            format!("version {expected} is expected, it is {version}"),
        )),
        _ => Ok(()),
    }
}

/// Sets a field if there is something to set.
fn put(document: &mut Document, field: &str, value: Option<Value>) {
    if let Some(value) = value {
        document.insert(field.into(), value);
    }
}

/// Sets a field, removes it (`Some(None)`), or leaves it alone.
fn set(document: &mut Document, field: &str, value: Option<&Option<String>>) {
    match value {
        None => {}
        Some(None) => drop(document.remove(field)),
        Some(Some(value)) => drop(document.insert(field.into(), json!(value))),
    }
}

/// Sets a field to an object, or removes it where that is empty.
fn put_map(document: &mut Document, field: &str, value: Value) {
    match value.as_object().is_some_and(Map::is_empty) {
        true => drop(document.remove(field)),
        false => drop(document.insert(field.into(), value)),
    }
}

fn set_attributes(document: &mut Document, changes: &Attributes, replace: bool) {
    let mut attributes = match document.get("attributes") {
        Some(Value::Object(attributes)) if !replace => attributes.clone(),
        _ => Map::new(),
    };
    if !replace && changes.is_empty() {
        return;
    }
    for (key, value) in changes {
        match value {
            Some(value) => drop(attributes.insert(key.clone(), json!(value))),
            None => drop(attributes.remove(key)),
        }
    }
    put_map(document, "attributes", Value::Object(attributes));
}

/// RFC 7396 for one field; an object that became empty goes.
fn merge(document: &mut Document, field: &str, patch: &Value) {
    match patch {
        Value::Null => drop(document.remove(field)),
        Value::Object(patch) => {
            let mut merged = match document.remove(field) {
                Some(Value::Object(before)) => before,
                _ => Map::new(),
            };
            for (field, value) in patch {
                merge(&mut merged, field, value);
            }
            if !merged.is_empty() {
                document.insert(field.into(), Value::Object(merged));
            }
        }
        value => drop(document.insert(field.into(), value.clone())),
    }
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
