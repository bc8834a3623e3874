//! Bytes to batch. The payload is a stranger's: see the head of the module for what is checked.

use rmp::decode::{read_array_len, read_bin_len, read_int};
use zstd::bulk::Decompressor;

use super::{
    Batch, ClockInfo, DecodeError, Drop, DropReason, Entry, FLAG_ZSTD, Header, MAGIC, MAX_BODY,
    MAX_DROPS, MAX_EVENTS, MAX_MESSAGE, MAX_PAYLOAD, TIME_UNITS, VERSION, value, value::malformed,
};
use crate::{Attributes, Severity};

/// What of the scratch is kept from one payload to the next, bytes: an unusually large body is not
/// paid for ever after.
const KEEP: usize = 1 << 20;

/// Decodes batches; keeps its decompressor and scratch between calls.
pub struct Decoder {
    zstd: Decompressor<'static>,
    body: Vec<u8>,
    columns: Columns,
}

/// The columns that are read before the messages, which make the entries.
#[derive(Default)]
struct Columns {
    seqs: Vec<u64>,
    times: Vec<u64>,
}

impl Default for Decoder {
    fn default() -> Decoder {
        Decoder::new()
    }
}

impl Decoder {
    /// A decoder with empty scratch.
    pub fn new() -> Decoder {
        Decoder {
            zstd: Decompressor::default(),
            body: Vec::new(),
            columns: Columns::default(),
        }
    }

    /// Reads one payload.
    pub fn decode(&mut self, payload: &[u8]) -> Result<Batch, DecodeError> {
        if payload.len() > MAX_PAYLOAD {
            let length = payload.len();
            return Err(DecodeError::Limit(format!(
                "{length} bytes of at most {MAX_PAYLOAD}"
            )));
        }
        let (flags, mut rest) = open(payload)?;
        let header: Header = rmp_serde::decode::from_read(&mut rest).map_err(malformed)?;
        check(&header)?;
        let drops = drops(&header)?;
        let body_len = header.body_len as usize;
        let entries = if flags & FLAG_ZSTD == 0 {
            self.columns.read(&header, rest)
        } else {
            self.body.clear();
            self.body.reserve_exact(body_len);
            self.zstd
                .decompress_to_buffer(rest, &mut self.body)
                .map_err(|e| {
                    malformed(format!("zstd: {e} (at most {body_len} bytes announced)"))
                })?;
            let entries = self.columns.read(&header, &self.body);
            if self.body.capacity() > KEEP {
                self.body = Vec::new();
            }
            entries
        }?;
        let clock = ClockInfo {
            boot: header.boot,
            sent_mono: header.sent_mono,
            synced: header.clock == 1,
        };
        Ok(Batch {
            epoch: header.epoch,
            first_seq: header.first_seq,
            clock,
            drops,
            entries,
        })
    }
}

/// Magic, version and flags.
pub(super) fn open(payload: &[u8]) -> Result<(u8, &[u8]), DecodeError> {
    let Some([version, rest @ ..]) = payload.strip_prefix(&MAGIC) else {
        return Err(malformed(
            "it does not begin with FF 74 6C 67 and a version",
        ));
    };
    if *version != VERSION {
        return Err(DecodeError::Version(*version));
    }
    match rest {
        [flags, rest @ ..] if flags & !FLAG_ZSTD == 0 => Ok((*flags, rest)),
        [flags, ..] => Err(malformed(format!("unknown flags {flags:#04x}"))),
        [] => Err(malformed("it ends after its version")),
    }
}

fn check(header: &Header) -> Result<(), DecodeError> {
    let limit = |what: &str, n: usize, most: usize| {
        if n <= most {
            Ok(())
        } else {
            Err(DecodeError::Limit(format!("{n} {what} of at most {most}")))
        }
    };
    limit("events", header.count as usize, MAX_EVENTS)?;
    limit("body bytes", header.body_len as usize, MAX_BODY)?;
    limit("drops", header.drops.len(), MAX_DROPS)?;
    if !TIME_UNITS.contains(&header.time_unit) {
        return Err(malformed(format!("time unit {}", header.time_unit)));
    }
    if header.clock > 1 {
        return Err(malformed(format!("clock {}", header.clock)));
    }
    if header.count == 0 && header.drops.is_empty() {
        return Err(malformed("it speaks for no seq: neither events nor drops"));
    }
    Ok(())
}

fn drops(header: &Header) -> Result<Vec<Drop>, DecodeError> {
    let drop = |&(from, to, count, severity, reason): &(u64, u64, u64, u8, u8)| {
        let valid = from <= to && to < u64::MAX && count > 0;
        let parts = (Severity::new(severity), DropReason::from_number(reason));
        match parts {
            (Some(severity), Some(reason)) if valid => Ok(Drop {
                from,
                to,
                count,
                severity,
                reason,
            }),
            _ => Err(malformed(format!(
                "drop of {count} in {from}-{to}, severity {severity}, reason {reason}"
            ))),
        }
    };
    header.drops.iter().map(drop).collect()
}

