//! `thinglog bench broker`: our broker and mosquitto under the same load from the same client, in turns.
//!
//! CPU time and memory are the broker process's own. Every run starts a broker afresh; the runs of the
//! brokers alternate, so that a busy moment of the machine hits each alike.

mod crowd;
mod latency;
mod report;
mod subject;
mod throughput;
mod wire;

use std::{path::PathBuf, time::Duration};

use clap::{Args, ValueEnum};

use self::{
    report::{Report, Scenario},
    subject::{Subject, has_mosquitto},
    throughput::Load,
    wire::Version,
};
use super::scratch;

/// Options of `thinglog bench broker`.
#[derive(Args, Clone, Debug)]
pub(crate) struct BrokerArgs {
    /// What is measured: all, unless named (may be repeated).
    #[arg(long, value_enum)]
    only: Vec<Part>,
    /// Runs of each scenario and broker; medians are printed.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=100))]
    runs: u64,
    /// Seconds of one run, after a tenth of it for warming up.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=3600))]
    seconds: u64,
    /// Clients that connect and subscribe.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..=15_000))]
    clients: u64,
    /// Unacknowledged publishes of one connection.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u16).range(1..))]
    inflight: u16,
    /// Bytes of a payload.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u64).range(8..=8_192))]
    size: u64,
    /// Version of the protocol.
    #[arg(long, value_enum, default_value = "5")]
    mqtt: Version,
    /// Where data goes during a run (a temporary directory on the disk to be measured).
    #[arg(long, value_name = "DIR", default_value = ".")]
    dir: PathBuf,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// A part of the benchmark.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Messages for each CPU second, QoS 0 and 1, 1 and 50 publishers.
    Throughput,
    /// Publish to subscriber and publish to PUBACK at 5,000 messages/s.
    Latency,
    /// Many clients: time, memory, first publish to each topic.
    Crowd,
    /// Many clients that come back, with device tokens and without logins.
    Return,
}

/// What the parts need to know.
struct Settings {
    seconds: u64,
    clients: usize,
    inflight: u16,
    size: usize,
    mqtt: Version,
}

impl Settings {
    fn duration(&self) -> Duration {
        Duration::from_secs(self.seconds)
    }

    fn warm_up(&self) -> Duration {
        self.duration() / 10
    }
}

/// Runs the benchmark and prints its figures.
pub(super) fn run(args: &BrokerArgs) -> anyhow::Result<()> {
    let settings = Settings {
        seconds: args.seconds,
        clients: args.clients as usize,
        inflight: args.inflight,
        size: args.size as usize,
        mqtt: args.mqtt,
    };
    let mut notes = Vec::new();
    let mut subjects = vec![Subject::Durable, Subject::Memory, Subject::Mosquitto];
    if !has_mosquitto() {
        eprintln!("SKIPPED: no mosquitto to compare with (Debian: mosquitto)");
        notes.push("mosquitto is not installed: nothing is compared with it".into());
        subjects.retain(|subject| *subject != Subject::Mosquitto);
    }
    let runs = |part| args.only.is_empty() || args.only.contains(&part);
    let mut report = Report::default();
    if runs(Part::Throughput) {
        measure_throughput(args, &settings, &subjects, &mut report)?;
    }
    if runs(Part::Latency) {
        for run in 1..=args.runs {
            for subject in &subjects {
                report.progress(&format!("latency {run}/{}, {}", args.runs, subject.name()));
                let dir = scratch(&args.dir)?;
                let running = subject.start(dir.path())?;
                let figures = latency::measure(&settings, *subject, &running, dir.path())?;
                report.add(&Scenario::Latency, *subject, figures);
            }
        }
    }
    if runs(Part::Crowd) {
        subjects.retain(|subject| *subject != Subject::Durable);
        let clients = settings.clients;
        for run in 1..=args.runs {
            for subject in &subjects {
                report.progress(&format!("crowd {run}/{}, {}", args.runs, subject.name()));
                let dir = scratch(&args.dir)?;
                let running = subject.start(dir.path())?;
                let figures = crowd::measure(&settings, *subject, &running)?;
                report.add(&Scenario::Crowd { clients }, *subject, figures);
            }
        }
    }
    if runs(Part::Return) {
        measure_return(args, &settings, &mut report)?;
    }
    report.print(args.json, &notes);
    Ok(())
}

fn measure_return(
    args: &BrokerArgs,
    settings: &Settings,
    report: &mut Report,
) -> anyhow::Result<()> {
    let clients = settings.clients;
    let devices: Vec<String> = (0..clients).map(crowd::client_id).collect();
    for run in 1..=args.runs {
        for subject in [Subject::Memory, Subject::Tokens] {
            report.progress(&format!("return {run}/{}, {}", args.runs, subject.name()));
            let dir = scratch(&args.dir)?;
            let tokens = match subject {
                Subject::Tokens => subject::write_tokens(dir.path(), &devices)?,
                _ => Vec::new(),
            };
            let running = subject.start(dir.path())?;
            let figures = crowd::measure_return(settings, &running, &tokens)?;
            report.add(&Scenario::Return { clients }, subject, figures);
        }
    }
    Ok(())
}

fn measure_throughput(
    args: &BrokerArgs,
    settings: &Settings,
    subjects: &[Subject],
    report: &mut Report,
) -> anyhow::Result<()> {
    let mut order = 0;
    for qos in [0, 1] {
        for publishers in [1, 50] {
            for is_subscribed in [false, true] {
                let load = Load {
                    publishers,
                    qos,
                    is_subscribed,
                };
                order += 1;
                let name = load.name();
                let scenario = Scenario::Throughput { order, name, qos };
                for run in 1..=args.runs {
                    for subject in subjects {
                        report.progress(&format!(
                            "{} {run}/{}, {}",
                            load.name(),
                            args.runs,
                            subject.name()
                        ));
                        let dir = scratch(&args.dir)?;
                        let running = subject.start(dir.path())?;
                        let figures = throughput::measure(settings, *subject, &running, load)?;
                        report.add(&scenario, *subject, figures);
                    }
                }
            }
        }
    }
    Ok(())
}
