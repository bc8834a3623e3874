//! Source: the kernel's log, read from /dev/kmsg. The number of the last record is remembered
//! together with the boot it belongs to, so that a restart goes on where the last run ended; what the
//! kernel overwrote before it could be read is counted and becomes an event of its own.
//!
//! A record (Documentation/ABI/testing/dev-kmsg):
//! `priority,sequence,microseconds,flags[,caller=..];message`, then lines ` KEY=value`. Bytes that are
//! not printable ASCII, and the backslash, are written `\xNN`. The time counts from the start of
//! the machine, perhaps without the time it slept; it is turned into time of day at the moment a
//! record comes in.

use std::{io, path::PathBuf, sync::Arc, time::Duration};

use rustix::{
    fs::{Mode, OFlags, SeekFrom},
    time::ClockId,
};
use serde::{Deserialize, Serialize};
use thinglog_schemas::{Severity, hash::fnv1a, name};
use tokio::{net::unix::pipe, sync::mpsc};
use tokio_util::sync::CancellationToken;

use super::{
    SourceError,
    history::{Block, Covers, History, Past, Reading, Span},
    keeper::Keeper,
    recognise::syslog::facility,
    sink::Sink,
    state::StateDir,
};
use crate::{Record, clock};

/// What to carry of the kernel's log.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct KmsgOptions {
    /// The device.
    pub path: PathBuf,
    /// The source of the events.
    pub source: String,
    /// When nothing of this boot is remembered: begin with what the kernel still has (true), or with
    /// what it says next.
    pub backlog: bool,
    /// Where to remember how far it was read; `None`: nowhere.
    #[serde(skip)]
    pub state: Option<StateDir>,
    /// How long events may take to become durable at the end, so that the place can be remembered.
    #[serde(skip)]
    pub drain: Duration,
}

impl Default for KmsgOptions {
    fn default() -> KmsgOptions {
        KmsgOptions {
            path: "/dev/kmsg".into(),
            source: "kernel".into(),
            backlog: true,
            state: None,
            drain: Duration::from_secs(5),
        }
    }
}

/// The kernel refuses reads into less than a record; the longest has 8 KiB (CONSOLE_EXT_LOG_MAX).
const BUFFER: usize = 16 << 10;
/// Records taken before the place is offered and cancellation looked at.
const AT_ONCE: usize = 100;

/// How far the log was read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Place {
    /// Sequence numbers begin with every boot.
    boot: String,
    /// The last record that was passed on.
    sequence: u64,
}

/// Follows the kernel's log until `cancel`, and waits with it when the publisher has no room: the
/// kernel keeps as much as its ring holds. Fails when the device cannot be opened or read, and when
/// it ends, which a stand-in for it may do.
pub async fn run_kmsg_source(
    sink: &Sink,
    options: KmsgOptions,
    cancel: CancellationToken,
) -> Result<(), SourceError> {
    let failed = |source| SourceError::Io {
        what: options.path.display().to_string(),
        source,
    };
    let mut standing = Standing::remembered(sink, &options);
    let from_start = options.backlog || standing.passed.is_some();
    let device = open(&options, from_start).map_err(failed)?;
    let mut log = Log::new(&options.source, standing.passed.as_ref());
    let mut buffer = vec![0; BUFFER];
    let ended = loop {
        let mut records = Vec::new();
        let state = read_some(&device, &mut buffer, &mut log, &mut records);
        for (record, sequence) in records {
            let sent = tokio::select! {
                sent = standing.emit(sink, record, sequence) => sent,
                () = cancel.cancelled() => false,
            };
            if !sent {
                standing.finish(sink, options.drain).await;
                return Ok(());
            }
        }
        standing.offer(sink);
        match state {
            Ok(State::More) if !cancel.is_cancelled() => {}
            Ok(State::More) => break Ok(()),
            Ok(State::Ended) => {
                let what = format!("{} ended", options.path.display());
                break Err(SourceError::Ended(what));
            }
            Ok(State::Nothing) => tokio::select! {
                ready = device.readable() => {
                    if let Err(error) = ready {
                        break Err(failed(error));
                    }
                }
                // Places become durable while nothing is read, too.
                () = tokio::time::sleep(Duration::from_secs(1)) => {}
                () = cancel.cancelled() => break Ok(()),
            },
            Err(error) => break Err(failed(error)),
        }
    };
    standing.finish(sink, options.drain).await;
    ended
}

/// History of the kernel's log: what its ring still holds.
#[derive(Clone, Debug)]
pub(crate) struct KmsgHistory {
    options: KmsgOptions,
}

