//! One client's connection: reads and writes the socket, keeps time, and lets
//! [`crate::client::Client`] decide.

use std::{sync::Arc, time::Duration};

use bytes::{Buf, BytesMut};
use prometheus::IntCounter;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf},
    time::{Instant, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info};

use crate::{
    access::{self, Credentials, Login},
    client::{Client, Close, TOPIC_ALIASES},
    codec::{self, CodecError, ConnAck, Connect, Reason, Version, Will, kind},
    feed::Feed,
    hub::{Hub, Settled, Wait},
    peer::Peer,
    session::ConnectionId,
};

/// Input buffer of a client that is waited for, and of one that has more to say than fits there.
const QUIET: usize = 1 << 10;
const BUSY: usize = 64 << 10;
/// Largest output buffer that is kept when nothing is to be sent.
const KEPT: usize = 8 << 10;
/// How long a closing connection may take to read its last packets.
const GOODBYE: Duration = Duration::from_secs(2);
/// Bytes that a closing connection may still send, to be dropped.
const MOST_DROPPED: usize = 4 << 20;

/// Serves one client from CONNECT to the end. Both halves of the stream are polled by this task.
pub(crate) async fn serve<S>(
    hub: Arc<Hub>,
    stream: S,
    peer: Peer,
    connection: ConnectionId,
    shutdown: CancellationToken,
) where
    S: AsyncRead + AsyncWrite + Send,
{
    // On the heap and gone before the long life of a connection begins: what it takes to welcome a
    // client is several times what it takes to serve one.
    let welcome = Box::pin(welcome(hub, stream, peer, connection, shutdown));
    let Some(mut driver) = welcome.await else {
        return;
    };
    let close = driver.run().await;
    log_end(&driver.client, close);
    let client = &driver.client;
    client.hub.detach(&client.session, connection, close.polite);
    Box::pin(linger(&mut driver.reader, &driver.shutdown)).await;
}

/// Takes a client from its first byte to CONNACK; `None` when it did not get that far.
async fn welcome<S>(
    hub: Arc<Hub>,
    stream: S,
    peer: Peer,
    connection: ConnectionId,
    shutdown: CancellationToken,
) -> Option<Driver<ReadHalf<S>, WriteHalf<S>>>
where
    S: AsyncRead + AsyncWrite + Send,
{
    let (mut reader, mut writer) = tokio::io::split(stream);
    let mut input = BytesMut::with_capacity(QUIET);
    let patience = Duration::from_secs(hub.config.limits.connect_seconds);
    let connect = tokio::select! {
        () = shutdown.cancelled() => return None,
        connect = timeout(patience, read_connect(&hub, &mut reader, &mut input)) => connect,
    };
    let connect = match connect {
        Err(_elapsed) => {
            hub.telemetry
                .refused(&peer.to_string(), "no CONNECT in time");
            return None;
        }
        Ok(Err(None)) => return None,
        Ok(Err(Some((version, error)))) => {
            hub.telemetry.refused(&peer.to_string(), error.text);
            refuse(&mut writer, version, error, usize::MAX).await;
            linger(&mut reader, &shutdown).await;
            return None;
        }
        Ok(Ok(connect)) => connect,
    };
    let admitted = async {
        check(&hub, &connect)?;
        let login = log_in(&hub, &connect, &peer, patience).await?;
        admit(&hub, &connect, &peer, connection, login)
    };
    let admitted = tokio::select! {
        () = shutdown.cancelled() => return None,
        admitted = admitted => admitted,
    };
    let (client, ack, until) = match admitted {
        Ok(admitted) => admitted,
        Err(error) => {
            hub.telemetry.refused(&connect.client_id, error.text);
            refuse(&mut writer, connect.version, error, connect.max_packet).await;
            linger(&mut reader, &shutdown).await;
            return None;
        }
    };
    let mut driver = Driver {
        client,
        reader,
        writer,
        input,
        is_filled: false,
        keep_alive: ack.keep_alive.unwrap_or(connect.keep_alive),
        unflushed: false,
        sent: hub.telemetry.sent_bytes(),
        shutdown,
    };
    if !is_stored(&hub, &until).await {
        let error = CodecError::new(Reason::QuotaExceeded, "the session could not be stored");
        hub.telemetry.refused(&connect.client_id, error.text);
        hub.detach(&driver.client.session, connection, true);
        let writer = &mut driver.writer;
        refuse(writer, connect.version, error, connect.max_packet).await;
        linger(&mut driver.reader, &driver.shutdown).await;
        return None;
    }
    codec::write_connack(connect.version, &ack, &mut driver.client.out);
    let principal = driver.client.pass.principal().map(|name| &**name);
    debug!(client = &*driver.client.session.client_id, principal, %peer, present = ack.session_present, "connected");
    Some(driver)
}

