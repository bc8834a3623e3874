//! Datagrams: one is one message (RFC 5426 section 3.1). They cannot be made to wait, so that without
//! room the least grave are dropped; what the kernel had to drop is asked for and published.

use std::{io, net::SocketAddr, time::Duration};

use rustix::net::sockopt::set_socket_recv_buffer_size;
use tokio::{
    net::{UdpSocket, UnixDatagram},
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;

use super::{Peer, Reader, drops::Drops, frame::trim};
use crate::agent::{lines::Line, sink::Sink};

/// What is asked of the kernel to buffer, bytes; it gives less where net.core.rmem_max is less.
const BUFFER: usize = 1 << 20;
/// How long after a datagram the kernel is asked what it dropped.
const ASK: Duration = Duration::from_secs(2);
/// Datagrams that are still read at the end: more than a buffer holds.
const AFTER_CANCEL: usize = 20_000;

pub(super) enum Socket {
    Udp(UdpSocket),
    Unix(UnixDatagram),
}

/// Binds with as large a buffer as there is.
pub(super) fn bind(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = std::net::UdpSocket::bind(address)?;
    if let Err(error) = set_socket_recv_buffer_size(&socket, BUFFER) {
        tracing::debug!(%error, "the receive buffer stays as it is");
    }
    socket.set_nonblocking(true)?;
    UdpSocket::from_std(socket)
}

impl Socket {
    async fn receive(&self, buffer: &mut [u8]) -> io::Result<(usize, Peer)> {
        match self {
            Socket::Udp(socket) => socket.recv_from(buffer).await.map(from_network),
            Socket::Unix(socket) => socket.recv(buffer).await.map(|read| (read, Peer::Local)),
        }
    }

    fn try_receive(&self, buffer: &mut [u8]) -> io::Result<(usize, Peer)> {
        match self {
            Socket::Udp(socket) => socket.try_recv_from(buffer).map(from_network),
            Socket::Unix(socket) => socket.try_recv(buffer).map(|read| (read, Peer::Local)),
        }
    }

    fn drops(&self) -> Option<Drops> {
        match self {
            Socket::Udp(socket) => Drops::of(socket),
            // A sender to a full one waits, or is told.
            Socket::Unix(_) => None,
        }
    }
}

fn from_network((read, address): (usize, SocketAddr)) -> (usize, Peer) {
    (read, Peer::Network(address.ip()))
}

/// Receives until `cancel`, and then what is there.
pub(super) async fn receive(
    sink: &Sink,
    socket: Socket,
    mut reader: Reader,
    cancel: &CancellationToken,
) {
    let max = reader.options.longest();
    // A byte more, so that a longer datagram is told from one that fits.
    let mut buffer = vec![0; max + 1];
    let mut drops = socket.drops();
    let counted = drops.is_some();
    let mut ask: Option<Instant> = None;
    let take = |reader: &mut Reader, bytes: &[u8], peer| {
        let truncated = bytes.len() > max;
        let bytes = trim(&bytes[..bytes.len().min(max)]);
        if !bytes.is_empty() {
            sink.emit(reader.record(Line { bytes, truncated }, peer));
        }
    };
    let mut say_lost = |reader: &Reader| {
        let lost = drops.as_mut().map_or(0, Drops::more);
        if lost > 0 {
            tracing::warn!(lost, "the kernel dropped datagrams before they were read");
            sink.emit(reader.lost(lost));
        }
    };
    loop {
        let due = ask.unwrap_or_else(Instant::now);
        tokio::select! {
            biased;
            () = cancel.cancelled() => break,
            () = sleep_until(due), if ask.is_some() => {
                ask = None;
                say_lost(&reader);
            }
            received = socket.receive(&mut buffer) => match received {
                Ok((read, peer)) => {
                    take(&mut reader, &buffer[..read], peer);
                    if counted {
                        ask.get_or_insert_with(|| Instant::now() + ASK);
                    }
                }
                // Of an earlier answer, or of want of memory: the next may be better.
                Err(error) => {
                    tracing::warn!(%error, "a datagram could not be received");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            },
        }
    }
    for _ in 0..AFTER_CANCEL {
        match socket.try_receive(&mut buffer) {
            Ok((read, peer)) => take(&mut reader, &buffer[..read], peer),
            Err(_) => break,
        }
    }
    say_lost(&reader);
}
