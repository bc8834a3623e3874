//! `thinglog level`: levels, temporary levels and settings.

use std::{path::Path, process::ExitCode};

use serde_json::{Map, Value, json};
use thinglog_schemas::{Level as Severity, name};
use ureq::http::Method;

use super::{
    Session,
    cli::{Delete, Level, Set},
    explain, history, misused, pairs,
    table::{Cell, Fields, Table},
    target::Target,
    text, time,
    words::{SourceLevel, Word, setting_key},
};
use crate::say;

pub(crate) fn level(config: Option<&Path>, command: &Level) -> anyhow::Result<ExitCode> {
    match command {
        Level::List { api } => list(&Session::new(config, api)?)?,
        Level::Get { target, api } => return get(&Session::new(config, api)?, target),
        Level::Set(args) => return set(config, args),
        Level::Delete(args) => return delete(config, args),
        Level::Disable { api } => all_off(&Session::new(config, api)?, true)?,
        Level::Enable { api } => all_off(&Session::new(config, api)?, false)?,
        Level::Explain(args) => explain::explain(&Session::new(config, &args.api)?, args)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// The path of what stands at a target: `levels` or `overrides`.
fn path<'a>(of: &'a str, target: &'a Target) -> Vec<&'a str> {
    std::iter::once(of).chain(target.path()).collect()
}

fn list(session: &Session) -> anyhow::Result<()> {
    let temporary = session.api.list(&["overrides"], &[])?;
    let levels = session.api.list(&["levels"], &[])?;
    if session.json {
        temporary.iter().chain(&levels).for_each(super::say_json);
        return Ok(());
    }
    let speaks = |level: &&Value| !what(level).is_empty();
    let levels: Vec<&Value> = levels.iter().filter(speaks).collect();
    if temporary.is_empty() && levels.is_empty() {
        eprintln!("no levels: everything is at INFO");
        return Ok(());
    }
    let table = table(temporary.iter().chain(levels), session.now);
    say(&table.render(session.colour));
    history::hint(session);
    Ok(())
}

fn table<'a>(levels: impl Iterator<Item = &'a Value>, now: u64) -> Table {
    let head = [
        "TARGET", "LEVEL", "UNTIL", "SOURCES", "SETTINGS", "BY", "AT",
    ];
    let mut table = Table::new(&head);
    for level in levels {
        table.row(vec![
            target_of(level).into(),
            Cell::level(word(level)),
            time(level, "until", now).into(),
            pairs(&level["sources"]).into(),
            settings(level).into(),
            text(level, "by").into(),
            time(level, "at", now).into(),
        ]);
    }
    table
}

fn get(session: &Session, target: &Target) -> anyhow::Result<ExitCode> {
    let lasting = session.api.find(&path("levels", target))?;
    let temporary = match target.can_be_temporary() {
        true => session.api.find(&path("overrides", target))?,
        false => None,
    };
    if lasting.is_none() && temporary.is_none() {
        eprintln!(
            "thinglog: {target} has no level of its own{}",
            who_says(target)
        );
        return Ok(ExitCode::FAILURE);
    }
    if session.json {
        let mut told = lasting.unwrap_or_else(|| json!({}));
        if let (Some(temporary), Some(told)) = (temporary, told.as_object_mut()) {
            told.insert("override".into(), temporary);
        }
        super::say_json(&told);
        return Ok(ExitCode::SUCCESS);
    }
    let mut fields = Fields::of(&target.to_string());
    if let Some(temporary) = &temporary {
        let said = format!(
            "{} until {}",
            what(temporary),
            time(temporary, "until", session.now)
        );
        fields.add("temporary", said);
    }
    if let Some(level) = &lasting {
        fields.add("level", Cell::level(word(level)));
        fields.add("sources", pairs(&level["sources"]));
        fields.add("settings", settings(level));
        fields.add("by", text(level, "by"));
        fields.add("at", time(level, "at", session.now));
    }
    say(&fields.render(session.colour));
    Ok(ExitCode::SUCCESS)
}

/// Where to ask for the level that holds instead.
fn who_says(target: &Target) -> String {
    match target.path()[..] {
        ["device", name] => format!("; see thinglog level explain {name}"),
        _ => String::new(),
    }
}

/// What `level set` asks for: for good a change of the document, for a time a document of its own.
fn set(config: Option<&Path>, args: &Set) -> anyhow::Result<ExitCode> {
    let target = &args.target;
    let (level, settings) = match sorted(&args.words) {
        Ok(sorted) => sorted,
        Err(reason) => return Ok(misused(reason)),
    };
    let temporary = args.seconds.is_some() || args.until.is_some();
    let nothing = level.is_none() && settings.is_empty() && args.source.is_empty();
    let complaint = match (temporary, level) {
        _ if nothing => Some("set what? Give a LEVEL, --source or a setting"),
        (true, None) => Some("a temporary level needs a LEVEL"),
        (true, _) if !settings.is_empty() => {
            Some("settings are not temporary; set them by themselves")
        }
        (true, _) if !target.can_be_temporary() => {
            Some("temporary levels are for the default, groups and devices")
        }
        _ => None,
    };
    if let Some(complaint) = complaint {
        return Ok(misused(complaint));
    }
    let session = Session::new(config, &args.api)?;
    match (temporary, level) {
        (true, Some(level)) => set_for_a_time(&session, args, level)?,
        _ => {
            let patch = Value::Object(patch(level, &args.source, settings));
            let path = path("levels", target);
            let answer = session.api.change(Method::PATCH, &path, Some(&patch))?;
            session.tell(&answer, |_| format!("{target}: {}\n", what(&answer)));
            if level.is_some() || !args.source.is_empty() {
                still_temporary(&session, target)?;
            }
        }
    }
    nobody_there(&session, target)?;
    Ok(ExitCode::SUCCESS)
}

/// The level and the change of settings among the words, or what is wrong with them.
fn sorted(words: &[Word]) -> Result<(Option<Severity>, Map<String, Value>), &'static str> {
    let (mut level, mut settings) = (None, Map::new());
    for word in words {
        match word {
            Word::Level(one) if level.replace(*one).is_some() => {
                return Err("one level at a time; give sources theirs with --source NAME=LEVEL");
            }
            Word::Level(_) => {}
            Word::Setting(setting) => setting.add_to(&mut settings),
        }
    }
    Ok((level, settings))
}