/// Reads the first packet; `Err(None)` when the peer left without a word.
async fn read_connect(
    hub: &Hub,
    reader: &mut (impl AsyncRead + Unpin),
    input: &mut BytesMut,
) -> Result<Connect, Option<(Version, CodecError)>> {
    loop {
        match codec::frame(input, hub.config.limits.packet_bytes) {
            Ok(Some(frame)) if frame.kind == kind::CONNECT => {
                let version = codec::connect_version(&input[frame.header..frame.total])?;
                let connect = codec::read_connect(version, &frame, input)
                    .map_err(|error| (version, error))?;
                input.advance(frame.total);
                return Ok(connect);
            }
            Ok(Some(_)) => {
                return Err(Some((
                    Version::V311,
                    CodecError::protocol("the first packet is not CONNECT"),
                )));
            }
            Err(error) => return Err(Some((Version::V311, error))),
            Ok(None) => {}
        }
        if !input.is_empty() && input[0] >> 4 != kind::CONNECT {
            return Err(Some((
                Version::V311,
                CodecError::protocol("the first packet is not CONNECT"),
            )));
        }
        match reader.read_buf(input).await {
            Ok(0) | Err(_) => return Err(None),
            Ok(_) => {}
        }
    }
}

/// Refuses a connection. A client of 3.1.1 whose CONNECT cannot be read is told nothing (MQTT 3.1.1
/// section 3.1.4), nor is who may not speak MQTT at all.
async fn refuse(
    writer: &mut (impl AsyncWrite + Unpin),
    version: Version,
    error: CodecError,
    max_packet: usize,
) {
    let mut out = BytesMut::new();
    codec::write_refusal(version, error.reason, error.text, max_packet, &mut out);
    let _ = timeout(GOODBYE, writer.write_all_buf(&mut out)).await;
    let _ = timeout(GOODBYE, writer.shutdown()).await;
}

/// Reads and drops what a peer still sends, until it closes too: a socket that is closed with input
/// unread is reset, and the reset may overtake the last words.
async fn linger(reader: &mut (impl AsyncRead + Unpin), shutdown: &CancellationToken) {
    let mut scrap = [0; 4096];
    let mut left = MOST_DROPPED;
    let drain = async {
        while let Ok(bytes @ 1..) = reader.read(&mut scrap).await {
            left = left.saturating_sub(bytes);
            if left == 0 {
                return;
            }
        }
    };
    tokio::select! {
        () = shutdown.cancelled() => {}
        _ = timeout(GOODBYE, drain) => {}
    }
}

/// Refuses what no client may ask for, whoever it is.
fn check(hub: &Hub, connect: &Connect) -> Result<(), CodecError> {
    if connect.enhanced_auth {
        return Err(CodecError::new(
            Reason::BadAuthenticationMethod,
            "enhanced authentication is not offered",
        ));
    }
    if connect.client_id.is_empty() && connect.version == Version::V311 && !connect.clean_start {
        return Err(CodecError::new(
            Reason::ClientIdInvalid,
            "an empty client id needs a clean session",
        ));
    }
    if connect.client_id.len() > 1024 || connect.client_id.chars().any(char::is_control) {
        return Err(CodecError::new(
            Reason::ClientIdInvalid,
            "client id is longer than 1024 bytes or holds control characters",
        ));
    }
    connect
        .will
        .as_ref()
        .map_or(Ok(()), |will| check_will(hub, will))
}

