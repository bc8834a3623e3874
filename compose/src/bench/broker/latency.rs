//! Latency under a steady load: publishes at a fixed pace from many connections, timed to the
//! subscriber and to their acknowledgement, beside what one `fdatasync` takes on the same disk.

use std::{
    io::{ErrorKind, Read, Write},
    net::TcpStream,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use tokio::{io::Interest, task::JoinSet};

use super::{
    Settings,
    report::Figures,
    subject::{Running, Subject},
    wire::{self, PUBACK, PUBLISH, Template},
};

/// Publishes a second, all connections together.
const PACE: u64 = 5_000;
/// Connections they come from.
pub(super) const CONNECTIONS: usize = 50;
/// Unacknowledged publishes a connection keeps the time of: two seconds and more of its pace.
const TIMED: usize = 256;
/// How long a run's last messages may take.
const DRAIN: Duration = Duration::from_secs(2);
/// What a group of the durable log holds at this pace, about, bytes.
const GROUP: usize = 4 << 10;

/// What both sides of a run share.
struct Shared {
    start: Instant,
    is_measured: AtomicBool,
    stop: AtomicBool,
    /// For every connection, when the publish of a packet id was sent.
    sent: Vec<Vec<AtomicU64>>,
}

impl Shared {
    fn now(&self) -> u64 {
        self.start.elapsed().as_nanos() as u64
    }
}

/// One run against one broker.
pub(super) fn measure(
    settings: &Settings,
    subject: Subject,
    running: &Running,
    dir: &Path,
) -> anyhow::Result<Figures> {
    let version = settings.mqtt;
    let mut subscriber = wire::open(running.address, version, "bench-sub", settings.inflight)?;
    wire::subscribe(&mut subscriber, version, &subject.filter(), 1)?;
    let mut publishers = Vec::new();
    for number in 0..CONNECTIONS {
        let id = format!("bench-pub-{number}");
        let stream = wire::open(running.address, version, &id, settings.inflight)?;
        stream.set_nonblocking(true)?;
        publishers.push(stream);
    }
    let slots = || (0..TIMED).map(|_| AtomicU64::new(0)).collect();
    let shared = Arc::new(Shared {
        start: Instant::now(),
        is_measured: AtomicBool::new(false),
        stop: AtomicBool::new(false),
        sent: (0..CONNECTIONS).map(|_| slots()).collect(),
    });
    let size = settings.size;
    let before = sync_times(dir, settings.duration() / 10)?;
    let ends = subscriber.try_clone()?;
    let others = shared.clone();
    let deliveries = std::thread::spawn(move || receive(subscriber, size, &others));
    let readers = publishers
        .iter()
        .map(TcpStream::try_clone)
        .collect::<Result<Vec<_>, _>>()?;
    let others = shared.clone();
    let answers = std::thread::spawn(move || read_answers(readers, &others));
    let cpu = running.process.usage()?.cpu_seconds;
    pace(settings, subject, &mut publishers, &shared)?;
    let cpu = running.process.usage()?.cpu_seconds - cpu;
    std::thread::sleep(DRAIN.min(settings.duration()));
    shared.stop.store(true, Relaxed);
    let _ = ends.shutdown(std::net::Shutdown::Both);
    for stream in &publishers {
        let _ = stream.shutdown(std::net::Shutdown::Both);
    }
    let deliveries = deliveries.join();
    let mut deliveries = deliveries.map_err(|_| anyhow::anyhow!("the subscriber panicked"))??;
    let answers = answers.join();
    let mut answers = answers.map_err(|_| anyhow::anyhow!("a publisher panicked"))??;
    let mut syncs = before;
    syncs.extend(sync_times(dir, settings.duration() / 10)?);
    Ok(Figures::new(&[
        ("delivered p50 ms", percentile(&mut deliveries, 50)),
        ("delivered p99 ms", percentile(&mut deliveries, 99)),
        ("PUBACK p50 ms", percentile(&mut answers, 50)),
        ("PUBACK p99 ms", percentile(&mut answers, 99)),
        ("fdatasync p99 ms", percentile(&mut syncs, 99)),
        (
            "CPU",
            cpu / (settings.warm_up() + settings.duration()).as_secs_f64(),
        ),
    ]))
}

/// Sends at the pace, each connection in its turn. A publish that is late because this machine was busy
/// is timed from when it was sent: the delay was not the broker's.
fn pace(
    settings: &Settings,
    subject: Subject,
    publishers: &mut [TcpStream],
    shared: &Shared,
) -> anyhow::Result<()> {
    let template = |number| Template::new(settings.mqtt, &subject.topic(number), 1, settings.size);
    let mut templates: Vec<Template> = (0..publishers.len()).map(template).collect();
    let mut packet = Vec::new();
    let first = shared.start.elapsed();
    let gap = Duration::from_secs(1) / PACE as u32;
    let measured = first + settings.warm_up();
    let end = measured + settings.duration();
    for index in 0u64.. {
        let due = first + gap * index as u32;
        if due >= end {
            return Ok(());
        }
        shared.is_measured.store(due >= measured, Relaxed);
        if let Some(wait) = due.checked_sub(shared.start.elapsed()) {
            std::thread::sleep(wait);
        }
        let number = (index % publishers.len() as u64) as usize;
        let id = (index / publishers.len() as u64 % 65_535) as u16 + 1;
        let now = shared.now();
        shared.sent[number][usize::from(id) % TIMED].store(now, Relaxed);
        packet.clear();
        templates[number].put(id, now, &mut packet);
        write_all(&mut publishers[number], &packet)?;
    }
    Ok(())
}

/// Writes to a socket that its reader has made non-blocking.
fn write_all(stream: &mut TcpStream, mut packet: &[u8]) -> anyhow::Result<()> {
    while !packet.is_empty() {
        match stream.write(packet) {
            Ok(written) => packet = &packet[written..],
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                std::thread::sleep(Duration::from_micros(100));
            }
            Err(error) => return Err(error).context("the broker closed a publisher's connection"),
        }
    }
    Ok(())
}

