//! The fleet as people see and change it: devices, groups, levels, overrides, and who changed what.
//!
//! Everything stands in retained documents, so this is a view of the broker and nothing of its own: a
//! [`View`] to read, a [`Change`] that [`plan()`] turns into documents. A change is answered once the
//! broker has acknowledged its documents and they have come back, so that whoever reads after it
//! sees it. What HTTP, AWS's API and the command line offer stands on this.

pub(crate) mod arrivals;
mod caller;
mod change;
pub(crate) mod contacts;
pub(crate) mod devices;
pub(crate) mod history;
mod make;
mod plan;
pub(crate) mod presence;
mod refusal;
mod turns;
mod view;

use std::sync::Arc;

use parking_lot::RwLock;
use serde_json::Value;
use thinglog_schemas::topic::ConfigTopic;
use thinglog_schemas::{Topics, json};
use tokio::sync::Semaphore;

use self::arrivals::Arrivals;
use self::contacts::Contacts;
use self::devices::Devices;
use self::history::History;
use self::turns::Turns;
use crate::clock;
use crate::levels::Levels;
use crate::mqtt::publisher::Publisher;
use crate::telemetry::Telemetry;

pub use caller::{Caller, Role};
pub use change::{
    Attributes, Change, DevicePatch, GroupPatch, LEVEL_PART, NewGroup, Target, valid,
};
pub use plan::{override_topic, plan};
pub use refusal::{Code, Refusal};
pub use view::{Document, View};

/// Changes that may wait at a time.
const PLACES: usize = 2048;

/// The fleet; clones are handles of the same.
#[derive(Clone, Debug)]
pub struct Registry {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    topics: Topics,
    levels: Arc<Levels>,
    devices: Arc<RwLock<Devices>>,
    contacts: Arc<Contacts>,
    arrivals: Arc<Arrivals>,
    history: Arc<History>,
    publisher: Publisher,
    telemetry: Telemetry,
    turns: Turns,
    places: Semaphore,
}

/// What a registry stands on.
pub(crate) struct Parts {
    pub(crate) topics: Topics,
    pub(crate) levels: Arc<Levels>,
    pub(crate) devices: Arc<RwLock<Devices>>,
    pub(crate) contacts: Arc<Contacts>,
    pub(crate) arrivals: Arc<Arrivals>,
    pub(crate) history: Arc<History>,
    /// Of changes alone: what the router writes by itself must not hold them up.
    pub(crate) publisher: Publisher,
    pub(crate) telemetry: Telemetry,
}

/// A change that was made.
#[derive(Clone, Debug, PartialEq)]
pub struct Done {
    /// What was published for it; empty when it stood already.
    pub writes: Vec<Write>,
}

impl Registry {
    pub(crate) fn new(parts: Parts) -> Registry {
        Registry {
            inner: Arc::new(Inner {
                topics: parts.topics,
                levels: parts.levels,
                devices: parts.devices,
                contacts: parts.contacts,
                telemetry: parts.telemetry,
                arrivals: parts.arrivals,
                history: parts.history,
                publisher: parts.publisher,
                turns: Turns::default(),
                places: Semaphore::new(PLACES),
            }),
        }
    }

    /// Looks something up. Writers wait meanwhile, so what goes through all devices does it in
    /// pieces. Refused until the documents have arrived once.
    pub fn read<T>(&self, read: impl FnOnce(View<'_>) -> T) -> Result<T, Refusal> {
        self.inner.must_be_complete()?;
        Ok(self.inner.view(read))
    }

    /// Who changed what.
    pub(crate) fn history(&self) -> &History {
        &self.inner.history
    }

    /// Makes a change: answers after the broker has acknowledged every document and this registry has
    /// taken it up. Goes on to its end when the caller stops waiting.
    ///
    /// Refused with [`Code::ServiceUnavailable`] when the broker does not answer; some of the
    /// documents may be in force then, and the same change may be tried again.
    pub async fn change(&self, change: Change, caller: &Caller) -> Result<Done, Refusal> {
        let (inner, caller) = (Arc::clone(&self.inner), caller.clone());
        let changes = self.inner.telemetry.changes.clone();
        let made = tokio::spawn(async move { inner.make(&change, &caller).await });
        let made = made
            .await
            .unwrap_or_else(|error| Err(Refusal::new(Code::ServiceUnavailable, error.to_string())));
        let outcome = made
            .as_ref()
            .map_or_else(|refusal| refusal.code.name(), |_| "made");
        changes.with_label_values(&[outcome]).inc();
        made
    }
}

impl Inner {
    fn view<T>(&self, read: impl FnOnce(View<'_>) -> T) -> T {
        let now = clock::now_ns();
        self.levels.documents(|configuration| {
            let devices = &self.devices.read();
            read(View {
                configuration,
                devices,
                contacts: &self.contacts,
                now,
            })
        })
    }

    fn must_be_complete(&self) -> Result<(), Refusal> {
        match self.levels.is_complete() {
            true => Ok(()),
            false => Err(Refusal::new(
                Code::ServiceUnavailable,
                "the fleet's documents have not arrived from the broker yet",
            )),
        }
    }
}

/// A retained document to publish.
#[derive(Clone, Debug, PartialEq)]
pub struct Write {
    /// The topic without its root: `config/device/lamp-7`.
    pub topic: String,
    /// What it says; `None` removes it.
    pub document: Option<Document>,
}

impl Write {
    fn put(topic: ConfigTopic<'_>, document: Document) -> Write {
        Write {
            topic: topic.to_string(),
            document: Some(document),
        }
    }

    fn remove(topic: ConfigTopic<'_>) -> Write {
        Write::clear(topic.to_string())
    }

    fn clear(topic: String) -> Write {
        Write {
            topic,
            document: None,
        }
    }

    /// The payload to publish: empty to remove.
    pub fn payload(&self) -> Vec<u8> {
        let document = self.document.clone();
        document.map_or_else(Vec::new, |document| {
            Value::Object(document).to_string().into_bytes()
        })
    }
}

/// A time as documents and answers have it (RFC 3339, UTC).
pub fn time_text(ns: u64) -> String {
    let mut text = Vec::new();
    json::write_time(ns, &mut text);
    String::from_utf8_lossy(&text).into_owned()
}
