//! Thing groups, static and dynamic.

use serde_json::{Map, Value, json};
use thinglog_schemas::config::LevelDocument;
use thinglog_schemas::json::parse_time;
use thinglog_schemas::resolve::Group;

use super::error::Error;
use super::input::{Input, needed, new_name, old_name};
use super::{Answer, Call, arn};
use crate::registry::{Attributes, Change, GroupPatch, NewGroup, View};

/// What AWS calls the index and the language of queries.
const INDEX: &str = "AWS_Things";
const QUERY_VERSION: &str = "2017-09-30";

/// `thingGroupProperties` as they were given.
#[derive(Default)]
struct Properties {
    description: Option<String>,
    attributes: Option<Attributes>,
    merge: bool,
}

impl Properties {
    fn read(input: &mut Input) -> Result<Properties, Error> {
        let Some(mut given) = input.object("thingGroupProperties")? else {
            return Ok(Properties::default());
        };
        let description = given.text("thingGroupDescription")?;
        let payload = given.object("attributePayload")?;
        given.end()?;
        let (attributes, merge) = match payload {
            Some(payload) => attributes(payload)?,
            None => (None, false),
        };
        Ok(Properties {
            description,
            attributes,
            merge,
        })
    }

    /// Those of a group that is made.
    fn of_new(self) -> NewGroup {
        let attributes = self.attributes.unwrap_or_default().into_iter();
        NewGroup {
            description: self.description.filter(|text| !text.is_empty()),
            attributes: attributes
                .filter_map(|(name, value)| Some((name, value?)))
                .collect(),
            ..NewGroup::default()
        }
    }

    fn patch(self) -> GroupPatch {
        let description = self.description;
        GroupPatch {
            description: description.map(|text| Some(text).filter(|text| !text.is_empty())),
            replace_attributes: self.attributes.is_some() && !self.merge,
            attributes: self.attributes.unwrap_or_default(),
            ..GroupPatch::default()
        }
    }
}

/// An `attributePayload`: the attributes, of which an empty value removes one, and whether they are merged
/// with those there are.
pub(super) fn attributes(mut payload: Input) -> Result<(Option<Attributes>, bool), Error> {
    let given = payload.texts_by_name("attributes")?;
    let merge = payload.flag("merge")?.unwrap_or(false);
    payload.end()?;
    let values = given.map(|given| {
        let value =
            |(name, value): (String, String)| (name, Some(value).filter(|value| !value.is_empty()));
        given.into_iter().map(value).collect()
    });
    Ok((values, merge))
}

/// CreateThingGroup.
pub(super) async fn create(mut call: Call<'_>, name: &str) -> Answer {
    let name = new_name(name, "thing group")?;
    let parent = call.input.text("parentGroupName")?;
    let properties = Properties::read(&mut call.input)?;
    let call = call.ended()?;
    let group = NewGroup {
        parent: parent
            .map(|parent| old_name(&parent, "thing group"))
            .transpose()?,
        ..properties.of_new()
    };
    make(&call, &name, group)
        .await
        .map_err(|error| match error.is_not_found() {
            // The one thing that may be missing is the parent, and AWS has no other error for it.
            true => Error::invalid("the parent group does not exist"),
            false => error,
        })
}

/// CreateDynamicThingGroup.
pub(super) async fn create_dynamic(mut call: Call<'_>, name: &str) -> Answer {
    let name = new_name(name, "thing group")?;
    let properties = Properties::read(&mut call.input)?;
    let query = needed(query(&mut call.input)?, "queryString")?;
    let call = call.ended()?;
    let group = NewGroup {
        query: Some(query.clone()),
        ..properties.of_new()
    };
    let mut answer = make(&call, &name, group).await.map_err(Error::of_query)?;
    answer["indexName"] = json!(INDEX);
    answer["queryString"] = json!(query);
    answer["queryVersion"] = json!(QUERY_VERSION);
    Ok(answer)
}

/// `queryString`, with an index and a version that it can have here.
fn query(input: &mut Input) -> Result<Option<String>, Error> {
    let (index, version) = (input.text("indexName")?, input.text("queryVersion")?);
    if index.is_some_and(|index| index != INDEX) {
        return Err(Error::invalid(format!("indexName must be {INDEX}")));
    }
    if version.is_some_and(|version| version != QUERY_VERSION) {
        return Err(Error::invalid(format!(
            "queryVersion must be {QUERY_VERSION}"
        )));
    }
    input.text("queryString")
}

