//! Messages for each CPU second of the broker: publishers as fast as it takes them, with and without a
//! subscriber that gets everything.

use std::{
    io::{Read, Write},
    net::TcpStream,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use bytes::{Buf, BytesMut};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    task::JoinSet,
};

use super::{
    Settings,
    report::Figures,
    subject::{Running, Subject},
    wire::{self, PINGREQ, PINGRESP, PUBACK, PUBLISH, Template},
};

/// Messages that may be on their way to the subscriber: enough to keep every part busy, and few enough
/// that no broker has to drop any at QoS 0.
const MOST_UNDER_WAY: u64 = 5_000;
/// At QoS 0 a connection asks with PINGREQ how far the broker has come, once in so many messages, and
/// has no more than a few times that many under way: a socket's buffer is not the broker's work.
const ASK_EVERY: u64 = 500;
const UNASKED: u64 = 4 * ASK_EVERY;
/// Publishes written at once at QoS 0.
const WRITTEN_AT_ONCE: u64 = 64;
/// How long what is under way at the end may take to arrive.
const DRAIN: Duration = Duration::from_secs(10);

/// The load of one scenario.
#[derive(Clone, Copy, Debug)]
pub(super) struct Load {
    pub(super) publishers: usize,
    pub(super) qos: u8,
    pub(super) is_subscribed: bool,
}

impl Load {
    pub(super) fn name(&self) -> String {
        format!(
            "QoS {}, {} publisher{}{}",
            self.qos,
            self.publishers,
            if self.publishers == 1 { "" } else { "s" },
            if self.is_subscribed {
                ", subscriber"
            } else {
                ""
            },
        )
    }
}

#[derive(Default)]
struct Counts {
    published: AtomicU64,
    /// By PUBACK, or at QoS 0 by PINGRESP.
    acknowledged: AtomicU64,
    delivered: AtomicU64,
    stop: AtomicBool,
}

impl Counts {
    /// Published and not yet delivered.
    fn under_way(&self) -> u64 {
        let published = self.published.load(Relaxed);
        published.saturating_sub(self.delivered.load(Relaxed))
    }

    /// What counts as handled: the last thing that the load has happen to a message.
    fn handled(&self, load: Load) -> u64 {
        match load.is_subscribed {
            true => self.delivered.load(Relaxed),
            false => self.acknowledged.load(Relaxed),
        }
    }
}

/// One run against one broker.
pub(super) fn measure(
    settings: &Settings,
    subject: Subject,
    running: &Running,
    load: Load,
) -> anyhow::Result<Figures> {
    let counts = Arc::new(Counts::default());
    let subscriber = load
        .is_subscribed
        .then(|| start_subscriber(settings, subject, running, load, counts.clone()))
        .transpose()?;
    let publishers = start_publishers(settings, subject, running, load, counts.clone())?;
    std::thread::sleep(settings.warm_up());
    let before = (running.process.usage()?, counts.handled(load));
    let start = Instant::now();
    std::thread::sleep(settings.duration());
    let after = (running.process.usage()?, counts.handled(load));
    let seconds = start.elapsed().as_secs_f64();
    counts.stop.store(true, Relaxed);
    let joined = publishers.join();
    joined.map_err(|_| anyhow::anyhow!("a publisher panicked"))??;
    let mut lost = 0;
    if let Some((stream, thread)) = subscriber {
        lost = drain(&counts);
        // What ends its read.
        let _ = stream.shutdown(std::net::Shutdown::Both);
        let joined = thread.join();
        joined.map_err(|_| anyhow::anyhow!("the subscriber panicked"))??;
    }
    let messages = (after.1 - before.1) as f64;
    // No less than one tick of the clock that CPU time is counted in.
    let cpu = (after.0.cpu_seconds - before.0.cpu_seconds).max(0.01);
    Ok(Figures::new(&[
        ("messages/s", messages / seconds),
        ("messages/CPU s", messages / cpu),
        ("CPU", cpu / seconds),
        ("peak MB", after.0.peak as f64 / 1e6),
        ("lost", lost as f64),
    ]))
}

