//! Connections to brokers: framing, versions, logins.

use std::collections::HashMap;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::ResponseError;
use kafka_protocol::messages::{
    ApiKey, ApiVersionsRequest, ApiVersionsResponse, RequestHeader, ResponseHeader,
    SaslAuthenticateRequest, SaslAuthenticateResponse, SaslHandshakeRequest, SaslHandshakeResponse,
};
use kafka_protocol::protocol::{Decodable, Encodable, StrBytes};
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::Instant;

use super::answer::reason;
use super::scram::{Hash, Login};
use super::shape;
use crate::config::{KafkaConfig, Mechanism, Secret, TlsKeys};
use crate::destinations::address::Address;
use crate::destinations::wire::{Server, Wire, is_spent};

/// Most bytes of an answer: those about a topic of 100,000 partitions.
const LARGEST_ANSWER: usize = 8 << 20;
/// Room that is made for an answer before its bytes are there.
const ROOM: usize = 64 << 10;
/// Brokers that are remembered.
const MOST_SERVERS: usize = 1000;

/// The oldest and the newest version that is spoken of each request.
const VERSIONS: [(ApiKey, i16, i16); 5] = [
    (ApiKey::Produce, 3, 9),
    (ApiKey::Metadata, 4, 9),
    (ApiKey::InitProducerId, 0, 4),
    (ApiKey::SaslHandshake, 1, 1),
    (ApiKey::SaslAuthenticate, 0, 2),
];

/// How brokers are reached.
pub(super) struct Way {
    tls: Option<TlsKeys>,
    login: Option<(String, Secret, Mechanism)>,
    /// What brokers log and count by.
    client: StrBytes,
    pub(super) within: Duration,
    servers: Mutex<HashMap<(String, u16), Server>>,
}

impl Way {
    /// Reads every file once, to see that it can be; the error names key and reason.
    pub(super) fn new(config: &KafkaConfig, client: String) -> Result<Way, String> {
        let wrong = |reason| format!("servers: {reason}");
        let addresses = config.addresses().map_err(wrong)?;
        let is_tls = addresses.iter().any(|it| it.scheme == "kafka+ssl");
        let login = match (&config.username, &config.password) {
            (Some(user), Some(password)) => {
                password
                    .read()
                    .map_err(|error| format!("password: {error}"))?;
                Some((user.clone(), password.clone(), config.mechanism))
            }
            _ => None,
        };
        let way = Way {
            tls: is_tls.then(|| config.tls.clone()),
            login,
            client: StrBytes::from_string(client),
            within: Duration::from_millis(config.timeout_ms),
            servers: Mutex::default(),
        };
        for address in addresses {
            way.server(&address.host, address.port)?;
        }
        Ok(way)
    }

    fn server(&self, host: &str, port: u16) -> Result<Server, String> {
        let key = (host.to_owned(), port);
        let mut servers = self.servers.lock();
        if let Some(server) = servers.get(&key) {
            return Ok(server.clone());
        }
        if servers.len() >= MOST_SERVERS {
            servers.clear();
        }
        let address = Address {
            scheme: "kafka",
            host: host.to_owned(),
            port,
        };
        let server = Server::new(address, self.tls.as_ref(), self.within)?;
        servers.insert(key, server.clone());
        Ok(server)
    }

    /// A new connection that may be used, with credentials and certificates as they are now.
    pub(super) async fn connect(&self, host: &str, port: u16) -> Result<Connection, String> {
        let making = async {
            let mut connection = Connection {
                wire: self.server(host, port)?.connect().await?,
                client: self.client.clone(),
                versions: Vec::new(),
                number: 0,
                expires: None,
            };
            let prepared = connection.prepare(self.login.as_ref()).await;
            prepared.map_err(|reason| format!("{host}:{port}: {reason}"))?;
            Ok(connection)
        };
        match tokio::time::timeout(self.within, making).await {
            Ok(made) => made,
            Err(_) => {
                let within = self.within.as_millis();
                Err(format!("{host}:{port}: no connection within {within} ms"))
            }
        }
    }
}

/// A connection to one broker.
pub(super) struct Connection {
    wire: Box<dyn Wire>,
    client: StrBytes,
    /// Of each request that the broker knows, and so do we.
    versions: Vec<(ApiKey, i16)>,
    /// Of the last request.
    number: i32,
    /// When the broker ends it for want of another login.
    expires: Option<Instant>,
}

impl Connection {
    async fn prepare(&mut self, login: Option<&(String, Secret, Mechanism)>) -> Result<(), String> {
        let asked = ApiVersionsRequest::default();
        let said: ApiVersionsResponse = self.ask(ApiKey::ApiVersions, 0, &asked).await?;
        check(said.error_code, None)?;
        for (key, oldest, newest) in VERSIONS {
            let found = said.api_keys.iter().find(|it| it.api_key == key as i16);
            let version = found.map(|it| (it.min_version.max(oldest), it.max_version.min(newest)));
            if let Some((least, most)) = version
                && least <= most
            {
                self.versions.push((key, most));
            }
        }
        match login {
            None => Ok(()),
            Some((user, password, mechanism)) => {
                let password = password
                    .read()
                    .map_err(|error| format!("password: {error}"))?;
                let done = self.log_in(user, &password, *mechanism).await;
                done.map_err(|reason| format!("cannot log in as {user:?}: {reason}"))
            }
        }
    }

