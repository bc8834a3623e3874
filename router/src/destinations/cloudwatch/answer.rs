//! What the service answers. Pure.

use serde::Deserialize;

use super::encode;
use crate::deliver::remote::request::Request;
use crate::deliver::remote::verdict::{ItemVerdict, Verdict};
use crate::destinations::http::Answer;

/// What an answer says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Said {
    /// 200.
    Done,
    /// Group or stream are not there.
    Missing,
    /// Group or stream are there already.
    Exists,
    /// It had these events.
    AlreadyAccepted,
    /// It wants this sequence token.
    Token(String),
    /// Something in the request is never accepted.
    Invalid,
    /// Anything else that it has a name for.
    Other,
    /// Somebody else than the service answers.
    Unknown,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Failure {
    #[serde(rename = "__type")]
    kind: String,
    #[serde(rename = "expectedSequenceToken")]
    token: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Success {
    rejected_log_events_info: Option<Rejected>,
}

/// Indices into the events as they were sent.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Rejected {
    /// The first of those that are too new.
    too_new_log_event_start_index: Option<usize>,
    /// Behind the last of those that are too old.
    too_old_log_event_end_index: Option<usize>,
    /// Behind the last of those that the group keeps no longer.
    expired_log_event_end_index: Option<usize>,
}

/// The name of the error: `com.amazonaws.logs#Name` in the body, `Name:http://...` in the header.
fn name(answer: &Answer, failure: &Failure) -> String {
    let header = answer.headers.get("x-amzn-errortype");
    let header = header.and_then(|value| value.to_str().ok());
    let name = header.unwrap_or(&failure.kind);
    let name = name.split(':').next().unwrap_or_default();
    name.rsplit('#').next().unwrap_or_default().to_owned()
}

fn failure(answer: &Answer) -> Failure {
    serde_json::from_slice(&answer.body).unwrap_or_default()
}

/// Reads an answer.
pub(super) fn read(answer: &Answer) -> Said {
    if answer.status == 200 {
        return Said::Done;
    }
    let failure = failure(answer);
    match name(answer, &failure).as_str() {
        "" => Said::Unknown,
        "ResourceNotFoundException" => Said::Missing,
        "ResourceAlreadyExistsException" => Said::Exists,
        "DataAlreadyAcceptedException" => Said::AlreadyAccepted,
        "InvalidSequenceTokenException" => failure.token.map_or(Said::Other, Said::Token),
        "InvalidParameterException" | "SerializationException" | "ValidationException" => {
            Said::Invalid
        }
        _ => Said::Other,
    }
}

/// Whether it is the credentials that were refused.
pub(super) fn is_about_credentials(answer: &Answer) -> bool {
    let name = match answer.status {
        200 => return false,
        _ => name(answer, &failure(answer)),
    };
    matches!(
        name.as_str(),
        "ExpiredTokenException"
            | "ExpiredToken"
            | "UnrecognizedClientException"
            | "InvalidSignatureException"
            | "InvalidClientTokenId"
            | "IncompleteSignatureException"
            | "MissingAuthenticationTokenException"
            | "AccessDeniedException"
    )
}

/// The verdict on a whole request that was not done.
pub(super) fn verdict(said: Said, answer: &Answer) -> Verdict {
    match (said, answer.status) {
        (Said::Invalid, _) | (_, 413) => Verdict::Refused {
            reason: answer.reason(),
        },
        // Throttling, rights, keys, quotas: nothing is wrong with the events.
        (Said::Unknown, _) => answer.verdict(),
        _ => Verdict::Retry {
            after: answer.retry_after(std::time::SystemTime::now()),
            reason: answer.reason(),
        },
    }
}

/// The verdict on a request that was taken, but perhaps for some of its events.
pub(super) fn taken(request: &Request, answer: &Answer) -> Verdict {
    let success: Success = match serde_json::from_slice(&answer.body) {
        Ok(success) => success,
        Err(error) => {
            let reason = format!("the answer is none of PutLogEvents ({error})");
            return Verdict::retry(reason);
        }
    };
    let Some(rejected) = success.rejected_log_events_info else {
        return Verdict::Accepted;
    };
    let mut items = vec![ItemVerdict::Accepted; request.len()];
    for (at, place) in encode::sorted(request).into_iter().enumerate() {
        if let Some(reason) = rejected.reason(at) {
            items[place] = ItemVerdict::Refused(reason.to_owned());
        }
    }
    Verdict::Items(items)
}

impl Rejected {
    fn reason(&self, at: usize) -> Option<&'static str> {
        let is_before = |end: Option<usize>| end.is_some_and(|end| at < end);
        if is_before(self.expired_log_event_end_index) {
            return Some("rejected as older than the log group's retention");
        }
        if is_before(self.too_old_log_event_end_index) {
            return Some("rejected as too old: more than 14 days");
        }
        let start = self.too_new_log_event_start_index;
        let is_new = start.is_some_and(|start| at >= start);
        is_new.then_some("rejected as too new: more than 2 hours in the future")
    }
}
