//! How an operator's commands reach the broker: address, login, connection.

use std::{
    fmt,
    io::{self, IsTerminal},
    path::{Path, PathBuf},
    time::{Duration, UNIX_EPOCH},
};

use anyhow::Context;
use rumqttc::v5::{AsyncClient, EventLoop, MqttOptions, mqttbytes::v5::ConnectProperties};

use crate::cli;

/// Largest packet taken: a message of 256 KiB, every byte of it escaped as `\u00XX`, and attributes.
const MAX_PACKET: u32 = 4 << 20;

/// Where the broker is, and who asks.
#[derive(Clone, Debug)]
pub(crate) struct Broker {
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) credentials: Option<(String, String)>,
}

impl fmt::Display for Broker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// The broker of a command line; `configured` are address and login of the configured one.
pub(crate) fn broker(
    args: &cli::Connect,
    configured: (&str, Option<(String, String)>),
) -> anyhow::Result<Broker> {
    let address = args.broker.as_deref().unwrap_or(configured.0);
    let (host, port) = split_address(address)
        .with_context(|| format!("{address:?} is no broker address; write host:port"))?;
    Ok(Broker {
        host,
        port,
        credentials: credentials(args, configured.1)?,
    })
}

/// The login of the command line and the environment; else the configured one, for its broker only.
fn credentials(
    args: &cli::Connect,
    configured: Option<(String, String)>,
) -> anyhow::Result<Option<(String, String)>> {
    let Some(user) = args.username.clone() else {
        return Ok(configured.filter(|_| args.broker.is_none()));
    };
    let named = args.password_file.clone();
    let file = named.or_else(|| std::env::var_os("THINGLOG_PASSWORD_FILE").map(PathBuf::from));
    let password = match file {
        Some(file) => read_password(&file)?,
        None => std::env::var("THINGLOG_PASSWORD").unwrap_or_default(),
    };
    Ok(Some((user, password)))
}

fn read_password(path: &Path) -> anyhow::Result<String> {
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("cannot read the password file {}", path.display()))?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

/// `host:port`, the host of an IPv6 address in brackets.
fn split_address(address: &str) -> Option<(String, u16)> {
    let (host, port) = address.rsplit_once(':')?;
    let bare = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'));
    let host = bare.unwrap_or(host);
    let port = port.parse().ok().filter(|port| *port != 0)?;
    (!host.is_empty() && (bare.is_some() || !host.contains(':'))).then(|| (host.to_owned(), port))
}

/// Begins to connect, as a client that leaves nothing behind.
pub(crate) fn connect(broker: &Broker, command: &str) -> (AsyncClient, EventLoop) {
    let id = format!("thinglog-{command}-{}", unique());
    let mut mqtt = MqttOptions::new(id, &broker.host, broker.port);
    mqtt.set_keep_alive(Duration::from_secs(30))
        .set_clean_start(true);
    mqtt.set_connect_properties(ConnectProperties {
        max_packet_size: Some(MAX_PACKET),
        ..ConnectProperties::new()
    });
    if let Some((user, password)) = &broker.credentials {
        mqtt.set_credentials(user, password);
    }
    AsyncClient::new(mqtt, 4)
}

/// A name that no other process and no other start of this one has.
pub(crate) fn unique() -> String {
    let nanos = UNIX_EPOCH.elapsed().unwrap_or_default().as_nanos() as u64;
    format!("{}-{nanos:x}", std::process::id())
}

/// Whether standard output is for people who want colours.
pub(crate) fn colour() -> bool {
    io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
