//! Levels of the fleet: what events pass, and what devices are told.
//!
//! [`task`] keeps the retained configuration documents in [`Levels`], which every destination reads
//! through a [`LevelCache`] of its own; [`desired`] is the pure part that decides which
//! `desired/<device>` documents have to be written. No event is judged before the first complete set
//! of documents is there.

pub(crate) mod configuration;
pub(crate) mod desired;
pub(crate) mod facts;
pub(crate) mod role;
pub(crate) mod task;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::RwLock;
use thinglog_schemas::payload::Stamp;
use thinglog_schemas::resolve::{Answers, Fleet, Resolved, Who};
use tokio::sync::{mpsc, watch};

use self::configuration::Configuration;
use crate::mqtt::names::Names;
use crate::registry::devices::Devices;

/// News that wait for the task.
const NEWS: usize = 4096;
/// Devices whose rules a cache keeps.
const CACHED: usize = 65_536;

/// The fleet's documents, shared by every part of the router.
#[derive(Debug)]
pub(crate) struct Levels {
    configuration: RwLock<Configuration>,
    /// Moves with every change.
    version: AtomicU64,
    complete: watch::Sender<bool>,
    news: mpsc::Sender<News>,
}

/// What the task hears of a device.
#[derive(Debug)]
pub(crate) struct News {
    pub(crate) device: Arc<str>,
    /// It exists: it has said something.
    pub(crate) seen: bool,
    /// It may be in other groups than before.
    pub(crate) changed: bool,
}

impl Levels {
    /// Levels without documents, and where its task hears of devices.
    pub(crate) fn new() -> (Arc<Levels>, mpsc::Receiver<News>) {
        let (news, receiver) = mpsc::channel(NEWS);
        let levels = Levels {
            configuration: RwLock::default(),
            version: AtomicU64::new(0),
            complete: watch::Sender::new(false),
            news,
        };
        (Arc::new(levels), receiver)
    }

    /// Waits for the first complete set of documents. Cancel-safe.
    pub(crate) async fn complete(&self) {
        let mut complete = self.complete.subscribe();
        // The sender lives as long as `self`, so this ends with the value being true.
        let _ = complete.wait_for(|complete| *complete).await;
    }

    /// A device has published. Lost where too many wait to be noted: it will publish again.
    pub(crate) fn saw(&self, device: &Arc<str>) {
        let news = News {
            device: Arc::clone(device),
            seen: true,
            changed: false,
        };
        let _ = self.news.try_send(news);
    }

    /// Where news of devices are told.
    pub(crate) fn news(&self) -> mpsc::Sender<News> {
        self.news.clone()
    }

    /// A complete set of documents takes the place of the one before. What devices report is told on
    /// another connection: it stays.
    pub(crate) fn replace(&self, mut configuration: Configuration, devices: &RwLock<Devices>) {
        let mut current = self.configuration.write();
        for device in devices.read().names(None) {
            if let Some(report) = current.fleet().reported(device) {
                configuration
                    .fleet_mut()
                    .report(device, Some(report.clone()));
            }
        }
        let before = std::mem::replace(&mut *current, configuration);
        self.version.fetch_add(1, Ordering::Release);
        drop(current);
        drop(before);
        self.complete.send_replace(true);
    }

    /// Changes documents in place.
    pub(crate) fn change<T>(&self, change: impl FnOnce(&mut Configuration) -> T) -> T {
        let mut configuration = self.configuration.write();
        let before = configuration.fleet().generation();
        let result = change(&mut configuration);
        if configuration.fleet().generation() != before {
            self.version.fetch_add(1, Ordering::Release);
        }
        result
    }

    /// Looks something up in the rules.
    pub(crate) fn read<T>(&self, read: impl FnOnce(&Fleet) -> T) -> T {
        read(self.configuration.read().fleet())
    }

    /// Looks something up in the documents.
    pub(crate) fn documents<T>(&self, read: impl FnOnce(&Configuration) -> T) -> T {
        read(&self.configuration.read())
    }

    /// Whether a complete set of documents has ever been there.
    pub(crate) fn is_complete(&self) -> bool {
        *self.complete.borrow()
    }

