//! What an operator may set of Kafka.

use serde::{Deserialize, Serialize};

use super::remote::{Compression, Secret, check_login, check_timeout};
use super::{ConfigError, TlsKeys};
use crate::destinations::address::Address;
use crate::routes::template::Template;

/// Ways to reach a broker, and their usual port.
pub(crate) const KAFKA_SCHEMES: [(&str, u16); 2] = [("kafka", 9092), ("kafka+ssl", 9093)];

/// Events as records of topics of Kafka, see `destinations/kafka`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KafkaConfig {
    /// Brokers to begin with: `kafka://HOST[:9092]` or, with TLS, `kafka+ssl://HOST[:9093]`. The others of
    /// the cluster are found through any of them, and reached in the same way.
    pub servers: Vec<String>,
    /// The topic of an event, see [`crate::routes::template`]: `logs.{{source}}`.
    pub topic: String,
    /// Whether brokers that are set to create topics may create one that is not there; true.
    #[serde(default = "super::remote::yes")]
    pub create: bool,
    /// How batches are compressed; `zstd`.
    #[serde(default = "usual_compression")]
    pub compression: Compression,
    /// User name to log in with (SASL).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    /// Its password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<Secret>,
    /// How the password is shown to the broker; `scram-sha-512`.
    #[serde(default)]
    pub mechanism: Mechanism,
    /// For `kafka+ssl`.
    #[serde(default)]
    pub tls: TlsKeys,
    /// Longest wait for a connection, and for an answer, milliseconds; 30,000.
    #[serde(default = "super::remote::half_a_minute")]
    pub timeout_ms: u64,
}

/// Mechanisms of SASL.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mechanism {
    /// The password itself.
    Plain,
    /// A proof of it, by SHA-256 (RFC 7677).
    #[serde(rename = "scram-sha-256")]
    ScramSha256,
    /// A proof of it, by SHA-512.
    #[default]
    #[serde(rename = "scram-sha-512")]
    ScramSha512,
}

fn usual_compression() -> Compression {
    Compression::Zstd
}

impl KafkaConfig {
    /// Where the first brokers are; the error says what is wrong with `servers`.
    pub(crate) fn addresses(&self) -> Result<Vec<Address>, String> {
        let parsed = self
            .servers
            .iter()
            .map(|server| Address::parse(server, &KAFKA_SCHEMES));
        let addresses = parsed.collect::<Result<Vec<_>, _>>()?;
        let Some(first) = addresses.first() else {
            return Err("at least one is needed".into());
        };
        if addresses.iter().any(|other| other.scheme != first.scheme) {
            return Err("either all of them kafka:// or all kafka+ssl://".into());
        }
        Ok(addresses)
    }

    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        let wrong = |key: &'static str| move |reason: String| ConfigError::new(key, reason);
        let addresses = self.addresses().map_err(wrong("servers"))?;
        match addresses[0].scheme {
            "kafka+ssl" => self.tls.validate()?,
            _ => self.tls.refuse("kafka+ssl")?,
        }
        if self.tls.server_name.is_some() {
            let reason =
                "cannot be chosen here: each broker's certificate must have its own host's";
            return Err(ConfigError::new("tls.server_name", reason));
        }
        check_login(self.username.as_ref(), self.password.as_ref())?;
        check_timeout(self.timeout_ms, 10)?;
        self.check_topic().map_err(wrong("topic"))
    }

    fn check_topic(&self) -> Result<(), String> {
        let topic = Template::parse(&self.topic)?;
        if self.topic.is_empty() {
            return Err("must not be empty".into());
        }
        let is_word = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        match topic.is_constant() && !self.topic.chars().all(is_word) {
            true => Err(format!(
                "{:?} is no name of a topic: A-Z a-z 0-9 . _ - are",
                self.topic
            )),
            false => Ok(()),
        }
    }
}
