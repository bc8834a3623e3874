//! `/api/v1/history`: who changed what, newest first.

use axum::extract::State;
use axum::routing::get;
use axum::{Extension, Router};
use serde::Deserialize;

use super::body::{Asked, asked};
use super::list::{Listed, Page, answered, listed};
use super::{Answer, By, Fleet};
use crate::registry::{Caller, Refusal, Registry, Target};

pub(super) fn routes() -> Router<Registry> {
    Router::new().route("/api/v1/history", get(all))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Which {
    pub(super) subject: Option<String>,
    pub(super) limit: Option<String>,
    pub(super) cursor: Option<String>,
}

/// A subject as people and this API write it: `default`, `group:eu`, `ip:192.0.2.7`.
fn subject(text: &str) -> Result<Target, Refusal> {
    match text.split_once(':') {
        None if text == "default" => Ok(Target::Default),
        Some(("ip", address)) => Target::of("source-ip", address),
        Some((kind, name)) => Target::of(kind, name),
        None => {
            let shown: String = text.chars().take(40).collect();
            Err(Refusal::invalid(format!(
                "subject {shown:?} is neither `default` nor one as group:eu"
            )))
        }
    }
}

async fn all(State(fleet): Fleet, Extension(caller): By, which: Asked<Which>) -> Answer {
    page(&fleet, &caller, asked(which)?).await.map(answered)
}

/// Entries that the caller may see. The cursor is a number, so that entries which come meanwhile move
/// nothing.
pub(super) async fn page(
    fleet: &Registry,
    caller: &Caller,
    which: Which,
) -> Result<Listed, Refusal> {
    caller.may_look()?;
    let wanted = which.subject.as_deref().map(subject).transpose()?;
    let cursor = which.cursor.as_deref().map(str::parse::<u64>);
    if cursor.is_some_and(|cursor| cursor.is_err()) {
        return Err(Refusal::invalid("cursor is none that this list gave"));
    }
    let page = Page {
        limit: which.limit,
        cursor: which.cursor,
    };
    listed(fleet, page, |view, after, found| {
        let before = after.and_then(|number| number.parse().ok());
        for entry in fleet.history().newest(before) {
            let is_asked_for = |target: &Target| {
                wanted.as_ref().is_none_or(|wanted| wanted == target) && caller.sees(view, target)
            };
            let item = entry.concerns(is_asked_for).then(|| entry.shown());
            if found.look(&entry.number.to_string(), item).is_break() {
                return;
            }
        }
    })
    .await
}
