//! `thinglog device list|show|tag|delete`: what the router knows of devices.

use std::{path::Path, process::ExitCode};

use serde_json::{Map, Value, json};
use thinglog_schemas::name;
use ureq::http::Method;

use super::{
    Session,
    cli::{DeviceDelete, DeviceList, DeviceShow, DeviceTag},
    group::temporary,
    http::is_missing,
    names, pairs,
    table::{Cell, Fields, Style, Table},
    text, time,
    words::attributes,
};

pub(crate) fn list(config: Option<&Path>, args: &DeviceList) -> anyhow::Result<ExitCode> {
    let session = Session::new(config, &args.api)?;
    let mut query = Vec::new();
    query.extend(args.group.as_deref().map(|group| ("group", group)));
    query.extend(args.query.as_deref().map(|text| ("query", text)));
    query.extend(args.online.then_some(("online", "true")));
    query.extend(args.offline.then_some(("online", "false")));
    let none = "no such devices; names of those that have a token: thinglog device tokens";
    session.tell_all(&["devices"], &query, none, |session, devices| {
        table(devices, session.now).render(session.colour)
    })?;
    Ok(ExitCode::SUCCESS)
}

fn table(devices: &[Value], now: u64) -> Table {
    let head = [
        "DEVICE",
        "STATE",
        "LEVEL",
        "GROUPS",
        "LAST CONTACT",
        "VERSION",
        "DROPPED",
    ];
    let mut table = Table::new(&head);
    for device in devices {
        table.row(vec![
            text(device, "device").into(),
            state(device),
            Cell::level(text(device, "level")),
            names(&device["groups"]).into(),
            time(device, "last_contact", now).into(),
            text(device, "version").into(),
            dropped(device),
        ]);
    }
    table
}

fn state(device: &Value) -> Cell {
    match device["online"].as_bool() {
        Some(true) => Cell::styled("online", Style::Good),
        Some(false) => Cell::styled("offline", Style::Faint),
        None => Cell::styled("never seen", Style::Faint),
    }
}

fn dropped(device: &Value) -> Cell {
    match device["dropped"].as_u64() {
        None | Some(0) => Cell::default(),
        Some(dropped) => Cell::styled(&dropped.to_string(), Style::Bad),
    }
}

pub(crate) fn show(config: Option<&Path>, args: &DeviceShow) -> anyhow::Result<ExitCode> {
    let session = Session::new(config, &args.api)?;
    let device = session
        .api
        .get(&["devices", &name::encode(&args.name)], &[])?;
    session.tell(&device, |session| {
        fields(&device, session.now).render(session.colour)
    });
    Ok(ExitCode::SUCCESS)
}

fn fields(device: &Value, now: u64) -> Fields {
    let mut fields = Fields::of(&format!("device {}", text(device, "device")));
    fields.add("state", state(device));
    fields.add("last contact", time(device, "last_contact", now));
    fields.add("level", Cell::level(text(device, "level")));
    fields.add("because", text(device, "why"));
    fields.add("temporary", temporary(&device["override"], now));
    fields.add("groups", names(&device["groups"]));
    fields.add("type", text(device, "type"));
    fields.add("attributes", pairs(&device["attributes"]));
    fields.add("says of itself", pairs(&device["reported_attributes"]));
    fields.add("version", text(device, "version"));
    fields.add("configuration", configuration(device));
    fields.add("dropped", dropped(device));
    fields
}

/// Whether the device has taken up what it should do.
fn configuration(device: &Value) -> Cell {
    let (desired, reported) = (text(device, "desired_revision"), text(device, "revision"));
    match (desired, reported) {
        ("", _) => Cell::default(),
        (desired, "") => Cell::from(format!("{desired}, nothing reported")),
        (desired, reported) if desired == reported => {
            Cell::styled(&format!("{desired}, in force"), Style::Good)
        }
        (desired, reported) => {
            Cell::styled(&format!("{desired}, still {reported} in force"), Style::Bad)
        }
    }
}

