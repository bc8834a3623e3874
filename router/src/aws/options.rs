//! The logging options of the fleet: what AWS calls the account's.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};
use thinglog_schemas::Level;
use thinglog_schemas::config::LevelDocument;
use thinglog_schemas::resolve::Document;
use thinglog_schemas::topic::ConfigTopic;

use super::error::Error;
use super::input::{Input, needed};
use super::levels::{given, named};
use super::{Answer, Call};
use crate::registry::{Change, Target, View};

/// Most events with a level of their own in one request.
const MOST_EVENTS: usize = 100;

/// What `config/default` says, if it says anything that AWS's options have.
fn options<'a>(view: &View<'a>) -> Option<&'a LevelDocument> {
    match view.fleet().document(ConfigTopic::Default) {
        Some(Document::Level(document)) if is_configured(document) => Some(document),
        _ => None,
    }
}

fn is_configured(document: &LevelDocument) -> bool {
    document.role.is_some() || document.level.is_some() || document.disabled
}

/// Refuses what AWS refuses before the options were set once.
pub(super) fn must_be_configured(view: &View<'_>) -> Result<(), Error> {
    options(view).map(drop).ok_or_else(Error::not_configured)
}

/// SetV2LoggingOptions. What is left out stays, but for `disableAllLogs`, which is false then. Events
/// that are given replace those that were.
pub(super) async fn set_v2(mut call: Call<'_>) -> Answer {
    let input = &mut call.input;
    let role = input.text("roleArn")?;
    let level = input.level("defaultLogLevel")?;
    let disabled = input.flag("disableAllLogs")?.unwrap_or(false);
    let events = input.objects("eventConfigurations")?;
    let events = events.map(read_events).transpose()?;
    let call = call.ended()?;
    role.iter()
        .try_for_each(|role| must_be_known(&call, role))?;
    if level.is_none() && events.is_none() && role.is_none() && !disabled {
        let configured = call.fleet.read(|view| options(&view).is_some())?;
        if !configured {
            return Err(Error::invalid("roleArn is missing"));
        }
    }
    let change = Change::SetOptions {
        role,
        level,
        disabled: Some(disabled),
    };
    call.fleet.change(change, call.caller).await?;
    if let Some(events) = events {
        set_events(&call, events).await?;
    }
    Ok(Value::Null)
}

/// Refuses a role that would let events go nowhere that asks for one: AWS takes no role either that it
/// cannot assume.
fn must_be_known(call: &Call<'_>, role: &str) -> Result<(), Error> {
    let destinations = call.destinations.read();
    let known = destinations.values().flat_map(|view| &view.roles);
    let known: BTreeSet<&str> = known.map(String::as_str).collect();
    if known.is_empty() || known.contains(role) {
        return Ok(());
    }
    let known: Vec<String> = known.iter().map(|role| format!("{role:?}")).collect();
    Err(Error::invalid(format!(
        "roleArn is none that a destination of the router asks for (roles): {}",
        known.join(", ")
    )))
}

fn read_events(events: Vec<Input>) -> Result<Vec<(Target, Level)>, Error> {
    if events.len() > MOST_EVENTS {
        return Err(Error::invalid(format!(
            "eventConfigurations has {} entries, at most {MOST_EVENTS}",
            events.len()
        )));
    }
    let read = |mut event: Input| {
        let name = needed(event.text("eventType")?, "eventConfigurations.eventType")?;
        let level = needed(event.level("logLevel")?, "eventConfigurations.logLevel")?;
        if event.text("logDestination")?.is_some() {
            return Err(Error::invalid(
                "eventConfigurations.logDestination: where events go is up to the router's destinations",
            ));
        }
        event.end()?;
        if name.is_empty() {
            return Err(Error::invalid("eventConfigurations.eventType is empty"));
        }
        Ok((
            named("source", &name, "eventConfigurations.eventType")?,
            level,
        ))
    };
    let mut read_events = Vec::with_capacity(events.len());
    for event in events.into_iter().map(read) {
        let (target, level) = event?;
        if read_events.iter().any(|(other, _)| *other == target) {
            let twice = format!("eventConfigurations has {target} twice");
            return Err(Error::invalid(twice));
        }
        read_events.push((target, level));
    }
    Ok(read_events)
}

async fn set_events(call: &Call<'_>, events: Vec<(Target, Level)>) -> Result<(), Error> {
    let before = call.fleet.read(|view| sources(&view))?;
    let gone = before
        .into_iter()
        .map(|(target, _)| target)
        .filter(|target| !events.iter().any(|(given, _)| given == target))
        .map(|target| (target, Value::Null));
    let given = events
        .iter()
        .map(|(target, level)| (target.clone(), json!(level)));
    for (target, level) in gone.chain(given).collect::<Vec<_>>() {
        let patch = Map::from_iter([("level".to_owned(), level)]);
        let change = Change::PatchLevel { target, patch };
        call.fleet.change(change, call.caller).await?;
    }
    Ok(())
}

/// The sources that have a level.
fn sources(view: &View<'_>) -> Vec<(Target, Level)> {
    let documents = view.fleet().documents().into_iter();
    let source = |(topic, document)| match (topic, document) {
        (ConfigTopic::Source(name), Document::Level(document)) => {
            Some((Target::Source(name.to_owned()), document.level?))
        }
        _ => None,
    };
    documents.filter_map(source).collect()
}

/// GetV2LoggingOptions. The events are those with a level, `verbose` or not.
pub(super) fn get_v2(mut call: Call<'_>) -> Answer {
    call.input.query_flag("verbose")?;
    let call = call.ended()?;
    call.fleet.read(|view| {
        call.caller.may_see_all()?;
        let document = options(&view).ok_or_else(Error::not_configured)?;
        let mut answer = Map::new();
        if let Some(role) = &document.role {
            answer.insert("roleArn".into(), json!(role));
        }
        if let Some(level) = document.level {
            answer.insert("defaultLogLevel".into(), json!(level));
        }
        answer.insert("disableAllLogs".into(), json!(document.disabled));
        let events: Vec<Value> = sources(&view)
            .into_iter()
            .map(|(target, level)| json!({"eventType": given(&target), "logLevel": level}))
            .collect();
        if !events.is_empty() {
            answer.insert("eventConfigurations".into(), json!(events));
        }
        Ok(Value::Object(answer))
    })?
}

/// SetLoggingOptions, the older call: `DISABLED` is the level there, stored levels of groups count on.
pub(super) async fn set(mut call: Call<'_>) -> Answer {
    let role = needed(call.input.text("roleArn")?, "roleArn")?;
    let level = call.input.level("logLevel")?;
    let call = call.ended()?;
    must_be_known(&call, &role)?;
    let change = Change::SetOptions {
        role: Some(role),
        level,
        disabled: None,
    };
    call.fleet.change(change, call.caller).await?;
    Ok(Value::Null)
}

/// GetLoggingOptions: what is set, nothing if nothing is.
pub(super) fn get(call: Call<'_>) -> Answer {
    let call = call.ended()?;
    call.fleet.read(|view| {
        call.caller.may_see_all()?;
        let mut answer = Map::new();
        if let Some(document) = options(&view) {
            if let Some(role) = &document.role {
                answer.insert("roleArn".into(), json!(role));
            }
            let level = match document.disabled {
                true => Some(Level::Disabled),
                false => document.level,
            };
            if let Some(level) = level {
                answer.insert("logLevel".into(), json!(level));
            }
        }
        Ok(Value::Object(answer))
    })?
}
