//! Splunk by its HTTP Event Collector (HEC), with indexer acknowledgement.
//!
//! ```text
//! POST <url>/services/collector/event                or .../raw?host=..&source=..&sourcetype=..
//! Authorization: Splunk <token>
//! X-Splunk-Request-Channel: <GUID>                   (with `acknowledge`, and for raw)
//! Content-Encoding: gzip
//!
//! {"time":1767323045.123456789,"host":"lamp-7","source":"app","sourcetype":"thinglog",
//!  "event":"...","fields":{"level":"info","severity":"9","id":"lamp-7/00000000000000ab/7", ...}}
//! ```
//!
//! By Splunk's pages "Format events for HTTP Event Collector", "About HTTP Event Collector Indexer
//! Acknowledgment" and "Troubleshoot HTTP Event Collector, possible error codes".
//!
//! **Fields.** The device is `host`, the source `source`; attributes are indexed fields, which are flat:
//! all of them text, objects and lists as JSON. A message that is blank, which the collector refuses,
//! goes as `{"message":""}`; as a raw line it would be no event, so there it is a dead letter.
//!
//! **Acknowledgement.** The collector's 200 says only that it has read the events. With `acknowledge`
//! the sink then asks `/services/collector/ack` until the indexer has them; what is not acknowledged in
//! time, or whose server goes away meanwhile, is sent again over a new channel: numbers of
//! acknowledgements begin anew with a restart, so an old channel could confirm the wrong request. A
//! request under way waits that long; more throughput comes from `concurrency`. Behind a load balancer
//! sessions must be sticky.
//!
//! **Order and repeats.** Any order; `time` sorts. Splunk recognises no repeats: at least once, with `id`
//! to tell them.
//!
//! **Answers** are read by the collector's code: a wrong token, index or channel is tried again until
//! mended, busy and broken servers too; an event that is named as invalid (`invalid-event-number`) is a
//! dead letter, those before it were taken (with `acknowledge` they are sent again, because nothing
//! confirms them), those behind it are sent again.

mod encode;
mod hec;

use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::http::{Answer, Connection, Head, HeaderMap, HeaderName, HeaderValue, Method};
use crate::clock;
use crate::config::{SplunkConfig, SplunkForm};
use crate::deliver::remote::Sink;
use crate::deliver::remote::request::Request;
use crate::deliver::remote::verdict::Verdict;
use encode::HecEncoder;
use hec::Said;

const CHANNEL: HeaderName = HeaderName::from_static("x-splunk-request-channel");

/// A collector.
pub(crate) struct Splunk {
    connection: Connection,
    base: String,
    form: SplunkForm,
    acknowledge: bool,
    timeout: Duration,
    every: Duration,
    channel: Mutex<HeaderValue>,
}

/// Encoder and sink of a configuration; the error names key and reason.
pub(crate) fn build(config: &SplunkConfig) -> Result<(HecEncoder, Splunk), String> {
    let splunk = Splunk {
        connection: Connection::new(&config.http, config.compression, "Splunk")?,
        base: config.url.trim_end_matches('/').to_owned(),
        form: config.form,
        acknowledge: config.acknowledge,
        timeout: Duration::from_millis(config.ack_timeout_ms),
        every: Duration::from_millis(config.ack_every_ms),
        channel: Mutex::new(new_channel()),
    };
    Ok((HecEncoder::new(config)?, splunk))
}

/// A random GUID (RFC 9562, version 4).
fn new_channel() -> HeaderValue {
    let mut bytes = [0; 16];
    if getrandom::fill(&mut bytes).is_err() {
        // Not random, but no channel of before.
        bytes = u128::from(clock::now_ns()).to_be_bytes();
    }
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let mut text = String::with_capacity(36);
    for (at, byte) in bytes.iter().enumerate() {
        if matches!(at, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        text.push_str(&format!("{byte:02x}"));
    }
    HeaderValue::from_str(&text).unwrap_or(HeaderValue::from_static(""))
}

impl Splunk {
    fn head(&self, path: &str, channel: Option<&HeaderValue>) -> Head {
        let mut headers = HeaderMap::new();
        let content_type = HeaderValue::from_static("application/json");
        headers.insert(reqwest::header::CONTENT_TYPE, content_type);
        headers.extend(channel.map(|channel| (CHANNEL, channel.clone())));
        Head {
            method: Method::POST,
            url: format!("{}/services/collector/{path}", self.base),
            headers,
        }
    }

    fn data_head(&self, request: &Request, channel: &HeaderValue) -> Head {
        match self.form {
            SplunkForm::Event => self.head("event", self.acknowledge.then_some(channel)),
            SplunkForm::Raw => self.head(&format!("raw?{}", request.key()), Some(channel)),
        }
    }

    /// Nothing that was sent over the channel before will be asked for any more.
    fn leave(&self, channel: &HeaderValue) {
        let mut current = self.channel.lock();
        if *current == *channel {
            *current = new_channel();
        }
    }

    /// Waits until the indexer has what the collector gave this number.
    async fn acknowledged(&self, id: u64, channel: &HeaderValue) -> Verdict {
        let deadline = Instant::now() + self.timeout;
        loop {
            let body = format!("{{\"acks\":[{id}]}}").into_bytes();
            let head = self.head("ack", Some(channel));
            match self.connection.exchange(head, body).await {
                Ok(answer) if hec::is_acknowledged(&answer, id) => return Verdict::Accepted,
                Ok(answer) if answer.status >= 400 && answer.status != 503 => {
                    self.leave(channel);
                    let reason = format!("asked for an acknowledgement: {}", answer.reason());
                    return Verdict::retry(reason);
                }
                Ok(_) => {}
                Err(reason) => {
                    self.leave(channel);
                    return Verdict::retry(format!("asked for an acknowledgement: {reason}"));
                }
            }
            if Instant::now() >= deadline {
                self.leave(channel);
                let waited = self.timeout.as_millis();
                return Verdict::retry(format!("no acknowledgement within {waited} ms"));
            }
            tokio::time::sleep(self.every).await;
        }
    }

    async fn settle(&self, request: &Request, answer: &Answer, channel: &HeaderValue) -> Verdict {
        match hec::read(answer) {
            Some(Said {
                code: 0,
                ack: Some(id),
                ..
            }) if self.acknowledge => self.acknowledged(id, channel).await,
            Some(said) => hec::verdict(&said, request.len(), self.acknowledge, answer),
            None => answer.verdict(),
        }
    }
}

impl Sink for Splunk {
    type Encoder = HecEncoder;

    async fn send(&self, request: &Request, body: Vec<u8>) -> Verdict {
        let channel = self.channel.lock().clone();
        let mut head = self.data_head(request, &channel);
        self.connection.say_encoding(&mut head);
        let body = match self.connection.compress(body) {
            Ok(body) => body,
            Err(error) => return Verdict::retry(format!("cannot compress: {error}")),
        };
        match self.connection.exchange(head, body).await {
            Ok(answer) => self.settle(request, &answer, &channel).await,
            Err(reason) => {
                self.leave(&channel);
                Verdict::retry(reason)
            }
        }
    }
}

#[cfg(test)]
#[path = "splunk_tests.rs"]
mod tests;
