//! Who watches what. The bundled broker retains the live filters of its clients on
//! `$SYS/thinglog/interest`; with a broker that has no such topic everything is published to `live`.

use std::sync::Arc;

use thinglog_schemas::Topics;
use thinglog_schemas::topic::{INTEREST, matches, overlap};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::health::Part;
use crate::mqtt::Settled;
use crate::mqtt::connect::LinkOptions;
use crate::mqtt::link::{Arrived, Link, LinkError};
use crate::mqtt::probe::Probe;
use crate::mqtt::reconnect::Reconnect;

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
        let mut reconnect = Reconnect::new(&self.link.client_id, self.health.clone());
        while let Err(error) = self.follow(&stop, &mut reconnect).await {
            if !reconnect.wait(&error, &stop).await {
                return;
            }
        }
    }

    /// One connection; ends without an error when `stop` is.
    async fn follow(
        &self,
        stop: &CancellationToken,
        reconnect: &mut Reconnect,
    ) -> Result<(), LinkError> {
        let connecting = stop.run_until_cancelled(Link::connect(&self.link, 0));
        let Some(connected) = connecting.await else {
            return Ok(());
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
                    reconnect.succeeded();
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
    use rumqttc::v5::mqttbytes::v5::Packet;

    use super::*;
    use crate::health::Health;
    use crate::mqtt::fake::{self, FakeBroker};

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

    /// Runs the task against a broker that sends `document`, if any, before the probe comes back.
    async fn followed(document: Option<&'static str>) -> Interest {
        let broker = FakeBroker::start().await;
        let (sender, mut interest) = watch::channel(Arc::new(Interest::default()));
        let task = InterestTask {
            link: broker.options(),
            interest: sender,
            health: Health::new().part("test"),
        };
        let stop = CancellationToken::new();
        let running = tokio::spawn(task.run(stop.clone()));
        let (mut peer, _) = broker.accept(false).await;
        assert_eq!(peer.grant().await.filters[0].path, INTEREST);
        if let Some(document) = document {
            peer.send(&[fake::publish(INTEREST, 1, document)]).await;
        }
        let private = peer.grant().await.filters[0].path.clone();
        let probe = loop {
            if let Packet::Publish(probe) = peer.receive().await {
                break probe;
            }
        };
        assert_eq!(probe.topic, private);
        peer.send(&[fake::publish(&private, 2, "probe")]).await;
        let changed = interest.changed();
        tokio::time::timeout(std::time::Duration::from_secs(10), changed)
            .await
            .unwrap()
            .unwrap();
        stop.cancel();
        running.await.unwrap();
        let interest = interest.borrow();
        Interest::clone(&interest)
    }

    #[tokio::test]
    async fn the_brokers_document_is_followed() {
        let interest = followed(Some(r#"["thinglog/live/lamp-7/#"]"#)).await;
        assert!(interest.wants("thinglog/live/lamp-7/info/app"));
        assert!(!interest.wants("thinglog/live/lamp-8/info/app"));
    }

    #[tokio::test]
    async fn without_a_document_everything_is_live() {
        let interest = followed(None).await;
        assert_eq!(interest, Interest::everything(&Topics::default()));
    }
}
