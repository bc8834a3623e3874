//! How a publisher is configured: [`Builder`], its defaults, and what the worker gets of it.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::Duration};

use thinglog_schemas::{Level, Topics, name, topic::TopicError};

use crate::{
    levels::Levels,
    publisher::Publisher,
    queue::{Queue, QueueOptions},
    shared::Shared,
    spool::{Spool, SpoolOptions, dir::SpoolError},
    worker::Worker,
};

/// Configures a [`Publisher`]. Every setting has a default; see [`Publisher::builder`].
#[derive(Clone, Debug)]
pub struct Builder {
    device: String,
    host: String,
    port: u16,
    root: String,
    credentials: Option<(String, String)>,
    instance: Option<String>,
    level: Level,
    memory_bytes: usize,
    spool: Option<SpoolOptions>,
    flush_age: Duration,
    batch_events: usize,
    batch_bytes: usize,
    backoff_base: Duration,
    backoff_cap: Duration,
    linger: Duration,
    attributes: BTreeMap<String, String>,
}

/// Why a publisher could not be started.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The root of the topics has wildcards or is empty.
    #[error("topic root: {0}")]
    Root(#[from] TopicError),
    /// The spool directory cannot be used.
    #[error(transparent)]
    Spool(#[from] SpoolError),
    /// The operating system gave no thread or no event queue.
    #[error("the publisher's thread could not be started: {0}")]
    Thread(#[from] std::io::Error),
}

/// What the worker needs to know.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// As it stands in topics.
    pub(crate) device: String,
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) instance: String,
    pub(crate) credentials: Option<(String, String)>,
    /// As configured here; a remote document may say otherwise.
    pub(crate) batching: QueueOptions,
    pub(crate) backoff_base: Duration,
    pub(crate) backoff_cap: Duration,
    pub(crate) attributes: BTreeMap<String, String>,
}

impl Builder {
    pub(crate) fn new(device: &str) -> Builder {
        Builder {
            device: name::encode(device).into_owned(),
            host: "127.0.0.1".into(),
            port: 1883,
            root: "thinglog".into(),
            credentials: None,
            instance: None,
            level: Level::Info,
            memory_bytes: 8 << 20,
            spool: None,
            flush_age: Duration::from_millis(200),
            batch_events: 1000,
            batch_bytes: 256 << 10,
            backoff_base: Duration::from_secs(1),
            backoff_cap: Duration::from_secs(300),
            linger: Duration::from_secs(5),
            attributes: BTreeMap::new(),
        }
    }

    /// Where the broker listens. Default `127.0.0.1:1883`.
    #[must_use]
    pub fn broker(mut self, host: impl Into<String>, port: u16) -> Builder {
        self.host = host.into();
        self.port = port;
        self
    }

    /// The first levels of every topic. Default `thinglog`.
    #[must_use]
    pub fn root(mut self, root: impl Into<String>) -> Builder {
        self.root = root.into();
        self
    }

    /// User name and password for the broker. Default: none.
    #[must_use]
    pub fn credentials(mut self, user: impl Into<String>, password: impl Into<String>) -> Builder {
        self.credentials = Some((user.into(), password.into()));
        self
    }

    /// The client id is `<device>/<instance>`. Default: what the spool directory is called by, else
    /// random: two publishers of one device then never push each other off the broker.
    #[must_use]
    pub fn instance(mut self, instance: impl Into<String>) -> Builder {
        self.instance = Some(instance.into());
        self
    }

    /// The level while no remote configuration says otherwise. Default INFO.
    #[must_use]
    pub fn level(mut self, level: Level) -> Builder {
        self.level = level;
        self
    }

    /// What queued and unacknowledged events may take in memory together. Default 8 MiB, at least
    /// 64 KiB.
    #[must_use]
    pub fn memory_bytes(mut self, bytes: usize) -> Builder {
        self.memory_bytes = bytes.max(64 << 10);
        self
    }

