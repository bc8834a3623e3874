//! What an operator may set of a webhook.

use serde::{Deserialize, Serialize};

use super::ConfigError;
use super::remote::{ClientConfig, Compression, Secret};
use crate::routes::template::Template;

/// HTTP requests with events, see `destinations/webhook` for what they look like.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WebhookConfig {
    /// Where requests go. May have places behind the host (`https://host/{{device|url}}`, see
    /// [`crate::routes::template`]); then a request holds events of one URL.
    pub url: String,
    /// `POST`, `PUT` or `PATCH`.
    #[serde(default)]
    pub method: Method,
    /// A service whose ways are known; what is said beside it comes first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preset: Option<Preset>,
    /// The form of a body.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<Format>,
    /// With `format = "template"`: an event, see [`crate::routes::template`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template: Option<String>,
    /// The `Content-Type`; by the format unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_type: Option<String>,
    /// One event a request.
    #[serde(default)]
    pub single: bool,
    /// Whether a device's events arrive in their order; then requests of one device follow each other.
    #[serde(default = "super::remote::yes")]
    pub ordered: bool,
    /// How bodies are compressed; not at all unless a preset does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compression: Option<Compression>,
    /// Signs each request: `Thinglog-Signature: t=<seconds>,v1=<hex>` with the HMAC-SHA256 of
    /// `<seconds>.<body as sent>` under this secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<Secret>,
    /// How the service is reached.
    #[serde(default)]
    pub http: ClientConfig,
}

/// The method of requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Method {
    /// `POST`
    #[default]
    Post,
    /// `PUT`
    Put,
    /// `PATCH`
    Patch,
}

/// Services whose ways are known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Preset {
    /// Datadog's log intake, API v2: a JSON array with `message`, `ddsource`, `service`, `hostname`,
    /// `status`, `timestamp`; at most 1,000 events and 5 MB a request, 1 MB an event. Needs the header
    /// `DD-API-KEY`.
    Datadog,
    /// An HTTP source of Sumo Logic: an event a line, `X-Sumo-Name` and `X-Sumo-Host` by device;
    /// 1 MB a request.
    SumoLogic,
}

/// The form of a body.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Format {
    /// A JSON array of events; with `single`, one object.
    #[default]
    Json,
    /// An event a line.
    Ndjson,
    /// `template` for each event, a line each.
    Template,
}

impl WebhookConfig {
    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        self.http.validate()?;
        let has_template = self.template.is_some();
        if has_template != (self.format == Some(Format::Template)) {
            let reason = "format = \"template\" and template go together";
            return Err(ConfigError::new("template", reason));
        }
        if let Some(text) = &self.template {
            let is_json = self
                .content_type
                .as_deref()
                .is_some_and(|it| it.contains("json"));
            let wrong = |reason| ConfigError::new("template", reason);
            let template = Template::parse(text).map_err(wrong)?;
            if is_json && !template.is_safe_in_json() {
                let reason = "in a JSON body every place ends with the filter json, as \
                              {{message|json}}; otherwise an event could change what is around it";
                return Err(wrong(reason.into()));
            }
        }
        if self.preset.is_some() && self.format.is_some() {
            let reason = "a preset has a format of its own; remove one of both";
            return Err(ConfigError::new("format", reason));
        }
        self.check_url()
            .map_err(|reason| ConfigError::new("url", reason))
    }

    /// Places may stand behind the host only, and no event may leave its place.
    fn check_url(&self) -> Result<(), String> {
        let url = Template::parse(&self.url)?;
        let beginning = url.beginning();
        let host = ["http://", "https://"]
            .iter()
            .find_map(|scheme| beginning.strip_prefix(scheme));
        let Some(host) = host else {
            return Err(format!(
                "{:?} opens neither with http:// nor with https://",
                self.url
            ));
        };
        if host.is_empty() || !(url.is_constant() || host.contains('/')) {
            return Err("the host must not depend on events".into());
        }
        if !url.is_safe_in_urls() {
            return Err("every place ends with the filter url, as {{device|url}}".into());
        }
        Ok(())
    }
}
