//! What Loki says of entries that are too old. Pure.
//!
//! ```text
//! entry for stream '{...}' has timestamp too old: T, oldest acceptable timestamp is: T
//! entry with timestamp T ignored, reason: 'entry too far behind, entry timestamp is: T, oldest
//!   acceptable timestamp is: T', ... total ignored: 5 out of 9 for stream: {...}
//! ```
//!
//! The first is by the clock (`reject_old_samples_max_age`) and holds for every stream, the second for
//! the stream it names. A device that uploads a day's spool would otherwise cost a request an event.

use thinglog_schemas::json;

use super::encode;
use crate::deliver::remote::request::Request;
use crate::deliver::remote::verdict::{ItemVerdict, Verdict};
use crate::destinations::http::Answer;

const LIMIT: &str = "oldest acceptable timestamp is: ";
const BY_CLOCK: &str = "has timestamp too old";
const STREAM: &str = "for stream: ";

/// The verdict of an answer that says which time is too old; of the events that are young enough
/// nothing is known, so they are sent again, and Loki recognises those it has.
pub(super) fn too_old(request: &Request, answer: &Answer) -> Option<Verdict> {
    let text = String::from_utf8_lossy(&answer.body);
    let (before, after) = text.split_once(LIMIT)?;
    let time = after.split(['\'', ',', '\n', ' ']).next()?;
    let oldest = json::parse_time(time.trim())?;
    let by_clock = before.contains(BY_CLOCK);
    let stream = after.split_once(STREAM).map(|(_, stream)| stream.trim());
    let reason = answer.reason();
    let verdicts = request
        .events()
        .zip(request.pieces())
        .map(|(event, piece)| {
            let (labels, _) = encode::split(piece);
            let concerned = by_clock || stream.is_some_and(|stream| stream.as_bytes() == labels);
            match concerned && encode::time(event) < oldest {
                true => ItemVerdict::Refused(reason.clone()),
                false => ItemVerdict::Retry("others of the request were too old".into()),
            }
        });
    let verdicts: Vec<ItemVerdict> = verdicts.collect();
    let found = |verdict: &ItemVerdict| matches!(verdict, ItemVerdict::Refused(_));
    verdicts
        .iter()
        .any(found)
        .then_some(Verdict::Items(verdicts))
}
