//! Which web pages may open a WebSocket.
//!
//! A browser lets any page open a WebSocket to any address, loopback and the local network included,
//! and tells the server only which page it is (RFC 6455 section 10.2). So the page's `Origin` has to
//! be the broker's own or on a list. A name that the page's owner points at this machine after the
//! page has loaded (DNS rebinding) would make a foreign page the broker's own: so `Host` has to be a
//! loopback name or address, or on a list too. Programs other than browsers send no `Origin`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::config::WebSocketConfig;
use crate::config::ConfigError;

/// What is allowed besides the broker's own pages and loopback.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rules {
    hosts: Vec<Authority>,
    origins: Vec<Origin>,
}

/// Why a request may not pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Denied {
    Host,
    Origin,
}

impl Rules {
    pub(crate) fn new(config: &WebSocketConfig) -> Result<Rules, ConfigError> {
        let wrong = |key, text: &str, example| ConfigError {
            key,
            reason: format!("{text:?} cannot be used; write it as in {example}"),
        };
        let hosts = config.hosts.iter().map(|text| {
            Authority::parse(text).ok_or_else(|| {
                wrong(
                    "websocket.hosts",
                    text,
                    "logs.example.com or 192.0.2.1:8083",
                )
            })
        });
        let origins = config.origins.iter().map(|text| {
            Origin::parse(text).ok_or_else(|| {
                wrong(
                    "websocket.origins",
                    text,
                    "https://app.example.com or http://192.0.2.1:3000",
                )
            })
        });
        Ok(Rules {
            hosts: hosts.collect::<Result<_, _>>()?,
            origins: origins.collect::<Result<_, _>>()?,
        })
    }

    /// Judges the two headers of a request.
    pub(crate) fn check(&self, host: &str, origin: Option<&str>) -> Result<(), Denied> {
        let host = Authority::parse(host).ok_or(Denied::Host)?;
        if !host.is_loopback() && !self.hosts.iter().any(|allowed| allowed.covers(&host)) {
            return Err(Denied::Host);
        }
        let Some(origin) = origin else { return Ok(()) };
        let origin = Origin::parse(origin).ok_or(Denied::Origin)?;
        if origin.is_at(&host) || self.origins.contains(&origin) {
            Ok(())
        } else {
            Err(Denied::Origin)
        }
    }
}

/// A host and, if it is given, a port.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Authority {
    /// In lower case; IPv6 addresses in their shortest form, without brackets.
    host: String,
    port: Option<u16>,
}

impl Authority {
    fn parse(text: &str) -> Option<Authority> {
        let (host, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let (ip, port) = rest.split_once(']')?;
                let port = match port {
                    "" => None,
                    port => Some(port.strip_prefix(':')?),
                };
                (ip.parse::<Ipv6Addr>().ok()?.to_string(), port)
            }
            None => {
                let (host, port) = match text.split_once(':') {
                    Some((host, port)) => (host, Some(port)),
                    None => (text, None),
                };
                let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
                let is_host = !host.is_empty() && host.len() <= 253 && host.chars().all(is_name);
                (is_host.then(|| host.to_ascii_lowercase())?, port)
            }
        };
        let port = match port {
            Some(port) => Some(parse_port(port)?),
            None => None,
        };
        Some(Authority { host, port })
    }

    /// A name that no resolver is asked for, or an address.
    fn is_loopback(&self) -> bool {
        let ip = match self.host.parse::<Ipv4Addr>() {
            Ok(ip) => Some(IpAddr::V4(ip)),
            Err(_) => self.host.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
        };
        self.host == "localhost" || ip.is_some_and(|ip| ip.is_loopback())
    }

    /// Whether `other` is this host, at this port if one is named.
    fn covers(&self, other: &Authority) -> bool {
        self.host == other.host && (self.port.is_none() || self.port == other.port)
    }
}

fn parse_port(text: &str) -> Option<u16> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().ok())?
}

/// Scheme, host and port of a page (RFC 6454).
#[derive(Clone, Debug, PartialEq, Eq)]
struct Origin {
    scheme: String,
    /// With the scheme's own port where none is given.
    at: Authority,
}

