//! What an operator may set of the router, and the checks that need no file and no socket.
//!
//! Every structure refuses unknown keys, has a default for each key it can do without, and
//! serialises back to what it was read from, so that the same types serve TOML files and tools.

mod alerts;
mod aws;
mod clickhouse;
mod cloudwatch;
mod destinations;
mod elasticsearch;
mod kafka;
mod kinds;
mod loki;
mod mqtt;
mod nats;
mod objects;
mod otlp;
mod postgresql;
mod remote;
mod routes;
mod splunk;
mod store;
mod syslog;
mod tls;
mod webhook;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use thinglog_schemas::{Topics, json, name};

pub use crate::http::HttpConfig;
use crate::net::tls::{Trust, config as tls_config};
use crate::net::{address::Address, wire::Server};
pub(crate) use alerts::MQTT_RECEIVER;
pub use alerts::{AlertConfig, By, Devices, ReceiverConfig, Span};
pub use aws::AwsKeys;
pub use clickhouse::ClickhouseConfig;
pub use cloudwatch::{CloudWatchConfig, CloudWatchLine};
pub use destinations::{DestinationConfig, FileConfig, LineFormat, StdoutConfig};
pub use elasticsearch::ElasticsearchConfig;
pub use kafka::{KafkaConfig, Mechanism};
pub use kinds::DestinationKind;
pub use loki::{LokiConfig, LokiLine};
pub(crate) use mqtt::MQTT_SCHEMES;
pub use mqtt::{EmitterConfig, MqttConfig, MqttFormat};
pub use nats::NatsConfig;
pub use objects::{
    AzureConfig, GcsConfig, ObjectCompression, ObjectFormat, ObjectStoreConfig, S3Config,
};
pub use otlp::{OtlpConfig, OtlpEncoding};
pub use postgresql::{PostgresqlConfig, SslMode};
pub(crate) use remote::Delivery;
#[cfg(feature = "http-client")]
pub(crate) use remote::read_secret;
pub use remote::{
    BatchConfig, ClientConfig, Compression, DeadLetterConfig, OnFull, RetryConfig, Secret,
};
pub use routes::{Condition, RouteConfig};
pub use splunk::{SplunkConfig, SplunkForm};
pub use store::StoreConfig;
#[cfg(feature = "syslog")]
pub(crate) use syslog::SYSLOG_SCHEMES;
pub use syslog::{Facility, SyslogConfig};
pub use thinglog_schemas::redact::RedactOptions;
pub use tls::TlsKeys;
pub use webhook::{Format, Method, Preset, WebhookConfig};

/// The router's configuration.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The broker to consume from and to publish to.
    pub broker: Endpoint,
    /// The data directory; the router keeps everything below `<data>/router/`.
    pub data: PathBuf,
    /// First level(s) of every topic.
    pub root: String,
    /// `/api`, AWS IoT's calls, `/metrics`, `/healthz` and `/readyz`; absent: no HTTP.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http: Option<HttpConfig>,
    /// Where events go, by name. Each is a subscription of its own.
    pub destinations: BTreeMap<String, DestinationConfig>,
    /// Which events go to which destinations, by name, see [`crate::routes`].
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub routes: BTreeMap<String, RouteConfig>,
    /// When somebody is told of events, by name, see [`crate::alerts`].
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub alerts: BTreeMap<String, AlertConfig>,
    /// Who is told, by name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub receivers: BTreeMap<String, ReceiverConfig>,
    /// Quarantine and gap detection.
    pub audit: AuditConfig,
    /// Live topics for operators.
    pub live: LiveConfig,
    /// Most publishes a consumer holds unacknowledged (MQTT 5 receive maximum).
    pub window_packets: u16,
    /// Most payload bytes a consumer holds unacknowledged before it stops reading its socket. They
    /// are compressed events mostly, so 8 MiB are some hundred thousand of them.
    pub window_bytes: usize,
    /// Most bytes of decoded batches that destinations share.
    pub cache_bytes: usize,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            broker: Endpoint::default(),
            data: PathBuf::from("thinglog-data"),
            root: "thinglog".into(),
            http: None,
            destinations: BTreeMap::new(),
            routes: BTreeMap::new(),
            alerts: BTreeMap::new(),
            receivers: BTreeMap::new(),
            audit: AuditConfig::default(),
            live: LiveConfig::default(),
            window_packets: u16::MAX,
            window_bytes: 8 << 20,
            cache_bytes: 16 << 20,
        }
    }
}

