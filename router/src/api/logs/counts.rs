//! `/api/v1/logs/counts`: how much was logged over time, by level; of the fleet, or device by device.

use std::sync::Arc;

use axum::extract::State;
use serde_json::{Map, Value, json};
use thinglog_store::{Counts, DeviceCounts, Steps};

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
    let (counting, key, steps, is_partial, took) = match asked.per()? {
        Per::Fleet => {
            let (counting, counts) = reading.counts(&caller, &asked).await?;
            let steps = listed(&counts.steps);
            (counting, "items", steps, counts.is_partial, counts.effort)
        }
        Per::Device => {
            let (counting, counts) = reading.device_counts(&caller, &asked).await?;
            let devices = counts.devices.iter();
            let devices = devices.map(|(name, steps)| (name.to_string(), listed(steps)));
            let devices = devices.collect::<Map<_, _>>().into();
            (
                counting,
                "devices",
                devices,
                counts.is_partial,
                counts.effort,
            )
        }
    };
    let mut answer = json!({
        key: steps, "step_s": counting.step_s(), "since": time_text(counting.since),
        "partial": is_partial,
    });
    if caller.is_unlimited() {
        answer["effort"] = effort(took);
    }
    Ok(ok(&answer))
}

impl Reading {
    /// Counts of all devices together.
    pub(in crate::api) async fn counts(
        &self,
        caller: &Caller,
        asked: &Asked,
    ) -> Result<(Counting, Counts), Refusal> {
        let (shelf, asked) = self.counting(caller, asked)?;
        let counts = self.library.counts(caller, &shelf, asked.clone()).await?;
        Ok((asked, counts))
    }

    /// Counts of each device by itself.
    pub(in crate::api) async fn device_counts(
        &self,
        caller: &Caller,
        asked: &Asked,
    ) -> Result<(Counting, DeviceCounts), Refusal> {
        let (shelf, asked) = self.counting(caller, asked)?;
        let library = &self.library;
        let counts = library.device_counts(caller, &shelf, asked.clone()).await?;
        Ok((asked, counts))
    }

    /// What is to be counted now, and where.
    fn counting(&self, caller: &Caller, asked: &Asked) -> Result<(Arc<Shelf>, Counting), Refusal> {
        let shelf = self.shelf(asked.store.as_deref())?;
        // How far back others go is not for those who may not see them.
        let oldest = match caller.is_unlimited() {
            true => answer::opened(&shelf)?.size().oldest,
            false => None,
        };
        let counting = asked.counting(clock::now_ns(), oldest)?;
        Ok((shelf, counting))
    }
}

fn listed(steps: &Steps) -> Value {
    let listed = steps.iter().map(|(at, [debug, info, warn, error])| {
        json!({"time": time_text(*at), "debug": debug, "info": info, "warn": warn, "error": error})
    });
    listed.collect()
}
