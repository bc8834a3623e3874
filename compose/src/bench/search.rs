//! `thinglog bench search`: what searches cost those who deliver. Events go end to end into a store, without
//! and with full scans of it running all the while, in turns; the ratio of the two rates is the answer.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Instant;

use anyhow::Context;
use clap::Args;
use serde_json::{Value, json};

use super::input::Input;
use super::load::Plan;
use super::process::free_address;
use super::{get, publish_batches, runtime, scratch, start_up, wait_for_delivery};

/// A pattern without letters: nothing can be passed over.
const PATTERN: &str = "%5B0-9%5D%7B3%7D%5B%5E0-9%20%5D%5B0-9%5D%7B3%7Dx";

/// Options of `thinglog bench search`.
#[derive(Args, Clone, Debug)]
pub(crate) struct SearchArgs {
    /// Events that are in the store before anything is measured.
    #[arg(long, default_value_t = 3_000_000, value_parser = clap::value_parser!(u64).range(1..))]
    fill: u64,
    /// Events of one run.
    #[arg(long, default_value_t = 2_000_000, value_parser = clap::value_parser!(u64).range(1..))]
    events: u64,
    /// Runs without and with searches each; medians are printed.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=100))]
    runs: u64,
    /// Full scans at a time.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=10))]
    scans: u64,
    /// A text file whose lines are the messages, in place of made-up ones.
    #[arg(long, value_name = "FILE")]
    input: Option<PathBuf>,
    /// Where data goes during a run (a temporary directory on the disk to be measured).
    #[arg(long, value_name = "DIR", default_value = ".")]
    dir: PathBuf,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// One run.
#[derive(Clone, Copy, Debug, Default)]
struct Run {
    /// Events a second, from the first publish until all are in the store.
    rate: f64,
    /// Scans that were answered, and blocks they read.
    scans: u64,
    blocks: u64,
    seconds: f64,
}

/// Runs the benchmark and prints its figures.
pub(super) fn run(args: &SearchArgs) -> anyhow::Result<()> {
    let input = match &args.input {
        Some(path) => Input::from_file(path)?,
        None => Input::synthetic(140),
    };
    let dir = scratch(&args.dir)?;
    let (mqtt, http) = (free_address()?, free_address()?);
    let _process = start_up(dir.path(), (mqtt, http), "store")?;
    let mut delivered = 0;
    let mut deliver = |events: u64| -> anyhow::Result<f64> {
        let plan = Plan {
            broker: mqtt,
            connections: 4,
            inflight: 0,
            events,
            input: input.clone(),
        };
        let start = Instant::now();
        runtime()?.block_on(publish_batches(&plan))?;
        delivered += events;
        wait_for_delivery(http, "store", delivered)?;
        Ok(start.elapsed().as_secs_f64())
    };
    deliver(args.fill)?;
    let (mut alone, mut searched) = (Vec::new(), Vec::new());
    for number in 1..=args.runs {
        eprintln!("run {number}/{}", args.runs);
        let seconds = deliver(args.events)?;
        alone.push(Run {
            rate: args.events as f64 / seconds,
            seconds,
            ..Run::default()
        });
        let scans = Scans::start(http, args.scans);
        let seconds = deliver(args.events)?;
        let (count, blocks) = scans.end()?;
        searched.push(Run {
            rate: args.events as f64 / seconds,
            scans: count,
            blocks,
            seconds,
        });
    }
    print(args, &alone, &searched);
    Ok(())
}

/// Full scans, one after the other in each of some threads, until they are ended.
struct Scans {
    threads: Vec<JoinHandle<anyhow::Result<u64>>>,
    is_over: Arc<AtomicBool>,
    blocks: Arc<AtomicU64>,
}

impl Scans {
    fn start(http: std::net::SocketAddr, count: u64) -> Scans {
        let (is_over, blocks) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let thread = |_| {
            let (is_over, blocks) = (Arc::clone(&is_over), Arc::clone(&blocks));
            std::thread::spawn(move || {
                let path = format!("/api/v1/logs/counts?since=2d&step=1h&grep={PATTERN}");
                let mut scans = 0;
                while !is_over.load(Ordering::Relaxed) {
                    let answer = get(http, &path)?.context("a search was refused")?;
                    let answer: Value = serde_json::from_str(&answer)?;
                    let read = answer["effort"]["read"].as_u64().unwrap_or_default();
                    blocks.fetch_add(read, Ordering::Relaxed);
                    scans += 1;
                }
                Ok(scans)
            })
        };
        Scans {
            threads: (0..count).map(thread).collect(),
            is_over,
            blocks,
        }
    }

    /// Scans that were answered, and blocks they read.
    fn end(self) -> anyhow::Result<(u64, u64)> {
        self.is_over.store(true, Ordering::Relaxed);
        let mut scans = 0;
        for thread in self.threads {
            let done = thread.join();
            scans += done.map_err(|_| anyhow::anyhow!("a scan panicked"))??;
        }
        Ok((scans, self.blocks.load(Ordering::Relaxed)))
    }
}

fn median(runs: &[Run]) -> f64 {
    let mut rates: Vec<f64> = runs.iter().map(|run| run.rate).collect();
    rates.sort_by(f64::total_cmp);
    match rates.len() % 2 {
        1 => rates[rates.len() / 2],
        _ => (rates[rates.len() / 2 - 1] + rates[rates.len() / 2]) / 2.0,
    }
}

fn print(args: &SearchArgs, alone: &[Run], searched: &[Run]) {
    let ratio = median(searched) / median(alone);
    let mut out = String::new();
    if args.json {
        let rates = |runs: &[Run]| runs.iter().map(|run| run.rate).collect::<Vec<_>>();
        let answer = json!({
            "alone": rates(alone), "searched": rates(searched), "ratio": ratio, "scans_at_a_time": args.scans,
            "scans": searched.iter().map(|run| run.scans).collect::<Vec<_>>(),
            "blocks": searched.iter().map(|run| run.blocks).collect::<Vec<_>>(),
        });
        let _ = writeln!(out, "{answer}");
    } else {
        for (alone, searched) in alone.iter().zip(searched) {
            let _ = writeln!(
                out,
                "{:.0} events/s without searches, {:.0} with {} scans at a time ({} answered in {:.1} s, {} blocks read)",
                alone.rate,
                searched.rate,
                args.scans,
                searched.scans,
                searched.seconds,
                searched.blocks,
            );
        }
        let _ = writeln!(
            out,
            "median {:.0} and {:.0}: with searches {:.0}% of the rate is left",
            median(alone),
            median(searched),
            ratio * 100.0
        );
    }
    let _ = std::io::stdout().write_all(out.as_bytes());
}
