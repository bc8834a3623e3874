//! What an operator may set about listeners, and where the broker listens by that.

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
};

use serde::Deserialize;
use thinglog_schemas::Topics;

use super::{rules::Rules, tls::Tls};
use crate::{
    access::Access,
    config::{Config, ConfigError},
    peer::Transport,
};

/// Usual ports: IANA's for MQTT, the custom of other brokers for WebSocket.
const TLS_PORT: u16 = 8883;
const WEBSOCKET_PORT: u16 = 8083;
const SECURE_WEBSOCKET_PORT: u16 = 8084;

/// MQTT over TLS, versions 1.2 and 1.3; the certificates also serve secure WebSocket.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TlsConfig {
    /// Where clients connect (default: port 8883 of the address of `broker.listen`).
    pub listen: Option<SocketAddr>,
    /// PEM file with the broker's certificate, then those that lead to its authority's.
    pub certificate: PathBuf,
    /// PEM file with the private key of the certificate (PKCS#8, PKCS#1 or SEC1).
    pub key: PathBuf,
    /// PEM file with the authorities whose certificates clients may show; without it clients are
    /// asked for none.
    pub client_ca: Option<PathBuf>,
    /// Whether a client has to show one (default, with `client_ca`) or may.
    pub client_certificates: Option<ClientCertificates>,
}

/// What is asked of clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ClientCertificates {
    /// Who shows no valid certificate is refused.
    Required,
    /// Who shows none is served, without a name; an invalid one is refused.
    Optional,
}

/// MQTT over WebSocket, at the paths `/mqtt` and `/`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct WebSocketConfig {
    /// Where clients connect (default: port 8083 of the address of `broker.listen`).
    pub listen: Option<SocketAddr>,
    /// Where clients connect over TLS, if `broker.tls` is configured (default: port 8084 of the
    /// address of `broker.listen`).
    pub tls_listen: Option<SocketAddr>,
    /// Names by which clients may address the broker, `host` or `host:port`, besides `localhost` and
    /// loopback addresses.
    pub hosts: Vec<String>,
    /// Origins whose pages may connect, as `https://app.example.com`, besides the broker's own.
    pub origins: Vec<String>,
}

impl TlsConfig {
    /// Whether every client has to show a certificate.
    pub(crate) fn requires_certificates(&self) -> bool {
        self.client_ca.is_some() && self.client_certificates != Some(ClientCertificates::Optional)
    }

    fn validate(&self) -> Result<(), ConfigError> {
        let missing = |key| {
            Err(ConfigError {
                key,
                reason: "names no file; TLS needs a certificate and its key in PEM files".into(),
            })
        };
        if self.certificate.as_os_str().is_empty() {
            return missing("tls.certificate");
        }
        if self.key.as_os_str().is_empty() {
            return missing("tls.key");
        }
        if self.client_certificates.is_some() && self.client_ca.is_none() {
            return Err(ConfigError {
                key: "tls.client_certificates",
                reason: "needs broker.tls.client_ca, the authorities to check them by".into(),
            });
        }
        Ok(())
    }
}

/// A listener as configured.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub(crate) transport: Transport,
    pub(crate) address: SocketAddr,
    /// The key that says so, below `[broker]`.
    pub(crate) key: &'static str,
}

impl Config {
    /// Every listener; plain MQTT comes first and is always there.
    pub(crate) fn places(&self) -> Vec<Place> {
        let beside = |address: Option<SocketAddr>, port| {
            address.unwrap_or(SocketAddr::new(self.listen.ip(), port))
        };
        let mut places = vec![Place {
            transport: Transport::Tcp,
            address: self.listen,
            key: "listen",
        }];
        if let Some(tls) = &self.tls {
            places.push(Place {
                transport: Transport::Tls,
                address: beside(tls.listen, TLS_PORT),
                key: "tls.listen",
            });
        }
        if let Some(websocket) = &self.websocket {
            places.push(Place {
                transport: Transport::WebSocket,
                address: beside(websocket.listen, WEBSOCKET_PORT),
                key: "websocket.listen",
            });
            if self.tls.is_some() {
                places.push(Place {
                    transport: Transport::SecureWebSocket,
                    address: beside(websocket.tls_listen, SECURE_WEBSOCKET_PORT),
                    key: "websocket.tls_listen",
                });
            }
        }
        places
    }

