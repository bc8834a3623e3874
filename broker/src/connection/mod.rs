//! One client's connection: reads and writes the socket, keeps time, and lets
//! [`crate::client::Client`] decide.

mod connect;

use std::{cell::RefCell, future::poll_fn, pin::Pin, sync::Arc, task::Poll, time::Duration};

use bytes::BytesMut;
use prometheus::IntCounter;
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf, ReadHalf, WriteHalf},
    time::{Instant, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info};

use crate::{
    access,
    client::{Client, Close},
    codec::{self, CodecError, Reason, Version},
    feed::Feed,
    hub::Hub,
    listen::{CROWD, Waiting},
    peer::Peer,
    session::ConnectionId,
    telemetry::Whom,
};

/// Bytes read at once.
const READ: usize = 64 << 10;
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
    (peer, waiting): (Peer, Waiting),
    connection: ConnectionId,
    shutdown: CancellationToken,
) where
    S: AsyncRead + AsyncWrite + Send,
{
    // On the heap and gone before the long life of a connection begins: what it takes to welcome a
    // client is several times what it takes to serve one.
    let welcome = Box::pin(welcome(hub, stream, (peer, waiting), connection, shutdown));
    let Some(mut driver) = welcome.await else {
        return;
    };
    driver.client.arrive();
    let close = driver.run().await;
    log_end(&driver.client, close);
    let client = &driver.client;
    client.hub.detach(&client.session, connection, close.polite);
    client.leave();
    Box::pin(linger(&mut driver.reader, &driver.shutdown)).await;
}

/// Takes a client from its first byte to CONNACK; `None` when it did not get that far. Nothing of
/// CONNECT is kept for longer: it may hold a password.
async fn welcome<S>(
    hub: Arc<Hub>,
    stream: S,
    (peer, waiting): (Peer, Waiting),
    connection: ConnectionId,
    shutdown: CancellationToken,
) -> Option<Driver<ReadHalf<S>, WriteHalf<S>>>
where
    S: AsyncRead + AsyncWrite + Send,
{
    let (mut reader, mut writer) = tokio::io::split(stream);
    let mut input = BytesMut::new();
    let patience = Duration::from_secs(hub.config.limits.connect_seconds);
    let first = connect::read_connect(&hub, &mut reader, &mut input);
    let first = tokio::select! {
        () = shutdown.cancelled() => return None,
        () = waiting.sent_away() => Err(CROWD),
        first = timeout(patience, first) => first.map_err(|_elapsed| "no CONNECT in time"),
    };
    drop(waiting);
    let connect = match first {
        Ok(Ok(connect)) => connect,
        Ok(Err(None)) => return None,
        Err(text) => {
            hub.telemetry.refused(Whom::at(&peer), text);
            return None;
        }
        Ok(Err(Some((version, error)))) => {
            hub.telemetry.refused(Whom::at(&peer), error.text);
            connect::refuse(&mut writer, version, error, usize::MAX).await;
            linger(&mut reader, &shutdown).await;
            return None;
        }
    };
    let admitted = async {
        connect::check(&hub, &connect)?;
        let login = connect::log_in(&hub, &connect, &peer, patience).await?;
        let (client, ack, until) = connect::admit(&hub, &connect, &peer, connection, login)?;
        if connect::is_stored(&hub, &until).await {
            return Ok((client, ack));
        }
        hub.detach(&client.session, connection, true);
        let text = "the session could not be stored";
        Err(CodecError::new(Reason::QuotaExceeded, text))
    };
    let admitted = tokio::select! {
        () = shutdown.cancelled() => return None,
        admitted = admitted => admitted,
    };
    let (mut client, ack) = match admitted {
        Ok(admitted) => admitted,
        Err(error) => {
            let whom = Whom {
                peer: &peer,
                user: connect.username.as_deref(),
                client: Some(&connect.client_id),
            };
            hub.telemetry.refused(whom, error.text);
            connect::refuse(&mut writer, connect.version, error, connect.max_packet).await;
            linger(&mut reader, &shutdown).await;
            return None;
        }
    };
    codec::write_connack(connect.version, &ack, &mut client.out);
    let principal = client.pass.principal().map(|name| &**name);
    debug!(client = &*client.session.client_id, principal, %peer, present = ack.session_present, "connected");
    Some(Driver {
        reader,
        writer,
        input,
        heard: Instant::now(),
        stuck: None,
        keep_alive: ack.keep_alive.unwrap_or(connect.keep_alive),
        unflushed: false,
        sent: hub.telemetry.sent_bytes(),
        shutdown,
        client,
    })
}