/// Finds out who the client is.
async fn log_in(
    hub: &Hub,
    connect: &Connect,
    peer: &Peer,
    patience: Duration,
) -> Result<Login, CodecError> {
    let shown = Credentials {
        username: connect.username.as_deref(),
        password: connect.password.as_deref(),
        certificate: peer.certificate.as_deref(),
    };
    match timeout(patience, hub.access.login(shown, peer.address)).await {
        Ok(login) => login,
        Err(_elapsed) => Err(CodecError::new(
            Reason::ServerBusy,
            "too many logins at once",
        )),
    }
}

/// Gives the client its session, or the reason why not.
fn admit(
    hub: &Arc<Hub>,
    connect: &Connect,
    peer: &Peer,
    connection: ConnectionId,
    login: Login,
) -> Result<(Client, ConnAck, Wait), CodecError> {
    let assigned: Option<Arc<str>> = connect
        .client_id
        .is_empty()
        .then(|| login.assign_client_id(random_id()).into());
    let client_id = assigned
        .clone()
        .unwrap_or_else(|| connect.client_id.as_str().into());
    login.check_client_id(&client_id)?;
    let pass = hub.access.pass(login, client_id.clone());
    if let Some(will) = &connect.will
        && !pass.may_write(&will.topic)
    {
        return Err(CodecError::new(
            Reason::NotAuthorized,
            "not allowed to publish the will",
        ));
    }
    let mut ack = connack(hub, connect, assigned);
    if connect.version == Version::V5 {
        let mut packet = BytesMut::new();
        codec::write_connack(connect.version, &ack, &mut packet);
        if packet.len() > connect.max_packet {
            return Err(CodecError::new(
                Reason::PacketTooLarge,
                "Maximum Packet Size leaves no room for CONNACK",
            ));
        }
    }
    let attached = hub
        .attach(connect, &client_id, connection, &pass)
        .map_err(|reason| {
            let text = match reason {
                Reason::ClientIdInvalid => "the session of this client id belongs to somebody else",
                _ => "no room for another session",
            };
            CodecError::new(reason, text)
        })?;
    ack.session_present = attached.present;
    let until = attached.until;
    let client = Client::new(
        hub.clone(),
        attached,
        connection,
        connect,
        (peer.clone(), pass),
    );
    Ok((client, ack, until))
}

/// What the client is told of the broker; the session is not known yet.
fn connack(hub: &Hub, connect: &Connect, assigned: Option<Arc<str>>) -> ConnAck {
    let limits = &hub.config.limits;
    let expiry = connect.expiry.min(limits.session_seconds);
    let longest = limits.keep_alive_seconds;
    let is_longer = connect.keep_alive == 0 || connect.keep_alive > longest;
    let client_id = assigned.as_deref().unwrap_or(&connect.client_id);
    // Its own place for responses; a client id that is no part of a topic name has none.
    let has_place = connect.request_response_information && !client_id.contains(['+', '#']);
    ConnAck {
        session_present: false,
        expiry: (expiry != connect.expiry).then_some(expiry),
        keep_alive: (longest > 0 && is_longer && connect.version == Version::V5).then_some(longest),
        receive_maximum: limits.receive_maximum,
        max_packet: limits.packet_bytes,
        topic_alias_max: TOPIC_ALIASES,
        response_information: has_place
            .then(|| format!("{}/response/{client_id}", hub.config.root)),
        assigned_client_id: assigned,
    }
}