impl Origin {
    fn parse(text: &str) -> Option<Origin> {
        let (scheme, at) = text.split_once("://")?;
        let is_scheme = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.');
        let scheme = (!scheme.is_empty() && scheme.chars().all(is_scheme))
            .then(|| scheme.to_ascii_lowercase())?;
        let at = Authority::parse(at)?;
        let port = at.port.or(default_port(&scheme));
        Some(Origin {
            at: Authority { port, ..at },
            scheme,
        })
    }

    /// Whether the page comes from the host and port that the request is for. Behind a proxy that
    /// ends TLS the request names no port; the page's scheme says which one is meant.
    fn is_at(&self, host: &Authority) -> bool {
        let port = host.port.or(default_port(&self.scheme));
        self.at.host == host.host && self.at.port.is_some() && self.at.port == port
    }
}

fn default_port(scheme: &str) -> Option<u16> {
    match scheme {
        "http" => Some(80),
        "https" => Some(443),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(hosts: &[&str], origins: &[&str]) -> Rules {
        let owned = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect();
        Rules::new(&WebSocketConfig {
            hosts: owned(hosts),
            origins: owned(origins),
            ..WebSocketConfig::default()
        })
        .unwrap()
    }

    #[test]
    fn programs_pass_on_loopback_and_by_configured_names() {
        let rules = rules(&["Logs.example.com", "192.0.2.1:8083"], &[]);
        for host in [
            "localhost:8083",
            "LOCALHOST",
            "127.0.0.1:8083",
            "127.3.2.1",
            "[::1]:8083",
            "[0:0:0:0:0:0:0:1]",
            "logs.example.com",
            "logs.EXAMPLE.com:9000",
            "192.0.2.1:8083",
        ] {
            assert_eq!(rules.check(host, None), Ok(()), "{host}");
        }
    }

    #[test]
    fn a_name_pointed_at_this_machine_is_refused() {
        let rules = rules(&["192.0.2.1:8083"], &[]);
        for host in [
            "rebound.example.com",
            "rebound.example.com:8083",
            "localhost.example.com",
            "127.0.0.1.example.com",
            "192.0.2.1",
            "192.0.2.1:8084",
            "10.0.0.1",
            "[::2]",
            "",
            ":8083",
            "localhost:",
            "localhost:+80",
            "localhost:99999",
            "user@localhost",
            "localhost/",
            "[::1",
            "[::1]8083",
            "::1",
        ] {
            let own_page = format!("http://{host}");
            assert_eq!(rules.check(host, None), Err(Denied::Host), "{host}");
            assert_eq!(
                rules.check(host, Some(&own_page)),
                Err(Denied::Host),
                "{host}"
            );
        }
    }

    #[test]
    fn the_brokers_own_pages_pass() {
        let rules = rules(&["logs.example.com"], &[]);
        for (host, origin) in [
            ("localhost:8083", "http://localhost:8083"),
            ("[::1]:8083", "http://[::1]:8083"),
            ("logs.example.com", "https://logs.example.com"),
            ("logs.example.com", "http://logs.example.com:80"),
            ("logs.example.com:443", "https://LOGS.example.com"),
        ] {
            assert_eq!(rules.check(host, Some(origin)), Ok(()), "{origin}");
        }
    }

    #[test]
    fn other_pages_do_not_unless_they_are_listed() {
        let rules = rules(
            &[],
            &[
                "https://app.example.com",
                "http://localhost:3000",
                "app://ours",
            ],
        );
        for origin in [
            "https://app.example.com",
            "https://app.example.com:443",
            "http://localhost:3000",
            "app://ours",
        ] {
            assert_eq!(
                rules.check("localhost:8083", Some(origin)),
                Ok(()),
                "{origin}"
            );
        }
        for origin in [
            "http://app.example.com",
            "https://app.example.com:8443",
            "https://app.example.com.evil.example",
            "https://evil.example",
            "http://localhost",
            "http://localhost:8080",
            "http://127.0.0.1:8083",
            "app://theirs",
            "null",
            "",
            "://",
            "file://",
            "https://app.example.com/page",
            "https://app.example.com, https://app.example.com",
        ] {
            let denied = Err(Denied::Origin);
            assert_eq!(
                rules.check("localhost:8083", Some(origin)),
                denied,
                "{origin}"
            );
        }
    }
}
