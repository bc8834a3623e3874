//! Connections that have not said who they are. They hold little memory but they do hold places: when
//! too many wait, the one that has waited longest goes, for who means to connect sends CONNECT at once.

use std::{collections::BTreeMap, sync::Arc};

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::session::ConnectionId;

/// All that wait; connection ids grow, so the first is the oldest.
#[derive(Debug)]
pub(super) struct Lobby {
    most: usize,
    waiting: Mutex<BTreeMap<ConnectionId, Arc<Notify>>>,
}

/// A connection's place in the lobby, until it is dropped.
#[derive(Debug)]
pub(crate) struct Waiting {
    lobby: Arc<Lobby>,
    connection: ConnectionId,
    sent_away: Arc<Notify>,
}

impl Lobby {
    pub(super) fn new(most: usize) -> Lobby {
        Lobby {
            most,
            waiting: Mutex::default(),
        }
    }

    /// Takes a connection in; sends the oldest away if that makes one too many.
    pub(super) fn enter(self: &Arc<Lobby>, connection: ConnectionId) -> Waiting {
        let sent_away = Arc::new(Notify::new());
        let mut waiting = self.waiting.lock();
        waiting.insert(connection, sent_away.clone());
        if waiting.len() > self.most
            && let Some((_, oldest)) = waiting.pop_first()
        {
            oldest.notify_one();
        }
        Waiting {
            lobby: self.clone(),
            connection,
            sent_away,
        }
    }
}

impl Waiting {
    /// Returns when the connection has to go.
    pub(crate) async fn sent_away(&self) {
        self.sent_away.notified().await;
    }
}

#[cfg(any(test, feature = "fuzzing"))]
impl Waiting {
    /// A place in a lobby of its own.
    pub(crate) fn alone() -> Waiting {
        Arc::new(Lobby::new(1)).enter(1)
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.lobby.waiting.lock().remove(&self.connection);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn who_has_waited_longest_makes_room() {
        let lobby = Arc::new(Lobby::new(2));
        let (first, second) = (lobby.enter(1), lobby.enter(2));
        drop(second);
        let third = lobby.enter(3);
        let patience = Duration::from_millis(10);
        let gone = |waiting: Waiting| async move {
            tokio::time::timeout(patience, waiting.sent_away())
                .await
                .is_ok()
        };
        assert_eq!(lobby.waiting.lock().len(), 2);
        let fourth = lobby.enter(4);
        assert!(gone(first).await);
        assert!(!gone(third).await && !gone(fourth).await);
        assert!(lobby.waiting.lock().is_empty());
    }
}
