//! One route, ready to use.

use std::sync::Arc;

use thinglog_schemas::query::{EventQuery, Facts};
use thinglog_schemas::{Event, hash};

use super::shape::Shape;
use crate::config::{ConfigError, RouteConfig};

/// A route.
#[derive(Clone, Debug)]
pub(crate) struct Route {
    pub(crate) name: Arc<str>,
    when: Option<EventQuery>,
    /// Events whose hash is at least this are left out.
    below: Option<u64>,
    /// What becomes of events; `None`: they stay as they are.
    pub(crate) shape: Option<Shape>,
}

impl Route {
    /// Makes a route; an error names its key.
    pub(crate) fn new(name: &str, config: &RouteConfig) -> Result<Route, ConfigError> {
        let below = match config.sample {
            None => None,
            Some(share) if (0.0..=1.0).contains(&share) => threshold(share),
            Some(share) => {
                let reason = format!("{share} is no share: 0 (no event) to 1 (all)");
                return Err(ConfigError::new("sample", reason));
            }
        };
        Ok(Route {
            name: Arc::from(name),
            when: config.when.as_ref().map(|when| when.0.clone()),
            below,
            shape: Shape::new(config)?,
        })
    }

    /// Whether it is for all events of a source, or for none; `None` if that hangs on the event.
    pub(crate) fn decides(&self, device: &str, source: &str, facts: &Facts) -> Option<bool> {
        match &self.when {
            Some(when) => when.decides(device, source, facts),
            None => Some(true),
        }
    }

    /// Whether it is for an event.
    pub(crate) fn is_for(&self, event: &Event, facts: &Facts) -> bool {
        self.when
            .as_ref()
            .is_none_or(|when| when.matches(event, facts))
    }

    /// Whether every event of its goes on as it is.
    pub(crate) fn changes_nothing(&self) -> bool {
        self.below.is_none() && self.shape.is_none()
    }

    /// Whether an event is among those that go on.
    pub(crate) fn samples(&self, event: &Event, scratch: &mut Vec<u8>) -> bool {
        self.below.is_none_or(|below| lot(event, scratch) < below)
    }

    /// Whether what is known of devices is asked for.
    pub(crate) fn asks_for_facts(&self) -> bool {
        let asks = self.when.as_ref().is_some_and(EventQuery::asks_for_facts);
        asks || self.shape.as_ref().is_some_and(Shape::asks_for_facts)
    }
}

/// The share as a bound of lots; `None` for all.
fn threshold(share: f64) -> Option<u64> {
    // Scaled by 2^53, where every number is exact.
    let scaled = (share * (1_u64 << 53) as f64) as u64;
    (scaled < 1 << 53).then_some(scaled << 11)
}

/// The lot that an event has drawn: the same wherever and whenever it is looked at.
fn lot(event: &Event, scratch: &mut Vec<u8>) -> u64 {
    scratch.clear();
    event.id.write(&event.device, scratch);
    if scratch.is_empty() {
        // Numbered by nobody: what it says has to do.
        scratch.extend_from_slice(event.device.as_bytes());
        scratch.extend_from_slice(&event.time.to_le_bytes());
        scratch.extend_from_slice(event.message.as_bytes());
    }
    mixed(hash::fnv1a(scratch))
}

/// Spreads what differs in low bits over all (the finaliser of SplitMix64, Steele et al. 2014).
fn mixed(mut bits: u64) -> u64 {
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

#[cfg(test)]
mod tests {
    use thinglog_schemas::EventId;

    use super::*;
    use crate::testing::decoded;

    #[test]
    fn the_share_is_what_was_asked_for_and_the_same_ones_again() {
        let mut event = decoded("x").events.remove(0);
        for share in [0.0, 0.01, 0.25, 0.9, 1.0] {
            let config = RouteConfig {
                sample: Some(share),
                ..RouteConfig::default()
            };
            let route = Route::new("r", &config).unwrap();
            let mut taken = |seq| {
                event.id = EventId::Spooled { epoch: 7, seq };
                route.samples(&event, &mut Vec::new())
            };
            let first: Vec<bool> = (0..20_000).map(&mut taken).collect();
            let again: Vec<bool> = (0..20_000).map(&mut taken).collect();
            assert_eq!(first, again);
            let part = first.iter().filter(|taken| **taken).count() as f64 / 20_000.0;
            assert!((part - share).abs() < 0.015, "{share}: {part}");
            assert!(share != 0.0 || part == 0.0, "nothing is nothing");
            assert!(share != 1.0 || part == 1.0, "all is all");
        }
    }

    #[test]
    fn a_smaller_share_is_part_of_a_larger_one() {
        let mut event = decoded("x").events.remove(0);
        let route = |share| {
            let config = RouteConfig {
                sample: Some(share),
                ..RouteConfig::default()
            };
            Route::new("r", &config).unwrap()
        };
        let (small, large) = (route(0.1), route(0.5));
        for seq in 0..1000 {
            event.id = EventId::Spooled { epoch: 7, seq };
            let taken = |route: &Route| route.samples(&event, &mut Vec::new());
            assert!(!taken(&small) || taken(&large));
        }
    }

    #[test]
    fn a_share_that_is_none_is_refused() {
        for share in [-0.1, 1.5, f64::NAN] {
            let config = RouteConfig {
                sample: Some(share),
                ..RouteConfig::default()
            };
            assert_eq!(Route::new("r", &config).unwrap_err().key, "sample");
        }
    }
}
