//! AWS CloudWatch Logs by `PutLogEvents`.
//!
//! ```text
//! POST https://logs.<region>.amazonaws.com/
//! Content-Type: application/x-amz-json-1.1
//! X-Amz-Target: Logs_20140328.PutLogEvents
//! Authorization: AWS4-HMAC-SHA256 ...
//!
//! {"logGroupName":"thinglog","logStreamName":"lamp-7",
//!  "logEvents":[{"timestamp":1767323045123,"message":"{\"device\":\"lamp-7\", ...}"}]}
//! ```
//!
//! By the pages "PutLogEvents", "CreateLogGroup", "CreateLogStream" of the Amazon CloudWatch Logs API
//! Reference, and "Common Errors".
//!
//! **Limits** of a request: 1,048,576 bytes, which is the messages in UTF-8 and 26 for each; 10,000
//! events; 24 hours between the oldest and the newest; events sorted by time. One event is a message of
//! at most what is left of a request, 1,048,550 bytes. Group and stream have at most 512 characters.
//!
//! **Order.** A request holds one stream and is sorted by time, events of one millisecond in the order
//! in which they came; a device has one request under way. The service itself sorts by time.
//!
//! **Repeats** are not recognised: at least once, with `id` in the JSON object to tell them.
//!
//! **Answers.** Events that the service names in `rejectedLogEventsInfo` (older than 14 days or than the
//! group's retention, or more than two hours ahead) are dead letters, it has taken the others.
//! `ResourceNotFoundException`: group and stream are created, the events sent again.
//! `DataAlreadyAcceptedException`: duplicates. `InvalidSequenceTokenException`, of endpoints that still
//! want one: sent again with the token named. `InvalidParameterException`: halved down to the culprit.
//! Everything else (throttling, rights, keys, 5xx) is tried again.

mod answer;
mod encode;

use reqwest::Url;

use super::aws::credentials::{Credentials, Provider};
use super::aws::{Signer, domain};
use super::http::{Answer, Connection, Head, HeaderMap, HeaderValue, Method};
use crate::clock;
use crate::config::{CloudWatchConfig, Compression};
use crate::deliver::remote::Sink;
use crate::deliver::remote::request::Request;
use crate::deliver::remote::verdict::{ItemVerdict, Verdict};
use answer::Said;
use encode::CloudWatchEncoder;

/// The service in a region.
pub(crate) struct CloudWatch {
    connection: Connection,
    url: Url,
    signer: Signer,
    credentials: Provider,
    create: bool,
}

/// Encoder and sink of a configuration; the error names key and reason.
pub(crate) fn build(config: &CloudWatchConfig) -> Result<(CloudWatchEncoder, CloudWatch), String> {
    let region = config.region.clone();
    let endpoint = config.endpoint.clone();
    let endpoint = endpoint.unwrap_or_else(|| format!("https://logs.{region}.{}", domain(&region)));
    let mut url = Url::parse(&endpoint).map_err(|error| format!("endpoint: {error}"))?;
    if !url.path().ends_with('/') {
        url.set_path(&format!("{}/", url.path()));
    }
    let service = CloudWatch {
        connection: Connection::new(&config.http, Compression::None, "Bearer")?,
        url,
        signer: Signer {
            region,
            service: "logs",
        },
        credentials: Provider::new(config.credentials.as_ref())?,
        create: config.create,
    };
    Ok((CloudWatchEncoder::new(config)?, service))
}

impl CloudWatch {
    /// Calls the service once; the answer, or why there is none.
    async fn call(&self, action: &'static str, body: Vec<u8>) -> Result<Answer, String> {
        let credentials = self.credentials.get().await?;
        let head = self.head(&credentials, action, &body)?;
        let answer = self.connection.exchange(head, body).await?;
        if answer::is_about_credentials(&answer) {
            self.credentials.forget();
        }
        Ok(answer)
    }

    fn head(
        &self,
        credentials: &Credentials,
        action: &'static str,
        body: &[u8],
    ) -> Result<Head, String> {
        let mut headers = HeaderMap::new();
        let content_type = HeaderValue::from_static("application/x-amz-json-1.1");
        headers.insert(reqwest::header::CONTENT_TYPE, content_type);
        headers.insert("x-amz-target", HeaderValue::from_static(action));
        self.signer
            .sign(credentials, &self.url, &mut headers, body, clock::now_ns())?;
        Ok(Head {
            method: Method::POST,
            url: self.url.to_string(),
            headers,
        })
    }

    /// Creates the group, if it must, and the stream; somebody else may have done so meanwhile.
    async fn create(&self, request: &Request) -> Result<(), Verdict> {
        let (group, stream) = encode::names(request);
        let body = || serde_json::json!({"logGroupName": group, "logStreamName": stream});
        let stream_body = body().to_string().into_bytes();
        if self.created(CREATE_STREAM, stream_body.clone()).await? {
            return Ok(());
        }
        let group_body = serde_json::json!({"logGroupName": group});
        self.created(CREATE_GROUP, group_body.to_string().into_bytes())
            .await?;
        match self.created(CREATE_STREAM, stream_body).await? {
            true => Ok(()),
            false => Err(Verdict::retry(format!(
                "the log group {group:?} was created and is not there yet"
            ))),
        }
    }

    /// Whether it is there now; false if what it belongs to is not.
    async fn created(&self, action: &'static str, body: Vec<u8>) -> Result<bool, Verdict> {
        let answer = self.call(action, body).await.map_err(Verdict::retry)?;
        match answer::read(&answer) {
            Said::Done | Said::Exists => Ok(true),
            Said::Missing => Ok(false),
            said => match answer::verdict(said, &answer) {
                // A name that cannot be: every event of the request has it.
                Verdict::Refused { reason } => Err(Verdict::Refused {
                    reason: format!("{}: {reason}", &action[TARGET..]),
                }),
                verdict => Err(verdict),
            },
        }
    }

    async fn put(&self, request: &Request, body: Vec<u8>) -> Result<Verdict, String> {
        let mut answer = self.call(PUT, body.clone()).await?;
        let mut said = answer::read(&answer);
        if said == Said::Missing && self.create {
            if let Err(verdict) = self.create(request).await {
                return Ok(verdict);
            }
            answer = self.call(PUT, body.clone()).await?;
            said = answer::read(&answer);
        }
        if let Said::Token(token) = &said {
            answer = self.call(PUT, encode::with_token(body, token)).await?;
            said = answer::read(&answer);
        }
        Ok(match said {
            Said::Done => answer::taken(request, &answer),
            Said::AlreadyAccepted => Verdict::Items(vec![ItemVerdict::Duplicate; request.len()]),
            said => answer::verdict(said, &answer),
        })
    }
}

const PUT: &str = "Logs_20140328.PutLogEvents";
const CREATE_GROUP: &str = "Logs_20140328.CreateLogGroup";
const CREATE_STREAM: &str = "Logs_20140328.CreateLogStream";
/// Where the action's name begins.
const TARGET: usize = "Logs_20140328.".len();

impl Sink for CloudWatch {
    type Encoder = CloudWatchEncoder;

    async fn send(&self, request: &Request, body: Vec<u8>) -> Verdict {
        match self.put(request, body).await {
            Ok(verdict) => verdict,
            Err(reason) => Verdict::retry(reason),
        }
    }
}

#[cfg(test)]
#[path = "cloudwatch_tests.rs"]
mod tests;
