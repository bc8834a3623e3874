//! A file system in memory that knows what was synced and what was not, for tests: it loses power,
//! runs out of space, writes short and fails to sync, on request and repeatably by seed.
//!
//! The model is a pessimistic Linux: an unsynced write survives a power cut sector by sector or not
//! at all, an unsynced name likewise in order; a sync that fails forgets the data while the cache
//! goes on showing it.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};

use crate::fs::{Entry, Fs, FsFile, Lock};

const SECTOR: usize = 512;

/// What goes wrong; set by [`SimFs::faults`].
#[derive(Clone, Debug, Default)]
pub struct Faults {
    /// Bytes all files together may take.
    pub capacity: Option<u64>,
    /// The sync of a file that fails: 0 is the next one.
    pub fail_sync: Option<u32>,
    /// The sync of a directory that fails.
    pub fail_sync_dir: Option<u32>,
    /// The write that fails with an I/O error after some of it.
    pub fail_write: Option<u32>,
    /// Writes do not always write everything.
    pub short_writes: bool,
    /// Cutting a file fails.
    pub fail_truncate: bool,
    /// Removing a file fails.
    pub fail_remove: bool,
    /// Reading a file fails.
    pub fail_read: bool,
}

/// The file system, as one life of a process sees it: after [`SimFs::kill`] or [`SimFs::power_cut`]
/// everything that was opened through it fails, and [`SimFs::boot`] gives the next life's. Clones
/// share the files.
#[derive(Clone)]
pub struct SimFs {
    state: Arc<Mutex<State>>,
    life: u64,
}

#[derive(Clone, Debug)]
enum Change {
    Write(u64, Vec<u8>),
    Cut(u64),
}

#[derive(Clone, Debug)]
enum Naming {
    Link(PathBuf, usize),
    Unlink(PathBuf),
}

#[derive(Default)]
struct Node {
    /// What reads return.
    seen: Vec<u8>,
    /// What is on disk for certain.
    disk: Vec<u8>,
    /// Done to `seen`, not to `disk`.
    dirty: Vec<Change>,
}

#[derive(Default)]
struct State {
    random: u64,
    /// Handles of earlier lives are dead.
    life: u64,
    nodes: Vec<Node>,
    names: BTreeMap<PathBuf, usize>,
    disk_names: BTreeMap<PathBuf, usize>,
    dirty_names: Vec<Naming>,
    locked: BTreeSet<PathBuf>,
    faults: Faults,
    peak: u64,
}

fn apply(data: &mut Vec<u8>, change: &Change) {
    match change {
        Change::Write(at, bytes) => {
            let at = *at as usize;
            if data.len() < at + bytes.len() {
                data.resize(at + bytes.len(), 0);
            }
            data[at..at + bytes.len()].copy_from_slice(bytes);
        }
        Change::Cut(len) => data.resize(*len as usize, 0),
    }
}

fn apply_name(names: &mut BTreeMap<PathBuf, usize>, naming: &Naming) {
    match naming {
        Naming::Link(path, node) => drop(names.insert(path.clone(), *node)),
        Naming::Unlink(path) => drop(names.remove(path)),
    }
}

fn due(countdown: &mut Option<u32>) -> bool {
    match countdown {
        Some(0) => {
            *countdown = None;
            true
        }
        Some(n) => {
            *n -= 1;
            false
        }
        None => false,
    }
}

fn broken() -> io::Error {
    io::Error::other("simulated I/O error")
}