/// An MQTT 5 broker.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Endpoint {
    /// `host:port`, `mqtt://HOST[:PORT]` or, with TLS, `mqtts://HOST[:PORT]`; ports 1883 and 8883.
    pub address: String,
    /// User name to log in with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    /// Password to log in with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password: Option<String>,
    /// For `mqtts`.
    #[serde(skip_serializing_if = "is_default")]
    pub tls: TlsKeys,
    /// Believe the `thinglog-*` user properties of deliveries. The bundled broker removes what a
    /// client sends under these names; behind a broker that does not, a device could forge its
    /// principal and address, so set this to false there.
    pub stamps: bool,
}

/// Where an MQTT broker is.
#[derive(Clone, Debug)]
pub struct Reach {
    /// A name or an address, without brackets.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// With TLS.
    pub tls: Option<tokio_rustls::rustls::ClientConfig>,
}

impl Default for Endpoint {
    fn default() -> Self {
        Endpoint {
            address: "127.0.0.1:1883".into(),
            username: None,
            password: None,
            tls: TlsKeys::default(),
            stamps: true,
        }
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoint")
            .field("address", &self.address)
            .field("username", &self.username)
            .field("password", &self.password.as_ref().map(|_| "…"))
            .field("tls", &self.tls)
            .field("stamps", &self.stamps)
            .finish()
    }
}

/// Where a durable subscription that the broker does not know yet starts reading. Brokers other
/// than the bundled one keep no past, so there every subscription starts at the tail.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum StartFrom {
    /// With the first publish after the subscription.
    Tail,
    /// With the oldest publish the broker still has.
    #[default]
    Earliest,
    /// With the first publish received at or after this time, ns since the Unix epoch.
    Time(u64),
}

impl StartFrom {
    /// The value of the `thinglog-from` user property.
    pub(crate) fn property(&self) -> String {
        match self {
            StartFrom::Tail => "tail".into(),
            StartFrom::Earliest => "earliest".into(),
            StartFrom::Time(ns) => ns.to_string(),
        }
    }
}

impl TryFrom<String> for StartFrom {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        match text.as_str() {
            "tail" => Ok(StartFrom::Tail),
            "earliest" => Ok(StartFrom::Earliest),
            time => json::parse_time(time).map(StartFrom::Time).ok_or_else(|| {
                format!("{text:?} is neither \"tail\", \"earliest\" nor an RFC 3339 time")
            }),
        }
    }
}

impl From<StartFrom> for String {
    fn from(from: StartFrom) -> String {
        match from {
            StartFrom::Tail => "tail".into(),
            StartFrom::Earliest => "earliest".into(),
            StartFrom::Time(ns) => {
                let mut out = Vec::new();
                json::write_time(ns, &mut out);
                String::from_utf8_lossy(&out).into_owned()
            }
        }
    }
}

/// Quarantine of unreadable payloads and detection of lost events.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AuditConfig {
    /// Where a new audit subscription starts.
    pub from: StartFrom,
    /// Most bytes of quarantine files; beyond it the oldest is deleted, logged and counted.
    pub quarantine_bytes: u64,
    /// Seconds a hole in a device's numbering may stay open before it is declared a loss.
    pub gap_grace_s: u64,
}

impl Default for AuditConfig {
    fn default() -> Self {
        AuditConfig {
            from: StartFrom::Earliest,
            quarantine_bytes: 64 << 20,
            gap_grace_s: 5,
        }
    }
}

/// Live topics for operators.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LiveConfig {
    /// Publish live topics at all.
    pub enabled: bool,
    /// Seconds behind the device's publish from which a slow watch skips to the newest events.
    pub skip_behind_s: u64,
}

impl Default for LiveConfig {
    fn default() -> Self {
        LiveConfig {
            enabled: true,
            skip_behind_s: 2,
        }
    }
}

