//! Puts the parts together: `Config` -> [`Router::build`] -> [`Router::run`].

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;
use prometheus::Registry;
use thinglog_schemas::Topics;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::api;
use crate::api::alerts::Board;
use crate::api::destinations::Desk;
use crate::api::logs::Reading;
use crate::api::logs::answer::Library;
use crate::audit::stage::AuditOpener;
use crate::aws;
use crate::backoff::Jitter;
use crate::clock;
use crate::config::{Config, ConfigError};
use crate::deliver::share::DecodeCache;
use crate::deliver::supervise::Supervised;
use crate::destinations::running::{Base, Reloader, Running, open_error, try_open, when_complete};
use crate::health::Health;
use crate::http::Http;
use crate::http::authenticate::Authenticate;
use crate::levels::Levels;
use crate::levels::desired::Documents;
use crate::levels::task::LevelsTask;
use crate::live::interest::{Interest, InterestTask};
use crate::live::{self, Live};
use crate::mqtt::connect::LinkOptions;
use crate::mqtt::link::CONNECT_WITHIN;
use crate::mqtt::publisher::{self, Publisher, PublisherTask};
use crate::registry::arrivals::Arrivals;
use crate::registry::contacts::Contacts;
use crate::registry::history::HistoryTask;
use crate::registry::presence::PresenceTask;
use crate::registry::{Parts, Registry as FleetRegistry};
use crate::telemetry::Telemetry;

/// Why a router cannot be built. Nothing has been started.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// A key of the configuration cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The files of a part cannot be used.
    #[error("{part}: {reason}")]
    Open {
        /// A destination's name, or `audit`.
        part: String,
        /// What is wrong and what to do.
        reason: String,
    },
    /// The HTTP address cannot be bound.
    #[error("http.address {address}: {source}")]
    Http {
        /// The configured address.
        address: SocketAddr,
        /// Why not.
        source: std::io::Error,
    },
    /// The registry has metrics of these names already.
    #[error("metrics: {0}")]
    Metrics(#[from] prometheus::Error),
}

/// Why a router stopped by itself.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// HTTP failed.
    #[error("http: {0}")]
    Http(std::io::Error),
    /// A task panicked.
    #[error("a part of the router ended unexpectedly: {0}")]
    Task(String),
}

/// A router, built and not yet running: files are open and locked, HTTP is bound.
pub struct Router {
    health: Health,
    http: Option<Http>,
    destinations: Running,
    reloader: Reloader,
    audit: (Supervised, Arc<AuditOpener>),
    levels: Arc<Levels>,
    levels_task: LevelsTask,
    presence: PresenceTask,
    history: HistoryTask,
    publishers: [PublisherTask; 2],
    fleet: FleetRegistry,
    live: Option<(Live, InterestTask)>,
    shared: Arc<DecodeCache>,
}

impl Router {
    /// Validates the configuration, opens and locks every part's files, binds HTTP. Metrics go to
    /// `registry`, which `/metrics` shows whole, so other parts of a process may share it. Nobody signs
    /// in: a configuration with `http.sign_in` is refused.
    pub fn build(config: Config, registry: &Registry) -> Result<Router, BuildError> {
        Router::build_with(config, registry, None)
    }

    /// Like [`Router::build`], with what knows who may call HTTP.
    pub fn build_with(
        config: Config,
        registry: &Registry,
        doorkeeper: Option<Arc<dyn Authenticate>>,
    ) -> Result<Router, BuildError> {
        config.validate()?;
        let topics = Topics::new(&config.root).map_err(|error| ConfigError {
            key: "root".into(),
            reason: error.to_string(),
        })?;
        Builder::new(config, topics, registry)?.build(registry, doorkeeper)
    }

    /// Where HTTP listens, if it does; tells the port when the configuration says 0.
    pub fn http_address(&self) -> Option<SocketAddr> {
        self.http.as_ref().and_then(|http| http.address().ok())
    }

    /// The fleet, to look at and to change while the router runs.
    pub fn fleet(&self) -> FleetRegistry {
        self.fleet.clone()
    }

    /// The readiness of the parts, as `/readyz` shows it.
    pub fn health(&self) -> Health {
        self.health.clone()
    }

    /// Changes destinations and routes while the router runs.
    pub fn reloader(&self) -> Reloader {
        self.reloader.clone()
    }