impl Columns {
    fn read(&mut self, header: &Header, mut body: &[u8]) -> Result<Vec<Entry>, DecodeError> {
        let (count, body_len) = (header.count as usize, header.body_len as usize);
        if body.len() != body_len {
            return Err(malformed(format!(
                "a body of {} bytes, announced {body_len}",
                body.len()
            )));
        }
        // An event takes a byte at least in each of three columns.
        if count * 3 > body_len {
            return Err(malformed(format!("{count} events in {body_len} bytes")));
        }
        let input = &mut body;
        expect_array(input, 6, "columns")?;
        self.read_seqs(header, input)?;
        self.read_times(header, input)?;
        let severities = read_severities(count, input)?;
        let mut entries = self.read_messages(severities, input)?;
        read_attributes(&mut entries, input)?;
        read_truncated(&mut entries, input)?;
        if !body.is_empty() {
            return Err(malformed(format!(
                "{} bytes after the last column",
                body.len()
            )));
        }
        Ok(entries)
    }

    fn read_seqs(&mut self, header: &Header, input: &mut &[u8]) -> Result<(), DecodeError> {
        let count = u64::from(header.count);
        let overflow = || malformed("seqs do not ascend below 2^64 - 1");
        self.seqs.clear();
        let length = read_array_len(input).map_err(malformed)?;
        if length == 0 {
            let end = header.first_seq.checked_add(count).ok_or_else(overflow)?;
            self.seqs.extend(header.first_seq..end);
            return Ok(());
        }
        if length != header.count {
            return Err(malformed(format!("{length} seqs for {count} events")));
        }
        self.seqs.reserve(length as usize);
        let mut seq = header.first_seq;
        for index in 0..length {
            let step: u64 = read_int(input).map_err(malformed)?;
            seq = seq
                .checked_add(step)
                .filter(|&seq| seq < u64::MAX)
                .ok_or_else(overflow)?;
            if step == 0 && index > 0 {
                return Err(overflow());
            }
            self.seqs.push(seq);
        }
        Ok(())
    }

    fn read_times(&mut self, header: &Header, input: &mut &[u8]) -> Result<(), DecodeError> {
        expect_array(input, header.count as usize, "times")?;
        self.times.clear();
        self.times.reserve(header.count as usize);
        let mut time = header.base_time;
        for _ in 0..header.count {
            let step: i64 = read_int(input).map_err(malformed)?;
            time = time.wrapping_add((step as u64).wrapping_mul(header.time_unit));
            self.times.push(time);
        }
        Ok(())
    }

    fn read_messages(
        &self,
        severities: &[u8],
        input: &mut &[u8],
    ) -> Result<Vec<Entry>, DecodeError> {
        expect_array(input, severities.len(), "messages")?;
        let mut entries = Vec::with_capacity(severities.len());
        for ((&seq, &time), &severity) in self.seqs.iter().zip(&self.times).zip(severities) {
            let message = value::read_str(input)?;
            if message.len() > MAX_MESSAGE {
                let length = message.len();
                return Err(DecodeError::Limit(format!(
                    "a message of {length} bytes of at most {MAX_MESSAGE}"
                )));
            }
            let severity =
                Severity::new(severity).ok_or_else(|| malformed(format!("severity {severity}")))?;
            entries.push(Entry {
                seq,
                time,
                severity,
                message: message.to_owned(),
                truncated: false,
                attributes: Attributes::new(),
            });
        }
        Ok(entries)
    }
}

fn expect_array(input: &mut &[u8], expected: usize, what: &str) -> Result<(), DecodeError> {
    let length = read_array_len(input).map_err(malformed)? as usize;
    if length == expected {
        Ok(())
    } else {
        Err(malformed(format!("{length} {what}, expected {expected}")))
    }
}

fn read_severities<'a>(count: usize, input: &mut &'a [u8]) -> Result<&'a [u8], DecodeError> {
    let length = read_bin_len(input).map_err(malformed)? as usize;
    let (severities, rest) = input
        .split_at_checked(length)
        .ok_or_else(|| malformed("severities run past the end"))?;
    if length != count {
        return Err(malformed(format!("{length} severities for {count} events")));
    }
    *input = rest;
    Ok(severities)
}

fn read_attributes(entries: &mut [Entry], input: &mut &[u8]) -> Result<(), DecodeError> {
    let length = read_array_len(input).map_err(malformed)?;
    let mut budget = value::Budget::default();
    let mut least = 0;
    for _ in 0..length {
        expect_array(input, 2, "parts of an event's attributes")?;
        let entry = read_index(entries, &mut least, input)?;
        entry.attributes = value::read_map(input, &mut budget)?;
    }
    Ok(())
}

fn read_truncated(entries: &mut [Entry], input: &mut &[u8]) -> Result<(), DecodeError> {
    let length = read_array_len(input).map_err(malformed)?;
    let mut least = 0;
    for _ in 0..length {
        read_index(entries, &mut least, input)?.truncated = true;
    }
    Ok(())
}

/// The entry of the next index of an ascending list; `least` is the smallest that may come.
fn read_index<'a>(
    entries: &'a mut [Entry],
    least: &mut usize,
    input: &mut &[u8],
) -> Result<&'a mut Entry, DecodeError> {
    let index: usize = read_int(input).map_err(malformed)?;
    let entry = entries.get_mut(index).filter(|_| index >= *least);
    *least = index.saturating_add(1);
    entry.ok_or_else(|| malformed(format!("event index {index} out of order or range")))
}