pub(crate) fn tag(config: Option<&Path>, args: &DeviceTag) -> anyhow::Result<ExitCode> {
    let session = Session::new(config, &args.api)?;
    let mut patch = Map::new();
    if !args.attributes.is_empty() {
        patch.insert("attributes".into(), attributes(&args.attributes));
    }
    match args.kind.as_deref() {
        None => {}
        Some("") => drop(patch.insert("type".into(), Value::Null)),
        Some(kind) => drop(patch.insert("type".into(), json!(kind))),
    }
    let name = name::encode(&args.name);
    let path = ["devices", &*name];
    let changed = session
        .api
        .change(Method::PATCH, &path, Some(&json!(patch)));
    let (answer, new) = match changed {
        Err(error) if is_missing(&error) => {
            let device = declared(patch);
            let answer = session.api.change(Method::PUT, &path, Some(&device))?;
            (answer, "new device ")
        }
        changed => (changed?, ""),
    };
    session.tell(&answer, |_| format!("{new}{name}: {}\n", said(&answer)));
    Ok(ExitCode::SUCCESS)
}

/// Type and attributes, as an operator said them.
fn said(device: &Value) -> String {
    let kind = text(device, "type");
    let kind = Some(format!("type {kind}")).filter(|_| !kind.is_empty());
    let parts = kind.into_iter().chain([pairs(&device["attributes"])]);
    let parts: Vec<String> = parts.filter(|part| !part.is_empty()).collect();
    match parts.is_empty() {
        true => "says nothing any more".into(),
        false => parts.join(", "),
    }
}

/// A device that nobody knew yet: what is taken away from it was never there.
fn declared(mut patch: Map<String, Value>) -> Value {
    if let Some(Value::Object(attributes)) = patch.get_mut("attributes") {
        attributes.retain(|_, value| !value.is_null());
    }
    patch.retain(|_, value| !value.is_null());
    Value::Object(patch)
}

pub(crate) fn delete(config: Option<&Path>, args: &DeviceDelete) -> anyhow::Result<ExitCode> {
    let session = Session::new(config, &args.api)?;
    let name = name::encode(&args.name);
    session
        .api
        .change(Method::DELETE, &["devices", &name], None)?;
    let told = json!({"device": name, "done": "deleted"});
    session.tell(&told, |_| {
        format!("{name} deleted; it is listed again once it publishes\n")
    });
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-01-02T03:05:05Z
    const NOW: u64 = 1_767_323_105_000_000_000;

    fn lamp() -> Value {
        json!({
            "device": "lamp-7", "online": true, "level": "DEBUG", "why": "override of group eu",
            "groups": ["eu", "world"], "last_contact": "2026-01-02T03:04:05.5Z", "version": "0.1.0",
            "attributes": {"model": "x1"}, "dropped": 3,
            "desired_revision": "b", "revision": "a",
        })
    }

    #[test]
    fn a_device_is_a_line_or_a_page() {
        let devices = [
            lamp(),
            json!({"device": "lamp-8", "level": "INFO", "groups": []}),
        ];
        let expected = "\
DEVICE  STATE       LEVEL  GROUPS     LAST CONTACT                     VERSION  DROPPED
lamp-7  online      DEBUG  eu, world  2026-01-02 03:04:05Z (60 s ago)  0.1.0    3
lamp-8  never seen  INFO
";
        assert_eq!(table(&devices, NOW).render(false), expected);
        let expected = "\
device lamp-7
  state          online
  last contact   2026-01-02 03:04:05Z (60 s ago)
  level          DEBUG
  because        override of group eu
  groups         eu, world
  attributes     model=x1
  version        0.1.0
  configuration  b, still a in force
  dropped        3
";
        assert_eq!(fields(&lamp(), NOW).render(false), expected);
    }
}
