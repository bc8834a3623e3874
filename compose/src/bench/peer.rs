//! The peer on the same input: mosquitto with `mosquitto_sub > file` behind it, which neither syncs nor
//! decodes.

use std::{
    fs::File,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, bail};

use super::{
    BenchArgs, PATIENCE,
    load::{self, Plan},
    process::Process,
    report::Run,
    runtime, scratch, verify,
};

/// One run of mosquitto and mosquitto_sub, persistence off, queues without limit.
pub(super) fn measure(args: &BenchArgs, plan: &Plan) -> anyhow::Result<Run> {
    let dir = scratch(&args.dir)?;
    let config = dir.path().join("mosquitto.conf");
    std::fs::write(
        &config,
        format!(
            "listener {} 127.0.0.1\nallow_anonymous true\npersistence false\n\
             max_queued_messages 0\nmax_inflight_messages 0\n",
            plan.broker.port()
        ),
    )?;
    let log = dir.path().join("log");
    let mut broker = Process::start(
        "mosquitto",
        Command::new(mosquitto_program())
            .arg("-c")
            .arg(&config)
            .stdout(Stdio::null()),
        &log,
    )
    .context("mosquitto is needed for --peer (Debian packages mosquitto and mosquitto-clients)")?;
    broker.wait_for(plan.broker)?;
    let output = dir.path().join("events.ndjson");
    let port = plan.broker.port().to_string();
    let subscriber = Process::start(
        "mosquitto_sub",
        Command::new("mosquitto_sub")
            .args([
                "-p",
                &port,
                "-q",
                "1",
                "-i",
                "bench-sub",
                "-c",
                "-t",
                "thinglog/logs/#",
            ])
            .stdout(File::create(&output)?),
        &dir.path().join("sub.log"),
    )?;
    wait_for_subscription(plan)?;
    let before = (broker.usage()?, subscriber.usage()?);
    let start = Instant::now();
    let wire_bytes = runtime()?.block_on(load::publish(plan))?;
    let acknowledged = start.elapsed();
    let lines = wait_for_lines(&output, plan.events)?;
    let elapsed = start.elapsed();
    let after = (broker.usage()?, subscriber.usage()?);
    drop(subscriber);
    drop(broker);
    let bytes = std::fs::metadata(&output)?.len();
    Ok(Run {
        subject: "mosquitto + mosquitto_sub, single events".into(),
        events: plan.events,
        seconds: elapsed.as_secs_f64(),
        acknowledged_seconds: acknowledged.as_secs_f64(),
        cpu_seconds: after.0.cpu_seconds + after.1.cpu_seconds
            - before.0.cpu_seconds
            - before.1.cpu_seconds,
        peak_bytes: after.0.peak + after.1.peak,
        idle_bytes: before.0.resident + before.1.resident,
        wire_bytes,
        output_bytes: bytes,
        lost: plan.events.saturating_sub(lines),
        duplicated: 0,
        floor_seconds: None,
    })
}

/// Debian installs the broker where an ordinary user's PATH does not look.
pub(super) fn mosquitto_program() -> &'static str {
    if std::path::Path::new("/usr/sbin/mosquitto").exists() {
        "/usr/sbin/mosquitto"
    } else {
        "mosquitto"
    }
}

/// mosquitto_sub says nothing when its subscription stands: publish until something arrives would
/// disturb the count, so ask the broker how many subscriptions it has.
fn wait_for_subscription(plan: &Plan) -> anyhow::Result<()> {
    let deadline = Instant::now() + PATIENCE;
    let port = plan.broker.port().to_string();
    loop {
        let answer = Command::new("mosquitto_sub")
            .args([
                "-p",
                &port,
                "-C",
                "1",
                "-W",
                "15",
                "-t",
                "$SYS/broker/clients/connected",
            ])
            .stderr(Stdio::null())
            .output()
            .context("cannot run mosquitto_sub")?;
        let connected = String::from_utf8_lossy(&answer.stdout)
            .trim()
            .parse::<u64>()
            .unwrap_or(0);
        if connected >= 1 {
            return Ok(());
        }
        if Instant::now() > deadline {
            bail!("mosquitto_sub did not connect");
        }
    }
}

/// Gives the lines there are once there are enough, or no more come.
fn wait_for_lines(output: &std::path::Path, events: u64) -> anyhow::Result<u64> {
    let mut tail = verify::LineCounter::open(output)?;
    let (mut last, mut moved) = (0, Instant::now());
    loop {
        let lines = tail.lines()?;
        if lines >= events {
            return Ok(lines);
        }
        if lines > last {
            (last, moved) = (lines, Instant::now());
        }
        if moved.elapsed() > Duration::from_secs(10) {
            // Not an error: what is missing is counted as lost.
            return Ok(lines);
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}
