//! Events to export requests: a piece is a log record, a body puts the records of one device and
//! source below one resource. Pure.

use std::collections::HashMap;

use thinglog_schemas::Event;

use super::{json_form, proto_form};
use crate::config::{OtlpConfig, OtlpEncoding};
use crate::deliver::remote::request::Request;
use crate::deliver::remote::{Encoder, Limits, Unfit};

/// The id of an event (semantic conventions, `log`).
pub(super) const UID: &str = "log.record.uid";
/// The time was derived from the broker's.
pub(super) const ESTIMATED: &str = "thinglog.time_estimated";
/// The message has been cut.
pub(super) const TRUNCATED: &str = "thinglog.truncated";
/// The instrumentation scope.
pub(super) const SCOPE: &str = "thinglog";
pub(super) const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Encodes events as configured.
pub(crate) struct OtlpEncoder {
    encoding: OtlpEncoding,
    resource: Vec<(String, String)>,
    /// Most bytes that a resource of an empty device and source takes.
    resource_bytes: usize,
}

impl OtlpEncoder {
    pub(super) fn new(config: &OtlpConfig) -> OtlpEncoder {
        let resource: Vec<_> = config.resource.clone().into_iter().collect();
        let mut empty = Vec::new();
        // Should an event be alone below its resource.
        let one: [&[u8]; 1] = [b""];
        match config.encoding {
            OtlpEncoding::Protobuf => {
                proto_form::resource_logs(&resource, "", "", &one, &mut empty)
            }
            OtlpEncoding::Json => json_form::resource_logs(&resource, "", "", &one, &mut empty),
        }
        OtlpEncoder {
            encoding: config.encoding,
            resource,
            // Lengths take more bytes when what they count is longer.
            resource_bytes: empty.len() + 64,
        }
    }
}

impl Encoder for OtlpEncoder {
    fn limits(&self) -> Limits {
        Limits {
            events: 5000,
            overhead: 32,
            ..Limits::USUAL
        }
    }

    fn encode(&mut self, event: &Event, out: &mut Vec<u8>) -> Result<usize, Unfit> {
        match self.encoding {
            OtlpEncoding::Protobuf => proto_form::log_record(event, out),
            OtlpEncoding::Json => json_form::log_record(event, out),
        }
        // Names of devices and sources need no escapes.
        let names = 2 * event.device.len() + event.source.len();
        Ok(out.len() + self.resource_bytes + names)
    }

    fn body(&mut self, request: &Request, out: &mut Vec<u8>) {
        let groups = groups(request);
        match self.encoding {
            OtlpEncoding::Protobuf => {
                for ((device, source), records) in groups {
                    proto_form::resource_logs(&self.resource, device, source, &records, out);
                }
            }
            OtlpEncoding::Json => {
                out.extend_from_slice(b"{\"resourceLogs\":[");
                for (at, ((device, source), records)) in groups.into_iter().enumerate() {
                    if at > 0 {
                        out.push(b',');
                    }
                    json_form::resource_logs(&self.resource, device, source, &records, out);
                }
                out.extend_from_slice(b"]}");
            }
        }
    }
}

/// Device and source, and their records.
type Group<'a> = ((&'a str, &'a str), Vec<&'a [u8]>);

/// The records of each device and source, in order; groups in the order of their first records.
fn groups(request: &Request) -> Vec<Group<'_>> {
    let mut groups: Vec<Group<'_>> = Vec::new();
    let mut places: HashMap<(&str, &str), usize> = HashMap::new();
    for (event, piece) in request.events().zip(request.pieces()) {
        let names = (&*event.device, &*event.source);
        let place = *places.entry(names).or_insert_with(|| {
            groups.push((names, Vec::new()));
            groups.len() - 1
        });
        groups[place].1.push(piece);
    }
    groups
}
