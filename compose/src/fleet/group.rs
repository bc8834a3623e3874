//! `thinglog group`: thing groups and who is in them.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    process::ExitCode,
};

use serde_json::{Map, Value, json};
use thinglog_schemas::name;
use ureq::http::Method;

use super::{
    Session,
    cli::Group,
    history,
    level::{settings, what},
    names, pairs,
    table::{Cell, Fields, Table},
    text, time,
    words::{Assignment, attributes},
};

pub(crate) fn group(config: Option<&Path>, command: &Group) -> anyhow::Result<ExitCode> {
    let session = |api| Session::new(config, api);
    match command {
        Group::List { api } => {
            let session = session(api)?;
            session.tell_all(&["groups"], &[], "no groups", |session, groups| {
                tree(groups).render(session.colour)
            })?;
            history::hint(&session);
        }
        Group::Create {
            name,
            parent,
            query,
            description,
            attribute,
            api,
        } => {
            let mut body = json!({"name": name});
            let texts = [
                ("parent", parent),
                ("query", query),
                ("description", description),
            ];
            for (field, value) in texts {
                if let Some(value) = value {
                    body[field] = json!(value);
                }
            }
            if !attribute.is_empty() {
                body["attributes"] = attributes(attribute);
            }
            let session = session(api)?;
            let answer = session.api.change(Method::POST, &["groups"], Some(&body))?;
            session.tell(&answer, |_| format!("group {name} created\n"));
        }
        Group::Describe { name, api } => describe(&session(api)?, name)?,
        Group::Update {
            name,
            query,
            description,
            attribute,
            api,
        } => {
            let patch = changes(query.as_deref(), description.as_deref(), attribute);
            if patch.is_empty() {
                return Ok(super::misused(
                    "change what? Give --query, --description or --attribute",
                ));
            }
            let session = session(api)?;
            let patch = Value::Object(patch);
            let answer = session
                .api
                .change(Method::PATCH, &["groups", name], Some(&patch))?;
            session.tell(&answer, |_| format!("group {name} changed\n"));
        }
        Group::Delete { name, api } => {
            let session = session(api)?;
            session
                .api
                .change(Method::DELETE, &["groups", name], None)?;
            let told = json!({"group": name, "done": "deleted"});
            session.tell(&told, |_| format!("group {name} deleted\n"));
        }
        Group::Add { name, devices, api } => {
            let session = session(api)?;
            move_devices(&session, name, devices, Method::PUT, "added")?;
        }
        Group::Remove { name, devices, api } => {
            let session = session(api)?;
            move_devices(&session, name, devices, Method::DELETE, "removed")?;
        }
        Group::Members {
            name,
            recursive,
            api,
        } => members(&session(api)?, name, *recursive)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn changes(
    query: Option<&str>,
    description: Option<&str>,
    assignments: &[Assignment],
) -> Map<String, Value> {
    let mut patch = Map::new();
    if let Some(query) = query {
        patch.insert("query".into(), json!(query));
    }
    match description {
        None => {}
        Some("") => drop(patch.insert("description".into(), Value::Null)),
        Some(description) => drop(patch.insert("description".into(), json!(description))),
    }
    if !assignments.is_empty() {
        patch.insert("attributes".into(), attributes(assignments));
    }
    patch
}

/// One after another; the first that is refused ends it, and those before it are told.
fn move_devices(
    session: &Session,
    group: &str,
    devices: &[String],
    method: Method,
    done: &str,
) -> anyhow::Result<()> {
    for device in devices {
        let device = name::encode(device);
        let path = ["groups", group, "members", &device];
        session.api.change(method.clone(), &path, None)?;
        let told = json!({"group": group, "device": device, "done": done});
        session.tell(&told, |_| format!("{device} {done}: group {group}\n"));
    }
    Ok(())
}

fn members(session: &Session, group: &str, recursive: bool) -> anyhow::Result<()> {
    let query = [("recursive", "true")];
    let query = if recursive { &query[..] } else { &[] };
    let path = ["groups", group, "members"];
    let none = format!("no devices in group {group}");
    session.tell_all(&path, query, &none, |_, members| {
        let mut out = String::new();
        for member in members {
            Cell::from(member.as_str().unwrap_or_default()).write(false, &mut out);
            out.push('\n');
        }
        out
    })
}

fn describe(session: &Session, name: &str) -> anyhow::Result<()> {
    let group = session.api.get(&["groups", name], &[])?;
    session.tell(&group, |session| {
        let mut fields = Fields::of(&format!("group {name}"));
        fields.add("description", text(&group, "description"));
        fields.add("parent", text(&group, "parent"));
        fields.add("groups in it", names(&group["children"]));
        fields.add("query", text(&group, "query"));
        fields.add("members", count(&group));
        fields.add("level", what(&group));
        fields.add("temporary", temporary(&group["override"], session.now));
        fields.add("attributes", pairs(&group["attributes"]));
        fields.add("created", time(&group, "created", session.now));
        fields.add("changed by", text(&group, "by"));
        fields.add("changed at", time(&group, "at", session.now));
        fields.render(session.colour)
    });
    Ok(())
}

fn count(group: &Value) -> String {
    group["members"]
        .as_u64()
        .map_or_else(String::new, |n| n.to_string())
}

/// A temporary level and its end; nothing where there is none.
pub(super) fn temporary(window: &Value, now: u64) -> String {
    match time(window, "until", now) {
        until if until.is_empty() => until,
        until => format!("{} until {until}", what(window)),
    }
}

/// Groups below their parents.
fn tree(groups: &[Value]) -> Table {
    let by_name: BTreeMap<&str, &Value> = groups
        .iter()
        .map(|group| (text(group, "name"), group))
        .collect();
    let mut below: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for (name, group) in &by_name {
        // A parent that is not shown, or is not there, is nobody's place in the tree.
        let parent = Some(text(group, "parent")).filter(|parent| by_name.contains_key(parent));
        below
            .entry(parent.unwrap_or_default())
            .or_default()
            .insert(name);
    }
    let mut table = Table::new(&[
        "GROUP",
        "MEMBERS",
        "LEVEL",
        "SETTINGS",
        "QUERY",
        "DESCRIPTION",
    ]);
    let mut waiting: Vec<(&str, usize)> = vec![("", 0)];
    while let Some((name, depth)) = waiting.pop() {
        if let Some(group) = by_name.get(name) {
            let indent = "  ".repeat(depth - 1);
            table.row(vec![
                format!("{indent}{name}").into(),
                count(group).into(),
                Cell::level(text(group, "level")),
                settings(group).into(),
                text(group, "query").into(),
                text(group, "description").into(),
            ]);
        }
        let inner = below.remove(name).unwrap_or_default().into_iter().rev();
        waiting.extend(inner.map(|name| (name, depth + 1)));
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_stand_below_their_parents() {
        let groups = [
            json!({"name": "eu", "parent": "world", "members": 2, "level": "WARN"}),
            json!({"name": "lab", "parent": "hidden", "members": 0}),
            json!({"name": "old", "members": 3, "query": "model = \"x1\""}),
            json!({"name": "berlin", "parent": "eu", "members": 1, "env": {"THINGLOG_FLUSH": "1s"}}),
            json!({"name": "world", "members": 0, "description": "all"}),
        ];
        let expected = "\
GROUP       MEMBERS  LEVEL  SETTINGS           QUERY         DESCRIPTION
lab         0
old         3                                  model = \"x1\"
world       0                                                all
  eu        2        WARN
    berlin  1               THINGLOG_FLUSH=1s
";
        assert_eq!(tree(&groups).render(false), expected);
    }

    #[test]
    fn an_empty_description_is_taken_away() {
        let patch = changes(None, Some(""), &[]);
        assert_eq!(Value::Object(patch), json!({"description": null}));
        assert!(changes(None, None, &[]).is_empty());
    }
}
