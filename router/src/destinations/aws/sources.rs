//! Credentials of a container (ECS, EKS Pod Identity) and of an instance (IMDSv2).
//!
//! ```text
//! GET http://169.254.170.2<AWS_CONTAINER_CREDENTIALS_RELATIVE_URI>, or <AWS_CONTAINER_CREDENTIALS_FULL_URI>
//!     Authorization: <AWS_CONTAINER_AUTHORIZATION_TOKEN, or the text of .._FILE>
//!
//! PUT http://169.254.169.254/latest/api/token              X-aws-ec2-metadata-token-ttl-seconds: 21600
//! GET .../latest/meta-data/iam/security-credentials/       X-aws-ec2-metadata-token: <token>
//! GET .../latest/meta-data/iam/security-credentials/<role>
//! ```
//!
//! By AWS's pages "Container credential provider" and "Use IMDS to access instance metadata". No proxy is
//! asked. `AWS_EC2_METADATA_DISABLED=true` forbids the instance's, `AWS_EC2_METADATA_SERVICE_ENDPOINT` moves it.

use std::path::Path;
use std::time::Duration;

use reqwest::Url;

use super::credentials::Credentials;
use crate::config::{ClientConfig, read_secret};
use crate::destinations::http::{
    Answer, Connection, Head, HeaderMap, HeaderName, HeaderValue, Method,
};

const CONTAINER: &str = "http://169.254.170.2";
const INSTANCE: &str = "http://169.254.169.254";
const ROLES: &str = "latest/meta-data/iam/security-credentials/";
/// Both are near, or not there.
const TIMEOUT: Duration = Duration::from_secs(5);

/// The service of a container or of an instance.
pub(super) struct Metadata {
    connection: Connection,
    place: Place,
}

enum Place {
    Container {
        url: String,
        token: Option<String>,
        token_file: Option<String>,
    },
    Instance {
        base: String,
    },
}

impl Metadata {
    /// By the variables of the environment that `variable` gives; the error names the one that is wrong.
    pub(super) fn new(variable: impl Fn(&str) -> Option<String>) -> Result<Metadata, String> {
        let timeout_ms = TIMEOUT.as_millis() as u64;
        let config = ClientConfig {
            timeout_ms,
            connect_timeout_ms: timeout_ms,
            ..ClientConfig::default()
        };
        Ok(Metadata {
            connection: Connection::without_proxy(&config)?,
            place: place(variable)?,
        })
    }

    /// Asks for credentials.
    pub(super) async fn fetch(&self) -> Result<Credentials, String> {
        match &self.place {
            Place::Container {
                url,
                token,
                token_file,
            } => {
                let token = match token_file {
                    Some(file) => {
                        let read = read_secret(Path::new(file));
                        Some(read.map_err(|error| {
                            format!("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE: {error}")
                        })?)
                    }
                    None => token.clone(),
                };
                let header = token.as_deref().map(|token| ("authorization", token));
                let answer = self.ask(Method::GET, url, header).await?;
                Credentials::parse(&answer.body).map_err(|reason| format!("{url}: {reason}"))
            }
            Place::Instance { base } => self.of_instance(base).await,
        }
    }

    async fn of_instance(&self, base: &str) -> Result<Credentials, String> {
        let life = Some(("x-aws-ec2-metadata-token-ttl-seconds", "21600"));
        let url = format!("{base}/latest/api/token");
        let token = text(&self.ask(Method::PUT, &url, life).await?);
        let header = Some(("x-aws-ec2-metadata-token", &*token));
        let url = format!("{base}/{ROLES}");
        let roles = text(&self.ask(Method::GET, &url, header).await?);
        let role = roles.lines().next().unwrap_or_default();
        if role.is_empty() {
            return Err(format!("{url}: the instance has no role"));
        }
        let url = format!("{base}/{ROLES}{role}");
        let answer = self.ask(Method::GET, &url, header).await?;
        Credentials::parse(&answer.body).map_err(|reason| format!("{url}: {reason}"))
    }

    async fn ask(
        &self,
        method: Method,
        url: &str,
        header: Option<(&'static str, &str)>,
    ) -> Result<Answer, String> {
        let mut headers = HeaderMap::new();
        if let Some((name, value)) = header {
            let value = HeaderValue::from_str(value);
            let mut value =
                value.map_err(|_| format!("{url}: the token has characters it must not have"))?;
            value.set_sensitive(true);
            headers.insert(HeaderName::from_static(name), value);
        }
        let head = Head {
            method,
            url: url.to_owned(),
            headers,
        };
        let answer = self.connection.exchange(head, Vec::new()).await;
        match answer {
            Ok(answer) if answer.status == 200 => Ok(answer),
            Ok(answer) => Err(format!("{url}: {}", answer.reason())),
            Err(reason) => Err(format!("{url}: {reason}")),
        }
    }
}

fn text(answer: &Answer) -> String {
    String::from_utf8_lossy(&answer.body).trim().to_owned()
}

fn place(variable: impl Fn(&str) -> Option<String>) -> Result<Place, String> {
    let relative = variable("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI");
    let full = variable("AWS_CONTAINER_CREDENTIALS_FULL_URI");
    let url = relative.map(|path| format!("{CONTAINER}{path}")).or(full);
    if let Some(url) = url {
        let parsed = Url::parse(&url);
        parsed.map_err(|error| format!("AWS_CONTAINER_CREDENTIALS_FULL_URI {url:?}: {error}"))?;
        return Ok(Place::Container {
            url,
            token: variable("AWS_CONTAINER_AUTHORIZATION_TOKEN"),
            token_file: variable("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"),
        });
    }
    if variable("AWS_EC2_METADATA_DISABLED").is_some_and(|it| it.eq_ignore_ascii_case("true")) {
        return Err(
            "credentials: none are configured, none are in the environment \
                    (AWS_ACCESS_KEY_ID), and AWS_EC2_METADATA_DISABLED forbids those of the instance"
                .into(),
        );
    }
    let base = variable("AWS_EC2_METADATA_SERVICE_ENDPOINT");
    let base = base.unwrap_or_else(|| INSTANCE.to_owned());
    Ok(Place::Instance {
        base: base.trim_end_matches('/').to_owned(),
    })
}

#[cfg(test)]
#[path = "sources_tests.rs"]
mod tests;
