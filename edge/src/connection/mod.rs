//! Where the broker is and how a publisher proves who it is: addresses as people write them, logins,
//! TLS. What stands in files is read again at every connect, so it can be replaced while the
//! publisher runs.

pub(crate) mod credentials;
mod tls;

use std::{fmt, net::Ipv6Addr, path::PathBuf, str::FromStr};

pub(crate) use credentials::Credentials;

/// A password, kept out of every log.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Secret(pub(crate) String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("\"…\"")
    }
}

/// Who connects.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Login {
    /// Nobody in particular, or whom the certificate names.
    #[default]
    Anonymous,
    Password {
        user: String,
        password: Secret,
    },
    /// A password or device token in a file.
    PasswordFile {
        user: String,
        path: PathBuf,
    },
    /// A JWT in a file, in the place of the password.
    TokenFile {
        user: String,
        path: PathBuf,
    },
}

/// A TLS connection. Versions 1.2 and 1.3; the broker's certificate must be valid for its host name.
///
/// ```
/// use thinglog_edge::Tls;
///
/// let tls = Tls::new()
///     .ca("/etc/thinglog/ca.pem")
///     .identity("/etc/thinglog/lamp-7.pem", "/etc/thinglog/lamp-7.key");
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tls {
    pub(crate) ca: Option<PathBuf>,
    pub(crate) identity: Option<(PathBuf, PathBuf)>,
    pub(crate) server_name: Option<String>,
}

impl Tls {
    /// Trusts the certificate authorities of the system (`SSL_CERT_FILE` and `SSL_CERT_DIR` say where
    /// they are, else the usual places are looked at).
    pub fn new() -> Tls {
        Tls::default()
    }

    /// Trusts the authorities in this PEM file instead, and no others.
    #[must_use]
    pub fn ca(mut self, path: impl Into<PathBuf>) -> Tls {
        self.ca = Some(path.into());
        self
    }

    /// Shows this certificate (PEM, with the chain below it) and its key (PEM: PKCS #8, PKCS #1 or
    /// SEC 1).
    #[must_use]
    pub fn identity(mut self, certificate: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Tls {
        self.identity = Some((certificate.into(), key.into()));
        self
    }

    /// The name (or IP address) that the broker's certificate must be valid for, when it is not the
    /// host that is connected to. It is also what the handshake asks for (SNI; an IP address is asked
    /// for by nobody, RFC 6066 section 3).
    #[must_use]
    pub fn server_name(mut self, name: impl Into<String>) -> Tls {
        self.server_name = Some(name.into());
        self
    }
}

/// Where a broker listens, as people write it: `mqtts://logs.example.com`, `mqtt://10.0.0.1:1884`,
/// `logs.example.com:1883`, `[::1]`. Without a scheme it is `mqtt`; without a port it is the scheme's,
/// 1883 or 8883.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrokerUrl {
    /// A host name or an IP address (IPv6 without brackets).
    pub host: String,
    /// The TCP port.
    pub port: u16,
    /// `mqtts`: the connection is encrypted.
    pub tls: bool,
}

/// Why a text is no address of a broker.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no address of a broker: {reason}; write it as mqtts://logs.example.com:8883")]
pub struct BrokerUrlError {
    text: String,
    reason: String,
}

impl FromStr for BrokerUrl {
    type Err = BrokerUrlError;

    fn from_str(text: &str) -> Result<BrokerUrl, BrokerUrlError> {
        parse_url(text).map_err(|reason| BrokerUrlError {
            // A password that stands in there must not reach a log.
            text: match text.split_once('@') {
                Some((_, rest)) => format!("…@{rest}"),
                None => text.to_owned(),
            },
            reason,
        })
    }
}

impl fmt::Display for BrokerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "mqtts" } else { "mqtt" };
        match self.host.contains(':') {
            true => write!(f, "{scheme}://[{}]:{}", self.host, self.port),
            false => write!(f, "{scheme}://{}:{}", self.host, self.port),
        }
    }
}