    /// Runs until `shutdown`: then no more is taken, what is in hand is brought in, committed and
    /// acknowledged, and the connections are closed. Must be called on a tokio runtime.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), RunError> {
        // The publishers outlive the parts that publish.
        let last = CancellationToken::new();
        // So does the history: what changed to the last is in it.
        let changed = CancellationToken::new();
        let history = tokio::spawn(self.history.run(changed.clone()));
        let stop = shutdown.child_token();
        let mut publishers = JoinSet::new();
        for publisher in self.publishers {
            publishers.spawn(publisher.run(last.clone()));
        }
        drop(self.fleet);
        let mut parts = JoinSet::new();
        if let Some(http) = self.http {
            parts.spawn(wrap(http.run(stop.clone())));
        }
        parts.spawn(infallible(self.levels_task.run(stop.clone())));
        parts.spawn(infallible(self.presence.run(stop.clone())));
        let (audit, opener) = self.audit;
        parts.spawn(infallible(audit.run(opener, stop.clone())));
        drop(self.reloader);
        parts.spawn(self.destinations.run(stop.clone()));
        parts.spawn(infallible(tidy(self.shared, stop.clone())));
        if let Some((live, interest)) = self.live {
            parts.spawn(infallible(interest.run(stop.clone())));
            let levels = Arc::clone(&self.levels);
            let running = live.run(stop.clone());
            parts.spawn(infallible(when_complete(levels, stop.clone(), running)));
        }
        let result = join(&mut parts, &stop).await;
        changed.cancel();
        // With the parts their handles are gone: they end when what was handed in is acknowledged.
        let ended = async {
            while publishers.join_next().await.is_some() {}
            // A task that panicked has nothing more to write.
            let _ = history.await;
        };
        if tokio::time::timeout(Duration::from_secs(1), ended)
            .await
            .is_err()
        {
            last.cancel();
        }
        result
    }
}

/// Gives back memory of decoded payloads that nobody comes for.
async fn tidy(shared: Arc<DecodeCache>, stop: CancellationToken) {
    const EVERY: Duration = Duration::from_secs(5);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(EVERY) => shared.forget_older_than(EVERY),
        }
    }
}

#[cfg(feature = "dashboard")]
fn show_dashboard(http: &mut Http) {
    http.show(thinglog_dashboard::routes());
}

/// The configuration is refused before it comes to this.
#[cfg(not(feature = "dashboard"))]
fn show_dashboard(_: &mut Http) {}

async fn infallible(part: impl Future<Output = ()>) -> Result<(), RunError> {
    part.await;
    Ok(())
}

async fn wrap(part: impl Future<Output = std::io::Result<()>>) -> Result<(), RunError> {
    part.await.map_err(RunError::Http)
}

/// Waits for every part; the first failure stops the others and is the result.
async fn join(
    parts: &mut JoinSet<Result<(), RunError>>,
    stop: &CancellationToken,
) -> Result<(), RunError> {
    let mut result = Ok(());
    while let Some(ended) = parts.join_next().await {
        let ended = ended.unwrap_or_else(|error| Err(RunError::Task(error.to_string())));
        if ended.is_err() && result.is_ok() {
            stop.cancel();
            result = ended;
        }
    }
    result
}

/// What the parts are made from.
struct Builder {
    base: Base,
    jitter: Jitter,
}

impl Builder {
    fn new(config: Config, topics: Topics, registry: &Registry) -> Result<Builder, BuildError> {
        let telemetry = Telemetry::new(registry)?;
        // How many read each batch is said once it is known; live reads only while somebody watches.
        let readers = 1;
        let (hits, misses) = (telemetry.cache_hits.clone(), telemetry.cache_misses.clone());
        let shared = Arc::new(DecodeCache::new(readers, config.cache_bytes, hits, misses));
        Ok(Builder {
            base: Base {
                broker: config.broker.server(CONNECT_WITHIN)?,
                config,
                topics,
                telemetry,
                health: Health::new(),
                shared,
            },
            jitter: Jitter::from_system(),
        })
    }