impl KmsgHistory {
    /// Of what these options carry.
    pub(crate) fn new(options: KmsgOptions) -> KmsgHistory {
        KmsgHistory { options }
    }
}

impl History for KmsgHistory {
    fn sources(&self) -> Vec<String> {
        vec![name::encode(&self.options.source).into_owned()]
    }

    fn covers(&self, source: &str) -> Covers {
        match name::encode(&self.options.source) == source {
            true => Covers::Yes,
            false => Covers::No,
        }
    }

    fn read(&self, _span: Span, out: mpsc::Sender<Block>) -> Reading<'_> {
        Box::pin(async move {
            let options = &self.options;
            let failed = |source| SourceError::Io {
                what: options.path.display().to_string(),
                source,
            };
            let device = open(options, true).map_err(failed)?;
            let mut log = Log::new(&options.source, None);
            let mut buffer = vec![0; BUFFER];
            loop {
                let mut records = Vec::new();
                let state = read_some(&device, &mut buffer, &mut log, &mut records);
                let past = records.into_iter().map(|(record, _)| Past {
                    estimated: record.time.is_none(),
                    record,
                });
                let records: Vec<Past> = past.collect();
                let lines = records.len() as u64;
                let heard = out.send(Block { records, lines }).await.is_ok();
                if !heard || !matches!(state.map_err(failed)?, State::More) {
                    return Ok(());
                }
            }
        })
    }
}

/// Where the source stands: kept with its events in the spool, and in the state directory.
struct Standing {
    boot: String,
    passed: Option<Place>,
    keeper: Keeper<Place>,
    key: u64,
}

impl Standing {
    fn remembered(sink: &Sink, options: &KmsgOptions) -> Standing {
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        let mut keeper = Keeper::new(options.state.clone(), "kmsg".to_owned());
        let key = fnv1a(b"kmsg");
        let spooled = sink.publisher().kept_place(key);
        let spooled = spooled.and_then(|place| serde_json::from_slice::<Place>(&place).ok());
        let passed = spooled.or_else(|| keeper.load());
        let boot = boot.trim().to_owned();
        Standing {
            passed: passed.filter(|place| place.boot == boot),
            boot,
            keeper,
            key,
        }
    }

    async fn emit(&mut self, sink: &Sink, record: Record, sequence: u64) -> bool {
        let boot = self.boot.clone();
        let place = Place { boot, sequence };
        let record = match serde_json::to_vec(&place) {
            Ok(place) => record.marked(self.key, place),
            Err(_) => record,
        };
        let sent = sink.emit_waiting(record).await;
        if sent {
            self.passed = Some(place);
        }
        sent
    }

    fn offer(&mut self, sink: &Sink) {
        if let Some(place) = self.passed.clone() {
            self.keeper.offer(place, sink.publisher());
        }
    }

    async fn finish(self, sink: &Sink, drain: Duration) {
        let keeper = self.keeper;
        keeper.finish(self.passed, sink.publisher(), drain).await;
    }
}

fn open(options: &KmsgOptions, from_start: bool) -> io::Result<pipe::Receiver> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let device = rustix::fs::open(&options.path, flags, Mode::empty())?;
    if !from_start {
        rustix::fs::seek(&device, SeekFrom::End(0))?;
    }
    // The device can be read and polled as a pipe is.
    pipe::Receiver::from_owned_fd_unchecked(device)
}

enum State {
    /// There may be more to read at once.
    More,
    /// Everything was read.
    Nothing,
    /// There will never be more.
    Ended,
}

/// Reads up to [`AT_ONCE`] records.
fn read_some(
    device: &pipe::Receiver,
    buffer: &mut [u8],
    log: &mut Log,
    records: &mut Vec<(Record, u64)>,
) -> io::Result<State> {
    while records.len() < AT_ONCE {
        match device.try_read(buffer) {
            Ok(0) => return Ok(State::Ended),
            Ok(read) => log.take(&buffer[..read], clock::wall(), uptime(), records),
            Err(error) => match error.kind() {
                io::ErrorKind::WouldBlock => {
                    log.caught_up();
                    return Ok(State::Nothing);
                }
                // Overwritten meanwhile: the next sequence number says how many.
                io::ErrorKind::BrokenPipe | io::ErrorKind::Interrupted => {}
                _ => return Err(error),
            },
        }
    }
    Ok(State::More)
}

/// Nanoseconds since the machine started.
fn uptime() -> u64 {
    let time = rustix::time::clock_gettime(ClockId::Monotonic);
    let (seconds, nanos) = (time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs());
    seconds * 1_000_000_000 + nanos
}

