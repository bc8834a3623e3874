//! What an operator may set of a Splunk destination.

use serde::{Deserialize, Serialize};

use super::ConfigError;
use super::remote::{ClientConfig, Compression};

/// Splunk by its HTTP Event Collector (HEC); see `destinations/splunk`. `http.token` is the token.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SplunkConfig {
    /// Where the collector is, as `https://splunk:8088`; `/services/collector/...` is added.
    pub url: String,
    /// What is sent of an event.
    #[serde(default)]
    pub form: SplunkForm,
    /// Whether events count as delivered only when the indexer has acknowledged them. Where the token has
    /// no indexer acknowledgement, the collector's answer counts.
    #[serde(default = "super::remote::yes")]
    pub acknowledge: bool,
    /// Longest wait for an acknowledgement, milliseconds; then the events are sent again.
    #[serde(default = "ack_timeout_ms")]
    pub ack_timeout_ms: u64,
    /// Between questions for an acknowledgement, milliseconds.
    #[serde(default = "ack_every_ms")]
    pub ack_every_ms: u64,
    /// The index; the token's unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub index: Option<String>,
    /// The source type.
    #[serde(default = "sourcetype")]
    pub sourcetype: String,
    /// How bodies are compressed, `gzip` or `none`.
    #[serde(default)]
    pub compression: Compression,
    /// How the collector is reached.
    #[serde(default)]
    pub http: ClientConfig,
}

/// The endpoints of the collector.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SplunkForm {
    /// `/services/collector/event`: the message with time, host, source and fields.
    #[default]
    Event,
    /// `/services/collector/raw`: the message, a line; Splunk looks for the time itself.
    Raw,
}

fn ack_timeout_ms() -> u64 {
    300_000
}

fn ack_every_ms() -> u64 {
    1000
}

fn sourcetype() -> String {
    "thinglog".into()
}

impl SplunkConfig {
    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        self.http.validate()?;
        super::remote::check_base_url(&self.url)?;
        if self.compression == Compression::Zstd {
            return Err(ConfigError::new(
                "compression",
                "Splunk knows gzip and none",
            ));
        }
        if self.ack_every_ms == 0 || self.ack_every_ms > self.ack_timeout_ms {
            let reason = "must be at least 1 and at most ack_timeout_ms";
            return Err(ConfigError::new("ack_every_ms", reason));
        }
        let is_word = |c: char| c.is_ascii_alphanumeric() || "-_.:".contains(c);
        let names = [
            ("index", self.index.as_deref()),
            ("sourcetype", Some(&*self.sourcetype)),
        ];
        for (key, name) in names {
            if name.is_some_and(|name| name.is_empty() || !name.chars().all(is_word)) {
                return Err(ConfigError::new(key, "is named with A-Z a-z 0-9 - _ . :"));
            }
        }
        Ok(())
    }
}
