//! Puts the broker together: opens what is on disk, binds, serves, keeps house, shuts down.

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use prometheus::Registry;
use thinglog_journal::{
    Journal,
    fs::{Fs, RealFs},
};
use thinglog_schemas::Topics;
use tokio::sync::watch;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{error, info, warn};

use crate::{
    access::{Access, FileError, Logins, Role},
    config::{Config, ConfigError},
    hub::{Disk, Failed, Hub, log_end},
    listen::{Gate, Listener, Rules, Tls},
    mail::Mail,
    peer::Transport,
    reload::Reload,
    state::State,
    telemetry::Telemetry,
    upkeep,
};

/// Connections get this long to take their last packets.
const DRAIN: Duration = Duration::from_secs(5);

/// A log that has lost records goes on at a multiple of this: more than is given between two checkpoints of
/// what was given.
const STRIDE: u64 = 1 << 24;

/// The broker could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A setting cannot stand.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {source} (broker.{key} says where)")]
    Bind {
        /// The key that names the address, below `[broker]`.
        key: &'static str,
        /// The address.
        address: SocketAddr,
        /// What the operating system says.
        source: std::io::Error,
    },
    /// The journal cannot be opened.
    #[error("cannot open the durable log: {0}")]
    Journal(#[from] thinglog_journal::OpenError),
    /// The state cannot be opened.
    #[error("cannot open the broker's state in {path}: {reason}")]
    State {
        /// Its directory.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// Users, tokens, keys or rules cannot be used.
    #[error("broker.auth: {0}")]
    Access(#[from] FileError),
    /// The metrics collide with others in the registry.
    #[error("cannot register metrics: {0}")]
    Metrics(#[from] prometheus::Error),
}

/// A broker that listens but does not serve yet.
pub struct Broker {
    hub: Arc<Hub>,
    /// Plain MQTT first.
    listeners: Vec<Listener>,
    tls: Option<Arc<Tls>>,
    rules: Rules,
}

/// Whether a running broker can do its work.
#[derive(Clone)]
pub struct Status(Arc<Hub>);

impl Status {
    /// Why nothing new can be stored at the moment; `None` while all is well.
    pub fn trouble(&self) -> Option<&'static str> {
        let failed = self.0.failed_journals().next();
        let full = "the disk is full or failing: nothing new is taken";
        let is_full = !self.0.state.accepts();
        failed
            .map(Failed::trouble)
            .or_else(|| is_full.then_some(full))
    }
}

impl Broker {
    /// Reads the files that are named, binds the addresses and opens the data directory (blocking), so
    /// that whatever is wrong shows at the start. Metrics go to `registry`.
    pub async fn bind(config: Config, registry: &Registry) -> Result<Broker, StartError> {
        Broker::bind_on(Arc::new(RealFs), config, registry).await
    }

    /// The same with the journals in `fs`.
    async fn bind_on(
        fs: Arc<dyn Fs>,
        config: Config,
        registry: &Registry,
    ) -> Result<Broker, StartError> {
        config.validate()?;
        let topics = Topics::new(&config.root).map_err(|error| ConfigError {
            key: "root",
            reason: error.to_string(),
        })?;
        let access = Arc::new(Access::open(&config.auth, &topics)?);
        let tls = config
            .tls
            .as_ref()
            .map(Tls::load)
            .transpose()?
            .map(Arc::new);
        let rules = config.websocket.as_ref().map(Rules::new).transpose()?;
        let mut listeners = Vec::new();
        for place in config.places() {
            let bound = Listener::bind(&place).await;
            listeners.push(bound.map_err(|source| StartError::Bind {
                key: place.key,
                address: place.address,
                source,
            })?);
        }
        let (journal, recovery) = Journal::open(
            fs.clone(),
            &config.data.join("log"),
            config.journal_options(),
        )?;
        info!(
            first = recovery.first,
            next = recovery.next,
            "durable log open"
        );
        let (mail, _) = Mail::open(
            fs,
            &config.data.join("mail"),
            config.mail_bytes(),
            config.limits.packet_bytes,
        )?;
        let state_dir = config.data.join("state");
        let (state, loaded) = State::open(
            &state_dir,
            config.reserve_bytes,
            journal.id(),
            journal.next(),
        )
        .map_err(|error| StartError::State {
            path: state_dir,
            reason: error.to_string(),
        })?;
        go_on_behind(&journal, log_end(&loaded));
        let (settled, notifier) = watch::channel(journal.settled());
        journal.on_settled(move |offset| {
            settled.send_replace(offset);
        });
        let telemetry = Telemetry::new(registry)?;
        journal.on_synced(telemetry.sync_timer());
        let disk = Disk {
            journal,
            journal_settled: notifier,
            mail,
            state,
        };
        let hub = Arc::new(Hub::new((config, access), &topics, disk, loaded, telemetry));
        Ok(Broker {
            hub,
            listeners,
            tls,
            rules: rules.unwrap_or_default(),
        })
    }

    /// What its connections share, for tests that need no socket.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(crate) fn hub(self) -> Arc<Hub> {
        self.hub
    }

    /// Where it listens for plain MQTT; the port is the real one when 0 was asked for.
    pub fn address(&self) -> SocketAddr {
        let plain = self.listeners.first();
        plain.map_or(self.hub.config.listen, |listener| listener.address)
    }

    /// Every listener, plain MQTT first; ports are the real ones where 0 was asked for.
    pub fn listeners(&self) -> impl Iterator<Item = (Transport, SocketAddr)> {
        let listeners = self.listeners.iter();
        listeners.map(|listener| (listener.transport, listener.address))
    }

    /// What reads files again while the broker runs.
    pub fn reload(&self) -> Reload {
        Reload::new(self.hub.clone(), self.tls.clone())
    }

    /// What tells whether it can do its work while it runs.
    pub fn status(&self) -> Status {
        Status(self.hub.clone())
    }

    /// What proves to other parts of this process who somebody is, with the same users, limits and
    /// reloads.
    pub fn logins(&self) -> Logins {
        Logins::of(self.hub.access.clone())
    }

    /// User name and password for a part of this process, made up now and written nowhere; `None` when
    /// nobody is asked who they are.
    pub fn login_for(&self, part: &str, role: Role) -> Option<(String, String)> {
        self.hub.access.part(part, role)
    }

    /// Serves until `shutdown`, then lets clients go and writes everything down.
    pub async fn run(self, shutdown: CancellationToken) {
        let Broker {
            hub,
            listeners,
            tls,
            rules,
        } = self;
        hub.publish_interest();
        let tasks = TaskTracker::new();
        tasks.spawn(upkeep::keep_house(hub.clone(), shutdown.clone()));
        tasks.spawn(upkeep::publish_interest(hub.clone(), shutdown.clone()));
        if hub.config.sys_seconds > 0 {
            tasks.spawn(upkeep::publish_sys(hub.clone(), shutdown.clone()));
        }
        let gate = Gate::new(hub.clone(), tls, rules, tasks.clone(), shutdown.clone());
        let gate = Arc::new(gate);
        for listener in listeners {
            tasks.spawn(gate.clone().accept(listener));
        }
        shutdown.cancelled().await;
        tasks.close();
        hub.drivers.close();
        let ended = async {
            tasks.wait().await;
            hub.drivers.wait().await;
        };
        if tokio::time::timeout(DRAIN, ended).await.is_err() {
            warn!("some clients did not take their last packets in time");
        }
        hub.last_checkpoint();
        let closing = hub.clone();
        if tokio::task::spawn_blocking(move || closing.state.close())
            .await
            .is_err()
        {
            error!("the broker's state could not be closed");
        }
        info!("broker stopped");
    }
}

/// A log that ends before an offset that is known to have been given has lost its newest records. None of
/// their offsets is given again: ids of events follow from them, and whoever has those of the old records
/// would take new ones for repetitions.
fn go_on_behind(journal: &Journal, known: u64) {
    let ends = journal.next();
    if known <= ends {
        return;
    }
    let next = behind(known);
    journal.skip_to(next);
    if next == known {
        info!(
            ends,
            next, "the durable log goes on where it was to go on before"
        );
        return;
    }
    error!(
        ends,
        known,
        next,
        "the durable log ends before offsets that were given: records that were acknowledged may be lost (those that the disk had no room for were not); these offsets are not given again"
    );
}

/// Where a log goes on of which is known that it had come to `known`: at a stride, with one to spare for what
/// is not known; there already, when nothing was appended since.
fn behind(known: u64) -> u64 {
    match known.is_multiple_of(STRIDE) {
        true => known,
        false => (known / STRIDE).saturating_add(2).saturating_mul(STRIDE),
    }
}

#[cfg(test)]
mod tests;
