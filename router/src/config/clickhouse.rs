//! What an operator may set of ClickHouse.

use serde::{Deserialize, Serialize};

use super::ConfigError;
use super::remote::{ClientConfig, Compression};

/// Events as rows of a table of ClickHouse, see `destinations/clickhouse`. `http.username` and
/// `http.password` log in.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClickhouseConfig {
    /// Its HTTP interface, as `https://clickhouse:8443`.
    pub url: String,
    /// The database; `default`.
    #[serde(default = "usual_database")]
    pub database: String,
    /// The table; `thinglog_events`.
    #[serde(default = "usual_table")]
    pub table: String,
    /// Whether a table that is not there is created; true.
    #[serde(default = "super::remote::yes")]
    pub create: bool,
    /// The engine of the table that is created, of the MergeTree family; `ReplacingMergeTree`.
    #[serde(default = "usual_engine")]
    pub engine: String,
    /// How bodies are compressed; `zstd`.
    #[serde(default = "usual_compression")]
    pub compression: Compression,
    /// How it is reached.
    #[serde(default)]
    pub http: ClientConfig,
}

fn usual_database() -> String {
    "default".into()
}

fn usual_table() -> String {
    "thinglog_events".into()
}

fn usual_engine() -> String {
    "ReplacingMergeTree".into()
}

fn usual_compression() -> Compression {
    Compression::Zstd
}

impl ClickhouseConfig {
    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        self.http.validate()?;
        super::remote::check_base_url(&self.url)?;
        for (key, name) in [("database", &self.database), ("table", &self.table)] {
            let begins = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
            let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
            if !begins || !name.chars().all(is_word) || name.len() > 128 {
                let reason = format!("{name:?} is not a letter or _ and more of A-Z a-z 0-9 _");
                return Err(ConfigError::new(key, reason));
            }
        }
        let (name, behind) = match self.engine.split_once('(') {
            Some((name, behind)) => (name, behind),
            None => (self.engine.as_str(), ")"),
        };
        let is_named = name.ends_with("MergeTree") && name.chars().all(|c| c.is_ascii_alphabetic());
        if !is_named || !behind.ends_with(')') || behind.contains([';', '\n', '(']) {
            let reason = format!(
                "{:?} is no engine of the MergeTree family, as ReplacingMergeTree or \
                 ReplicatedReplacingMergeTree('/path', '{{replica}}')",
                self.engine
            );
            return Err(ConfigError::new("engine", reason));
        }
        Ok(())
    }
}
