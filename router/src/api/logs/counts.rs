//! `/api/v1/logs/counts`: how much was logged over time, by level; of the fleet, or device by device.

use axum::extract::State;
use serde_json::{Map, Value, json};
use thinglog_store::{Steps, Store};

use super::question::{Asked, Counting, Per};
use super::{Reading, answer, effort};
use crate::api::body::{self, asked};
use crate::api::{Answer, By, ok};
use crate::clock;
use crate::destinations::store::Shelf;
use crate::registry::{Caller, Refusal, time_text};

/// Counts by level, in steps that begin at multiples of their width. Steps without events are left out.
pub(super) async fn counts(
    caller: By,
    State(reading): State<Reading>,
    query: body::Asked<Asked>,
) -> Answer {
    let asked = asked(query)?;
    let shelf = reading.shelf(asked.store.as_deref())?;
    let counting = counting(&asked, &caller, &shelf)?;
    let mut answer = json!({
        "step_s": counting.step as f64 / 1e9, "since": time_text(counting.since),
    });
    let library = &reading.library;
    let (is_partial, took) = match counting.per {
        Per::Fleet => {
            let counts = library.counts(&caller, &shelf, counting).await?;
            answer["items"] = listed(&counts.steps);
            (counts.is_partial, counts.effort)
        }
        Per::Device => {
            let counts = library.device_counts(&caller, &shelf, counting).await?;
            let devices = counts.devices.iter();
            let devices = devices.map(|(name, steps)| (name.to_string(), listed(steps)));
            answer["devices"] = devices.collect::<Map<_, _>>().into();
            (counts.is_partial, counts.effort)
        }
    };
    answer["partial"] = json!(is_partial);
    if caller.is_unlimited() {
        answer["effort"] = effort(took);
    }
    Ok(ok(&answer))
}

/// What is to be counted now.
pub(super) fn counting(asked: &Asked, caller: &Caller, shelf: &Shelf) -> Result<Counting, Refusal> {
    let oldest = || answer::opened(shelf).map(|store: Store| store.size().oldest);
    // How far back others go is not for those who may not see them.
    let oldest = match caller.is_unlimited() {
        true => oldest()?,
        false => None,
    };
    asked.counting(clock::now_ns(), oldest)
}

fn listed(steps: &Steps) -> Value {
    let listed = steps.iter().map(|(at, [debug, info, warn, error])| {
        json!({"time": time_text(*at), "debug": debug, "info": info, "warn": warn, "error": error})
    });
    listed.collect()
}