    fn build(
        mut self,
        registry: &Registry,
        doorkeeper: Option<Arc<dyn Authenticate>>,
    ) -> Result<Router, BuildError> {
        let mut http = self.http(registry, doorkeeper)?;
        let (levels, news) = Levels::new();
        let (publisher, publisher_task) = publisher::new(
            self.passing("publisher"),
            self.base.telemetry.clone(),
            self.base.health.part("publisher"),
        );
        let changes = self.passing("changes");
        let health = self.base.health.part("changes");
        let (changes, changes_task) = publisher::new(changes, self.base.telemetry.clone(), health);
        let devices = Arc::new(RwLock::default());
        let contacts = Arc::new(Contacts::default());
        let arrivals = Arc::new(Arrivals::default());
        let history = HistoryTask::open(self.base.lock("history")?);
        let (changed, history) = history.map_err(|error| open_error("history", &error))?;
        let fleet = FleetRegistry::new(Parts {
            topics: self.base.topics.clone(),
            levels: Arc::clone(&levels),
            devices: Arc::clone(&devices),
            contacts: Arc::clone(&contacts),
            arrivals: Arc::clone(&arrivals),
            history: Arc::clone(&changed),
            publisher: changes,
            telemetry: self.base.telemetry.clone(),
        });
        if let Some(http) = &mut http {
            http.mount(api::routes(fleet.clone()));
        }
        let presence = PresenceTask {
            link: self.passing("presence"),
            devices: Arc::clone(&devices),
            contacts: Arc::clone(&contacts),
            levels: Arc::clone(&levels),
            news: levels.news(),
            telemetry: self.base.telemetry.clone(),
            health: self.base.health.part("presence"),
            logged: None,
        };
        let audit = self.audit(&levels, &contacts, &publisher)?;
        let levels_task = LevelsTask {
            link: self.passing("levels"),
            levels: Arc::clone(&levels),
            news,
            publisher: publisher.clone(),
            telemetry: self.base.telemetry.clone(),
            health: self.base.health.part("levels"),
            documents: Documents::default(),
            devices: Arc::clone(&devices),
            contacts,
            arrivals,
            history: changed,
            looked: clock::now_ns(),
        };
        let live = self.base.config.live.enabled.then(|| self.live(&levels));
        let (health, shared) = (self.base.health.clone(), Arc::clone(&self.base.shared));
        let (destinations, reloader) =
            Running::new(self.base, Arc::clone(&levels), publisher, devices)?;
        if let Some(http) = &mut http {
            http.mount(aws::routes(fleet.clone(), destinations.shown()));
            let reading = Reading {
                shown: destinations.shown(),
                library: Library::new(fleet.clone(), Arc::clone(&levels)),
            };
            #[cfg(feature = "graphql")]
            http.mount(api::graphql::routes(reading.clone()));
            http.mount(api::logs::routes(reading));
            http.mount(api::alerts::routes(Board {
                shown: destinations.alerts(),
                fleet: fleet.clone(),
            }));
            http.mount(api::destinations::routes(Desk {
                shown: destinations.shown(),
                health: health.clone(),
            }));
        }
        Ok(Router {
            health,
            http,
            destinations,
            reloader,
            audit,
            levels,
            levels_task,
            presence,
            history,
            publishers: [publisher_task, changes_task],
            fleet,
            live,
            shared,
        })
    }

    /// Binds HTTP, if it is configured.
    fn http(
        &self,
        registry: &Registry,
        doorkeeper: Option<Arc<dyn Authenticate>>,
    ) -> Result<Option<Http>, BuildError> {
        let Some(config) = &self.base.config.http else {
            return Ok(None);
        };
        let doorkeeper = doorkeeper.filter(|_| config.sign_in);
        if config.sign_in && doorkeeper.is_none() {
            let reason = "there is nothing to sign in with";
            return Err(ConfigError::new("http.sign_in", reason).into());
        }
        let bound = Http::bind(
            config,
            registry.clone(),
            self.base.health.clone(),
            doorkeeper,
        );
        let mut http = bound.map_err(|source| BuildError::Http {
            address: config.address,
            source,
        })?;
        if config.dashboard {
            show_dashboard(&mut http);
        }
        Ok(Some(http))
    }

    fn audit(
        &self,
        levels: &Arc<Levels>,
        contacts: &Arc<Contacts>,
        publisher: &Publisher,
    ) -> Result<(Supervised, Arc<AuditOpener>), BuildError> {
        let opener = AuditOpener {
            folder: self.base.lock("audit")?,
            quarantine: self.base.config.folder_of("quarantine"),
            config: self.base.config.audit.clone(),
            topics: self.base.topics.clone(),
            levels: Arc::clone(levels),
            contacts: Arc::clone(contacts),
            shared: Arc::clone(&self.base.shared),
            publisher: publisher.clone(),
            telemetry: self.base.telemetry.clone(),
            books: self.base.telemetry.books("audit"),
        };
        try_open("audit", &opener)?;
        Ok((
            self.base.supervised("audit", &self.base.config.audit.from),
            Arc::new(opener),
        ))
    }

    fn live(&mut self, levels: &Arc<Levels>) -> (Live, InterestTask) {
        let (sender, interest) = watch::channel(Arc::new(Interest::default()));
        let mut link = self.passing("live");
        link.window_bytes = link.window_bytes.min(live::WINDOW);
        let live = Live {
            link,
            topics: self.base.topics.clone(),
            levels: Arc::clone(levels),
            shared: Arc::clone(&self.base.shared),
            telemetry: self.base.telemetry.clone(),
            skip_behind: Duration::from_secs(self.base.config.live.skip_behind_s),
            health: self.base.health.part("live"),
            interest,
        };
        // Nobody watching is a fine state to be in.
        live.health.ready();
        let task = InterestTask {
            link: self.passing("interest"),
            interest: sender,
            health: self.base.health.part("interest"),
        };
        (live, task)
    }

    /// A session that leaves nothing behind. Its client id is random, so that any number of routers
    /// can serve one broker.
    fn passing(&mut self, what: &str) -> LinkOptions {
        let client_id = format!("thinglog-router/{what}-{:016x}", self.jitter.next());
        self.base.link(client_id, false)
    }
}