async fn make(call: &Call<'_>, name: &str, group: NewGroup) -> Answer {
    let is_dynamic = group.query.is_some();
    let change = Change::CreateGroup {
        name: name.to_owned(),
        group,
    };
    let made = call.fleet.change(change, call.caller).await;
    let (id, arn) = call.fleet.read(|view| {
        let group = view.fleet().group(name);
        let id = id(name, group.and_then(|group| group.document));
        (id, arn::of_group(name))
    })?;
    made.map_err(|refusal| {
        let error = Error::from(refusal);
        match is_dynamic {
            true => error,
            false => error.without_limit(),
        }
        .about(&id, &arn)
    })?;
    Ok(json!({"thingGroupName": name, "thingGroupArn": arn, "thingGroupId": id}))
}

fn id(name: &str, document: Option<&LevelDocument>) -> String {
    arn::id(
        "thinggroup",
        name,
        document.and_then(|document| document.created.as_deref()),
    )
}

/// A group that the caller may see.
pub(super) fn seen<'a>(
    call: &Call<'_>,
    view: &View<'a>,
    name: &'a str,
) -> Result<Group<'a>, Error> {
    call.caller.may_look()?;
    let group = view.fleet().group(name);
    let group = group.ok_or_else(|| Error::not_found("thing group", name))?;
    match call.caller.sees_group(view, name) {
        true => Ok(group),
        false => Err(Error::denied(format!(
            "{}: thing group {name:?} is none of yours",
            call.caller.name
        ))),
    }
}

/// DescribeThingGroup.
pub(super) fn describe(call: Call<'_>, name: &str) -> Answer {
    let name = old_name(name, "thing group")?;
    let call = call.ended()?;
    call.fleet.read(|view| {
        let group = seen(&call, &view, &name)?;
        Ok(described(&group))
    })?
}

fn described(group: &Group<'_>) -> Value {
    let document = group.document;
    let name = group.name;
    let mut answer = json!({
        "thingGroupName": name,
        "thingGroupId": id(name, document),
        "thingGroupArn": arn::of_group(name),
        "version": document.and_then(|document| document.version).unwrap_or(1),
    });
    let mut properties = Map::new();
    if let Some(description) = document.and_then(|document| document.description.as_ref()) {
        properties.insert("thingGroupDescription".into(), json!(description));
    }
    let attributes = document.map(|document| &document.attributes);
    if let Some(attributes) = attributes.filter(|attributes| !attributes.is_empty()) {
        let payload = json!({ "attributes": attributes });
        properties.insert("attributePayload".into(), payload);
    }
    answer["thingGroupProperties"] = Value::Object(properties);
    let mut metadata = Map::new();
    if let Some(parent) = group.parent {
        metadata.insert("parentGroupName".into(), json!(parent));
        let from_root: Vec<Value> = group
            .ancestors
            .iter()
            .rev()
            .map(|name| entry(name))
            .collect();
        metadata.insert("rootToParentThingGroups".into(), json!(from_root));
    }
    let created = document.and_then(|document| parse_time(document.created.as_deref()?));
    if let Some(created) = created {
        metadata.insert("creationDate".into(), json!(created as f64 / 1e9));
    }
    answer["thingGroupMetadata"] = Value::Object(metadata);
    if let Some(query) = document.and_then(|document| document.query.as_ref()) {
        answer["indexName"] = json!(INDEX);
        answer["queryString"] = json!(query);
        answer["queryVersion"] = json!(QUERY_VERSION);
        answer["status"] = json!("ACTIVE");
    }
    answer
}

/// A group as lists have it.
pub(super) fn entry(name: &str) -> Value {
    json!({"groupName": name, "groupArn": arn::of_group(name)})
}

/// UpdateThingGroup.
pub(super) async fn update(mut call: Call<'_>, name: &str) -> Answer {
    let properties = Properties::read(&mut call.input)?;
    let expected_version = call.input.version("expectedVersion")?;
    let call = call.ended()?;
    let name = must_be(&call, name, false)?.unwrap_or_else(|| name.to_owned());
    let patch = GroupPatch {
        expected_version,
        ..properties.patch()
    };
    change(&call, &name, patch).await
}

