//! The HTTP client of one destination: timeouts, TLS, proxies of the environment, credentials.

use std::error::Error as _;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue};

use crate::config::{ClientConfig, read_secret};
use crate::net::tls::{self, Trust};

/// Idle connections are closed after this time: most services do so after a minute.
const IDLE: Duration = Duration::from_secs(50);

/// A client as configured; the error names key and reason.
pub(super) fn build(config: &ClientConfig) -> Result<reqwest::ClientBuilder, String> {
    if config.insecure {
        tracing::warn!(
            "http.insecure is on: any certificate is believed, so whoever is in between can read and \
             change what is delivered"
        );
    }
    Ok(reqwest::Client::builder()
        .tls_backend_preconfigured(tls::config(Trust::of_http(config))?)
        .timeout(Duration::from_millis(config.timeout_ms))
        .connect_timeout(Duration::from_millis(config.connect_timeout_ms))
        .pool_idle_timeout(IDLE)
        .redirect(reqwest::redirect::Policy::none())
        .user_agent(concat!("thinglog/", env!("CARGO_PKG_VERSION"))))
}

/// What is asked of every client at last.
pub(super) fn done(builder: reqwest::ClientBuilder) -> Result<reqwest::Client, String> {
    builder.build().map_err(|error| explain(&error))
}

/// Headers of every request, credentials among them, read where they stand. `scheme` is the word in
/// front of a token.
pub(super) fn headers(config: &ClientConfig, scheme: &str) -> Result<HeaderMap, String> {
    let mut headers = HeaderMap::new();
    for (name, value) in &config.headers {
        add(&mut headers, "http.headers", name, value)?;
    }
    for (name, file) in &config.headers_file {
        let value = read_secret(file).map_err(|error| format!("http.headers_file: {error}"))?;
        add(&mut headers, "http.headers_file", name, &value)?;
    }
    let read = |key: &str, secret: &crate::config::Secret| {
        secret
            .read()
            .map_err(|error| format!("http.{key}: {error}"))
    };
    if let (Some(user), Some(password)) = (&config.username, &config.password) {
        let login = format!("{user}:{}", read("password", password)?);
        let value = format!("Basic {}", STANDARD.encode(login));
        add(
            &mut headers,
            "http.password",
            AUTHORIZATION.as_str(),
            &value,
        )?;
    }
    if let Some(token) = &config.token {
        let value = format!("{scheme} {}", read("token", token)?);
        add(&mut headers, "http.token", AUTHORIZATION.as_str(), &value)?;
    }
    Ok(headers)
}

fn add(headers: &mut HeaderMap, key: &str, name: &str, value: &str) -> Result<(), String> {
    let header = HeaderName::from_bytes(name.as_bytes())
        .map_err(|_| format!("{key}: {name:?} is no name of a header"))?;
    // The value may be a secret, so it is not shown.
    let mut value = HeaderValue::from_str(value).map_err(|_| {
        format!("{key}: the value of {name} has characters that no header may have")
    })?;
    value.set_sensitive(true);
    headers.insert(header, value);
    Ok(())
}

/// An error with its causes, without the URL, which may hold a key.
pub(super) fn explain(error: &reqwest::Error) -> String {
    let what = match error {
        error if error.is_timeout() => "no answer in time",
        error if error.is_connect() => "cannot connect",
        error if error.is_builder() => "cannot be sent",
        error if error.is_body() || error.is_decode() => "the answer broke off",
        _ => "the connection broke",
    };
    let mut text = what.to_owned();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
