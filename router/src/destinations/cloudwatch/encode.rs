//! Events to log events: a piece is one of them. Pure.

use std::borrow::Cow;

use thinglog_schemas::{Event, json};

use crate::config::{CloudWatchConfig, CloudWatchLine};
use crate::deliver::remote::request::Request;
use crate::deliver::remote::{Encoder, Limits, Unfit};
use crate::routes::template::Template;

/// What the service counts for an event beside its message, bytes.
pub(super) const EVENT: usize = 26;
/// Most bytes of a request, in that count.
pub(super) const BYTES: usize = 1_048_576;
/// Most events of a request.
pub(super) const EVENTS: usize = 10_000;
/// Most characters of a name.
const NAME: usize = 512;
/// No group that others make begins with it (CreateLogGroup, `logGroupName`).
const RESERVED: &str = "aws/";
const MS: u64 = 1_000_000;
/// A day less the part of a millisecond that is not sent.
const SPAN: u64 = 24 * 3600 * 1000 * MS - MS;

/// Encodes events as configured.
pub(crate) struct CloudWatchEncoder {
    group: Template,
    stream: Template,
    line: CloudWatchLine,
    /// Memory for what is put together.
    text: Vec<u8>,
}

impl CloudWatchEncoder {
    pub(super) fn new(config: &CloudWatchConfig) -> Result<CloudWatchEncoder, String> {
        let parse = |key: &str, text: &str| {
            Template::parse(text).map_err(|reason| format!("{key}: {reason}"))
        };
        Ok(CloudWatchEncoder {
            group: parse("log_group", &config.log_group)?,
            stream: parse("log_stream", &config.log_stream)?,
            line: config.line,
            text: Vec::new(),
        })
    }
}

impl Encoder for CloudWatchEncoder {
    fn limits(&self) -> Limits {
        Limits {
            events: EVENTS,
            bytes: BYTES,
            span_ns: SPAN,
            ..Limits::USUAL
        }
    }

    /// Group and stream with a line break between them, which neither can have.
    fn key<'a>(&self, event: &'a Event) -> Cow<'a, str> {
        let mut key = name(&self.group, event, |c| {
            c.is_ascii_alphanumeric() || "-_/.#".contains(c)
        });
        if key.starts_with(RESERVED) {
            key.replace_range(..RESERVED.len(), "aws_");
        }
        key.push('\n');
        let is_allowed = |c: char| !c.is_control() && c != ':' && c != '*';
        key.push_str(&name(&self.stream, event, is_allowed));
        Cow::Owned(key)
    }

    fn encode(&mut self, event: &Event, out: &mut Vec<u8>) -> Result<usize, Unfit> {
        out.extend_from_slice(b"{\"timestamp\":");
        json::write_number(event.time / MS, out);
        out.extend_from_slice(b",\"message\":");
        let bytes = match self.line {
            CloudWatchLine::Message if !event.message.is_empty() => {
                json::write_string(&event.message, out);
                event.message.len()
            }
            CloudWatchLine::Message | CloudWatchLine::Json => {
                self.text.clear();
                json::write(event, &mut self.text);
                json::write_string(&String::from_utf8_lossy(&self.text), out);
                self.text.len()
            }
        };
        out.push(b'}');
        // The service counts what the message is; written as JSON it may have six bytes for one. A body is
        // held to twice the count, so that it takes no more memory than that.
        Ok((bytes + EVENT).max((out.len() + 1).div_ceil(2)))
    }

    fn body(&mut self, request: &Request, out: &mut Vec<u8>) {
        let (group, stream) = names(request);
        out.extend_from_slice(b"{\"logGroupName\":");
        json::write_string(group, out);
        out.extend_from_slice(b",\"logStreamName\":");
        json::write_string(stream, out);
        out.extend_from_slice(b",\"logEvents\":[");
        let pieces: Vec<&[u8]> = request.pieces().collect();
        for (at, place) in sorted(request).into_iter().enumerate() {
            if at > 0 {
                out.push(b',');
            }
            out.extend_from_slice(pieces[place]);
        }
        out.extend_from_slice(b"]}");
    }
}

/// A name of an event: `_` for what it cannot have, and where it would be empty.
fn name(template: &Template, event: &Event, is_allowed: impl Fn(char) -> bool) -> String {
    let mut text = Vec::new();
    template.write(event, &mut text);
    let text = String::from_utf8_lossy(&text);
    let allowed = |c: char| if is_allowed(c) { c } else { '_' };
    let name: String = text.chars().take(NAME).map(allowed).collect();
    match name.is_empty() {
        true => "_".to_owned(),
        false => name,
    }
}

/// Group and stream of a request.
pub(super) fn names(request: &Request) -> (&str, &str) {
    request.key().split_once('\n').unwrap_or_default()
}

/// The places of a request's events in the order in which they are sent.
pub(super) fn sorted(request: &Request) -> Vec<usize> {
    let times: Vec<u64> = request.events().map(|event| event.time / MS).collect();
    let mut places: Vec<usize> = (0..times.len()).collect();
    places.sort_by_key(|place| times[*place]);
    places
}

/// A body with the token that an endpoint asks for.
pub(super) fn with_token(mut body: Vec<u8>, token: &str) -> Vec<u8> {
    body.pop();
    body.extend_from_slice(b",\"sequenceToken\":");
    json::write_string(token, &mut body);
    body.push(b'}');
    body
}
