//! Alerts as a part that runs: only while there are rules, and anew when they have changed.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::RwLock;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::shown::Shown;
use super::stage::AlertsOpener;
use crate::config::{AlertConfig, Config, ReceiverConfig, StartFrom};
use crate::destinations::running::{Base, open_error, try_open, when_complete};
use crate::folder::Folder;
use crate::levels::Levels;
use crate::mqtt::publisher::Publisher;
use crate::registry::devices::Devices;
use crate::router::BuildError;

/// The name of the part: of its folder, its subscription, its books.
const PART: &str = "alerts";

/// The alerts of a router.
pub(crate) struct Alerts {
    levels: Arc<Levels>,
    publisher: Publisher,
    devices: Arc<RwLock<Devices>>,
    shown: Shown,
    folder: Option<Arc<Folder>>,
    opener: Option<Arc<AlertsOpener>>,
    stop: CancellationToken,
    /// Cancelled when it has ended.
    ended: CancellationToken,
}

/// What makes alerts what they are: if this is the same, they are.
fn spec(
    config: &Config,
) -> (
    &BTreeMap<String, AlertConfig>,
    &BTreeMap<String, ReceiverConfig>,
) {
    (&config.alerts, &config.receivers)
}

/// Another configuration that can be taken up.
pub(crate) struct Change {
    folder: Option<Arc<Folder>>,
    /// `None`: there are no rules.
    opener: Option<Arc<AlertsOpener>>,
}

impl Alerts {
    /// Opens everything once, if there are rules; nothing runs yet.
    pub(crate) fn new(
        base: &Base,
        levels: &Arc<Levels>,
        publisher: Publisher,
        devices: Arc<RwLock<Devices>>,
    ) -> Result<Alerts, BuildError> {
        let mut alerts = Alerts {
            levels: Arc::clone(levels),
            publisher,
            devices,
            shown: Shown::default(),
            folder: None,
            opener: None,
            stop: CancellationToken::new(),
            ended: CancellationToken::new(),
        };
        let change = alerts.opener(base, &base.config)?;
        if let Some(opener) = &change.opener {
            try_open(PART, &**opener)?;
            // Shown as starting from now on.
            drop(base.supervised(PART, &StartFrom::Tail));
        }
        (alerts.folder, alerts.opener) = (change.folder, change.opener);
        Ok(alerts)
    }

    /// Rules and open alerts, as others may see them.
    pub(crate) fn shown(&self) -> Shown {
        Arc::clone(&self.shown)
    }

    /// Readers of events: one while there are rules.
    pub(crate) fn readers(&self) -> usize {
        usize::from(self.opener.is_some())
    }

    fn opener(&self, base: &Base, config: &Config) -> Result<Change, BuildError> {
        if config.alerts.is_empty() {
            let folder = self.folder.clone();
            let opener = None;
            return Ok(Change { folder, opener });
        }
        let folder = match &self.folder {
            Some(folder) => Arc::clone(folder),
            None => Arc::new(base.lock(PART)?),
        };
        let opener = AlertsOpener {
            config: config.clone(),
            topics: base.topics.clone(),
            folder: Arc::clone(&folder),
            levels: Arc::clone(&self.levels),
            shared: Arc::clone(&base.shared),
            publisher: self.publisher.clone(),
            telemetry: base.telemetry.clone(),
            books: base.telemetry.books(PART),
            devices: Arc::clone(&self.devices),
            shown: Arc::clone(&self.shown),
            connected: base.health.entry(&format!("{PART} subscription")),
        };
        Ok(Change {
            folder: Some(folder),
            opener: Some(Arc::new(opener)),
        })
    }

    /// Runs, if there are rules, until `stop`.
    pub(crate) fn start(&mut self, base: &Base, tasks: &mut JoinSet<()>, stop: &CancellationToken) {
        let Some(opener) = self.opener.clone() else {
            return;
        };
        // A session of its own: what it has not read waits for it at the broker.
        let supervised = base.supervised(PART, &StartFrom::Tail);
        self.stop = stop.child_token();
        self.ended = CancellationToken::new();
        let (stop, ended) = (self.stop.clone(), self.ended.clone());
        let levels = Arc::clone(&self.levels);
        tasks.spawn(async move {
            let _ended = ended.drop_guard();
            let running = supervised.run(opener, stop.clone());
            when_complete(levels, stop, running).await;
        });
    }

    /// Whether another configuration changes anything, and if so whether it can be taken up.
    pub(crate) fn change(&self, base: &Base, next: &Config) -> Result<Option<Change>, BuildError> {
        if spec(&base.config) == spec(next) {
            return Ok(None);
        }
        let change = self.opener(base, next)?;
        if let Some(opener) = &change.opener {
            // Its files may be in use; what is in them is looked at when it starts.
            opener.check().map_err(|error| open_error(PART, &error))?;
        }
        Ok(Some(change))
    }

    /// Takes it up: stops, and starts again unless there are no rules any more.
    pub(crate) async fn take_up(
        &mut self,
        change: Change,
        base: &Base,
        tasks: &mut JoinSet<()>,
        stop: &CancellationToken,
    ) {
        if let Some(opener) = self.opener.take() {
            self.stop.cancel();
            self.ended.cancelled().await;
            // What was in hand comes again.
            opener.books.give_back();
            let of_rules = opener.config.alerts.keys();
            of_rules.for_each(|rule| base.telemetry.alerts.forget(rule));
        }
        *self.shown.write() = Arc::default();
        self.folder = change.folder;
        self.opener = change.opener;
        match self.opener.is_some() {
            true => self.start(base, tasks, stop),
            false => {
                base.health.remove(PART);
                base.health.remove(&format!("{PART} subscription"));
            }
        }
    }
}