fn patch(
    level: Option<Severity>,
    sources: &[SourceLevel],
    settings: Map<String, Value>,
) -> Map<String, Value> {
    let mut patch = settings;
    if let Some(level) = level {
        patch.insert("level".into(), json!(level));
    }
    if !sources.is_empty() {
        patch.insert("sources".into(), sources_of(sources));
    }
    patch
}

fn sources_of(sources: &[SourceLevel]) -> Value {
    let entries = sources.iter();
    let entries = entries.map(|entry| (entry.source.clone(), json!(entry.level)));
    Value::Object(entries.collect())
}

fn set_for_a_time(session: &Session, args: &Set, level: Severity) -> anyhow::Result<()> {
    let target = &args.target;
    let mut body = json!({"level": level, "sources": sources_of(&args.source)});
    match (args.seconds, &args.until) {
        (Some(seconds), _) => body["for_s"] = json!(seconds),
        (None, until) => body["until"] = json!(until),
    }
    let path = path("overrides", target);
    let answer = session.api.change(Method::PUT, &path, Some(&body))?;
    session.tell(&answer, |session| {
        let until = time(&answer, "until", session.now);
        format!(
            "{target}: {} until {until}, then as before\n",
            what(&answer)
        )
    });
    Ok(())
}

fn delete(config: Option<&Path>, args: &Delete) -> anyhow::Result<ExitCode> {
    let target = &args.target;
    let mut patch = Map::new();
    for setting in &args.setting {
        match setting_key(setting) {
            Ok(key) => key.remove_in(&mut patch),
            Err(reason) => return Ok(misused(&reason)),
        }
    }
    if args.temporary && !target.can_be_temporary() {
        return Ok(misused(
            "temporary levels are for the default, groups and devices",
        ));
    }
    if args.level {
        patch.insert("level".into(), Value::Null);
    }
    let sources = args.source.iter();
    let sources = sources.map(|source| (name::encode(source).into_owned(), Value::Null));
    let sources: Map<String, Value> = sources.collect();
    if !sources.is_empty() {
        patch.insert("sources".into(), Value::Object(sources));
    }
    let session = Session::new(config, &args.api)?;
    if args.temporary {
        let path = path("overrides", target);
        session.api.change(Method::DELETE, &path, None)?;
        done(&session, target, "the temporary level has ended");
    } else if patch.is_empty() {
        let path = path("levels", target);
        session.api.change(Method::DELETE, &path, None)?;
        done(&session, target, "level and settings deleted");
        still_temporary(&session, target)?;
    } else {
        let path = path("levels", target);
        let patch = Value::Object(patch);
        let answer = session.api.change(Method::PATCH, &path, Some(&patch))?;
        session.tell(&answer, |_| match what(&answer) {
            said if said.is_empty() => format!("{target}: says nothing any more\n"),
            said => format!("{target}: {said}\n"),
        });
    }
    Ok(ExitCode::SUCCESS)
}

fn done(session: &Session, target: &Target, what: &str) {
    let told = json!({"target": target.to_string(), "done": what});
    session.tell(&told, |_| format!("{target}: {what}\n"));
}

/// A group is made by what is said of it, also by a slip of the hand.
fn nobody_there(session: &Session, target: &Target) -> anyhow::Result<()> {
    let ["group", name] = target.path()[..] else {
        return Ok(());
    };
    let group = match session.json {
        true => None,
        false => session.api.find(&["groups", name])?,
    };
    let empty = |group: &Value| {
        let children = group["children"].as_array().map_or(0, Vec::len);
        group["members"] == 0 && children == 0
    };
    if group.as_ref().is_some_and(empty) {
        eprintln!("no device is in group {name}; see thinglog group list, or thinglog group add");
    }
    Ok(())
}

