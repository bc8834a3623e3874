//! What an operator may set of an Elasticsearch or OpenSearch destination.

use serde::{Deserialize, Serialize};

use super::ConfigError;
use super::remote::{ClientConfig, Compression};
use crate::destinations::names::IndexName;

/// Elasticsearch or OpenSearch by `_bulk`; see `destinations/elasticsearch`. `http.token` is an API key
/// (the encoded form, as Elasticsearch shows it); `http.username` and `http.password` do as well.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ElasticsearchConfig {
    /// Where it is, as `https://elastic:9200`; `/_bulk` is added.
    pub url: String,
    /// The index or data stream of an event: a name with places as `{{source}}` (see
    /// [`crate::routes::template`]) and parts of the event's time in UTC, `%Y`, `%m`, `%d` and `%H`.
    #[serde(default = "index")]
    pub index: String,
    /// An ingest pipeline.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pipeline: Option<String>,
    /// How bodies are compressed, `gzip` or `none`.
    #[serde(default)]
    pub compression: Compression,
    /// How it is reached.
    #[serde(default)]
    pub http: ClientConfig,
}

/// A data stream by the built-in template for logs.
fn index() -> String {
    "logs-thinglog-default".into()
}

impl ElasticsearchConfig {
    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        self.http.validate()?;
        super::remote::check_base_url(&self.url)?;
        if self.compression == Compression::Zstd {
            let reason = "it knows gzip and none";
            return Err(ConfigError::new("compression", reason));
        }
        let is_word = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        if let Some(pipeline) = &self.pipeline
            && (pipeline.is_empty() || !pipeline.chars().all(is_word))
        {
            let reason = "a pipeline is named with A-Z a-z 0-9 - _ .";
            return Err(ConfigError::new("pipeline", reason));
        }
        let parsed = IndexName::parse(&self.index);
        parsed.map_err(|reason| ConfigError::new("index", reason))?;
        Ok(())
    }
}
