//! A webhook that is sent one JSON text at a time: a receiver of alerts. Signed as events are.

use reqwest::header::CONTENT_TYPE;

use super::{method_of, sign};
use crate::clock;
use crate::config::{ClientConfig, Compression, Method, Secret};
use crate::deliver::remote::verdict::Verdict;
use crate::destinations::http::Method as HttpMethod;
use crate::destinations::http::{Connection, Head, HeaderMap, HeaderValue};

/// Where texts are sent.
pub(crate) struct Hook {
    url: String,
    method: HttpMethod,
    secret: Option<String>,
    connection: Connection,
}

impl Hook {
    /// Reads the files that the configuration names; the error names key and reason.
    pub(crate) fn new(
        url: &str,
        method: Method,
        secret: Option<&Secret>,
        http: &ClientConfig,
    ) -> Result<Hook, String> {
        let secret = secret.map(Secret::read).transpose();
        Ok(Hook {
            url: url.to_owned(),
            method: method_of(method),
            secret: secret.map_err(|error| format!("secret: {error}"))?,
            connection: Connection::new(http, Compression::None, "Bearer")?,
        })
    }

    /// Sends a text, once; what its answer means is what its status says.
    pub(crate) async fn send(&self, body: Vec<u8>) -> Verdict {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        sign(self.secret.as_deref(), clock::now_ns(), &body, &mut headers);
        let head = Head {
            method: self.method.clone(),
            url: self.url.clone(),
            headers,
        };
        match self.connection.exchange(head, body).await {
            Ok(answer) => answer.verdict(),
            Err(reason) => Verdict::retry(reason),
        }
    }
}
