//! Claims about the whole journal.

mod basics;
mod damage;
mod faults;
mod fixture;
mod fuzz;
mod load;
mod model;
mod replace;

use std::path::Path;
use std::sync::Arc;

use crate::fs::RealFs;
use crate::sim::SimFs;
use crate::{Journal, Options, Outcome, Reader, Records, Recovery};

/// Where simulated journals live.
const DIR: &str = "/sim";

fn small() -> Options {
    Options {
        segment_bytes: 4 << 10,
        max_bytes: 64 << 10,
        ..Options::default()
    }
}

fn open(dir: &Path, options: Options) -> (Journal, Recovery) {
    Journal::open(Arc::new(RealFs), dir, options).unwrap()
}

fn boot(fs: &SimFs, options: Options) -> (Journal, Recovery) {
    Journal::open(fs.boot(), Path::new(DIR), options).unwrap()
}

/// Appends one record and waits for what becomes of it.
fn try_put(journal: &Journal, time: u64, payload: &[u8]) -> (u64, Outcome) {
    let mut records = Records::new();
    records.push(payload);
    let offset = journal.append(time, &records).unwrap().start;
    (offset, journal.wait(offset))
}

/// Appends one record and waits until it is durable.
fn put(journal: &Journal, time: u64, payload: &[u8]) -> u64 {
    let (offset, outcome) = try_put(journal, time, payload);
    assert_eq!(outcome, Outcome::Durable);
    offset
}

fn drain(reader: &mut Reader) -> Vec<(u64, u64, Vec<u8>)> {
    let mut all = Vec::new();
    while let Some(chunk) = reader.read(1 << 20).unwrap() {
        all.extend(
            chunk
                .records()
                .map(|r| (r.offset, r.time, r.payload.to_vec())),
        );
    }
    all
}

fn offsets(reader: &mut Reader) -> Vec<u64> {
    drain(reader)
        .into_iter()
        .map(|(offset, ..)| offset)
        .collect()
}