/// A key of the configuration that cannot be used, and why.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {reason}")]
pub struct ConfigError {
    /// The key, dotted as in the file.
    pub key: String,
    /// What is wrong and what to do.
    pub reason: String,
}

impl ConfigError {
    pub(crate) fn new(key: impl Into<String>, reason: impl Into<String>) -> ConfigError {
        ConfigError {
            key: key.into(),
            reason: reason.into(),
        }
    }
}

/// Folders below `<data>/router/` that are the router's own.
const RESERVED: [&str; 9] = [
    "alerts",
    "audit",
    "quarantine",
    "history",
    "live",
    "levels",
    "presence",
    "publisher",
    "changes",
];
/// Smallest window in bytes: one payload of the largest size must always fit.
const SMALLEST_WINDOW: usize = 2 << 20;

impl Config {
    /// Checks everything that can be checked without touching the system.
    pub fn validate(&self) -> Result<(), ConfigError> {
        Topics::new(&self.root).map_err(|error| ConfigError::new("root", error.to_string()))?;
        self.broker.validate()?;
        if let Some(http) = &self.http {
            http.validate()?;
        }
        for (name, destination) in &self.destinations {
            validate_destination(name, destination)?;
        }
        for (name, route) in &self.routes {
            self.validate_route(name, route)?;
        }
        alerts::validate(&self.alerts, &self.receivers)?;
        if self.window_packets == 0 {
            return Err(ConfigError::new("window_packets", "must be at least 1"));
        }
        if self.window_bytes < SMALLEST_WINDOW {
            let reason = format!("must be at least {SMALLEST_WINDOW}, so that any payload fits");
            return Err(ConfigError::new("window_bytes", reason));
        }
        Ok(())
    }

    fn validate_route(&self, name: &str, route: &RouteConfig) -> Result<(), ConfigError> {
        let key = format!("routes.{name}");
        if !name::is_valid(name) {
            let reason = "a name is 1-128 characters of A-Z a-z 0-9 . _ : -";
            return Err(ConfigError::new(key, reason));
        }
        route.validate().map_err(|error| {
            let key = format!("{key}.{}", error.key);
            ConfigError::new(key, error.reason)
        })?;
        let unknown = |to: &&String| !self.destinations.contains_key(*to);
        let of = |to: &String| self.destinations.get(to);
        let is_archive = |to: &&String| of(to).is_some_and(|it| it.kind.is_archive());
        let reason = match route.to.iter().find(unknown) {
            Some(to) => format!("there is no destination {to:?}"),
            None => match route.to.iter().find(is_archive) {
                Some(to) => format!("{to:?}: {}", destinations::NO_CHOICE),
                None => return Ok(()),
            },
        };
        Err(ConfigError::new(format!("{key}.to"), reason))
    }

    /// The router's own folder.
    pub(crate) fn folder(&self) -> PathBuf {
        self.data.join("router")
    }

    /// The folder of a destination or of one of the router's own parts.
    pub(crate) fn folder_of(&self, part: &str) -> PathBuf {
        self.folder().join(Path::new(part))
    }
}

impl Endpoint {
    fn validate(&self) -> Result<(), ConfigError> {
        let below =
            |error: ConfigError| ConfigError::new(format!("broker.{}", error.key), error.reason);
        match self.place()?.scheme {
            "mqtts" => self.tls.validate().map_err(below)?,
            _ => self.tls.refuse("mqtts").map_err(below)?,
        }
        if self.password.is_some() && self.username.is_none() {
            let reason = "a password needs broker.username as well";
            return Err(ConfigError::new("broker.password", reason));
        }
        Ok(())
    }

    /// Where it is; without a scheme it is spoken to in the clear.
    fn place(&self) -> Result<Address, ConfigError> {
        let text = &self.address;
        let wrong = |reason| ConfigError::new("broker.address", reason);
        if text.contains("://") {
            return Address::parse(text, &MQTT_SCHEMES).map_err(wrong);
        }
        let address = Address::parse(&format!("mqtt://{text}"), &MQTT_SCHEMES);
        match address {
            Ok(address) if text.ends_with(&format!(":{}", address.port)) => Ok(address),
            _ => Err(wrong(format!(
                "{text:?} is neither host:port nor mqtts://HOST[:PORT]"
            ))),
        }
    }

