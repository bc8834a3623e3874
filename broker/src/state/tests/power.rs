//! The power goes at every step that matters. The log of changes lives in the journal's simulated
//! file system, which loses what was not synced, sector by sector. The images live in real files:
//! what was there at the last explicit sync is durable, and of what sled wrote since any 4 KiB block
//! may have reached the disk or not, any name likewise.

use std::{io, sync::atomic::AtomicI64};

use super::{damage::copy_tree, *};

const BLOCK: usize = 4 << 10;

/// Counts the steps at which power may go, and takes a copy of everything when it does.
struct Cutting {
    fs: SimFs,
    /// The directory of the state as the running broker sees it.
    live: PathBuf,
    /// As it is on disk for certain.
    durable: PathBuf,
    /// As it was seen when the power went.
    seen: PathBuf,
    /// Steps until the power goes; below 0 it is gone.
    left: AtomicI64,
}

impl Cutting {
    /// One step: an error when the power is gone.
    fn step(&self) -> io::Result<()> {
        match self.left.fetch_sub(1, Ordering::SeqCst) {
            0 => {
                self.fs.power_cut();
                copy_tree(&self.live, &self.seen);
                Err(io::Error::other("the power is gone"))
            }
            left if left < 0 => Err(io::Error::other("the power is gone")),
            _ => Ok(()),
        }
    }

    fn twin(&self, path: &Path) -> PathBuf {
        self.durable.join(path.strip_prefix(&self.live).unwrap())
    }
}

impl Disk for Cutting {
    fn sync_tree(&self, dir: &Path) -> io::Result<()> {
        self.step()?;
        let twin = self.twin(dir);
        if twin.exists() {
            std::fs::remove_dir_all(&twin)?;
        }
        copy_tree(dir, &twin);
        self.step()
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.step()?;
        std::fs::rename(from, to)?;
        self.step()?;
        std::fs::rename(self.twin(from), self.twin(to))?;
        self.step()
    }
}

struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % bound
    }

    fn coin(&mut self) -> bool {
        self.below(2) == 0
    }
}

/// What may be on disk after the cut: the durable tree, and by chance what was seen beyond it.
fn after_the_cut(durable: &Path, seen: &Path, to: &Path, random: &mut Random) {
    std::fs::create_dir_all(to).unwrap();
    let names = |dir: &Path| -> Vec<PathBuf> {
        let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
        entries.map(|entry| entry.file_name().into()).collect()
    };
    let mut all = names(durable);
    all.extend(names(seen));
    all.sort();
    all.dedup();
    for name in all {
        let (old, new, to) = (durable.join(&name), seen.join(&name), to.join(&name));
        let exists_for_certain = old.exists() && new.exists();
        if !exists_for_certain && random.coin() {
            continue;
        }
        if old.is_dir() || new.is_dir() {
            after_the_cut(&old, &new, &to, random);
            continue;
        }
        let old = std::fs::read(old).unwrap_or_default();
        let new = std::fs::read(new).unwrap_or_else(|_| old.clone());
        let length = if random.coin() { old.len() } else { new.len() };
        let mut bytes = old;
        bytes.resize(new.len().max(bytes.len()), 0);
        for at in (0..new.len()).step_by(BLOCK) {
            let block = at..(at + BLOCK).min(new.len());
            if random.coin() {
                bytes[block.clone()].copy_from_slice(&new[block]);
            }
        }
        bytes.truncate(length);
        std::fs::write(to, bytes).unwrap();
    }
}

/// A life that ends by a cut after `steps` steps of folding, or after all changes if they come
/// first. Gives, for each key, the last value that was acknowledged and those that came after it.
struct Life {
    acknowledged: BTreeMap<String, Option<String>>,
    since: BTreeMap<String, Vec<Option<String>>>,
}

