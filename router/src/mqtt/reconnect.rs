//! What a connection task does between two connections: wait, say so once, and no more.

use std::time::Duration;

use tokio::time::Instant;

use super::link::LinkError;
use crate::backoff::{Backoff, Jitter};
use crate::health::Part;

const FROM: Duration = Duration::from_millis(100);
const UP_TO: Duration = Duration::from_secs(10);
/// How often an outage that goes on is mentioned again.
const MENTION_EVERY: Duration = Duration::from_secs(60);

/// The outages of one client.
#[derive(Debug)]
pub(crate) struct Reconnect {
    client_id: String,
    health: Part,
    backoff: Backoff,
    /// What was said last, and when.
    said: Option<(String, Instant)>,
}

impl Reconnect {
    pub(crate) fn new(client_id: &str, health: Part) -> Reconnect {
        Reconnect {
            client_id: client_id.to_owned(),
            health,
            backoff: Backoff::new(FROM, UP_TO, Jitter::from_system()),
            said: None,
        }
    }

    /// The connection does what it is for.
    pub(crate) fn succeeded(&mut self) {
        self.backoff.succeeded();
        self.health.ready();
        if self.said.take().is_some() {
            tracing::info!(client = self.client_id, "connected again");
        }
    }

    /// The connection failed: how long to wait before the next.
    pub(crate) fn failed(&mut self, error: &LinkError) -> Duration {
        let text = error.to_string();
        let wait = self.backoff.failed(None);
        let said_before = self
            .said
            .as_ref()
            .is_some_and(|(said, at)| *said == text && at.elapsed() < MENTION_EVERY);
        if !said_before {
            tracing::warn!(
                client = self.client_id,
                error = text,
                "no connection to the broker; trying again"
            );
            self.said = Some((text.clone(), Instant::now()));
        }
        self.health.not_ready(text);
        wait
    }
}
