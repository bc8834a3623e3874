//! Source: syslog, as RFC 5424 and RFC 3164 have it, over UDP (RFC 5426), TCP (RFC 6587) and the
//! sockets of this machine (/dev/log).
//!
//! | of a message | becomes |
//! |---|---|
//! | severity of its priority | severity, RFC 5424 table 2 |
//! | facility | attribute `facility`: `daemon`, `local0`, … |
//! | program (APP-NAME, tag) | the source; with another source, attribute `identifier` |
//! | process id | attribute `pid` |
//! | host | attribute `host`, unless it is this device; the sender's address where there is none |
//! | MSGID | attribute `msgid` |
//! | structured data | attributes `sd.<SD-ID>.<PARAM-NAME>` |
//! | a time that cannot be read, or lies ahead | attribute `timestamp` |
//!
//! What may be lost: a datagram, when the kernel's buffer is full (counted by the kernel and published
//! as an event) or when the publisher has no room (counted and declared as for every source that
//! cannot wait). TCP waits, so that the sender notices and can queue; but syslog over TCP has no
//! acknowledgements: what the sender's kernel took and this program had not read is lost when this
//! program is killed. Told to end, it first says so on every connection and then reads what is still
//! on the way.

mod datagram;
mod drops;
mod frame;
mod local;
mod stream;

use std::{
    io,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use serde::Deserialize;
use thinglog_schemas::{Severity, batch::MAX_MESSAGE, name};
use tokio::net::{TcpListener, UdpSocket, UnixDatagram, UnixListener};
use tokio_util::sync::CancellationToken;

use super::{
    SourceError,
    lines::Line,
    recognise::{
        LineOptions, Parse, Recogniser, Zone,
        syslog::{self, Origin, Syslog},
    },
    sink::Sink,
    units::{Size, Time},
};
use crate::Record;

/// Where to receive, and what becomes of it.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SyslogOptions {
    /// Address for UDP, as in `127.0.0.1:514`. Whoever can reach it can write.
    pub udp: Option<SocketAddr>,
    /// Address for TCP; the same goes for it.
    pub tcp: Option<SocketAddr>,
    /// Path of a datagram socket, as in /dev/log.
    pub datagram: Option<PathBuf>,
    /// Path of a stream socket.
    pub stream: Option<PathBuf>,
    /// The source of all events; `None`: as `source_from` says.
    pub source: Option<String>,
    /// What names the source.
    pub source_from: SourceFrom,
    /// What messages are, once their header is off.
    pub parse: Parse,
    /// Of times that name no zone.
    pub timezone: Zone,
    /// The longest message, at most 256 KiB; longer ones are cut and flagged.
    pub max_message: Size,
    /// TCP and stream connections at once, each; further ones are closed at once.
    pub max_connections: usize,
    /// After this time a silent connection is closed. A sender may lose the message by which it
    /// notices.
    pub idle: Time,
}

impl Default for SyslogOptions {
    fn default() -> SyslogOptions {
        SyslogOptions {
            udp: None,
            tcp: None,
            datagram: None,
            stream: None,
            source: None,
            source_from: SourceFrom::App,
            parse: Parse::Auto,
            timezone: Zone::Local,
            max_message: Size(64 << 10),
            max_connections: 64,
            idle: Time(Duration::from_secs(24 * 3600)),
        }
    }
}

impl SyslogOptions {
    /// The longest message, bytes.
    fn longest(&self) -> usize {
        let bytes = usize::try_from(self.max_message.0).unwrap_or(MAX_MESSAGE);
        bytes.clamp(1, MAX_MESSAGE)
    }
}

/// What names the source of a message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SourceFrom {
    /// The program; `syslog` when it is not said.
    #[default]
    App,
    /// The host; the sender's address when it is not said, `syslog` for this device.
    Host,
}

/// The source when a message does not say.
const UNNAMED: &str = "syslog";

/// Receives until `cancel`. Fails when nothing is to be received, or a socket cannot be bound.
pub async fn run_syslog_source(
    sink: &Sink,
    options: SyslogOptions,
    cancel: CancellationToken,
) -> Result<(), SourceError> {
    let listeners = SyslogListeners::bind(options)?;
    listeners.run(sink, cancel).await;
    Ok(())
}

/// Sockets that are bound, so that nothing sent from now on is refused.
#[derive(Debug)]
pub struct SyslogListeners {
    options: Arc<SyslogOptions>,
    udp: Option<UdpSocket>,
    tcp: Option<TcpListener>,
    datagram: Option<(UnixDatagram, local::Place)>,
    stream: Option<(UnixListener, local::Place)>,
}

impl SyslogListeners {
    /// Binds every socket that is configured. To be called within a runtime.
    pub fn bind(options: SyslogOptions) -> Result<SyslogListeners, SourceError> {
        let failed = |what: String| move |source| SourceError::Io { what, source };
        let bound_udp = |address: SocketAddr| {
            datagram::bind(address).map_err(failed(format!("syslog over UDP on {address}")))
        };
        let bound_tcp = |address: SocketAddr| {
            stream::bind(address).map_err(failed(format!("syslog over TCP on {address}")))
        };
        let udp = options.udp.map(bound_udp).transpose()?;
        let tcp = options.tcp.map(bound_tcp).transpose()?;
        let datagram = options.datagram.as_deref().map(|path| {
            local::bind(path, |path| UnixDatagram::bind(path))
                .map_err(failed(format!("syslog on {}", path.display())))
        });
        let datagram = datagram.transpose()?;
        let stream = options.stream.as_deref().map(|path| {
            local::bind(path, |path| UnixListener::bind(path))
                .map_err(failed(format!("syslog on {}", path.display())))
        });
        let stream = stream.transpose()?;
        if udp.is_none() && tcp.is_none() && datagram.is_none() && stream.is_none() {
            return Err(SourceError::Io {
                what: "syslog".to_owned(),
                source: io::Error::new(
                    io::ErrorKind::InvalidInput,
                    "nowhere to receive: set udp, tcp, datagram or stream",
                ),
            });
        }
        Ok(SyslogListeners {
            options: Arc::new(options),
            udp,
            tcp,
            datagram,
            stream,
        })
    }

