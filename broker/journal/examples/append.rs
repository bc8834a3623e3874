//! How fast the journal is beside the disk it stands on: appends with group commit, then a bare loop
//! of write and fdatasync with the very same groups, in turns; the cost of one `append`; and how
//! long reopening takes.
//!
//! `cargo run --release -p thinglog-journal --example append -- [DIR] [MIB] [RECORD_BYTES] [RUNS]`

#![allow(clippy::print_stdout)]

use std::error::Error;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use thinglog_journal::{AppendError, Journal, Options, Outcome, Records, fs::RealFs};

/// Bytes of a record besides its payload.
const FRAME: usize = 24;
/// Records of one append, as a client's burst.
const BURST: usize = 50;

struct Setup {
    dir: PathBuf,
    bytes: usize,
    record: usize,
    runs: usize,
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let dir = args.next().map_or_else(
        || std::env::temp_dir().join("thinglog-append"),
        PathBuf::from,
    );
    let mut number = |default: usize| args.next().map_or(Ok(default), |arg| arg.parse());
    let setup = Setup {
        bytes: number(1024)? << 20,
        record: number(200)?,
        runs: number(5)?,
        dir,
    };
    let cores = std::thread::available_parallelism()?;
    println!(
        "{cores} cores, {}",
        fs::read_to_string("/proc/version")
            .unwrap_or_default()
            .trim()
    );
    println!(
        "{} MiB of {}-byte records, {} an append, in {}",
        setup.bytes >> 20,
        setup.record,
        BURST,
        setup.dir.display()
    );
    let mut ratios = Vec::new();
    for run in 1..=setup.runs {
        let (groups, journal) = append(&setup)?;
        let reopened = reopen(&setup)?;
        let bare = bare(&setup, &groups)?;
        let mean = groups.iter().sum::<usize>() / groups.len().max(1);
        let speed = |took: Duration| groups.iter().sum::<usize>() as f64 / 1e6 / took.as_secs_f64();
        println!(
            "run {run}: journal {:.0} MB/s, bare {:.0} MB/s, ratio {:.2}; {} groups of {} KiB; \
             reopened in {:.1} ms, after a kill in {:.1} ms",
            speed(journal),
            speed(bare),
            bare.as_secs_f64() / journal.as_secs_f64(),
            groups.len(),
            mean >> 10,
            reopened[0].as_secs_f64() * 1e3,
            reopened[1].as_secs_f64() * 1e3,
        );
        ratios.push(bare.as_secs_f64() / journal.as_secs_f64());
    }
    ratios.sort_by(f64::total_cmp);
    println!("median ratio {:.2}", ratios[ratios.len() / 2]);
    println!("one append of one record: {:.0} ns", one_by_one(&setup)?);
    fs::remove_dir_all(&setup.dir)?;
    Ok(())
}

fn options() -> Options {
    Options {
        max_bytes: 64 << 30,
        ..Options::default()
    }
}

fn open(dir: &Path) -> Result<Journal, Box<dyn Error>> {
    Ok(Journal::open(Arc::new(RealFs), dir, options())?.0)
}

fn fresh(setup: &Setup) -> Result<(), Box<dyn Error>> {
    if setup.dir.exists() {
        fs::remove_dir_all(&setup.dir)?;
    }
    Ok(fs::create_dir_all(&setup.dir)?)
}

/// Bytes of every group, and the time for all of them to be durable.
fn append(setup: &Setup) -> Result<(Vec<usize>, Duration), Box<dyn Error>> {
    fresh(setup)?;
    let journal = open(&setup.dir)?;
    let frame = setup.record + FRAME;
    let groups = Arc::new(Mutex::new((0, Vec::new())));
    let writer = groups.clone();
    journal.on_settled(move |settled| {
        let mut groups = writer
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        let records = (settled - groups.0) as usize;
        groups.0 = settled;
        groups.1.push(records * frame);
    });
    let mut records = Records::new();
    for n in 0..BURST {
        records.push(&vec![n as u8; setup.record]);
    }
    let started = Instant::now();
    let mut last = 0;
    while (last as usize) * frame < setup.bytes {
        match journal.append(1, &records) {
            Ok(range) => last = range.end,
            Err(AppendError::Busy) => drop(journal.wait(journal.settled())),
            Err(error) => return Err(error.into()),
        }
    }
    if journal.wait(last - 1) != Outcome::Durable {
        return Err("not durable".into());
    }
    let took = started.elapsed();
    drop(journal);
    let groups = std::mem::take(
        &mut groups
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .1,
    );
    Ok((groups, took))
}

/// After an orderly close, and with the last segment to be scanned.
fn reopen(setup: &Setup) -> Result<[Duration; 2], Box<dyn Error>> {
    let started = Instant::now();
    let journal = open(&setup.dir)?;
    let orderly = started.elapsed();
    drop(journal);
    let mut indexes: Vec<PathBuf> = fs::read_dir(&setup.dir)?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<_, _>>()?;
    indexes.retain(|path| path.extension().is_some_and(|extension| extension == "idx"));
    indexes.sort();
    if let Some(last) = indexes.last() {
        fs::remove_file(last)?;
    }
    let started = Instant::now();
    let journal = open(&setup.dir)?;
    let killed = started.elapsed();
    drop(journal);
    Ok([orderly, killed])
}

/// The time to write and sync the same groups with nothing in between.
fn bare(setup: &Setup, groups: &[usize]) -> Result<Duration, Box<dyn Error>> {
    fresh(setup)?;
    let buf = vec![7; groups.iter().copied().max().unwrap_or(0)];
    let mut file: Option<File> = None;
    let mut written = 0;
    let started = Instant::now();
    for (n, group) in groups.iter().enumerate() {
        let mut current = match file.take() {
            Some(file) if written + group <= 64 << 20 => file,
            _ => {
                written = 0;
                OpenOptions::new()
                    .create_new(true)
                    .append(true)
                    .open(setup.dir.join(n.to_string()))?
            }
        };
        current.write_all(&buf[..*group])?;
        current.sync_data()?;
        written += group;
        file = Some(current);
    }
    Ok(started.elapsed())
}

/// ns of one append of one record, as long as the disk does not push back.
fn one_by_one(setup: &Setup) -> Result<f64, Box<dyn Error>> {
    fresh(setup)?;
    let journal = open(&setup.dir)?;
    let payload = vec![7; setup.record];
    let mut records = Records::new();
    let mut spent = Duration::ZERO;
    let mut appended = 0u32;
    for _ in 0..50 {
        let started = Instant::now();
        for _ in 0..10_000 {
            records.clear();
            records.push(&payload);
            journal.append(1, &records)?;
        }
        spent += started.elapsed();
        appended += 10_000;
        journal.wait(journal.next() - 1);
    }
    Ok(spent.as_nanos() as f64 / f64::from(appended))
}
