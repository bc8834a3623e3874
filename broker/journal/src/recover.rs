//! Opening: list the directory, plan, carry the plan out. Afterwards everything that will be served
//! is on disk and the last segment is ready for writing.

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::format::{
    self, BadHeader, IDENTITY, IDENTITY_LEN, IDENTITY_TEMP, Name, RECORD_HEADER, SEGMENT_HEADER,
};
use crate::fs::{Entry, Fs, FsFile, Lock, read_block, write_all};
use crate::index::{Index, Marks};
use crate::log::{Dead, Log, Segment};
use crate::plan::{Found, Plan, plan};
use crate::scan::{Survey, survey};
use crate::{OpenError, Recovery};

/// A sidecar of more bytes than this is not believed: it is that of a segment of 100 GiB.
const MAX_INDEX: u64 = 16 << 20;

/// An opened directory.
pub(crate) struct Opened {
    pub(crate) lock: Lock,
    pub(crate) id: u64,
    pub(crate) log: Log,
    pub(crate) active: Active,
    pub(crate) recovery: Recovery,
}

/// The segment being written to.
pub(crate) struct Active {
    pub(crate) file: Arc<dyn FsFile>,
    /// Bytes written to it, synced or not.
    pub(crate) len: u64,
    /// Nothing more may be written to it.
    pub(crate) sealed: bool,
}

/// Opens or creates the journal in `dir`.
pub(crate) fn open(fs: &dyn Fs, dir: &Path, tail_bytes: usize) -> Result<Opened, OpenError> {
    fs.create_dir(dir).map_err(at(dir))?;
    let lock = fs.lock(dir).map_err(|error| match error.kind() {
        io::ErrorKind::WouldBlock => OpenError::Locked {
            path: dir.to_owned(),
        },
        _ => at(dir)(error),
    })?;
    let plan = plan(&fs.list(dir).map_err(at(dir))?);
    for name in &plan.unknown {
        tracing::warn!(dir = %dir.display(), name, "not a file of the journal; left alone");
    }
    for name in &plan.remove {
        let path = dir.join(name);
        fs.remove(&path).map_err(at(&path))?;
    }
    if !plan.replaced.is_empty() {
        // What replaced them must not be less durable than their end.
        fs.sync_dir(dir).map_err(at(dir))?;
        for name in &plan.replaced {
            let path = dir.join(name);
            fs.remove(&path).map_err(at(&path))?;
        }
    }
    let id = identify(fs, dir, &plan)?;
    let mut opening = Opening {
        fs,
        dir,
        id,
        key: format::key(id),
        report: Recovery::default(),
        bad: plan.bad,
    };
    let loaded = opening.load(&plan.segments)?;
    opening.finish(loaded, plan.unfinished, lock, tail_bytes)
}

fn at(path: &Path) -> impl Fn(io::Error) -> OpenError + '_ {
    move |source| OpenError::Io {
        path: path.to_owned(),
        source,
    }
}

fn damaged(path: PathBuf, reason: impl Into<String>) -> OpenError {
    OpenError::Damaged {
        path,
        reason: reason.into(),
    }
}

fn newer(path: PathBuf, version: u32) -> OpenError {
    damaged(
        path,
        format!("layout version {version} is newer than this program; run the newer one"),
    )
}

/// The journal's id: read, or made for an empty directory, or taken from the segments when the
/// identity file is lost.
fn identify(fs: &dyn Fs, dir: &Path, plan: &Plan) -> Result<u64, OpenError> {
    let path = dir.join(IDENTITY);
    if plan.identity {
        let file = fs.open(&path, false).map_err(at(&path))?;
        let bytes = read_block(&*file, 0, IDENTITY_LEN + 1).map_err(at(&path))?;
        match format::decode_identity(&bytes) {
            Ok(id) => return Ok(id),
            Err(BadHeader::Version(version)) => return Err(newer(path, version)),
            Err(_) => {}
        }
    }
    let id = match id_of_segments(fs, dir, &plan.segments)? {
        Some(id) => {
            tracing::warn!(path = %path.display(), "identity file lost or damaged; made again from the segments");
            id
        }
        None if plan.identity || !plan.segments.is_empty() => {
            return Err(damaged(
                path,
                "the identity file is lost or damaged and no segment tells the id; \
                 restore the file, or move the directory away to start empty",
            ));
        }
        None => {
            let mut bytes = [0; 8];
            getrandom::fill(&mut bytes)
                .map_err(|error| at(&path)(io::Error::other(error.to_string())))?;
            u64::from_le_bytes(bytes)
        }
    };
    make_identity(fs, dir, id).map_err(at(&path))?;
    Ok(id)
}

