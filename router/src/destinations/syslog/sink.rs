//! Sends messages.

use std::io;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UdpSocket;

use super::encode::SyslogEncoder;
use crate::deliver::remote::Sink;
use crate::deliver::remote::request::Request;
use crate::deliver::remote::verdict::Verdict;
use crate::net::address::Address;
use crate::net::wire::{self, Server, Wire};

/// How messages travel.
pub(super) enum Transport {
    /// A datagram each.
    Datagrams(Address),
    /// A connection for each request; the server's close says that it has read everything.
    Confirmed(Server),
    /// Connections that are kept.
    Kept {
        server: Server,
        idle: Mutex<Vec<Box<dyn Wire>>>,
    },
}

impl Transport {
    pub(super) fn kept(server: Server) -> Transport {
        let idle = Mutex::default();
        Transport::Kept { server, idle }
    }
}

/// Sends to one server.
pub(crate) struct SyslogSink {
    pub(super) transport: Transport,
    pub(super) within: Duration,
}

impl Sink for SyslogSink {
    type Encoder = SyslogEncoder;

    async fn send(&self, request: &Request, body: Vec<u8>) -> Verdict {
        let sending = async {
            match &self.transport {
                Transport::Datagrams(address) => send_datagrams(address, request).await,
                Transport::Confirmed(server) => send_and_end(server, &body).await,
                Transport::Kept { server, idle } => {
                    let spare = idle.lock().pop();
                    let wire = send_on(server, spare, &body).await?;
                    idle.lock().push(wire);
                    Ok(())
                }
            }
        };
        match tokio::time::timeout(self.within, sending).await {
            Ok(Ok(())) => Verdict::Accepted,
            Ok(Err(reason)) => Verdict::retry(reason),
            Err(_) => Verdict::retry(self.too_late()),
        }
    }
}

impl SyslogSink {
    fn too_late(&self) -> String {
        let within = self.within.as_millis();
        match self.transport {
            Transport::Confirmed(_) => format!(
                "the server has not read everything and closed the connection within {within} ms; if it \
                 never does, set confirm = false"
            ),
            _ => format!("the server has not taken everything within {within} ms"),
        }
    }
}

async fn send_datagrams(address: &Address, request: &Request) -> Result<(), String> {
    let Address { host, port, .. } = address;
    let named = |error: io::Error| format!("{host}:{port}: {error}");
    let mut found = tokio::net::lookup_host((host.as_str(), *port))
        .await
        .map_err(named)?;
    let server = found.next().ok_or(format!("{host}: no address"))?;
    let any = if server.is_ipv4() {
        "0.0.0.0:0"
    } else {
        "[::]:0"
    };
    let socket = UdpSocket::bind(any).await.map_err(named)?;
    socket.connect(server).await.map_err(named)?;
    for message in request.pieces() {
        socket.send(message).await.map_err(named)?;
    }
    // What came back so far: nobody listens there.
    match socket.take_error().map_err(named)? {
        Some(error) => Err(named(error)),
        None => Ok(()),
    }
}

async fn send_and_end(server: &Server, body: &[u8]) -> Result<(), String> {
    let mut wire = server.connect().await?;
    wire.write_all(body).await.map_err(broken)?;
    wire.flush().await.map_err(broken)?;
    if wire::is_spent(&mut wire).await {
        return Err("the server closed the connection before it had everything".into());
    }
    wire.shutdown().await.map_err(broken)?;
    let mut nothing = [0; 256];
    loop {
        match wire.read(&mut nothing).await {
            Ok(0) => return Ok(()),
            // Not the server's turn to speak; it may all the same.
            Ok(_) => {}
            // Closed without saying so in TLS as well, as many servers do.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            Err(error) => return Err(broken(error)),
        }
    }
}

/// Gives the connection back, to be used again.
async fn send_on(
    server: &Server,
    spare: Option<Box<dyn Wire>>,
    body: &[u8],
) -> Result<Box<dyn Wire>, String> {
    let mut wire = match reusable(spare).await {
        Some(wire) => wire,
        None => server.connect().await?,
    };
    wire.write_all(body).await.map_err(broken)?;
    wire.flush().await.map_err(broken)?;
    match wire::is_spent(&mut wire).await {
        true => Err("the server closed the connection".into()),
        false => Ok(wire),
    }
}

/// A kept connection, unless the server has closed it.
async fn reusable(spare: Option<Box<dyn Wire>>) -> Option<Box<dyn Wire>> {
    let mut wire = spare?;
    (!wire::is_spent(&mut wire).await).then_some(wire)
}

fn broken(error: io::Error) -> String {
    format!("the connection broke: {error}")
}
