//! Reads what arrived and counts what is missing or there twice.

use std::{
    collections::HashMap,
    fs::File,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
};

use anyhow::Context;
use serde::Deserialize;

/// What the output of a run holds.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Verdict {
    pub(super) bytes: u64,
    pub(super) lost: u64,
    pub(super) duplicated: u64,
}

#[derive(Deserialize)]
struct Line<'a> {
    #[serde(borrow)]
    id: Option<&'a str>,
    #[serde(borrow)]
    device: Option<&'a str>,
    attributes: Option<Numbered>,
    n: Option<u64>,
}

#[derive(Deserialize)]
struct Numbered {
    n: Option<u64>,
}

/// A set of small numbers.
#[derive(Default)]
struct Bits(Vec<u64>);

impl Bits {
    /// Adds a number; false when it was there.
    fn insert(&mut self, number: u64) -> bool {
        let (word, bit) = ((number / 64) as usize, 1u64 << (number % 64));
        if word >= self.0.len() {
            self.0.resize(word + 1, 0);
        }
        let fresh = self.0[word] & bit == 0;
        self.0[word] |= bit;
        fresh
    }
}

/// Every file below `dir` whose name ends in `.ndjson`.
pub(super) fn output_files(dir: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir).with_context(|| format!("cannot read {}", dir.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            files.extend(output_files(&path)?);
        } else if path
            .extension()
            .is_some_and(|extension| extension == "ndjson")
        {
            files.push(path);
        }
    }
    Ok(files)
}

/// Checks that the files hold `events` different events. A lane's number is its `n` where the
/// publisher gave one, else the sequence number of its id.
pub(super) fn verify(files: &[PathBuf], events: u64) -> anyhow::Result<Verdict> {
    let mut verdict = Verdict::default();
    let mut lanes: HashMap<String, Bits> = HashMap::new();
    let mut distinct = 0;
    for path in files {
        let mut reader = BufReader::with_capacity(1 << 20, File::open(path)?);
        let mut line = Vec::new();
        while reader.read_until(b'\n', &mut line)? > 0 {
            verdict.bytes += line.len() as u64;
            let (lane, number) =
                identity(&line).with_context(|| format!("{}: not an event", path.display()))?;
            let bits = match lanes.get_mut(lane) {
                Some(bits) => bits,
                None => lanes.entry(lane.to_owned()).or_default(),
            };
            if bits.insert(number) {
                distinct += 1;
            } else {
                verdict.duplicated += 1;
            }
            line.clear();
        }
    }
    verdict.lost = events.saturating_sub(distinct);
    Ok(verdict)
}

fn identity(line: &[u8]) -> anyhow::Result<(&str, u64)> {
    let parsed: Line<'_> = serde_json::from_slice(line)?;
    let numbered = parsed
        .n
        .or(parsed.attributes.and_then(|attributes| attributes.n));
    if let Some(n) = numbered {
        return Ok((parsed.device.unwrap_or_default(), n));
    }
    let (lane, seq) = parsed
        .id
        .and_then(|id| id.rsplit_once('/'))
        .context("no id")?;
    Ok((lane, seq.parse()?))
}

/// Counts the lines of a file while it grows.
pub(super) struct LineCounter {
    file: File,
    lines: u64,
    buffer: Vec<u8>,
}

impl LineCounter {
    pub(super) fn open(path: &Path) -> anyhow::Result<LineCounter> {
        let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
        Ok(LineCounter {
            file,
            lines: 0,
            buffer: vec![0; 1 << 20],
        })
    }

    /// Lines so far.
    pub(super) fn lines(&mut self) -> anyhow::Result<u64> {
        loop {
            let read = std::io::Read::read(&mut self.file, &mut self.buffer)?;
            if read == 0 {
                return Ok(self.lines);
            }
            self.lines += self.buffer[..read]
                .iter()
                .filter(|byte| **byte == b'\n')
                .count() as u64;
        }
    }
}
