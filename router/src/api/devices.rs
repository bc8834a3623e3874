//! `/api/v1/devices`: what is known of devices, whatever made them known.

use std::collections::BTreeMap;

use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::get;
use axum::{Extension, Router};
use serde::Deserialize;
use serde_json::{Value, json};
use thinglog_schemas::query::Query;
use thinglog_schemas::resolve::Who;
use thinglog_schemas::topic::ConfigTopic;

use super::body::{Asked, asked, nullable, read};
use super::levels::must_see;
use super::list::{Listed, Page, answered, listed};
use super::overrides::running;
use super::{Answer, By, Fleet, answer, nothing, ok};
use crate::registry::{
    Attributes, Caller, Change, DevicePatch, Document, Refusal, Registry, Target, View, time_text,
    valid,
};

pub(super) fn routes() -> Router<Registry> {
    Router::new().route("/api/v1/devices", get(all)).route(
        "/api/v1/devices/{name}",
        get(one).put(create).patch(update).delete(delete),
    )
}

/// What an operator, the device itself and the broker say of a device, and what it should do.
pub(super) fn shown(view: &View<'_>, name: &str) -> Value {
    let fleet = view.fleet();
    let document = view.document(ConfigTopic::Device(name)).unwrap_or_default();
    let mut shown = Document::new();
    for field in ["type", "attributes", "created", "version", "by", "at"] {
        if let Some(value) = document.get(field) {
            // `version` is that of the device's own program here.
            let field = if field == "version" {
                "document_version"
            } else {
                field
            };
            shown.insert(field.into(), value.clone());
        }
    }
    let desired = fleet.desired(name, view.now);
    shown.insert("device".into(), json!(name));
    shown.insert("groups".into(), json!(fleet.groups_of(name)));
    shown.insert("desired_revision".into(), json!(desired.revision));
    said(view, name, &mut shown);
    let who = Who {
        device: name,
        principal: None,
        address: None,
    };
    let explained = fleet.explain(&who, None, view.now);
    shown.insert("level".into(), json!(explained.level));
    shown.insert("why".into(), json!(explained.why));
    if let Some(running) = running(view, &Target::Device(name.into())) {
        shown.insert("override".into(), running);
    }
    Value::Object(shown)
}