    /// Keeps events in `path` until they are acknowledged, so that they survive this process; never
    /// more than `bytes` there (at least 4 MiB). Default: memory only.
    #[must_use]
    pub fn spool(mut self, path: impl Into<PathBuf>, bytes: u64) -> Builder {
        self.spool = Some(SpoolOptions {
            path: path.into(),
            bytes,
        });
        self
    }

    /// The longest an event waits for others to share its batch. Default 200 ms.
    #[must_use]
    pub fn flush_age(mut self, age: Duration) -> Builder {
        self.flush_age = age;
        self
    }

    /// A batch leaves when it has so many events, or so many bytes before compression. Default
    /// 1,000 and 256 KiB.
    #[must_use]
    pub fn batch(mut self, events: usize, bytes: usize) -> Builder {
        self.batch_events = events.max(1);
        self.batch_bytes = bytes.max(1);
        self
    }

    /// Reconnecting waits up to `base`, doubling to `cap`, with full jitter. Default 1 s and 300 s.
    #[must_use]
    pub fn backoff(mut self, base: Duration, cap: Duration) -> Builder {
        self.backoff_base = base;
        self.backoff_cap = cap;
        self
    }

    /// How long the worker goes on after the last handle is gone, when not everything is delivered
    /// yet. Default 5 s.
    #[must_use]
    pub fn linger(mut self, linger: Duration) -> Builder {
        self.linger = linger;
        self
    }

    /// Something the device says of itself in `reported/<device>`.
    #[must_use]
    pub fn attribute(mut self, key: impl Into<String>, value: impl Into<String>) -> Builder {
        self.attributes.insert(key.into(), value.into());
        self
    }

    /// Starts the publisher on a thread of its own: for applications with or without a runtime.
    pub fn start(self) -> Result<Publisher, BuildError> {
        let (publisher, worker) = self.prepare()?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        std::thread::Builder::new()
            .name("thinglog-edge".into())
            .spawn(move || runtime.block_on(worker.run()))?;
        Ok(publisher)
    }

    /// The publisher and the future that does its work, for a tokio runtime of the caller's. The
    /// future ends after the last handle is gone or [`Publisher::close`] was called.
    pub fn attach(self) -> Result<(Publisher, impl Future<Output = ()> + Send), BuildError> {
        let (publisher, worker) = self.prepare()?;
        Ok((publisher, worker.run()))
    }

    fn prepare(self) -> Result<(Publisher, Worker), BuildError> {
        let topics = Topics::new(&self.root)?;
        let batching = QueueOptions {
            memory_bytes: self.memory_bytes,
            batch_events: self.batch_events,
            batch_bytes: self.batch_bytes.min(self.memory_bytes / 4),
            flush_age: self.flush_age,
        };
        let levels = Levels::new(self.level);
        let queue = Queue::new(batching.clone(), levels, crate::random());
        let shared = Arc::new(Shared::new(queue));
        let random = format!("{:08x}", crate::random() as u32);
        let instance = self.instance.unwrap_or(random);
        let spool = match &self.spool {
            Some(options) => {
                let woken = Arc::downgrade(&shared);
                let notify = move || {
                    if let Some(shared) = woken.upgrade() {
                        shared.wake.notify_one();
                    }
                };
                Some(Spool::open(options, &self.device, &instance, notify)?)
            }
            None => None,
        };
        if let Some(spool) = &spool {
            shared.queue.lock().restore_places(spool.places());
        }
        let settings = Settings {
            device: self.device,
            host: self.host,
            port: self.port,
            instance: match &spool {
                Some(spool) => spool.dir().instance().to_owned(),
                None => instance,
            },
            credentials: self.credentials,
            batching,
            backoff_base: self.backoff_base,
            backoff_cap: self.backoff_cap,
            attributes: self.attributes,
        };
        let publisher = Publisher::new(shared.clone(), self.linger, spool.is_some());
        let worker = Worker::new(shared, settings, topics, spool, crate::random());
        Ok((publisher, worker))
    }
}
