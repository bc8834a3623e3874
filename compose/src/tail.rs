//! `thinglog tail`: watches live topics and prints events as they pass.

use std::{
    io::{self, IsTerminal, Write},
    time::Duration,
};

use anyhow::{Context, bail};
use rumqttc::v5::{
    AsyncClient, ConnectionError, Event as Activity, EventLoop, Incoming, MqttOptions,
    mqttbytes::{
        QoS,
        v5::{ConnectProperties, ConnectReturnCode, Filter, SubscribeReasonCode},
    },
};
use thinglog_schemas::{Level, Topics, json, name};
use tokio::{sync::watch, time::sleep};

use crate::{cli, line, login};

/// Wait between attempts to connect.
const RETRY: Duration = Duration::from_secs(1);
/// Largest packet taken: a message of 256 KiB, every byte of it escaped as `\u00XX`, and attributes.
const MAX_PACKET: u32 = 4 << 20;
/// An MQTT SUBSCRIBE has 64 KiB for a filter, and a broker limits how many there are.
const MAX_FILTERS: usize = 500;

/// What to watch, and how it looks.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) credentials: Option<(String, String)>,
    pub(crate) filters: Vec<String>,
    pub(crate) json: bool,
    pub(crate) colour: bool,
}

/// The options of a command line; `configured` are address and login of the configured broker.
pub(crate) fn options(
    args: &cli::Tail,
    topics: &Topics,
    configured: (&str, Option<(String, String)>),
) -> anyhow::Result<Options> {
    let address = args.broker.as_deref().unwrap_or(configured.0);
    let (host, port) = split_address(address)
        .with_context(|| format!("{address:?} is no broker address; write host:port"))?;
    let filters = filters(topics, &args.device, &args.source, args.level);
    if filters.len() > MAX_FILTERS {
        bail!(
            "{} filters are too many; name fewer devices and sources",
            filters.len()
        );
    }
    let colour = io::stdout().is_terminal()
        && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    Ok(Options {
        host,
        port,
        credentials: credentials(args, configured.1)?,
        filters,
        json: args.json,
        colour,
    })
}

/// The login of the command line and the environment; else the configured one, for its broker only.
fn credentials(
    args: &cli::Tail,
    configured: Option<(String, String)>,
) -> anyhow::Result<Option<(String, String)>> {
    let Some(user) = args.username.clone() else {
        return Ok(configured.filter(|_| args.broker.is_none()));
    };
    let password = login::password(args.password_file.as_deref())?;
    Ok(Some((user, password)))
}

/// `host:port`, the host of an IPv6 address in brackets.
pub(crate) fn split_address(address: &str) -> Option<(String, u16)> {
    let (host, port) = address.rsplit_once(':')?;
    let bare = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'));
    let host = bare.unwrap_or(host);
    let port = port.parse().ok().filter(|port| *port != 0)?;
    (!host.is_empty() && (bare.is_some() || !host.contains(':'))).then(|| (host.to_owned(), port))
}

/// The live topics of these devices and sources (of all, when none are named), from `level` to
/// ERROR. Names are written as publishers write them.
fn filters(topics: &Topics, devices: &[String], sources: &[String], level: Level) -> Vec<String> {
    let names = |names: &[String]| match names {
        [] => vec!["+".to_owned()],
        names => names
            .iter()
            .map(|given| name::encode(given).into_owned())
            .collect(),
    };
    let levels = match level {
        Level::Debug => vec!["+"],
        level => [Level::Error, Level::Warn, Level::Info]
            .into_iter()
            .filter(|passes| *passes <= level)
            .map(Level::topic_name)
            .collect(),
    };
    let (root, sources) = (topics.root(), names(sources));
    let mut filters = Vec::new();
    for device in names(devices) {
        for level in &levels {
            filters.extend(
                sources
                    .iter()
                    .map(|source| format!("{root}/live/{device}/{level}/{source}")),
            );
        }
    }
    filters
}

/// Why the broker will never let this client in; `None` when it may do so later.
fn turned_away(error: &ConnectionError, user: Option<&str>) -> Option<String> {
    let ConnectionError::ConnectionRefused(code) = error else {
        return None;
    };
    let name = match user {
        Some(user) => format!("the user {user:?}"),
        None => "a client without a user name".to_owned(),
    };
    match code {
        ConnectReturnCode::BadUserNamePassword => Some(format!(
            "the user name or the password of {name} is wrong; see --username and --password-file"
        )),
        ConnectReturnCode::NotAuthorized if user.is_none() => Some(
            "the broker asks who you are; see --username and --password-file, or \
             THINGLOG_USERNAME and THINGLOG_PASSWORD"
                .to_owned(),
        ),
        ConnectReturnCode::NotAuthorized | ConnectReturnCode::Banned => {
            Some(format!("the broker does not let in {name}"))
        }
        ConnectReturnCode::ClientIdentifierNotValid => Some(format!(
            "the broker lets {name} connect under its own client id only, as it does with devices; log in \
             as an operator"
        )),
        ConnectReturnCode::BadAuthenticationMethod
        | ConnectReturnCode::UnsupportedProtocolVersion => {
            Some(format!("the broker does not speak with {name}: {code:?}"))
        }
        _ => None,
    }
}

