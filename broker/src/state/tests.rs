//! Claims about the state on disk.

mod basics;
mod damage;
mod faults;
mod power;

use std::{collections::BTreeMap, path::Path, sync::Arc};

use thinglog_journal::{fs::Fs, sim::SimFs};

use super::*;

/// The durable log's id and end, as far as these tests go.
const JOURNAL: (u64, u64) = (1, 42);

fn open(dir: &Path) -> (State, Loaded) {
    State::open(dir, 0, JOURNAL.0, JOURNAL.1).unwrap()
}

/// Folds after a few changes.
fn open_eager(dir: &Path) -> (State, Loaded) {
    let place = Place {
        dir,
        fs: Arc::new(RealFs),
        disk: Arc::new(RealDisk),
        reserve: 0,
        fold_at: 8 << 10,
    };
    State::open_at(place, JOURNAL.0, JOURNAL.1).unwrap()
}

fn open_sim(dir: &Path, fs: &SimFs) -> (State, Loaded) {
    let fs: Arc<dyn Fs> = fs.boot();
    let place = Place {
        dir,
        fs,
        disk: Arc::new(RealDisk),
        reserve: 0,
        fold_at: FOLD_AT,
    };
    State::open_at(place, JOURNAL.0, JOURNAL.1).unwrap()
}

fn set(state: &State, key: &str, value: &str) -> Outcome {
    state.wait(state.change(Kind::Retained, key, Some(value.into())))
}

fn retained(loaded: &Loaded) -> BTreeMap<String, String> {
    let text = |value: &[u8]| String::from_utf8(value.to_vec()).unwrap();
    let pairs = loaded.retained.iter();
    pairs
        .map(|(key, value)| (key.clone(), text(value)))
        .collect()
}

/// Sets keys, over and over, until there are so many images.
fn fill(state: &State, images: u64) -> BTreeMap<String, String> {
    let mut expected = BTreeMap::new();
    for n in 0.. {
        let (key, value) = (format!("key {}", n % 50), format!("value {n}").repeat(5));
        assert_eq!(set(state, &key, &value), Outcome::Stored);
        expected.insert(key, value);
        if state.stats().images >= images && n >= 50 {
            break;
        }
    }
    expected
}

/// The files of the images there are, newest image last.
fn images(dir: &Path) -> Vec<PathBuf> {
    let images = image::list(dir).unwrap().into_iter();
    images.map(|image| image.path.join("db")).collect()
}

fn overwrite(file: &Path) {
    let length = std::fs::metadata(file).unwrap().len() as usize;
    std::fs::write(file, vec![0xA5; length]).unwrap();
}

/// The files of the log of changes that end with `extension`.
fn log_files(dir: &Path, extension: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir.join("log")).unwrap().flatten();
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    files.retain(|path| path.extension().is_some_and(|end| end == extension));
    files.sort();
    files
}