    /// The addresses and transports that are served with this configuration.
    pub fn listeners(&self) -> impl Iterator<Item = (Transport, SocketAddr)> {
        let places = self.places().into_iter();
        places.map(|place| (place.transport, place.address))
    }

    /// The key, below `[broker]`, of the listener that takes `address`, or what would be in its way.
    pub fn listener_on(&self, address: SocketAddr) -> Option<&'static str> {
        let places = self.places().into_iter();
        let mut places = places.filter(|place| collide(place.address, address));
        places.next().map(|place| place.key)
    }

    /// Reads the files that the configuration names (blocking) as the start will.
    pub fn check_files(&self) -> Result<(), ConfigError> {
        let wrong = |key| move |reason: String| ConfigError { key, reason };
        let topics = Topics::new(&self.root).map_err(|error| wrong("root")(error.to_string()))?;
        Access::open(&self.auth, &topics).map_err(|error| wrong("auth")(error.to_string()))?;
        self.tls.as_ref().map(Tls::load).transpose().map(drop)
    }

    /// Checks what concerns listeners, without touching a file or socket.
    pub(crate) fn validate_listeners(&self) -> Result<(), ConfigError> {
        if let Some(tls) = &self.tls {
            tls.validate()?;
        }
        if let Some(websocket) = &self.websocket {
            Rules::new(websocket)?;
            if websocket.tls_listen.is_some() && self.tls.is_none() {
                return Err(ConfigError {
                    key: "websocket.tls_listen",
                    reason: "needs broker.tls.certificate and broker.tls.key".into(),
                });
            }
        }
        let places = self.places();
        for (n, place) in places.iter().enumerate() {
            let mut before = places[..n].iter();
            if let Some(other) = before.find(|other| collide(other.address, place.address)) {
                return Err(ConfigError {
                    key: place.key,
                    reason: format!("{} is that of broker.{} already", place.address, other.key),
                });
            }
        }
        match places.iter().find(|place| !self.may_serve(place)) {
            None => Ok(()),
            Some(open) => Err(ConfigError {
                key: open.key,
                reason: open_to_all(open.address),
            }),
        }
    }

    /// Closed by default: beyond this machine only with credentials, or by the operator's word.
    fn may_serve(&self, place: &Place) -> bool {
        is_local(place.address.ip()) || self.insecure || self.asks_for_credentials(place.transport)
    }

    /// Whether a client has to prove who it is before it is served over `transport`.
    fn asks_for_credentials(&self, transport: Transport) -> bool {
        let certificates = self
            .tls
            .as_ref()
            .is_some_and(TlsConfig::requires_certificates);
        self.auth.asks() || transport.is_encrypted() && certificates
    }
}

/// Whether no two sockets can listen on both. Port 0 takes a free one; an unspecified address takes
/// every other, that of IPv6 those of IPv4 too.
fn collide(one: SocketAddr, other: SocketAddr) -> bool {
    let takes = |all: IpAddr, ip: IpAddr| match all {
        IpAddr::V4(all) => all.is_unspecified() && ip.is_ipv4(),
        IpAddr::V6(all) => all.is_unspecified(),
    };
    let (a, b) = (one.ip().to_canonical(), other.ip().to_canonical());
    one.port() != 0 && one.port() == other.port() && (a == b || takes(a, b) || takes(b, a))
}

