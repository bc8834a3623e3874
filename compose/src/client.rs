//! How an operator's commands reach the broker: address, login, connection.

use std::{
    fmt,
    io::{self, IsTerminal},
    time::{Duration, UNIX_EPOCH},
};

use anyhow::Context;
use rumqttc::v5::{
    AsyncClient, ConnectionError, EventLoop, MqttOptions,
    mqttbytes::v5::{ConnectProperties, ConnectReturnCode},
};

use crate::{cli, login};

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
    let password = login::password(args.password_file.as_deref())?;
    Ok(Some((user, password)))
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

/// Why the broker will never let this client in; `None` when it may do so later.
pub(crate) fn turned_away(error: &ConnectionError, user: Option<&str>) -> Option<String> {
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
}
