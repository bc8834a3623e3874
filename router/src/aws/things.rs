//! Things: the devices that are known, and what operators say of them.

use serde_json::{Map, Value, json};
use thinglog_schemas::config::LevelDocument;
use thinglog_schemas::resolve::Document;
use thinglog_schemas::topic::ConfigTopic;

use super::error::Error;
use super::groups::{answer, attributes};
use super::input::{new_name, old_name};
use super::{Answer, Call, arn};
use crate::registry::{Change, DevicePatch, View};

/// Things looked at under one lock, and for one page.
const AT_ONCE: usize = 2_000;
const FOR_A_PAGE: usize = 200_000;

/// What an operator says of a thing; nothing where it was only seen.
fn document<'a>(view: &View<'a>, thing: &'a str) -> Option<&'a LevelDocument> {
    match view.fleet().document(ConfigTopic::Device(thing)) {
        Some(Document::Level(document)) => Some(document),
        _ => None,
    }
}

fn id(thing: &str, document: Option<&LevelDocument>) -> String {
    arn::id(
        "thing",
        thing,
        document.and_then(|document| document.created.as_deref()),
    )
}

/// Refuses things that are not there, or not the caller's to see.
pub(super) fn must_see(call: &Call<'_>, view: &View<'_>, thing: &str) -> Result<(), Error> {
    call.caller.may_look()?;
    if !view.device_exists(thing) {
        return Err(Error::not_found("thing", thing));
    }
    match call.caller.sees_device(view, thing) {
        true => Ok(()),
        false => Err(Error::denied(format!(
            "{}: thing {thing:?} is in none of your groups",
            call.caller.name
        ))),
    }
}

/// CreateThing. The type is kept as it is given; types are not declared anywhere.
pub(super) async fn create(mut call: Call<'_>, name: &str) -> Answer {
    let name = new_name(name, "thing")?;
    let device_type = call.input.text("thingTypeName")?;
    let device_type = device_type
        .map(|name| new_name(&name, "thing type"))
        .transpose()?;
    let payload = call.input.object("attributePayload")?;
    let call = call.ended()?;
    let given = payload.map(attributes).transpose()?;
    let given = given
        .and_then(|(given, _)| given)
        .unwrap_or_default()
        .into_iter();
    let change = Change::CreateDevice {
        name: name.clone(),
        device_type,
        attributes: given
            .filter_map(|(name, value)| Some((name, value?)))
            .collect(),
    };
    let made = call.fleet.change(change, call.caller).await;
    let (id, arn) = call
        .fleet
        .read(|view| (id(&name, document(&view, &name)), arn::of_thing(&name)))?;
    made.map_err(|refusal| Error::from(refusal).without_limit().about(&id, &arn))?;
    Ok(json!({"thingName": name, "thingArn": arn, "thingId": id}))
}

/// DescribeThing.
pub(super) fn describe(call: Call<'_>, name: &str) -> Answer {
    let name = old_name(name, "thing")?;
    let call = call.ended()?;
    call.fleet.read(|view| {
        must_see(&call, &view, &name)?;
        let mut answer = shown(&view, &name);
        answer.insert("defaultClientId".into(), json!(name));
        answer.insert("thingId".into(), json!(id(&name, document(&view, &name))));
        Ok(Value::Object(answer))
    })?
}

/// A thing as lists have it.
fn shown(view: &View<'_>, name: &str) -> Map<String, Value> {
    let document = document(view, name);
    let mut shown = Map::new();
    shown.insert("thingName".into(), json!(name));
    shown.insert("thingArn".into(), json!(arn::of_thing(name)));
    let attributes = document.map(|document| document.attributes.clone());
    shown.insert("attributes".into(), json!(attributes.unwrap_or_default()));
    let version = document.and_then(|document| document.version).unwrap_or(1);
    shown.insert("version".into(), json!(version));
    if let Some(kind) = document.and_then(|document| document.kind.as_ref()) {
        shown.insert("thingTypeName".into(), json!(kind));
    }
    shown
}

