//! What became of a request, and what follows from it. Pure.

use std::time::Duration;

use super::request::{Item, Request};

/// What a service says of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It has all events.
    Accepted,
    /// Not now. `after`: not before this time has passed, for no request.
    Retry {
        after: Option<Duration>,
        reason: String,
    },
    /// Never, because of something in it: each half is tried by itself, down to a single event.
    Refused { reason: String },
    /// Of each event its own, in order; as many as the request has.
    #[allow(dead_code)] // where no service answers item by item
    Items(Vec<ItemVerdict>),
}

impl Verdict {
    /// Not now, and no word about when.
    pub(crate) fn retry(reason: impl Into<String>) -> Verdict {
        Verdict::Retry {
            after: None,
            reason: reason.into(),
        }
    }
}

/// What a service says of one event of a request.
#[allow(dead_code)] // as above
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ItemVerdict {
    /// It has it.
    Accepted,
    /// It had it before.
    Duplicate,
    /// Not now.
    Retry(String),
    /// Never.
    Refused(String),
}

/// What follows from a verdict.
#[derive(Debug, Default)]
pub(crate) struct Applied {
    pub(crate) accepted: Vec<Item>,
    pub(crate) duplicate: Vec<Item>,
    pub(crate) refused: Vec<(Item, String)>,
    /// To be sent, in this order.
    pub(crate) rest: Vec<Request>,
    /// Before that there is a time to wait.
    pub(crate) wait: Option<Wait>,
}

/// Why and at least how long to wait.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wait {
    pub(crate) after: Option<Duration>,
    pub(crate) reason: String,
}

/// Applies a verdict to the request it speaks of.
pub(crate) fn apply(request: Request, verdict: Verdict) -> Applied {
    let mut applied = Applied::default();
    match verdict {
        Verdict::Accepted => applied.accepted = request.into_items(),
        Verdict::Retry { after, reason } => {
            applied.rest.push(request);
            applied.wait = Some(Wait { after, reason });
        }
        Verdict::Refused { reason } if request.len() <= 1 => {
            let refused = request.into_items().into_iter();
            applied.refused = refused.map(|item| (item, reason.clone())).collect();
        }
        Verdict::Refused { .. } => {
            let (first, second) = request.halves();
            applied.rest.extend([first, second]);
        }
        Verdict::Items(verdicts) if verdicts.len() != request.len() => {
            let (said, sent) = (verdicts.len(), request.len());
            applied.rest.push(request);
            applied.wait = Some(Wait {
                after: None,
                reason: format!("the answer speaks of {said} events where {sent} were sent"),
            });
        }
        Verdict::Items(verdicts) => by_item(request, &verdicts, &mut applied),
    }
    applied
}

fn by_item(request: Request, verdicts: &[ItemVerdict], applied: &mut Applied) {
    let again = |at: usize| matches!(verdicts[at], ItemVerdict::Retry(_));
    let settled = verdicts
        .iter()
        .filter(|verdict| !matches!(verdict, ItemVerdict::Retry(_)));
    let (rest, done) = request.partition(again);
    for (item, verdict) in done.into_items().into_iter().zip(settled) {
        match verdict {
            ItemVerdict::Accepted => applied.accepted.push(item),
            ItemVerdict::Duplicate => applied.duplicate.push(item),
            ItemVerdict::Refused(reason) => applied.refused.push((item, reason.clone())),
            ItemVerdict::Retry(_) => {}
        }
    }
    let reason = verdicts.iter().find_map(|verdict| match verdict {
        ItemVerdict::Retry(reason) => Some(reason.clone()),
        _ => None,
    });
    if let Some(reason) = reason {
        let reason = format!("{} events: {reason}", rest.len());
        applied.rest.push(rest);
        applied.wait = Some(Wait {
            after: None,
            reason,
        });
    }
}

#[cfg(test)]
#[path = "verdict_tests.rs"]
mod tests;