fn id_of_segments(fs: &dyn Fs, dir: &Path, segments: &[Found]) -> Result<Option<u64>, OpenError> {
    for found in segments {
        let path = dir.join(found.name.segment());
        let file = fs.open(&path, false).map_err(at(&path))?;
        let header = read_block(&*file, 0, SEGMENT_HEADER).map_err(at(&path))?;
        if let Ok((id, _)) = format::decode_segment_header(&header) {
            return Ok(Some(id));
        }
    }
    Ok(None)
}

fn make_identity(fs: &dyn Fs, dir: &Path, id: u64) -> io::Result<()> {
    let temp = dir.join(IDENTITY_TEMP);
    let file = fs.create(&temp)?;
    write_all(&*file, &format::encode_identity(id), 0)?;
    file.sync()?;
    fs.rename(&temp, &dir.join(IDENTITY))?;
    fs.sync_dir(dir)
}

/// Makes the segment that starts at `first`, durably, with its header.
///
/// The outer error: nothing is left behind; the inner one: a sync failed.
pub(crate) fn make_segment(
    fs: &dyn Fs,
    dir: &Path,
    id: u64,
    first: u64,
) -> io::Result<Result<Arc<dyn FsFile>, io::Error>> {
    let path = dir.join(Name::plain(first).segment());
    let file = fs.create(&path)?;
    if let Err(error) = write_all(&*file, &format::encode_segment_header(id, first), 0) {
        if let Err(error) = fs.remove(&path) {
            tracing::warn!(path = %path.display(), %error, "an unfinished segment could not be removed");
        }
        return Err(error);
    }
    Ok(file.sync().and_then(|()| fs.sync_dir(dir)).map(|()| file))
}

struct Opening<'a> {
    fs: &'a dyn Fs,
    dir: &'a Path,
    id: u64,
    key: u32,
    report: Recovery,
    bad: Vec<Entry>,
}

/// What loading the segments gave.
#[derive(Default)]
struct Loaded {
    segments: VecDeque<Segment>,
    /// Of the last segment.
    marks: Marks,
    file: Option<Arc<dyn FsFile>>,
    sealed: bool,
    /// No offset below may be given out.
    floor: u64,
}

