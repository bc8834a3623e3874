//! Who changed what about the fleet, and when: an entry for each configuration document that came to say
//! something else, whoever wrote it and by what way.
//!
//! `by` is what the document says, and for a removal through this router who asked for it; what was
//! removed by a plain MQTT client is nobody's. `at` is when this router saw it, and for what changed while
//! the router was away what the document says.
//!
//! Bounded twice: the newest [`MOST`] entries or [`MOST_BYTES`] in memory, which are all that can be asked
//! for, and what [`mod@file`] keeps on disk. They are written behind the changes, within moments; a change that
//! a crash kept from being written is found at the next start, if its document still stands.

mod change;
mod file;

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::{Value, json};
use thinglog_schemas::json as times;
use thinglog_schemas::topic::ConfigTopic;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use self::change::described;
use self::file::HistoryFile;
use super::change::Target;
use super::time_text;
use crate::deliver::supervise::OpenError;
use crate::folder::Folder;

/// Entries that can be asked for.
pub(crate) const MOST: usize = 20_000;
/// What they may take as lines of text.
const MOST_BYTES: usize = 8 << 20;
/// Longest document that an entry repeats, bytes.
const LONGEST_DOCUMENT: usize = 4096;
/// What an entry takes besides its texts.
const FIXED: usize = 128;
/// Until a write that failed is tried again.
const AGAIN_AFTER: Duration = Duration::from_secs(5);

/// One change of one document.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Entry {
    /// Counts up, over restarts.
    pub(crate) number: u64,
    /// ns since the Unix epoch.
    at: u64,
    by: Option<Box<str>>,
    /// Without the root: `config/device/lamp-7`.
    pub(crate) topic: Box<str>,
    /// For people: `level DEBUG (was WARN)`.
    change: Box<str>,
    /// What it says now; empty when it was removed, `None` when it is too long.
    document: Option<Box<str>>,
}

/// A change, before it is an entry.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seen<'a> {
    pub(crate) topic: ConfigTopic<'a>,
    pub(crate) before: &'a [u8],
    pub(crate) after: &'a [u8],
    /// Who asked for it, where the document itself does not say.
    pub(crate) by: Option<&'a str>,
    /// ns since the Unix epoch.
    pub(crate) now: u64,
}

/// The entries, oldest first.
#[derive(Debug, Default)]
pub(crate) struct History {
    state: Mutex<State>,
    written: Notify,
}

#[derive(Debug, Default)]
struct State {
    entries: VecDeque<Arc<Entry>>,
    bytes: usize,
    next: u64,
    /// The first entry that is not on disk.
    unwritten: u64,
}

impl Entry {
    fn of(seen: &Seen<'_>) -> Entry {
        let after = std::str::from_utf8(seen.after).unwrap_or_default();
        let document: Value = serde_json::from_str(after).unwrap_or_default();
        let signed = document["by"].as_str().or(seen.by);
        Entry {
            number: 0,
            at: seen.now,
            by: signed.map(Box::from),
            topic: seen.topic.to_string().into(),
            change: described(seen.topic, seen.before, seen.after).into(),
            document: (after.len() <= LONGEST_DOCUMENT).then(|| text_of(&document)),
        }
    }

    /// What the change is about; a membership is its device's.
    fn subjects(&self) -> Vec<Target> {
        match ConfigTopic::parse(&self.topic) {
            Ok(ConfigTopic::Member { group, device }) => {
                vec![Target::Device(device.into()), Target::Group(group.into())]
            }
            Ok(ConfigTopic::OverrideDefault) => vec![Target::Default],
            Ok(ConfigTopic::OverrideGroup(name)) => vec![Target::Group(name.into())],
            Ok(ConfigTopic::OverrideDevice(name)) => vec![Target::Device(name.into())],
            Ok(topic) => Target::of_topic(topic).into_iter().collect(),
            Err(_) => Vec::new(),
        }
    }

    /// Whether it is about one that `wanted` takes.
    pub(crate) fn concerns(&self, wanted: impl Fn(&Target) -> bool) -> bool {
        self.subjects().iter().any(wanted)
    }

    /// As it is answered.
    pub(crate) fn shown(&self) -> Value {
        let mut shown = self.kept();
        if let Some(entry) = shown.as_object_mut() {
            let subject = self.subjects().first().map(subject_text);
            entry.insert("subject".into(), json!(subject));
            entry.remove("number");
        }
        shown
    }

    /// As it is kept on disk.
    fn kept(&self) -> Value {
        let mut kept = json!({"number": self.number, "at": time_text(self.at), "topic": self.topic,
                              "change": self.change});
        if let Some(by) = &self.by {
            kept["by"] = json!(by);
        }
        if let Some(document) = &self.document {
            kept["document"] = serde_json::from_str(document).unwrap_or_default();
        }
        kept
    }

    fn of_kept(kept: &Value) -> Option<Entry> {
        let text = |field: &str| kept[field].as_str().map(Box::from);
        Some(Entry {
            number: kept["number"].as_u64()?,
            at: times::parse_time(kept["at"].as_str()?)?,
            by: text("by"),
            topic: text("topic")?,
            change: text("change")?,
            document: kept.get("document").map(text_of),
        })
    }

    fn size(&self) -> usize {
        let by = self.by.as_deref().map_or(0, str::len);
        let document = self.document.as_deref().map_or(0, str::len);
        FIXED + by + self.topic.len() + self.change.len() + document
    }
}

