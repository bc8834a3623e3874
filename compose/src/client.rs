//! How an operator's commands reach the broker: address, login, connection.

use std::{
    fmt,
    io::{self, IsTerminal},
    sync::Arc,
    time::{Duration, UNIX_EPOCH},
};

use anyhow::{anyhow, bail};
use rumqttc::v5::{
    AsyncClient, ConnectionError, EventLoop, MqttOptions,
    mqttbytes::v5::{ConnectProperties, ConnectReturnCode},
};
use rumqttc::{TlsConfiguration, Transport};

use thinglog_router::config::Endpoint;
use tokio_rustls::rustls::ClientConfig;

use crate::{cli, login};

/// Largest packet taken: a message of 256 KiB, every byte of it escaped as `\u00XX`, and attributes.
const MAX_PACKET: u32 = 4 << 20;

/// Where the broker is, and who asks.
#[derive(Clone, Debug)]
pub(crate) struct Broker {
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) tls: Option<Arc<ClientConfig>>,
    pub(crate) credentials: Option<(String, String)>,
}

impl fmt::Display for Broker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

/// The broker of a command line, else the configured one.
pub(crate) fn broker(args: &cli::Connect, configured: &Endpoint) -> anyhow::Result<Broker> {
    let mut endpoint = match &args.broker {
        Some(address) => Endpoint {
            address: address.clone(),
            ..Endpoint::default()
        },
        None => configured.clone(),
    };
    if args.ca.is_some() {
        endpoint.tls.ca = args.ca.clone();
    }
    let reach = endpoint.reach().map_err(|error| match &args.broker {
        Some(_) => anyhow!("--broker: {}", error.reason),
        None => anyhow!("router.{error}"),
    })?;
    if args.ca.is_some() && reach.tls.is_none() {
        bail!(
            "--ca has no use without TLS; write --broker mqtts://{}",
            reach.host
        );
    }
    let credentials = match &args.username {
        Some(user) => Some((
            user.clone(),
            login::password(args.password_file.as_deref())?,
        )),
        // The configured login is for the configured broker only.
        None => endpoint.login(),
    };
    Ok(Broker {
        host: reach.host,
        port: reach.port,
        tls: reach.tls.map(Arc::new),
        credentials,
    })
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
    if let Some(tls) = &broker.tls {
        let tls = TlsConfiguration::Rustls(Arc::clone(tls));
        mqtt.set_transport(Transport::tls_with_config(tls));
    }
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
    fn a_broker_is_that_of_the_command_line_or_the_configured_one_with_its_login() {
        let configured = Endpoint {
            address: "mqtt.example.com:1884".into(),
            username: Some("ann".into()),
            password: Some("secret".into()),
            ..Endpoint::default()
        };
        let mut args = cli::Connect {
            broker: None,
            ca: None,
            username: None,
            password_file: None,
        };
        let of = |args: &cli::Connect| broker(args, &configured);
        let found = of(&args).unwrap();
        assert_eq!(found.to_string(), "mqtt.example.com:1884");
        assert_eq!(found.credentials, Some(("ann".into(), "secret".into())));
        for (text, shown, has_tls) in [
            ("localhost:1883", "localhost:1883", false),
            ("[::1]:1884", "[::1]:1884", false),
            ("mqtt://h", "h:1883", false),
            ("mqtts://h", "h:8883", true),
        ] {
            args.broker = Some(text.into());
            let found = of(&args).unwrap();
            assert_eq!(found.to_string(), shown);
            assert_eq!((found.tls.is_some(), found.credentials), (has_tls, None));
        }
        for bad in [
            "localhost",
            ":1883",
            "localhost:",
            "localhost:0",
            "::1:1883",
            "a:70000",
        ] {
            args.broker = Some(bad.into());
            let error = of(&args).unwrap_err().to_string();
            assert!(
                error.starts_with("--broker: ") && error.contains(bad),
                "{error}"
            );
        }
        args.broker = Some("localhost:1883".into());
        args.ca = Some("ca.pem".into());
        assert!(of(&args).unwrap_err().to_string().contains("--ca"));
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
