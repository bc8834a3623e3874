//! What an operator may set of an OTLP destination.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::ConfigError;
use super::remote::{ClientConfig, Compression};

/// Logs by OTLP over HTTP, to an OpenTelemetry collector or what takes the same; see
/// `destinations/otlp`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OtlpConfig {
    /// Where the receiver is, as `http://collector:4318`; `/v1/logs` is added unless it stands there.
    pub url: String,
    /// How requests are encoded.
    #[serde(default)]
    pub encoding: OtlpEncoding,
    /// How bodies are compressed, `gzip` or `none`.
    #[serde(default)]
    pub compression: Compression,
    /// Attributes of every resource, besides `service.name`, `host.name` and `device.id`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub resource: BTreeMap<String, String>,
    /// How the receiver is reached.
    #[serde(default)]
    pub http: ClientConfig,
}

/// The encodings of OTLP over HTTP.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OtlpEncoding {
    /// `application/x-protobuf`
    #[default]
    Protobuf,
    /// `application/json`
    Json,
}

impl OtlpConfig {
    /// What a resource has in any case.
    pub(crate) const OWN: [&'static str; 3] = ["service.name", "host.name", "device.id"];

    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        self.http.validate()?;
        super::remote::check_base_url(&self.url)?;
        if self.compression == Compression::Zstd {
            let reason = "receivers of OTLP know gzip and none";
            return Err(ConfigError::new("compression", reason));
        }
        for name in self.resource.keys() {
            if name.is_empty() || Self::OWN.contains(&name.as_str()) {
                let reason = "this attribute is set by event; choose another name";
                return Err(ConfigError::new(format!("resource.{name}"), reason));
            }
        }
        Ok(())
    }
}
