//! `thinglog bench`: publishers through a real broker and router into a file, and what it cost.
//!
//! Every run starts `thinglog up` as a process of its own on a fresh data directory, so that CPU time
//! and memory are those of broker and router alone; the clock stops when every event is synced in
//! the file. Afterwards the file is read and every event counted.

mod broker;
mod input;
mod load;
mod peer;
mod process;
mod report;
mod search;
mod verify;

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use clap::{Args, Subcommand, ValueEnum};
use thinglog_edge::{Publisher, Record};
use thinglog_schemas::Severity;

use self::{
    input::Input,
    load::Plan,
    process::{Process, free_address},
    report::{Report, Run},
};

/// Longest a run may take without a further event arriving.
const PATIENCE: Duration = Duration::from_secs(60);

/// Options of `thinglog bench`.
#[derive(Args, Clone, Debug)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct BenchArgs {
    #[command(subcommand)]
    alone: Option<Alone>,
    /// How events are published.
    #[arg(long, value_enum, default_value = "both")]
    mode: Mode,
    /// Events of one run.
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1..))]
    events: u64,
    /// Publishers: devices of the embedded publisher, or MQTT connections of single events
    /// [default: 4 and 50].
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=1000))]
    publishers: Option<u64>,
    /// Unacknowledged publishes of one MQTT connection, for single events.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u16).range(1..))]
    inflight: u16,
    /// Bytes of a made-up event.
    #[arg(long, default_value_t = 140)]
    size: usize,
    /// A text file whose lines are the messages, in place of made-up ones.
    #[arg(long, value_name = "FILE")]
    input: Option<PathBuf>,
    /// Runs; the median is printed as well when there are several.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=100))]
    runs: u64,
    /// Run mosquitto and mosquitto_sub > file on the same input, in turns.
    #[arg(long)]
    peer: bool,
    /// Where data goes during a run (a temporary directory on the disk to be measured).
    #[arg(long, value_name = "DIR", default_value = ".")]
    dir: PathBuf,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// A part measured by itself.
#[derive(Clone, Debug, Subcommand)]
enum Alone {
    /// Measure the broker alone, beside mosquitto
    #[command(after_help = "\
Examples:
  thinglog bench broker                  everything, about half an hour
  thinglog bench broker --only latency   one part
  thinglog bench broker --runs 1 --seconds 1 --clients 200
                                         to see that it works

mosquitto (Debian's package) runs with persistence off, without queue limits, and with a window of
100; a broker's files are in a directory of their own below --dir.")]
    Broker(broker::BrokerArgs),
    /// Measure what searches cost those who deliver
    #[command(after_help = "\
Examples:
  thinglog bench search                  about five minutes
  thinglog bench search --runs 1 --fill 100000 --events 100000
                                         to see that it works

Events go through broker and router into a store, without and with three full scans of it running all the
while, in turns; of several runs the medians count.")]
    Search(search::SearchArgs),
}

/// What one PUBLISH holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Mode {
    /// Batches of the embedded publisher.
    Batches,
    /// One JSON event a PUBLISH at QoS 1.
    Single,
    /// First batches, then single events.
    Both,
}

/// Runs the benchmark and prints its figures.
pub(crate) fn run(args: &BenchArgs) -> anyhow::Result<()> {
    match &args.alone {
        Some(Alone::Broker(args)) => return broker::run(args),
        Some(Alone::Search(args)) => return search::run(args),
        None => {}
    }
    let input = match &args.input {
        Some(path) => Input::from_file(path)?,
        None => Input::synthetic(args.size),
    };
    let modes: &[Mode] = match args.mode {
        Mode::Both => &[Mode::Batches, Mode::Single],
        Mode::Batches => &[Mode::Batches],
        Mode::Single => &[Mode::Single],
    };
    let mut report = Report::new(args);
    for mode in modes {
        for number in 1..=args.runs {
            report.progress(&format!("{} {number}/{}", name(*mode), args.runs));
            report.add(measure(args, *mode, &input)?);
            if args.peer && *mode == Mode::Single {
                report.progress(&format!("mosquitto {number}/{}", args.runs));
                report.add(peer::measure(
                    args,
                    &plan(args, *mode, &input, free_address()?),
                )?);
            }
        }
    }
    report.print();
    Ok(())
}