impl State {
    /// xorshift64*: repeatable, and good enough to pick sectors.
    fn random(&mut self, below: u64) -> u64 {
        self.random ^= self.random >> 12;
        self.random ^= self.random << 25;
        self.random ^= self.random >> 27;
        (self.random.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % below.max(1)
    }

    fn used(&self) -> u64 {
        self.names
            .values()
            .map(|node| self.nodes[*node].seen.len() as u64)
            .sum()
    }

    fn free(&self) -> u64 {
        self.faults
            .capacity
            .map_or(u64::MAX, |capacity| capacity.saturating_sub(self.used()))
    }

    fn name(&mut self, naming: Naming) {
        apply_name(&mut self.names, &naming);
        self.dirty_names.push(naming);
    }

    fn change(&mut self, node: usize, change: Change) {
        apply(&mut self.nodes[node].seen, &change);
        self.nodes[node].dirty.push(change);
        self.peak = self.peak.max(self.used());
    }

    /// Writes some of the unsynced changes to disk and forgets about the others.
    fn write_back_some(&mut self, node: usize) {
        for change in std::mem::take(&mut self.nodes[node].dirty) {
            let kept = match change {
                Change::Write(at, bytes) => {
                    let sectors = bytes.chunks(SECTOR).enumerate();
                    let kept = sectors.filter(|_| self.random(2) == 0);
                    kept.map(|(n, b)| Change::Write(at + (n * SECTOR) as u64, b.to_vec()))
                        .collect()
                }
                Change::Cut(_) if self.random(2) == 0 => vec![change],
                Change::Cut(_) => Vec::new(),
            };
            for change in &kept {
                apply(&mut self.nodes[node].disk, change);
            }
        }
    }

    fn lookup(&self, path: &Path) -> io::Result<usize> {
        self.names
            .get(path)
            .copied()
            .ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

impl SimFs {
    /// An empty file system; what is left to chance follows from `seed`.
    pub fn new(seed: u64) -> SimFs {
        let state = State {
            random: seed | 1,
            ..State::default()
        };
        SimFs {
            state: Arc::new(Mutex::new(state)),
            life: 0,
        }
    }

    /// The file system for the life that is on now.
    pub fn boot(&self) -> Arc<SimFs> {
        let life = self.state.lock().life;
        Arc::new(SimFs {
            state: self.state.clone(),
            life,
        })
    }

    /// Changes what goes wrong from now on.
    pub fn faults(&self, change: impl FnOnce(&mut Faults)) {
        change(&mut self.state.lock().faults);
    }

    /// Sets the capacity to what is used now and `bytes` more.
    pub fn leave_free(&self, bytes: u64) {
        let mut state = self.state.lock();
        state.faults.capacity = Some(state.used() + bytes);
    }

    /// Ends all processes: their handles are dead, what they wrote is still in the cache.
    pub fn kill(&self) {
        let mut state = self.state.lock();
        state.life += 1;
        state.locked.clear();
        state.faults = Faults::default();
    }

    /// Ends everything: what was not synced may be gone.
    pub fn power_cut(&self) {
        self.kill();
        let mut state = self.state.lock();
        for node in 0..state.nodes.len() {
            state.write_back_some(node);
            state.nodes[node].seen = state.nodes[node].disk.clone();
        }
        let dirty = std::mem::take(&mut state.dirty_names);
        let kept = state.random(dirty.len() as u64 + 1) as usize;
        let State {
            names, disk_names, ..
        } = &mut *state;
        dirty[..kept]
            .iter()
            .for_each(|naming| apply_name(disk_names, naming));
        names.clone_from(disk_names);
    }

    /// The content of a file, as reads would return it.
    pub fn content(&self, path: &Path) -> Option<Vec<u8>> {
        let state = self.state.lock();
        Some(state.nodes[state.lookup(path).ok()?].seen.clone())
    }

    /// Replaces the content of a file, durably: bit rot, or an operator.
    pub fn tamper(&self, path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
        let mut state = self.state.lock();
        let node = state.names.get(path).copied().unwrap_or_else(|| {
            state.nodes.push(Node::default());
            let node = state.nodes.len() - 1;
            state.names.insert(path.to_owned(), node);
            state.disk_names.insert(path.to_owned(), node);
            node
        });
        let node = &mut state.nodes[node];
        change(&mut node.seen);
        node.disk = node.seen.clone();
        node.dirty.clear();
    }

    /// All files, in the order of their names.
    pub fn files(&self) -> Vec<PathBuf> {
        self.state.lock().names.keys().cloned().collect()
    }

    /// Bytes in all files now, and the most there ever were.
    pub fn used(&self) -> (u64, u64) {
        let state = self.state.lock();
        (state.used(), state.peak)
    }
}

fn alive(state: &Arc<Mutex<State>>, life: u64) -> io::Result<MutexGuard<'_, State>> {
    let state = state.lock();
    if state.life == life {
        Ok(state)
    } else {
        Err(broken())
    }
}

struct Held {
    state: Arc<Mutex<State>>,
    dir: PathBuf,
    life: u64,
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut state = self.state.lock();
        if state.life == self.life {
            state.locked.remove(&self.dir);
        }
    }
}

impl Fs for SimFs {
    fn create_dir(&self, _: &Path) -> io::Result<()> {
        alive(&self.state, self.life).map(drop)
    }

