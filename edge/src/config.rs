//! How a publisher is configured: [`Builder`], its defaults, and what the worker gets of it.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::Duration};

use bytes::Bytes;
use thinglog_schemas::{Level, Topics, config::Upload, name, topic::TopicError, units::Rate};
use tokio::sync::mpsc;

use crate::{
    clock::{self, Clock},
    connection::{BrokerUrl, Credentials, Login, Secret, Tls},
    entrance::inbox_bytes,
    levels::Levels,
    publisher::Publisher,
    queue::{Queue, QueueOptions},
    replies::Requests,
    shared::Shared,
    spool::{Block, Spool, SpoolOptions, dir::SpoolError},
    worker::Worker,
};

/// The longest an event waits for others to share its batch: when they go as soon as they can, and
/// when they gather anyway and larger batches cost less.
pub(crate) const FLUSH_AGE: Duration = Duration::from_millis(200);
pub(crate) const FLUSH_AGE_WAITING: Duration = Duration::from_secs(5);

/// Configures a [`Publisher`]. Every setting has a default; see [`Publisher::builder`].
#[derive(Clone, Debug)]
pub struct Builder {
    device: String,
    host: String,
    port: u16,
    root: String,
    login: Login,
    tls: Option<Tls>,
    instance: Option<String>,
    level: Level,
    memory_bytes: usize,
    spool: Option<SpoolOptions>,
    block: Block,
    flush_age: Option<Duration>,
    batch_events: usize,
    batch_bytes: usize,
    upload: Upload,
    backoff_base: Duration,
    backoff_cap: Duration,
    linger: Duration,
    attributes: BTreeMap<String, String>,
    requests: Option<mpsc::Sender<Bytes>>,
    clock_file: Option<PathBuf>,
    reports: bool,
    persistent: bool,
    rate: Option<Rate>,
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
    /// A value of [`Builder::upload`] is out of its range.
    #[error("upload settings: {0}")]
    Upload(String),
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
    pub(crate) login: Login,
    pub(crate) tls: Option<Tls>,
    /// As configured here; a remote document may say otherwise.
    pub(crate) batching: QueueOptions,
    pub(crate) flush_age: Option<Duration>,
    pub(crate) upload: Upload,
    pub(crate) backoff_base: Duration,
    pub(crate) backoff_cap: Duration,
    pub(crate) attributes: BTreeMap<String, String>,
    pub(crate) reports: bool,
    /// Where the spool is or may be, and whether events go there unless a remote document says
    /// otherwise.
    pub(crate) spool: Option<SpoolOptions>,
    pub(crate) persistent: bool,
    /// Unless a remote document says otherwise.
    pub(crate) rate: Option<Rate>,
}

impl Builder {
    pub(crate) fn new(device: &str) -> Builder {
        Builder {
            device: name::encode(device).into_owned(),
            host: "127.0.0.1".into(),
            port: 1883,
            root: "thinglog".into(),
            login: Login::Anonymous,
            tls: None,
            instance: None,
            level: Level::Info,
            memory_bytes: 8 << 20,
            spool: None,
            block: Block::default(),
            flush_age: None,
            batch_events: 1000,
            batch_bytes: 256 << 10,
            upload: Upload::default(),
            backoff_base: Duration::from_secs(1),
            backoff_cap: Duration::from_secs(300),
            linger: Duration::from_secs(5),
            attributes: BTreeMap::new(),
            requests: None,
            clock_file: None,
            reports: true,
            persistent: false,
            rate: None,
        }
    }

    /// Where the broker listens: a host name or an IP address, and a port. Default `127.0.0.1:1883`.
    #[must_use]
    pub fn broker(mut self, host: impl Into<String>, port: u16) -> Builder {
        let host: String = host.into();
        // An IPv6 address may come in the brackets of a URL.
        self.host = host.trim_matches(['[', ']']).to_owned();
        self.port = port;
        self
    }

