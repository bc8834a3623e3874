//! Last wills: sent when a connection ends without DISCONNECT, after their delay (MQTT 5.0 section
//! 3.1.2.5). They are kept on disk too: a client that was connected when the broker died, and does not
//! come back, is spoken for all the same.

use std::sync::Arc;

use bytes::Bytes;
use thinglog_journal::Records;
use tracing::warn;

use super::{Hub, publish::record_of};
use crate::{
    access::Pass,
    clock,
    codec::Will,
    message::{Message, expiry_time},
    record::{NO_ADDRESS, Record, client_hash},
    session::{Inner, Session},
    state::Kind,
};

/// Clients of a broker that comes back get this long to come back too before their wills are sent, ns.
const RETURN: u64 = 60_000_000_000;

impl Hub {
    /// Keeps the will of a client that connects on disk, in place of an earlier one.
    pub(super) fn keep_will(&self, session: &Session, inner: &mut Inner) {
        let orphan = self.orphans.lock().remove(&session.client_id);
        inner.will_stored |= orphan.is_some();
        match inner.will {
            Some(_) => {
                inner.will_stored = true;
                self.store_will(session, inner);
            }
            None => self.drop_will(session, inner),
        }
    }

    /// Queues a will that is on disk for it again.
    pub(super) fn store_will(&self, session: &Session, inner: &Inner) {
        if let Some(will) = inner.will.as_ref().filter(|_| inner.will_stored) {
            let bytes = Some(encode(will, &session.client_id, inner.will_of()));
            self.state.change(Kind::Will, &session.client_id, bytes);
        }
    }

    /// The same for the wills of clients that have not come back.
    pub(super) fn store_orphans(&self) {
        for (client_id, orphan) in self.orphans.lock().iter() {
            let principal = orphan.principal.as_deref();
            let bytes = Some(encode(&orphan.will, client_id, principal));
            self.state.change(Kind::Will, client_id, bytes);
        }
    }

    /// Removes a will from disk, once it is sent or will never be.
    pub(super) fn drop_will(&self, session: &Session, inner: &mut Inner) {
        if std::mem::take(&mut inner.will_stored) {
            self.state.change(Kind::Will, &session.client_id, None);
        }
    }

    /// Takes up the wills of clients that were connected, or whose wills waited, when the broker ended.
    pub(super) fn revive_wills(&self, wills: Vec<(String, Vec<u8>)>, now: u64) {
        let mut orphans = self.orphans.lock();
        for (client_id, bytes) in wills {
            match decode(&bytes) {
                Some((will, principal)) => {
                    let delay = u64::from(will.delay) * 1_000_000_000;
                    let due = now.saturating_add(delay.max(RETURN));
                    let orphan = Orphan {
                        due,
                        principal,
                        will,
                    };
                    orphans.insert(client_id.into(), orphan);
                }
                None => warn!(client = client_id, "a will on disk cannot be read"),
            }
        }
    }

    /// Sends the wills of clients that did not come back.
    pub(crate) fn send_orphans(&self, now: u64) {
        let orphans = self.orphans.lock();
        let due = orphans.iter().filter(|(_, orphan)| orphan.due <= now);
        let due: Vec<Arc<str>> = due.map(|(client_id, _)| client_id.clone()).collect();
        drop(orphans);
        for client_id in due {
            // Who comes back meanwhile finds the old will gone, on disk too, or takes it back whole.
            let _handover = self.handover.lock();
            let Some(orphan) = self.orphans.lock().remove(&client_id) else {
                continue;
            };
            let pass = self
                .access
                .absent(orphan.principal.as_deref(), client_id.clone());
            self.publish_will(&client_id, Some(&pass), orphan.will);
            self.state.change(Kind::Will, &client_id, None);
        }
    }

    /// Publishes a will, whatever its topic, if the client may publish there as things stand now.
    pub(super) fn publish_will(&self, client_id: &str, pass: Option<&Arc<Pass>>, will: Will) {
        let may_write = |pass: &Arc<Pass>| {
            let pass = self.access.renew(pass);
            pass.is_ok_and(|pass| pass.may_write(&will.topic))
        };
        if !pass.is_none_or(may_write) {
            return self.telemetry.dropped(client_id, "will not allowed");
        }
        let now = clock::now();
        let expires = will.expiry.map(|seconds| expiry_time(seconds, now));
        let message = Message {
            topic: will.topic.into(),
            payload: will.payload,
            qos: will.qos,
            retain: will.retain,
            expires,
            client: client_hash(client_id),
            properties: will.properties.into(),
        };
        if !self.durable.contains(&message.topic) {
            if let Err(refusal) = self.publish(message, None) {
                self.telemetry.dropped(client_id, "will not stored");
                warn!(client = client_id, ?refusal, "a will could not be stored");
            }
            return;
        }
        let record = Record {
            principal: pass.and_then(|pass| pass.principal()).map(|name| &**name),
            ..record_of(&message)
        };
        let mut records = Records::new();
        records.push_with(|out| record.encode(out));
        if let Err(error) = self.journal.append(now, &records) {
            self.telemetry.dropped(client_id, "will not stored");
            warn!(client = client_id, %error, "a will could not be stored");
        }
    }
}

/// The will of a client that has not come back since the broker did.
#[derive(Debug)]
pub(super) struct Orphan {
    /// When it is sent, ns since the epoch.
    due: u64,
    /// Whose it is; `None` is nobody in particular.
    principal: Option<Arc<str>>,
    will: Will,
}

/// A will on disk: delay u32, expiry u32 (0 is none), retain u8, then the message as a record.
fn encode(will: &Will, client_id: &str, principal: Option<&str>) -> Vec<u8> {
    let mut out = Vec::new();
    out.extend_from_slice(&will.delay.to_be_bytes());
    out.extend_from_slice(
        &will
            .expiry
            .map_or(0, |seconds| seconds.max(1))
            .to_be_bytes(),
    );
    out.push(u8::from(will.retain));
    Record {
        qos: will.qos,
        packet: None,
        client: client_hash(client_id),
        address: NO_ADDRESS,
        expires: None,
        principal,
        topic: &will.topic,
        properties: &will.properties,
        payload: &will.payload,
    }
    .encode(&mut out);
    out
}

fn decode(bytes: &[u8]) -> Option<(Will, Option<Arc<str>>)> {
    let (delay, rest) = bytes.split_first_chunk::<4>()?;
    let (expiry, rest) = rest.split_first_chunk::<4>()?;
    let (retain, rest) = rest.split_first()?;
    let record = Record::decode(rest)?;
    let will = Will {
        topic: record.topic.to_owned(),
        payload: Bytes::copy_from_slice(record.payload),
        qos: record.qos,
        retain: *retain != 0,
        delay: u32::from_be_bytes(*delay),
        expiry: Some(u32::from_be_bytes(*expiry)).filter(|seconds| *seconds > 0),
        properties: record.properties.to_vec(),
    };
    Some((will, record.principal.map(Arc::from)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_will_comes_back_from_disk() {
        let will = Will {
            topic: "reported/lamp".into(),
            payload: Bytes::from_static(b"offline"),
            qos: 2,
            retain: true,
            delay: 5,
            expiry: Some(60),
            properties: vec![1, 1],
        };
        for principal in [None, Some("alice")] {
            let bytes = encode(&will, "lamp", principal);
            let (back, of) = decode(&bytes).unwrap();
            assert_eq!(format!("{back:?}"), format!("{will:?}"));
            assert_eq!(of.as_deref(), principal);
            assert!(decode(&bytes[..9]).is_none());
        }
    }
}
