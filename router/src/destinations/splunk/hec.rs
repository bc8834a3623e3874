//! What the collector answers. Pure.

use serde::Deserialize;
use serde_json::Value;

use crate::deliver::remote::verdict::{ItemVerdict, Verdict};
use crate::destinations::http::Answer;

/// `{"text":"Success","code":0,"ackId":7}`, `{"text":"...","code":6,"invalid-event-number":3}`
#[derive(Debug, Deserialize)]
pub(super) struct Said {
    pub(super) code: u64,
    #[serde(rename = "ackId")]
    pub(super) ack: Option<u64>,
    /// From 0: those before it were taken.
    #[serde(rename = "invalid-event-number")]
    pub(super) invalid: Option<usize>,
}

/// Nothing where somebody else than the collector answers.
pub(super) fn read(answer: &Answer) -> Option<Said> {
    serde_json::from_slice(&answer.body).ok()
}

/// The verdict on a request of `events` events. `confirmed`: only what is acknowledged counts.
pub(super) fn verdict(said: &Said, events: usize, confirmed: bool, answer: &Answer) -> Verdict {
    let reason = answer.reason();
    let before = |verdict: fn(String) -> ItemVerdict, reached: usize| {
        let before = match confirmed {
            true => ItemVerdict::Retry("nothing confirms those before an invalid event".into()),
            false => ItemVerdict::Accepted,
        };
        let rest = ItemVerdict::Retry(reason.clone());
        let mut items = vec![before; reached];
        items.push(verdict(reason.clone()));
        items.resize(events, rest);
        Verdict::Items(items)
    };
    let reached = said.invalid.filter(|reached| *reached < events);
    match (said.code, reached) {
        (0, _) => Verdict::Accepted,
        // No data, invalid format, event missing or blank, fields that cannot be indexed.
        (5 | 6 | 12 | 13 | 15, Some(reached)) => before(ItemVerdict::Refused, reached),
        (5 | 6 | 12 | 13 | 15, None) => Verdict::Refused { reason },
        // Token, index, channel, acknowledgement: the configuration's fault.
        (1..=4 | 7 | 10 | 11 | 14 | 16, _) => Verdict::retry(reason),
        // Broken, busy, shutting down, queues full.
        (8 | 9 | 18.., Some(reached)) if reached > 0 => before(ItemVerdict::Retry, reached),
        (8 | 9 | 18.., _)
            if answer.status < 400 || answer.status >= 500 || answer.status == 429 =>
        {
            match answer.verdict() {
                Verdict::Accepted => Verdict::retry(reason),
                verdict => verdict,
            }
        }
        _ => answer.verdict(),
    }
}

/// `{"acks":{"7":true}}`
pub(super) fn is_acknowledged(answer: &Answer, id: u64) -> bool {
    let said: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    answer.status == 200 && said["acks"][id.to_string()] == Value::Bool(true)
}
