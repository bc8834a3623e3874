//! Makes a destination's stage from its configuration and what is in its folder.

use std::path::PathBuf;
use std::sync::Arc;

use thinglog_schemas::Topics;
use tokio_util::sync::CancellationToken;

use super::check::check;
use super::file::FileDestination;
#[cfg(feature = "object-store")]
use super::objects::{self, Objects, Store};
use super::stdout::Stdout;
use super::store::{Shelf, StoreDestination};
use crate::config::{DestinationConfig, DestinationKind, Endpoint};
#[cfg(feature = "object-store")]
use crate::config::{ObjectFormat, ObjectStoreConfig};
#[cfg(feature = "object-store")]
use crate::dedup::table::Table;
#[cfg(feature = "object-store")]
use crate::deliver::archive::Keep;
use crate::deliver::batch::Batch;
use crate::deliver::judge::{Judge, Reader};
use crate::deliver::remote::letters::Letters;
use crate::deliver::remote::{Plan, Remote, Sink};
use crate::deliver::share::{DecodeCache, Seat, Shared};
use crate::deliver::stage::{Deliver, Record, Stage, Way, replay};
use crate::deliver::supervise::{Open, OpenError};
use crate::deliver::tap::Tap;
use crate::deliver::{Destination, Outcome, Position, Promise};
use crate::folder::Folder;
use crate::health::Part;
use crate::levels::facts::FactsCache;
use crate::levels::role::Permit;
use crate::levels::{LevelCache, Levels};
use crate::routes::Routes;
use crate::state::{self, StateLog};
use crate::telemetry::{Books, Telemetry};

/// Opens one destination, again after each failure.
pub(crate) struct DestinationOpener {
    pub(crate) name: String,
    pub(crate) config: DestinationConfig,
    pub(crate) folder: Arc<Folder>,
    pub(crate) levels: Arc<Levels>,
    pub(crate) shared: Arc<DecodeCache>,
    pub(crate) telemetry: Telemetry,
    pub(crate) books: Books,
    pub(crate) health: Part,
    pub(crate) routes: Arc<Routes>,
    pub(crate) tap: Arc<Tap>,
    /// Where searches find the store, if it is one.
    pub(crate) shelf: Arc<Shelf>,
    /// The router's own broker, and its topics.
    pub(crate) broker: Endpoint,
    pub(crate) topics: Topics,
}

type Made = Result<Box<dyn Destination>, OpenError>;

impl DestinationOpener {
    /// Whether the destination could be made, as far as that shows without its files.
    pub(crate) fn check(&self) -> Result<(), OpenError> {
        check(&self.name, &self.config, &self.broker, &self.topics)
            .map_err(|reason| self.cannot(reason))
    }

