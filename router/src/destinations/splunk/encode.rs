//! Events to what the collector takes. Pure.

use std::borrow::Cow;

use serde_json::Value;
use thinglog_schemas::{Event, EventId, json};

use crate::config::{SplunkConfig, SplunkForm};
use crate::deliver::remote::request::Request;
use crate::deliver::remote::{Encoder, Limits, Order, Unfit};
use crate::routes::template::Template;

/// Fields that are ours to give.
const OWN: [&str; 5] = ["level", "severity", "id", "time_estimated", "truncated"];
const NS: u64 = 1_000_000_000;

/// Encodes events as configured.
pub(crate) struct HecEncoder {
    form: SplunkForm,
    /// `"sourcetype":"..","index":".."`, with a comma behind.
    constant: Vec<u8>,
    /// The query of raw requests.
    query: Template,
    /// Memory for what is put together.
    text: Vec<u8>,
}

impl HecEncoder {
    pub(super) fn new(config: &SplunkConfig) -> Result<HecEncoder, String> {
        let (mut constant, mut query) = (Vec::new(), String::new());
        query.push_str("host={{device|url}}&source={{source|url}}");
        let given = [
            ("sourcetype", Some(&config.sourcetype)),
            ("index", config.index.as_ref()),
        ];
        for (key, value) in given {
            let Some(value) = value else { continue };
            json::write_string(key, &mut constant);
            constant.push(b':');
            json::write_string(value, &mut constant);
            constant.push(b',');
            query.push_str(&format!("&{key}={value}"));
        }
        Ok(HecEncoder {
            form: config.form,
            constant,
            query: Template::parse(&query)?,
            text: Vec::new(),
        })
    }

    fn write_event(&mut self, event: &Event, out: &mut Vec<u8>) {
        out.reserve(event.message.len() + 256);
        out.extend_from_slice(b"{\"time\":");
        json::write_number(event.time / NS, out);
        // With a 1 in front all nine digits are written; it becomes the point.
        let point = out.len();
        json::write_number(NS + event.time % NS, out);
        out[point] = b'.';
        out.extend_from_slice(b",\"host\":");
        json::write_string(&event.device, out);
        out.extend_from_slice(b",\"source\":");
        json::write_string(&event.source, out);
        out.push(b',');
        out.extend_from_slice(&self.constant);
        out.extend_from_slice(b"\"event\":");
        let is_blank = event.message.trim().is_empty();
        if is_blank {
            out.extend_from_slice(b"{\"message\":");
        }
        json::write_string(&event.message, out);
        if is_blank {
            out.push(b'}');
        }
        out.extend_from_slice(b",\"fields\":{\"level\":\"");
        out.extend_from_slice(event.severity.level().topic_name().as_bytes());
        out.extend_from_slice(b"\",\"severity\":\"");
        json::write_number(u64::from(event.severity.number()), out);
        out.push(b'"');
        if event.id != EventId::None {
            out.extend_from_slice(b",\"id\":");
            json::write_id(event, out);
        }
        if event.time_estimated {
            out.extend_from_slice(b",\"time_estimated\":\"true\"");
        }
        if event.truncated {
            out.extend_from_slice(b",\"truncated\":\"true\"");
        }
        self.write_attributes(event, out);
        out.extend_from_slice(b"}}");
    }

    fn write_attributes(&mut self, event: &Event, out: &mut Vec<u8>) {
        for (name, value) in &event.attributes {
            out.push(b',');
            match name.is_empty() || OWN.contains(&name.as_str()) {
                false => json::write_string(name, out),
                true => {
                    let mut name = format!("{name}_");
                    while event.attributes.contains_key(&name) {
                        name.push('_');
                    }
                    json::write_string(&name, out);
                }
            }
            out.push(b':');
            match value {
                Value::String(value) => json::write_string(value, out),
                other => {
                    self.text.clear();
                    json::write_value(other, &mut self.text);
                    json::write_string(&String::from_utf8_lossy(&self.text), out);
                }
            }
        }
    }
}

impl Encoder for HecEncoder {
    fn limits(&self) -> Limits {
        Limits {
            events: 5000,
            ..Limits::USUAL
        }
    }

    fn order(&self) -> Order {
        Order::Any
    }

    fn key<'a>(&self, event: &'a Event) -> Cow<'a, str> {
        match self.form {
            SplunkForm::Event => Cow::Borrowed(""),
            SplunkForm::Raw => {
                let mut query = Vec::new();
                self.query.write(event, &mut query);
                Cow::Owned(String::from_utf8_lossy(&query).into_owned())
            }
        }
    }

    fn encode(&mut self, event: &Event, out: &mut Vec<u8>) -> Result<usize, Unfit> {
        match self.form {
            SplunkForm::Event => self.write_event(event, out),
            SplunkForm::Raw if event.message.trim().is_empty() => {
                return Err(Unfit("Splunk makes no event of a blank line".into()));
            }
            SplunkForm::Raw => {
                out.extend_from_slice(event.message.trim_end_matches('\n').as_bytes());
            }
        }
        out.push(b'\n');
        Ok(out.len())
    }

    fn body(&mut self, request: &Request, out: &mut Vec<u8>) {
        out.extend_from_slice(request.joined());
    }
}