fn parse_url(text: &str) -> Result<BrokerUrl, String> {
    let (tls, rest) = match text.split_once("://") {
        None => (false, text),
        Some(("mqtt", rest)) => (false, rest),
        Some(("mqtts", rest)) => (true, rest),
        Some((scheme @ ("tcp" | "ssl" | "tls" | "ws" | "wss" | "http" | "https"), _)) => {
            return Err(format!(
                "{scheme}:// is not spoken, mqtt:// and mqtts:// are"
            ));
        }
        Some((scheme, _)) => return Err(format!("{scheme:?} is an unknown scheme")),
    };
    if rest.contains('@') {
        return Err("user name and password have settings of their own".into());
    }
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    if rest.contains(['/', '?', '#']) {
        return Err("nothing may follow the port".into());
    }
    let (host, port) = split_port(rest)?;
    let port = match port {
        None if tls => 8883,
        None => 1883,
        Some(port) => match port.parse() {
            Ok(port @ 1..) => port,
            _ => return Err(format!("{port:?} is no port (1 to 65535)")),
        },
    };
    Ok(BrokerUrl {
        host: host.to_owned(),
        port,
        tls,
    })
}

fn split_port(rest: &str) -> Result<(&str, Option<&str>), String> {
    if let Some(bracketed) = rest.strip_prefix('[') {
        let (host, after) = bracketed
            .split_once(']')
            .ok_or("the bracket is not closed")?;
        if host.parse::<Ipv6Addr>().is_err() {
            return Err(format!("{host:?} is no IPv6 address"));
        }
        return match after.strip_prefix(':') {
            Some(port) => Ok((host, Some(port))),
            None if after.is_empty() => Ok((host, None)),
            None => Err(format!("{after:?} stands where a port was expected")),
        };
    }
    let (host, port) = match rest.split_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (rest, None),
    };
    if port.is_some_and(|port| port.contains(':')) {
        return Err("an IPv6 address stands in brackets, as in [::1]".into());
    }
    let odd = |c: char| !(c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_'));
    match host {
        "" => Err("the host is missing".into()),
        host if host.contains(odd) => Err(format!("{host:?} is no host name")),
        host => Ok((host, port)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_people_write_them() {
        for (text, host, port, tls) in [
            ("mqtts://logs.example.com", "logs.example.com", 8883, true),
            (
                "mqtts://logs.example.com:443/",
                "logs.example.com",
                443,
                true,
            ),
            ("mqtt://10.0.0.1", "10.0.0.1", 1883, false),
            ("localhost:1884", "localhost", 1884, false),
            ("[::1]:1884", "::1", 1884, false),
            ("mqtts://[fe80::1]", "fe80::1", 8883, true),
        ] {
            let url: BrokerUrl = text.parse().unwrap();
            assert_eq!((&*url.host, url.port, url.tls), (host, port, tls), "{text}");
            assert_eq!(url.to_string().parse(), Ok(url));
        }
    }

    #[test]
    fn what_is_no_address_is_refused_with_the_reason() {
        for (text, reason) in [
            ("", "host is missing"),
            ("mqtts://", "host is missing"),
            ("mqtts://:8883", "host is missing"),
            ("https://logs.example.com", "https:// is not spoken"),
            ("gopher://logs", "unknown scheme"),
            ("logs.example.com:mqtt", "no port"),
            ("logs.example.com:0", "no port"),
            ("logs.example.com:70000", "no port"),
            ("::1", "brackets"),
            ("[::1", "not closed"),
            ("[::1]x", "port was expected"),
            ("[logs]:1", "no IPv6 address"),
            ("logs example", "no host name"),
            ("mqtt://logs/topic", "nothing may follow"),
        ] {
            let error = text.parse::<BrokerUrl>().unwrap_err().to_string();
            assert!(error.contains(reason), "{text}: {error}");
            assert!(error.contains("mqtts://logs.example.com:8883"), "{error}");
        }
    }

    #[test]
    fn a_password_in_an_address_is_refused_and_not_repeated() {
        let text = "mqtt://lamp:hunter2@logs.example.com";
        let error = text.parse::<BrokerUrl>().unwrap_err().to_string();
        assert!(error.contains("settings of their own"), "{error}");
        assert!(!error.contains("hunter2"), "{error}");
    }

    #[test]
    fn a_password_shows_in_no_debug_output() {
        let login = Login::Password {
            user: "lamp".into(),
            password: Secret("hunter2".into()),
        };
        assert!(!format!("{login:?}").contains("hunter2"));
    }
}