    /// Where UDP is received.
    pub fn udp(&self) -> Option<SocketAddr> {
        self.udp.as_ref()?.local_addr().ok()
    }

    /// Where TCP is received.
    pub fn tcp(&self) -> Option<SocketAddr> {
        self.tcp.as_ref()?.local_addr().ok()
    }

    /// Receives until `cancel`, then what is still on the way.
    pub async fn run(self, sink: &Sink, cancel: CancellationToken) {
        let options = &self.options;
        let reader = || Reader::new(options.clone());
        let udp = async {
            if let Some(socket) = self.udp {
                datagram::receive(sink, datagram::Socket::Udp(socket), reader(), &cancel).await;
            }
        };
        let datagram = async {
            if let Some((socket, _place)) = self.datagram {
                datagram::receive(sink, datagram::Socket::Unix(socket), reader(), &cancel).await;
            }
        };
        let tcp = async {
            if let Some(listener) = self.tcp {
                stream::accept(sink, stream::Listener::Tcp(listener), options, &cancel).await;
            }
        };
        let stream = async {
            if let Some((listener, _place)) = self.stream {
                stream::accept(sink, stream::Listener::Unix(listener), options, &cancel).await;
            }
        };
        tokio::join!(udp, datagram, tcp, stream);
    }
}

/// Who sent something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Peer {
    /// A program of this machine, over a socket of the file system.
    Local,
    /// Over the network, perhaps this machine's own.
    Network(IpAddr),
}

impl Peer {
    fn origin(self) -> Origin<'static> {
        match self {
            Peer::Local => Origin::Local,
            Peer::Network(_) => Origin::Network,
        }
    }

    /// The address, if it is another machine's.
    fn foreign(self) -> Option<String> {
        match self {
            Peer::Network(address) if !address.to_canonical().is_loopback() => {
                Some(address.to_canonical().to_string())
            }
            _ => None,
        }
    }
}

/// Makes records of messages.
struct Reader {
    options: Arc<SyslogOptions>,
    recogniser: Recogniser,
}

impl Reader {
    fn new(options: Arc<SyslogOptions>) -> Reader {
        let source = options.source.as_deref().unwrap_or(UNNAMED);
        let lines = LineOptions {
            parse: options.parse,
            timezone: options.timezone.clone(),
        };
        Reader {
            recogniser: Recogniser::new(source, Severity::INFO).reading(lines),
            options,
        }
    }

    /// The record of one message, whatever it is.
    fn record(&mut self, message: Line<'_>, peer: Peer) -> Record {
        let text = message.text();
        let mut record = match syslog::parse(&text, peer.origin()) {
            Some(parsed) => self.message(parsed, peer),
            None => self.unnamed(&text, peer),
        };
        record.truncated |= message.truncated;
        record
    }

    fn message(&mut self, parsed: Syslog<'_>, peer: Peer) -> Record {
        let source = self.source(&parsed, peer);
        let named = parsed.app.is_some() && parsed.app == source.as_deref();
        let hosted = parsed.host.is_some();
        let mut record = self.recogniser.message(parsed, named);
        if let Some(source) = source {
            record.source = source.into();
        }
        if !hosted {
            say_sender(&mut record, peer);
        }
        record
    }

    /// A message without any header.
    fn unnamed(&mut self, text: &str, peer: Peer) -> Record {
        let source = self.source(&Syslog::default(), peer);
        let mut record = self.recogniser.plain(text);
        if let Some(source) = source {
            record.source = source.into();
        }
        say_sender(&mut record, peer);
        record
    }

    /// The source of a message, unless all have the same.
    fn source(&self, parsed: &Syslog<'_>, peer: Peer) -> Option<String> {
        if self.options.source.is_some() {
            return None;
        }
        let said = match self.options.source_from {
            SourceFrom::App => parsed.app.map(str::to_owned),
            SourceFrom::Host => parsed.host.map(str::to_owned).or_else(|| peer.foreign()),
        };
        let source = said.filter(|source| !source.is_empty());
        Some(name::encode(source.as_deref().unwrap_or(UNNAMED)).into_owned())
    }

    /// An event of this source about itself.
    fn lost(&self, lost: u64) -> Record {
        let source = self.options.source.as_deref().unwrap_or(UNNAMED);
        let text = format!("{lost} datagrams were dropped by the kernel before they were read");
        Record::new(source, Severity::WARN, text).with("lost", lost)
    }
}

/// Notes the sender's address as its host.
fn say_sender(record: &mut Record, peer: Peer) {
    if let Some(address) = peer.foreign() {
        let host = record.attributes.entry("host");
        host.or_insert_with(|| address.into());
    }
}

#[cfg(test)]
mod tests;
