//! A lock that notes that what it guards may have changed, so that whoever writes it down looks at what
//! changed and at nothing else.
//!
//! The note is made under the lock and before the change: who takes the notes and then the locks sees
//! every change that was begun before it took the notes.

use std::{
    ops::{Deref, DerefMut},
    sync::Arc,
};

use parking_lot::{Mutex, MutexGuard};

/// Keys of what may have changed.
#[derive(Debug)]
pub(crate) struct Changed<K>(Mutex<Vec<K>>);

impl<K> Default for Changed<K> {
    fn default() -> Self {
        Changed(Mutex::default())
    }
}

impl<K> Changed<K> {
    /// Takes all notes; each key is there once, unless it was noted again meanwhile.
    pub(crate) fn take(&self) -> Vec<K> {
        std::mem::take(&mut *self.0.lock())
    }
}

/// A value behind a lock.
#[derive(Debug)]
pub(crate) struct Tracked<K, T> {
    key: K,
    changed: Arc<Changed<K>>,
    slot: Mutex<Slot<T>>,
}

#[derive(Debug, Default)]
struct Slot<T> {
    /// The key is among the notes.
    is_noted: bool,
    value: T,
}

impl<K: Copy, T: Default> Tracked<K, T> {
    pub(crate) fn new(key: K, changed: Arc<Changed<K>>) -> Tracked<K, T> {
        Tracked {
            key,
            changed,
            slot: Mutex::default(),
        }
    }
}

impl<K: Copy, T> Tracked<K, T> {
    pub(crate) fn lock(&self) -> Guard<'_, K, T> {
        Guard {
            slot: self.slot.lock(),
            tracked: self,
        }
    }

    /// Lets `write` write down what changed; it says whether more is left for the next time.
    pub(crate) fn settle(&self, write: impl FnOnce(&mut T) -> bool) {
        let mut slot = self.slot.lock();
        slot.is_noted = write(&mut slot.value);
        if slot.is_noted {
            self.changed.0.lock().push(self.key);
        }
    }
}

/// The value, locked. Looking at it is no change; whatever may change it is taken for one.
#[derive(Debug)]
pub(crate) struct Guard<'a, K, T> {
    slot: MutexGuard<'a, Slot<T>>,
    tracked: &'a Tracked<K, T>,
}

impl<K, T> Deref for Guard<'_, K, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.slot.value
    }
}

impl<K: Copy, T> DerefMut for Guard<'_, K, T> {
    fn deref_mut(&mut self) -> &mut T {
        if !self.slot.is_noted {
            self.slot.is_noted = true;
            self.tracked.changed.0.lock().push(self.tracked.key);
        }
        &mut self.slot.value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_noted_once_and_a_look_never() {
        let changed = Arc::default();
        let value: Tracked<u8, u32> = Tracked::new(7, Arc::clone(&changed));
        assert_eq!(*value.lock(), 0);
        assert!(changed.take().is_empty());
        *value.lock() += 1;
        *value.lock() += 1;
        assert_eq!(changed.take(), [7]);
        value.settle(|value| {
            *value = 0;
            false
        });
        assert!(changed.take().is_empty(), "who writes it down knows");
        *value.lock() += 1;
        assert_eq!(changed.take(), [7]);
    }

    #[test]
    fn what_could_not_be_written_down_stays_noted() {
        let changed = Arc::default();
        let value: Tracked<u8, u32> = Tracked::new(7, Arc::clone(&changed));
        *value.lock() += 1;
        changed.take();
        value.settle(|_| true);
        *value.lock() += 1;
        assert_eq!(changed.take(), [7]);
    }

    #[test]
    fn a_change_under_way_when_notes_are_taken_is_among_them() {
        let changed = Arc::default();
        let value: Tracked<u8, u32> = Tracked::new(7, Arc::clone(&changed));
        let mut guard = value.lock();
        *guard += 1;
        assert_eq!(changed.take(), [7]);
        *guard += 1;
        drop(guard);
        value.settle(|value| {
            assert_eq!(*value, 2);
            false
        });
    }
}