    /// Moves with every change.
    pub(crate) fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    fn resolve(&self, answers: &mut Answers, who: &Who<'_>) -> (u64, Resolved) {
        let configuration = self.configuration.read();
        let fleet = configuration.fleet();
        (self.version(), fleet.resolve_known(answers, who))
    }
}

/// The rules of the devices one destination meets, each until the fleet's documents change.
#[derive(Debug)]
pub(crate) struct LevelCache {
    levels: Arc<Levels>,
    known: HashMap<Arc<str>, Known>,
    /// What devices in the same groups share.
    answers: Answers,
}

#[derive(Debug)]
struct Known {
    version: u64,
    principal: Option<Arc<str>>,
    address: Option<Arc<str>>,
    resolved: Resolved,
}

impl LevelCache {
    pub(crate) fn new(levels: Arc<Levels>) -> LevelCache {
        LevelCache {
            levels,
            known: HashMap::new(),
            answers: Answers::default(),
        }
    }

    /// The groups of a device, ancestors included.
    pub(crate) fn groups_of(&self, device: &str) -> Vec<String> {
        self.levels.read(|fleet| fleet.groups_of(device))
    }

    /// The rules for what `names` published under `stamp`.
    pub(crate) fn of(&mut self, names: &Names, stamp: &Stamp) -> &Resolved {
        let version = self.levels.version();
        if self.known.len() >= CACHED && !self.known.contains_key(&names.device) {
            self.known.clear();
        }
        let (levels, answers) = (&self.levels, &mut self.answers);
        let mut resolve = || Known::resolve(levels, answers, &names.device, stamp);
        let known = self.known.entry(Arc::clone(&names.device));
        let known = known.or_insert_with(&mut resolve);
        if known.version != version || !known.is_for(stamp) {
            *known = resolve();
        }
        &known.resolved
    }
}

impl Known {
    fn resolve(levels: &Levels, answers: &mut Answers, device: &str, stamp: &Stamp) -> Known {
        let who = Who {
            device,
            principal: stamp.principal.as_deref(),
            address: stamp.address.as_deref(),
        };
        let (version, resolved) = levels.resolve(answers, &who);
        Known {
            version,
            principal: stamp.principal.clone(),
            address: stamp.address.clone(),
            resolved,
        }
    }

    fn is_for(&self, stamp: &Stamp) -> bool {
        self.principal == stamp.principal && self.address == stamp.address
    }
}

#[cfg(test)]
mod tests {
    use thinglog_schemas::Severity;
    use thinglog_schemas::topic::ConfigTopic;

    use super::*;

    fn names() -> Names {
        Names {
            device: Arc::from("lamp-7"),
            source: Arc::from("app"),
        }
    }

    fn passes(cache: &mut LevelCache, stamp: &Stamp) -> bool {
        cache.of(&names(), stamp).passes("app", 0, Severity::INFO)
    }

    fn apply(levels: &Levels, topic: ConfigTopic<'_>, payload: &[u8]) {
        levels
            .change(|documents| documents.apply(topic, payload))
            .unwrap();
    }

    #[test]
    fn a_change_reaches_a_cached_device_at_once() {
        let (levels, _news) = Levels::new();
        let mut cache = LevelCache::new(Arc::clone(&levels));
        assert!(passes(&mut cache, &Stamp::default()));
        apply(
            &levels,
            ConfigTopic::Device("lamp-7"),
            br#"{"level":"ERROR"}"#,
        );
        assert!(!passes(&mut cache, &Stamp::default()));
        levels.replace(Configuration::default(), &RwLock::default());
        assert!(passes(&mut cache, &Stamp::default()));
    }

    #[test]
    fn a_device_is_judged_by_who_published() {
        let (levels, _news) = Levels::new();
        let mut cache = LevelCache::new(Arc::clone(&levels));
        apply(
            &levels,
            ConfigTopic::Principal("eve"),
            br#"{"level":"DISABLED"}"#,
        );
        let eve = Stamp {
            principal: Some(Arc::from("eve")),
            ..Stamp::default()
        };
        assert!(passes(&mut cache, &Stamp::default()));
        assert!(!passes(&mut cache, &eve));
        assert!(passes(&mut cache, &Stamp::default()));
    }
}