/// Waits until the disk has what CONNACK tells of; false when it will not have it.
async fn is_stored(hub: &Hub, until: &Wait) -> bool {
    let mut state = hub.state.settled();
    // Not by the watch's own `wait_for`, which holds its lock while it asks: what is asked here takes
    // that lock again, and a writer between the two would wait for ever.
    loop {
        state.mark_unchanged();
        match hub.settled(until) {
            Settled::Pending if state.changed().await.is_err() => return false,
            Settled::Pending => {}
            decided => return decided == Settled::Stored,
        }
    }
}

fn check_will(hub: &Hub, will: &Will) -> Result<(), CodecError> {
    if will.topic.starts_with("$SYS/") {
        return Err(CodecError::new(
            Reason::NotAuthorized,
            "$SYS is the broker's own",
        ));
    }
    if will.retain && hub.durable.contains(&will.topic) {
        return Err(CodecError::new(
            Reason::RetainNotSupported,
            "a retained will on a durable topic",
        ));
    }
    Ok(())
}

fn random_id() -> String {
    let mut bytes = [0u8; 12];
    // Without randomness the id still only has to differ from those in use.
    if getrandom::fill(&mut bytes).is_err() {
        bytes[..8].copy_from_slice(&crate::clock::now().to_be_bytes());
    }
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("auto-{hex}")
}

struct Driver<R, W> {
    client: Client,
    reader: R,
    writer: W,
    input: BytesMut,
    /// The last read filled the buffer: there is more.
    is_filled: bool,
    keep_alive: u16,
    /// Written bytes may still be held by the transport.
    unflushed: bool,
    sent: IntCounter,
    shutdown: CancellationToken,
}

impl<R: AsyncRead + Unpin, W: AsyncWrite + Unpin> Driver<R, W> {
    /// Runs until the connection is to end; says why.
    async fn run(&mut self) -> Close {
        let hub = self.client.hub.clone();
        let (session, wake) = (self.client.session.clone(), self.client.wake.clone());
        let mut journal = hub.journal_settled.clone();
        let mut mail = hub.mail.watch();
        let mut state = hub.state.settled();
        let mut heard = Instant::now();
        let expires = self.client.pass.expires();
        loop {
            journal.mark_unchanged();
            mail.mark_unchanged();
            state.mark_unchanged();
            self.client.append();
            self.client.take_input(&mut self.input);
            self.client.settle();
            if self.client.fill() {
                wake.notify_one();
            }
            if let Some(close) = self.client.closing {
                self.say_goodbye(close).await;
                return close;
            }
            self.trim();
            // A client whose packets have to wait is heard all the same, as far as the buffer goes.
            let hears = self.client.takes_input() || self.input.len() < BUSY;
            if !hears {
                heard = Instant::now();
            }
            let has_output = self.unflushed || !self.client.out.is_empty();
            let awaits_journal = self.client.awaits_journal();
            let awaits_mail = self.client.awaits_mail();
            let awaits_state = self.client.awaits_state();
            tokio::select! {
                read = self.reader.read_buf(&mut self.input), if hears => match read {
                    Ok(0) => return closed("the client closed the connection"),
                    Ok(_) => {
                        heard = Instant::now();
                        self.is_filled = self.input.len() == self.input.capacity();
                    }
                    Err(error) => return self.broken(&error),
                },
                written = send(&mut self.writer, &mut self.client.out, &mut self.unflushed, &self.sent), if has_output => if let Err(error) = written {
                    return self.broken(&error);
                },
                changed = journal.changed(), if awaits_journal => if changed.is_err() {
                    self.client.close(Reason::ShuttingDown, "the broker is shutting down");
                },
                changed = mail.changed(), if awaits_mail => match changed {
                    Ok(()) => self.client.unblock(),
                    Err(_) => self.client.close(Reason::ShuttingDown, "the broker is shutting down"),
                },
                changed = state.changed(), if awaits_state => if changed.is_err() {
                    self.client.close(Reason::ShuttingDown, "the broker is shutting down");
                },
                () = wake.notified() => {}
                read = next_chunk(&mut self.client.feed) => match read {
                    Ok(Some(chunk)) => if let Some(feed) = &mut self.client.feed { feed.resume(chunk) },
                    Ok(None) => {}
                    Err(error) => {
                        tracing::error!(client = &*session.client_id, error, "the durable log cannot be read");
                        self.client.close(Reason::Unspecified, "the durable log cannot be read");
                    }
                },
                () = sleep_until(heard + patience(self.keep_alive)), if self.keep_alive > 0 => {
                    self.client.close(Reason::KeepAliveTimeout, "nothing heard within one and a half keep alive intervals");
                }
                () = access::until(expires) => {
                    self.client.close(Reason::NotAuthorized, "the client's token has expired");
                }
                () = self.shutdown.cancelled() => self.client.close(Reason::ShuttingDown, "the broker is shutting down"),
            }
        }
    }

