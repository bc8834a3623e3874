//! What an operator may set of destinations of AWS.

use serde::{Deserialize, Serialize};

use super::ConfigError;
use super::remote::{ClientConfig, Secret};

/// An access key; without one those of the environment (`AWS_ACCESS_KEY_ID` ...), of the container
/// (ECS, EKS) or of the instance (IMDSv2) are used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AwsKeys {
    /// Its id.
    pub access_key_id: String,
    /// Its secret.
    pub secret_access_key: Secret,
    /// The token of a key that is not for ever.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_token: Option<Secret>,
}

impl AwsKeys {
    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        let is_word = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        match !self.access_key_id.is_empty() && self.access_key_id.chars().all(is_word) {
            true => Ok(()),
            false => Err(ConfigError::new(
                "credentials.access_key_id",
                "an id of an access key is letters and digits",
            )),
        }
    }
}

/// Checks the name of a region.
pub(super) fn check_region(region: &str) -> Result<(), ConfigError> {
    let is_word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    match !region.is_empty() && region.chars().all(is_word) {
        true => Ok(()),
        false => Err(ConfigError::new("region", "is named as eu-central-1 is")),
    }
}

/// A signature stands where these would.
pub(super) fn check_http(http: &ClientConfig) -> Result<(), ConfigError> {
    http.validate()?;
    match (&http.username, &http.token) {
        (None, None) => Ok(()),
        (Some(_), _) => Err(ConfigError::new("http.username", SIGNED)),
        (None, Some(_)) => Err(ConfigError::new("http.token", SIGNED)),
    }
}

const SIGNED: &str = "AWS wants signed requests; give an access key by credentials";