/// Whoever sets or deletes a level may not know that another one runs.
fn still_temporary(session: &Session, target: &Target) -> anyhow::Result<()> {
    if !target.can_be_temporary() || session.json {
        return Ok(());
    }
    if let Some(temporary) = session.api.find(&path("overrides", target))? {
        eprintln!(
            "a temporary level runs until {}; `thinglog level delete {target} --override` ends it",
            time(&temporary, "until", session.now)
        );
    }
    Ok(())
}

fn all_off(session: &Session, off: bool) -> anyhow::Result<()> {
    let patch = match off {
        true => json!({"disabled": true}),
        false => json!({"disabled": null}),
    };
    let answer = session
        .api
        .change(Method::PATCH, &["levels", "default"], Some(&patch))?;
    session.tell(&answer, |_| match off {
        true => "all logs are off; levels stay stored: thinglog level enable\n".into(),
        false => "logs are on, by the levels that are set\n".into(),
    });
    Ok(())
}

/// As it is typed: `group:eu`.
fn target_of(level: &Value) -> String {
    let (kind, name) = (text(level, "type"), text(level, "name"));
    Target::of_api(kind, name).map_or_else(|| format!("{kind}:{name}"), |target| target.to_string())
}

/// The level, and that all logs are off where they are.
fn word(level: &Value) -> &str {
    match level["disabled"].as_bool() {
        Some(true) => "all off",
        _ => text(level, "level"),
    }
}

/// All that a document says, in a line.
pub(super) fn what(level: &Value) -> String {
    let parts = [
        word(level).to_owned(),
        pairs(&level["sources"]),
        settings(level),
    ];
    let parts = parts.into_iter().filter(|part| !part.is_empty());
    parts.collect::<Vec<_>>().join(" ")
}

/// Settings in the spelling in which they were made.
pub(super) fn settings(level: &Value) -> String {
    let mut parts = vec![pairs(&level["env"])];
    for table in ["upload", "limits"] {
        let fields = level[table].as_object().into_iter().flatten();
        let fields = fields.map(|(field, value)| (format!("{table}.{field}"), value.clone()));
        parts.push(pairs(&Value::Object(fields.collect())));
    }
    parts.retain(|part| !part.is_empty());
    parts.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-01-02T03:04:05Z
    const NOW: u64 = 1_767_323_045_000_000_000;

    #[test]
    fn a_list_says_target_level_end_and_author() {
        let levels = [
            json!({"type": "group", "name": "eu", "level": "DEBUG", "until": "2026-01-02T03:18:05Z",
                "for_s": 840, "by": "alice", "at": "2026-01-02T03:03:05Z"}),
            json!({"type": "default", "level": "WARN", "disabled": true,
                "upload": {"mode": "interval"}, "env": {"THINGLOG_FLUSH": "1s"}}),
            json!({"type": "source-ip", "name": "192.0.2.7", "sources": {"nginx": "INFO"}}),
        ];
        let shown = table(levels.iter(), NOW).render(false);
        let rows: Vec<Vec<&str>> = shown.lines().map(|row| row.split("  ").collect()).collect();
        let cells = |row: &Vec<&str>| {
            let cells = row.iter().map(|cell| cell.trim().to_owned());
            cells.filter(|cell| !cell.is_empty()).collect::<Vec<_>>()
        };
        let expected = [
            &[
                "TARGET", "LEVEL", "UNTIL", "SOURCES", "SETTINGS", "BY", "AT",
            ][..],
            &[
                "group:eu",
                "DEBUG",
                "2026-01-02 03:18:05Z (in 14 min)",
                "alice",
                "2026-01-02 03:03:05Z (60 s ago)",
            ],
            &[
                "default",
                "all off",
                "THINGLOG_FLUSH=1s upload.mode=interval",
            ],
            &["ip:192.0.2.7", "nginx=INFO"],
        ];
        assert_eq!(rows.iter().map(cells).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn words_become_one_change() {
        let words = ["WARN", "upload.mode=manual"];
        let words: Vec<Word> = words
            .iter()
            .map(|text| super::super::words::word(text).unwrap())
            .collect();
        let (level, settings) = sorted(&words).unwrap();
        let source = super::super::words::source_level("nginx=DEBUG").unwrap();
        let expected = json!({
            "level": "WARN", "sources": {"nginx": "DEBUG"},
            "upload": {"mode": "manual"}, "env": {"THINGLOG_UPLOAD_MODE": null},
        });
        assert_eq!(Value::Object(patch(level, &[source], settings)), expected);
        let twice = [Word::Level(Severity::Warn), Word::Level(Severity::Info)];
        assert!(sorted(&twice).is_err());
    }
}
