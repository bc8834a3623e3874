//! Grafana Loki: push requests as protobuf under snappy.
//!
//! ```text
//! POST <url>/loki/api/v1/push
//! Content-Type: application/x-protobuf
//! X-Scope-OrgID: <tenant>                            (with `tenant`)
//! ```
//!
//! By Loki's pages "Loki HTTP API, Ingest logs", "Limits" (`limits_config`) and its `push.proto`.
//!
//! **Streams.** A stream is a combination of label values; labels are `job` and `device` unless
//! configured. An entry carries what is no label as structured metadata: `device`, `source`, `level`,
//! `severity_number`, `id` and the attributes (names with other characters than `A-Z a-z 0-9 _` get `_`
//! for them, names that are taken `_extracted`, and what goes beyond 100 stands as JSON in `attributes`).
//!
//! **Order.** Requests of a device follow each other, so with `device` among the labels the entries of
//! a stream arrive in order. Loki takes an entry that is older than the newest of its stream only within
//! half of `max_chunk_age`, one hour: where devices share streams, what a device uploads late is
//! refused. That is why `device` is a label by default.
//!
//! **Repeats.** Loki keeps one of two entries of a stream that have the same time and line. So what is
//! sent twice is there once; and that two equal lines of one moment are both there, a time in whole
//! microseconds gets three more digits from the event's number and device, always the same.
//!
//! **Answers.** 400 is never retried as it is: Loki has taken what it likes of the request. If it
//! says which time was too old, events older than that are refused and the others sent again; else
//! the request is halved until the culprits are alone. 413 halves too. 429 and 5xx are tried again.

mod encode;
mod refusal;

use super::http::{
    Answer, Head, HeaderMap, HeaderName, HeaderValue, HttpService, HttpSink, Method,
};
use crate::config::{Compression, LokiConfig};
use crate::deliver::remote::request::Request;
use crate::deliver::remote::verdict::Verdict;
use encode::LokiEncoder;

const PUSH: &str = "/loki/api/v1/push";

/// Loki, and how it is told what is whose.
pub(crate) struct Loki {
    url: String,
    headers: HeaderMap,
}

/// Encoder and sink of a configuration; the error names key and reason.
pub(crate) fn build(config: &LokiConfig) -> Result<(LokiEncoder, HttpSink<Loki>), String> {
    let base = config.url.trim_end_matches('/');
    let mut headers = HeaderMap::new();
    headers.insert(
        reqwest::header::CONTENT_TYPE,
        HeaderValue::from_static("application/x-protobuf"),
    );
    if let Some(tenant) = &config.tenant {
        let value = HeaderValue::from_str(tenant)
            .map_err(|_| format!("tenant: {tenant:?} is not the value of a header"))?;
        headers.insert(HeaderName::from_static("x-scope-orgid"), value);
    }
    let service = Loki {
        url: match base.ends_with(PUSH) {
            true => base.to_owned(),
            false => format!("{base}{PUSH}"),
        },
        headers,
    };
    let encoder = LokiEncoder::new(config)?;
    // Snappy is part of the body's form.
    let sink = HttpSink::new(service, &config.http, Compression::None)?;
    Ok((encoder, sink))
}

impl HttpService for Loki {
    type Encoder = LokiEncoder;

    fn head(&self, _request: &Request, _body: &[u8], _now: u64) -> Head {
        Head {
            method: Method::POST,
            url: self.url.clone(),
            headers: self.headers.clone(),
        }
    }

    fn verdict(&self, request: &Request, answer: &Answer) -> Verdict {
        let too_old = (answer.status == 400).then(|| refusal::too_old(request, answer));
        too_old.flatten().unwrap_or_else(|| answer.verdict())
    }
}

#[cfg(test)]
#[path = "loki_tests.rs"]
mod tests;
