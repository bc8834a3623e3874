//! The destinations that run, and how they change while the router does.
//!
//! With another configuration, what is new starts, what is gone stops, what is another stops and starts
//! again; all others do not notice. A destination that stops brings in what it has in hand as far as it
//! can, and what is left comes again from the broker, from the last commit on: the way back from a
//! crash is the only one, so that a change costs nothing but time. What cannot be started is found
//! before anything stops.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::RwLock;
use thinglog_schemas::Topics;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::opener::DestinationOpener;
use super::store::Shelf;
use crate::alerts::running::{Alerts, Change as AlertsChange};
use crate::config::{Config, DestinationConfig, DestinationKind, RouteConfig, StartFrom};
use crate::deliver::share::DecodeCache;
use crate::deliver::supervise::{Open, OpenError, Supervised};
use crate::deliver::tap::Tap;
use crate::folder::Folder;
use crate::health::Health;
use crate::levels::Levels;
use crate::mqtt::connect::LinkOptions;
use crate::mqtt::link::Subscription;
use crate::mqtt::publisher::Publisher;
use crate::registry::devices::Devices;
use crate::router::{BuildError, RunError};
use crate::routes::Routes;
use crate::telemetry::{Books, RemoteMetrics, Telemetry};

/// What every consumer part is made from.
pub(crate) struct Base {
    pub(crate) config: Config,
    pub(crate) topics: Topics,
    pub(crate) telemetry: Telemetry,
    pub(crate) health: Health,
    pub(crate) shared: Arc<DecodeCache>,
}

impl Base {
    /// Creates and locks the folder of a part.
    pub(crate) fn lock(&self, part: &str) -> Result<Folder, BuildError> {
        let path = self.config.folder_of(part);
        Folder::lock(&path).map_err(|error| open_error(part, &error))
    }

    /// A part with a durable subscription.
    pub(crate) fn supervised(&self, name: &str, from: &StartFrom) -> Supervised {
        let client_id = format!("thinglog-router/{name}");
        Supervised {
            name: name.to_owned(),
            link: self.link(client_id, true),
            subscription: Subscription {
                filter: self.topics.all_logs(),
                from: Some(from.property()),
                retained: false,
            },
            books: self.telemetry.books(name),
            metrics: self.telemetry.consumer(name),
            connected: self.health.part(&format!("{name} subscription")),
            working: self.health.part(name),
        }
    }

    pub(crate) fn link(&self, client_id: String, persistent: bool) -> LinkOptions {
        LinkOptions {
            endpoint: self.config.broker.clone(),
            client_id,
            persistent,
            window_packets: self.config.window_packets,
            window_bytes: self.config.window_bytes,
            topics: self.topics.clone(),
        }
    }
}

/// Recovers a part's files once before it runs, so that damage is an error of the start.
pub(crate) fn try_open<O: Open>(part: &str, opener: &O) -> Result<(), BuildError> {
    opener
        .open(&CancellationToken::new())
        .map(drop)
        .map_err(|error| open_error(part, &error))
}

pub(crate) fn open_error(part: &str, error: &OpenError) -> BuildError {
    BuildError::Open {
        part: part.to_owned(),
        reason: error.to_string(),
    }
}

/// What others may know of the destinations that run; clones share it.
pub(crate) type Shown = Arc<RwLock<BTreeMap<String, View>>>;

/// A destination as others see it.
#[derive(Clone)]
pub(crate) struct View {
    /// The word of `type`.
    pub(crate) kind: &'static str,
    /// The routes that lead to it.
    pub(crate) routes: Vec<String>,
    /// The roles that it asks for, one of which will do; none if it asks for none.
    pub(crate) roles: Vec<String>,
    pub(crate) folder: std::path::PathBuf,
    pub(crate) tap: Arc<Tap>,
    pub(crate) books: Books,
    /// Of stores.
    pub(crate) shelf: Option<Arc<Shelf>>,
    /// Of those that deliver by requests.
    pub(crate) remote: Option<RemoteMetrics>,
    /// Whether it may have dead letters.
    pub(crate) letters: bool,
}

/// Changes the destinations of a running router.
#[derive(Clone)]
pub struct Reloader {
    orders: mpsc::Sender<Order>,
}

/// What a change of the configuration did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reloaded {
    /// Destinations that are new.
    pub added: Vec<String>,
    /// Destinations that were stopped and started again.
    pub changed: Vec<String>,
    /// Destinations that were stopped. Their subscriptions stay at the broker: named again, they go on
    /// where they were.
    pub removed: Vec<String>,
    /// Rules of alerts or their receivers are others now.
    pub alerts: bool,
}

struct Order {
    config: Box<Config>,
    reply: oneshot::Sender<Result<Reloaded, BuildError>>,
}

impl Reloader {
    /// Takes up the destinations and routes of a configuration; of the rest nothing. With an error
    /// everything is as it was. Blocks for as long as destinations take to stop.
    pub fn reload(&self, config: Config) -> Result<Reloaded, BuildError> {
        let (reply, answer) = oneshot::channel();
        let config = Box::new(config);
        let sent = self.orders.blocking_send(Order { config, reply });
        let answer = sent.ok().and_then(|()| answer.blocking_recv().ok());
        answer.unwrap_or_else(|| {
            Err(BuildError::Open {
                part: "router".into(),
                reason: "it is stopping".into(),
            })
        })
    }
}

