//! Many clients: how long ten thousand take to connect and subscribe, what memory they cost the broker,
//! how long the first publish to each of their topics takes, and how long they take to come back, with
//! logins and without.

use std::{
    io::{Read, Write},
    net::TcpStream,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use tokio::task::JoinSet;

use super::{
    Settings,
    report::Figures,
    subject::{Running, Subject},
    wire::{self, PUBACK, PUBLISH, Template},
};

/// Clients that connect at the same time.
const AT_ONCE: usize = 32;
/// How long all deliveries may take.
const PATIENCE: Duration = Duration::from_secs(120);

/// One run against one broker.
pub(super) fn measure(
    settings: &Settings,
    subject: Subject,
    running: &Running,
) -> anyhow::Result<Figures> {
    let idle = running.process.usage()?;
    let start = Instant::now();
    let clients = connect_all(settings, subject, running)?;
    let connected = start.elapsed();
    let usage = running.process.usage()?;
    let received = Arc::new(AtomicUsize::new(0));
    let counter = received.clone();
    let count = clients.len();
    // Ends with the process: nothing tells it to.
    std::thread::spawn(move || receive_all(clients, &counter));
    let start = Instant::now();
    publish_to_each(settings, subject, running, count)?;
    while received.load(Relaxed) < count {
        if start.elapsed() > PATIENCE {
            bail!(
                "only {} of {count} deliveries arrived",
                received.load(Relaxed)
            );
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    let published = start.elapsed();
    let after = running.process.usage()?;
    Ok(Figures::new(&[
        ("connect s", connected.as_secs_f64()),
        ("connect CPU s", usage.cpu_seconds - idle.cpu_seconds),
        ("first publish s", published.as_secs_f64()),
        ("memory MB", after.resident as f64 / 1e6),
        ("peak MB", after.peak as f64 / 1e6),
        (
            "KB a client",
            usage.resident.saturating_sub(idle.resident) as f64 / 1e3 / count as f64,
        ),
    ]))
}

/// One run of clients that all come back at once, as after a restart of the network; each with its
/// token, if there are any.
pub(super) fn measure_return(
    settings: &Settings,
    running: &Running,
    tokens: &[String],
) -> anyhow::Result<Figures> {
    let come = || {
        for_all(settings.clients, |number| {
            let id = client_id(number);
            let token = tokens.get(number).map(String::as_str);
            let login = (&*id, token);
            wire::open_as(running.address, settings.mqtt, login, settings.inflight)
        })
    };
    drop(come()?);
    let before = running.process.usage()?;
    let start = Instant::now();
    let clients = come()?;
    let reconnected = start.elapsed();
    let after = running.process.usage()?;
    drop(clients);
    Ok(Figures::new(&[
        ("reconnect s", reconnected.as_secs_f64()),
        ("CPU s", after.cpu_seconds - before.cpu_seconds),
        ("peak MB", after.peak as f64 / 1e6),
    ]))
}

/// Client ids, which are names of devices too.
pub(super) fn client_id(number: usize) -> String {
    format!("bench-client-{number}")
}

fn connect_all(
    settings: &Settings,
    subject: Subject,
    running: &Running,
) -> anyhow::Result<Vec<TcpStream>> {
    for_all(settings.clients, |number| {
        let id = client_id(number);
        let mut stream = wire::open(running.address, settings.mqtt, &id, settings.inflight)?;
        wire::subscribe(&mut stream, settings.mqtt, &subject.topic(number), 0)?;
        Ok(stream)
    })
}

/// Connects every client, some at the same time.
fn for_all(
    count: usize,
    connect: impl Fn(usize) -> anyhow::Result<TcpStream> + Sync,
) -> anyhow::Result<Vec<TcpStream>> {
    let next = AtomicUsize::new(0);
    let clients = Mutex::new(Vec::with_capacity(count));
    let work = || -> anyhow::Result<()> {
        loop {
            let number = next.fetch_add(1, Relaxed);
            if number >= count {
                return Ok(());
            }
            let stream = connect(number).with_context(|| format!("client {number}"))?;
            if let Ok(mut clients) = clients.lock() {
                clients.push(stream);
            }
        }
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..AT_ONCE).map(|_| scope.spawn(work)).collect();
        for thread in threads {
            let joined = thread.join();
            joined.map_err(|_| anyhow::anyhow!("a client panicked"))??;
        }
        anyhow::Ok(())
    })?;
    clients
        .into_inner()
        .map_err(|_| anyhow::anyhow!("a client panicked"))
}

fn receive_all(clients: Vec<TcpStream>, received: &Arc<AtomicUsize>) -> anyhow::Result<()> {
    super::super::runtime()?.block_on(async {
        let mut tasks = JoinSet::new();
        for stream in clients {
            stream.set_nonblocking(true)?;
            let stream = tokio::net::TcpStream::from_std(stream)?;
            tasks.spawn(receive(stream, received.clone()));
        }
        while tasks.join_next().await.is_some() {}
        Ok(())
    })
}

/// Counts the one message a client gets.
async fn receive(stream: tokio::net::TcpStream, received: Arc<AtomicUsize>) {
    let mut input = [0; 1024];
    while stream.readable().await.is_ok() {
        match stream.try_read(&mut input) {
            Ok(0) => return,
            Ok(_) if input[0] & 0xf0 == PUBLISH => drop(received.fetch_add(1, Relaxed)),
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(_) => return,
        }
    }
}

/// One publisher at QoS 1, one publish to each topic.
fn publish_to_each(
    settings: &Settings,
    subject: Subject,
    running: &Running,
    count: usize,
) -> anyhow::Result<()> {
    let mut stream = wire::open(
        running.address,
        settings.mqtt,
        "bench-pub",
        settings.inflight,
    )?;
    let (mut sent, mut acknowledged) = (0, 0);
    let (mut output, mut input, mut filled) = (Vec::new(), vec![0; 16 << 10], 0);
    while acknowledged < count {
        while sent < count && sent - acknowledged < usize::from(settings.inflight) {
            let mut template = Template::new(settings.mqtt, &subject.topic(sent), 1, settings.size);
            sent += 1;
            template.put((sent % 65_535) as u16 + 1, 0, &mut output);
        }
        stream.write_all(&output)?;
        output.clear();
        let read = stream.read(&mut input[filled..])?;
        if read == 0 {
            bail!("the broker closed the publisher's connection");
        }
        filled += read;
        let mut taken = 0;
        while let Some(frame) = wire::frame(&input[taken..filled])? {
            acknowledged += usize::from(frame.first == PUBACK);
            taken += frame.total;
        }
        input.copy_within(taken..filled, 0);
        filled -= taken;
    }
    Ok(())
}
