//! Logs by OTLP over HTTP: protobuf or JSON, gzip.
//!
//! ```text
//! POST <url>/v1/logs
//! Content-Type: application/x-protobuf | application/json
//! Content-Encoding: gzip
//! ```
//!
//! By "OTLP Specification 1.x, OTLP/HTTP", "Logs Data Model" and the semantic conventions for `service`,
//! `host`, `device` and `log`, all on opentelemetry.io, and the messages of `opentelemetry-proto`.
//!
//! **Form.** One resource for each device and source: `service.name` is the source, `host.name` and
//! `device.id` the device. Severity numbers are OpenTelemetry's own already. An event's id is
//! `log.record.uid`, by which whoever stores the records can tell repeats. Attributes keep their
//! types; objects and arrays are nested values.
//!
//! **Order** per device is kept.
//!
//! **Answers.** By the specification 429, 502, 503 and 504 are tried again, not before `Retry-After`,
//! and all other errors never: the request is halved until the culprits are alone. The exception is
//! what is the configuration's fault (401, 403, 404, 405, 407 and redirects): it is tried again until
//! somebody has mended it, so that it costs no event. A success that tells of rejected records
//! (`partial_success`) must not be tried again, and does not say which they were: all events of that
//! request become dead letters, so that none is lost, with what the receiver said as the reason.

mod answer;
mod encode;
mod json_form;
mod proto_form;

use super::http::{Answer, Head, HeaderMap, HeaderValue, HttpService, HttpSink, Method};
use crate::config::{OtlpConfig, OtlpEncoding};
use crate::deliver::remote::request::Request;
use crate::deliver::remote::verdict::Verdict;
use encode::OtlpEncoder;

const PATH: &str = "/v1/logs";

/// A receiver of OTLP.
pub(crate) struct Otlp {
    url: String,
    encoding: OtlpEncoding,
}

/// Encoder and sink of a configuration; the error names key and reason.
pub(crate) fn build(config: &OtlpConfig) -> Result<(OtlpEncoder, HttpSink<Otlp>), String> {
    let base = config.url.trim_end_matches('/');
    let service = Otlp {
        url: match base.ends_with(PATH) {
            true => base.to_owned(),
            false => format!("{base}{PATH}"),
        },
        encoding: config.encoding,
    };
    let sink = HttpSink::new(service, &config.http, config.compression)?;
    Ok((OtlpEncoder::new(config), sink))
}

impl HttpService for Otlp {
    type Encoder = OtlpEncoder;

    fn head(&self, _request: &Request, _body: &[u8], _now: u64) -> Head {
        let content_type = match self.encoding {
            OtlpEncoding::Protobuf => "application/x-protobuf",
            OtlpEncoding::Json => "application/json",
        };
        let mut headers = HeaderMap::new();
        let content_type = HeaderValue::from_static(content_type);
        headers.insert(reqwest::header::CONTENT_TYPE, content_type);
        Head {
            method: Method::POST,
            url: self.url.clone(),
            headers,
        }
    }

    fn verdict(&self, request: &Request, answer: &Answer) -> Verdict {
        answer::verdict(self.encoding, request.len(), answer)
    }
}

#[cfg(test)]
#[path = "otlp_tests.rs"]
mod tests;
