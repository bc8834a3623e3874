//! Dead letters on their way again, or dropped, because somebody asked for it.
//!
//! Whoever asks puts a file `ask-<name>.json` into the folder of the letters and waits for
//! `done-<name>.json`, so it works over restarts of the router and needs no connection to it. The
//! letters of a replay go to their destination only, under the ids they had. A letter is taken out of
//! its file when the event was accepted; one that is refused again stays.

use std::collections::{BTreeSet, VecDeque};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use thinglog_schemas::json;
use thinglog_schemas::payload::Decoded;

use super::ledger::Fate;
use super::letters::{self, Letters};
use super::request::Item;
use crate::folder::sync_folder_of;

/// Tickets from here on are numbers of letters, not of chunks.
pub(crate) const TICKETS: u64 = 1 << 63;
/// Letters on their way at once, and bytes of their lines.
const PORTION: usize = 1000;
const PORTION_BYTES: usize = 1 << 20;

/// What somebody asks for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Ask {
    pub(crate) what: What,
    /// Numbers of letters.
    pub(crate) letters: BTreeSet<u64>,
}

/// What is to become of letters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum What {
    Replay,
    Drop,
}

/// What came of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Done {
    /// Letters dropped.
    pub(crate) dropped: u64,
    /// Letters accepted this time.
    pub(crate) accepted: u64,
    /// Letters refused again.
    pub(crate) refused: u64,
    /// Why it ended early.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) error: Option<String>,
}

/// An order being carried out.
#[derive(Debug)]
struct Order {
    path: PathBuf,
    ask: Ask,
    /// Files still to be looked at.
    files: VecDeque<PathBuf>,
    done: Done,
}

/// The orders of a destination, one after the other.
#[derive(Debug)]
pub(crate) struct Replay {
    letters: Arc<Letters>,
    order: Option<Order>,
    /// Letters of the file in hand that were not sent yet, newest last.
    waiting: VecDeque<(u64, Arc<Decoded>, usize)>,
    flying: usize,
    /// The file they are from, and which of its letters have left it.
    file: Option<PathBuf>,
    settled: BTreeSet<u64>,
}

impl Replay {
    pub(crate) fn new(letters: Arc<Letters>) -> Replay {
        Replay {
            letters,
            order: None,
            waiting: VecDeque::new(),
            flying: 0,
            file: None,
            settled: BTreeSet::new(),
        }
    }

    /// Looks for orders and gives events that are to be sent now.
    pub(crate) fn next(&mut self) -> io::Result<Vec<Item>> {
        if self.flying > 0 {
            return Ok(Vec::new());
        }
        while self.waiting.is_empty() {
            if self.order.is_none() && !self.find()? {
                return Ok(Vec::new());
            }
            self.go_on()?;
        }
        let mut items = Vec::new();
        let mut bytes = 0;
        while items.len() < PORTION
            && bytes < PORTION_BYTES
            && let Some((n, decoded, length)) = self.waiting.pop_front()
        {
            bytes += length;
            items.push(Item {
                decoded,
                index: 0,
                ticket: TICKETS | n,
            });
        }
        self.flying = items.len();
        Ok(items)
    }

    /// Whether an order is being carried out.
    pub(crate) fn is_under_way(&self) -> bool {
        self.order.is_some()
    }

    /// An event of a letter is settled.
    pub(crate) fn settle(&mut self, ticket: u64, fate: Fate) {
        self.flying = self.flying.saturating_sub(1);
        let Some(order) = &mut self.order else {
            return;
        };
        match fate {
            Fate::Accepted | Fate::Duplicate => {
                order.done.accepted += 1;
                self.settled.insert(ticket & !TICKETS);
            }
            Fate::Refused => order.done.refused += 1,
        }
    }

    /// Takes up the oldest order, if there is one.
    fn find(&mut self) -> io::Result<bool> {
        let Some(path) = orders(self.letters.folder())?.into_iter().next() else {
            return Ok(false);
        };
        let mut order = Order {
            path,
            ask: Ask {
                what: What::Drop,
                letters: BTreeSet::new(),
            },
            files: VecDeque::new(),
            done: Done::default(),
        };
        let ask = std::fs::read(&order.path)?;
        match serde_json::from_slice(&ask) {
            Ok(ask) => {
                order.ask = ask;
                order.files = self.letters.settled_files()?.into();
            }
            Err(error) => order.done.error = Some(format!("cannot be read: {error}")),
        }
        self.order = Some(order);
        Ok(true)
    }

    /// Ends with the file in hand and takes up the next one; after the last one ends with the order.
    fn go_on(&mut self) -> io::Result<()> {
        let Some(order) = &mut self.order else {
            return Ok(());
        };
        if let Some(file) = self.file.take() {
            self.letters
                .remove(&file, &std::mem::take(&mut self.settled))?;
        }
        let Some(file) = order.files.pop_front() else {
            let order = self.order.take();
            return order.map_or(Ok(()), |order| finish(&order.path, &order.done));
        };
        match order.ask.what {
            What::Drop => order.done.dropped += self.letters.remove(&file, &order.ask.letters)?,
            What::Replay => {
                self.waiting = wanted(&file, &order.ask.letters)?;
                self.file = Some(file);
            }
        }
        Ok(())
    }
}

/// The letters of a file that somebody wants.
fn wanted(
    path: &Path,
    numbers: &BTreeSet<u64>,
) -> io::Result<VecDeque<(u64, Arc<Decoded>, usize)>> {
    let text = match std::fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(VecDeque::new()),
        text => text?,
    };
    let mut found = VecDeque::new();
    for line in letters::lines(&text) {
        let letter = letters::parse(line, path)?;
        if !numbers.contains(&letter.n) {
            continue;
        }
        let event = json::read(letter.event.get().as_bytes())
            .map_err(|error| io::Error::other(format!("{}: {error}", path.display())))?;
        let decoded = Decoded {
            events: vec![event],
            lane: None,
        };
        found.push_back((letter.n, Arc::new(decoded), line.len()));
    }
    Ok(found)
}

/// Files of orders in a folder, by name.
fn orders(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or_default();
        if name.starts_with("ask-") && name.ends_with(".json") {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// Where the answer to an order is written.
pub(crate) fn answer_of(order: &Path) -> PathBuf {
    let name = order
        .file_name()
        .and_then(|name| name.to_str())
        .unwrap_or_default();
    order.with_file_name(format!("done-{}", name.trim_start_matches("ask-")))
}

/// Answers an order and takes it away.
fn finish(order: &Path, done: &Done) -> io::Result<()> {
    write_new(&answer_of(order), done)?;
    std::fs::remove_file(order)?;
    sync_folder_of(order)
}

/// Writes a file that is there as a whole or not at all.
pub(crate) fn write_new(path: &Path, content: &impl Serialize) -> io::Result<()> {
    let temporary = path.with_extension("tmp");
    let mut file = std::fs::File::create(&temporary)?;
    serde_json::to_writer(&mut file, content)?;
    file.flush()?;
    file.sync_all()?;
    std::fs::rename(&temporary, path)?;
    sync_folder_of(path)
}