/// Reads and acknowledges what the subscriber gets; gives its latencies in nanoseconds.
fn receive(mut stream: TcpStream, size: usize, shared: &Shared) -> anyhow::Result<Vec<u64>> {
    let mut input = vec![0; 64 << 10];
    let (mut filled, mut answers, mut latencies) = (0, Vec::new(), Vec::new());
    loop {
        let read = stream.read(&mut input[filled..]).unwrap_or(0);
        if read == 0 {
            if shared.stop.load(Relaxed) {
                return Ok(latencies);
            }
            bail!("the broker closed the subscriber's connection");
        }
        let now = shared.now();
        filled += read;
        let mut taken = 0;
        while let Some(frame) = wire::frame(&input[taken..filled])? {
            if frame.first & 0xf0 == PUBLISH {
                if let Some(sent) = frame.time(size)
                    && shared.is_measured.load(Relaxed)
                {
                    latencies.push(now.saturating_sub(sent));
                }
                if let Some(id) = frame.id() {
                    wire::put_puback(id, &mut answers);
                }
            }
            taken += frame.total;
        }
        input.copy_within(taken..filled, 0);
        filled -= taken;
        if !answers.is_empty() {
            stream.write_all(&answers)?;
            answers.clear();
        }
    }
}

/// Reads the acknowledgements of all publishers; gives their latencies in nanoseconds.
fn read_answers(streams: Vec<TcpStream>, shared: &Arc<Shared>) -> anyhow::Result<Vec<u64>> {
    super::super::runtime()?.block_on(async {
        let mut tasks = JoinSet::new();
        for (number, stream) in streams.into_iter().enumerate() {
            let stream = tokio::net::TcpStream::from_std(stream)?;
            tasks.spawn(read_answers_of(number, stream, shared.clone()));
        }
        let mut latencies = Vec::new();
        while let Some(done) = tasks.join_next().await {
            latencies.extend(done??);
        }
        Ok(latencies)
    })
}

async fn read_answers_of(
    number: usize,
    stream: tokio::net::TcpStream,
    shared: Arc<Shared>,
) -> anyhow::Result<Vec<u64>> {
    let mut latencies = Vec::new();
    let (mut input, mut filled) = ([0; 1024], 0);
    loop {
        stream.ready(Interest::READABLE).await?;
        let read = match stream.try_read(&mut input[filled..]) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => continue,
            read => read.unwrap_or(0),
        };
        if read == 0 {
            if shared.stop.load(Relaxed) {
                return Ok(latencies);
            }
            bail!("the broker closed a publisher's connection");
        }
        let now = shared.now();
        filled += read;
        let mut taken = 0;
        while let Some(frame) = wire::frame(&input[taken..filled])? {
            if let (PUBACK, Some(id)) = (frame.first, frame.id())
                && shared.is_measured.load(Relaxed)
            {
                let sent = shared.sent[number][usize::from(id) % TIMED].load(Relaxed);
                latencies.push(now.saturating_sub(sent));
            }
            taken += frame.total;
        }
        input.copy_within(taken..filled, 0);
        filled -= taken;
    }
}

/// What appending a group and syncing it takes, over and over for `span`, in nanoseconds.
fn sync_times(dir: &Path, span: Duration) -> anyhow::Result<Vec<u64>> {
    let path = dir.join("sync-probe");
    let mut file = std::fs::File::create(&path)?;
    let (group, mut times, start) = (vec![b'x'; GROUP], Vec::new(), Instant::now());
    while start.elapsed() < span || times.is_empty() {
        let begun = Instant::now();
        file.write_all(&group)?;
        file.sync_data()?;
        times.push(begun.elapsed().as_nanos() as u64);
    }
    std::fs::remove_file(&path)?;
    Ok(times)
}

/// A percentile of nanoseconds, in milliseconds; none without values.
fn percentile(values: &mut [u64], percent: usize) -> f64 {
    values.sort_unstable();
    let index = (values.len() * percent / 100).min(values.len().saturating_sub(1));
    values
        .get(index)
        .map_or(f64::NAN, |value| *value as f64 / 1e6)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_99th_of_a_hundred_is_the_largest_but_none() {
        let mut values: Vec<u64> = (1..=100).rev().map(|ms| ms * 1_000_000).collect();
        assert_eq!(percentile(&mut values, 50), 51.0);
        assert_eq!(percentile(&mut values, 99), 100.0);
        assert!(percentile(&mut [], 99).is_nan());
    }
}
