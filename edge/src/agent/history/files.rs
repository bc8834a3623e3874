//! History of log files: each file's rotated forms from the oldest on, then the file itself. What a
//! line says of its time counts; a line that says nothing happened with the last one that did, else
//! when its file was last written. Rotated files that gzip has compressed are read as well.

use std::{
    fs::File,
    io::{self, Read},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use flate2::read::MultiGzDecoder;
use thinglog_schemas::{Severity, name};
use tokio::sync::mpsc;

use super::{Block, Covers, History, Past, Reading, Span};
use crate::{
    agent::{
        SourceError,
        entries::{Entries, TextOptions},
        file::{FilesOptions, Sibling, siblings},
        lines::Line,
        recognise::Recogniser,
    },
    clock,
};

/// Bytes read at a time.
const CHUNK: usize = 64 << 10;

/// The files of one configured source.
#[derive(Clone, Debug)]
pub struct FileHistory {
    options: FilesOptions,
}

impl FileHistory {
    /// Of what these options follow.
    pub fn new(options: FilesOptions) -> FileHistory {
        FileHistory { options }
    }
}

impl History for FileHistory {
    fn sources(&self) -> Vec<String> {
        let found = self.options.found().unwrap_or_default().into_iter();
        let mut names: Vec<String> = found
            .map(|(_, source)| name::encode(&source).into_owned())
            .collect();
        names.sort();
        names.dedup();
        names
    }

    fn covers(&self, source: &str) -> Covers {
        match self.sources().iter().any(|own| own == source) {
            true => Covers::Yes,
            false => Covers::No,
        }
    }

    fn read(&self, span: Span, out: mpsc::Sender<Block>) -> Reading<'_> {
        Box::pin(async move {
            let options = self.options.clone();
            let read = tokio::task::spawn_blocking(move || read_all(&options, &span, &out));
            read.await
                .map_err(|error| SourceError::Ended(error.to_string()))?
        })
    }
}

/// Reads each file with its rotated forms, oldest first. Blocking.
fn read_all(
    options: &FilesOptions,
    span: &Span,
    out: &mpsc::Sender<Block>,
) -> Result<(), SourceError> {
    let text = options.text();
    let mut missing = None;
    for (path, source) in options.found()? {
        if !span.wants(&source) {
            continue;
        }
        for file in rotated(&path).into_iter().chain([path]) {
            match read_file(&file, &source, &text, span, out) {
                Ok(true) => {}
                Ok(false) => return Ok(()),
                // Rotated away meanwhile, or not written yet.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => missing = missing.or(Some((file, error))),
            }
        }
    }
    match missing {
        None => Ok(()),
        Some((file, source)) => Err(SourceError::Io {
            what: file.display().to_string(),
            source,
        }),
    }
}

/// The rotated forms of a file that can be read, oldest first.
fn rotated(path: &Path) -> Vec<PathBuf> {
    let found = siblings(path);
    let mut all = found.readable;
    for compressed in found.compressed {
        let plain = compressed.path.with_extension("");
        // While it is being compressed, both are there.
        if is_gzip(&compressed.path) && !all.iter().any(|other| other.path == plain) {
            all.push(compressed);
        }
    }
    all.sort_by(Sibling::age);
    all.into_iter().map(|sibling| sibling.path).collect()
}

fn is_gzip(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "gz")
}

/// False when nobody listens any more.
fn read_file(
    path: &Path,
    source: &str,
    text: &TextOptions,
    span: &Span,
    out: &mpsc::Sender<Block>,
) -> io::Result<bool> {
    // Without waiting: opening a named pipe would, for its writer.
    let no_wait = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    let file = File::options()
        .read(true)
        .custom_flags(no_wait)
        .open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "not a regular file",
        ));
    }
    let written = nanos(metadata.modified()?);
    if written < span.from {
        return Ok(true);
    }
    // What is appended from here on belongs to a later request.
    let file = file.take(metadata.len());
    let reader = FileReader::new(source, text, written);
    match is_gzip(path) {
        true => read_lines(MultiGzDecoder::new(file), reader, text, out),
        false => read_lines(file, reader, text, out),
    }
}

fn read_lines(
    mut file: impl Read,
    mut reader: FileReader,
    text: &TextOptions,
    out: &mpsc::Sender<Block>,
) -> io::Result<bool> {
    let mut entries = Entries::new(text);
    let mut buffer = vec![0; CHUNK];
    loop {
        let read = file.read(&mut buffer)?;
        match read {
            0 => entries.finish(clock::mono(), |line, _| reader.line(line)),
            _ => entries.feed(&buffer[..read], clock::mono(), |line, _| reader.line(line)),
        }
        if out.blocking_send(reader.take()).is_err() {
            return Ok(false);
        }
        if read == 0 {
            return Ok(true);
        }
    }
}

/// Lines of one file to records that have a time.
struct FileReader {
    recogniser: Recogniser,
    /// When the last line happened that said so, else when the file was written.
    time: u64,
    block: Block,
}

impl FileReader {
    fn new(source: &str, text: &TextOptions, written: u64) -> FileReader {
        let recogniser = Recogniser::new(source, Severity::INFO);
        FileReader {
            recogniser: recogniser.reading(text.of_lines()),
            time: written,
            block: Block::default(),
        }
    }

    fn line(&mut self, line: Line<'_>) {
        let mut record = self.recogniser.record(line);
        let estimated = record.time.is_none();
        self.time = *record.time.get_or_insert(self.time);
        self.block.lines += 1;
        self.block.records.push(Past { record, estimated });
    }

    fn take(&mut self) -> Block {
        std::mem::take(&mut self.block)
    }
}

fn nanos(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}
