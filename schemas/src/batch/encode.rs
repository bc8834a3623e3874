//! Batch to bytes.

use rmp::encode::{write_array_len, write_bin_len, write_sint, write_str, write_uint};
use zstd::zstd_safe::{
    CCtx, CParameter, InBuffer, OutBuffer, ResetDirective, zstd_sys::ZSTD_EndDirective,
};

use super::{
    Attributed, Batch, COMPRESS_FROM, EncodeError, FLAG_ZSTD, Header, MAGIC, MAX_ATTRIBUTES,
    MAX_BODY, MAX_DROPS, MAX_EVENTS, MAX_MESSAGE, MAX_PAYLOAD, TIME_UNITS, VERSION, value,
};

/// zstd's level. With a block for each kind of column (see [`Encoder::compress`]) level 3 saves a fiftieth
/// more and costs half as much again; those that look for matches lazily, from 5 on, save a
/// twentieth and cost several times as much.
const LEVEL: i32 = 1;

/// Encodes batches; keeps its compressor and buffers between calls.
pub struct Encoder {
    zstd: CCtx<'static>,
    body: Vec<u8>,
    /// Where in the body columns of another kind begin: messages, attributes.
    kinds: [usize; 2],
    compressed: Vec<u8>,
}

impl Default for Encoder {
    fn default() -> Encoder {
        Encoder::new()
    }
}

impl Encoder {
    /// An encoder with empty buffers.
    pub fn new() -> Encoder {
        let mut zstd = CCtx::create();
        // Which does not fail; it would compress at zstd's default.
        let _ = zstd.set_parameter(CParameter::CompressionLevel(LEVEL));
        Encoder {
            zstd,
            body: Vec::new(),
            kinds: [0; 2],
            compressed: Vec::new(),
        }
    }

    /// Appends the payload. Errors when limits are exceeded (too many events, body or payload too
    /// large): the caller splits the batch. A batch of one entry that went through
    /// [`super::Entry::fit`] is never too large.
    pub fn encode<A: Attributed>(
        &mut self,
        batch: &Batch<A>,
        out: &mut Vec<u8>,
    ) -> Result<(), EncodeError> {
        validate(batch)?;
        let time_unit = time_unit(batch);
        self.write_body(batch, time_unit)?;
        let compressed = self.compress();
        let start = out.len();
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&[VERSION, if compressed { FLAG_ZSTD } else { 0 }]);
        let header = header(batch, time_unit, self.body.len());
        rmp_serde::encode::write(out, &header).map_err(failed)?;
        out.extend_from_slice(if compressed {
            &self.compressed
        } else {
            &self.body
        });
        let length = out.len() - start;
        if length > MAX_PAYLOAD {
            out.truncate(start);
            return Err(EncodeError::TooLarge(format!(
                "{length} bytes of at most {MAX_PAYLOAD}"
            )));
        }
        Ok(())
    }

    fn write_body<A: Attributed>(
        &mut self,
        batch: &Batch<A>,
        time_unit: u64,
    ) -> Result<(), EncodeError> {
        let body = &mut self.body;
        body.clear();
        write_array_len(body, 6).map_err(failed)?;
        write_seqs(batch, body).map_err(failed)?;
        write_times(batch, time_unit, body).map_err(failed)?;
        write_bin_len(body, batch.entries.len() as u32).map_err(failed)?;
        body.extend(batch.entries.iter().map(|entry| entry.severity.number()));
        let messages = body.len();
        write_array_len(body, batch.entries.len() as u32).map_err(failed)?;
        for entry in &batch.entries {
            write_str(body, &entry.message).map_err(failed)?;
        }
        self.kinds = [messages, body.len()];
        write_attributes(batch, body)?;
        write_truncated(batch, body).map_err(failed)?;
        if body.len() > MAX_BODY {
            let length = body.len();
            return Err(EncodeError::TooLarge(format!(
                "a body of {length} bytes of at most {MAX_BODY}"
            )));
        }
        Ok(())
    }

    /// Whether the body is better sent compressed; it is in `compressed` then. One frame, with blocks of
    /// their own for numbers, messages and attributes: bytes of different kinds in one block would
    /// share a code that suits neither.
    fn compress(&mut self) -> bool {
        if self.body.len() < COMPRESS_FROM {
            return false;
        }
        self.compressed.clear();
        // A frame larger than the body is of no use: what needs more room than that is given up.
        self.compressed.reserve_exact(self.body.len());
        self.write_frame() == Some(()) && self.compressed.len() < self.body.len()
    }

    /// `None` when it does not fit.
    fn write_frame(&mut self) -> Option<()> {
        let [messages, attributes] = self.kinds;
        let body = &self.body;
        let parts = [
            (&body[..messages], ZSTD_EndDirective::ZSTD_e_flush),
            (&body[messages..attributes], ZSTD_EndDirective::ZSTD_e_flush),
            (&body[attributes..], ZSTD_EndDirective::ZSTD_e_end),
        ];
        let length = Some(body.len() as u64);
        self.zstd.reset(ResetDirective::SessionOnly).ok()?;
        self.zstd.set_pledged_src_size(length).ok()?;
        let mut out = OutBuffer::around(&mut self.compressed);
        for (part, end) in parts {
            let mut part = InBuffer::around(part);
            let left = self.zstd.compress_stream2(&mut out, &mut part, end).ok()?;
            if left > 0 {
                return None;
            }
        }
        Some(())
    }
}