/// The destinations of a router.
pub(crate) struct Running {
    base: Base,
    levels: Arc<Levels>,
    all: BTreeMap<String, One>,
    alerts: Alerts,
    shown: Shown,
    orders: mpsc::Receiver<Order>,
    tasks: JoinSet<()>,
}

/// One destination.
struct One {
    spec: Spec,
    opener: Arc<DestinationOpener>,
    stop: CancellationToken,
    /// Cancelled when it has ended.
    ended: CancellationToken,
}

/// What makes a destination what it is: if this is the same, it is.
#[derive(PartialEq)]
struct Spec {
    config: DestinationConfig,
    routes: BTreeMap<String, RouteConfig>,
}

impl Spec {
    fn of(config: &Config, name: &str, destination: &DestinationConfig) -> Spec {
        let leads = |(_, route): &(&String, &RouteConfig)| route.to.iter().any(|to| to == name);
        let routes = config.routes.iter().filter(leads);
        Spec {
            config: destination.clone(),
            routes: routes
                .map(|(name, route)| (name.clone(), route.clone()))
                .collect(),
        }
    }
}

/// Changes in hand.
#[derive(Default)]
struct Changes {
    fresh: Vec<(String, Spec, Arc<DestinationOpener>)>,
    alerts: Option<AlertsChange>,
    done: Reloaded,
}

impl Running {
    /// Opens everything once; nothing runs yet.
    pub(crate) fn new(
        base: Base,
        levels: Arc<Levels>,
        publisher: Publisher,
        devices: Arc<RwLock<Devices>>,
    ) -> Result<(Running, Reloader), BuildError> {
        let (sender, orders) = mpsc::channel(1);
        let mut running = Running {
            alerts: Alerts::new(&base, &levels, publisher, devices)?,
            base,
            levels,
            all: BTreeMap::new(),
            shown: Shown::default(),
            orders,
            tasks: JoinSet::new(),
        };
        let config = running.base.config.clone();
        for (name, destination) in &config.destinations {
            let spec = Spec::of(&config, name, destination);
            let opener = running.opener(&config, name, &spec, None)?;
            try_open(name, &*opener)?;
            // Shown as starting from now on.
            drop(running.base.supervised(name, &spec.config.start()));
            running.add(name, spec, opener);
        }
        running.count_readers();
        Ok((running, Reloader { orders: sender }))
    }

    /// What others may know.
    pub(crate) fn shown(&self) -> Shown {
        Arc::clone(&self.shown)
    }

    /// What others may know of alerts.
    pub(crate) fn alerts(&self) -> crate::alerts::shown::Shown {
        self.alerts.shown()
    }

