//! `/api/v1/alerts`: rules and their open alerts. Callers who are limited to groups see the alerts of
//! these groups and of their devices only.

use std::sync::Arc;

use axum::extract::State;
use axum::routing::get;
use axum::{Extension, Router};
use serde_json::{Value, json};

use super::{Answer, By, ok};
use crate::alerts::shown::{Rule, Shown};
use crate::config::By as Of;
use crate::registry::{Caller, Registry, View};

/// Most open alerts of a rule that are listed.
const MOST: usize = 1000;

/// What handlers look at.
#[derive(Clone)]
pub(crate) struct Board {
    pub(crate) shown: Shown,
    pub(crate) fleet: Registry,
}

/// The routes, to be mounted where every request has a caller in its extensions.
pub(crate) fn routes(board: Board) -> Router {
    Router::new()
        .route("/api/v1/alerts", get(all))
        .with_state(board)
}

async fn all(Extension(caller): By, State(board): State<Board>) -> Answer {
    caller.may_look()?;
    let rules = Arc::clone(&*board.shown.read());
    let items: Vec<Value> = board.fleet.read(|view| {
        let shown = rules.iter().map(|rule| described(rule, &caller, &view));
        shown.collect()
    })?;
    Ok(ok(&json!({"items": items})))
}

fn described(rule: &Rule, caller: &Caller, view: &View<'_>) -> Value {
    let sees = |key: &str| match rule.by {
        Of::Device => caller.sees_device(view, key),
        Of::Group => caller.sees_group(view, key),
        Of::Fleet => caller.is_unlimited(),
    };
    let alerts = rule.alerts.iter().filter(|(key, _)| sees(key));
    let (mut open, mut shown) = (0, Vec::new());
    for (_, alert) in alerts {
        open += 1;
        if shown.len() < MOST {
            shown.push(&*alert.shown);
        }
    }
    let mut described = json!({
        "rule": &*rule.name,
        "when": rule.when,
        "opens": rule.opens,
        "by": rule.by,
        "to": rule.to,
        "open": open,
        "alerts": shown,
    });
    if let Some(severity) = &rule.severity {
        described["severity"] = severity.as_str().into();
    }
    described
}