/// Prints until nobody reads any more. `subscribed` becomes true once events would be seen.
pub(crate) async fn run(options: Options, subscribed: watch::Sender<bool>) -> anyhow::Result<()> {
    let (client, mut connection) = connect(&options);
    let notice = |text: &str| eprintln!("thinglog: {}:{}: {text}", options.host, options.port);
    let mut printer = Printer::new(options.json, options.colour);
    let user = options.credentials.as_ref().map(|(user, _)| &**user);
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
                        "the broker does not let {} watch live topics",
                        user.map_or("a client without a user name", |user| user)
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
                if let Some(reason) = turned_away(&error, user) {
                    bail!("{}:{}: {reason}", options.host, options.port);
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

fn connect(options: &Options) -> (AsyncClient, EventLoop) {
    let unique = std::time::UNIX_EPOCH
        .elapsed()
        .unwrap_or_default()
        .subsec_nanos();
    let id = format!("thinglog-tail-{}-{unique:x}", std::process::id());
    let mut mqtt = MqttOptions::new(id, &options.host, options.port);
    mqtt.set_keep_alive(Duration::from_secs(30))
        .set_clean_start(true);
    mqtt.set_connect_properties(ConnectProperties {
        max_packet_size: Some(MAX_PACKET),
        ..ConnectProperties::new()
    });
    if let Some((user, password)) = &options.credentials {
        mqtt.set_credentials(user, password);
    }
    AsyncClient::new(mqtt, 4)
}

/// Live payloads to lines on standard output.
struct Printer {
    json: bool,
    colour: bool,
    warned: bool,
    line: String,
    scratch: Vec<u8>,
}

impl Printer {
    fn new(json: bool, colour: bool) -> Printer {
        Printer {
            json,
            colour,
            warned: false,
            line: String::new(),
            scratch: Vec::new(),
        }
    }

    /// Fails when standard output does.
    fn print(&mut self, payload: &[u8]) -> io::Result<()> {
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
    use thinglog_schemas::topic::valid_filter;

    use super::*;

    fn of(devices: &[&str], sources: &[&str], level: Level) -> Vec<String> {
        let owned = |names: &[&str]| {
            names
                .iter()
                .map(|name| (*name).to_owned())
                .collect::<Vec<_>>()
        };
        let filters = filters(&Topics::default(), &owned(devices), &owned(sources), level);
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
    fn addresses_are_host_and_port() {
        assert_eq!(
            split_address("localhost:1883"),
            Some(("localhost".into(), 1883))
        );
        assert_eq!(split_address("[::1]:1884"), Some(("::1".into(), 1884)));
        for bad in [
            "localhost",
            ":1883",
            "localhost:",
            "localhost:0",
            "::1:1883",
            "a:70000",
        ] {
            assert_eq!(split_address(bad), None, "{bad}");
        }
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
    fn who_is_turned_away_for_good_is_told_so_and_what_may_pass_is_tried_again() {
        use ConnectReturnCode as Code;
        let reason = |code, user| turned_away(&ConnectionError::ConnectionRefused(code), user);
        let wrong = reason(Code::BadUserNamePassword, Some("alice")).unwrap();
        assert!(wrong.contains("\"alice\" is wrong"), "{wrong}");
        let nobody = reason(Code::NotAuthorized, None).unwrap();
        assert!(nobody.contains("THINGLOG_PASSWORD"), "{nobody}");
        assert!(reason(Code::NotAuthorized, Some("alice")).is_some());
        assert!(reason(Code::ClientIdentifierNotValid, Some("lamp-7")).is_some());
        for code in [
            Code::ServerBusy,
            Code::ServerUnavailable,
            Code::QuotaExceeded,
        ] {
            assert_eq!(reason(code, Some("alice")), None);
        }
        assert_eq!(turned_away(&ConnectionError::RequestsDone, None), None);
    }

    #[test]
    fn what_is_no_event_is_skipped() {
        let mut printer = Printer::new(false, false);
        assert!(!printer.render(b"hello"));
        assert!(printer.warned);
    }
}