    /// What connects to it, with so long for a connection. The files of `tls` are read, to see that they can be.
    pub(crate) fn server(&self, within: Duration) -> Result<Server, ConfigError> {
        let address = self.place()?;
        let tls = (address.scheme == "mqtts").then_some(&self.tls);
        Server::new(address, tls, within).map_err(|reason| ConfigError::new("broker", reason))
    }

    /// What another client needs to reach it. The files of `tls` are read; a server name of its own is for
    /// the router only.
    pub fn reach(&self) -> Result<Reach, ConfigError> {
        let address = self.place()?;
        let wrong = |key: &str, reason| Err(ConfigError::new(format!("broker.{key}"), reason));
        let tls = match address.scheme {
            "mqtts" if self.tls.server_name.is_some() => {
                let reason =
                    "only the router has a use for it; name the broker as its certificate does";
                return wrong("tls.server_name", reason.to_owned());
            }
            "mqtts" => match tls_config(Trust::of_tls(&self.tls)) {
                Ok(config) => Some(config),
                Err(reason) => return wrong("tls", reason),
            },
            _ => None,
        };
        Ok(Reach {
            host: address.host,
            port: address.port,
            tls,
        })
    }

    /// User name and password.
    pub fn login(&self) -> Option<(String, String)> {
        let password = self.password.clone().unwrap_or_default();
        self.username.clone().map(|username| (username, password))
    }
}

fn is_default(keys: &TlsKeys) -> bool {
    *keys == TlsKeys::default()
}

fn validate_destination(name: &str, config: &DestinationConfig) -> Result<(), ConfigError> {
    let key = format!("destinations.{name}");
    if !name::is_valid(name) || name.contains('%') || name.starts_with('.') {
        let reason = "a name is 1-128 characters of A-Z a-z 0-9 . _ : - and opens with no dot";
        return Err(ConfigError::new(key, reason));
    }
    if RESERVED.contains(&name) {
        let reason = "this name belongs to the router itself; choose another";
        return Err(ConfigError::new(key, reason));
    }
    config.validate().map_err(|error| {
        let key = format!("{key}.{}", error.key);
        ConfigError::new(key, error.reason)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_valid() {
        assert_eq!(Config::default().validate(), Ok(()));
    }

    #[test]
    fn destinations_are_told_apart_by_type() {
        let text = r#"{"destinations": {"out": {"type": "stdout", "format": "json"},
                       "files": {"type": "file", "from": "tail"}}}"#;
        let config: Config = serde_json::from_str(text).unwrap();
        assert_eq!(config.validate(), Ok(()));
        assert_eq!(config.destinations["files"].start(), StartFrom::Tail);
        assert_eq!(config.destinations["out"].start(), StartFrom::Tail);
    }

    #[test]
    fn an_unknown_key_is_refused_by_name() {
        for text in [
            r#"{"brocker": {}}"#,
            r#"{"destinations": {"out": {"type": "file", "brocker": 1}}}"#,
        ] {
            let error = serde_json::from_str::<Config>(text).unwrap_err();
            assert!(error.to_string().contains("brocker"), "{error}");
        }
    }

    #[test]
    fn a_destination_name_must_be_a_folder_of_its_own() {
        for bad in ["", "a/b", "..", "audit", "quarantine", "history"] {
            let mut config = Config::default();
            let stdout = DestinationKind::Stdout(StdoutConfig::default());
            config.destinations.insert(bad.into(), stdout.into());
            assert!(config.validate().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_password_is_not_shown() {
        let endpoint = Endpoint {
            password: Some("hunter2".into()),
            ..Endpoint::default()
        };
        assert!(!format!("{endpoint:?}").contains("hunter2"));
    }

    #[test]
    fn start_times_round_trip() {
        for text in ["tail", "earliest", "2026-01-02T03:04:05.000000006Z"] {
            let from = StartFrom::try_from(text.to_owned()).unwrap();
            assert_eq!(String::from(from), text);
        }
        assert!(StartFrom::try_from("yesterday".to_owned()).is_err());
    }
}
