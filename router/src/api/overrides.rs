//! `/api/v1/overrides`: temporary levels.

use std::collections::BTreeMap;

use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::routing::{get, put};
use axum::{Extension, Router};
use serde::Deserialize;
use serde_json::{Value, json};
use thinglog_schemas::{Level, json as times};

use super::body::{Asked, asked, read};
use super::levels::must_see;
use super::list::{Page, list};
use super::{Answer, By, Fleet, nothing, ok};
use crate::clock;
use crate::registry::{Caller, Change, Document, Refusal, Registry, Target, View, override_topic};

const SECOND: u64 = 1_000_000_000;
/// Longest temporary level, seconds: a year.
const LONGEST: u64 = 366 * 86_400;

pub(super) fn routes() -> Router<Registry> {
    Router::new()
        .route("/api/v1/overrides", get(all))
        .route(
            "/api/v1/overrides/default",
            put(set_default).get(get_default).delete(delete_default),
        )
        .route(
            "/api/v1/overrides/{kind}/{name}",
            put(set_one).get(get_one).delete(delete_one),
        )
}

/// A temporary level to set; its end either way.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    level: Level,
    for_s: Option<u64>,
    until: Option<String>,
    #[serde(default)]
    sources: BTreeMap<String, Level>,
}

impl Wanted {
    fn end(&self, now: u64) -> Result<u64, Refusal> {
        let latest = now.saturating_add(LONGEST * SECOND);
        let end = match (self.for_s, &self.until) {
            (Some(for_s), None) if (1..=LONGEST).contains(&for_s) => now + for_s * SECOND,
            (Some(_), None) => {
                return Err(Refusal::invalid(format!("for_s must be 1 to {LONGEST}")));
            }
            (None, Some(until)) => times::parse_time(until).ok_or_else(|| {
                let shown: String = until.chars().take(40).collect();
                Refusal::invalid(format!("until {shown:?} is no RFC 3339 time"))
            })?,
            _ => return Err(Refusal::invalid("give `for_s` or `until`, one of them")),
        };
        match end <= latest {
            true => Ok(end),
            false => Err(Refusal::invalid("until is more than a year ahead")),
        }
    }
}

/// `{"type", "name"}`, what the document says, and the seconds that are left; `None` once it ended.
pub(super) fn running(view: &View<'_>, target: &Target) -> Option<Value> {
    shown(view, target, view.document(override_topic(target)?)?)
}

fn shown(view: &View<'_>, target: &Target, mut document: Document) -> Option<Value> {
    let until = times::parse_time(document.get("until")?.as_str()?)?;
    let left = until.checked_sub(view.now).filter(|left| *left > 0)?;
    document.insert("for_s".into(), json!(left.div_ceil(SECOND)));
    document.insert("type".into(), json!(target.kind()));
    if let Some(name) = target.name() {
        document.insert("name".into(), json!(name));
    }
    Some(Value::Object(document))
}

async fn all(State(fleet): Fleet, Extension(caller): By, page: Asked<Page>) -> Answer {
    caller.may_look()?;
    list(&fleet, asked(page)?, |view, after, found| {
        for (topic, target, document) in view.overrides(after) {
            let item = match caller.sees(view, &target) {
                true => shown(view, &target, document),
                false => None,
            };
            if found.look(topic, item).is_break() {
                return;
            }
        }
    })
    .await
}

async fn get_default(State(fleet): Fleet, Extension(caller): By) -> Answer {
    one(&fleet, &caller, &Target::Default)
}

async fn get_one(
    State(fleet): Fleet,
    Extension(caller): By,
    Path((kind, name)): Path<(String, String)>,
) -> Answer {
    one(&fleet, &caller, &Target::of(&kind, &name)?)
}

fn one(fleet: &Registry, caller: &Caller, target: &Target) -> Answer {
    fleet.read(|view| {
        must_see(caller, &view, target)?;
        let running = running(&view, target);
        let missing = || Refusal::not_found(format!("a temporary level of {target}"));
        running.ok_or_else(missing).map(|running| ok(&running))
    })?
}

async fn set_default(State(fleet): Fleet, Extension(caller): By, body: Bytes) -> Answer {
    set(&fleet, &caller, Target::Default, &body).await
}

async fn set_one(
    State(fleet): Fleet,
    Extension(caller): By,
    Path((kind, name)): Path<(String, String)>,
    body: Bytes,
) -> Answer {
    set(&fleet, &caller, Target::of(&kind, &name)?, &body).await
}

async fn set(fleet: &Registry, caller: &Caller, target: Target, body: &[u8]) -> Answer {
    let wanted: Wanted = read(body)?;
    let change = Change::SetOverride {
        target: target.clone(),
        level: wanted.level,
        until: wanted.end(clock::now_ns())?,
        sources: wanted.sources,
    };
    fleet.change(change, caller).await?;
    fleet.read(|view| {
        let running = running(&view, &target);
        // One that has ended by now is no error of the caller's.
        Ok(running.map_or_else(nothing, |running| ok(&running)))
    })?
}

async fn delete_default(State(fleet): Fleet, Extension(caller): By) -> Answer {
    delete(&fleet, &caller, Target::Default).await
}

async fn delete_one(
    State(fleet): Fleet,
    Extension(caller): By,
    Path((kind, name)): Path<(String, String)>,
) -> Answer {
    delete(&fleet, &caller, Target::of(&kind, &name)?).await
}

async fn delete(fleet: &Registry, caller: &Caller, target: Target) -> Answer {
    let change = Change::DeleteOverride { target };
    fleet.change(change, caller).await.map(|_| nothing())
}