    /// Makes the destination.
    #[cfg_attr(not(feature = "default"), allow(unused_variables))]
    fn destination(&self, committed: Option<Position>, ending: &CancellationToken) -> Made {
        match &self.config.kind {
            DestinationKind::Stdout(config) => Ok(Box::new(Stdout::of_process(config.format))),
            DestinationKind::File(config) => {
                let folder = self.folder.path();
                let deleted = self
                    .telemetry
                    .deleted_files
                    .with_label_values(&[self.name.as_str()]);
                let bytes = self.books.bytes.clone();
                FileDestination::open(folder, config.clone(), committed, bytes, deleted)
                    .map(|file| Box::new(file) as Box<dyn Destination>)
                    .map_err(|source| OpenError::Io {
                        path: PathBuf::from(folder),
                        source,
                    })
            }
            DestinationKind::Store(config) => {
                let (levels, shelf) = (Arc::clone(&self.levels), &self.shelf);
                let bytes = self.books.bytes.clone();
                let folder = self.folder.path();
                StoreDestination::open(folder, config, committed, levels, shelf, bytes)
                    .map(|store| Box::new(store) as Box<dyn Destination>)
            }
            #[cfg(feature = "webhook")]
            DestinationKind::Webhook(config) => self.remote(super::webhook::build(config), ending),
            #[cfg(feature = "loki")]
            DestinationKind::Loki(config) => self.remote(super::loki::build(config), ending),
            #[cfg(feature = "otlp")]
            DestinationKind::Otlp(config) => self.remote(super::otlp::build(config), ending),
            #[cfg(feature = "elasticsearch")]
            DestinationKind::Elasticsearch(config) => {
                self.remote(super::elasticsearch::build(config), ending)
            }
            #[cfg(feature = "cloudwatch")]
            DestinationKind::CloudWatch(config) => {
                self.remote(super::cloudwatch::build(config), ending)
            }
            #[cfg(feature = "splunk")]
            DestinationKind::Splunk(config) => self.remote(super::splunk::build(config), ending),
            #[cfg(feature = "emitter")]
            DestinationKind::Emitter(config) => {
                let made = super::mqtt::emitter(config, &self.name, &self.broker, &self.topics);
                self.remote(made, ending)
            }
            #[cfg(feature = "mqtt")]
            DestinationKind::Mqtt(config) => {
                let id = crate::folder::id(self.folder.path());
                let id = id.map_err(|error| self.cannot(error.to_string()))?;
                self.remote(super::mqtt::build(config, &self.name, &id), ending)
            }
            #[cfg(feature = "nats")]
            DestinationKind::Nats(config) => {
                self.remote(super::nats::build(config, &self.name), ending)
            }
            #[cfg(feature = "object-store")]
            DestinationKind::ObjectStore(config) => {
                let objects = self.objects(config, committed, ending)?;
                Ok(Box::new(objects))
            }
            #[cfg(feature = "syslog")]
            DestinationKind::Syslog(config) => self.remote(super::syslog::build(config), ending),
            #[cfg(feature = "postgresql")]
            DestinationKind::Postgresql(config) => {
                self.remote(super::postgresql::build(config, &self.name), ending)
            }
            #[cfg(feature = "kafka")]
            DestinationKind::Kafka(config) => {
                self.remote(super::kafka::build(config, &self.name), ending)
            }
            #[cfg(feature = "clickhouse")]
            DestinationKind::Clickhouse(config) => {
                self.remote(super::clickhouse::build(config), ending)
            }
            #[allow(unreachable_patterns)] // where every feature is on
            other => Err(self.cannot(format!("this build has no {}", other.name()))),
        }
    }

    /// A destination that delivers by requests, of what its type made.
    #[cfg_attr(not(feature = "default"), allow(dead_code))]
    fn remote<S: Sink>(
        &self,
        made: Result<(S::Encoder, S), String>,
        ending: &CancellationToken,
    ) -> Made {
        let (encoder, sink) = made.map_err(|reason| self.cannot(reason))?;
        let delivery = self.config.delivery();
        let folder = self.folder.path().join("dead");
        let metrics = self.telemetry.remote(&self.name);
        let letters = Letters::open(
            &folder,
            delivery.dead_letters.clone(),
            metrics.letters.clone(),
        );
        let letters = letters.map_err(|error| self.cannot(format!("dead letters: {error}")))?;
        let plan = Plan {
            name: self.name.clone(),
            delivery,
            letters: Arc::new(letters),
            books: self.books.clone(),
            metrics,
            health: self.health.clone(),
            ending: ending.clone(),
        };
        let remote = Remote::start(encoder, sink, plan);
        remote
            .map(|remote| Box::new(remote) as Box<dyn Destination>)
            .map_err(|error| self.cannot(error.to_string()))
    }

    /// A destination that stages.
    #[cfg(feature = "object-store")]
    fn objects(
        &self,
        config: &ObjectStoreConfig,
        committed: Option<Position>,
        ending: &CancellationToken,
    ) -> Result<Objects, OpenError> {
        let store = Store::new(config).map_err(|reason| self.cannot(reason))?;
        let plan = objects::Plan {
            name: self.name.clone(),
            delivery: self.config.delivery(),
            books: self.books.clone(),
            metrics: self.telemetry.remote(&self.name),
            health: self.health.clone(),
            ending: ending.clone(),
        };
        let facts = FactsCache::new(Arc::clone(&self.levels));
        Objects::open(self.folder.path(), config, store, committed, facts, plan)
            .map_err(|error| self.cannot(error.to_string()))
    }

