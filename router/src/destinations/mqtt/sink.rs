//! Sends bodies over connections that are kept.

use std::time::Duration;

use parking_lot::Mutex;

use super::connection::{Connection, Login};
use super::encode::{MqttEncoder, number};
use super::verdict::{Failure, verdict};
use crate::deliver::remote::Sink;
use crate::deliver::remote::request::Request;
use crate::deliver::remote::verdict::Verdict;
use crate::net::wire::Server;

/// A client id and the connection that has it. One for each request that was ever under way at once.
struct Client {
    id: String,
    connection: Option<Connection>,
}

/// Publishes at one broker.
pub(crate) struct MqttSink {
    server: Server,
    login: Option<Login>,
    /// Of client ids.
    beginning: String,
    within: Duration,
    pool: Mutex<Pool>,
}

#[derive(Default)]
struct Pool {
    idle: Vec<Client>,
    made: usize,
}

impl MqttSink {
    pub(super) fn new(
        server: Server,
        login: Option<Login>,
        client_id: &str,
        within: Duration,
    ) -> Result<MqttSink, String> {
        // Another router with the same configuration is another client.
        let random = getrandom::u32().map_err(|error| format!("no random number: {error}"))?;
        Ok(MqttSink {
            server,
            login,
            beginning: format!("{client_id}-{random:08x}"),
            within,
            pool: Mutex::default(),
        })
    }

    fn take(&self) -> Client {
        let mut pool = self.pool.lock();
        pool.idle.pop().unwrap_or_else(|| {
            pool.made += 1;
            Client {
                id: format!("{}-{}", self.beginning, pool.made),
                connection: None,
            }
        })
    }

    /// A connection of this client that works as far as can be seen.
    async fn connection(&self, client: &mut Client) -> Result<Connection, Failure> {
        if let Some(mut connection) = client.connection.take()
            && connection.is_usable().await
        {
            return Ok(connection);
        }
        Connection::open(&self.server, self.login.as_ref(), &client.id, self.within).await
    }

    async fn publish(&self, client: &mut Client, events: usize, mut body: Vec<u8>) -> Verdict {
        let mut connection = match self.connection(client).await {
            Ok(connection) => connection,
            Err(failure) => return Verdict::retry(failure.text),
        };
        let ends = number(&mut body);
        let starts = std::iter::once(&0).chain(&ends);
        let largest = starts.zip(&ends).map(|(start, end)| end - start).max();
        let (largest, most) = (largest.unwrap_or(0), connection.peer.max_packet);
        if largest > most {
            client.connection = Some(connection);
            let reason = format!("a message of {largest} bytes; the broker takes {most}");
            return Verdict::Refused { reason };
        }
        let mut reasons = vec![None; ends.len()];
        let published = connection.publish(&body, &ends, &mut reasons, self.within);
        let failure = published.await.err();
        if failure.is_none() {
            client.connection = Some(connection);
        }
        verdict(events, &reasons, failure)
    }
}

impl Sink for MqttSink {
    type Encoder = MqttEncoder;

    async fn send(&self, request: &Request, body: Vec<u8>) -> Verdict {
        let mut client = self.take();
        let verdict = self.publish(&mut client, request.len(), body).await;
        self.pool.lock().idle.push(client);
        verdict
    }
}