impl Life {
    /// Changes something; all but one of `waits` times it waits for what becomes of it.
    fn change(&mut self, state: &State, random: &mut Random, n: u64, waits: u64) {
        let key = format!("key {}", random.below(12));
        let length = 1 + random.below(300) as usize;
        let value = (random.below(5) > 0).then(|| format!("{n} ").repeat(length));
        let bytes = value.clone().map(String::into_bytes);
        let ticket = state.change(Kind::Retained, &key, bytes);
        if random.below(waits) > 0 && state.wait(ticket) == Outcome::Stored {
            // What was given before it of other keys is stored with it or before it.
            self.since.remove(&key);
            self.acknowledged.insert(key, value);
        } else {
            self.since.entry(key).or_default().push(value);
        }
    }

    /// Nothing acknowledged is missing, nothing is half there, and no loss is spoken of.
    fn check(&self, loaded: &Loaded, context: &str) {
        assert_eq!(loaded.lost_below, 0, "{context}");
        let found = retained(loaded);
        for n in 0..12 {
            let key = format!("key {n}");
            let value = found.get(&key).cloned();
            let settled = self.acknowledged.get(&key).cloned().flatten();
            let later = self.since.get(&key);
            let is_later = later.is_some_and(|later| later.contains(&value));
            assert!(
                value == settled || is_later,
                "{context}: {key} is {value:?}, acknowledged was {settled:?}"
            );
        }
    }
}

fn live_and_cut(seed: u64) {
    let mut random = Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("state");
    let fs = SimFs::new(seed);
    let mut life = Life {
        acknowledged: BTreeMap::new(),
        since: BTreeMap::new(),
    };
    for n in 0..4 {
        let at = |name: &str| root.path().join(format!("{n}-{name}"));
        let (durable, seen) = (at("durable"), at("seen"));
        if dir.exists() {
            copy_tree(&dir, &durable);
        } else {
            std::fs::create_dir_all(&durable).unwrap();
        }
        let cutting = Arc::new(Cutting {
            fs: fs.clone(),
            live: dir.clone(),
            durable: durable.clone(),
            seen: seen.clone(),
            left: AtomicI64::new(random.below(24) as i64),
        });
        let place = Place {
            dir: &dir,
            fs: fs.boot(),
            disk: cutting.clone(),
            reserve: 0,
            fold_at: 4 << 10,
        };
        // Opening itself may meet the cut, when it has to repair something.
        match State::open_at(place, JOURNAL.0, JOURNAL.1) {
            Err(error) => assert!(seen.exists(), "seed {seed}, life {n}: {error}"),
            Ok((state, loaded)) => {
                life.check(&loaded, &format!("seed {seed}, life {n}"));
                life.since.clear();
                life.acknowledged = retained(&loaded)
                    .into_iter()
                    .map(|(key, value)| (key, Some(value)))
                    .collect();
                for n in 0..120 {
                    life.change(&state, &mut random, n, 4);
                }
                // In the middle of groups that nobody was told of.
                for n in 1000..1000 + random.below(40) {
                    life.change(&state, &mut random, n, 1);
                }
                if cutting.left.swap(-1, Ordering::SeqCst) >= 0 {
                    fs.power_cut();
                    copy_tree(&dir, &seen);
                }
                drop(state);
            }
        }
        // The marker is written by no seam: it was synced before anything was acknowledged.
        std::fs::remove_dir_all(&dir).unwrap();
        after_the_cut(&durable, &seen, &dir, &mut random);
        std::fs::write(dir.join("in-use"), b"").unwrap();
    }
}

#[test]
fn whatever_a_power_cut_leaves_nothing_acknowledged_is_missing() {
    let number = |name: &str| std::env::var(name).ok().and_then(|n| n.parse::<u64>().ok());
    let first = number("THINGLOG_POWER_SEED").unwrap_or(1);
    let seeds = number("THINGLOG_POWER_SEEDS").unwrap_or(12);
    (first..first + seeds).for_each(live_and_cut);
}
