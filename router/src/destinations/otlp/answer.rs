//! What a receiver of OTLP answers. Pure.

use serde_json::Value;

use crate::config::OtlpEncoding;
use crate::deliver::remote::verdict::{ItemVerdict, Verdict};
use crate::destinations::http::Answer;

/// `ExportLogsServiceResponse`
#[derive(Clone, PartialEq, prost::Message)]
struct Response {
    #[prost(message, optional, tag = "1")]
    partial_success: Option<PartialSuccess>,
}

/// `ExportLogsPartialSuccess`
#[derive(Clone, PartialEq, prost::Message)]
struct PartialSuccess {
    #[prost(int64, tag = "1")]
    rejected_log_records: i64,
    #[prost(string, tag = "2")]
    error_message: String,
}

/// The verdict on a request of `events` events.
pub(super) fn verdict(encoding: OtlpEncoding, events: usize, answer: &Answer) -> Verdict {
    match answer.status {
        200..=299 => match partial_success(encoding, answer) {
            Some(partial) if partial.rejected_log_records > 0 => rejected(events, &partial),
            _ => Verdict::Accepted,
        },
        401 | 403 | 404 | 405 | 407 | 429 | 502..=504 | 300..=399 => answer.verdict(),
        _ => Verdict::Refused {
            reason: answer.reason(),
        },
    }
}

/// Which ones is not said, so all are kept.
fn rejected(events: usize, partial: &PartialSuccess) -> Verdict {
    let reason = format!(
        "the receiver rejected {} of the {events} records of a request, without saying which: {}",
        partial.rejected_log_records,
        partial.error_message.replace(char::is_control, " ")
    );
    Verdict::Items(vec![ItemVerdict::Refused(reason); events])
}

/// An answer that cannot be read is none with rejected records.
fn partial_success(encoding: OtlpEncoding, answer: &Answer) -> Option<PartialSuccess> {
    match encoding {
        OtlpEncoding::Protobuf => {
            let response: Response = prost::Message::decode(&answer.body[..]).ok()?;
            response.partial_success
        }
        OtlpEncoding::Json => {
            let response: Value = serde_json::from_slice(&answer.body).ok()?;
            let partial = response.get("partialSuccess")?;
            // JSON has 64-bit integers as text; some write numbers all the same.
            let rejected = match &partial["rejectedLogRecords"] {
                Value::String(text) => text.parse().ok()?,
                other => other.as_i64()?,
            };
            let message = partial["errorMessage"].as_str().unwrap_or_default();
            Some(PartialSuccess {
                rejected_log_records: rejected,
                error_message: message.to_owned(),
            })
        }
    }
}
