//! Events as HTTP requests to anybody: JSON, lines, or a template; signed if wanted.
//!
//! ```text
//! POST <url>
//! Content-Type: application/json | application/x-ndjson | text/plain
//! Content-Encoding: gzip | zstd                      (with `compression`)
//! Thinglog-Signature: t=<seconds>,v1=<hex>           (with `secret`)
//! ```
//!
//! A JSON body is an array of events as the file destination writes them, with `single` one object.
//! The signature is the HMAC-SHA256 under the secret of `<seconds>.<body as sent>`; whoever checks it
//! refuses old times, so that a recorded request cannot be used again. Order per device is kept.
//!
//! Presets follow the services' pages: Datadog's "Logs API, POST /api/v2/logs" (array of at most 1,000,
//! 5 MB, 1 MB an event) and Sumo Logic's "HTTP Logs and Metrics Source" (lines, 1 MB a request,
//! `X-Sumo-Name`, `X-Sumo-Host`).

mod encode;
mod hook;
mod presets;

use hmac::{Hmac, Mac};
use sha2::Sha256;

use super::http::Method as HttpMethod;
use super::http::{Head, HeaderMap, HeaderName, HeaderValue, HttpService, HttpSink};
use crate::config::{Compression, Format, Method, Preset, WebhookConfig};
use crate::deliver::remote::request::Request;
use crate::routes::template::Template;
use encode::{Form, WebhookEncoder};
pub(crate) use hook::Hook;

/// The header of the signature.
const SIGNATURE: HeaderName = HeaderName::from_static("thinglog-signature");

/// What a webhook sends and how.
pub(crate) struct Webhook {
    method: HttpMethod,
    /// Constant headers.
    headers: HeaderMap,
    secret: Option<String>,
    preset: Option<Preset>,
}

/// Encoder and sink of a configuration; the error names key and reason.
pub(crate) fn build(config: &WebhookConfig) -> Result<(WebhookEncoder, HttpSink<Webhook>), String> {
    let url = Template::parse(&config.url).map_err(|reason| format!("url: {reason}"))?;
    let form = match (config.preset, config.format.unwrap_or_default()) {
        (Some(Preset::Datadog), _) => Form::Datadog,
        (Some(Preset::SumoLogic), _) | (None, Format::Ndjson) => Form::Ndjson,
        (None, Format::Json) if config.single => Form::Object,
        (None, Format::Json) => Form::Array,
        (None, Format::Template) => {
            let text = config.template.as_deref().unwrap_or_default();
            let parsed = Template::parse(text).map_err(|reason| format!("template: {reason}"))?;
            Form::Template(parsed)
        }
    };
    let mut headers = HeaderMap::new();
    let content_type = config
        .content_type
        .as_deref()
        .unwrap_or(form.content_type());
    let content_type = HeaderValue::from_str(content_type)
        .map_err(|_| "content_type: not the value of a header".to_owned())?;
    headers.insert(reqwest::header::CONTENT_TYPE, content_type);
    let secret = config
        .secret
        .as_ref()
        .map(crate::config::Secret::read)
        .transpose();
    let service = Webhook {
        method: method_of(config.method),
        headers,
        secret: secret.map_err(|error| format!("secret: {error}"))?,
        preset: config.preset,
    };
    let usual = match config.preset {
        Some(_) => Compression::Gzip,
        None => Compression::None,
    };
    let compression = config.compression.unwrap_or(usual);
    let sink = HttpSink::new(service, &config.http, compression)?;
    let encoder = WebhookEncoder {
        form,
        url,
        single: config.single,
        ordered: config.ordered,
        preset: config.preset,
    };
    Ok((encoder, sink))
}

impl HttpService for Webhook {
    type Encoder = WebhookEncoder;

    fn head(&self, request: &Request, body: &[u8], now: u64) -> Head {
        let mut headers = self.headers.clone();
        sign(self.secret.as_deref(), now, body, &mut headers);
        if self.preset == Some(Preset::SumoLogic) {
            presets::add_sumo_headers(request, &mut headers);
        }
        Head {
            method: self.method.clone(),
            url: encode::url_of(request).to_owned(),
            headers,
        }
    }
}

fn method_of(method: Method) -> HttpMethod {
    match method {
        Method::Post => HttpMethod::POST,
        Method::Put => HttpMethod::PUT,
        Method::Patch => HttpMethod::PATCH,
    }
}

/// Adds the signature, if there is a secret; `now` is ns since the Unix epoch.
fn sign(secret: Option<&str>, now: u64, body: &[u8], headers: &mut HeaderMap) {
    if let Some(secret) = secret {
        let value = HeaderValue::from_str(&signature(secret, now / 1_000_000_000, body));
        headers.extend(value.ok().map(|value| (SIGNATURE, value)));
    }
}

/// `t=<seconds>,v1=<HMAC-SHA256 of "<seconds>.<body>", hex>`
fn signature(secret: &str, seconds: u64, body: &[u8]) -> String {
    let mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).map(|mut mac| {
        mac.update(seconds.to_string().as_bytes());
        mac.update(b".");
        mac.update(body);
        mac.finalize().into_bytes()
    });
    // A key of HMAC may have any length (RFC 2104 section 2), so there is always a value.
    let hex = mac.map(|mac| {
        mac.iter()
            .map(|byte| format!("{byte:02x}"))
            .collect::<String>()
    });
    format!("t={seconds},v1={}", hex.unwrap_or_default())
}

#[cfg(test)]
#[path = "webhook_tests.rs"]
mod tests;
