//! Who watches what. The bundled broker retains the live filters of its clients on
//! `$SYS/thinglog/interest`; with a broker that has no such topic everything is published to `live`.

use std::sync::Arc;

use thinglog_schemas::Topics;
use thinglog_schemas::topic::{INTEREST, matches, overlap};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::health::Part;
use crate::mqtt::Settled;
use crate::mqtt::consumer::reconnect_backoff;
use crate::mqtt::link::{Arrived, Link, LinkError, LinkOptions};
use crate::mqtt::probe::Probe;

/// Filters that live topics could match. Pure.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Interest {
    live: Vec<String>,
    /// Explicit filters on `live-group` only: `#` does not count there.
    groups: Vec<String>,
}

impl Interest {
    /// Everything on `live`, nothing on `live-group`.
    pub(crate) fn everything(topics: &Topics) -> Interest {
        Interest {
            live: vec![format!("{}/live/#", topics.root())],
            groups: Vec::new(),
        }
    }

    /// Reads the broker's document; what is no array of filters counts as everything.
    pub(crate) fn parse(topics: &Topics, payload: &[u8]) -> Interest {
        if payload.is_empty() {
            return Interest::default();
        }
        let Ok(filters) = serde_json::from_slice::<Vec<String>>(payload) else {
            return Interest::everything(topics);
        };
        let all_live = format!("{}/live/#", topics.root());
        let group_prefix = format!("{}/live-group/", topics.root());
        let groups = filters
            .iter()
            .filter(|filter| filter.starts_with(&group_prefix));
        let groups = groups.cloned().collect();
        let live = filters
            .into_iter()
            .filter(|filter| overlap(filter, &all_live))
            .collect();
        Interest { live, groups }
    }

    pub(crate) fn any(&self) -> bool {
        !self.live.is_empty() || !self.groups.is_empty()
    }

    pub(crate) fn any_group(&self) -> bool {
        !self.groups.is_empty()
    }

    pub(crate) fn wants(&self, topic: &str) -> bool {
        self.live.iter().any(|filter| matches(filter, topic))
    }

    pub(crate) fn wants_group(&self, topic: &str) -> bool {
        self.groups.iter().any(|filter| matches(filter, topic))
    }
}

/// Follows the broker's document.
pub(crate) struct InterestTask {
    pub(crate) link: LinkOptions,
    pub(crate) interest: watch::Sender<Arc<Interest>>,
    pub(crate) health: Part,
}

impl InterestTask {
    /// Runs until `stop`.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let mut backoff = reconnect_backoff();
        loop {
            let Err(error) = self.follow(&stop).await else {
                return;
            };
            if self.health.is_ready() {
                backoff.succeeded();
            }
            self.health.not_ready(error.to_string());
            tracing::warn!(client = %self.link.client_id, %error, "no connection to the broker");
            tokio::select! {
                () = tokio::time::sleep(backoff.failed(None)) => {}
                () = stop.cancelled() => return,
            }
        }
    }

    /// One connection; ends without an error when `stop` is.
    async fn follow(&self, stop: &CancellationToken) -> Result<(), LinkError> {
        let connected = tokio::select! {
            connected = Link::connect(&self.link, 0) => connected,
            () = stop.cancelled() => return Ok(()),
        };
        let mut link = connected?;
        let mut probe = Probe::begin(&mut link, &self.link, &[INTEREST.to_owned()])?;
        let mut arrived = Arrived::default();
        let mut heard = false;
        loop {
            tokio::select! {
                turned = link.turn(true, &mut arrived) => turned?,
                () = stop.cancelled() => {
                    link.disconnect().await;
                    return Ok(());
                }
            }
            for control in arrived.controls.drain(..) {
                probe.granted(&control, &mut link)?;
            }
            for delivery in arrived.deliveries.drain(..) {
                if &*delivery.topic.text == INTEREST {
                    heard = true;
                    self.set(Interest::parse(&self.link.topics, &delivery.payload));
                } else if probe.is_back(&delivery) {
                    self.health.ready();
                    if !heard {
                        self.set(Interest::everything(&self.link.topics));
                    }
                }
                link.settle(Settled {
                    generation: link.generation(),
                    number: delivery.number,
                });
            }
        }
    }

    fn set(&self, interest: Interest) {
        self.interest.send_if_modified(|current| {
            let changed = **current != interest;
            if changed {
                *current = Arc::new(interest);
            }
            changed
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Interest {
        Interest::parse(&Topics::default(), text.as_bytes())
    }

    #[test]
    fn nobody_watches() {
        for text in [
            "",
            "[]",
            r#"["thinglog/config/#", "other/live/#", "$SYS/#"]"#,
        ] {
            assert!(!parse(text).any(), "{text}");
        }
    }

    #[test]
    fn only_what_matches_is_wanted() {
        let interest = parse(r#"["thinglog/live/lamp-7/+/app", "+/live/+/error/#"]"#);
        assert!(interest.wants("thinglog/live/lamp-7/info/app"));
        assert!(interest.wants("thinglog/live/lamp-8/error/app"));
        assert!(!interest.wants("thinglog/live/lamp-8/info/app"));
        assert!(!interest.any_group());
    }

    #[test]
    fn groups_need_an_explicit_filter() {
        assert!(!parse(r##"["#"]"##).wants_group("thinglog/live-group/eu/lamp-7/info/app"));
        let explicit = parse(r#"["thinglog/live-group/eu/#"]"#);
        assert!(explicit.wants_group("thinglog/live-group/eu/lamp-7/info/app"));
        assert!(explicit.any() && !explicit.wants("thinglog/live/lamp-7/info/app"));
    }

    #[test]
    fn a_broker_that_says_nothing_sensible_gets_everything() {
        assert!(parse("what?").wants("thinglog/live/lamp-7/info/app"));
    }
}
