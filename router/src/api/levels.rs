//! `/api/v1/levels`: what documents say of levels and settings; and `/api/v1/problems`: which documents
//! cannot stand, and why.

use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::routing::{get, put};
use axum::{Extension, Router};
use serde_json::{Value, json};

use super::body::{Asked, asked, fields};
use super::list::{Page, list};
use super::{Answer, By, Fleet, nothing, ok};
use crate::registry::{
    Caller, Change, Code, Document, LEVEL_PART, Refusal, Registry, Target, View,
};

pub(super) fn routes() -> Router<Registry> {
    Router::new()
        .route("/api/v1/levels", get(all))
        .route(
            "/api/v1/levels/default",
            put(set_default)
                .get(get_default)
                .patch(patch_default)
                .delete(delete_default),
        )
        .route(
            "/api/v1/levels/{kind}/{name}",
            put(set_one)
                .get(get_one)
                .patch(patch_one)
                .delete(delete_one),
        )
        .route("/api/v1/problems", get(problems))
}

/// `{"type", "name"}` and what the document says of levels, and who said it when.
pub(super) fn shown(target: &Target, document: &Document) -> Value {
    let mut shown = level_part(document);
    shown.insert("type".into(), json!(target.kind()));
    if let Some(name) = target.name() {
        shown.insert("name".into(), json!(name));
    }
    Value::Object(shown)
}

/// What a document says of levels and settings, and who said it when.
pub(super) fn level_part(document: &Document) -> Document {
    let mut part = document.clone();
    part.retain(|field, _| {
        LEVEL_PART.contains(&field.as_str()) || matches!(field.as_str(), "by" | "at" | "role")
    });
    part
}

fn has_level(document: &Document) -> bool {
    document
        .keys()
        .any(|field| LEVEL_PART.contains(&field.as_str()))
}

async fn all(State(fleet): Fleet, Extension(caller): By, page: Asked<Page>) -> Answer {
    caller.may_look()?;
    list(&fleet, asked(page)?, |view, after, found| {
        for (topic, target, document) in view.level_documents(after) {
            let wanted = has_level(&document) && caller.sees(view, &target);
            let item = wanted.then(|| shown(&target, &document));
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
        let document = view.document(target.topic()).filter(has_level);
        let document =
            document.ok_or_else(|| Refusal::not_found(format!("a level of {target}")))?;
        Ok(ok(&shown(target, &document)))
    })?
}

/// Refuses targets that the caller may not see.
pub(super) fn must_see(caller: &Caller, view: &View<'_>, target: &Target) -> Result<(), Refusal> {
    match caller.sees(view, target) {
        true => Ok(()),
        false => Err(Refusal::new(
            Code::Unauthorized,
            format!("{}: {target} is not yours to see", caller.name),
        )),
    }
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
    let settings = fields(body)?;
    let change = Change::SetLevel {
        target: target.clone(),
        settings,
    };
    fleet.change(change, caller).await?;
    after(fleet, &target)
}

async fn patch_default(State(fleet): Fleet, Extension(caller): By, body: Bytes) -> Answer {
    patch(&fleet, &caller, Target::Default, &body).await
}

async fn patch_one(
    State(fleet): Fleet,
    Extension(caller): By,
    Path((kind, name)): Path<(String, String)>,
    body: Bytes,
) -> Answer {
    patch(&fleet, &caller, Target::of(&kind, &name)?, &body).await
}

async fn patch(fleet: &Registry, caller: &Caller, target: Target, body: &[u8]) -> Answer {
    let patch = fields(body)?;
    let change = Change::PatchLevel {
        target: target.clone(),
        patch,
    };
    fleet.change(change, caller).await?;
    after(fleet, &target)
}

/// What stands after a change; nothing may.
fn after(fleet: &Registry, target: &Target) -> Answer {
    fleet.read(|view| {
        let document = view.document(target.topic()).unwrap_or_default();
        Ok(ok(&shown(target, &document)))
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
    fleet
        .change(Change::DeleteLevel { target }, caller)
        .await
        .map(|_| nothing())
}

/// Documents that are there and do not act as they read.
async fn problems(State(fleet): Fleet, Extension(caller): By, page: Asked<Page>) -> Answer {
    caller.may_see_all()?;
    list(&fleet, asked(page)?, |view, after, found| {
        let behind = |topic: &str| after.is_none_or(|after| topic > after);
        let mut problems = view.fleet().problems();
        problems.sort_by(|one, other| one.topic.cmp(&other.topic));
        for problem in problems.iter().filter(|problem| behind(&problem.topic)) {
            if found.look(&problem.topic, Some(json!(problem))).is_break() {
                return;
            }
        }
    })
    .await
}
