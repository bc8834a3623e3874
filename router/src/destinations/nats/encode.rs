//! Events to messages: a piece is subject, id and payload, the first two with their length (two bytes)
//! in front. Pure.

use thinglog_schemas::{Event, json};

use crate::deliver::remote::request::Request;
use crate::deliver::remote::{Encoder, Limits, Unfit};
use crate::routes::template::Template;

/// What a message costs besides: the protocol line and the names of headers.
const FRAME: usize = 128;
/// Longest subject, bytes; the server's limit for a line of its protocol is 4,096.
const LONGEST_SUBJECT: usize = 2048;

/// Encodes events as configured.
pub(crate) struct NatsEncoder {
    pub(super) subject: Template,
}

impl Encoder for NatsEncoder {
    fn limits(&self) -> Limits {
        Limits::USUAL
    }

    fn encode(&mut self, event: &Event, out: &mut Vec<u8>) -> Result<usize, Unfit> {
        let mut subject = Vec::new();
        self.subject.write(event, &mut subject);
        check(&subject).map_err(Unfit)?;
        let id = event.id.text(&event.device).unwrap_or_default();
        for text in [&subject, id.as_bytes()] {
            out.extend_from_slice(&(text.len() as u16).to_be_bytes());
            out.extend_from_slice(text);
        }
        json::write(event, out);
        Ok(out.len() + FRAME)
    }

    fn body(&mut self, request: &Request, out: &mut Vec<u8>) {
        out.extend_from_slice(request.joined());
    }
}

/// Whether a subject can be published to.
fn check(subject: &[u8]) -> Result<(), String> {
    if subject.len() > LONGEST_SUBJECT {
        let length = subject.len();
        return Err(format!(
            "its subject has {length} bytes, more than {LONGEST_SUBJECT}"
        ));
    }
    let is_odd = |byte: &u8| byte.is_ascii_whitespace() || byte.is_ascii_control();
    let has_empty = subject.split(|byte| *byte == b'.').any(<[u8]>::is_empty);
    if has_empty || subject.iter().any(is_odd) {
        let subject = String::from_utf8_lossy(subject);
        return Err(format!(
            "its subject {subject:?} has an empty part or blanks"
        ));
    }
    Ok(())
}

/// One message of a piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Message<'a> {
    pub(super) subject: &'a [u8],
    /// Empty: none.
    pub(super) id: &'a [u8],
    pub(super) payload: &'a [u8],
}

impl Message<'_> {
    /// Takes a piece apart.
    pub(super) fn of(piece: &[u8]) -> Option<Message<'_>> {
        let (subject, rest) = text(piece)?;
        let (id, payload) = text(rest)?;
        Some(Message {
            subject,
            id,
            payload,
        })
    }
}

fn text(piece: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = piece.split_first_chunk::<2>()?;
    rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))
}