    fn lock(&self, dir: &Path) -> io::Result<Lock> {
        let mut state = alive(&self.state, self.life)?;
        if !state.locked.insert(dir.to_owned()) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(Box::new(Held {
            state: self.state.clone(),
            dir: dir.to_owned(),
            life: state.life,
        }))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<Entry>> {
        let state = alive(&self.state, self.life)?;
        let mut entries = Vec::new();
        for (path, node) in &state.names {
            if path.parent() == Some(dir)
                && let Some(name) = path.file_name().and_then(|name| name.to_str())
            {
                let len = state.nodes[*node].seen.len() as u64;
                entries.push(Entry {
                    name: name.to_owned(),
                    len,
                });
            }
        }
        Ok(entries)
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn FsFile>> {
        let mut state = alive(&self.state, self.life)?;
        if let Some(node) = state.names.get(path).copied() {
            state.change(node, Change::Cut(0));
        } else {
            if state.free() == 0 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            state.nodes.push(Node::default());
            let node = state.nodes.len() - 1;
            state.name(Naming::Link(path.to_owned(), node));
        }
        drop(state);
        self.open(path, true)
    }

    fn open(&self, path: &Path, _: bool) -> io::Result<Arc<dyn FsFile>> {
        let state = alive(&self.state, self.life)?;
        let node = state.lookup(path)?;
        Ok(Arc::new(SimFile {
            state: self.state.clone(),
            node,
            life: state.life,
        }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = alive(&self.state, self.life)?;
        let node = state.lookup(from)?;
        // A power cut may leave both names, as some file systems do.
        state.name(Naming::Link(to.to_owned(), node));
        state.name(Naming::Unlink(from.to_owned()));
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = alive(&self.state, self.life)?;
        if state.faults.fail_remove {
            return Err(broken());
        }
        state.lookup(path)?;
        state.name(Naming::Unlink(path.to_owned()));
        Ok(())
    }

    fn sync_dir(&self, _: &Path) -> io::Result<()> {
        let mut state = alive(&self.state, self.life)?;
        if due(&mut state.faults.fail_sync_dir) {
            return Err(broken());
        }
        state.dirty_names.clear();
        let State {
            names, disk_names, ..
        } = &mut *state;
        disk_names.clone_from(names);
        Ok(())
    }
}

struct SimFile {
    state: Arc<Mutex<State>>,
    node: usize,
    life: u64,
}

impl FsFile for SimFile {
    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<usize> {
        let mut state = alive(&self.state, self.life)?;
        let len = state.nodes[self.node].seen.len() as u64;
        let room = (len + state.free().min(u64::MAX / 2)).saturating_sub(offset);
        if room == 0 && !buf.is_empty() {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let mut write = buf.len().min(usize::try_from(room).unwrap_or(usize::MAX));
        let fails = due(&mut state.faults.fail_write);
        if (state.faults.short_writes || fails) && write > 1 {
            write = 1 + state.random(write as u64 - 1) as usize;
        }
        state.change(self.node, Change::Write(offset, buf[..write].to_vec()));
        if fails { Err(broken()) } else { Ok(write) }
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let state = alive(&self.state, self.life)?;
        if state.faults.fail_read {
            return Err(broken());
        }
        let seen = state.nodes[self.node]
            .seen
            .get(offset as usize..)
            .unwrap_or_default();
        let len = seen.len().min(buf.len());
        buf[..len].copy_from_slice(&seen[..len]);
        Ok(len)
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = alive(&self.state, self.life)?;
        if due(&mut state.faults.fail_sync) {
            state.write_back_some(self.node);
            return Err(broken());
        }
        let node = &mut state.nodes[self.node];
        for change in std::mem::take(&mut node.dirty) {
            apply(&mut node.disk, &change);
        }
        Ok(())
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        let mut state = alive(&self.state, self.life)?;
        if state.faults.fail_truncate {
            return Err(broken());
        }
        state.change(self.node, Change::Cut(len));
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        Ok(alive(&self.state, self.life)?.nodes[self.node].seen.len() as u64)
    }

    fn forget_cache(&self) {
        if let Ok(mut state) = alive(&self.state, self.life) {
            let node = &mut state.nodes[self.node];
            if node.dirty.is_empty() {
                node.seen = node.disk.clone();
            }
        }
    }
}