/// A document as an entry has it; nothing for none.
fn text_of(document: &Value) -> Box<str> {
    match document {
        Value::Null => Box::default(),
        document => document.to_string().into(),
    }
}

/// `group:eu`, `default`.
pub(crate) fn subject_text(target: &Target) -> String {
    match target.name() {
        None => target.kind().to_owned(),
        Some(name) => format!("{}:{name}", target.kind()),
    }
}

impl History {
    /// Notes a change; what says the same as before is none.
    pub(crate) fn note(&self, seen: &Seen<'_>) {
        if seen.before == seen.after {
            return;
        }
        let mut entry = Entry::of(seen);
        let mut state = self.state.lock();
        entry.number = state.next;
        state.push(entry);
        drop(state);
        self.written.notify_one();
    }

    /// Notes something that was done to a target and is no change of a document.
    pub(crate) fn note_deed(&self, topic: ConfigTopic<'_>, deed: &str, by: &str, now: u64) {
        let mut state = self.state.lock();
        let entry = Entry {
            number: state.next,
            at: now,
            by: Some(by.into()),
            topic: topic.to_string().into(),
            change: deed.into(),
            document: None,
        };
        state.push(entry);
        drop(state);
        self.written.notify_one();
    }

    /// Notes what changed while nobody looked: a document that says itself when it was written, after the
    /// newest entry there is. `now` bounds what documents may claim.
    pub(crate) fn note_missed<'a>(
        &self,
        documents: impl Iterator<Item = (ConfigTopic<'a>, &'a [u8])>,
        now: u64,
    ) {
        let newest = self.state.lock().entries.back().map(|entry| entry.at);
        let Some(newest) = newest else { return };
        let mut missed: Vec<Seen<'_>> = documents
            .filter_map(|(topic, after)| {
                let document: Value = serde_json::from_slice(after).ok()?;
                let at = times::parse_time(document["at"].as_str()?)?;
                let before = &[];
                (newest < at && at <= now).then_some(Seen {
                    topic,
                    before,
                    after,
                    by: None,
                    now: at,
                })
            })
            .collect();
        missed.sort_by_key(|seen| seen.now);
        missed.iter().for_each(|seen| self.note(seen));
    }

    /// The entries before number `before`, newest first.
    pub(crate) fn newest(&self, before: Option<u64>) -> Vec<Arc<Entry>> {
        let state = self.state.lock();
        let end = before.map_or(state.entries.len(), |before| {
            state.entries.partition_point(|entry| entry.number < before)
        });
        state.entries.range(..end).rev().cloned().collect()
    }

    fn unwritten(&self) -> Vec<Arc<Entry>> {
        let state = self.state.lock();
        let unwritten = |entry: &&Arc<Entry>| entry.number >= state.unwritten;
        state.entries.iter().filter(unwritten).cloned().collect()
    }
}

impl State {
    fn push(&mut self, entry: Entry) {
        self.next = entry.number + 1;
        self.bytes += entry.size();
        self.entries.push_back(Arc::new(entry));
        while self.entries.len() > MOST || self.bytes > MOST_BYTES {
            let Some(oldest) = self.entries.pop_front() else {
                return;
            };
            self.bytes -= oldest.size();
        }
    }
}

/// Writes the entries to disk.
#[derive(Debug)]
pub(crate) struct HistoryTask {
    history: Arc<History>,
    file: HistoryFile,
    /// Held as long as the task is.
    _folder: Folder,
}

impl HistoryTask {
    /// The history that a folder keeps, and what goes on keeping it.
    pub(crate) fn open(folder: Folder) -> Result<(Arc<History>, HistoryTask), OpenError> {
        let path: &Path = folder.path();
        let (file, kept) = HistoryFile::open(path).map_err(|source| OpenError::Io {
            path: path.to_owned(),
            source,
        })?;
        let history = History::default();
        let mut state = history.state.lock();
        kept.into_iter().for_each(|entry| state.push(entry));
        state.unwritten = state.next;
        drop(state);
        let history = Arc::new(history);
        let task = HistoryTask {
            history: Arc::clone(&history),
            file,
            _folder: folder,
        };
        Ok((history, task))
    }

    /// Runs until `stop`; what was noted by then is written first.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        loop {
            tokio::select! {
                () = self.history.written.notified() => {}
                () = stop.cancelled() => break,
            }
            while !self.write().await {
                if stop
                    .run_until_cancelled(tokio::time::sleep(AGAIN_AFTER))
                    .await
                    .is_none()
                {
                    break;
                }
            }
        }
        self.write().await;
    }

    /// Writes what is not written yet; says whether that worked.
    async fn write(&mut self) -> bool {
        let entries = self.history.unwritten();
        let (Some(first), Some(last)) = (entries.first(), entries.last()) else {
            return true;
        };
        let next = last.number + 1;
        let missing = first.number - self.history.state.lock().unwritten;
        if missing > 0 {
            tracing::warn!(
                changes = missing,
                "changes of the fleet are missing in the history on disk: they came faster than it \
                 could be written"
            );
        }
        let mut file = self.file.clone();
        let written = tokio::task::spawn_blocking(move || {
            let written = file.write(&entries);
            (file, written)
        });
        let Ok((file, written)) = written.await else {
            return false;
        };
        self.file = file;
        match written {
            Ok(()) => {
                self.history.state.lock().unwritten = next;
                true
            }
            Err(error) => {
                tracing::error!(folder = %self.file.folder().display(), %error,
                    "the history of changes cannot be written; it is tried again");
                false
            }
        }
    }
}

#[cfg(test)]
mod tests;
