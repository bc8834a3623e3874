//! Destinations behind HTTP. One that is added writes its [`Encoder`] and an [`HttpService`]: where
//! a request goes and what an answer means, both pure. Connections, TLS, proxies, timeouts,
//! credentials and compression are here, once.

mod answer;
mod client;
mod compress;

pub(crate) use answer::Answer;
use parking_lot::RwLock;
pub(crate) use reqwest::Method;
#[cfg(any(
    feature = "webhook",
    feature = "loki",
    feature = "splunk",
    feature = "aws-client"
))]
pub(crate) use reqwest::header::HeaderName;
pub(crate) use reqwest::header::{HeaderMap, HeaderValue};

use crate::clock;
use crate::config::{ClientConfig, Compression};
use crate::deliver::remote::request::Request;
use crate::deliver::remote::verdict::Verdict;
use crate::deliver::remote::{Encoder, Sink};

/// What is particular about a service.
pub(crate) trait HttpService: Send + Sync + 'static {
    /// What makes its bodies.
    type Encoder: Encoder;

    /// Where a request goes, and with which headers besides those of the configuration. `body` is
    /// what is sent, compressed; `now` is ns since the Unix epoch.
    fn head(&self, request: &Request, body: &[u8], now: u64) -> Head;

    /// What an answer means; usually what its status says.
    fn verdict(&self, _request: &Request, answer: &Answer) -> Verdict {
        answer.verdict()
    }
}

/// The head of a request.
#[derive(Clone, Debug)]
pub(crate) struct Head {
    pub(crate) method: Method,
    pub(crate) url: String,
    pub(crate) headers: HeaderMap,
}

/// Most bytes of an answer that are read.
const ANSWER: usize = 4 << 20;

/// Sends to a service.
pub(crate) struct HttpSink<S> {
    service: S,
    connection: Connection,
}

impl<S: HttpService> HttpSink<S> {
    /// Reads the files that the configuration names; the error names key and reason.
    pub(crate) fn new(
        service: S,
        config: &ClientConfig,
        compression: Compression,
    ) -> Result<HttpSink<S>, String> {
        HttpSink::with_scheme(service, config, compression, "Bearer")
    }

    /// The same for a service whose tokens are not `Bearer`.
    pub(crate) fn with_scheme(
        service: S,
        config: &ClientConfig,
        compression: Compression,
        scheme: &'static str,
    ) -> Result<HttpSink<S>, String> {
        let connection = Connection::new(config, compression, scheme)?;
        Ok(HttpSink {
            service,
            connection,
        })
    }

    /// The service.
    #[cfg(test)]
    pub(crate) fn service(&self) -> &S {
        &self.service
    }
}

impl<S: HttpService> Sink for HttpSink<S> {
    type Encoder = S::Encoder;

    async fn send(&self, request: &Request, body: Vec<u8>) -> Verdict {
        let body = match self.connection.compress(body) {
            Ok(body) => body,
            Err(error) => return Verdict::retry(format!("cannot compress: {error}")),
        };
        let mut head = self.service.head(request, &body, clock::now_ns());
        self.connection.say_encoding(&mut head);
        match self.connection.exchange(head, body).await {
            Ok(answer) => self.service.verdict(request, &answer),
            Err(reason) => Verdict::retry(reason),
        }
    }
}

/// Connections to a service, for what takes more than a request and its answer.
pub(crate) struct Connection {
    client: reqwest::Client,
    config: ClientConfig,
    /// With credentials; read anew when they are refused, so that they can be changed in place.
    headers: RwLock<HeaderMap>,
    /// The word in front of a token.
    scheme: &'static str,
    compression: Compression,
}

impl Connection {
    /// Reads the files that the configuration names; the error names key and reason.
    pub(crate) fn new(
        config: &ClientConfig,
        compression: Compression,
        scheme: &'static str,
    ) -> Result<Connection, String> {
        let client = client::done(client::build(config)?)?;
        Connection::over(client, config, compression, scheme)
    }

    /// The same to what is so near that no proxy is asked.
    #[cfg(feature = "aws-client")]
    pub(crate) fn without_proxy(config: &ClientConfig) -> Result<Connection, String> {
        let client = client::done(client::build(config)?.no_proxy())?;
        Connection::over(client, config, Compression::None, "Bearer")
    }

    fn over(
        client: reqwest::Client,
        config: &ClientConfig,
        compression: Compression,
        scheme: &'static str,
    ) -> Result<Connection, String> {
        Ok(Connection {
            client,
            config: config.clone(),
            headers: RwLock::new(client::headers(config, scheme)?),
            scheme,
            compression,
        })
    }

    /// The body as it is sent.
    pub(crate) fn compress(&self, body: Vec<u8>) -> std::io::Result<Vec<u8>> {
        compress::compress(self.compression, body)
    }

    /// Says in the head how the body is compressed.
    pub(crate) fn say_encoding(&self, head: &mut Head) {
        if let Some(encoding) = compress::encoding(self.compression) {
            let encoding = HeaderValue::from_static(encoding);
            head.headers
                .insert(reqwest::header::CONTENT_ENCODING, encoding);
        }
    }

    /// Sends a request, once; gives the whole answer, or why there is none.
    pub(crate) async fn exchange(
        &self,
        head: Head,
        body: impl Into<reqwest::Body>,
    ) -> Result<Answer, String> {
        let answer = self.attempt(head, body.into()).await;
        let answer = answer.map_err(|error| client::explain(&error))?;
        if matches!(answer.status, 401 | 403) {
            self.read_credentials_again();
        }
        Ok(answer)
    }

    fn read_credentials_again(&self) {
        match client::headers(&self.config, self.scheme) {
            Ok(headers) => *self.headers.write() = headers,
            Err(reason) => tracing::warn!(reason, "credentials cannot be read again"),
        }
    }

    async fn attempt(&self, head: Head, body: reqwest::Body) -> Result<Answer, reqwest::Error> {
        let configured = self.headers.read().clone();
        let mut headers = head.headers;
        // What the operator says comes last, and so stands.
        for (name, value) in &configured {
            headers.insert(name, value.clone());
        }
        let sending = self.client.request(head.method, head.url);
        let mut response = sending.headers(headers).body(body).send().await?;
        let mut answer = Answer {
            status: response.status().as_u16(),
            headers: response.headers().clone(),
            body: Vec::new(),
        };
        while answer.body.len() < ANSWER
            && let Some(bytes) = response.chunk().await?
        {
            answer.body.extend_from_slice(&bytes);
        }
        Ok(answer)
    }
}