/// Reads and drops what a peer still sends, until it closes too: a socket that is closed with input
/// unread is reset, and the reset may overtake the last words.
async fn linger(reader: &mut (impl AsyncRead + Unpin), shutdown: &CancellationToken) {
    let mut left = MOST_DROPPED;
    let drain = async {
        let mut scrap = BytesMut::new();
        while let Ok(bytes @ 1..) = read_some(reader, &mut scrap).await {
            scrap.clear();
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

struct Driver<R, W> {
    client: Client,
    reader: R,
    writer: W,
    input: BytesMut,
    /// When the client was heard last.
    heard: Instant,
    /// Since when nothing of the output could be written.
    stuck: Option<Instant>,
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
            hub.telemetry.carried(&mut self.client.traffic);
            if let Some(close) = self.client.closing {
                self.say_goodbye(close).await;
                return close;
            }
            if self.client.out.is_empty() && self.client.out.capacity() > KEPT {
                self.client.out = BytesMut::new();
            }
            // A client whose packets have to wait is heard all the same, as far as the buffer goes.
            let hears = self.client.takes_input() || self.input.len() < READ;
            if !hears {
                self.heard = Instant::now();
            }
            let has_output = self.unflushed || !self.client.out.is_empty();
            match has_output {
                true => drop(self.stuck.get_or_insert_with(Instant::now)),
                false => self.stuck = None,
            }
            let awaits_journal = self.client.awaits_journal();
            let awaits_mail = self.client.awaits_mail();
            let awaits_state = self.client.awaits_state();
            let next_due = self.next_due();
            tokio::select! {
                read = read_some(&mut self.reader, &mut self.input), if hears => match read {
                    Ok(0) => return closed("the client closed the connection"),
                    Ok(bytes) => {
                        self.client.traffic.read(bytes);
                        self.heard = Instant::now();
                    }
                    Err(error) => return self.broken(&error),
                },
                written = send(&mut self.writer, &mut self.client.out, &mut self.unflushed, &self.sent), if has_output => match written {
                    Ok(()) => self.stuck = None,
                    Err(error) => return self.broken(&error),
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
                due = next_due => self.is_due(due),
                () = access::until(expires) => {
                    self.client.close(Reason::NotAuthorized, "the client's token has expired");
                }
                () = self.shutdown.cancelled() => self.client.close(Reason::ShuttingDown, "the broker is shutting down"),
            }
        }
    }

    /// The next thing that time brings about.
    fn next_due(&self) -> impl Future<Output = Due> + 'static {
        let limits = &self.client.hub.config.limits;
        let times = [
            (self.keep_alive > 0).then(|| (self.heard + patience(self.keep_alive), Due::Silent)),
            self.stuck.map(|since| {
                (
                    since + Duration::from_secs(limits.stall_seconds),
                    Due::Stuck,
                )
            }),
            self.client
                .paused()
                .map(|left| (Instant::now() + left, Due::Resume)),
        ];
        let next = times.into_iter().flatten().min_by_key(|(at, _)| *at);
        async move {
            match next {
                Some((at, due)) => {
                    sleep_until(at).await;
                    due
                }
                None => std::future::pending().await,
            }
        }
    }

    fn is_due(&mut self, due: Due) {
        match due {
            Due::Silent => self.client.close(
                Reason::KeepAliveTimeout,
                "nothing heard within one and a half keep alive intervals",
            ),
            Due::Stuck => {
                let text = "the client reads nothing";
                self.client.note_refusal(text);
                self.client.close(Reason::QuotaExceeded, text);
            }
            Due::Resume => self.client.resume(),
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
        self.client.note_refusal(text);
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

/// What time can bring about for a connection.
#[derive(Clone, Copy, Debug)]
enum Due {
    /// Nothing was heard for too long.
    Silent,
    /// Nothing could be written for too long.
    Stuck,
    /// More publishes may be taken.
    Resume,
}

/// Reads some more input. A connection that has nothing to read holds no buffer: bytes come by way of
/// one that all connections of a thread share. May be dropped at any time and called again.
async fn read_some(
    reader: &mut (impl AsyncRead + Unpin),
    input: &mut BytesMut,
) -> std::io::Result<usize> {
    thread_local! {
        static SHARED: RefCell<Vec<u8>> = RefCell::new(vec![0; READ]);
    }
    poll_fn(|context| {
        SHARED.with_borrow_mut(|shared| {
            let mut read = ReadBuf::new(shared);
            match Pin::new(&mut *reader).poll_read(context, &mut read) {
                Poll::Ready(Ok(())) => {
                    input.extend_from_slice(read.filled());
                    Poll::Ready(Ok(read.filled().len()))
                }
                Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
                Poll::Pending => {
                    if input.is_empty() {
                        *input = BytesMut::new();
                    }
                    Poll::Pending
                }
            }
        })
    })
    .await
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
