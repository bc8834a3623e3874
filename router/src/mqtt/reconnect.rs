//! What a connection task does between two connections: wait, say so once, and no more.

use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::link::LinkError;
use crate::backoff::{Backoff, Jitter};
use crate::health::Part;

const FROM: Duration = Duration::from_millis(100);
const UP_TO: Duration = Duration::from_secs(10);
/// A connection that lasted this long was a good one. A shorter one does not start the waiting over:
/// two routers under one name would take the session from each other without end.
const STEADY: Duration = Duration::from_secs(10);
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
    /// The end of that was said as well.
    said_over: bool,
    /// Since when the connection does what it is for.
    up: Option<Instant>,
}

impl Reconnect {
    pub(crate) fn new(client_id: &str, health: Part) -> Reconnect {
        Reconnect {
            client_id: client_id.to_owned(),
            health,
            backoff: Backoff::new(FROM, UP_TO, Jitter::from_system()),
            said: None,
            said_over: false,
            up: None,
        }
    }

    /// The connection does what it is for.
    pub(crate) fn succeeded(&mut self) {
        self.health.ready();
        self.up = Some(Instant::now());
        if self.said.is_some() && !std::mem::replace(&mut self.said_over, true) {
            tracing::info!(client = self.client_id, "connected again");
        }
    }

    /// The connection failed: waits until the next is due; false when `stop` comes first.
    pub(crate) async fn wait(&mut self, error: &LinkError, stop: &CancellationToken) -> bool {
        let wait = self.failed(error);
        tokio::select! {
            () = tokio::time::sleep(wait) => true,
            () = stop.cancelled() => false,
        }
    }

    fn failed(&mut self, error: &LinkError) -> Duration {
        let text = error.to_string();
        if self.up.take().is_some_and(|up| up.elapsed() >= STEADY) {
            self.backoff.succeeded();
            self.said = None;
        }
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
            self.said_over = false;
        }
        self.health.not_ready(text);
        wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::health::Health;

    #[test]
    fn connections_that_do_not_last_wait_longer_and_longer() {
        let health = Health::new();
        let mut reconnect = Reconnect::new("test", health.part("test"));
        for _ in 0..5 {
            reconnect.succeeded();
            assert!(health.is_ready());
            reconnect.failed(&LinkError::TakenOver);
            assert!(!health.is_ready());
        }
        assert_eq!(reconnect.backoff.failures(), 5);
    }
}
