//! A log event as every part of thinglog sees it.

use std::sync::Arc;

use crate::{Severity, text};

/// Key–value pairs of an event; values are JSON.
pub type Attributes = serde_json::Map<String, serde_json::Value>;

/// What makes an event the same event after any redelivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum EventId {
    /// From an embedded publisher: `<device>/<epoch as 16 hex digits>/<seq>`.
    Spooled {
        /// Of the lane, random per spool lifetime.
        epoch: u64,
        /// Within the lane, from 0.
        seq: u64,
    },
    /// From a plain MQTT client, numbered by the broker's journal:
    /// `<device>/@<journal as 16 hex digits>/<offset>/<index>`.
    Stored {
        /// The journal's id.
        journal: u64,
        /// Of the publish in the journal.
        offset: u64,
        /// Of the event in the payload.
        index: u32,
    },
    /// A hole nobody declared: `gap/<epoch as 16 hex digits>/<from>-<to>`, both ends included.
    Gap {
        /// Of the lane with the hole.
        epoch: u64,
        /// First missing seq.
        from: u64,
        /// Last missing seq.
        to: u64,
    },
    /// A plain event behind a broker that numbers nothing: at-least-once, no id.
    None,
}

impl EventId {
    /// The text form with its device (`gap/…` has none), or `None` for [`EventId::None`].
    pub fn text(&self, device: &str) -> Option<String> {
        if *self == EventId::None {
            return None;
        }
        let mut out = Vec::with_capacity(device.len() + 64);
        self.write(device, &mut out);
        String::from_utf8(out).ok()
    }

    /// Appends the text form; nothing for [`EventId::None`].
    pub fn write(&self, device: &str, out: &mut Vec<u8>) {
        match *self {
            EventId::Spooled { epoch, seq } => {
                out.extend_from_slice(device.as_bytes());
                out.push(b'/');
                text::push_hex(epoch, out);
                out.push(b'/');
                text::push_number(seq, out);
            }
            EventId::Stored {
                journal,
                offset,
                index,
            } => {
                out.extend_from_slice(device.as_bytes());
                out.extend_from_slice(b"/@");
                text::push_hex(journal, out);
                out.push(b'/');
                text::push_number(offset, out);
                out.push(b'/');
                text::push_number(u64::from(index), out);
            }
            EventId::Gap { epoch, from, to } => {
                out.extend_from_slice(b"gap/");
                text::push_hex(epoch, out);
                out.push(b'/');
                text::push_number(from, out);
                out.push(b'-');
                text::push_number(to, out);
            }
            EventId::None => {}
        }
    }

    /// Parses the text form; gives device (empty for gaps) and id. Only the form that
    /// [`EventId::text`] writes is taken, so that one event never has two ids.
    pub fn parse(text: &str) -> Option<(&str, EventId)> {
        let (head, last) = text.rsplit_once('/')?;
        if let Some(gap) = parse_gap(head, last) {
            return Some(("", gap));
        }
        // The longer form first: an offset of 16 digits would also do for an epoch.
        let (head, middle) = head.rsplit_once('/')?;
        if let Some((device, journal)) = head.rsplit_once("/@") {
            let journal = text::parse_hex(journal)?;
            let index = u32::try_from(text::parse_number(last)?).ok()?;
            let offset = text::parse_number(middle)?;
            return Some((
                device,
                EventId::Stored {
                    journal,
                    offset,
                    index,
                },
            ));
        }
        let epoch = text::parse_hex(middle)?;
        Some((
            head,
            EventId::Spooled {
                epoch,
                seq: text::parse_number(last)?,
            },
        ))
    }
}

fn parse_gap(head: &str, last: &str) -> Option<EventId> {
    let epoch = text::parse_hex(head.strip_prefix("gap/")?)?;
    let (from, to) = last.split_once('-')?;
    let (from, to) = (text::parse_number(from)?, text::parse_number(to)?);
    (from <= to).then_some(EventId::Gap { epoch, from, to })
}

/// One log event.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// Who logged; a valid name.
    pub device: Arc<str>,
    /// Program or stream on the device; a valid name.
    pub source: Arc<str>,
    /// The same after any redelivery.
    pub id: EventId,
    /// Nanoseconds since the Unix epoch, by the device's clock (or estimated, see below).
    pub time: u64,
    /// The device's clock was not synchronised; `time` was derived from the broker's.
    pub time_estimated: bool,
    /// How bad.
    pub severity: Severity,
    /// What was logged, at most 256 KiB; any text, line breaks and control characters included.
    pub message: String,
    /// The message was longer than 256 KiB and has been cut.
    pub truncated: bool,
    /// At most 128, see [`crate::limits`].
    pub attributes: Attributes,
    /// Nanoseconds since the Unix epoch when the broker (else the router) received it.
    pub received: u64,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn ids_round_trip(a in any::<u64>(), b in any::<u64>(), c in any::<u64>(), index in any::<u32>()) {
            let ids = [
                EventId::Spooled { epoch: a, seq: b },
                EventId::Stored { journal: a, offset: b, index },
            ];
            for id in ids {
                for device in ["lamp-7", "gap", "a", "eu:x%20y"] {
                    let text = id.text(device).unwrap();
                    prop_assert_eq!(EventId::parse(&text), Some((device, id)));
                }
            }
            let gap = EventId::Gap { epoch: a, from: b.min(c), to: b.max(c) };
            let text = gap.text("lamp-7").unwrap();
            prop_assert_eq!(EventId::parse(&text), Some(("", gap)));
        }

        #[test]
        fn what_parses_as_an_id_is_written_the_same(text in "(a|gap)?/?@?[0-9a-f]{14,17}/[0-9]{1,3}[-/]?[0-9]{0,21}") {
            if let Some((device, id)) = EventId::parse(&text) {
                prop_assert_eq!(id.text(device), Some(text));
            }
        }
    }

    #[test]
    fn ids_read_as_documented() {
        let spooled = EventId::Spooled {
            epoch: 0xab,
            seq: 7,
        };
        assert_eq!(spooled.text("lamp-7").unwrap(), "lamp-7/00000000000000ab/7");
        let stored = EventId::Stored {
            journal: 1,
            offset: 42,
            index: 3,
        };
        assert_eq!(
            stored.text("lamp-7").unwrap(),
            "lamp-7/@0000000000000001/42/3"
        );
        let gap = EventId::Gap {
            epoch: 0xab,
            from: 5,
            to: 9,
        };
        assert_eq!(gap.text("lamp-7").unwrap(), "gap/00000000000000ab/5-9");
        assert_eq!(EventId::None.text("lamp-7"), None);
        let long = EventId::Stored {
            journal: 1,
            offset: 1_000_000_000_000_000,
            index: 0,
        };
        assert_eq!(
            EventId::parse(&long.text("lamp-7").unwrap()),
            Some(("lamp-7", long))
        );
    }

    #[test]
    fn other_texts_are_no_ids() {
        for text in [
            "",
            "a",
            "a/b",
            "a/b/c",
            "a/00000000000000AB/7",
            "a/ab/7",
            "a/00000000000000ab/07",
            "gap/00000000000000ab/9-5",
            "a/@00000000000000ab/1/4294967296",
        ] {
            assert_eq!(EventId::parse(text), None, "{text}");
        }
    }
}