/// UpdateThing.
pub(super) async fn update(mut call: Call<'_>, name: &str) -> Answer {
    let name = old_name(name, "thing")?;
    let device_type = call.input.text("thingTypeName")?;
    let device_type = device_type
        .map(|name| new_name(&name, "thing type"))
        .transpose()?;
    let removes_type = call.input.flag("removeThingType")?.unwrap_or(false);
    let expected_version = call.input.version("expectedVersion")?;
    let payload = call.input.object("attributePayload")?;
    let call = call.ended()?;
    if removes_type && device_type.is_some() {
        return Err(Error::invalid(
            "removeThingType and thingTypeName contradict each other",
        ));
    }
    let (given, merge) = payload.map(attributes).transpose()?.unwrap_or_default();
    let patch = DevicePatch {
        device_type: match removes_type {
            true => Some(None),
            false => device_type.map(Some),
        },
        replace_attributes: given.is_some() && !merge,
        attributes: given.unwrap_or_default(),
        expected_version,
    };
    let changed = call
        .fleet
        .change(Change::UpdateDevice { name, patch }, call.caller)
        .await;
    changed.map_err(|refusal| Error::from(refusal).without_limit())?;
    Ok(Value::Null)
}

/// DeleteThing. A thing that is not there is deleted already.
pub(super) async fn delete(mut call: Call<'_>, name: &str) -> Answer {
    let name = old_name(name, "thing")?;
    let expected_version = call.input.query_version("expectedVersion")?;
    let call = call.ended()?;
    let change = Change::DeleteDevice {
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

/// What a list of things is limited to.
struct Filter {
    attribute: Option<String>,
    value: Option<String>,
    is_prefix: bool,
    kind: Option<String>,
}

impl Filter {
    fn takes(&self, view: &View<'_>, thing: &str) -> bool {
        let document = document(view, thing);
        let kind = document.and_then(|document| document.kind.as_ref());
        if self.kind.is_some() && self.kind.as_ref() != kind {
            return false;
        }
        let Some(attribute) = &self.attribute else {
            return true;
        };
        let value = document.and_then(|document| document.attributes.get(attribute));
        value.is_some_and(|value| match &self.value {
            None => true,
            Some(wanted) if self.is_prefix => value.starts_with(wanted.as_str()),
            Some(wanted) => value == wanted,
        })
    }
}

/// ListThings. A page may be short, even empty, when much had to be looked at for little.
pub(super) async fn list(mut call: Call<'_>) -> Answer {
    let filter = Filter {
        attribute: call.input.query_text("attributeName"),
        value: call.input.query_text("attributeValue"),
        is_prefix: call
            .input
            .query_flag("usePrefixAttributeValue")?
            .unwrap_or(false),
        kind: call.input.query_text("thingTypeName"),
    };
    match &filter.attribute {
        None if filter.value.is_some() => {
            return Err(Error::invalid("attributeValue without attributeName"));
        }
        Some(name) if name.is_empty() => return Err(Error::invalid("attributeName is empty")),
        _ => {}
    }
    let page = call.input.page()?;
    let call = call.ended()?;
    call.caller.may_look()?;
    let (mut things, mut last) = (Vec::new(), page.after.clone());
    for _ in 0..FOR_A_PAGE / AT_ONCE {
        let is_end = call.fleet.read(|view| {
            let names = view.device_names(last.as_deref(), AT_ONCE);
            for name in &names {
                if things.len() == page.limit {
                    return false;
                }
                if call.caller.sees_device(&view, name) && filter.takes(&view, name) {
                    things.push(Value::Object(shown(&view, name)));
                }
                last = Some(name.clone());
            }
            names.len() < AT_ONCE
        })?;
        if is_end {
            last = None;
        }
        if is_end || things.len() == page.limit {
            break;
        }
        tokio::task::yield_now().await;
    }
    Ok(answer(
        "things",
        json!(things),
        last.map(|last| page.token(&last)),
    ))
}