/// UpdateDynamicThingGroup.
pub(super) async fn update_dynamic(mut call: Call<'_>, name: &str) -> Answer {
    let properties = Properties::read(&mut call.input)?;
    let expected_version = call.input.version("expectedVersion")?;
    let query = query(&mut call.input)?;
    let call = call.ended()?;
    let name = must_be(&call, name, true)?.unwrap_or_else(|| name.to_owned());
    let gives_query = query.is_some();
    let patch = GroupPatch {
        expected_version,
        query,
        ..properties.patch()
    };
    change(&call, &name, patch)
        .await
        .map_err(|error| match gives_query {
            true => error.of_query(),
            false => error,
        })
}

async fn change(call: &Call<'_>, name: &str, patch: GroupPatch) -> Answer {
    let name = old_name(name, "thing group")?;
    let change = Change::UpdateGroup {
        name: name.clone(),
        patch,
    };
    let changed = call.fleet.change(change, call.caller).await;
    changed.map_err(|refusal| Error::from(refusal).without_limit())?;
    let version = call.fleet.read(|view| {
        let group = view.fleet().group(&name);
        group.and_then(|group| group.document?.version).unwrap_or(1)
    })?;
    Ok(json!({ "version": version }))
}

/// The name of a group of this kind; `None` if there is no such group at all.
fn must_be(call: &Call<'_>, name: &str, dynamic: bool) -> Result<Option<String>, Error> {
    let name = old_name(name, "thing group")?;
    let is_dynamic = call.fleet.read(|view| {
        let group = view.fleet().group(&name);
        group.map(|group| {
            group
                .document
                .is_some_and(|document| document.query.is_some())
        })
    })?;
    match is_dynamic {
        None => Ok(None),
        Some(is) if is == dynamic => Ok(Some(name)),
        Some(true) => Err(Error::invalid(format!(
            "thing group {name:?} is a dynamic one"
        ))),
        Some(false) => Err(Error::invalid(format!(
            "thing group {name:?} is a static one"
        ))),
    }
}

/// DeleteThingGroup and DeleteDynamicThingGroup. A group that is not there is deleted already.
pub(super) async fn delete(mut call: Call<'_>, name: &str, dynamic: bool) -> Answer {
    let expected_version = call.input.query_version("expectedVersion")?;
    let call = call.ended()?;
    let Some(name) = must_be(&call, name, dynamic)? else {
        return Ok(Value::Null);
    };
    let change = Change::DeleteGroup {
        name,
        expected_version,
    };
    match call
        .fleet
        .change(change, call.caller)
        .await
        .map_err(Error::from)
    {
        Err(error) if !error.is_not_found() => Err(error),
        _ => Ok(Value::Null),
    }
}

/// ListThingGroups. Without a parent all groups, or with `recursive=false` those without one; with a
/// parent the groups in it, or with `recursive=true` also those below them.
pub(super) fn list(mut call: Call<'_>) -> Answer {
    let parent = call.input.query_text("parentGroup");
    let prefix = call
        .input
        .query_text("namePrefixFilter")
        .unwrap_or_default();
    let recursive = call.input.query_flag("recursive")?;
    let page = call.input.page()?;
    let call = call.ended()?;
    call.fleet.read(|view| {
        call.caller.may_look()?;
        if let Some(parent) = &parent {
            seen(&call, &view, parent)?;
        }
        let belongs = |name: &str| {
            let group = view.fleet().group(name);
            let above = group.map(|group| group.ancestors).unwrap_or_default();
            match (&parent, recursive) {
                (None, Some(false)) => above.is_empty(),
                (None, _) => true,
                (Some(parent), Some(true)) => above.contains(&parent.as_str()),
                (Some(parent), _) => above.first() == Some(&parent.as_str()),
            }
        };
        let names = view.fleet().groups().into_iter();
        let names = names.filter(|name| name.starts_with(&prefix));
        let names = names.filter(|name| belongs(name) && call.caller.sees_group(&view, name));
        let (groups, next) = page.of(names.map(|name| (name.to_owned(), entry(name))));
        Ok(answer("thingGroups", json!(groups), next))
    })?
}

/// A list as it is answered.
pub(super) fn answer(field: &str, entries: Value, next: Option<String>) -> Value {
    let mut answer = Map::from_iter([(field.to_owned(), entries)]);
    if let Some(next) = next {
        answer.insert("nextToken".into(), json!(next));
    }
    Value::Object(answer)
}
