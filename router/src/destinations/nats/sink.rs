//! Publishes and waits for the stream's acknowledgements.

use std::time::Duration;

use async_nats::connection::State;
use async_nats::jetstream::context::{PublishAckFuture, PublishError, PublishErrorKind};
use async_nats::jetstream::{Context, ContextBuilder, Error as ServerError, ErrorCode};
use async_nats::{Client, ConnectOptions, HeaderMap};
use bytes::Bytes;
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout_at};

use super::encode::{Message, NatsEncoder};
use crate::config::{NatsConfig, Secret};
use crate::deliver::remote::Sink;
use crate::deliver::remote::request::Request;
use crate::deliver::remote::verdict::{ItemVerdict, Verdict};
use crate::net::tls::{self, Trust};

/// Publishes to one stream's servers.
pub(crate) struct NatsSink {
    config: NatsConfig,
    /// What the server's monitoring shows.
    name: String,
    within: Duration,
    /// All lanes share it. A new one is made when it is not connected: with credentials and
    /// certificates as they are then, and without what the old one had not yet sent. One on which an
    /// acknowledgement is overdue is given up: the client itself would look for minutes whether the
    /// server still lives.
    connection: Mutex<Option<Connection>>,
}

#[derive(Clone)]
struct Connection {
    client: Client,
    context: Context,
    /// When it was made: no two connections of a sink are of one moment.
    since: Instant,
}

impl NatsSink {
    /// Reads every file once, to see that it can be; the error names key and reason.
    pub(super) fn new(
        config: NatsConfig,
        name: String,
        within: Duration,
    ) -> Result<NatsSink, String> {
        let sink = NatsSink {
            config,
            name,
            within,
            connection: Mutex::default(),
        };
        sink.options()?;
        Ok(sink)
    }

    fn options(&self) -> Result<ConnectOptions, String> {
        let config = &self.config;
        let read =
            |key: &str, secret: &Secret| secret.read().map_err(|error| format!("{key}: {error}"));
        let mut options = ConnectOptions::new()
            .name(&self.name)
            .connection_timeout(self.within)
            .max_reconnects(1);
        if let (Some(user), Some(password)) = (&config.username, &config.password) {
            options = options.user_and_password(user.clone(), read("password", password)?);
        }
        if let Some(token) = &config.token {
            options = options.token(read("token", token)?);
        }
        if let Some(file) = &config.credentials {
            let wrong = |error| format!("credentials: {}: {error}", file.display());
            let text = std::fs::read_to_string(file).map_err(wrong)?;
            options = options.credentials(&text).map_err(wrong)?;
        }
        if config.is_tls() {
            let tls = tls::config(Trust::of_tls(&config.tls))?;
            options = options.require_tls(true).tls_client_config(tls);
        }
        Ok(options)
    }

    async fn connected(&self) -> Result<Connection, String> {
        let mut connection = self.connection.lock().await;
        if let Some(connection) = &*connection
            && connection.client.connection_state() == State::Connected
        {
            return Ok(connection.clone());
        }
        *connection = None;
        let connecting = self.options()?.connect(self.config.servers.clone());
        let client = match tokio::time::timeout(self.within, connecting).await {
            Ok(Ok(client)) => client,
            Ok(Err(error)) => return Err(format!("cannot connect: {error}")),
            Err(_) => {
                let within = self.within.as_millis();
                return Err(format!("no connection within {within} ms"));
            }
        };
        let context = ContextBuilder::new()
            .timeout(self.within)
            .ack_timeout(self.within)
            .build(client.clone());
        let made = Connection {
            client,
            context,
            since: Instant::now(),
        };
        *connection = Some(made.clone());
        Ok(made)
    }

    async fn give_up(&self, overdue: &Connection) {
        let mut connection = self.connection.lock().await;
        connection.take_if(|connection| connection.since == overdue.since);
    }

    async fn publish(
        &self,
        context: &Context,
        piece: &[u8],
    ) -> Result<PublishAckFuture, PublishError> {
        let other = |_| PublishError::new(PublishErrorKind::Other);
        let message = Message::of(piece).ok_or(PublishError::new(PublishErrorKind::Other))?;
        let mut headers = HeaderMap::new();
        if !message.id.is_empty() {
            let id = std::str::from_utf8(message.id).map_err(other)?;
            headers.insert(async_nats::header::NATS_MESSAGE_ID, id);
        }
        if let Some(stream) = &self.config.stream {
            headers.insert(async_nats::header::NATS_EXPECTED_STREAM, stream.as_str());
        }
        let subject = std::str::from_utf8(message.subject)
            .map_err(other)?
            .to_owned();
        let payload = Bytes::copy_from_slice(message.payload);
        context
            .publish_with_headers(subject, headers, payload)
            .await
    }
}

impl Sink for NatsSink {
    type Encoder = NatsEncoder;

    async fn send(&self, request: &Request, _body: Vec<u8>) -> Verdict {
        let connection = match self.connected().await {
            Ok(connection) => connection,
            Err(reason) => return Verdict::retry(reason),
        };
        let within = self.within.as_millis();
        let late = || ItemVerdict::Retry(format!("no acknowledgement within {within} ms"));
        let mut is_overdue = false;
        let mut due = Instant::now() + self.within;
        let mut published = Vec::with_capacity(request.len());
        for piece in request.pieces() {
            published.push(timeout_at(due, self.publish(&connection.context, piece)).await);
        }
        let mut items = Vec::with_capacity(request.len());
        for publish in published {
            let Ok(publish) = publish else {
                is_overdue = true;
                items.push(late());
                continue;
            };
            let acknowledged = match publish {
                Ok(ack) => timeout_at(due, ack.into_future()).await,
                Err(error) => Ok(Err(error)),
            };
            items.push(match acknowledged {
                Ok(Ok(ack)) => {
                    due = Instant::now() + self.within;
                    match ack.duplicate {
                        true => ItemVerdict::Duplicate,
                        false => ItemVerdict::Accepted,
                    }
                }
                Ok(Err(error)) => {
                    is_overdue |= error.kind() == PublishErrorKind::TimedOut;
                    refused(&error)
                }
                Err(_) => {
                    is_overdue = true;
                    late()
                }
            });
        }
        if is_overdue {
            self.give_up(&connection).await;
        }
        Verdict::Items(items)
    }
}

/// What an error means for the message.
pub(super) fn refused(error: &PublishError) -> ItemVerdict {
    let source = std::error::Error::source(error);
    let server = source.and_then(|source| source.downcast_ref::<ServerError>());
    let is_final = match (error.kind(), server) {
        (PublishErrorKind::MaxPayloadExceeded, _) => true,
        (_, Some(server)) => matches!(
            server.error_code(),
            ErrorCode::STREAM_MESSAGE_EXCEEDS_MAXIMUM | ErrorCode::STREAM_HEADER_EXCEEDS_MAXIMUM
        ),
        _ => false,
    };
    let reason = match error.kind() {
        PublishErrorKind::StreamNotFound => "no stream takes the subject; create one".to_owned(),
        _ => error.to_string(),
    };
    match is_final {
        true => ItemVerdict::Refused(reason),
        false => ItemVerdict::Retry(reason),
    }
}
