//! Where unreadable payloads go: one JSON line each, with time, topic, reason, what the broker
//! stamped, size, and the payload in base64.
//!
//! ```text
//! <folder>/quarantine-<number>.jsonl   oldest first, at most 8 MiB each
//! ```
//!
//! Bounded in bytes as a whole: the oldest file goes first, logged and counted. A line is on disk
//! before its publish is acknowledged; a crash between the two can repeat a line.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use prometheus::IntCounter;
use thinglog_schemas::json;

use crate::destinations::rotation::{self, cut_torn_line};
use crate::folder::{create_durably, open_to_write_at, sync_folder_of};
use crate::mqtt::Delivery;

const STEM: &str = "quarantine";
const EXTENSION: &str = "jsonl";
const MOST_A_FILE: u64 = 8 << 20;

/// The open quarantine.
#[derive(Debug)]
pub(crate) struct Quarantine {
    folder: PathBuf,
    limit: u64,
    number: u64,
    file: Arc<File>,
    length: u64,
    /// Lines not yet written.
    buffer: Vec<u8>,
    /// Written since the last commit.
    unsynced: bool,
    deleted: IntCounter,
}

impl Quarantine {
    /// Opens the newest file of the folder; a torn last line is cut.
    pub(crate) fn open(folder: &Path, limit: u64, deleted: IntCounter) -> io::Result<Quarantine> {
        create_durably(folder)?;
        let number = rotation::list(folder, STEM, EXTENSION)?
            .last()
            .map_or(0, |last| last.number);
        let (file, path) = open_file(folder, number)?;
        sync_folder_of(&path)?;
        let length = cut_torn_line(&file, &path)?;
        Ok(Quarantine {
            folder: folder.to_owned(),
            limit,
            number,
            file: Arc::new(file),
            length,
            buffer: Vec::new(),
            unsynced: false,
            deleted,
        })
    }

    /// Puts a delivery in, at `now` (ns since the Unix epoch); written by [`Quarantine::write`].
    pub(crate) fn add(&mut self, delivery: &Delivery, reason: &str, now: u64) {
        let out = &mut self.buffer;
        out.extend_from_slice(b"{\"time\":\"");
        json::write_time(now, out);
        out.extend_from_slice(b"\",\"topic\":");
        push_text(&delivery.topic.text, out);
        out.extend_from_slice(b",\"reason\":");
        push_text(reason, out);
        out.extend_from_slice(b",\"received\":\"");
        json::write_time(delivery.stamp.received, out);
        out.push(b'"');
        if let Some((journal, offset)) = delivery.stamp.stored {
            let offset = format!(",\"offset\":\"{journal:016x}/{offset}\"");
            out.extend_from_slice(offset.as_bytes());
        }
        let named = [
            ("principal", &delivery.stamp.principal),
            ("address", &delivery.stamp.address),
        ];
        for (key, value) in named {
            if let Some(value) = value {
                out.extend_from_slice(format!(",\"{key}\":").as_bytes());
                push_text(value, out);
            }
        }
        let size = format!(",\"size\":{},\"payload\":\"", delivery.payload.len());
        out.extend_from_slice(size.as_bytes());
        push_base64(&delivery.payload, out);
        out.extend_from_slice(b"\"}\n");
    }

    /// Whether enough has been put in that it should be written.
    pub(crate) fn is_full(&self) -> bool {
        self.buffer.len() >= 1 << 20
    }

    /// Writes what was put in. After an error everything is still to be written.
    pub(crate) fn write(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        if self.length >= MOST_A_FILE.min(self.limit / 4) {
            self.rotate()?;
        }
        self.file.write_all_at(&self.buffer, self.length)?;
        self.length += self.buffer.len() as u64;
        self.buffer.clear();
        self.unsynced = true;
        Ok(())
    }

    /// The file to sync, if anything was written since the last call.
    pub(crate) fn take_unsynced(&mut self) -> Option<Arc<File>> {
        std::mem::take(&mut self.unsynced).then(|| Arc::clone(&self.file))
    }

    fn rotate(&mut self) -> io::Result<()> {
        self.file.sync_data()?;
        let (file, path) = open_file(&self.folder, self.number + 1)?;
        sync_folder_of(&path)?;
        self.number += 1;
        self.file = Arc::new(file);
        self.length = 0;
        let files = rotation::list(&self.folder, STEM, EXTENSION)?;
        for file in rotation::surplus(&files, self.limit, None) {
            std::fs::remove_file(&file.path)?;
            self.deleted.inc();
            tracing::warn!(file = %file.path.display(), "deleted to stay within audit.quarantine_bytes");
        }
        Ok(())
    }
}