/// Writing to memory does not fail; the codec's error types do not know that.
fn failed(error: impl std::fmt::Display) -> EncodeError {
    EncodeError::Invalid(error.to_string())
}

fn validate<A: Attributed>(batch: &Batch<A>) -> Result<(), EncodeError> {
    let invalid = |reason: String| Err(EncodeError::Invalid(reason));
    if batch.entries.is_empty() && batch.drops.is_empty() {
        return invalid("it speaks for no seq: neither events nor drops".into());
    }
    if batch.entries.len() > MAX_EVENTS {
        let count = batch.entries.len();
        return Err(EncodeError::TooLarge(format!(
            "{count} events of at most {MAX_EVENTS}"
        )));
    }
    if batch.drops.len() > MAX_DROPS {
        let count = batch.drops.len();
        return Err(EncodeError::TooLarge(format!(
            "{count} drops of at most {MAX_DROPS}"
        )));
    }
    for drop in &batch.drops {
        if drop.from > drop.to || drop.to == u64::MAX || drop.count == 0 {
            return invalid(format!(
                "drop of {} in {}-{}",
                drop.count, drop.from, drop.to
            ));
        }
    }
    let mut least = batch.first_seq;
    for entry in &batch.entries {
        if entry.seq < least || entry.seq == u64::MAX {
            return invalid(format!(
                "seq {} where at least {least} was expected",
                entry.seq
            ));
        }
        least = entry.seq + 1;
        let attributes = entry.attributes.form().len();
        if entry.message.len() > MAX_MESSAGE || attributes > MAX_ATTRIBUTES {
            let message = entry.message.len();
            return invalid(format!(
                "seq {} has a message of {message} bytes of at most {MAX_MESSAGE} and {attributes} \
                 attributes of at most {MAX_ATTRIBUTES}",
                entry.seq
            ));
        }
    }
    Ok(())
}

/// The distance of each time from the one before it; the first from itself.
fn time_steps<A>(batch: &Batch<A>) -> impl Iterator<Item = i64> {
    let mut before = batch.entries.first().map_or(0, |entry| entry.time);
    batch.entries.iter().map(move |entry| {
        let step = entry.time.wrapping_sub(before) as i64;
        before = entry.time;
        step
    })
}

fn time_unit<A>(batch: &Batch<A>) -> u64 {
    let mut candidates = TIME_UNITS.into_iter();
    let mut unit = candidates.next().unwrap_or(1);
    for step in time_steps(batch) {
        while step % unit as i64 != 0 {
            unit = candidates.next().unwrap_or(1);
        }
    }
    unit
}

fn header<A>(batch: &Batch<A>, time_unit: u64, body_len: usize) -> Header {
    let drops = batch.drops.iter();
    Header {
        epoch: batch.epoch,
        first_seq: batch.first_seq,
        count: batch.entries.len() as u32,
        base_time: batch.entries.first().map_or(0, |entry| entry.time),
        time_unit,
        boot: batch.clock.boot,
        sent_mono: batch.clock.sent_mono,
        clock: u8::from(batch.clock.synced),
        body_len: body_len as u32,
        drops: drops
            .map(|d| (d.from, d.to, d.count, d.severity.number(), d.reason as u8))
            .collect(),
    }
}

type Written = Result<(), rmp::encode::ValueWriteError<std::io::Error>>;

fn write_seqs<A>(batch: &Batch<A>, body: &mut Vec<u8>) -> Written {
    let consecutive = (batch.first_seq..)
        .zip(&batch.entries)
        .all(|(seq, entry)| entry.seq == seq);
    if consecutive {
        write_array_len(body, 0)?;
        return Ok(());
    }
    write_array_len(body, batch.entries.len() as u32)?;
    let mut before = batch.first_seq;
    for entry in &batch.entries {
        write_uint(body, entry.seq - before)?;
        before = entry.seq;
    }
    Ok(())
}

fn write_times<A>(batch: &Batch<A>, time_unit: u64, body: &mut Vec<u8>) -> Written {
    write_array_len(body, batch.entries.len() as u32)?;
    for step in time_steps(batch) {
        write_sint(body, step / time_unit as i64)?;
    }
    Ok(())
}

fn write_attributes<A: Attributed>(
    batch: &Batch<A>,
    body: &mut Vec<u8>,
) -> Result<(), EncodeError> {
    let having = || {
        (0u64..)
            .zip(&batch.entries)
            .map(|(index, entry)| (index, entry.attributes.form()))
            .filter(|(_, attributes)| attributes.len() > 0)
    };
    write_array_len(body, having().count() as u32).map_err(failed)?;
    let mut budget = value::Budget::default();
    for (index, attributes) in having() {
        write_array_len(body, 2).map_err(failed)?;
        write_uint(body, index).map_err(failed)?;
        attributes.write(&mut budget, body)?;
    }
    Ok(())
}

fn write_truncated<A>(batch: &Batch<A>, body: &mut Vec<u8>) -> Written {
    let cut = || {
        (0u64..)
            .zip(&batch.entries)
            .filter(|(_, entry)| entry.truncated)
    };
    write_array_len(body, cut().count() as u32)?;
    for (index, _) in cut() {
        write_uint(body, index)?;
    }
    Ok(())
}
