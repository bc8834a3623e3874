//! `thinglog level`, `group`, `device`, `history` and `problems`: the fleet as operators run it, over
//! the router's HTTP interface. What is allowed and what it means is decided there; here words become
//! requests, and answers what people or programs read.

pub(crate) mod cli;
mod device;
mod explain;
mod group;
mod history;
mod http;
mod level;
pub(crate) mod table;
mod target;
mod words;

use std::{path::Path, process::ExitCode, time::UNIX_EPOCH};

use anyhow::Context;
pub(crate) use device::{delete as delete_device, list as list_devices, show as show_device, tag};
pub(crate) use group::group;
pub(crate) use history::{history, problems};
use http::Api;
pub(crate) use level::level;
use serde_json::Value;

use crate::{client, config::reachable, line, load, say};

/// A command: the way to the router, and how its answer looks.
pub(crate) struct Session {
    pub(crate) api: Api,
    pub(crate) json: bool,
    pub(crate) colour: bool,
    /// When the command was given, ns since the Unix epoch.
    pub(crate) now: u64,
}

impl Session {
    pub(crate) fn new(config: Option<&Path>, args: &cli::Api) -> anyhow::Result<Session> {
        let configured = match &args.url {
            // Whatever is configured here has nothing to do with it.
            Some(_) => String::new(),
            None => configured(config)?,
        };
        Ok(Session {
            api: Api::new(args, &configured)?,
            json: args.json,
            colour: client::colour(),
            now: UNIX_EPOCH.elapsed().unwrap_or_default().as_nanos() as u64,
        })
    }

    /// An answer: as JSON, or for people what `text` makes of it.
    pub(crate) fn tell(&self, answer: &Value, text: impl FnOnce(&Session) -> String) {
        match self.json {
            true => say_json(answer),
            false => say(&text(self)),
        }
    }

    /// A list: a line of JSON each, or for people what `text` makes of all. Of nothing, `none` is told
    /// on standard error.
    pub(crate) fn tell_all(
        &self,
        path: &[&str],
        query: &[(&str, &str)],
        none: &str,
        text: impl FnOnce(&Session, &[Value]) -> String,
    ) -> anyhow::Result<()> {
        if self.json {
            return self.api.each(path, query, |item| {
                say_json(&item);
                Ok(true)
            });
        }
        let items = self.api.list(path, query)?;
        match items.is_empty() {
            true => eprintln!("{none}"),
            false => say(&text(self, &items)),
        }
        Ok(())
    }
}

/// Where the configured router answers HTTP.
fn configured(config: Option<&Path>) -> anyhow::Result<String> {
    let http = load(config, true)?.config.router.http;
    let http = http.context("the configured router serves no HTTP; name another with --url")?;
    Ok(format!("http://{}", reachable(http.address)))
}

fn say_json(value: &Value) {
    let mut text = String::new();
    line::escape_json(&value.to_string(), &mut text);
    say(&format!("{text}\n"));
}

/// The command line makes no sense as a whole.
fn misused(reason: &str) -> ExitCode {
    eprintln!("thinglog: {reason}; see --help");
    ExitCode::from(2)
}

/// A field's text, or nothing.
fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or_default()
}

/// `key=value key=value`, values as they are said.
fn pairs(value: &Value) -> String {
    let said = |value: &Value| match value {
        Value::String(text) => text.clone(),
        value => value.to_string(),
    };
    let entries = value.as_object().into_iter().flatten();
    let entries = entries.map(|(key, value)| format!("{key}={}", said(value)));
    entries.collect::<Vec<_>>().join(" ")
}

/// `a, b, c` of a list of texts.
fn names(value: &Value) -> String {
    let names = value.as_array().into_iter().flatten();
    let names = names.filter_map(Value::as_str);
    names.collect::<Vec<_>>().join(", ")
}

/// A field's time, and how far it is; or nothing.
fn time(value: &Value, field: &str, now: u64) -> String {
    match text(value, field) {
        "" => String::new(),
        time => table::when(time, now),
    }
}