impl Opening<'_> {
    fn load(&mut self, found: &[Found]) -> Result<Loaded, OpenError> {
        let mut loaded = Loaded::default();
        for (n, segment) in found.iter().enumerate() {
            let following = found.get(n + 1).map(|next| next.name.first);
            self.load_one(*segment, following, &mut loaded)?;
        }
        Ok(loaded)
    }

    fn load_one(
        &mut self,
        mut found: Found,
        following: Option<u64>,
        into: &mut Loaded,
    ) -> Result<(), OpenError> {
        let Name { first, through } = found.name;
        let path = self.dir.join(found.name.segment());
        let last = following.is_none();
        let file = self.fs.open(&path, last).map_err(at(&path))?;
        into.floor = into.floor.max(through.unwrap_or(first));
        let mut known = match found.index {
            Some(len) => read_index(self.fs, self.dir, self.id, found.name, len)
                .map_err(at(&path))?
                .filter(|index| index.bytes == found.len),
            None => None,
        };
        if known.is_none() {
            // After a failed sync in an earlier life the cache may hold what the disk does not.
            file.forget_cache();
            found.len = file.len().map_err(at(&path))?;
        }
        let sound = self.check_header(&path, &*file, found)?;
        known = known.filter(|_| sound);
        let (index, index_bytes) = match known {
            Some(index) => (index, found.index.unwrap_or(0)),
            None => {
                let bound = following.unwrap_or(u64::MAX);
                let survey = survey(&file, self.key, first, bound, found.len).map_err(at(&path))?;
                if !sound && survey.records == 0 {
                    return self.set_aside(&path, found);
                }
                if last && through.is_none() {
                    into.floor = into
                        .floor
                        .max(self.cut_tail(&path, &*file, found, &survey)?);
                }
                let index = self.judge(&path, found, survey, sound, last);
                let written = if last {
                    0
                } else {
                    write_index(self.fs, self.dir, self.id, found.name, &index)
                };
                (index, written)
            }
        };
        self.report.quarantined_records += index.damaged;
        into.floor = into.floor.max(index.end);
        // What replaced others is never added to.
        into.sealed = !sound || through.is_some();
        into.file = last.then(|| file.clone());
        into.segments.push_back(Segment {
            first,
            through,
            version: 0,
            end: index.end,
            bytes: index.bytes,
            index_bytes,
            records: index.records,
            max_time: index.max_time,
            file: last.then(|| Arc::downgrade(&file)),
        });
        into.marks = Marks::new(index.marks);
        Ok(())
    }

    /// Whether the header is intact; an error when it is intact and says that the file is not ours.
    fn check_header(
        &self,
        path: &Path,
        file: &dyn FsFile,
        found: Found,
    ) -> Result<bool, OpenError> {
        let header = read_block(file, 0, SEGMENT_HEADER).map_err(at(path))?;
        let reason = match format::check_segment_header(&header, self.id, found.name.first) {
            Ok(()) => return Ok(true),
            Err(BadHeader::Damaged) => return Ok(false),
            Err(BadHeader::Version(version)) => return Err(newer(path.to_owned(), version)),
            Err(BadHeader::OtherJournal(other)) => format!(
                "belongs to journal {other:016x}, not to {:016x}; move it back where it came from",
                self.id
            ),
            Err(BadHeader::OtherSegment(first)) => {
                format!(
                    "is really {}; give it its name back",
                    Name::plain(first).segment()
                )
            }
        };
        Err(damaged(path.to_owned(), reason))
    }

    /// Puts a segment without one intact record out of the way.
    fn set_aside(&mut self, path: &Path, found: Found) -> Result<(), OpenError> {
        if found.index.is_some() {
            let index = self.dir.join(found.name.index());
            self.fs.remove(&index).map_err(at(&index))?;
        }
        if found.len <= SEGMENT_HEADER as u64 {
            // Its making was interrupted before the header was synced: nothing was ever in it.
            return self.fs.remove(path).map_err(at(path));
        }
        let name = found.name.bad();
        tracing::warn!(path = %path.display(), bytes = found.len, renamed = name,
            "segment without one intact record set aside");
        self.fs
            .rename(path, &self.dir.join(&name))
            .map_err(at(path))?;
        self.report.quarantined_segments += 1;
        self.bad.push(Entry {
            name,
            len: found.len,
        });
        Ok(())
    }

    /// Cuts what follows the last intact record and makes the rest durable. Returns the least offset
    /// that may be given out: what was cut may have been somebody's once, so its offsets are not
    /// given out again.
    fn cut_tail(
        &mut self,
        path: &Path,
        file: &dyn FsFile,
        found: Found,
        survey: &Survey,
    ) -> Result<u64, OpenError> {
        let torn = found.len.saturating_sub(survey.good);
        if torn > 0 {
            tracing::warn!(path = %path.display(), at = survey.good, bytes = torn, "torn tail cut");
            file.truncate(survey.good).map_err(at(path))?;
            self.report.torn_bytes += torn;
        }
        // What a killed process had written but not synced is served from now on.
        file.sync().map_err(at(path))?;
        Ok(survey.end + torn.div_ceil(RECORD_HEADER as u64))
    }

    /// Counts and logs damage; what the segment holds, as an index.
    fn judge(
        &mut self,
        path: &Path,
        found: Found,
        survey: Survey,
        sound: bool,
        last: bool,
    ) -> Index {
        if !sound {
            tracing::warn!(path = %path.display(), records = survey.records,
                "the segment's header is damaged, its records are not: served all the same");
        }
        let broken_end = !last && found.len > survey.good;
        let damaged = survey.damaged + u64::from(!sound) + u64::from(broken_end);
        if damaged > 0 {
            tracing::warn!(path = %path.display(), places = damaged, records = survey.records,
                "damaged places skipped");
        }
        Index {
            first: found.name.first,
            end: found.name.through.unwrap_or(survey.end),
            bytes: if last { survey.good } else { found.len },
            records: survey.records,
            max_time: survey.max_time,
            damaged,
            marks: survey.marks,
        }
    }

    fn finish(
        mut self,
        mut loaded: Loaded,
        unfinished: Vec<Found>,
        lock: Lock,
        tail_bytes: usize,
    ) -> Result<Opened, OpenError> {
        for found in unfinished {
            let path = self.dir.join(found.name.segment());
            self.fs.remove(&path).map_err(at(&path))?;
            self.report.torn_bytes += found.len;
            loaded.floor = loaded.floor.max(found.name.first);
        }
        let file = match (loaded.file, loaded.segments.back()) {
            (Some(file), _) => file,
            (None, Some(last)) => {
                let path = self.dir.join(last.name().segment());
                self.fs.open(&path, true).map_err(at(&path))?
            }
            (None, None) => {
                let path = self.dir.join(Name::plain(loaded.floor).segment());
                let file = make_segment(self.fs, self.dir, self.id, loaded.floor)
                    .and_then(|made| made)
                    .map_err(at(&path))?;
                loaded
                    .segments
                    .push_back(Segment::empty(loaded.floor, &file));
                file
            }
        };
        self.fs.sync_dir(self.dir).map_err(at(self.dir))?;
        let mut log = Log::new(loaded.segments, loaded.marks, loaded.floor, tail_bytes);
        log.dead.extend(self.bad.into_iter().map(|bad| Dead {
            name: bad.name,
            bytes: bad.len,
            evidence: true,
        }));
        log.quarantined = self.report.quarantined_records;
        self.report.first = log.first();
        self.report.next = log.settled;
        let len = log.segments.back().map_or(0, |last| last.bytes);
        let active = Active {
            file,
            len,
            sealed: loaded.sealed,
        };
        Ok(Opened {
            lock,
            id: self.id,
            log,
            active,
            recovery: self.report,
        })
    }
}

/// The sidecar of a segment, which has `len` bytes; `None` when it is damaged.
pub(crate) fn read_index(
    fs: &dyn Fs,
    dir: &Path,
    id: u64,
    name: Name,
    len: u64,
) -> io::Result<Option<Index>> {
    if len > MAX_INDEX {
        return Ok(None);
    }
    let file = fs.open(&dir.join(name.index()), false)?;
    let bytes = read_block(&*file, 0, usize::try_from(len).unwrap_or(0))?;
    Ok(Index::decode(&bytes, id, name.first))
}

/// Writes the sidecar of a closed segment; returns its length, 0 when that failed: it is only there
/// for speed.
pub(crate) fn write_index(fs: &dyn Fs, dir: &Path, id: u64, name: Name, index: &Index) -> u64 {
    let path = dir.join(name.index());
    let bytes = index.encode(id);
    let written = fs.create(&path).and_then(|file| {
        write_all(&*file, &bytes, 0)?;
        file.sync()
    });
    match written {
        Ok(()) => bytes.len() as u64,
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "no index: the next opening scans the segment");
            if let Err(error) = fs.remove(&path) {
                tracing::debug!(path = %path.display(), %error, "the unfinished index stays");
            }
            0
        }
    }
}