fn name(mode: Mode) -> &'static str {
    match mode {
        Mode::Batches => "batches",
        Mode::Single | Mode::Both => "single events",
    }
}

fn plan(args: &BenchArgs, mode: Mode, input: &Input, broker: std::net::SocketAddr) -> Plan {
    let publishers = if mode == Mode::Batches { 4 } else { 50 };
    Plan {
        broker,
        connections: args.publishers.unwrap_or(publishers),
        inflight: args.inflight,
        events: args.events,
        input: input.clone(),
    }
}

fn scratch(dir: &Path) -> anyhow::Result<tempfile::TempDir> {
    tempfile::Builder::new()
        .prefix("thinglog-bench-")
        .tempdir_in(dir)
        .with_context(|| format!("cannot write in {} (--dir says where)", dir.display()))
}

/// One run of broker and router.
fn measure(args: &BenchArgs, mode: Mode, input: &Input) -> anyhow::Result<Run> {
    let dir = scratch(&args.dir)?;
    let (mqtt, http) = (free_address()?, free_address()?);
    let data = dir.path().join("data");
    let process = start_up(dir.path(), (mqtt, http), "file")?;
    let idle = process.usage()?;
    let plan = plan(args, mode, input, mqtt);
    let start = Instant::now();
    let wire_bytes = runtime()?.block_on(async {
        match mode {
            Mode::Batches => publish_batches(&plan).await,
            Mode::Single | Mode::Both => load::publish(&plan).await,
        }
    })?;
    let acknowledged = start.elapsed();
    wait_for_delivery(http, "file", plan.events)?;
    let elapsed = start.elapsed();
    let usage = process.usage()?;
    drop(process);
    let verdict = verify::verify(&verify::output_files(&data)?, plan.events)?;
    let floor = bare_write(&dir.path().join("floor"), verdict.bytes)?;
    Ok(Run {
        subject: format!("thinglog, {}", name(mode)),
        events: plan.events,
        seconds: elapsed.as_secs_f64(),
        acknowledged_seconds: acknowledged.as_secs_f64(),
        cpu_seconds: usage.cpu_seconds - idle.cpu_seconds,
        peak_bytes: usage.peak,
        idle_bytes: idle.resident,
        wire_bytes,
        output_bytes: verdict.bytes,
        lost: verdict.lost,
        duplicated: verdict.duplicated,
        floor_seconds: Some(floor.as_secs_f64()),
    })
}

/// This program, with nothing configured by the environment.
fn own_command() -> anyhow::Result<Command> {
    let program = std::env::current_exe().context("cannot find this program")?;
    let mut command = Command::new(program);
    let keys = std::env::vars_os().map(|(key, _)| key);
    for key in keys.filter(|key| key.to_string_lossy().starts_with("THINGLOG_")) {
        command.env_remove(key);
    }
    Ok(command)
}

/// Broker and router with one destination of a type, which its name is too, when they are ready.
fn start_up(
    dir: &Path,
    (mqtt, http): (std::net::SocketAddr, std::net::SocketAddr),
    destination: &str,
) -> anyhow::Result<Process> {
    let config = dir.join("thinglog.toml");
    let text = format!(
        "data = {data:?}\n\n[broker]\nlisten = \"{mqtt}\"\n\n[router.http]\naddress = \"{http}\"\n\n\
         [router.destinations.{destination}]\ntype = \"{destination}\"\n",
        data = dir.join("data").display().to_string(),
    );
    std::fs::write(&config, text)?;
    let mut command = own_command()?;
    command.arg("up").arg("--config").arg(&config);
    command.stdout(Stdio::null());
    let mut process = Process::start("thinglog up", &mut command, &dir.join("log"))?;
    process.wait_for(mqtt)?;
    process.wait_for(http)?;
    wait_until_ready(http)?;
    Ok(process)
}

fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start a runtime")
}

/// Publishes through the embedded publisher, one for each device; returns when all is acknowledged,
/// with the bytes sent.
async fn publish_batches(plan: &Plan) -> anyhow::Result<u64> {
    let publish = |device| {
        let plan = plan.clone();
        std::thread::spawn(move || publish_device(&plan, device))
    };
    let threads: Vec<_> = (0..plan.connections).map(publish).collect();
    let mut wire_bytes = 0;
    for thread in threads {
        let sent = thread.join();
        wire_bytes += sent.map_err(|_| anyhow::anyhow!("a publisher panicked"))??;
    }
    Ok(wire_bytes)
}

fn publish_device(plan: &Plan, device: u64) -> anyhow::Result<u64> {
    let publisher = Publisher::builder(&format!("bench-{device:03}"))
        .broker(plan.broker.ip().to_string(), plan.broker.port())
        .start()?;
    let source: std::sync::Arc<str> = "app".into();
    for index in 0..plan.share(device) {
        let line = plan.input.line(device * 7919 + index);
        if !publisher.emit_blocking(Record::new(source.clone(), Severity::INFO, line)) {
            bail!("a publisher has ended");
        }
    }
    if !publisher.close_blocking(PATIENCE) {
        bail!(
            "not everything was acknowledged: {:?}",
            publisher.counters()
        );
    }
    Ok(publisher.counters().payload_bytes)
}

/// Asks an HTTP endpoint; the body when the status is 200.
fn get(address: std::net::SocketAddr, path: &str) -> anyhow::Result<Option<String>> {
    use std::io::{Read, Write};
    let mut stream = std::net::TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n"
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer
        .split_once("\r\n\r\n")
        .context("not an HTTP answer")?;
    Ok(head.contains(" 200 ").then(|| body.to_owned()))
}

fn wait_until_ready(http: std::net::SocketAddr) -> anyhow::Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while get(http, "/readyz")?.is_none() {
        if Instant::now() > deadline {
            bail!("not ready in time: http://{http}/readyz says why");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// Waits until a destination has committed `events` events.
fn wait_for_delivery(
    http: std::net::SocketAddr,
    destination: &str,
    events: u64,
) -> anyhow::Result<()> {
    let (mut last, mut moved) = (0, Instant::now());
    loop {
        let metrics = get(http, "/metrics")?.context("no metrics")?;
        let delivered = delivered(&metrics, destination);
        if delivered >= events {
            return Ok(());
        }
        if delivered > last {
            (last, moved) = (delivered, Instant::now());
        }
        if moved.elapsed() > PATIENCE {
            bail!("only {delivered} of {events} events arrived");
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn delivered(metrics: &str, destination: &str) -> u64 {
    let destination = format!("destination=\"{destination}\"");
    let line = metrics.lines().find(|line| {
        line.starts_with("thinglog_router_events_total{")
            && line.contains(&destination)
            && line.contains("outcome=\"delivered\"")
    });
    line.and_then(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
        .unwrap_or(0.0) as u64
}

/// The floor: writing the same number of bytes and syncing them, 1 MiB at a time, and nothing else.
fn bare_write(path: &Path, bytes: u64) -> anyhow::Result<Duration> {
    use std::io::Write;
    let block = vec![b'x'; 1 << 20];
    let mut file = std::fs::File::create(path)?;
    let start = Instant::now();
    let mut left = bytes;
    while left > 0 {
        let now = left.min(block.len() as u64);
        file.write_all(&block[..now as usize])?;
        file.sync_data()?;
        left -= now;
    }
    let elapsed = start.elapsed();
    std::fs::remove_file(path)?;
    Ok(elapsed)
}
