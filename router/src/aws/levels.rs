//! Levels of targets: V2LoggingLevel.

use serde_json::{Map, Value, json};
use thinglog_schemas::resolve::Document;
use thinglog_schemas::topic::ConfigTopic;
use thinglog_schemas::{Level, name};

use super::error::Error;
use super::input::{Page, needed, text};
use super::options::must_be_configured;
use super::{Answer, Call};
use crate::registry::{Change, Target, View};

/// AWS's kinds of targets, in the order of lists.
const KINDS: [&str; 5] = [
    "DEFAULT",
    "THING_GROUP",
    "CLIENT_ID",
    "SOURCE_IP",
    "PRINCIPAL_ID",
];

fn target(kind: &str, name: Option<&str>) -> Result<Target, Error> {
    let of = |own: &str| {
        let name = name.filter(|name| !name.is_empty());
        named(own, needed(name, "targetName")?, "targetName")
    };
    match kind {
        "DEFAULT" if name.is_some() => Err(Error::invalid("the target DEFAULT has no name")),
        "DEFAULT" => Ok(Target::Default),
        "THING_GROUP" => of("group"),
        "CLIENT_ID" => of("device"),
        "SOURCE_IP" => of("source-ip"),
        "PRINCIPAL_ID" => of("principal"),
        _ => Err(unknown_kind()),
    }
}

/// The target of a kind, by a name that is encoded where topics need it.
pub(super) fn named(kind: &str, name: &str, field: &str) -> Result<Target, Error> {
    let target = Target::of(kind, name)?;
    match name::is_valid(name) || given(&target) == name {
        true => Ok(target),
        false => Err(Error::invalid(format!(
            "{field} is too long: 1-128 characters, of which all but A-Z a-z 0-9 . _ : - count as 3 a byte"
        ))),
    }
}

/// A target's name as it was given to [`named`].
pub(super) fn given(target: &Target) -> String {
    let name = target.name().unwrap_or_default();
    match target {
        Target::Principal(_) | Target::Source(_) => text(name).unwrap_or_else(|_| name.to_owned()),
        _ => name.to_owned(),
    }
}

fn unknown_kind() -> Error {
    Error::invalid(format!("targetType must be one of {}", KINDS.join(", ")))
}

/// Place in [`KINDS`], and name; `None` for what AWS has no kind for.
fn place(target: &Target) -> Option<(usize, &str)> {
    let kind = match target {
        Target::Default => 0,
        Target::Group(_) => 1,
        Target::Device(_) => 2,
        Target::SourceIp(_) => 3,
        Target::Principal(_) => 4,
        Target::Source(_) => return None,
    };
    Some((kind, target.name().unwrap_or_default()))
}

/// SetV2LoggingLevel.
pub(super) async fn set(mut call: Call<'_>) -> Answer {
    let level = call.input.level("logLevel")?;
    let mut asked = needed(call.input.object("logTarget")?, "logTarget")?;
    let kind = needed(asked.text("targetType")?, "logTarget.targetType")?;
    let name = asked.text("targetName")?;
    asked.end()?;
    let call = call.ended()?;
    let (level, target) = (needed(level, "logLevel")?, target(&kind, name.as_deref())?);
    call.fleet.read(|view| {
        must_be_configured(&view)?;
        match &target {
            Target::Group(group) if !view.group_exists(group) => Err(Error::invalid(format!(
                "thing group {group:?} does not exist"
            ))),
            _ => Ok(()),
        }
    })??;
    patch(&call, target, json!(level)).await
}

/// DeleteV2LoggingLevel. A target without a level is none already.
pub(super) async fn delete(mut call: Call<'_>) -> Answer {
    let kind = needed(call.input.query_text("targetType"), "targetType")?;
    let name = call.input.query_text("targetName");
    let call = call.ended()?;
    if kind == "DEFAULT" {
        let reason = "the default keeps a level; set another one, or disableAllLogs";
        return Err(Error::invalid(reason));
    }
    let target = target(&kind, name.as_deref())?;
    patch(&call, target, Value::Null).await
}

/// Sets or removes the level alone: what else the document says stays.
async fn patch(call: &Call<'_>, target: Target, level: Value) -> Answer {
    let patch = Map::from_iter([("level".to_owned(), level)]);
    let change = Change::PatchLevel { target, patch };
    call.fleet.change(change, call.caller).await?;
    Ok(Value::Null)
}

/// ListV2LoggingLevels.
pub(super) fn list(mut call: Call<'_>) -> Answer {
    let kind = call.input.query_text("targetType");
    let page = call.input.page()?;
    let call = call.ended()?;
    let only = kind
        .map(|kind| {
            KINDS
                .iter()
                .position(|known| *known == kind)
                .ok_or_else(unknown_kind)
        })
        .transpose()?;
    call.fleet.read(|view| {
        call.caller.may_look()?;
        let all = levels(&view);
        if all.is_empty() {
            must_be_configured(&view)?;
        }
        let seen = all
            .into_iter()
            .filter(|(_, target, _)| call.caller.sees(&view, target));
        let asked = seen.filter(|((kind, _), ..)| only.is_none_or(|only| only == *kind));
        Ok(answer(&page, asked))
    })?
}

type Entry = ((usize, String), Target, Level);

/// Every target that AWS has a kind for and that has a level, in the order of lists.
fn levels(view: &View<'_>) -> Vec<Entry> {
    let documents = view.fleet().documents().into_iter();
    let level = |(topic, document): (ConfigTopic<'_>, Document<'_>)| {
        let Document::Level(document) = document else {
            return None;
        };
        let target = Target::of_topic(topic)?;
        let (kind, name) = place(&target)?;
        Some(((kind, name.to_owned()), target.clone(), document.level?))
    };
    let mut levels: Vec<Entry> = documents.filter_map(level).collect();
    levels.sort_by(|a, b| a.0.cmp(&b.0));
    levels
}

fn answer(page: &Page, levels: impl Iterator<Item = Entry>) -> Value {
    let entries = levels.map(|((kind, name), target, level)| {
        let mut shown = json!({"targetType": KINDS[kind]});
        if !name.is_empty() {
            shown["targetName"] = json!(given(&target));
        }
        let entry = json!({"logTarget": shown, "logLevel": level});
        (format!("{kind}/{name}"), entry)
    });
    let (entries, next) = page.of(entries);
    let mut answer = json!({"logTargetConfigurations": entries});
    if let Some(next) = next {
        answer["nextToken"] = json!(next);
    }
    answer
}
