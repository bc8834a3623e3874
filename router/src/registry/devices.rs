//! The devices that are known, whatever made them known, and what they and the broker say of them.
//!
//! Nothing here is kept on disk: it is what the broker retains. Only when a device that merely publishes
//! was last heard of is not retained anywhere; that is [`super::contacts`]'.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use serde::Deserialize;
use thinglog_schemas::config::{Packed, Reported, bound_reported};
use thinglog_schemas::resolve::Report;

/// Most devices.
pub(crate) const MOST: usize = 1_000_000;
/// Largest document of a device that is looked at, bytes.
const LARGEST: usize = 64 << 10;
/// Longest version or revision that a device may report, bytes.
const LONGEST: usize = 256;
/// Most levels, and most reasons of one, that drops are told by.
const KINDS: usize = 32;

/// Every device, by name.
#[derive(Debug, Default)]
pub(crate) struct Devices {
    known: BTreeMap<Arc<str>, Device>,
    /// Of the connection that tells of them: what an earlier one told is gone with its last set.
    round: u32,
}

/// What is known of one.
#[derive(Debug, Default)]
pub(crate) struct Device {
    reported: Option<(u32, Box<Reported>)>,
    connected: Option<(u32, Box<Connected>)>,
}

/// What the bundled broker says of a connected device.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct Connected {
    /// As what it has signed in.
    pub(crate) principal: Option<String>,
    /// From where.
    pub(crate) address: Option<String>,
    /// Since when, ns since the Unix epoch.
    pub(crate) since: Option<u64>,
}

impl Device {
    /// What it reported last; without its attributes, which the fleet's rules keep.
    pub(crate) fn reported(&self) -> Option<&Reported> {
        self.reported.as_ref().map(|(_, reported)| &**reported)
    }

    /// What the broker says, if it is connected.
    pub(crate) fn connected(&self) -> Option<&Connected> {
        self.connected.as_ref().map(|(_, connected)| &**connected)
    }

    /// Whether it is connected, as far as anybody says.
    pub(crate) fn online(&self) -> Option<bool> {
        match (&self.connected, self.reported()) {
            (Some(_), _) => Some(true),
            (None, Some(reported)) => Some(reported.online),
            (None, None) => None,
        }
    }
}

impl Devices {
    /// A device exists.
    pub(crate) fn saw(&mut self, device: &str) {
        self.entry(device);
    }

    fn entry(&mut self, device: &str) -> Option<&mut Device> {
        if !self.known.contains_key(device) {
            if self.known.len() >= MOST {
                return None;
            }
            self.known.insert(Arc::from(device), Device::default());
        }
        self.known.get_mut(device)
    }

    pub(crate) fn contains(&self, device: &str) -> bool {
        self.known.contains_key(device)
    }

    pub(crate) fn get(&self, device: &str) -> Option<&Device> {
        self.known.get(device)
    }

    pub(crate) fn len(&self) -> usize {
        self.known.len()
    }

