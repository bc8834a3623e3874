//! `thinglog up --demo`: three devices that carry this machine's own logs over real MQTT, and a
//! live tail that prints them.
//!
//! The devices are publishers of `thinglog-edge` in this process. What they carry is real: the
//! systemd journal when it has entries, readable files below `/var/log`, and thinglog's own log.
//! Each begins with a little recent history, so that there is something to see at once.

mod find;
mod own;

use std::{io::IsTerminal, net::SocketAddr, time::Duration};

use anyhow::Context;
use find::Found;
pub(crate) use own::OwnLog;
use thinglog_broker::{Broker, access::Role};
use thinglog_edge::{
    Publisher,
    agent::{
        FilesOptions, JournalOptions, Sink, SourceError, StartAt, run_files_source,
        run_journal_source,
    },
};
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{interval, sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::{
    client,
    supervise::{DEMO, Stage, Supervisor},
    tail,
};

/// The devices.
const DEVICES: [&str; 3] = ["demo-1", "demo-2", "demo-3"];
/// Bytes of a file's end, and entries of the journal, that are sent first.
const HISTORY_BYTES: u64 = 2 << 10;
const HISTORY_ENTRIES: u32 = 50;
/// When the history has passed the screen.
const HISTORY: Duration = Duration::from_secs(2);
/// The tail is given so long to subscribe before the devices start all the same.
const SUBSCRIBE: Duration = Duration::from_secs(1);
/// A subscription reaches the router by way of the broker's interest topic, which changes at most
/// every 100 ms.
const INTEREST: Duration = Duration::from_millis(300);
/// How often thinglog logs what the demo has carried.
const REPORT: Duration = Duration::from_secs(5);
/// Events get so long to reach the broker at the end.
const DRAIN: Duration = Duration::from_secs(1);

/// User names and passwords of the demo, where the broker asks for them.
pub(crate) struct Logins {
    tail: Option<(String, String)>,
    devices: [Option<(String, String)>; DEVICES.len()],
}

/// Logins at the broker of this process, which nobody else knows.
pub(crate) fn logins(broker: &Broker) -> Logins {
    Logins {
        tail: broker.login_for("demo", Role::Operator),
        devices: DEVICES.map(|device| broker.login_for(device, Role::Device)),
    }
}

/// Starts tail and devices.
pub(crate) fn start(
    supervisor: &mut Supervisor,
    (broker, root): (SocketAddr, &str),
    logins: Logins,
    own: OwnLog,
    hints: String,
) -> anyhow::Result<()> {
    let token = supervisor.token(Stage::Demo);
    let (subscribed, seen) = watch::channel(false);
    let options = tail::Options {
        broker: client::Broker {
            host: broker.ip().to_string(),
            port: broker.port(),
            tls: None,
            credentials: logins.tail,
        },
        filters: vec![format!("{root}/live/+/+/+")],
        json: false,
        colour: client::colour(),
    };
    let stop = token.clone();
    supervisor.spawn(DEMO, async move {
        tokio::select! {
            done = tail::run(options, subscribed) => if let Err(error) = done {
                warn!("the demo's tail ended: {error:#}");
            },
            () = stop.cancelled() => {}
        }
    });
    let devices = DEVICES.into_iter().zip(logins.devices);
    let devices = devices
        .map(|(device, login)| publisher(device, (broker, root), login))
        .collect::<anyhow::Result<Vec<_>>>()?;
    supervisor.spawn(DEMO, run(devices, own, seen, token.clone()));
    supervisor.spawn(DEMO, async move {
        tokio::select! {
            () = sleep(HISTORY) => remind(&hints),
            () = token.cancelled() => {}
        }
    });
    Ok(())
}

/// The banner has scrolled away by now.
fn remind(hints: &str) {
    if std::io::stdout().is_terminal() {
        crate::mention(&format!(
            "\nThat was recent history; what happens now follows. {hints}\n"
        ));
    }
}

fn publisher(
    device: &str,
    (broker, root): (SocketAddr, &str),
    login: Option<(String, String)>,
) -> anyhow::Result<Publisher> {
    let mut builder = Publisher::builder(device);
    if let Some((user, password)) = login {
        builder = builder.credentials(user, password);
    }
    builder
        .broker(broker.ip().to_string(), broker.port())
        .root(root)
        .instance("demo")
        .attribute("demo", "true")
        .start()
        .with_context(|| format!("cannot start the demo's device {device}"))
}

async fn run(
    devices: Vec<Publisher>,
    own: OwnLog,
    mut subscribed: watch::Receiver<bool>,
    token: CancellationToken,
) {
    // A tail that cannot subscribe has said why; the devices are worth starting without it.
    let _ = timeout(SUBSCRIBE, subscribed.wait_for(|subscribed| *subscribed)).await;
    sleep(INTEREST).await;
    let found = tokio::task::spawn_blocking(find::logs)
        .await
        .unwrap_or_default();
    let mut carriers = Vec::new();
    for (index, found) in found.iter().enumerate() {
        let device = index % devices.len();
        info!(device = DEVICES[device], log = %found, "demo device");
        carriers.push(tokio::spawn(carry(
            devices[device].clone().into(),
            found.clone(),
            token.clone(),
        )));
    }
    // Devices that nothing else was found for share thinglog's own log with the last one.
    let lacking = found.len().min(devices.len() - 1);
    own.carry_to(&devices[lacking..]);
    report(&devices, &token).await;
    own.stop();
    for carrier in carriers {
        if let Err(error) = carrier.await {
            warn!(%error, "a demo device stopped");
        }
    }
    let closing = devices
        .into_iter()
        .map(|device| async move { device.close(DRAIN).await });
    JoinSet::from_iter(closing).join_all().await;
}

/// Carries one log until the end.
async fn carry(device: Sink, found: Found, token: CancellationToken) {
    let ended: Result<(), SourceError> = match &found {
        Found::Journal => {
            let options = JournalOptions {
                lines: HISTORY_ENTRIES,
                drain: DRAIN,
                ..JournalOptions::default()
            };
            run_journal_source(&device, options, token).await
        }
        Found::File(path) => {
            let options = FilesOptions {
                start: StartAt::Last(HISTORY_BYTES),
                drain: DRAIN,
                ..FilesOptions::new([path.to_string_lossy()])
            };
            run_files_source(&device, options, token).await
        }
    };
    if let Err(error) = ended {
        warn!(log = %found, "a demo device lost its log: {error}");
    }
}

/// Says now and then what was carried, which is an event of thinglog's own log as well.
async fn report(devices: &[Publisher], token: &CancellationToken) {
    let mut every = interval(REPORT);
    every.tick().await;
    loop {
        tokio::select! {
            _ = every.tick() => {}
            () = token.cancelled() => return,
        }
        let counters = devices.iter().map(Publisher::counters);
        let (events, bytes) = counters.fold((0, 0), |(events, bytes), of| {
            (events + of.acknowledged, bytes + of.payload_bytes)
        });
        info!(
            events,
            payload_bytes = bytes,
            "demo: events acknowledged by the broker so far"
        );
    }
}
