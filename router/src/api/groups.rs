//! `/api/v1/groups`: thing groups and who is in them.

use std::collections::BTreeMap;

use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::{get, put};
use axum::{Extension, Router};
use serde::Deserialize;
use serde_json::{Value, json};
use thinglog_schemas::topic::ConfigTopic;

use super::body::{Asked, asked, nullable, read};
use super::levels::must_see;
use super::list::{Listed, PIECE, Page, answered, list, listed};
use super::overrides::running;
use super::{Answer, By, Fleet, answer, nothing, ok};
use crate::registry::{
    Attributes, Caller, Change, GroupPatch, NewGroup, Refusal, Registry, Target, View, valid,
};

pub(super) fn routes() -> Router<Registry> {
    Router::new()
        .route("/api/v1/groups", get(all).post(create))
        .route(
            "/api/v1/groups/{name}",
            get(one).patch(update).delete(delete),
        )
        .route("/api/v1/groups/{name}/members", get(members))
        .route(
            "/api/v1/groups/{name}/members/{device}",
            put(join).delete(leave),
        )
}

/// What the document says, the groups in it, how many devices are in it itself, and its temporary
/// level. `None` when there is no such group.
fn shown(view: &View<'_>, name: &str) -> Option<Value> {
    let group = view.fleet().group(name)?;
    let mut shown = view.document(ConfigTopic::Group(name)).unwrap_or_default();
    let fleet = view.fleet();
    shown.insert("name".into(), json!(name));
    shown.insert("ancestors".into(), json!(group.ancestors));
    shown.insert("children".into(), json!(group.children));
    let members = fleet.direct_members(name).len();
    shown.insert("members".into(), json!(members));
    if let Some(running) = running(view, &Target::Group(name.into())) {
        shown.insert("override".into(), running);
    }
    Some(Value::Object(shown))
}

async fn all(State(fleet): Fleet, Extension(caller): By, page: Asked<Page>) -> Answer {
    groups(&fleet, &caller, asked(page)?).await.map(answered)
}

/// A page of the groups that the caller may see.
pub(super) async fn groups(
    fleet: &Registry,
    caller: &Caller,
    page: Page,
) -> Result<Listed, Refusal> {
    caller.may_look()?;
    listed(fleet, page, |view, after, found| {
        let names = view.fleet().groups();
        let from = after.map_or(0, |after| names.partition_point(|name| *name <= after));
        for name in &names[from..] {
            let item = match caller.sees_group(view, name) {
                true => shown(view, name),
                false => None,
            };
            if found.look(name, item).is_break() {
                return;
            }
        }
    })
    .await
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    name: String,
    parent: Option<String>,
    query: Option<String>,
    description: Option<String>,
    #[serde(default)]
    attributes: BTreeMap<String, String>,
}

async fn create(State(fleet): Fleet, Extension(caller): By, body: Bytes) -> Answer {
    let wanted: Wanted = read(&body)?;
    let name = valid(&wanted.name, "group")?;
    let group = NewGroup {
        parent: wanted.parent,
        query: wanted.query,
        description: wanted.description,
        attributes: wanted.attributes,
    };
    let change = Change::CreateGroup {
        name: name.clone(),
        group,
    };
    let done = fleet.change(change, &caller).await?;
    let status = match done.writes.is_empty() {
        true => StatusCode::OK,
        false => StatusCode::CREATED,
    };
    Ok(answer(status, &found(&fleet, &name)?))
}

fn found(fleet: &Registry, name: &str) -> Result<Value, Refusal> {
    let shown = fleet.read(|view| shown(&view, name))?;
    shown.ok_or_else(|| Refusal::not_found(format!("group {name:?}")))
}

async fn one(State(fleet): Fleet, Extension(caller): By, Path(name): Path<String>) -> Answer {
    seen(&fleet, &caller, &name).map(|group| ok(&group))
}

/// A group that the caller may see.
pub(super) fn seen(fleet: &Registry, caller: &Caller, name: &str) -> Result<Value, Refusal> {
    let target = Target::Group(name.to_owned());
    fleet.read(|view| must_see(caller, &view, &target))??;
    found(fleet, name)
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Patch {
    #[serde(default, deserialize_with = "nullable")]
    description: Option<Option<String>>,
    #[serde(default)]
    attributes: Attributes,
    query: Option<String>,
    expected_version: Option<u64>,
}

async fn update(
    State(fleet): Fleet,
    Extension(caller): By,
    Path(name): Path<String>,
    body: Bytes,
) -> Answer {
    let patch: Patch = read(&body)?;
    let name = valid(&name, "group")?;
    let patch = GroupPatch {
        description: patch.description,
        attributes: patch.attributes,
        replace_attributes: false,
        query: patch.query,
        expected_version: patch.expected_version,
    };
    let change = Change::UpdateGroup {
        name: name.clone(),
        patch,
    };
    fleet.change(change, &caller).await?;
    found(&fleet, &name).map(|group| ok(&group))
}

async fn delete(State(fleet): Fleet, Extension(caller): By, Path(name): Path<String>) -> Answer {
    let change = Change::DeleteGroup {
        name: valid(&name, "group")?,
        expected_version: None,
    };
    fleet.change(change, &caller).await.map(|_| nothing())
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Which {
    recursive: Option<bool>,
    limit: Option<String>,
    cursor: Option<String>,
}

async fn members(
    State(fleet): Fleet,
    Extension(caller): By,
    Path(name): Path<String>,
    which: Asked<Which>,
) -> Answer {
    let which = asked(which)?;
    let target = Target::Group(name.clone());
    fleet.read(|view| {
        must_see(&caller, &view, &target)?;
        match view.group_exists(&name) {
            true => Ok(()),
            false => Err(Refusal::not_found(format!("group {name:?}"))),
        }
    })??;
    let page = Page {
        limit: which.limit,
        cursor: which.cursor,
    };
    let recursive = which.recursive.unwrap_or(false);
    list(&fleet, page, |view, after, found| {
        let members = view.fleet().members_behind(&name, recursive, after, PIECE);
        for device in &members {
            if found.look(device, Some(json!(device))).is_break() {
                return;
            }
        }
    })
    .await
}

async fn join(
    State(fleet): Fleet,
    Extension(caller): By,
    Path((group, device)): Path<(String, String)>,
) -> Answer {
    let (group, device) = (valid(&group, "group")?, valid(&device, "device")?);
    let told = json!({"group": group, "device": device});
    let change = Change::Join { group, device };
    fleet.change(change, &caller).await.map(|_| ok(&told))
}

async fn leave(
    State(fleet): Fleet,
    Extension(caller): By,
    Path((group, device)): Path<(String, String)>,
) -> Answer {
    let (group, device) = (valid(&group, "group")?, valid(&device, "device")?);
    let change = Change::Leave { group, device };
    fleet.change(change, &caller).await.map(|_| nothing())
}