    /// Where the broker listens, and whether the connection is encrypted: `mqtts` without
    /// [`tls`](Builder::tls) trusts the authorities of the system.
    #[must_use]
    pub fn broker_url(mut self, url: &BrokerUrl) -> Builder {
        if url.tls {
            self.tls.get_or_insert_default();
        }
        self.broker(url.host.clone(), url.port)
    }

    /// Encrypts the connection, and shows a certificate when `tls` has one. Its files are read again at
    /// every connect; replaced ones are noticed within seconds and used from then on. Default: not
    /// encrypted.
    #[must_use]
    pub fn tls(mut self, tls: Tls) -> Builder {
        self.tls = Some(tls);
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
        self.login = Login::Password {
            user: user.into(),
            password: Secret(password.into()),
        };
        self
    }

    /// User name, and a file with the password or device token (its last end of line left out). The
    /// file is read again at every connect; a replaced one is noticed within seconds and used from
    /// then on.
    #[must_use]
    pub fn password_file(mut self, user: impl Into<String>, path: impl Into<PathBuf>) -> Builder {
        self.login = Login::PasswordFile {
            user: user.into(),
            path: path.into(),
        };
        self
    }

    /// User name, and a file with a JSON Web Token in the place of the password. Whoever renews the
    /// token replaces the file before the old one's `exp`: the new one is noticed within seconds and
    /// used from then on. A token that nobody renewed is warned of a minute before its end.
    #[must_use]
    pub fn token_file(mut self, user: impl Into<String>, path: impl Into<PathBuf>) -> Builder {
        self.login = Login::TokenFile {
            user: user.into(),
            path: path.into(),
        };
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
    pub fn spool(self, path: impl Into<PathBuf>, bytes: u64) -> Builder {
        let mut builder = self.spool_allowed(path, bytes);
        builder.persistent = true;
        builder
    }

    /// Lets the remote configuration switch on what [`spool`](Builder::spool) does
    /// (`limits.persistent`), and set a smaller cap (`limits.spool_bytes`); both take effect at once.
    /// Until then `path` is not touched and events stay in memory. What is on disk when it is switched
    /// off again is still sent.
    #[must_use]
    pub fn spool_allowed(mut self, path: impl Into<PathBuf>, bytes: u64) -> Builder {
        self.spool = Some(SpoolOptions {
            path: path.into(),
            bytes,
            block: self.block,
        });
        self.persistent = false;
        self
    }

    /// Most events of each source that comes over a [`Sink`](crate::agent::Sink), unless the remote
    /// configuration says otherwise (`limits.rate`). Default: as many as come.
    #[must_use]
    pub fn rate(mut self, rate: Rate) -> Builder {
        self.rate = Some(rate);
        self
    }

    /// Flash is written in blocks: when `bytes` of payload are there, when something has waited for
    /// `age`, or when [`flush`](Publisher::flush) asks for it. With a spool, events go to the broker
    /// after they were written, so `age` is also what sending waits for others. Default 64 KiB and
    /// 1 s. Without a spool it means nothing.
    #[must_use]
    pub fn spool_block(mut self, bytes: usize, age: Duration) -> Builder {
        self.block = Block { bytes, age };
        if let Some(spool) = &mut self.spool {
            spool.block = self.block;
        }
        self
    }

    /// The longest an event waits for others to share its batch. Default 200 ms; 5 s in the modes of
    /// upload that wait.
    #[must_use]
    pub fn flush_age(mut self, age: Duration) -> Builder {
        self.flush_age = Some(age);
        self
    }

    /// When to send: the mode of upload and what belongs to it. A field that a remote document has
    /// comes before the one given here; one that neither has is the default: mode `realtime`, every
    /// hour, at 02:00 UTC, a ring of 256 KiB, 10 s after an ERROR.
    ///
    /// In the modes `interval`, `schedule` and `manual` events gather in memory, or on disk with a
    /// spool, within the usual caps: at a cap the least grave are dropped and declared, and sources
    /// that can wait do. [`Publisher::upload_now`] and [`Publisher::flush`] send at once in every
    /// mode. The connection stays up in every mode.
    ///
    /// In mode `on-error` the level of this device decides what is sent at once; the router lets pass
    /// what comes out of the ring only when the mode stands in a document of the fleet.
    #[must_use]
    pub fn upload(mut self, upload: Upload) -> Builder {
        self.upload = upload;
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

    /// Takes requests for on-demand upload (`request/<device>`) and hands them over. The receiver is
    /// to be read; requests that nobody takes are dropped with a warning.
    #[must_use]
    pub fn requests(mut self) -> (Builder, Requests) {
        let (sender, requests) = Requests::channel(&self.device);
        self.requests = Some(sender);
        (self, requests)
    }

    /// Whether this publisher keeps `reported/<device>` (state, configuration in force, figures) and has
    /// it set to offline when it is lost. A device has one such topic: where several publishers run,
    /// one should report, an agent if there is one. Default true.
    #[must_use]
    pub fn report(mut self, reports: bool) -> Builder {
        self.reports = reports;
        self
    }

    /// The system clock counts as set only once this file is there, as
    /// `/run/systemd/timesync/synchronized` is when systemd-timesyncd has set it. Until then, and in
    /// any case before 2024, events carry the time since the boot, and the receiver works out when
    /// they happened from when they were sent. Default: a clock after 2023 is right.
    #[must_use]
    pub fn clock_synced_by(mut self, file: impl Into<PathBuf>) -> Builder {
        self.clock_file = Some(file.into());
        self
    }

    /// Reads the files of login and TLS, and says what is wrong with them. Nothing is connected.
    pub fn check_files(&self) -> Result<(), String> {
        let mut credentials = Credentials::new(self.login.clone(), self.tls.clone());
        credentials
            .load()
            .map(drop)
            .map_err(|error| error.to_string())
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
        self.upload.check().map_err(BuildError::Upload)?;
        let inbox = inbox_bytes(self.memory_bytes);
        let batching = QueueOptions {
            memory_bytes: self.memory_bytes - inbox,
            batch_events: self.batch_events,
            batch_bytes: self.batch_bytes.min(self.memory_bytes / 4),
            flush_age: self.flush_age.unwrap_or(FLUSH_AGE),
        };
        let levels = Levels::new(self.level);
        let queue = Queue::new(batching.clone(), levels, crate::random());
        let clock = Clock::new(self.clock_file);
        let shared = Arc::new(Shared::new(queue, inbox, clock));
        let random = format!("{:08x}", crate::random() as u32);
        let instance = self.instance.unwrap_or(random);
        let spool = match &self.spool {
            Some(options) if self.persistent || options.path.join("journal").exists() => {
                let notify = Shared::waker(&shared);
                Some(Spool::open(options, &self.device, &instance, notify)?)
            }
            _ => None,
        };
        if let Some(spool) = &spool {
            let mut queue = shared.queue.lock();
            queue.restore_places(spool.places());
        }
        let settings = Settings {
            device: self.device,
            host: self.host,
            port: self.port,
            instance: match &spool {
                Some(spool) => spool.dir().instance().to_owned(),
                None => instance,
            },
            login: self.login,
            tls: self.tls,
            batching,
            flush_age: self.flush_age,
            upload: self.upload,
            backoff_base: self.backoff_base,
            backoff_cap: self.backoff_cap,
            attributes: self.attributes,
            reports: self.reports,
            spool: self.spool,
            persistent: self.persistent,
            rate: self.rate,
        };
        let publisher = Publisher::new(shared.clone(), self.linger);
        let mut worker = Worker::new(shared, settings, topics, spool, clock::boot());
        worker.requests = self.requests;
        Ok((publisher, worker))
    }
}
