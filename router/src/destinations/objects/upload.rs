//! Complete staged files become objects, one file after the other, several objects at once.
//!
//! An object's key follows from the path of its events and the staged file's identity, its bytes from
//! the lines: so whatever ends an upload, the next one writes the same object again. A file that has
//! become objects is emptied, which is the note that it has; empty ones are deleted once there is a newer
//! one (see [`crate::destinations::lines`]).

use std::cell::Cell;
use std::fs::OpenOptions;
use std::io;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use object_store::path::Path as Key;
use object_store::{MultipartUpload, ObjectStoreExt as _, PutPayload};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::form::{Body, Form};
use super::forms::Forms;
use super::index::{self, Lines, Object};
use super::sealed::Sealed;
use super::store::Store;
use super::{EXTENSION, Plan};
use crate::backoff::{Backoff, Jitter};
use crate::destinations::lines;
use crate::destinations::rotation::Numbered;

/// Bytes of a part: the least that S3 takes, and the same for each, as R2 wants it.
pub(super) const PART: usize = 5 << 20;
/// An upload that is under way at the end has this long.
const GRACE: Duration = Duration::from_secs(3);

/// Makes objects of what is staged.
pub(super) struct Uploader {
    pub(super) store: Store,
    pub(super) forms: Forms,
    pub(super) folder: PathBuf,
    /// What the names of objects begin with: the destination and the stage's id.
    pub(super) name: String,
    pub(super) sealed: Arc<Sealed>,
    pub(super) plan: Plan,
    /// Objects at once.
    pub(super) lanes: usize,
    /// Bytes of objects in hand.
    pub(super) in_hand: Cell<usize>,
}

/// The destination came to its end.
struct Ended;

impl Uploader {
    /// Runs until the destination ends. Must run on a `LocalSet`.
    pub(super) async fn run(self: Rc<Uploader>) {
        let ending = self.plan.ending.clone();
        loop {
            let uploading = self.everything();
            let done = tokio::select! {
                done = uploading => done,
                () = late(&ending) => return,
            };
            if done.is_err() {
                return;
            }
            tokio::select! {
                () = self.sealed.more() => {}
                () = ending.cancelled() => return,
            }
        }
    }

    /// Makes objects of all complete files.
    async fn everything(self: &Rc<Uploader>) -> Result<(), Ended> {
        let mut backoff = self.backoff();
        loop {
            match self.pass().await {
                Ok(true) => {}
                Ok(false) => return Ok(()),
                Err(Failure::Ended) => return Err(Ended),
                Err(Failure::Disk(error)) => {
                    let reason = format!("{}: {error}", self.folder.display());
                    self.failed(reason, &mut backoff, None).await?;
                }
            }
        }
    }

    /// Makes objects of the oldest file, and tidies up; false if there was none.
    async fn pass(self: &Rc<Uploader>) -> Result<bool, Failure> {
        let files = lines::rotated(&self.folder, EXTENSION)?;
        if let Some((_, before)) = files.split_last() {
            for file in before.iter().filter(|file| file.bytes == 0) {
                std::fs::remove_file(&file.path)?;
            }
        }
        let Some(file) = files.into_iter().find(|file| file.bytes > 0) else {
            return Ok(false);
        };
        self.file(&file).await?;
        let emptied = OpenOptions::new().write(true).open(&file.path)?;
        emptied.set_len(0)?;
        emptied.sync_all()?;
        self.sealed.uploaded(file.bytes);
        self.plan.metrics.staged.set(self.sealed.shown());
        Ok(true)
    }

    async fn file(self: &Rc<Uploader>, file: &Numbered) -> Result<(), Failure> {
        let mut objects = index::read(&file.path)?.into_iter();
        let mut flying = JoinSet::new();
        loop {
            while flying.len() < self.lanes
                && let Some(object) = objects.next()
            {
                let (uploader, file) = (Rc::clone(self), file.clone());
                flying.spawn_local(async move { uploader.object(&file, &object).await });
            }
            match flying.join_next().await {
                None => return Ok(()),
                Some(Ok(Ok(()))) => {}
                Some(Ok(Err(Ended))) => return Err(Failure::Ended),
                Some(Err(panic)) => return Err(io::Error::other(panic).into()),
            }
        }
    }

    /// Makes one object, as often as it takes.
    async fn object(&self, file: &Numbered, object: &Object) -> Result<(), Ended> {
        let mut backoff = self.backoff();
        loop {
            self.plan.metrics.requests.inc();
            let hand = Hand::new(self);
            let reason = match self.attempt(file, object, &hand).await {
                Ok(bytes) => {
                    self.plan.metrics.requests_done.inc();
                    self.plan.books.bytes.inc_by(bytes);
                    self.plan.health.ready();
                    return Ok(());
                }
                Err(Wrong::Disk(error)) => (format!("{}: {error}", file.path.display()), None),
                Err(Wrong::Store(error)) => (explain(&error), self.store.failed(&error)),
            };
            drop(hand);
            self.failed(reason.0, &mut backoff, reason.1).await?;
        }
    }

