//! What an event costs on the wire, and how much work it is to get it there.
//!
//! `cargo bench -p thinglog-edge --bench wire [FILE...]`: for the generated syslog of the tests and for
//! each file of lines, in batches of 500: bytes an event as one JSON object each, as NDJSON compressed
//! by gzip and zstd, and as a batch, with the lines as they are and with their times taken out of them;
//! and the CPU time of encoding and decoding.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::{
    io::Write,
    process::{Command, Stdio},
    time::Instant,
};

use thinglog_schemas::{
    Attributes, Severity,
    batch::{Batch, ClockInfo, Decoder, Encoder, Entry},
    json,
};

#[path = "../tests/support/syslog.rs"]
mod syslog;
use syslog::Syslog;

const BATCH: usize = 500;

fn main() {
    let files: Vec<String> = std::env::args()
        .skip(1)
        .filter(|argument| !argument.starts_with("--"))
        .collect();
    println!("bytes an event in batches of {BATCH}; encoding and decoding in us an event");
    println!(
        "{:28} {:>6} {:>7} {:>9} {:>9} {:>7} {:>7} {:>7}",
        "", "line", "JSON", "gzip -6", "zstd -3", "batch", "encode", "decode"
    );
    let lines: Vec<syslog::Line> = Syslog::new(7).take(20 * BATCH).collect();
    let entry = |line: &syslog::Line, time, message| entry(time, line.severity, message);
    let raw = lines
        .iter()
        .map(|line| entry(line, line.arrived, line.raw()));
    measure("generated, as it arrives", raw.collect());
    let recognised = lines
        .iter()
        .map(|line| entry(line, line.time, line.rest.clone()));
    measure("generated, time recognised", recognised.collect());
    for file in files {
        let text = std::fs::read(&file).unwrap();
        let text = String::from_utf8_lossy(&text);
        // As a program writes them: some hundred microseconds apart, each at its own nanosecond.
        let arrivals = Syslog::new(8).map(|line| line.arrived);
        let lines = text
            .lines()
            .map(str::trim_end)
            .filter(|line| !line.is_empty());
        let entries = lines
            .zip(arrivals)
            .map(|(line, time)| self::entry(time, Severity::INFO, line.into()));
        let name = file.rsplit('/').next().unwrap_or_default();
        measure(name, entries.collect());
    }
}

fn entry(time: u64, severity: Severity, message: String) -> Entry {
    Entry {
        seq: 0,
        time,
        severity,
        message,
        truncated: false,
        attributes: Attributes::new(),
    }
}

/// One line of the table.
fn measure(name: &str, mut entries: Vec<Entry>) {
    let count = entries.len() as f64;
    let line: usize = entries.iter().map(|entry| entry.message.len()).sum();
    let (mut single, mut gzip, mut zstd, mut batches) = (0, 0, 0, Vec::new());
    let mut seq = 0;
    while !entries.is_empty() {
        let rest = entries.split_off(entries.len().min(BATCH));
        let mut batch = std::mem::replace(&mut entries, rest);
        let ndjson = ndjson(&batch);
        single += ndjson.len() - batch.len();
        gzip += gzipped(&ndjson);
        zstd += zstd::bulk::compress(&ndjson, 3).unwrap().len();
        let first_seq = seq;
        for entry in &mut batch {
            entry.seq = seq;
            seq += 1;
        }
        batches.push(self::batch(first_seq, batch));
    }
    let (mut encoder, mut decoder, mut out) = (Encoder::new(), Decoder::new(), Vec::new());
    let (mut bytes, rounds) = (0, 5);
    let mut payloads = Vec::new();
    let start = Instant::now();
    for round in 0..rounds {
        for batch in &batches {
            out.clear();
            encoder.encode(batch, &mut out).unwrap();
            if round == 0 {
                bytes += out.len();
                payloads.push(out.clone());
            }
        }
    }
    let encode = start.elapsed();
    let start = Instant::now();
    for _ in 0..rounds {
        for payload in &payloads {
            decoder.decode(payload).unwrap();
        }
    }
    let decode = start.elapsed();
    let each = |bytes: usize| bytes as f64 / count;
    let micros = |time: std::time::Duration| time.as_secs_f64() * 1e6 / count / f64::from(rounds);
    println!(
        "{name:28} {:6.1} {:7.1} {:9.2} {:9.2} {:7.2} {:7.2} {:7.2}",
        each(line),
        each(single),
        each(gzip),
        each(zstd),
        each(bytes),
        micros(encode),
        micros(decode),
    );
}

fn batch(first_seq: u64, entries: Vec<Entry>) -> Batch {
    Batch {
        epoch: 0x8D3F_0B6C_2A91_5E47,
        first_seq,
        clock: ClockInfo {
            boot: 0x1B2C_3D4E_5F60_7182,
            sent_mono: 0,
            synced: true,
        },
        drops: Vec::new(),
        entries,
    }
}

/// What a plain client would publish, an object a line.
fn ndjson(entries: &[Entry]) -> Vec<u8> {
    let mut out = Vec::new();
    for entry in entries {
        out.extend_from_slice(b"{\"time\":\"");
        json::write_time(entry.time, &mut out);
        let level = entry.severity.level().name();
        write!(out, "\",\"level\":\"{level}\",\"message\":").unwrap();
        json::write_value(&entry.message.as_str().into(), &mut out);
        out.extend_from_slice(b"}\n");
    }
    out
}

/// Its length after gzip -6.
fn gzipped(text: &[u8]) -> usize {
    let mut child = Command::new("gzip")
        .args(["-6", "-n", "-c"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("gzip");
    let mut stdin = child.stdin.take().unwrap();
    let text = text.to_vec();
    let writer = std::thread::spawn(move || stdin.write_all(&text).unwrap());
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    output.stdout.len()
}