/// Makes events of records; pure.
struct Log {
    source: Arc<str>,
    /// The last record that was read.
    last: Option<u64>,
    /// Time of day at which the kernel's clock was 0, ns.
    zero: Option<u64>,
    /// Everything there was has been read: the next record is from this moment.
    live: bool,
}

impl Log {
    fn new(source: &str, remembered: Option<&Place>) -> Log {
        Log {
            source: source.into(),
            last: remembered.map(|place| place.sequence),
            zero: None,
            live: false,
        }
    }

    fn caught_up(&mut self) {
        self.live = true;
    }

    /// What was read at `now` (ns since the epoch), `uptime` (ns) after the machine started.
    fn take(&mut self, bytes: &[u8], now: u64, uptime: u64, records: &mut Vec<(Record, u64)>) {
        for entry in split(bytes).filter_map(parse) {
            if self.last.is_some_and(|last| entry.sequence <= last) {
                continue;
            }
            let since = entry.micros.saturating_mul(1000);
            // The two clocks drift apart: a record that was just written says what time it is.
            if std::mem::take(&mut self.live) || self.zero.is_none() {
                let written = if self.zero.is_none() { uptime } else { since };
                self.zero = Some(now.saturating_sub(written));
            }
            let expected = self.last.map_or(entry.sequence, |last| last + 1);
            if entry.sequence > expected {
                let lost = entry.sequence - expected;
                tracing::warn!(
                    lost,
                    "kernel messages were overwritten before they were read"
                );
                let text = format!("{lost} kernel messages were overwritten before they were read");
                let record = Record::new(self.source.clone(), Severity::WARN, text);
                records.push((record.with("lost", lost), entry.sequence - 1));
            }
            self.last = Some(entry.sequence);
            let time = self.zero.map(|zero| zero.saturating_add(since));
            records.push((self.record(&entry, time), entry.sequence));
        }
    }

    fn record(&self, entry: &Entry, time: Option<u64>) -> Record {
        let severity = Severity::from_syslog((entry.priority & 7) as u8);
        let message = unescape(entry.message);
        let mut record = Record::new(self.source.clone(), severity, message);
        record.time = time;
        // The kernel's own are facility 0: worth a word only when it is another.
        if let Some(facility) = facility(entry.priority >> 3).filter(|name| *name != "kern") {
            record = record.with("facility", facility);
        }
        if let Some(caller) = entry.caller {
            record = record.with("caller", caller);
        }
        for field in entry.fields.lines() {
            if let Some((key, value)) = field.trim_start().split_once('=') {
                record = record.with(key.to_ascii_lowercase(), unescape(value));
            }
        }
        record
    }
}

/// A record as the kernel writes it.
#[derive(Debug, PartialEq)]
struct Entry<'a> {
    /// Facility times 8 plus severity.
    priority: u32,
    sequence: u64,
    micros: u64,
    /// Thread or processor, as in `T1` or `C0`, where the kernel says so.
    caller: Option<&'a str>,
    message: &'a str,
    /// Lines ` KEY=value`.
    fields: &'a str,
}

/// The device gives one record at a time; what stands in for it may give several.
fn split(bytes: &[u8]) -> impl Iterator<Item = &str> {
    let mut rest = std::str::from_utf8(bytes).unwrap_or_default();
    std::iter::from_fn(move || {
        let ends = rest.match_indices('\n').map(|(at, _)| at + 1);
        let end = ends
            .into_iter()
            .find(|end| !rest[*end..].starts_with(' '))
            .unwrap_or(rest.len());
        let (record, after) = rest.split_at(end);
        rest = after;
        Some(record).filter(|record| !record.is_empty())
    })
}

fn parse(record: &str) -> Option<Entry<'_>> {
    let (header, body) = record.split_once(';')?;
    let (message, fields) = body.split_once('\n').unwrap_or((body, ""));
    let mut header = header.split(',');
    let mut number = || header.next()?.parse::<u64>().ok();
    let (priority, sequence, micros) = (number()?, number()?, number()?);
    let caller = header.find_map(|field| field.strip_prefix("caller="));
    Some(Entry {
        priority: u32::try_from(priority).ok()?,
        sequence,
        micros,
        caller,
        message,
        fields,
    })
}

