//! Fuzz targets: what bytes from outside go through. Each takes any input and panics only when the
//! broker is wrong. Ordinary tests run them for a few seconds over the seeds in `broker/fuzz/corpus`,
//! a coverage-guided fuzzer as long as somebody wants (`broker/fuzz`).

mod session;

#[cfg(test)]
mod tests;

use std::path::Path;

use thinglog_schemas::Topics;

use crate::{
    access::fuzzing,
    codec::{self, Version, kind},
    inbound::{Inbound, Marks},
    letter,
    outgoing::Outgoing,
    record::Record,
    session::Stored,
    state::fuzzing as state,
};

pub use session::session;

/// Largest packet.
const MOST: usize = 64 << 10;

/// The frame decoder and every packet reader, in both versions.
pub fn packets(data: &[u8]) {
    let Ok(Some(frame)) = codec::frame(data, MOST) else {
        return;
    };
    assert!(frame.total <= data.len() && frame.header <= frame.total);
    let packet = &data[..frame.total];
    let body = &packet[frame.header..];
    for version in [Version::V311, Version::V5] {
        match frame.kind {
            kind::CONNECT => drop(codec::read_connect(version, &frame, packet)),
            kind::SUBSCRIBE => drop(codec::read_subscribe(version, body)),
            kind::UNSUBSCRIBE => drop(codec::read_unsubscribe(version, &frame, packet)),
            kind::DISCONNECT => drop(codec::read_disconnect(version, body)),
            kind::PUBLISH => publish(version, frame.flags, body),
            _ => drop(codec::read_ack(version, &frame, body)),
        }
    }
}

fn publish(version: Version, flags: u8, body: &[u8]) {
    let Ok(publish) = codec::parse_publish(version, flags, body) else {
        return;
    };
    assert!(publish.payload.len() <= body.len());
    let mut forward = Vec::new();
    if codec::scan_properties(publish.properties, &mut forward).is_ok() {
        assert!(forward.len() <= publish.properties.len());
    }
}

/// Everything the broker reads back from its own disk: records, letters, sessions, cursors, changes.
pub fn stored(data: &[u8]) {
    let Some((&which, data)) = data.split_first() else {
        return;
    };
    match which % 8 {
        0 => drop(Record::decode(data)),
        1 => drop(letter::decode(1, data)),
        2 => drop(Stored::decode(data)),
        3 => drop(Outgoing::decode(data)),
        4 => drop(Inbound::decode(data)),
        5 => drop(Marks::decode(data)),
        6 => {
            if let Some(cursor) = thinglog_journal::cursor::Cursor::decode(data) {
                let again = thinglog_journal::cursor::Cursor::decode(&cursor.encode());
                assert_eq!(again.map(|again| again.encode()), Some(cursor.encode()));
            }
        }
        _ => state::changes(data),
    }
}

/// ACL files, and the decisions that follow from what was read.
pub fn acl(data: &[u8]) {
    if let (Ok(text), Ok(topics)) = (std::str::from_utf8(data), Topics::new("thinglog")) {
        fuzzing::acl(Path::new("acl"), text, &topics);
    }
}

/// Password files, token files, key sets and tokens.
pub fn credentials(data: &[u8]) {
    if let Ok(text) = std::str::from_utf8(data) {
        fuzzing::credentials(Path::new("file"), text);
    }
}