/// Why an address beyond loopback is not served to everybody, and the commands that change it.
fn open_to_all(address: SocketAddr) -> String {
    format!(
        "{address} is reachable from other machines and nothing asks clients for credentials. \
         Have them log in:
    thinglog passwd --file passwords --role admin admin
    thinglog device add --file tokens lamp-7
    export THINGLOG_BROKER_AUTH_PASSWORDS=passwords THINGLOG_BROKER_AUTH_TOKENS=tokens
  (or passwords = \"passwords\" and tokens = \"tokens\" below [broker.auth] in thinglog.toml) and start \
         again; or ask for certificates (broker.tls.client_ca); or listen on 127.0.0.1 only; or accept the risk with --insecure (broker.insecure = true)"
    )
}

/// Whether only this machine reaches the address.
fn is_local(ip: IpAddr) -> bool {
    ip.to_canonical().is_loopback()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// JSON stands for the configuration file: the same keys, the same types.
    fn config(text: &str) -> Config {
        serde_json::from_str(text).unwrap()
    }

    const TLS: &str = r#""certificate": "c.pem", "key": "k.pem""#;

    #[test]
    fn listeners_have_the_usual_ports_beside_the_plain_one() {
        let config = config(&format!(
            r#"{{"listen": "127.0.0.2:1884", "tls": {{{TLS}}}, "websocket": {{}}}}"#
        ));
        let listeners: Vec<String> = config
            .listeners()
            .map(|(transport, address)| format!("{}://{address}", transport.scheme()))
            .collect();
        let expected = [
            "mqtt://127.0.0.2:1884",
            "mqtts://127.0.0.2:8883",
            "ws://127.0.0.2:8083",
            "wss://127.0.0.2:8084",
        ];
        assert_eq!(listeners, expected);
        config.validate().unwrap();
    }

    #[test]
    fn only_plain_mqtt_listens_unless_told_to() {
        assert_eq!(Config::default().listeners().count(), 1);
    }

    #[test]
    fn no_listener_leaves_loopback_without_credentials() {
        let open = [
            r#"{"listen": "0.0.0.0:1883"}"#.to_owned(),
            format!(r#"{{"tls": {{{TLS}, "listen": "192.0.2.1:8883"}}}}"#),
            r#"{"websocket": {"listen": "[::]:8083"}}"#.to_owned(),
            format!(r#"{{"tls": {{{TLS}}}, "websocket": {{"tls_listen": "0.0.0.0:443"}}}}"#),
            format!(
                r#"{{"tls": {{{TLS}, "listen": "0.0.0.0:8883", "client_ca": "ca.pem", "client_certificates": "optional"}}}}"#
            ),
        ];
        let keys = [
            "listen",
            "tls.listen",
            "websocket.listen",
            "websocket.tls_listen",
            "tls.listen",
        ];
        for (text, key) in open.iter().zip(keys) {
            let mut config = config(text);
            let error = config.validate().unwrap_err();
            assert_eq!(error.key, key, "{text}");
            assert!(error.reason.contains("--insecure"), "{error}");
            config.insecure = true;
            config.validate().unwrap();
        }
    }

    #[test]
    fn required_certificates_are_credentials_for_encrypted_listeners_only() {
        let tls = format!(r#""tls": {{{TLS}, "listen": "0.0.0.0:8883", "client_ca": "ca.pem"}}"#);
        config(&format!("{{{tls}}}")).validate().unwrap();
        config(&format!(
            r#"{{{tls}, "websocket": {{"tls_listen": "0.0.0.0:8084"}}}}"#
        ))
        .validate()
        .unwrap();
        let plain = config(&format!(
            r#"{{{tls}, "websocket": {{"listen": "0.0.0.0:8083"}}}}"#
        ));
        assert_eq!(plain.validate().unwrap_err().key, "websocket.listen");
    }

    #[test]
    fn what_is_incomplete_is_named() {
        let cases = [
            (r#"{"tls": {}}"#.to_owned(), "tls.certificate"),
            (r#"{"tls": {"certificate": "c.pem"}}"#.to_owned(), "tls.key"),
            (
                format!(r#"{{"tls": {{{TLS}, "client_certificates": "required"}}}}"#),
                "tls.client_certificates",
            ),
            (
                r#"{"websocket": {"tls_listen": "127.0.0.1:8084"}}"#.to_owned(),
                "websocket.tls_listen",
            ),
            (
                r#"{"websocket": {"origins": ["app.example.com"]}}"#.to_owned(),
                "websocket.origins",
            ),
            (
                r#"{"websocket": {"hosts": ["https://app"]}}"#.to_owned(),
                "websocket.hosts",
            ),
        ];
        for (text, key) in cases {
            assert_eq!(config(&text).validate().unwrap_err().key, key, "{text}");
        }
    }
}