    /// Keeps buffers in proportion to what the client does: while it is waited for they are small.
    fn trim(&mut self) {
        let wanted = if self.is_filled { BUSY } else { QUIET };
        let free = self.input.capacity() - self.input.len();
        if self.input.is_empty() && self.input.capacity() > wanted {
            self.input = BytesMut::with_capacity(wanted);
        } else if free < QUIET / 4 {
            self.input.reserve(match self.input.len() {
                0..QUIET => wanted,
                _ => BUSY,
            });
        }
        if self.client.out.is_empty() && self.client.out.capacity() > KEPT {
            self.client.out = BytesMut::new();
        }
    }

    /// What an error of the transport means. TLS and WebSocket have rules of their own that a client
    /// can break, such as text where MQTT needs binary messages ([MQTT-6.0.0-1]).
    fn broken(&self, error: &std::io::Error) -> Close {
        if error.kind() != std::io::ErrorKind::InvalidData {
            return closed("the connection broke");
        }
        let (client, text) = (
            &*self.client.session.client_id,
            "the transport's rules were broken",
        );
        debug!(client, %error, "refused");
        self.client.hub.telemetry.refused(client, text);
        closed(text)
    }

    /// Sends what is ready; after DISCONNECT nothing may follow (MQTT 5.0 section 3.14.4).
    async fn say_goodbye(&mut self, close: Close) {
        if close.reason != Reason::Success && self.client.version() == Version::V5 {
            let max_packet = self.client.max_packet();
            codec::write_disconnect(close.reason, close.text, max_packet, &mut self.client.out);
        }
        let _ = timeout(GOODBYE, self.writer.write_all_buf(&mut self.client.out)).await;
        let _ = timeout(GOODBYE, self.writer.shutdown()).await;
    }
}

/// Writes some of what is to be sent, and flushes it: TLS and WebSocket hold back what the socket did
/// not take. May be dropped at any time and called again.
async fn send(
    writer: &mut (impl AsyncWrite + Unpin),
    out: &mut BytesMut,
    unflushed: &mut bool,
    sent: &IntCounter,
) -> std::io::Result<()> {
    if !out.is_empty() {
        sent.inc_by(writer.write_buf(out).await? as u64);
        *unflushed = true;
    }
    writer.flush().await?;
    *unflushed = false;
    Ok(())
}

fn closed(text: &'static str) -> Close {
    Close {
        reason: Reason::Unspecified,
        text,
        polite: false,
    }
}

/// One and a half times the keep alive (MQTT 5.0 section 3.1.2.10).
fn patience(keep_alive: u16) -> Duration {
    Duration::from_millis(u64::from(keep_alive) * 1_500)
}

async fn next_chunk(feed: &mut Option<Feed>) -> Result<Option<thinglog_journal::Chunk>, String> {
    match feed {
        Some(feed) if feed.is_reading() => feed.read_done().await,
        _ => std::future::pending().await,
    }
}

fn log_end(client: &Client, close: Close) {
    let client = &*client.session.client_id;
    match close.reason {
        Reason::Success => debug!(client, reason = close.text, "disconnected"),
        _ => info!(client, reason = close.text, "disconnected"),
    }
}