fn open_file(folder: &Path, number: u64) -> io::Result<(File, PathBuf)> {
    let path = folder.join(rotation::name(STEM, number, EXTENSION));
    let file = open_to_write_at(&path)?;
    Ok((file, path))
}

fn push_text(text: &str, out: &mut Vec<u8>) {
    json::write_value(&serde_json::Value::from(text), out);
}

/// RFC 4648 section 4, with padding.
fn push_base64(bytes: &[u8], out: &mut Vec<u8>) {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    out.reserve(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let byte = |at: usize| u32::from(chunk.get(at).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        let symbol = |shift: u32| ALPHABET[(bits >> shift & 63) as usize];
        out.extend_from_slice(&[symbol(18), symbol(12)]);
        out.push(if chunk.len() > 1 { symbol(6) } else { b'=' });
        out.push(if chunk.len() > 2 { symbol(0) } else { b'=' });
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use thinglog_schemas::{Topics, payload::Stamp};

    use super::*;
    use crate::mqtt::names::TopicInfo;

    fn delivery(payload: &[u8]) -> Delivery {
        Delivery {
            topic: Arc::new(TopicInfo::new(
                &Topics::default(),
                b"thinglog/logs/lamp-7/app",
            )),
            payload: Bytes::copy_from_slice(payload),
            retain: false,
            stamp: Stamp {
                stored: Some((255, 7)),
                principal: Some(Arc::from("lamp\"7")),
                ..Stamp::default()
            },
            number: 0,
        }
    }

    fn open(folder: &Path, limit: u64) -> Quarantine {
        Quarantine::open(folder, limit, IntCounter::new("deleted", "test").unwrap()).unwrap()
    }

    fn lines(folder: &Path) -> Vec<serde_json::Value> {
        let files = rotation::list(folder, STEM, EXTENSION).unwrap();
        let texts = files
            .iter()
            .map(|file| std::fs::read_to_string(&file.path).unwrap());
        let text: String = texts.collect();
        text.lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    #[test]
    fn base64_is_the_rfcs() {
        for (bytes, text) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
        ] {
            let mut out = Vec::new();
            push_base64(bytes.as_bytes(), &mut out);
            assert_eq!(String::from_utf8(out).unwrap(), text);
        }
    }

    #[test]
    fn a_line_says_what_where_and_why() {
        let folder = tempfile::tempdir().unwrap();
        let mut quarantine = open(folder.path(), 1 << 20);
        quarantine.add(&delivery(b"\xFFfo"), "not text", 0);
        quarantine.write().unwrap();
        let line = lines(folder.path()).remove(0);
        assert_eq!(line["topic"], "thinglog/logs/lamp-7/app");
        assert_eq!(line["reason"], "not text");
        assert_eq!(line["offset"], "00000000000000ff/7");
        assert_eq!(line["principal"], "lamp\"7");
        assert_eq!(
            (&line["size"], &line["payload"]),
            (&3.into(), &"/2Zv".into())
        );
    }

    #[test]
    fn a_torn_line_is_cut_on_opening() {
        let folder = tempfile::tempdir().unwrap();
        let mut quarantine = open(folder.path(), 1 << 20);
        quarantine.add(&delivery(b"\xFF"), "one", 0);
        quarantine.write().unwrap();
        let path = folder.path().join(rotation::name(STEM, 0, EXTENSION));
        let mut torn = std::fs::read(&path).unwrap();
        torn.extend_from_slice(b"{\"time\":");
        std::fs::write(&path, torn).unwrap();
        let mut quarantine = open(folder.path(), 1 << 20);
        quarantine.add(&delivery(b"\xFF"), "two", 0);
        quarantine.write().unwrap();
        let reasons: Vec<_> = lines(folder.path())
            .iter()
            .map(|line| line["reason"].clone())
            .collect();
        assert_eq!(reasons, ["one", "two"]);
    }

    #[test]
    fn the_oldest_goes_when_the_bound_is_reached() {
        let folder = tempfile::tempdir().unwrap();
        let limit = 64 << 10;
        let mut quarantine = open(folder.path(), limit);
        for n in 0..400 {
            quarantine.add(&delivery(&[0xFF; 1000]), &n.to_string(), 0);
            quarantine.write().unwrap();
        }
        let files = rotation::list(folder.path(), STEM, EXTENSION).unwrap();
        let bytes: u64 = files.iter().map(|file| file.bytes).sum();
        assert!(bytes <= limit + limit / 4 + 4000, "{bytes}");
        assert!(quarantine.deleted.get() > 0);
        assert_eq!(lines(folder.path()).last().unwrap()["reason"], "399");
    }
}
