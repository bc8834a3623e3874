//! Which parts are ready, as `/readyz` shows it.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;

/// The readiness of every part of a process; clones share it.
#[derive(Clone, Debug, Default)]
pub struct Health {
    parts: Arc<Mutex<BTreeMap<String, Option<String>>>>,
}

/// One part's own entry.
#[derive(Clone, Debug)]
pub struct Part {
    health: Health,
    name: Arc<str>,
}

impl Health {
    /// A health without parts: ready.
    pub fn new() -> Health {
        Health::default()
    }

    /// Adds a part, not ready yet.
    pub fn part(&self, name: &str) -> Part {
        let part = self.entry(name);
        part.not_ready("starting");
        part
    }

    /// The entry of a part that is there, or will be once it says something.
    pub(crate) fn entry(&self, name: &str) -> Part {
        Part {
            health: self.clone(),
            name: Arc::from(name),
        }
    }

    /// Forgets a part that is no more.
    pub(crate) fn remove(&self, name: &str) {
        self.parts.lock().remove(name);
    }

    /// Whether every part is ready.
    pub fn is_ready(&self) -> bool {
        self.parts.lock().values().all(Option::is_none)
    }

    /// Every part with the reason why it is not ready, or `None`.
    pub fn parts(&self) -> BTreeMap<String, Option<String>> {
        self.parts.lock().clone()
    }
}

impl Part {
    /// The part does its work.
    pub fn ready(&self) {
        self.set(None);
    }

    /// The part cannot do its work, because of `reason`.
    pub fn not_ready(&self, reason: impl Into<String>) {
        self.set(Some(reason.into()));
    }

    /// The name it has in `/readyz`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether the part said so last.
    pub fn is_ready(&self) -> bool {
        let parts = self.health.parts.lock();
        parts.get(&*self.name).is_some_and(Option::is_none)
    }

    fn set(&self, state: Option<String>) {
        self.health
            .parts
            .lock()
            .insert(self.name.to_string(), state);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_when_every_part_is() {
        let health = Health::new();
        let (first, second) = (health.part("first"), health.part("second"));
        first.ready();
        assert!(!health.is_ready());
        second.ready();
        assert!(health.is_ready());
        first.not_ready("gone");
        assert_eq!(health.parts()["first"].as_deref(), Some("gone"));
    }
}
