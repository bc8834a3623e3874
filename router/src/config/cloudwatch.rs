//! What an operator may set of AWS CloudWatch Logs.

use serde::{Deserialize, Serialize};

use super::ConfigError;
use super::aws::{self, AwsKeys};
use super::remote::{ClientConfig, check_base_url};
use crate::routes::template::Template;

/// AWS CloudWatch Logs by `PutLogEvents`; see `destinations/cloudwatch`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CloudWatchConfig {
    /// The region, as `eu-central-1`.
    pub region: String,
    /// Where the service is; absent: AWS's own in the region.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// The log group of an event, see [`crate::routes::template`]; what no name may have becomes `_`.
    #[serde(default = "log_group")]
    pub log_group: String,
    /// Its log stream, likewise.
    #[serde(default = "log_stream")]
    pub log_stream: String,
    /// Whether groups and streams that are not there are created.
    #[serde(default = "super::remote::yes")]
    pub create: bool,
    /// What is sent of an event.
    #[serde(default)]
    pub line: CloudWatchLine,
    /// An access key; absent: that of the environment, of the container or of the instance.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials: Option<AwsKeys>,
    /// How it is reached.
    #[serde(default)]
    pub http: ClientConfig,
}

/// The message of a log event.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CloudWatchLine {
    /// The JSON object of the file destination, whose fields Logs Insights finds by itself.
    #[default]
    Json,
    /// The event's message; that of an event whose message is empty is its JSON object.
    Message,
}

fn log_group() -> String {
    "thinglog".into()
}

fn log_stream() -> String {
    "{{device}}".into()
}

impl CloudWatchConfig {
    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        aws::check_http(&self.http)?;
        aws::check_region(&self.region)?;
        if let Some(endpoint) = &self.endpoint {
            check_base_url(endpoint).map_err(|error| ConfigError::new("endpoint", error.reason))?;
        }
        for (key, text) in [
            ("log_group", &self.log_group),
            ("log_stream", &self.log_stream),
        ] {
            Template::parse(text).map_err(|reason| ConfigError::new(key, reason))?;
            if text.is_empty() {
                return Err(ConfigError::new(key, "a name is not empty"));
            }
        }
        if self.log_group.starts_with("aws/") {
            let reason = "groups that begin with aws/ are AWS's own; /aws/... may be used";
            return Err(ConfigError::new("log_group", reason));
        }
        self.credentials.as_ref().map_or(Ok(()), AwsKeys::validate)
    }
}
