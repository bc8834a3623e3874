//! Object stores: S3 and what speaks as it does, Google Cloud Storage, Azure Blob Storage, a folder.
//!
//! An object gathers far more than memory allows, so events are staged first:
//!
//! ```text
//! <data>/router/<name>/stage/events.staged            <path>\t<JSON object>, a line an event
//! <data>/router/<name>/stage/events-<number>.staged   complete; empty: became objects
//! <data>/router/<name>/stage/id                       16 hex digits, made once
//! <data>/router/<name>/stage/forms                    which files become which format
//! <prefix>/<path><name>-<id>-<number>.<extension>     an object
//! ```
//!
//! The staged file is written and recovered as that of the file destination ([`super::lines`]): synced,
//! then noted in the state, then acknowledged to the broker. With bytes, events or age of `batch` it is
//! complete, and [`upload`] makes an object of each path in it, in the background.
//!
//! **Repeats.** A staged file holds every event once, and object keys and bytes follow from it alone. So
//! after a crash the same objects are written again under the same keys: each event stands in the store
//! once. The id keeps a stage that was lost and begins anew from overwriting what another one wrote.
//!
//! **Partitions.** The path is decided when an event is staged, by when it was received and the groups of
//! its device then. A device of several groups counts to the first by name. A file with more than a
//! thousand paths is complete at once.
//!
//! **Formats** are NDJSON or Parquet of events, or payloads as they came ([`raw`]).
//!
//! **Failures** are tried again for ever, with the core's waiting times, whatever they are; no event is
//! ever refused. Once `stage_bytes` of complete files wait nothing more is taken: the broker's journal is
//! the buffer then. At the end an upload has three seconds; what is staged is uploaded after the start.

mod form;
mod forms;
mod index;
mod parquet;
pub(crate) mod raw;
mod sealed;
mod store;
mod upload;

use std::cell::Cell;
use std::collections::HashSet;
use std::io;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use thinglog_schemas::{hash, json};
use tokio_util::sync::CancellationToken;

use super::layout::{Layout, Subject};
use super::lines::{self, LineFile};
use crate::config::{BatchConfig, Delivery, ObjectStoreConfig};
use crate::deliver::archive::Archive;
use crate::deliver::batch::Batch;
use crate::deliver::{Destination, Outcome, Position, Promise};
use crate::folder::{self, create_durably};
use crate::health::Part;
use crate::levels::facts::FactsCache;
use crate::mqtt::Delivery as Payload;
use crate::telemetry::{Books, RemoteMetrics};
use form::Form;
use forms::Forms;
use sealed::Sealed;
pub(crate) use store::Store;
use upload::Uploader;

const EXTENSION: &str = "staged";
/// Paths from which a file is complete.
const MOST_PATHS: usize = 1000;
/// Memory of all uploads unless configured.
const MEMORY: usize = 96 << 20;
/// A line is hardly shorter.
const LINE: usize = 100;

/// What a destination is made from, its configuration apart.
pub(crate) struct Plan {
    pub(crate) name: String,
    pub(crate) delivery: Delivery,
    pub(crate) books: Books,
    pub(crate) metrics: RemoteMetrics,
    pub(crate) health: Part,
    /// Cancelled when the destination has to come to an end.
    pub(crate) ending: CancellationToken,
}

/// When a staged file is complete.
#[derive(Clone, Copy, Debug)]
struct Complete {
    bytes: u64,
    events: u64,
    age: Duration,
}

impl Complete {
    fn new(batch: &BatchConfig) -> Complete {
        Complete {
            bytes: batch.max_bytes.unwrap_or(64 << 20) as u64,
            events: batch.max_events.unwrap_or(1_000_000) as u64,
            age: Duration::from_millis(batch.max_age_ms.unwrap_or(300_000)),
        }
    }
}

/// Stages events, and has what is complete uploaded.
pub(crate) struct Objects {
    lines: LineFile,
    layout: Layout,
    facts: FactsCache,
    complete: Complete,
    stage_bytes: u64,
    sealed: Arc<Sealed>,
    metrics: RemoteMetrics,
    /// Of the file that is being written: events, hashes of paths, since when it has any.
    events: u64,
    paths: HashSet<u64>,
    since: Option<Instant>,
    uploader: Option<JoinHandle<()>>,
    ending: CancellationToken,
}

impl Objects {
    /// Recovers the stage in `place` to `committed` and starts to upload what is complete; what was
    /// staged before is. The error names key or file.
    pub(crate) fn open(
        place: &Path,
        config: &ObjectStoreConfig,
        store: Store,
        committed: Option<Position>,
        facts: FactsCache,
        plan: Plan,
    ) -> io::Result<Objects> {
        store.prepare(config)?;
        let stage = place.join("stage");
        create_durably(&stage)?;
        let name = format!("{}-{}", plan.name, folder::id(&stage)?);
        let mut lines = LineFile::open(&stage, EXTENSION, committed)?;
        if lines.end().length > 0 {
            lines.rotate()?;
        }
        let sealed = Arc::new(Sealed::default());
        let (waiting, next) = (lines::rotated(&stage, EXTENSION)?, lines.end().number);
        for file in &waiting {
            sealed.add(file.bytes);
        }
        let oldest = waiting.iter().find(|file| file.bytes > 0);
        let oldest = oldest.map_or(next, |file| file.number);
        let forms = Forms::open(&stage, Form::new(config), oldest, next)?;
        let complete = Complete::new(&plan.delivery.batch);
        let lanes = lanes(&plan.delivery, complete, forms.memory())?;
        let (ending, metrics) = (plan.ending.child_token(), plan.metrics.clone());
        metrics.staged.set(sealed.shown());
        let layout = Layout::parse(&config.path).map_err(io::Error::other)?;
        let plan = Plan {
            ending: ending.clone(),
            ..plan
        };
        let make = {
            let sealed = Arc::clone(&sealed);
            move || Uploader {
                store,
                forms,
                folder: stage,
                name,
                sealed,
                plan,
                lanes,
                in_hand: Cell::new(0),
            }
        };
        Ok(Objects {
            lines,
            layout,
            facts,
            complete,
            stage_bytes: config.stage_bytes,
            sealed,
            metrics,
            events: 0,
            paths: HashSet::new(),
            since: None,
            uploader: Some(start(make)?),
            ending,
        })
    }

