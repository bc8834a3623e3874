//! What an operator may set of a Loki destination.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::ConfigError;
use super::remote::ClientConfig;
use crate::routes::template::Template;

/// Grafana Loki, or what takes its push requests; see `destinations/loki`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LokiConfig {
    /// Where Loki is, as `http://loki:3100`; `/loki/api/v1/push` is added unless it stands there.
    pub url: String,
    /// The tenant, sent as `X-Scope-OrgID`; Loki without tenants needs none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// Labels by name, with places as `{{source}}` (see [`crate::routes::template`]). Each combination of
    /// values is a stream, so they must be few: by default one for each device.
    #[serde(default = "labels")]
    pub labels: BTreeMap<String, String>,
    /// What a line is.
    #[serde(default)]
    pub line: LokiLine,
    /// Whether an entry carries what is no label as structured metadata: `device`, `source`, `level`,
    /// `severity_number`, `id` and the attributes. Loki must allow it (`allow_structured_metadata`).
    #[serde(default = "super::remote::yes")]
    pub metadata: bool,
    /// Most bytes of a line; what is longer becomes a dead letter. Loki's `max_line_size`.
    #[serde(default = "line_bytes")]
    pub max_line_bytes: usize,
    /// How Loki is reached.
    #[serde(default)]
    pub http: ClientConfig,
}

/// What a line of Loki is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LokiLine {
    /// The event's message.
    #[default]
    Message,
    /// The whole event, as the file destination writes it.
    Json,
}

fn labels() -> BTreeMap<String, String> {
    let label = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    [label("job", "thinglog"), label("device", "{{device}}")].into()
}

fn line_bytes() -> usize {
    256 << 10
}

impl LokiConfig {
    /// Most labels of a stream: `max_label_names_per_series` of Loki.
    const MOST_LABELS: usize = 15;

    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        self.http.validate()?;
        super::remote::check_base_url(&self.url)?;
        if self.labels.is_empty() || self.labels.len() > Self::MOST_LABELS {
            let reason = format!("must be 1 to {}: Loki takes no others", Self::MOST_LABELS);
            return Err(ConfigError::new("labels", reason));
        }
        for (name, value) in &self.labels {
            let key = format!("labels.{name}");
            if !is_label(name) {
                let reason = "a label is named with A-Z a-z 0-9 _, does not open with a digit, and \
                              names with two underscores in front are Loki's own";
                return Err(ConfigError::new(key, reason));
            }
            if value.is_empty() {
                return Err(ConfigError::new(key, "must not be empty"));
            }
            Template::parse(value).map_err(|reason| ConfigError::new(key, reason))?;
        }
        if self.max_line_bytes == 0 {
            return Err(ConfigError::new("max_line_bytes", "must be at least 1"));
        }
        Ok(())
    }
}

/// Prometheus, "Data model": `[a-zA-Z_][a-zA-Z0-9_]*`, `__` in front is reserved.
fn is_label(name: &str) -> bool {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    !name.is_empty()
        && !name.starts_with(|c: char| c.is_ascii_digit())
        && !name.starts_with("__")
        && name.chars().all(word)
}
