//! What `_bulk` answers of each item. Pure.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::deliver::remote::verdict::{ItemVerdict, Verdict};
use crate::destinations::http::Answer;

#[derive(Deserialize)]
struct Bulk {
    errors: bool,
    #[serde(default)]
    items: Vec<BTreeMap<String, Item>>,
}

#[derive(Deserialize)]
struct Item {
    status: u16,
    error: Option<Cause>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Cause {
    #[serde(rename = "type")]
    kind: String,
    reason: String,
}

/// The verdict on a request of `events` events.
pub(super) fn verdict(events: usize, answer: &Answer) -> Verdict {
    let bulk: Bulk = match serde_json::from_slice(&answer.body) {
        Ok(bulk) => bulk,
        Err(error) => {
            return Verdict::retry(format!("the answer is none of _bulk ({error})"));
        }
    };
    if !bulk.errors && bulk.items.len() == events {
        return Verdict::Accepted;
    }
    let items = bulk.items.into_iter().flat_map(BTreeMap::into_values);
    Verdict::Items(items.map(of_item).collect())
}

fn of_item(item: Item) -> ItemVerdict {
    let cause = item.error.unwrap_or_default();
    let reason = || format!("{} {}: {}", item.status, cause.kind, cause.reason);
    match item.status {
        200..=299 => ItemVerdict::Accepted,
        409 => ItemVerdict::Duplicate,
        401 | 403 | 404 | 408 | 429 | 500.. => ItemVerdict::Retry(reason()),
        // All shards that the cluster may have are in use: nothing is wrong with the event.
        400 if cause.kind == "validation_exception" && cause.reason.contains("shards") => {
            ItemVerdict::Retry(reason())
        }
        _ => ItemVerdict::Refused(reason()),
    }
}
