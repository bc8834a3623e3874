//! Elasticsearch and OpenSearch by `_bulk`.
//!
//! ```text
//! POST <url>/_bulk?filter_path=errors,items.*.status,items.*.error.type,items.*.error.reason
//! Content-Type: application/x-ndjson
//! Authorization: ApiKey <key> | Basic <user:password>
//!
//! {"create":{"_index":"logs-thinglog-default","_id":"lamp-7/00000000000000ab/7"}}
//! {"@timestamp":"2026-01-02T03:04:05.123456789Z","message":"...","log.level":"info", ...}
//! ```
//!
//! By Elasticsearch's pages "Bulk API", "Data streams" (which take `create` only) and "ECS fields", and
//! OpenSearch's "Bulk".
//!
//! **Fields** are ECS's: `@timestamp`, `message`, `log.level`, `event.id`, `event.severity`
//! (OpenTelemetry's number), `event.sequence`, `event.created` (when it was received), `host.name` and
//! `device.id`, `service.name` (the source), `labels` (the attributes, all of them text, as ECS has it,
//! so that no device changes the type of a field; `_` for dots and stars in names), `tags` with
//! `time_estimated` and `truncated`.
//!
//! **Repeats.** The document's `_id` is the event's id and the operation `create`, so what is sent twice
//! is there once: 409 is a duplicate. In a data stream that holds within one backing index.
//!
//! **Order.** Any; `@timestamp` and `event.sequence` sort.
//!
//! **Answers** are read item by item: 2xx accepted, 409 a duplicate, 429 and 5xx tried again, so are 401,
//! 403 and 404 (rights, a blocked or missing index) and a cluster that has all the shards it may have;
//! other 4xx (a field that does not fit the mapping) are dead letters. A request that is too large
//! (413) is halved.

mod encode;
mod items;

use super::http::{Answer, Head, HeaderMap, HeaderValue, HttpService, HttpSink, Method};
use crate::config::ElasticsearchConfig;
use crate::deliver::remote::request::Request;
use crate::deliver::remote::verdict::Verdict;
use encode::BulkEncoder;

/// All that is needed of an answer.
const FILTER: &str = "filter_path=errors,items.*.status,items.*.error.type,items.*.error.reason";

/// A cluster.
pub(crate) struct Elasticsearch {
    url: String,
}

/// Encoder and sink of a configuration; the error names key and reason.
pub(crate) fn build(
    config: &ElasticsearchConfig,
) -> Result<(BulkEncoder, HttpSink<Elasticsearch>), String> {
    let base = config.url.trim_end_matches('/');
    let pipeline = config.pipeline.as_ref();
    let pipeline = pipeline.map_or_else(String::new, |name| format!("&pipeline={name}"));
    let service = Elasticsearch {
        url: format!("{base}/_bulk?{FILTER}{pipeline}"),
    };
    let encoder = BulkEncoder::new(&config.index)?;
    let sink = HttpSink::with_scheme(service, &config.http, config.compression, "ApiKey")?;
    Ok((encoder, sink))
}

impl HttpService for Elasticsearch {
    type Encoder = BulkEncoder;

    fn head(&self, _request: &Request, _body: &[u8], _now: u64) -> Head {
        let mut headers = HeaderMap::new();
        headers.insert(
            reqwest::header::CONTENT_TYPE,
            HeaderValue::from_static("application/x-ndjson"),
        );
        Head {
            method: Method::POST,
            url: self.url.clone(),
            headers,
        }
    }

    fn verdict(&self, request: &Request, answer: &Answer) -> Verdict {
        match answer.status {
            200 => items::verdict(request.len(), answer),
            _ => answer.verdict(),
        }
    }
}

#[cfg(test)]
#[path = "elasticsearch_tests.rs"]
mod tests;
