//! Who may change what at a time: changes of one device or of one group follow each other, and what
//! changes which groups there are is alone, because it may contradict any other.

use std::collections::BTreeSet;
use std::hash::{BuildHasher, RandomState};

use tokio::sync::{Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::change::Change;

/// Turns of so many names at a time.
const SHARDS: usize = 64;

/// All turns.
#[derive(Debug)]
pub(super) struct Turns {
    structure: RwLock<()>,
    shards: Vec<Mutex<()>>,
    hasher: RandomState,
}

/// A turn; it ends with the value.
pub(super) enum Turn<'a> {
    /// Alone.
    Alone {
        _structure: RwLockWriteGuard<'a, ()>,
    },
    /// Beside those of other names.
    Beside {
        _structure: RwLockReadGuard<'a, ()>,
        _names: Vec<MutexGuard<'a, ()>>,
    },
}

impl Default for Turns {
    fn default() -> Turns {
        Turns {
            structure: RwLock::default(),
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            hasher: RandomState::new(),
        }
    }
}

impl Turns {
    /// Waits for the turn of a change.
    pub(super) async fn of(&self, change: &Change) -> Turn<'_> {
        let Some(names) = names(change) else {
            return Turn::Alone {
                _structure: self.structure.write().await,
            };
        };
        let structure = self.structure.read().await;
        // In one order everywhere, so that nobody waits for somebody who waits for him.
        let shards: BTreeSet<usize> = names.iter().map(|name| self.shard(name)).collect();
        let mut held = Vec::new();
        for shard in shards {
            held.push(self.shards[shard].lock().await);
        }
        Turn::Beside {
            _structure: structure,
            _names: held,
        }
    }

    fn shard(&self, name: &(&str, &str)) -> usize {
        let hash = self.hasher.hash_one(name);
        usize::try_from(hash % SHARDS as u64).unwrap_or(0)
    }
}

/// Kind and name of what a change is about; `None` if it has to be alone.
fn names(change: &Change) -> Option<Vec<(&'static str, &str)>> {
    match change {
        Change::SetLevel { target, .. }
        | Change::PatchLevel { target, .. }
        | Change::DeleteLevel { target }
        | Change::SetOverride { target, .. }
        | Change::DeleteOverride { target } => {
            Some(vec![(target.kind(), target.name().unwrap_or_default())])
        }
        Change::SetOptions { .. } => Some(vec![("default", "")]),
        Change::CreateGroup { .. } | Change::UpdateGroup { .. } | Change::DeleteGroup { .. } => {
            None
        }
        Change::Join { device, .. } | Change::Leave { device, .. } => {
            Some(vec![("device", device)])
        }
        Change::CreateDevice { name, .. }
        | Change::UpdateDevice { name, .. }
        | Change::DeleteDevice { name, .. } => Some(vec![("device", name)]),
    }
}