/// What the device reports of itself, and the broker of its connection.
fn said(view: &View<'_>, name: &str, shown: &mut Document) {
    let mut put = |field: &str, value: Value| {
        let empty = value.is_null() || value.as_object().is_some_and(serde_json::Map::is_empty);
        if !empty {
            shown.insert(field.into(), value);
        }
    };
    put(
        "last_contact",
        json!(view.last_contact(name).map(time_text)),
    );
    let Some(device) = view.device(name) else {
        return;
    };
    put("online", json!(device.online()));
    if let Some(connected) = device.connected() {
        put("principal", json!(connected.principal));
        put("address", json!(connected.address));
        put("connected_since", json!(connected.since.map(time_text)));
    }
    if let Some(reported) = device.reported() {
        put("version", json!(reported.version));
        put("revision", json!(reported.revision));
        put("spool_events", json!(reported.spool_events));
        put("spool_bytes", json!(reported.spool_bytes));
        put("dropped", json!(reported.dropped));
        put("dropped_by", json!(reported.dropped_by));
        put("upload", json!(reported.upload));
        put("persistent", json!(reported.persistent));
        put("clock_synced", json!(reported.clock_synced));
    }
    let report = view.fleet().reported(name);
    put(
        "reported_attributes",
        json!(report.map(|report| &report.attributes)),
    );
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Which {
    pub(super) group: Option<String>,
    pub(super) query: Option<String>,
    pub(super) online: Option<bool>,
    pub(super) limit: Option<String>,
    pub(super) cursor: Option<String>,
}

async fn all(State(fleet): Fleet, Extension(caller): By, which: Asked<Which>) -> Answer {
    page(&fleet, &caller, asked(which)?).await.map(answered)
}

/// A page of the devices that the caller may see.
pub(super) async fn page(
    fleet: &Registry,
    caller: &Caller,
    which: Which,
) -> Result<Listed, Refusal> {
    caller.may_look()?;
    let query = which.query.as_deref().map(Query::parse).transpose();
    let query = query.map_err(|error| Refusal::invalid(format!("query: {error}")))?;
    let page = Page {
        limit: which.limit,
        cursor: which.cursor,
    };
    listed(fleet, page, |view, after, found| {
        let online = |name: &str| {
            let known = view.device(name).and_then(|device| device.online());
            which
                .online
                .is_none_or(|wanted| known.unwrap_or(false) == wanted)
        };
        let in_group = |name: &str| {
            let groups = || view.fleet().groups_of(name);
            which
                .group
                .as_ref()
                .is_none_or(|group| groups().contains(group))
        };
        for name in view.devices(after) {
            let wanted = online(name)
                && in_group(name)
                && query
                    .as_ref()
                    .is_none_or(|query| view.fleet().matches(query, name, true))
                && caller.sees_device(view, name);
            let item = wanted.then(|| shown(view, name));
            if found.look(name, item).is_break() {
                return;
            }
        }
    })
    .await
}

async fn one(State(fleet): Fleet, Extension(caller): By, Path(name): Path<String>) -> Answer {
    seen(&fleet, &caller, &name).map(|device| ok(&device))
}

/// A device that the caller may see.
pub(super) fn seen(fleet: &Registry, caller: &Caller, name: &str) -> Result<Value, Refusal> {
    let target = Target::Device(name.to_owned());
    fleet.read(|view| must_see(caller, &view, &target))??;
    found(fleet, name)
}

fn found(fleet: &Registry, name: &str) -> Result<Value, Refusal> {
    fleet.read(|view| match view.device_exists(name) {
        true => Ok(shown(&view, name)),
        false => Err(Refusal::not_found(format!("device {name:?}"))),
    })?
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    #[serde(rename = "type")]
    device_type: Option<String>,
    #[serde(default)]
    attributes: BTreeMap<String, String>,
}

/// Declares a device.
async fn create(
    State(fleet): Fleet,
    Extension(caller): By,
    Path(name): Path<String>,
    body: Bytes,
) -> Answer {
    let wanted: Wanted = match body.is_empty() {
        true => Wanted::default(),
        false => read(&body)?,
    };
    let change = Change::CreateDevice {
        name: valid(&name, "device")?,
        device_type: wanted.device_type,
        attributes: wanted.attributes,
    };
    let done = fleet.change(change, &caller).await?;
    let status = match done.writes.is_empty() {
        true => StatusCode::OK,
        false => StatusCode::CREATED,
    };
    Ok(answer(status, &found(&fleet, &name)?))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Patch {
    #[serde(default, rename = "type", deserialize_with = "nullable")]
    device_type: Option<Option<String>>,
    #[serde(default)]
    attributes: Attributes,
    expected_version: Option<u64>,
}

async fn update(
    State(fleet): Fleet,
    Extension(caller): By,
    Path(name): Path<String>,
    body: Bytes,
) -> Answer {
    let patch: Patch = read(&body)?;
    let name = valid(&name, "device")?;
    let patch = DevicePatch {
        device_type: patch.device_type,
        attributes: patch.attributes,
        replace_attributes: false,
        expected_version: patch.expected_version,
    };
    let change = Change::UpdateDevice {
        name: name.clone(),
        patch,
    };
    fleet.change(change, &caller).await?;
    found(&fleet, &name).map(|device| ok(&device))
}

async fn delete(State(fleet): Fleet, Extension(caller): By, Path(name): Path<String>) -> Answer {
    let change = Change::DeleteDevice {
        name: valid(&name, "device")?,
        expected_version: None,
    };
    fleet.change(change, &caller).await.map(|_| nothing())
}