    /// The stage of a destination that keeps payloads as they came.
    #[cfg(feature = "object-store")]
    fn archive(
        &self,
        config: &ObjectStoreConfig,
        (table, committed): (Table, Option<Position>),
        mut log: StateLog,
        ending: &CancellationToken,
    ) -> Opened {
        let mut archive = self.objects(config, committed, ending)?;
        self.record_beginning(committed, &mut archive, &mut log)?;
        let stage = Keep::new(table, archive, self.books.clone(), log.growth());
        Ok((Box::new(stage), log))
    }

    fn cannot(&self, reason: String) -> OpenError {
        OpenError::Destination {
            name: self.name.clone(),
            reason,
        }
    }

    /// Where nothing was committed yet: notes where the data ends before the first event, or what is written
    /// before the first commit would be taken for somebody's earlier data after a crash.
    fn record_beginning(
        &self,
        committed: Option<Position>,
        destination: &mut dyn Destination,
        log: &mut StateLog,
    ) -> Result<(), OpenError> {
        if committed.is_some() {
            return Ok(());
        }
        let recorded = record(destination.commit(), log);
        let path = self.state();
        recorded.map_err(|source| OpenError::Io { path, source })
    }

    fn state(&self) -> PathBuf {
        self.folder.path().join("state")
    }
}

fn record(promise: Promise, log: &mut StateLog) -> std::io::Result<()> {
    let Some(position) = promise.position else {
        return Ok(());
    };
    if let Some(sync) = promise.sync {
        sync()?;
    }
    let record = Record {
        position: Some(position),
        marks: Vec::new(),
    };
    let mut framed = Vec::new();
    state::frame(&record, &mut framed).map_err(std::io::Error::other)?;
    log.append(&framed)
}

type Opened = Result<(Box<dyn Stage>, StateLog), OpenError>;

impl Open for DestinationOpener {
    type Stage = Box<dyn Stage>;

    fn open(&self, ending: &CancellationToken) -> Opened {
        let (mut log, records) = StateLog::open::<Record>(&self.state())?;
        let (table, committed) = replay(&records);
        #[cfg(feature = "object-store")]
        if let DestinationKind::ObjectStore(config) = &self.config.kind
            && config.format == ObjectFormat::Raw
        {
            return self.archive(config, (table, committed), log, ending);
        }
        let mut destination = self.destination(committed, ending)?;
        self.record_beginning(committed, &mut destination, &mut log)?;
        let reader = Reader::new(Shared::new(Arc::clone(&self.shared), Seat::Front));
        let roles = self.config.roles.as_deref();
        let permit = roles.map(|roles| Permit::new(Arc::clone(&self.levels), &self.name, roles));
        let levels = LevelCache::new(Arc::clone(&self.levels));
        let judge = Judge::new(reader, levels, table).with_permit(permit);
        let way = Way {
            routes: Arc::clone(&self.routes),
            facts: FactsCache::new(Arc::clone(&self.levels)),
            tap: Arc::clone(&self.tap),
        };
        let stage = Deliver::new(judge, way, destination, self.books.clone(), log.growth());
        Ok((Box::new(stage), log))
    }
}

impl Destination for Box<dyn Destination> {
    fn deliver(&mut self, batch: &Batch) -> Outcome {
        (**self).deliver(batch)
    }

    fn commit(&mut self) -> Promise {
        (**self).commit()
    }

    fn committed(&mut self) -> std::io::Result<()> {
        (**self).committed()
    }

    fn due(&self) -> Option<std::time::Instant> {
        (**self).due()
    }
}