    async fn attempt(
        &self,
        file: &Numbered,
        object: &Object,
        hand: &Hand<'_>,
    ) -> Result<u64, Wrong> {
        let no_form = || io::Error::other("no form is known");
        let form = self.forms.of(file.number).ok_or_else(no_form)?;
        let key = self.key(form, file.number, object)?;
        let mut lines = Lines::open(&file.path, object)?;
        let mut body = form.begin()?;
        let Some(first) = next_part(&mut lines, &mut body, hand)? else {
            let whole = body.end()?;
            let bytes = whole.len() as u64;
            hand.holds(whole.len());
            self.store.objects().put(&key, whole.into()).await?;
            return Ok(bytes);
        };
        let mut upload = self.store.objects().put_multipart(&key).await?;
        match self.parts(&mut *upload, first, lines, body, hand).await {
            Ok(bytes) => Ok(bytes),
            Err(wrong) => {
                // What is left of it costs room in the store; its own rules clean up if this fails.
                if let Err(error) = upload.abort().await {
                    tracing::debug!(%key, %error, "an upload could not be taken back");
                }
                Err(wrong)
            }
        }
    }

    async fn parts(
        &self,
        upload: &mut dyn MultipartUpload,
        first: Vec<u8>,
        mut lines: Lines<'_>,
        mut body: Body,
        hand: &Hand<'_>,
    ) -> Result<u64, Wrong> {
        let (mut bytes, mut part) = (0, Some(first));
        while let Some(piece) = part {
            bytes += piece.len() as u64;
            upload.put_part(PutPayload::from(piece)).await?;
            part = next_part(&mut lines, &mut body, hand)?;
        }
        let rest = body.end()?;
        bytes += rest.len() as u64;
        for piece in rest.chunks(PART) {
            upload.put_part(PutPayload::from(piece.to_vec())).await?;
        }
        upload.complete().await?;
        Ok(bytes)
    }

    fn key(&self, form: Form, number: u64, object: &Object) -> Result<Key, Wrong> {
        let (prefix, extension) = (&self.store.prefix, form.extension());
        let text = format!(
            "{prefix}{}{}-{number:08}.{extension}",
            object.path, self.name
        );
        Key::parse(&text).map_err(|error| Wrong::Store(error.into()))
    }

    fn backoff(&self) -> Backoff {
        let retry = &self.plan.delivery.retry;
        let [from, max] = [retry.from_ms, retry.max_ms].map(Duration::from_millis);
        Backoff::new(from, max, Jitter::from_system())
    }

    /// Notes a failure and waits.
    async fn failed(
        &self,
        reason: String,
        backoff: &mut Backoff,
        asked: Option<Duration>,
    ) -> Result<(), Ended> {
        self.plan.books.retries.inc();
        let destination = self.plan.health.name();
        tracing::warn!(destination, reason, "an upload is tried again");
        self.plan.health.not_ready(reason);
        tokio::select! {
            () = tokio::time::sleep(backoff.failed(asked)) => Ok(()),
            () = self.plan.ending.cancelled() => Err(Ended),
        }
    }
}

async fn late(ending: &CancellationToken) {
    ending.cancelled().await;
    tokio::time::sleep(GRACE).await;
}

/// Reads on until there is a whole part; nothing when the lines are at their end.
fn next_part(
    lines: &mut Lines<'_>,
    body: &mut Body,
    hand: &Hand<'_>,
) -> io::Result<Option<Vec<u8>>> {
    loop {
        let ready = body.ready();
        if ready.len() >= PART {
            hand.holds(ready.len());
            let rest = ready.split_off(PART);
            return Ok(Some(std::mem::replace(ready, rest)));
        }
        match lines.next()? {
            Some(line) => body.push(line)?,
            None => return Ok(None),
        }
    }
}

/// What one upload has in memory, shown as long as it has.
struct Hand<'a> {
    uploader: &'a Uploader,
    bytes: Cell<usize>,
}

impl<'a> Hand<'a> {
    fn new(uploader: &'a Uploader) -> Hand<'a> {
        Hand {
            uploader,
            bytes: Cell::new(0),
        }
    }

    fn holds(&self, bytes: usize) {
        let all = &self.uploader.in_hand;
        all.set(all.get() + bytes - self.bytes.replace(bytes));
        let shown = i64::try_from(all.get()).unwrap_or(i64::MAX);
        self.uploader.plan.metrics.memory.set(shown);
    }
}

impl Drop for Hand<'_> {
    fn drop(&mut self) {
        self.holds(0);
    }
}

/// An error with its causes.
fn explain(error: &object_store::Error) -> String {
    use std::error::Error as _;
    let (mut text, mut cause) = (error.to_string(), error.source());
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        cause = error.source();
    }
    let text: String = text.chars().take(500).collect();
    text.replace(|c: char| c.is_control(), " ")
}

/// Why a file has not become objects.
enum Failure {
    Disk(io::Error),
    Ended,
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Failure {
        Failure::Disk(error)
    }
}

/// Why an object was not made.
enum Wrong {
    Disk(io::Error),
    Store(object_store::Error),
}

impl From<io::Error> for Wrong {
    fn from(error: io::Error) -> Wrong {
        Wrong::Disk(error)
    }
}

impl From<object_store::Error> for Wrong {
    fn from(error: object_store::Error) -> Wrong {
        Wrong::Store(error)
    }
}