/// `\xNN` to bytes, and those to text.
fn unescape(text: &str) -> String {
    let mut rest = text.as_bytes();
    if !rest.contains(&b'\\') {
        return text.to_owned();
    }
    let mut bytes = Vec::with_capacity(rest.len());
    while let Some((first, after)) = rest.split_first() {
        let hex = match rest {
            [b'\\', b'x', high, low, ..] => hex(*high).zip(hex(*low)),
            _ => None,
        };
        match hex {
            Some((high, low)) => {
                bytes.push(high * 16 + low);
                rest = &rest[4..];
            }
            None => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn hex(digit: u8) -> Option<u8> {
    let value = char::from(digit).to_digit(16)?;
    u8::try_from(value).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: u64 = 1_000_000_000;
    /// As a machine gave them, one with what other kernels add.
    const RECORDED: &str = "\
6,339,5140900,-;NET: Registered PF_INET6 protocol family
6,340,5690716,-,caller=T1;udevd[80]: starting version 181
4,341,6690716,c;caf\\xc3\\xa9 \\x5c\\x0aend
 SUBSYSTEM=acpi
 DEVICE=+acpi:PNP0A03:00
30,342,7690716,-;systemd[1]: hello
";

    fn taken(log: &mut Log, text: &str) -> Vec<(Record, u64)> {
        let mut records = Vec::new();
        log.take(text.as_bytes(), 1_000 * SECOND, 10 * SECOND, &mut records);
        records
    }

    #[test]
    fn recorded_text_becomes_events() {
        let mut log = Log::new("kernel", None);
        let records = taken(&mut log, RECORDED);
        let sequences: Vec<u64> = records.iter().map(|(_, sequence)| *sequence).collect();
        assert_eq!(sequences, [339, 340, 341, 342]);
        let [first, second, third, last] = &records[..] else {
            panic!("{records:?}");
        };
        assert_eq!(first.0.message, "NET: Registered PF_INET6 protocol family");
        assert_eq!(
            (first.0.severity, &*first.0.source),
            (Severity::INFO, "kernel")
        );
        assert_eq!(first.0.time, Some(990 * SECOND + 5_140_900_000));
        assert!(first.0.attributes.is_empty());
        assert_eq!(second.0.attributes["caller"], "T1");
        assert_eq!(
            (third.0.severity, &*third.0.message),
            (Severity::WARN, "café \\\nend")
        );
        assert_eq!(third.0.attributes["subsystem"], "acpi");
        assert_eq!(third.0.attributes["device"], "+acpi:PNP0A03:00");
        assert_eq!(last.0.attributes["facility"], "daemon");
    }

    #[test]
    fn a_restart_goes_on_after_the_remembered_record() {
        let place = Place {
            boot: String::new(),
            sequence: 341,
        };
        let records = taken(&mut Log::new("kernel", Some(&place)), RECORDED);
        assert_eq!(records.len(), 1);
        assert_eq!(records[0].0.message, "systemd[1]: hello");
    }

    #[test]
    fn what_was_overwritten_is_counted() {
        let place = Place {
            boot: String::new(),
            sequence: 300,
        };
        let records = taken(&mut Log::new("kernel", Some(&place)), RECORDED);
        assert_eq!(records.len(), 5);
        assert_eq!(records[0].0.attributes["lost"], 38);
        assert_eq!((records[0].0.severity, records[0].1), (Severity::WARN, 338));
        // What the ring no longer held at the very first start was lost to nobody.
        assert_eq!(taken(&mut Log::new("kernel", None), RECORDED).len(), 4);
    }

    #[test]
    fn a_record_that_just_came_has_the_time_of_now() {
        let mut log = Log::new("kernel", None);
        taken(&mut log, "6,1,1000000,-;a\n");
        log.caught_up();
        // The kernel's clock is an hour behind: the machine slept.
        let mut records = Vec::new();
        let now = 5_000 * SECOND;
        log.take(
            b"6,2,2000000,-;b\n6,3,2500000,-;c\n",
            now,
            3_610 * SECOND,
            &mut records,
        );
        let times: Vec<_> = records.iter().map(|(record, _)| record.time).collect();
        assert_eq!(times, [Some(now), Some(now + SECOND / 2)]);
    }

    #[test]
    fn what_is_no_record_is_passed_over() {
        let records = taken(&mut Log::new("kernel", None), "hello\n6,x,1,-;m\n6,1;m\n");
        assert_eq!(records, []);
    }

    proptest! {
        #[test]
        fn no_record_is_too_odd(bytes in any::<Vec<u8>>(), like in "([0-9]{1,3},){0,4}-?;?[a-z\\\\x0-9]{0,9}\n?( [A-Z=]{0,4}\n)?") {
            let mut log = Log::new("kernel", None);
            for text in [&bytes[..], like.as_bytes()] {
                log.take(text, SECOND, SECOND, &mut Vec::new());
            }
        }
    }
}
