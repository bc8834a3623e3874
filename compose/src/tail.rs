//! `thinglog tail`: watches live topics and prints events as they pass.

use std::{
    io::{self, Write},
    time::Duration,
};

use anyhow::{Context, bail};
use rumqttc::v5::{
    Event as Activity, Incoming,
    mqttbytes::{
        QoS,
        v5::{Filter, SubscribeReasonCode},
    },
};
use thinglog_router::config::Endpoint;
use thinglog_schemas::{Level, Topics, json, name};
use tokio::{sync::watch, time::sleep};

use crate::{
    cli,
    client::{self, Broker},
    line,
};

/// Wait between attempts to connect.
const RETRY: Duration = Duration::from_secs(1);
/// An MQTT SUBSCRIBE has 64 KiB for a filter, and a broker limits how many there are.
const MAX_FILTERS: usize = 500;

/// What to watch, and how it looks.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    pub(crate) broker: Broker,
    pub(crate) filters: Vec<String>,
    pub(crate) json: bool,
    pub(crate) colour: bool,
}

/// The options of a command line; `configured`: the broker unless it names another.
pub(crate) fn options(
    args: &cli::Tail,
    topics: &Topics,
    configured: &Endpoint,
) -> anyhow::Result<Options> {
    let broker = client::broker(&args.connect, configured)?;
    let filters = filters(topics, args);
    if filters.len() > MAX_FILTERS {
        bail!(
            "{} filters are too many; name fewer devices and sources",
            filters.len()
        );
    }
    Ok(Options {
        broker,
        filters,
        json: args.json,
        colour: client::colour(),
    })
}

/// The live topics of the named devices and sources (of all, when none are named), of a group if one
/// is named, from the level to ERROR. Names are written as publishers write them.
fn filters(topics: &Topics, args: &cli::Tail) -> Vec<String> {
    let names = |names: &[String]| match names {
        [] => vec!["+".to_owned()],
        names => names
            .iter()
            .map(|given| name::encode(given).into_owned())
            .collect(),
    };
    let levels = match args.level {
        Level::Debug => vec!["+"],
        level => [Level::Error, Level::Warn, Level::Info]
            .into_iter()
            .filter(|passes| *passes <= level)
            .map(Level::topic_name)
            .collect(),
    };
    let (root, sources) = (topics.root(), names(&args.source));
    let live = match &args.group {
        None => "live".to_owned(),
        Some(group) => format!("live-group/{}", name::encode(group)),
    };
    let mut filters = Vec::new();
    for device in names(&args.device) {
        for level in &levels {
            filters.extend(
                sources
                    .iter()
                    .map(|source| format!("{root}/{live}/{device}/{level}/{source}")),
            );
        }
    }
    filters
}

/// Prints until nobody reads any more. `subscribed` becomes true once events would be seen.
pub(crate) async fn run(options: Options, subscribed: watch::Sender<bool>) -> anyhow::Result<()> {
    let (client, mut connection) = client::connect(&options.broker, "tail");
    let notice = |text: &str| eprintln!("thinglog: {}: {text}", options.broker);
    let mut printer = Printer::new(options.json, options.colour);
    let user = options.broker.credentials.as_ref();
    let user = user.map(|(user, _)| &**user);
    let mut connected = None;
    loop {
        match connection.poll().await {
            Ok(Activity::Incoming(Incoming::ConnAck(_))) => {
                if connected == Some(false) {
                    notice("connected again");
                }
                connected = Some(true);
                let filters = options
                    .filters
                    .iter()
                    .map(|filter| Filter::new(filter, QoS::AtMostOnce));
                client
                    .try_subscribe_many(filters)
                    .context("cannot subscribe")?;
            }
            Ok(Activity::Incoming(Incoming::SubAck(answer))) => {
                let granted = |code: &_| matches!(code, SubscribeReasonCode::Success(_));
                match answer.return_codes.iter().find(|code| !granted(code)) {
                    None => {}
                    Some(SubscribeReasonCode::NotAuthorized) => bail!(
                        "the broker does not let {} watch this; an operator of a group watches \
                         with --group",
                        user.unwrap_or("a client without a user name")
                    ),
                    Some(refused) => bail!("the broker refused to show live topics: {refused:?}"),
                }
                subscribed.send_replace(true);
            }
            Ok(Activity::Incoming(Incoming::Publish(publish))) => {
                if printer.print(&publish.payload).is_err() {
                    // Whoever read has gone, as with `| head`.
                    return Ok(());
                }
            }
            Ok(_) => {}
            Err(error) => {
                if let Some(reason) = client::turned_away(&error, user) {
                    bail!("{}: {reason}", options.broker);
                }
                if connected != Some(false) {
                    notice(&format!("{error}; trying again every {RETRY:?}"));
                }
                connected = Some(false);
                sleep(RETRY).await;
            }
        }
    }
}