    fn is_complete(&self, now: Instant) -> bool {
        let length = self.lines.end().length;
        length > 0
            && (length >= self.complete.bytes
                || self.events >= self.complete.events
                || self.paths.len() > MOST_PATHS
                || self.due().is_some_and(|due| due <= now))
    }
}

/// Whether what it may take of memory is enough; the error says what is needed.
pub(crate) fn check_memory(config: &ObjectStoreConfig, delivery: &Delivery) -> io::Result<()> {
    let complete = Complete::new(&delivery.batch);
    lanes(delivery, complete, Form::new(config).memory()).map(drop)
}

/// Uploads that memory allows at once.
fn lanes(delivery: &Delivery, complete: Complete, form: usize) -> io::Result<usize> {
    let most = delivery.memory_bytes.unwrap_or(MEMORY);
    let lines = complete.events.min(complete.bytes / LINE as u64);
    let index = usize::try_from(lines).map_or(usize::MAX, |lines| {
        lines.saturating_mul(index::BYTES_A_LINE)
    });
    let upload = upload::PART + form;
    match (most.saturating_sub(index) / upload).min(delivery.concurrency) {
        0 => Err(io::Error::other(format!(
            "memory_bytes = {most} is too little: an upload needs {upload}, and the index of a file of \
             {lines} lines {index}; give more, or lower batch.max_events"
        ))),
        lanes => Ok(lanes),
    }
}

/// Starts the thread that uploads.
fn start(make: impl FnOnce() -> Uploader + Send + 'static) -> io::Result<JoinHandle<()>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    std::thread::Builder::new()
        .name("upload".into())
        .spawn(move || {
            let local = tokio::task::LocalSet::new();
            local.block_on(&runtime, Rc::new(make()).run());
        })
}

impl Objects {
    /// Stages so many lines: what the path of each is made for, and the line itself.
    fn stage<'a, T: 'a>(
        &mut self,
        count: usize,
        items: impl Iterator<Item = &'a T>,
        subject: impl Fn(&'a T) -> Subject<'a>,
        line: impl Fn(&T, &mut Vec<u8>),
    ) -> Outcome {
        let waiting = self.sealed.bytes();
        if waiting >= self.stage_bytes {
            let most = self.stage_bytes;
            return Outcome::Retry {
                after: None,
                reason: format!(
                    "{waiting} bytes are staged and wait for their upload: stage_bytes = {most} is used up"
                ),
            };
        }
        let (layout, facts, paths) = (&self.layout, &mut self.facts, &mut self.paths);
        let asks = layout.asks_for_groups();
        let written = self.lines.write(items, |item, out| {
            let (start, subject) = (out.len(), subject(item));
            let of_device = match subject.device {
                Some(device) if asks => facts.of(device),
                _ => facts.none(),
            };
            layout.write(&subject, &of_device.groups, out);
            paths.insert(hash::fnv1a(&out[start..]));
            out.push(b'\t');
            line(item, out);
        });
        match written {
            Ok(_) => {
                self.events += count as u64;
                self.since.get_or_insert_with(Instant::now);
                Outcome::Delivered
            }
            Err(error) => Outcome::Retry {
                after: None,
                reason: format!("{}: {error}", self.lines.path().display()),
            },
        }
    }
}

impl Archive for Objects {
    fn keep(&mut self, payloads: &[Payload]) -> Outcome {
        self.stage(payloads.len(), payloads.iter(), raw::subject, raw::write)
    }
}

impl Destination for Objects {
    fn deliver(&mut self, batch: &Batch) -> Outcome {
        self.stage(batch.len(), batch.events(), Subject::from, json::write)
    }

    fn commit(&mut self) -> Promise {
        let is_gone = self.uploader.as_ref().is_none_or(JoinHandle::is_finished);
        if is_gone && !self.ending.is_cancelled() {
            return Promise {
                sync: Some(Box::new(|| {
                    Err(io::Error::other("the uploading thread is gone"))
                })),
                ..self.lines.commit()
            };
        }
        Promise {
            barrier: self.is_complete(Instant::now()),
            ..self.lines.commit()
        }
    }

    fn committed(&mut self) -> io::Result<()> {
        self.sealed.add(self.lines.end().length);
        self.lines.rotate()?;
        self.metrics.staged.set(self.sealed.shown());
        self.sealed.tell();
        self.events = 0;
        self.paths.clear();
        self.since = None;
        Ok(())
    }

    fn due(&self) -> Option<Instant> {
        self.since.map(|since| since + self.complete.age)
    }
}

/// The uploads end with the destination: nobody may open the stage again while one goes on.
impl Drop for Objects {
    fn drop(&mut self) {
        self.ending.cancel();
        if let Some(thread) = self.uploader.take() {
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
#[path = "objects_tests.rs"]
mod tests;
