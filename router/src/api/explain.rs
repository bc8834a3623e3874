//! `/api/v1/explain`: the level of a device, and every rule that spoke or could have.

use axum::extract::State;
use axum::routing::get;
use axum::{Extension, Router};
use serde::Deserialize;
use serde_json::{Value, json};
use thinglog_schemas::json as times;
use thinglog_schemas::name;
use thinglog_schemas::resolve::Who;

use super::body::{Asked, asked};
use super::levels::must_see;
use super::{Answer, By, Fleet, ok};
use crate::registry::{Caller, Refusal, Registry, Target, valid};

pub(super) fn routes() -> Router<Registry> {
    Router::new().route("/api/v1/explain", get(explain))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Question {
    pub(super) device: String,
    pub(super) source: Option<String>,
    /// Where rules for principals are to be asked.
    pub(super) principal: Option<String>,
    /// Where rules for addresses are to be asked.
    pub(super) address: Option<String>,
    /// When the event happened, RFC 3339; now unless told.
    pub(super) time: Option<String>,
}

/// Rules for who connects are asked for the connection that the device has, unless told otherwise.
pub(super) fn explained(
    fleet: &Registry,
    caller: &Caller,
    question: &Question,
) -> Result<Value, Refusal> {
    let device = valid(&question.device, "device")?;
    let source = question.source.as_deref().map(name::encode);
    let principal = question.principal.as_deref().map(name::encode);
    let time = question.time.as_deref().map(|text| {
        times::parse_time(text).ok_or_else(|| {
            let shown: String = text.chars().take(40).collect();
            Refusal::invalid(format!("time {shown:?} is no RFC 3339 time"))
        })
    });
    let time = time.transpose()?;
    fleet.read(|view| {
        must_see(caller, &view, &Target::Device(device.clone()))?;
        let connected = view.device(&device).and_then(|known| known.connected());
        let who = Who {
            device: &device,
            principal: principal
                .as_deref()
                .or_else(|| connected?.principal.as_deref()),
            address: question
                .address
                .as_deref()
                .or_else(|| connected?.address.as_deref()),
        };
        let time = time.unwrap_or(view.now);
        let explained = view.fleet().explain(&who, source.as_deref(), time);
        Ok(json!(explained))
    })?
}

async fn explain(State(fleet): Fleet, Extension(caller): By, question: Asked<Question>) -> Answer {
    explained(&fleet, &caller, &asked(question)?).map(|explained| ok(&explained))
}