/// Events as JSON to lines on standard output.
pub(crate) struct Printer {
    json: bool,
    colour: bool,
    warned: bool,
    line: String,
    scratch: Vec<u8>,
}

impl Printer {
    pub(crate) fn new(json: bool, colour: bool) -> Printer {
        Printer {
            json,
            colour,
            warned: false,
            line: String::new(),
            scratch: Vec::new(),
        }
    }

    /// Fails when standard output does.
    pub(crate) fn print(&mut self, payload: &[u8]) -> io::Result<()> {
        if self.render(payload) {
            let mut stdout = io::stdout().lock();
            stdout.write_all(self.line.as_bytes())?;
            stdout.flush()?;
        }
        Ok(())
    }

    /// Whether there is a line to print.
    fn render(&mut self, payload: &[u8]) -> bool {
        self.line.clear();
        let event = match json::read(payload) {
            Ok(event) => event,
            Err(error) => {
                if !std::mem::replace(&mut self.warned, true) {
                    eprintln!(
                        "thinglog: somebody publishes on live topics what is {error}; skipped"
                    );
                }
                return false;
            }
        };
        if self.json {
            self.scratch.clear();
            json::write(&event, &mut self.scratch);
            line::escape_json(&String::from_utf8_lossy(&self.scratch), &mut self.line);
            self.line.push('\n');
        } else {
            line::write(&event, self.colour, &mut self.line);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use thinglog_schemas::topic::valid_filter;

    use super::*;

    fn of(devices: &[&str], sources: &[&str], level: Level) -> Vec<String> {
        let mut arguments = vec!["--level", level.topic_name()];
        arguments.extend(devices.iter().flat_map(|name| ["--device", name]));
        arguments.extend(sources.iter().flat_map(|name| ["--source", name]));
        typed(&arguments)
    }

    fn typed(arguments: &[&str]) -> Vec<String> {
        let line = ["thinglog", "tail"].iter().chain(arguments);
        let cli = cli::Cli::try_parse_from(line).unwrap();
        let cli::Command::Tail(args) = cli.command else {
            panic!("{:?}", cli.command);
        };
        let filters = filters(&Topics::default(), &args);
        assert!(
            filters.iter().all(|filter| valid_filter(filter)),
            "{filters:?}"
        );
        filters
    }

    #[test]
    fn everything_is_one_filter() {
        assert_eq!(of(&[], &[], Level::Debug), ["thinglog/live/+/+/+"]);
    }

    #[test]
    fn a_level_means_it_and_what_is_worse() {
        assert_eq!(of(&[], &[], Level::Error), ["thinglog/live/+/error/+"]);
        let warn = ["thinglog/live/+/error/+", "thinglog/live/+/warn/+"];
        assert_eq!(of(&[], &[], Level::Warn), warn);
        assert_eq!(of(&[], &[], Level::Info).len(), 3);
    }

    #[test]
    fn names_are_written_as_in_topics() {
        let expected = [
            "thinglog/live/lamp-7/+/my%20app",
            "thinglog/live/lamp-7/+/x%2F%23",
        ];
        assert_eq!(of(&["lamp-7"], &["my app", "x/#"], Level::Debug), expected);
    }

    #[test]
    fn a_group_has_topics_of_its_own() {
        let eu = "thinglog/live-group/eu/+/+/+";
        assert_eq!(typed(&["--group", "eu"]), [eu]);
        let one = "thinglog/live-group/eu/lamp-7/error/nginx";
        let arguments = ["-g", "eu", "-d", "lamp-7", "-s", "nginx", "-l", "error"];
        assert_eq!(typed(&arguments), [one]);
    }

    #[test]
    fn json_lines_are_safe_for_a_terminal_and_still_the_event() {
        let event = br#"{"time":"2026-01-02T03:04:05.000000000Z","received":"2026-01-02T03:04:05.000000000Z",
            "device":"a","source":"b","level":"INFO","severity":9,"message":"x\u009b\u202ey"}"#;
        let mut printer = Printer::new(true, true);
        assert!(printer.render(event));
        assert!(printer.line.ends_with("}\n") && printer.line.matches('\n').count() == 1);
        assert!(printer.line.is_ascii());
        assert_eq!(
            json::read(printer.line.as_bytes()).unwrap(),
            json::read(event).unwrap()
        );
    }

    #[test]
    fn what_is_no_event_is_skipped() {
        let mut printer = Printer::new(false, false);
        assert!(!printer.render(b"hello"));
        assert!(printer.warned);
    }
}
