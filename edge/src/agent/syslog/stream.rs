//! Connections: TCP and stream sockets. A connection is read only as fast as there is room for its
//! messages, so that its sender notices.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use rustix::net::sockopt;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream, UnixListener, UnixStream},
    task::JoinSet,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use super::{Peer, Reader, SyslogOptions, frame::Frames};
use crate::{
    Record,
    agent::{lines::Line, sink::Sink},
};

/// Bytes read at a time.
const BLOCK: usize = 16 << 10;
/// How long a connection is read on after the source was told to end.
const GRACE: Duration = Duration::from_secs(2);
/// Of a listener that has no file descriptors left.
const PAUSE: Duration = Duration::from_millis(200);

pub(super) enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

pub(super) fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let listener = std::net::TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    TcpListener::from_std(listener)
}

impl Listener {
    async fn accept(&self) -> io::Result<(Stream, Peer)> {
        match self {
            Listener::Tcp(listener) => {
                let (stream, address) = listener.accept().await?;
                keep_alive(&stream)?;
                Ok((Stream::Tcp(stream), Peer::Network(address.ip())))
            }
            Listener::Unix(listener) => {
                let (stream, _) = listener.accept().await?;
                Ok((Stream::Unix(stream), Peer::Local))
            }
        }
    }
}

/// A sender that is gone without a word is noticed within minutes.
fn keep_alive(stream: &TcpStream) -> io::Result<()> {
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, Duration::from_secs(60))?;
    sockopt::set_tcp_keepintvl(stream, Duration::from_secs(20))?;
    sockopt::set_tcp_keepcnt(stream, 4)?;
    Ok(())
}

/// Serves connections until `cancel`, and then gives them a moment to end.
pub(super) async fn accept(
    sink: &Sink,
    listener: Listener,
    options: &Arc<SyslogOptions>,
    cancel: &CancellationToken,
) {
    let mut connections = JoinSet::new();
    let mut full = false;
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = connections.join_next() => {
                full = false;
                continue;
            }
            () = cancel.cancelled() => break,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "a syslog connection could not be accepted");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        if connections.len() >= options.max_connections {
            if !std::mem::replace(&mut full, true) {
                let limit = options.max_connections;
                tracing::warn!(
                    ?peer,
                    limit,
                    "too many syslog connections; closing further ones"
                );
            }
            continue;
        }
        let connection = Connection {
            sink: sink.clone(),
            reader: Reader::new(options.clone()),
            peer,
            idle: options.idle.0,
            cancel: cancel.clone(),
        };
        match stream {
            Stream::Tcp(stream) => connections.spawn(connection.serve(stream)),
            Stream::Unix(stream) => connections.spawn(connection.serve(stream)),
        };
    }
    // From now on a sender that connects is refused, and keeps what it has.
    drop(listener);
    while connections.join_next().await.is_some() {}
}

struct Connection {
    sink: Sink,
    reader: Reader,
    peer: Peer,
    idle: Duration,
    cancel: CancellationToken,
}

impl Connection {
    async fn serve(mut self, mut stream: impl AsyncRead + AsyncWrite + Unpin) {
        let mut frames = Frames::up_to(self.reader.options.longest());
        let mut buffer = vec![0; BLOCK];
        let mut records = Vec::new();
        let cancel = self.cancel.clone();
        loop {
            let read = tokio::select! {
                read = timeout(self.idle, stream.read(&mut buffer)) => read,
                () = cancel.cancelled() => break,
            };
            match read {
                Ok(Ok(read @ 1..)) => {
                    frames.feed(&buffer[..read], |line| records.push(self.read(line)));
                }
                Ok(Ok(0)) => return self.end(frames, records).await,
                Ok(Err(error)) => {
                    tracing::debug!(%error, peer = ?self.peer, "a syslog connection broke");
                    return self.end(frames, records).await;
                }
                Err(_) => {
                    tracing::info!(peer = ?self.peer, "a silent syslog connection is closed");
                    return self.end(frames, records).await;
                }
            }
            if !self.emit(&mut records).await {
                return;
            }
        }
        // The sender learns that this is the end, stops, and what it had sent is read.
        let farewell = async {
            let _ = stream.shutdown().await;
            while let Ok(read @ 1..) = stream.read(&mut buffer).await {
                frames.feed(&buffer[..read], |line| records.push(self.read(line)));
                if !self.emit(&mut records).await {
                    return;
                }
            }
        };
        let _ = timeout(GRACE, farewell).await;
        self.end(frames, records).await;
    }

    fn read(&mut self, line: Line<'_>) -> Record {
        self.reader.record(line, self.peer)
    }

    /// What was read cannot be read again: it gets what time there is at the end.
    async fn emit(&self, records: &mut Vec<Record>) -> bool {
        for record in records.drain(..) {
            let sent = tokio::select! {
                biased;
                sent = self.sink.emit_waiting(record) => sent,
                () = self.grace() => false,
            };
            if !sent {
                return false;
            }
        }
        true
    }

    async fn grace(&self) {
        self.cancel.cancelled().await;
        tokio::time::sleep(GRACE).await;
    }

    async fn end(mut self, mut frames: Frames, mut records: Vec<Record>) {
        frames.finish(|line| records.push(self.read(line)));
        self.emit(&mut records).await;
    }
}