    /// Their names behind `after`, sorted.
    pub(crate) fn names(&self, after: Option<&str>) -> impl Iterator<Item = &Arc<str>> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let known = self.known.range::<str, _>((from, Bound::Unbounded));
        known.map(|(name, _)| name)
    }

    /// A device does not exist any more.
    pub(crate) fn forget(&mut self, device: &str) {
        self.known.remove(device);
    }

    /// A new connection begins to tell of devices.
    pub(crate) fn begin(&mut self) {
        self.round = self.round.wrapping_add(1);
    }

    /// It has told of all: what it did not tell of is not so any more. Gives the devices of which
    /// something changed by that.
    pub(crate) fn complete(&mut self) -> Vec<Arc<str>> {
        let round = self.round;
        let mut changed = Vec::new();
        for (name, device) in &mut self.known {
            let before = (device.reported.is_some(), device.connected.is_some());
            device.reported.take_if(|(told, _)| *told != round);
            device.connected.take_if(|(told, _)| *told != round);
            if before != (device.reported.is_some(), device.connected.is_some()) {
                changed.push(Arc::clone(name));
            }
        }
        changed
    }

    /// A `reported/<device>` document; empty when it is removed. Gives what the fleet's rules look at,
    /// `None` when nothing is said any more; an error when it cannot be read, which changes nothing.
    pub(crate) fn report(
        &mut self,
        device: &str,
        payload: &[u8],
    ) -> Result<Option<Packed>, String> {
        let round = self.round;
        if payload.is_empty() {
            if let Some(known) = self.known.get_mut(device) {
                known.reported = None;
            }
            return Ok(None);
        }
        let mut reported = read(payload)?;
        let attributes: Packed = bound_reported(&reported.attributes).collect();
        reported.attributes.clear();
        match self.entry(device) {
            Some(known) => known.reported = Some((round, Box::new(reported))),
            None => return Err(format!("there are {MOST} devices, the most there may be")),
        }
        Ok(Some(attributes))
    }

    /// A `connected/<device>` document; empty when it is removed.
    pub(crate) fn connect(&mut self, device: &str, payload: &[u8]) {
        let round = self.round;
        let connected = serde_json::from_slice::<Connected>(payload).ok();
        let connected = connected.filter(|_| payload.len() <= LARGEST);
        if let Some(known) = self.entry(device) {
            known.connected = connected.map(|connected| (round, Box::new(connected)));
        }
    }

    /// What the fleet's rules are to know of a device that has these attributes.
    pub(crate) fn report_of(&self, device: &str, attributes: Option<Packed>) -> Option<Report> {
        let online = self.get(device)?.online()?;
        Some(Report {
            online,
            attributes: attributes.unwrap_or_default(),
        })
    }
}

/// A device may say anything: what is kept of it is bounded.
fn read(payload: &[u8]) -> Result<Reported, String> {
    if payload.len() > LARGEST {
        return Err(format!("it has {} bytes, at most {LARGEST}", payload.len()));
    }
    let mut reported: Reported =
        serde_json::from_slice(payload).map_err(|error| error.to_string())?;
    cut(&mut reported.version);
    if let Some(revision) = &mut reported.revision {
        cut(revision);
    }
    let few = reported.dropped_by.len() <= KINDS
        && reported
            .dropped_by
            .values()
            .all(|reasons| reasons.len() <= KINDS);
    if !few {
        reported.dropped_by.clear();
    }
    Ok(reported)
}

fn cut(text: &mut String) {
    if text.len() > LONGEST {
        *text = text.chars().take(LONGEST / 4).collect();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_connection_does_not_tell_again_is_gone() {
        let mut devices = Devices::default();
        devices.begin();
        devices.report("a", br#"{"online":true}"#).unwrap();
        devices.report("b", br#"{"online":true}"#).unwrap();
        devices.connect("c", br#"{"principal":"c","since":5}"#);
        assert!(devices.complete().is_empty());
        assert_eq!(devices.get("c").unwrap().online(), Some(true));
        devices.begin();
        devices.report("a", br#"{"online":false}"#).unwrap();
        assert_eq!(devices.complete(), [Arc::from("b"), Arc::from("c")]);
        assert_eq!(devices.get("a").unwrap().online(), Some(false));
        assert_eq!(devices.get("b").unwrap().online(), None);
        assert_eq!(devices.names(Some("a")).count(), 2);
    }

    #[test]
    fn what_a_device_says_is_bounded() {
        let mut devices = Devices::default();
        let long = format!(r#"{{"online":true,"version":"{}"}}"#, "v".repeat(10_000));
        devices.report("a", long.as_bytes()).unwrap();
        assert!(devices.get("a").unwrap().reported().unwrap().version.len() <= LONGEST);
        let huge = format!(r#"{{"version":"{}"}}"#, "v".repeat(LARGEST));
        assert!(devices.report("b", huge.as_bytes()).is_err());
        assert!(devices.report("b", b"nonsense").is_err());
        assert!(!devices.contains("b"));
        let attributes: Vec<String> = (0..1000).map(|n| format!(r#""k{n}":"v""#)).collect();
        let many = format!(r#"{{"attributes":{{{}}}}}"#, attributes.join(","));
        let kept = devices.report("c", many.as_bytes()).unwrap().unwrap();
        assert!(kept.iter().count() <= thinglog_schemas::config::MAX_ATTRIBUTES);
    }
}