    /// Runs until `stop`.
    pub(crate) async fn run(mut self, stop: CancellationToken) -> Result<(), RunError> {
        for name in self.all.keys().cloned().collect::<Vec<_>>() {
            self.start(&name, &stop);
        }
        self.alerts.start(&self.base, &mut self.tasks, &stop);
        let panicked = |error: tokio::task::JoinError| RunError::Task(error.to_string());
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                Some(ended) = self.tasks.join_next() => ended.map_err(panicked)?,
                Some(order) = self.orders.recv() => {
                    let result = self.reload(*order.config, &stop).await;
                    // Whoever asked may be gone.
                    let _ = order.reply.send(result);
                }
            }
        }
        while let Some(ended) = self.tasks.join_next().await {
            ended.map_err(panicked)?;
        }
        Ok(())
    }

    /// Everybody who will read each payload: destinations, audit, alerts.
    fn count_readers(&self) {
        let readers = self.all.len() + 1 + self.alerts.readers();
        self.base.shared.read_by(readers);
    }

    /// Makes what opens a destination. `folder` is the one it has already.
    fn opener(
        &self,
        config: &Config,
        name: &str,
        spec: &Spec,
        before: Option<&DestinationOpener>,
    ) -> Result<Arc<DestinationOpener>, BuildError> {
        let routes = Routes::of(config, name)?;
        let (folder, tap, shelf) = match before {
            Some(before) => (
                Arc::clone(&before.folder),
                Arc::clone(&before.tap),
                Arc::clone(&before.shelf),
            ),
            None => (
                Arc::new(self.base.lock(name)?),
                Arc::default(),
                Arc::default(),
            ),
        };
        Ok(Arc::new(DestinationOpener {
            name: name.to_owned(),
            config: spec.config.clone(),
            folder,
            levels: Arc::clone(&self.levels),
            shared: Arc::clone(&self.base.shared),
            telemetry: self.base.telemetry.clone(),
            books: self.base.telemetry.books(name),
            health: self.base.health.entry(name),
            routes: Arc::new(routes),
            tap,
            shelf,
            broker: self.base.config.broker.clone(),
            topics: self.base.topics.clone(),
        }))
    }

    fn add(&mut self, name: &str, spec: Spec, opener: Arc<DestinationOpener>) {
        let is_remote = spec.config.kind.is_remote();
        let is_store = matches!(spec.config.kind, DestinationKind::Store(_));
        let view = View {
            kind: spec.config.kind.name(),
            routes: spec.routes.keys().cloned().collect(),
            roles: spec.config.roles.clone().unwrap_or_default(),
            folder: opener.folder.path().to_owned(),
            tap: Arc::clone(&opener.tap),
            books: opener.books.clone(),
            shelf: is_store.then(|| Arc::clone(&opener.shelf)),
            remote: is_remote.then(|| self.base.telemetry.remote(name)),
            letters: spec.config.kind.has_letters(),
        };
        self.shown.write().insert(name.to_owned(), view);
        let one = One {
            spec,
            opener,
            stop: CancellationToken::new(),
            ended: CancellationToken::new(),
        };
        self.all.insert(name.to_owned(), one);
    }

    fn start(&mut self, name: &str, stop: &CancellationToken) {
        let Some(one) = self.all.get_mut(name) else {
            return;
        };
        let supervised = self.base.supervised(name, &one.spec.config.start());
        one.stop = stop.child_token();
        let (stop, ended) = (one.stop.clone(), one.ended.clone());
        let (levels, opener) = (Arc::clone(&self.levels), Arc::clone(&one.opener));
        self.tasks.spawn(async move {
            let _ended = ended.drop_guard();
            let running = supervised.run(opener, stop.clone());
            when_complete(levels, stop, running).await;
        });
    }

    /// Takes up another configuration, or leaves everything as it is.
    async fn reload(
        &mut self,
        config: Config,
        stop: &CancellationToken,
    ) -> Result<Reloaded, BuildError> {
        let mut next = self.base.config.clone();
        next.destinations = config.destinations;
        next.routes = config.routes;
        next.alerts = config.alerts;
        next.receivers = config.receivers;
        next.validate()?;
        let mut changes = self.changes(&next).await?;
        let of_all = self.all.keys();
        let gone = of_all.filter(|name| !next.destinations.contains_key(*name));
        changes.done.removed = gone.cloned().collect();
        let stopping: Vec<String> = changes
            .done
            .removed
            .iter()
            .chain(&changes.done.changed)
            .cloned()
            .collect();
        self.stop(&stopping).await;
        for name in &changes.done.removed {
            if let Some(one) = self.all.remove(name) {
                one.opener.shelf.clear();
            }
            self.shown.write().remove(name);
            self.base.health.remove(name);
            self.base.health.remove(&format!("{name} subscription"));
        }
        for (name, spec, opener) in changes.fresh {
            self.add(&name, spec, opener);
            self.start(&name, stop);
        }
        if let Some(change) = changes.alerts {
            let (base, tasks) = (&self.base, &mut self.tasks);
            self.alerts.take_up(change, base, tasks, stop).await;
        }
        self.count_readers();
        self.base.config = next;
        Ok(changes.done)
    }

    /// Makes what is new or another, and looks whether it can be started.
    async fn changes(&self, next: &Config) -> Result<Changes, BuildError> {
        let mut changes = Changes {
            alerts: self.alerts.change(&self.base, next)?,
            ..Changes::default()
        };
        changes.done.alerts = changes.alerts.is_some();
        for (name, destination) in &next.destinations {
            let spec = Spec::of(next, name, destination);
            let before = self.all.get(name);
            if before.is_some_and(|before| before.spec == spec) {
                continue;
            }
            let opener = self.opener(next, name, &spec, before.map(|one| &*one.opener))?;
            let (is_new, trying) = (before.is_none(), Arc::clone(&opener));
            let tried = tokio::task::spawn_blocking(move || match is_new {
                true => try_open(&trying.name, &*trying),
                // Its files are in use.
                false => trying
                    .check()
                    .map_err(|error| open_error(&trying.name, &error)),
            });
            let panicked = |error: tokio::task::JoinError| BuildError::Open {
                part: name.clone(),
                reason: error.to_string(),
            };
            tried.await.map_err(panicked)??;
            match is_new {
                true => changes.done.added.push(name.clone()),
                false => changes.done.changed.push(name.clone()),
            }
            changes.fresh.push((name.clone(), spec, opener));
        }
        Ok(changes)
    }

    /// Stops destinations, at once with each other.
    async fn stop(&self, names: &[String]) {
        let stopping = || names.iter().filter_map(|name| self.all.get(name));
        stopping().for_each(|one| one.stop.cancel());
        for one in stopping() {
            one.ended.cancelled().await;
            // What was in hand comes again.
            one.opener.books.give_back();
        }
    }
}

/// No event is judged before the fleet's configuration is complete.
pub(crate) async fn when_complete(
    levels: Arc<Levels>,
    stop: CancellationToken,
    run: impl Future<Output = ()>,
) {
    tokio::select! {
        () = stop.cancelled() => return,
        () = levels.complete() => {}
    }
    run.await;
}
