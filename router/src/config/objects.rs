//! What an operator may set of object stores.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::ConfigError;
use super::aws::{self, AwsKeys};
use super::remote::{ClientConfig, Secret, check_base_url};
use crate::destinations::layout::{Layout, Place};

/// Objects in a store of AWS, Google, Azure, of others that speak S3, or on a disk; see
/// `destinations/objects`. `batch` says when an object is complete.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ObjectStoreConfig {
    /// `s3://BUCKET/PREFIX`, `gs://BUCKET/PREFIX`, `az://CONTAINER/PREFIX` or `file:///FOLDER`.
    pub url: String,
    /// Where an event's object is below the prefix: constants and places as `{date}`.
    #[serde(default = "path")]
    pub path: String,
    /// What an object holds.
    #[serde(default)]
    pub format: ObjectFormat,
    /// How NDJSON is compressed.
    #[serde(default)]
    pub compression: ObjectCompression,
    /// Bytes of complete files that may wait for their upload, on disk; then nothing more is taken.
    #[serde(default = "stage_bytes")]
    pub stage_bytes: u64,
    /// For `s3://`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub s3: Option<S3Config>,
    /// For `gs://`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gcs: Option<GcsConfig>,
    /// For `az://`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub azure: Option<AzureConfig>,
    /// How the store is reached.
    #[serde(default)]
    pub http: ClientConfig,
}

/// What an object holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ObjectFormat {
    /// The JSON objects of the file destination, one a line.
    #[default]
    Ndjson,
    /// Parquet, compressed with zstd.
    Parquet,
    /// Payloads as they came, before levels, as `destinations/objects/raw` says.
    Raw,
}

/// How NDJSON is compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ObjectCompression {
    /// Not at all.
    None,
    /// gzip.
    Gzip,
    /// zstd.
    #[default]
    Zstd,
}

/// AWS S3, or what speaks as it does.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct S3Config {
    /// The bucket's region, as `eu-central-1`; others than AWS often take any.
    #[serde(default = "region")]
    pub region: String,
    /// Where it is, if it is not AWS; buckets are then part of the path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// An access key; absent: that of the environment, of the container or of the instance.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials: Option<AwsKeys>,
}

/// Google Cloud Storage.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GcsConfig {
    /// The file of a service account's key; absent: the account of the instance.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service_account: Option<PathBuf>,
    /// Where it is, if it is not Google.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
}

/// Azure Blob Storage.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AzureConfig {
    /// The storage account.
    pub account: String,
    /// Its key; absent, and no signature either: the identity of the instance.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access_key: Option<Secret>,
    /// A shared access signature, as `sv=...&sig=...`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sas_token: Option<Secret>,
    /// Where it is, if it is not Azure's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
}

/// Bytes of a key in S3, Google Cloud Storage and Azure.
const LONGEST_KEY: usize = 1024;
/// Bytes of a name in usual file systems.
const LONGEST_PART: usize = 255;
/// What stands behind the path: the destination's name, the stage's id, a number, an extension.
const LONGEST_NAME: usize = 128 + 1 + 16 + 1 + 20 + 16;

fn path() -> String {
    "date={date}/group={group}/".into()
}

fn stage_bytes() -> u64 {
    4 << 30
}

fn region() -> String {
    "us-east-1".into()
}

impl ObjectStoreConfig {
    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        aws::check_http(&self.http)?;
        let place = Place::parse(&self.url).map_err(|reason| ConfigError::new("url", reason))?;
        self.check_path(&place)?;
        if self.stage_bytes < 1 << 20 {
            let reason = "must be at least 1048576 (1 MiB)";
            return Err(ConfigError::new("stage_bytes", reason));
        }
        if self.format == ObjectFormat::Parquet && self.compression != ObjectCompression::Zstd {
            let reason = "Parquet is compressed with zstd; remove the key";
            return Err(ConfigError::new("compression", reason));
        }
        let given = [
            ("s3", "s3", self.s3.is_some()),
            ("gcs", "gs", self.gcs.is_some()),
            ("azure", "az", self.azure.is_some()),
        ];
        for (key, scheme, given) in given {
            if given && place.scheme != scheme {
                let reason = format!("is for {scheme}://, and url is {}://", place.scheme);
                return Err(ConfigError::new(key, reason));
            }
        }
        match (&*place.scheme, &self.s3, &self.azure) {
            ("s3", None, _) => {
                let reason = "s3:// needs a region, or an endpoint if it is not AWS";
                return Err(ConfigError::new("s3", reason));
            }
            ("az", _, None) => {
                return Err(ConfigError::new("azure", "az:// needs an account"));
            }
            _ => {}
        }
        if let Some(s3) = &self.s3 {
            aws::check_region(&s3.region).map_err(|error| below("s3", error))?;
            let keys = s3.credentials.as_ref();
            keys.map_or(Ok(()), AwsKeys::validate)
                .map_err(|error| below("s3", error))?;
        }
        if let Some(azure) = &self.azure {
            azure.validate().map_err(|error| below("azure", error))?;
        }
        self.check_endpoints()
    }

    /// Names of objects have to be within what every store takes: one that is not would hold up all
    /// behind it.
    fn check_path(&self, place: &Place) -> Result<(), ConfigError> {
        let wrong = |reason| ConfigError::new("path", reason);
        let layout = Layout::parse(&self.path).map_err(wrong)?;
        if self.format == ObjectFormat::Raw && layout.asks_for_level() {
            let reason = "a payload as it came has no {level}: remove it, or another format";
            return Err(ConfigError::new("path", reason));
        }
        let (whole, part) = layout.longest();
        let whole = place.prefix.len() + whole + LONGEST_NAME;
        if whole > LONGEST_KEY {
            return Err(wrong(format!(
                "an object's name could have {whole} bytes, and stores take {LONGEST_KEY}: fewer places"
            )));
        }
        if place.scheme == "file" && part > LONGEST_PART {
            return Err(wrong(format!(
                "a folder's name could have {part} bytes, and disks take {LONGEST_PART}: put / between places"
            )));
        }
        Ok(())
    }

    fn check_endpoints(&self) -> Result<(), ConfigError> {
        let endpoints = [
            ("s3", self.s3.as_ref().and_then(|it| it.endpoint.as_ref())),
            ("gcs", self.gcs.as_ref().and_then(|it| it.endpoint.as_ref())),
            (
                "azure",
                self.azure.as_ref().and_then(|it| it.endpoint.as_ref()),
            ),
        ];
        for (table, endpoint) in endpoints {
            if let Some(endpoint) = endpoint {
                check_base_url(endpoint)
                    .map_err(|error| ConfigError::new(format!("{table}.endpoint"), error.reason))?;
            }
        }
        Ok(())
    }
}

impl AzureConfig {
    fn validate(&self) -> Result<(), ConfigError> {
        let is_word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
        if !(3..=24).contains(&self.account.len()) || !self.account.chars().all(is_word) {
            let reason = "an account is 3 to 24 small letters and digits";
            return Err(ConfigError::new("account", reason));
        }
        match self.access_key.is_some() && self.sas_token.is_some() {
            true => Err(ConfigError::new("sas_token", "either a key or a signature")),
            false => Ok(()),
        }
    }
}

fn below(table: &str, error: ConfigError) -> ConfigError {
    ConfigError::new(format!("{table}.{}", error.key), error.reason)
}