/// Waits for what is under way; gives the messages that never arrived.
fn drain(counts: &Counts) -> u64 {
    let (mut last, mut moved) = (counts.under_way(), Instant::now());
    while counts.under_way() > 0 && moved.elapsed() < DRAIN {
        if counts.under_way() < last {
            (last, moved) = (counts.under_way(), Instant::now());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    counts.under_way()
}

type Subscriber = (TcpStream, JoinHandle<anyhow::Result<()>>);

fn start_subscriber(
    settings: &Settings,
    subject: Subject,
    running: &Running,
    load: Load,
    counts: Arc<Counts>,
) -> anyhow::Result<Subscriber> {
    let version = settings.mqtt;
    let mut stream = wire::open(running.address, version, "bench-sub", settings.inflight)?;
    wire::subscribe(&mut stream, version, &subject.filter(), load.qos)?;
    let other = stream.try_clone()?;
    let thread = std::thread::spawn(move || receive(stream, &counts));
    Ok((other, thread))
}

fn receive(mut stream: TcpStream, counts: &Counts) -> anyhow::Result<()> {
    let mut input = vec![0; 256 << 10];
    let (mut filled, mut answers) = (0, Vec::new());
    loop {
        let read = match stream.read(&mut input[filled..]) {
            Ok(read) => read,
            Err(_) if counts.stop.load(Relaxed) => 0,
            Err(error) => return Err(error).context("the subscriber's connection broke"),
        };
        if read == 0 {
            if counts.stop.load(Relaxed) {
                return Ok(());
            }
            bail!("the broker closed the subscriber's connection");
        }
        filled += read;
        let (mut taken, mut messages) = (0, 0);
        while let Some(frame) = wire::frame(&input[taken..filled])? {
            if frame.first & 0xf0 == PUBLISH {
                messages += 1;
                if let Some(id) = frame.id() {
                    wire::put_puback(id, &mut answers);
                }
            }
            taken += frame.total;
        }
        input.copy_within(taken..filled, 0);
        filled -= taken;
        counts.delivered.fetch_add(messages, Relaxed);
        if !answers.is_empty() {
            stream.write_all(&answers)?;
            answers.clear();
        }
    }
}

/// All publishers, on one thread.
fn start_publishers(
    settings: &Settings,
    subject: Subject,
    running: &Running,
    load: Load,
    counts: Arc<Counts>,
) -> anyhow::Result<JoinHandle<anyhow::Result<()>>> {
    let mut publishers = Vec::new();
    for number in 0..load.publishers {
        let client_id = format!("bench-pub-{number}");
        let stream = wire::open(
            running.address,
            settings.mqtt,
            &client_id,
            settings.inflight,
        )?;
        stream.set_nonblocking(true)?;
        let topic = subject.topic(number);
        let template = Template::new(settings.mqtt, &topic, load.qos, settings.size);
        publishers.push((stream, template));
    }
    let inflight = u64::from(settings.inflight);
    let runtime = super::super::runtime()?;
    Ok(std::thread::spawn(move || {
        runtime.block_on(async {
            let mut tasks = JoinSet::new();
            for (stream, template) in publishers {
                let publisher = Publisher {
                    stream: tokio::net::TcpStream::from_std(stream)?,
                    template,
                    load,
                    inflight,
                    counts: counts.clone(),
                    sent: 0,
                    acknowledged: 0,
                    unanswered: 0,
                    input: BytesMut::new(),
                };
                tasks.spawn(publisher.run());
            }
            while let Some(done) = tasks.join_next().await {
                done??;
            }
            Ok(())
        })
    }))
}

/// One publisher's connection.
struct Publisher {
    stream: tokio::net::TcpStream,
    template: Template,
    load: Load,
    inflight: u64,
    counts: Arc<Counts>,
    sent: u64,
    acknowledged: u64,
    /// PINGREQs.
    unanswered: u64,
    input: BytesMut,
}

impl Publisher {
    /// Publishes until told to stop, then waits for the acknowledgements.
    async fn run(mut self) -> anyhow::Result<()> {
        let mut output = Vec::with_capacity(64 << 10);
        loop {
            let stop = self.counts.stop.load(Relaxed);
            if stop && self.load.qos == 0 {
                return self.end().await;
            }
            if stop && self.sent == self.acknowledged {
                return Ok(());
            }
            let window = self.window();
            let room = match self.load.is_subscribed {
                true => MOST_UNDER_WAY.saturating_sub(self.counts.under_way()),
                false => window,
            };
            let now = if stop { 0 } else { window.min(room) };
            self.put(now, &mut output);
            self.counts.published.fetch_add(now, Relaxed);
            self.stream.write_all(&output).await?;
            output.clear();
            let has_window = self.load.qos == 0 && self.window() > 0;
            match now {
                // The socket of a fast broker always has room: let the others and the clock have a turn.
                1.. if has_window => tokio::task::yield_now().await,
                0 if has_window || self.sent == self.acknowledged => {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                _ => self.read_answers().await?,
            }
        }
    }

    /// At QoS 0 waits until the broker has taken everything: what it has not read when the connection
    /// closes is lost on the way, not by the broker.
    async fn end(&mut self) -> anyhow::Result<()> {
        self.stream.write_all(&PINGREQ).await?;
        self.unanswered += 1;
        while self.unanswered > 0 {
            self.read_answers().await?;
        }
        Ok(())
    }

    /// How many publishes may be written now.
    fn window(&self) -> u64 {
        let under_way = self.sent - self.acknowledged;
        match self.load.qos {
            0 => (UNASKED - under_way).min(WRITTEN_AT_ONCE),
            _ => self.inflight - under_way,
        }
    }

    fn put(&mut self, count: u64, output: &mut Vec<u8>) {
        for _ in 0..count {
            self.sent += 1;
            let id = (self.sent % 65_535) as u16 + 1;
            self.template.put(id, 0, output);
            if self.load.qos == 0 && self.sent.is_multiple_of(ASK_EVERY) {
                output.extend_from_slice(&PINGREQ);
                self.unanswered += 1;
            }
        }
    }

    async fn read_answers(&mut self) -> anyhow::Result<()> {
        self.input.reserve(4 << 10);
        if self.stream.read_buf(&mut self.input).await? == 0 {
            bail!("the broker closed a publisher's connection");
        }
        let mut taken = 0;
        let mut acknowledged = 0;
        while let Some(frame) = wire::frame(&self.input[taken..])? {
            acknowledged += match frame.first {
                PINGRESP => {
                    self.unanswered -= 1;
                    ASK_EVERY
                }
                PUBACK if frame.body.get(2).is_none_or(|reason| *reason < 0x80) => 1,
                first => bail!("expected PUBACK, got {first:#04x} {:02x?}", frame.body),
            };
            taken += frame.total;
        }
        self.input.advance(taken);
        self.acknowledged += acknowledged;
        self.counts.acknowledged.fetch_add(acknowledged, Relaxed);
        Ok(())
    }
}