    async fn log_in(
        &mut self,
        user: &str,
        password: &str,
        mechanism: Mechanism,
    ) -> Result<(), String> {
        let (name, hash) = match mechanism {
            Mechanism::Plain => ("PLAIN", None),
            Mechanism::ScramSha256 => ("SCRAM-SHA-256", Some(Hash::Sha256)),
            Mechanism::ScramSha512 => ("SCRAM-SHA-512", Some(Hash::Sha512)),
        };
        let asked = SaslHandshakeRequest::default().with_mechanism(StrBytes::from_static_str(name));
        let version = self.version(ApiKey::SaslHandshake)?;
        let said: SaslHandshakeResponse = self.ask(ApiKey::SaslHandshake, version, &asked).await?;
        if said.error_code != 0 {
            let known: Vec<&str> = said.mechanisms.iter().map(StrBytes::as_str).collect();
            return Err(format!("it takes {}, not {name}", known.join(", ")));
        }
        let Some(hash) = hash else {
            let text = format!("\0{user}\0{password}");
            return self.say(text).await.map(drop);
        };
        let mut random = [0; 24];
        getrandom::fill(&mut random).map_err(|error| format!("no random number: {error}"))?;
        let login = Login::new(hash, user, password, &STANDARD.encode(random));
        let said = self.say(login.first()).await?;
        let (answer, proof) = login.answer(&said)?;
        proof.check(&self.say(answer).await?)
    }

    /// A step of a login.
    async fn say(&mut self, text: String) -> Result<String, String> {
        let version = self.version(ApiKey::SaslAuthenticate)?;
        let asked = SaslAuthenticateRequest::default().with_auth_bytes(Bytes::from(text));
        let said: SaslAuthenticateResponse =
            self.ask(ApiKey::SaslAuthenticate, version, &asked).await?;
        check(said.error_code, said.error_message.as_ref())?;
        if let Ok(lifetime @ 1..) = u64::try_from(said.session_lifetime_ms) {
            // Not to the last moment: a request takes its time.
            self.expires = Some(Instant::now() + Duration::from_millis(lifetime / 10 * 8));
        }
        Ok(String::from_utf8_lossy(&said.auth_bytes).into_owned())
    }

    /// Whether its login holds for another request.
    pub(super) fn is_fresh(&self) -> bool {
        self.expires.is_none_or(|expires| Instant::now() < expires)
    }

    /// Whether the broker has closed it meanwhile, as it does with connections that are idle for long.
    pub(super) async fn is_spent(&mut self) -> bool {
        is_spent(&mut self.wire).await
    }

    /// The version to speak; the error says that the broker does not know such requests.
    pub(super) fn version(&self, key: ApiKey) -> Result<i16, String> {
        let found = self.versions.iter().find(|(known, _)| *known == key);
        let found = found.map(|(_, version)| *version);
        found.ok_or_else(|| format!("the broker knows no version of {key:?} that we do"))
    }

    /// Sends a request and waits for the answer.
    pub(super) async fn ask<A: Decodable>(
        &mut self,
        key: ApiKey,
        version: i16,
        request: &impl Encodable,
    ) -> Result<A, String> {
        self.write(key, version, request).await?;
        self.read(key, version).await
    }

    /// Sends a request; after an error the connection is of no more use.
    pub(super) async fn write(
        &mut self,
        key: ApiKey,
        version: i16,
        request: &impl Encodable,
    ) -> Result<(), String> {
        self.number = self.number.wrapping_add(1);
        let header = RequestHeader::default()
            .with_request_api_key(key as i16)
            .with_request_api_version(version)
            .with_correlation_id(self.number)
            .with_client_id(Some(self.client.clone()));
        let mut out = BytesMut::new();
        out.put_u32(0);
        let encoded = header
            .encode(&mut out, key.request_header_version(version))
            .and_then(|()| request.encode(&mut out, version));
        encoded.map_err(|error| format!("cannot make a request: {error:#}"))?;
        let length = (out.len() - 4) as u32;
        out[..4].copy_from_slice(&length.to_be_bytes());
        let written = self.wire.write_all(&out).await;
        written.map_err(|error| error.to_string())?;
        self.wire.flush().await.map_err(|error| error.to_string())
    }

    /// The answer to the last request; after an error the connection is of no more use.
    pub(super) async fn read<A: Decodable>(
        &mut self,
        key: ApiKey,
        version: i16,
    ) -> Result<A, String> {
        let text = |error: std::io::Error| error.to_string();
        let length = self.wire.read_u32().await.map_err(text)? as usize;
        if length > LARGEST_ANSWER {
            return Err(format!(
                "an answer of {length} bytes: is this a Kafka broker?"
            ));
        }
        let mut answer = BytesMut::with_capacity(length.min(ROOM));
        let mut rest = (&mut self.wire).take(length as u64);
        while answer.len() < length {
            if rest.read_buf(&mut answer).await.map_err(text)? == 0 {
                return Err("the connection was closed in the middle of an answer".into());
            }
        }
        let mut answer = answer.freeze();
        let odd = |error| format!("an answer that makes no sense: {error:#}");
        let header = ResponseHeader::decode(&mut answer, key.response_header_version(version));
        let header = header.map_err(odd)?;
        if header.correlation_id != self.number {
            return Err("an answer to something else".into());
        }
        if !shape::is_whole(key, version, &answer) {
            return Err("an answer that holds less than it says".into());
        }
        // What is left belongs to nobody; some brokers end with a byte too many.
        A::decode(&mut answer, version).map_err(odd)
    }
}

/// An error code of an answer as an error.
pub(super) fn check(code: i16, said: Option<&StrBytes>) -> Result<(), String> {
    match ResponseError::try_from_code(code) {
        None => Ok(()),
        Some(error) => Err(reason(error, said.map(|text| text.as_str()))),
    }
}
